//! Random programs, written down in a way of their own: made from numbers, made into chains.

use proptest::prelude::*;

use super::super::values::Reference;
use super::super::*;
use crate::ops::{Open, Rename, Unlink};

/// The names that programs use.
pub(super) const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Variables of each program.
pub(super) const VARIABLES: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Which step of the chain it is.
    pub(super) id: usize,
    pub(super) stop: Stop,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Open { name: usize, mode: Mode, keep: bool },
    Statx { file: usize },
    Read { file: usize, offset: Number, length: Number },
    Write { file: usize, offset: Number, content: Result<usize, Vec<u8>> },
    Fsync { file: usize },
    Close { file: usize },
    Feed { data: usize },
    Finish,
    Rename { from: usize, to: usize },
    Unlink { name: usize },
    Set { variable: usize, value: Number },
    Loop { most: u64, body: Vec<Node> },
    Branch { condition: Test, then: Vec<Node>, other: Vec<Node> },
    Leave { condition: Test },
    Fail { condition: Test },
    Defer { name: usize, when: When },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    ReadOnly,
    WriteOnly,
    Create,
    CreateNew,
}

/// `first`, plus, minus, at most or at least `other`; and at most `most`, so that files stay small.
#[derive(Clone, Debug)]
pub(super) struct Number {
    pub(super) first: Atom,
    pub(super) change: u8,
    pub(super) other: Atom,
    pub(super) most: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Atom {
    Constant(u64),
    Variable(usize),
    Count(usize),
    Size(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) negated: bool,
    pub(super) what: Asked,
}

#[derive(Clone, Debug)]
pub(super) enum Asked {
    Succeeded(usize),
    NotFound(usize),
    Equal(Number, Number),
    Less(Number, Number),
    Holds(usize, Vec<u8>),
}

/// What proptest makes, and makes smaller.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Leaf([u8; 6]),
    Loop([u8; 6], Vec<Raw>),
    Branch([u8; 6], Vec<Raw>, Vec<Raw>),
}

pub(super) fn programs() -> impl Strategy<Value = Vec<Node>> {
    let leaf = any::<[u8; 6]>().prop_map(Raw::Leaf);
    let raw = leaf.prop_recursive(3, 40, 8, |inner| {
        let block = || prop::collection::vec(inner.clone(), 0..8);
        prop_oneof![
            3 => any::<[u8; 6]>().prop_map(Raw::Leaf),
            1 => (any::<[u8; 6]>(), block()).prop_map(|(b, body)| Raw::Loop(b, body)),
            1 => (any::<[u8; 6]>(), block(), block())
                .prop_map(|(b, then, other)| Raw::Branch(b, then, other)),
        ]
    });
    prop::collection::vec(raw, 1..24).prop_map(|raw| Author::default().block(&raw))
}

/// Makes sense of raw numbers: what a step uses is mostly there.
#[derive(Clone, Default)]
struct Author {
    next: usize,
    files: Vec<usize>,
    stats: Vec<usize>,
    data: Vec<usize>,
    steps: Vec<usize>,
    /// Those that give a file, bytes or a size if they succeed.
    opens: Vec<usize>,
    reads: Vec<usize>,
    looks: Vec<usize>,
    closed: Vec<usize>,
    /// Files that no step may close here.
    untouchable: Vec<usize>,
    in_loop: bool,
}

/// The one that the byte chooses.
fn pick(from: &[usize], byte: u8) -> Option<usize> {
    from.get(usize::from(byte) % from.len().max(1)).copied()
}

impl Author {
    fn block(&mut self, raw: &[Raw]) -> Vec<Node> {
        let mut nodes = Vec::new();
        for raw in raw {
            match raw {
                Raw::Leaf(bytes) => nodes.extend(self.leaf(*bytes)),
                Raw::Loop(bytes, body) => nodes.push(self.repeat(*bytes, body)),
                Raw::Branch(bytes, then, other) => nodes.push(self.branch(*bytes, then, other)),
            }
        }
        nodes
    }

