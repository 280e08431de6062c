//! What a program does, said once more and as simply as can be: over files in memory, step by step, by
//! recursion. It shares nothing with the chain but the program.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::super::{Stop, When};
use super::program::{Asked, Atom, Mode, NAMES, Node, Number, Test, Toy, VARIABLES, What};

/// An error, comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Os(i32),
    Kind(io::ErrorKind),
}

impl From<&io::Error> for Trouble {
    fn from(error: &io::Error) -> Trouble {
        error.raw_os_error().map_or(Trouble::Kind(error.kind()), Trouble::Os)
    }
}

impl Trouble {
    fn is_not_found(self) -> bool {
        matches!(self, Trouble::Os(libc::ENOENT))
    }
}

pub(super) type Outcome = Result<u64, Trouble>;

/// What happens to a run of a step from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) trouble: Trouble,
    /// The chain is told to end.
    pub(super) aborts: bool,
    /// Bytes that were moved before, as the chain knows.
    pub(super) moved: usize,
    /// Bytes that were written before, as the file knows.
    pub(super) written: usize,
}

/// One step's line of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) runs: u64,
    pub(super) moved: u64,
    pub(super) result: Option<Outcome>,
}

/// All that can be seen of a chain that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) lines: Vec<Line>,
    pub(super) cleanups: Vec<(usize, Outcome)>,
    pub(super) failure: Option<Trouble>,
    pub(super) failed: Option<usize>,
    pub(super) moved: u64,
    pub(super) data: BTreeMap<usize, Vec<u8>>,
    pub(super) variables: Vec<u64>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Files that are handed over.
    pub(super) kept: Vec<usize>,
}

/// How a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Leave,
    End,
}

#[derive(Clone, Copy)]
struct Descriptor {
    inode: usize,
    mode: Mode,
    keep: bool,
}

pub(super) struct Model<'a> {
    names: HashMap<usize, usize>,
    inodes: Vec<Vec<u8>>,
    open: HashMap<usize, Descriptor>,
    sizes: HashMap<usize, u64>,
    sum: u64,
    pending: Vec<Pending>,
    faults: &'a HashMap<(usize, u64), Fault>,
    cleanup_faults: &'a HashMap<usize, Trouble>,
    seen: Seen,
}

enum Pending {
    Close(usize),
    Unlink(usize, usize, When),
}

/// Says what comes of a program of so many steps that finds these files.
pub(super) fn foresee(
    program: &[Node],
    steps: usize,
    files: &BTreeMap<String, Vec<u8>>,
    faults: &HashMap<(usize, u64), Fault>,
    cleanup_faults: &HashMap<usize, Trouble>,
) -> Seen {
    let mut model = Model {
        names: HashMap::new(),
        inodes: Vec::new(),
        open: HashMap::new(),
        sizes: HashMap::new(),
        sum: 0,
        pending: Vec::new(),
        faults,
        cleanup_faults,
        seen: Seen { lines: vec![Line::default(); steps], ..Seen::default() },
    };
    model.seen.variables = vec![0, 100];
    assert_eq!(VARIABLES, 2);
    for (name, content) in files {
        let name = NAMES.iter().position(|other| other == name).unwrap();
        model.names.insert(name, model.inodes.len());
        model.inodes.push(content.clone());
    }
    model.block(program);
    model.clean_up();
    for (name, inode) in &model.names {
        model.seen.files.insert(NAMES[*name].to_owned(), model.inodes[*inode].clone());
    }
    model.seen
}

impl Model<'_> {
    fn block(&mut self, nodes: &[Node]) -> Flow {
        for node in nodes {
            let flow = self.step(node);
            if flow != Flow::Next {
                return flow;
            }
        }
        Flow::Next
    }

    fn step(&mut self, node: &Node) -> Flow {
        let line = &mut self.seen.lines[node.id];
        line.runs += 1;
        let fault = self.faults.get(&(node.id, line.runs)).copied();
        match &node.what {
            What::Loop { most, body } => return self.repeat(node.id, *most, body),
            What::Branch { condition, then, other } => {
                let holds = self.holds(condition);
                self.seen.lines[node.id].result = Some(Ok(holds.into()));
                return self.block(if holds { then } else { other });
            }
            What::Leave { condition } => {
                let holds = self.holds(condition);
                self.seen.lines[node.id].result = Some(Ok(holds.into()));
                return if holds { Flow::Leave } else { Flow::Next };
            }
            _ => {}
        }
        let (result, moved) = self.work(node, fault);
        let line = &mut self.seen.lines[node.id];
        line.moved += moved;
        line.result = Some(result);
        self.seen.moved += moved;
        match result {
            Err(trouble) if node.stop != Stop::Never || fault.is_some_and(|f| f.aborts) => {
                self.seen.failure = Some(trouble);
                self.seen.failed = Some(node.id);
                Flow::End
            }
            Ok(0) if node.stop == Stop::Zero => Flow::Leave,
            Ok(count) if node.stop == Stop::Short && count < self.asked(node) => Flow::Leave,
            _ => Flow::Next,
        }
    }

    fn repeat(&mut self, id: usize, most: u64, body: &[Node]) -> Flow {
        for round in 1..=most {
            let line = &mut self.seen.lines[id];
            line.runs += u64::from(round > 1);
            line.result = Some(Ok(round));
            match self.block(body) {
                Flow::Next => {}
                Flow::Leave => return Flow::Next,
                Flow::End => return Flow::End,
            }
        }
        let trouble = Trouble::Kind(io::ErrorKind::Other);
        self.seen.lines[id].result = Some(Err(trouble));
        self.seen.failure = Some(trouble);
        self.seen.failed = Some(id);
        Flow::End
    }

    fn asked(&self, node: &Node) -> u64 {
        match &node.what {
            What::Read { length, .. } => self.number(length),
            other => panic!("{other:?} has no length"),
        }
    }

    /// A step that does something: its result, and the bytes that it moved.
    fn work(&mut self, node: &Node, fault: Option<Fault>) -> (Outcome, u64) {
        match &node.what {
            What::Read { file, offset, length } => {
                let (offset, length) = (self.number(offset), self.number(length));
                return self.read(node.id, *file, offset, length, fault);
            }
            What::Write { file, offset, content } => {
                let offset = self.number(offset);
                let content = match content {
                    Ok(step) => self.seen.data[step].clone(),
                    Err(bytes) => bytes.clone(),
                };
                return self.write(*file, offset, &content, fault);
            }
            What::Close { file } => {
                assert!(self.open.contains_key(file));
                if let Some(Fault { aborts: true, trouble, .. }) = fault {
                    // Not closed yet; that is left to the clean-up.
                    return (Err(trouble), 0);
                }
                self.open.remove(file);
                self.pending.retain(|p| !matches!(p, Pending::Close(other) if other == file));
                return (fault.map_or(Ok(0), |fault| Err(fault.trouble)), 0);
            }
            What::Feed { data } => {
                let input = self.seen.data[data].clone();
                return (self.feed(node.id, &input, fault), 0);
            }
            _ => {}
        }
        if let Some(fault) = fault {
            return (Err(fault.trouble), 0);
        }
        let result = match &node.what {
            What::Open { name, mode, keep } => self.open(node.id, *name, *mode, *keep),
            What::Statx { file } => {
                let size = self.inodes[self.open[file].inode].len() as u64;
                self.sizes.insert(node.id, size);
                Ok(0)
            }
            What::Fsync { file } => {
                assert!(self.open.contains_key(file));
                Ok(0)
            }
            What::Finish => {
                let sum = std::mem::take(&mut self.sum);
                self.seen.data.insert(node.id, sum.to_be_bytes().to_vec());
                Ok(8)
            }
            What::Rename { from, to } => match self.names.remove(from) {
                Some(inode) => {
                    self.names.insert(*to, inode);
                    Ok(0)
                }
                None => Err(Trouble::Os(libc::ENOENT)),
            },
            What::Unlink { name } => self.unlink(*name),
            What::Set { variable, value } => {
                let value = self.number(value);
                self.seen.variables[*variable] = value;
                Ok(value)
            }
            What::Fail { condition } if self.holds(condition) => {
                Err(Trouble::Kind(io::ErrorKind::InvalidData))
            }
            What::Fail { .. } => Ok(0),
            What::Defer { name, when } => {
                self.pending.push(Pending::Unlink(node.id, *name, *when));
                Ok(0)
            }
            other => panic!("{other:?} is done elsewhere"),
        };
        (result, 0)
    }

    fn open(&mut self, id: usize, name: usize, mode: Mode, keep: bool) -> Outcome {
        assert!(!self.open.contains_key(&id), "the file of the round before is still open");
        let found = self.names.get(&name).copied();
        let inode = match (found, mode) {
            (Some(_), Mode::CreateNew) => return Err(Trouble::Os(libc::EEXIST)),
            (None, Mode::ReadOnly | Mode::WriteOnly) => return Err(Trouble::Os(libc::ENOENT)),
            (Some(inode), _) => inode,
            (None, _) => {
                self.inodes.push(Vec::new());
                self.names.insert(name, self.inodes.len() - 1);
                self.inodes.len() - 1
            }
        };
        self.open.insert(id, Descriptor { inode, mode, keep });
        self.pending.push(Pending::Close(id));
        Ok(0)
    }

    fn read(
        &mut self,
        id: usize,
        file: usize,
        offset: u64,
        length: u64,
        fault: Option<Fault>,
    ) -> (Outcome, u64) {
        let Descriptor { inode, mode, .. } = self.open[&file];
        let there = self.inodes[inode].iter().skip(offset as usize).take(length as usize);
        let there: Vec<u8> = there.copied().collect();
        let (data, result) = match fault {
            Some(fault) => (there[..fault.moved].to_vec(), Err(fault.trouble)),
            None if mode == Mode::WriteOnly => (Vec::new(), Err(Trouble::Os(libc::EBADF))),
            None => (there.clone(), Ok(there.len() as u64)),
        };
        let moved = data.len() as u64;
        self.seen.data.insert(id, data);
        (result, moved)
    }

    fn write(
        &mut self,
        file: usize,
        offset: u64,
        content: &[u8],
        fault: Option<Fault>,
    ) -> (Outcome, u64) {
        let Descriptor { inode, mode, .. } = self.open[&file];
        if content.is_empty() {
            return (Ok(0), 0);
        }
        if mode == Mode::ReadOnly && fault.is_none() {
            return (Err(Trouble::Os(libc::EBADF)), 0);
        }
        let written = fault.map_or(content.len(), |fault| fault.written);
        if written > 0 {
            let (inode, offset) = (&mut self.inodes[inode], offset as usize);
            inode.resize(inode.len().max(offset + written), 0);
            inode[offset..offset + written].copy_from_slice(&content[..written]);
        }
        match fault {
            Some(fault) => (Err(fault.trouble), fault.moved as u64),
            None => (Ok(content.len() as u64), content.len() as u64),
        }
    }

    fn feed(&mut self, id: usize, input: &[u8], fault: Option<Fault>) -> Outcome {
        self.seen.data.insert(id, Vec::new());
        if let Some(fault) = fault {
            return Err(fault.trouble);
        }
        if input.contains(&Toy::POISON) {
            return Err(Trouble::Kind(io::ErrorKind::InvalidData));
        }
        self.sum += input.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let output: Vec<u8> = input.iter().map(|byte| byte.wrapping_add(1)).collect();
        self.seen.data.insert(id, output);
        Ok(input.len() as u64)
    }

    fn unlink(&mut self, name: usize) -> Outcome {
        self.names.remove(&name).map(|_| 0).ok_or(Trouble::Os(libc::ENOENT))
    }

    fn clean_up(&mut self) {
        while let Some(pending) = self.pending.pop() {
            match pending {
                Pending::Close(id) if self.open[&id].keep => self.seen.kept.push(id),
                Pending::Close(id) => {
                    let result = self.cleanup_faults.get(&id).map_or(Ok(0), |t| Err(*t));
                    self.seen.cleanups.push((id, result));
                }
                Pending::Unlink(_, _, When::Failed) if self.seen.failure.is_none() => {}
                Pending::Unlink(id, name, _) => {
                    let fault = self.cleanup_faults.get(&id).copied();
                    let result = fault.map_or_else(|| self.unlink(name), Err);
                    self.seen.cleanups.push((id, result));
                }
            }
        }
        self.seen.kept.sort_unstable();
    }

    fn atom(&self, atom: Atom) -> u64 {
        match atom {
            Atom::Constant(number) => number,
            Atom::Variable(variable) => self.seen.variables[variable],
            Atom::Count(step) => {
                self.seen.lines[step].result.expect("a step that ran").expect("one that succeeded")
            }
            Atom::Size(step) => self.sizes[&step],
        }
    }

    fn number(&self, number: &Number) -> u64 {
        let (first, other) = (self.atom(number.first), self.atom(number.other));
        let value = match number.change {
            0 => first + other,
            1 => first.saturating_sub(other),
            2 => first.min(other),
            _ => first.max(other),
        };
        value.min(number.most)
    }

    fn holds(&self, test: &Test) -> bool {
        let result = |step: usize| self.seen.lines[step].result;
        let holds = match &test.what {
            Asked::Succeeded(step) => matches!(result(*step), Some(Ok(_))),
            Asked::NotFound(step) => matches!(result(*step), Some(Err(t)) if t.is_not_found()),
            Asked::Equal(one, other) => self.number(one) == self.number(other),
            Asked::Less(one, other) => self.number(one) < self.number(other),
            Asked::Holds(step, bytes) => self.seen.data[step] == *bytes,
        };
        holds != test.negated
    }
}