    fn id(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn repeat(&mut self, bytes: [u8; 6], body: &[Raw]) -> Node {
        let id = self.id();
        let mut inner = self.clone();
        inner.in_loop = true;
        inner.untouchable.clone_from(&self.opens);
        let condition = inner.test([bytes[2], bytes[3], bytes[4], bytes[5]]);
        let leave = What::Leave { condition };
        let mut nodes = vec![Node { id: inner.id(), stop: Stop::Error, what: leave }];
        nodes.extend(inner.block(body));
        for file in inner.opens.clone() {
            if !self.opens.contains(&file) && !inner.closed.contains(&file) {
                nodes.push(inner.close(file));
            }
        }
        self.next = inner.next;
        self.steps.push(id);
        let most = u64::from(bytes[0] % 6) + 1;
        Node { id, stop: Stop::Error, what: What::Loop { most, body: nodes } }
    }

    /// Closes a file if it is open.
    fn close(&mut self, file: usize) -> Node {
        let id = self.id();
        let close = Node { id: self.id(), stop: Stop::Error, what: What::Close { file } };
        let condition = Test { negated: false, what: Asked::Succeeded(file) };
        let what = What::Branch { condition, then: vec![close], other: Vec::new() };
        Node { id, stop: Stop::Error, what }
    }

    fn branch(&mut self, bytes: [u8; 6], then: &[Raw], other: &[Raw]) -> Node {
        let id = self.id();
        let condition = self.test([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let mut inner = self.clone();
        // What a branch finds out may be used in it.
        if let (Asked::Succeeded(step), false) = (&condition.what, condition.negated) {
            if inner.opens.contains(step) {
                inner.files.push(*step);
            }
            if inner.reads.contains(step) {
                inner.data.push(*step);
            }
        }
        let then = inner.block(then);
        let mut outer = self.clone();
        outer.next = inner.next;
        let other = outer.block(other);
        self.next = outer.next;
        self.files.retain(|file| inner.files.contains(file) && outer.files.contains(file));
        self.steps.push(id);
        Node { id, stop: Stop::Error, what: What::Branch { condition, then, other } }
    }

    fn leaf(&mut self, bytes: [u8; 6]) -> Option<Node> {
        // One in eight does not care whether what it uses is there. The check does.
        let careless = Author {
            files: self.opens.clone(),
            data: self.reads.clone(),
            stats: self.looks.clone(),
            ..self.clone()
        };
        let what = if bytes[0] >= 224 { careless.what(bytes)? } else { self.what(bytes)? };
        let node = Node { id: self.id(), stop: stop_of(&what, bytes[5]), what };
        self.learn(&node);
        Some(node)
    }

    fn what(&self, [kind, a, b, c, d, _]: [u8; 6]) -> Option<What> {
        let mode = [Mode::ReadOnly, Mode::WriteOnly, Mode::Create, Mode::CreateNew];
        Some(match kind % 24 {
            0..=3 => What::Open {
                name: usize::from(a) % NAMES.len(),
                mode: mode[usize::from(b) % 4],
                keep: c % 8 == 1 && !self.in_loop,
            },
            4 => What::Statx { file: pick(&self.files, a)? },
            5..=8 => What::Read {
                file: pick(&self.files, a)?,
                offset: self.number([b, c], 9000),
                length: self.number([d, c], 6000),
            },
            9..=12 => What::Write {
                file: pick(&self.files, a)?,
                offset: self.number([b, c], 9000),
                content: pick(&self.data, d).filter(|_| d % 3 > 0).ok_or(vec![d; usize::from(c)]),
            },
            13 => What::Fsync { file: pick(&self.files, a)? },
            14 => What::Close {
                file: pick(&self.files, a).filter(|file| !self.untouchable.contains(file))?,
            },
            15 | 16 => What::Feed { data: pick(&self.data, a)? },
            17 => What::Finish,
            18 => What::Rename { from: usize::from(a) % 4, to: usize::from(b) % 4 },
            19 => What::Unlink { name: usize::from(a) % 4 },
            20 => {
                What::Set { variable: usize::from(a) % VARIABLES, value: self.number([b, c], 9000) }
            }
            21 => What::Leave { condition: self.test([a, b, c, d]) },
            22 => What::Fail { condition: self.test([a, b, c, d]) },
            _ if self.in_loop => return None,
            _ => What::Defer {
                name: usize::from(a) % 4,
                when: if b % 2 == 0 { When::Failed } else { When::Always },
            },
        })
    }

    /// What may be used from here on.
    fn learn(&mut self, Node { id, stop, what }: &Node) {
        self.steps.push(*id);
        match what {
            What::Open { keep, .. } => {
                self.opens.push(*id);
                self.untouchable.extend(keep.then_some(*id));
            }
            What::Close { file } => {
                self.closed.push(*file);
                self.files.retain(|other| other != file);
            }
            What::Read { .. } | What::Feed { .. } | What::Finish => self.reads.push(*id),
            What::Statx { .. } => self.looks.push(*id),
            _ => {}
        }
        if *stop == Stop::Never {
            return;
        }
        match what {
            What::Open { .. } => self.files.push(*id),
            What::Statx { .. } => self.stats.push(*id),
            What::Read { .. } | What::Feed { .. } | What::Finish => self.data.push(*id),
            _ => {}
        }
    }

    fn number(&self, [a, b]: [u8; 2], most: u64) -> Number {
        Number { first: self.atom(a), change: b % 4, other: self.atom(b / 4), most }
    }

    fn atom(&self, byte: u8) -> Atom {
        let rest = byte / 4;
        match byte % 4 {
            0 => Atom::Variable(usize::from(rest) % VARIABLES),
            1 => pick(&self.data, rest).map_or(Atom::Constant(0), Atom::Count),
            2 => pick(&self.stats, rest).map_or(Atom::Constant(1), Atom::Size),
            _ => Atom::Constant(u64::from(rest) * 90),
        }
    }

    fn test(&self, [a, b, c, d]: [u8; 4]) -> Test {
        let step = pick(&self.steps, c);
        let what = match (a % 5, step, pick(&self.data, c)) {
            (0, Some(step), _) => Asked::Succeeded(step),
            (1, Some(step), _) => Asked::NotFound(step),
            (2, _, Some(data)) => Asked::Holds(data, Vec::new()),
            (3, ..) => Asked::Equal(self.number([c, d], 9000), self.number([d, 0], 9000)),
            _ => Asked::Less(self.number([c, d], 9000), self.number([d, 1], 9000)),
        };
        Test { negated: b % 2 == 0, what }
    }
}

fn stop_of(what: &What, byte: u8) -> Stop {
    match (what, byte % 6) {
        (What::Set { .. } | What::Leave { .. } | What::Fail { .. } | What::Defer { .. }, _) => {
            Stop::Error
        }
        (What::Read { .. } | What::Feed { .. } | What::Write { .. }, 0) => Stop::Zero,
        (What::Read { .. }, 1) => Stop::Short,
        (_, 2 | 3) => Stop::Never,
        _ => Stop::Error,
    }
}

/// Adds 1 to each byte, and ends with their sum. There is a byte that it can't bear.
#[derive(Default)]
pub(super) struct Toy(u64);

impl Toy {
    pub(super) const POISON: u8 = 0xee;
}

impl Transform for Toy {
    fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> std::io::Result<()> {
        if input.contains(&Toy::POISON) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        self.0 += input.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        output.extend(input.iter().map(|byte| byte.wrapping_add(1)));
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> std::io::Result<()> {
        output.extend(std::mem::take(&mut self.0).to_be_bytes());
        Ok(())
    }
}

/// The program as a chain that works in `root`.
pub(super) fn chain_of(program: &[Node], root: &Fd, cold: bool) -> Chain {
    let mut chain = if cold { Chain::new().cold() } else { Chain::new() };
    let variables = [chain.variable(0), chain.variable(100)];
    let stream = chain.transform(Toy::default());
    Scribe { root, variables, stream }.block(&mut chain, program);
    chain
}

struct Scribe<'a> {
    root: &'a Fd,
    variables: [Variable; VARIABLES],
    stream: StreamId,
}

impl Scribe<'_> {
    fn block(&self, chain: &mut Chain, nodes: &[Node]) {
        for node in nodes {
            assert_eq!(chain.steps.len(), node.id);
            self.step(chain, node);
            chain.stop(StepId::<Effect>::new(chain.number, node.id), node.stop);
        }
    }

    fn step(&self, chain: &mut Chain, node: &Node) {
        let file = |file: usize, chain: &Chain| StepId::<Opened>::new(chain.number, file);
        let data = |data: usize, chain: &Chain| StepId::<Data>::new(chain.number, data);
        match &node.what {
            What::Open { name, mode, keep } => {
                let opened = chain.open(self.open(*name, *mode));
                if *keep {
                    chain.keep(opened);
                }
            }
            What::Statx { file: of } => drop(chain.statx(file(*of, chain))),
            What::Read { file: of, offset, length } => {
                let (offset, length) = (self.value(chain, offset), self.value(chain, length));
                chain.read(file(*of, chain), offset, length);
            }
            What::Write { file: of, offset, content } => {
                let offset = self.value(chain, offset);
                let content = match content {
                    Ok(step) => data(*step, chain).into(),
                    Err(bytes) => Content::from(bytes.clone()),
                };
                chain.write(file(*of, chain), offset, content);
            }
            What::Fsync { file: of } => drop(chain.fdatasync(file(*of, chain))),
            What::Close { file: of } => drop(chain.close(file(*of, chain))),
            What::Feed { data: of } => drop(chain.feed(self.stream, data(*of, chain))),
            What::Finish => drop(chain.finish(self.stream)),
            What::Rename { from, to } => {
                let rename = Rename::new(NAMES[*from], NAMES[*to]).at(self.root.clone());
                chain.operation(rename);
            }
            What::Unlink { name } => drop(chain.operation(self.unlink(*name))),
            What::Set { variable, value } => {
                let value = self.value(chain, value);
                chain.set(self.variables[*variable], value);
            }
            What::Loop { most, body } => {
                chain.repeat(*most, |chain| self.block(chain, body));
            }
            What::Branch { condition, then, other } => {
                let condition = self.condition(chain, condition);
                let (then, other) =
                    (|c: &mut _| self.block(c, then), |c: &mut _| self.block(c, other));
                chain.branch(condition, then, other);
            }
            What::Leave { condition } => drop(chain.leave_if(self.condition(chain, condition))),
            What::Fail { condition } => {
                let condition = self.condition(chain, condition);
                chain.fail_if(condition, std::io::ErrorKind::InvalidData);
            }
            What::Defer { name, when } => drop(chain.defer(self.unlink(*name), *when)),
        }
    }

    fn open(&self, name: usize, mode: Mode) -> Open {
        let open = Open::new(NAMES[name]).at(self.root.clone());
        match mode {
            Mode::ReadOnly => open,
            Mode::WriteOnly => open.write_only(),
            Mode::Create => open.read_write().create(0o600),
            Mode::CreateNew => open.read_write().create(0o600).flags(libc::O_EXCL),
        }
    }

    fn unlink(&self, name: usize) -> Unlink {
        Unlink::new(NAMES[name]).at(self.root.clone())
    }

    fn operand(&self, chain: &Chain, atom: Atom) -> Operand {
        match atom {
            Atom::Constant(number) => number.into(),
            Atom::Variable(variable) => self.variables[variable].into(),
            Atom::Count(step) => StepId::<Data>::new(chain.number, step).count(),
            Atom::Size(step) => StepId::<Stat>::new(chain.number, step).size(),
        }
    }

    fn value(&self, chain: &Chain, number: &Number) -> Value {
        let value = Value::from(self.operand(chain, number.first));
        let other = self.operand(chain, number.other);
        let value = match number.change {
            0 => value.plus(other),
            1 => value.minus(other),
            2 => value.min(other),
            _ => value.max(other),
        };
        value.min(number.most)
    }

    fn condition(&self, chain: &Chain, test: &Test) -> Condition {
        let step = |index| StepId::<Effect>::new(chain.number, index);
        let number = |number| self.value(chain, number);
        let condition = match &test.what {
            Asked::Succeeded(index) => Condition::succeeded(step(*index)),
            Asked::NotFound(index) => {
                Condition::failed_with(step(*index), std::io::ErrorKind::NotFound)
            }
            Asked::Equal(one, other) => Condition::equal(number(one), number(other)),
            Asked::Less(one, other) => Condition::less(number(one), number(other)),
            Asked::Holds(index, bytes) => {
                Condition::holds(StepId::new(chain.number, *index), bytes.clone())
            }
        };
        if test.negated { !condition } else { condition }
    }
}

/// Of a variable of that chain.
pub(super) fn variable(chain: &Chain, index: usize) -> Variable {
    Variable(Reference { chain: chain.number, index })
}
