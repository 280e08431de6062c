//! What can be known of a chain before it runs: whether every step finds what it needs.
//!
//! The steps are walked in the order in which they can run. At each, the walk knows what has happened
//! on every way that leads there: which steps have given their results, which files are open. Where
//! ways meet, it goes on with what they have in common.

use std::net;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::steps::{Content, ContentKind, Dirs, Header, HeaderKind, Socket, SocketKind, Work};
use super::values::{Condition, Operand, Reference, Source, Stop, Test, Value};
use super::{Chain, StepState};
use crate::operation::Operation;
use crate::ops::place::paths;
use crate::ops::read_dir::check_room;
use crate::ops::{Op, check_range};
use crate::sys::socket::is_nonblocking;

/// As many steps as a set has bits.
const MOST_STEPS: usize = 128;
/// Loops and branches within each other.
const DEEPEST: usize = 8;
/// Rounds of a loop, times those of the loop around it, and so on.
const MOST_ROUNDS: u64 = 1 << 40;
/// Operands of one value.
const MOST_OPERANDS: usize = 16;

/// A mistake, in words that follow "step 3 (Read) of the chain".
type Checked<T = ()> = Result<T, String>;

/// Steps, by their index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set(u128);

impl Set {
    fn of(step: usize) -> Set {
        Set(1 << step)
    }

    fn has(self, step: usize) -> bool {
        self.0 & Set::of(step).0 != 0
    }

    fn holds(self, other: Set) -> bool {
        other.0 & !self.0 == 0
    }

    fn with(self, step: usize) -> Set {
        Set(self.0 | Set::of(step).0)
    }

    fn without(self, step: usize) -> Set {
        Set(self.0 & !Set::of(step).0)
    }
}

/// What is known at one place of the chain.
#[derive(Clone, Copy, Default)]
struct Known {
    /// These steps have given what they give.
    given: Set,
    /// These files are open.
    open: Set,
    /// Perhaps these as well.
    perhaps_open: Set,
    /// These are open if the step that opens them succeeded: nobody has closed them since.
    unclosed: Set,
}

impl Known {
    /// What two ways have in common.
    fn and(self, other: Known) -> Known {
        Known {
            given: Set(self.given.0 & other.given.0),
            open: Set(self.open.0 & other.open.0),
            perhaps_open: Set(self.perhaps_open.0 | other.perhaps_open.0),
            unclosed: Set(self.unclosed.0 & other.unclosed.0),
        }
    }

    /// After the step has given what it gives.
    fn with(self, step: usize) -> Known {
        Known { given: self.given.with(step), ..self }
    }

    /// After a condition that turned out like that.
    fn learn(mut self, condition: &Condition, holds: bool) -> Known {
        let Test::Succeeded(step) = condition.test else { return self };
        let step = step.index;
        if holds != condition.negated {
            self.given = self.given.with(step);
            if self.unclosed.has(step) {
                self.open = self.open.with(step);
            }
        } else if self.unclosed.has(step) {
            self.perhaps_open = self.perhaps_open.without(step);
        }
        self
    }
}

/// Where ways meet. A way that leads nowhere is `None`.
fn join(one: Option<Known>, other: Option<Known>) -> Option<Known> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(other)),
        (one, other) => one.or(other),
    }
}

/// The walk.
struct Walk<'a> {
    chain: &'a Chain,
    /// For each loop that the walk is in: what is known where it is left.
    left: Vec<Option<Known>>,
    depth: usize,
    /// The step that the walk is at, to tell where a mistake is.
    at: usize,
}

/// The first mistake of the chain, with the step that makes it.
pub(super) fn check(chain: &Chain) -> Checked {
    if chain.steps.len() > MOST_STEPS {
        let count = chain.steps.len();
        return Err(format!(
            "the chain has {count} steps, and {MOST_STEPS} are the most: let steps repeat in a \
             loop, or make two chains of it"
        ));
    }
    let mut walk = Walk { chain, left: Vec::new(), depth: 0, at: 0 };
    walk.block(0, chain.steps.len(), Some(Known::default()), 1).map(drop).map_err(|mistake| {
        let name = chain.steps.get(walk.at).map_or("", |step| step.report.name);
        format!("step {} ({name}) of the chain {mistake}", walk.at)
    })
}

/// An operation as it was given.
fn whole(op: Option<&Op>) -> Checked {
    match op {
        None => Err("was given an operation that is gone".into()),
        Some(Op::Chain(_)) => Err("is a chain itself: add its steps to this one".into()),
        Some(op) if op.is_endless() => Err("has no end: submit it beside the chain".into()),
        Some(Op::Group(_)) => Err("is a group: submit it beside the chain".into()),
        Some(Op::Sendfile(_)) => {
            Err("sends to a socket: use the functions of the chain for that".into())
        }
        // A thread that has begun to wait in accept(2) could not be told to end.
        Some(Op::Accept(accept)) if !is_nonblocking(accept.listener().as_fd()) => {
            Err("accepts from a blocking listener: make that a non-blocking one".into())
        }
        Some(op) => op.check().map_err(|error| format!("can't be done: {error}")),
    }
}

/// An operation for the end, when nobody may be waited for.
fn cleanup(op: Option<&Op>) -> Checked {
    match op {
        Some(Op::Shutdown(_)) | None => {}
        Some(op) if op.source().is_some() || op.socket().is_some() => {
            return Err("may wait for a socket, which no clean-up does".into());
        }
        Some(_) => {}
    }
    whole(op)
}

/// Whether the step has what it is to stop at.
fn stops(step: &StepState) -> Checked {
    let fits = match (step.stop, &step.work) {
        (Stop::Error, _)
        | (
            Stop::Short,
            Work::Read { .. }
            | Work::Recv { all: true, .. }
            | Work::Sendfile { .. }
            | Work::Between { .. },
        ) => true,
        (Stop::Short, _)
        | (
            _,
            Work::Set { .. }
            | Work::Loop { .. }
            | Work::Branch { .. }
            | Work::Leave { .. }
            | Work::Fail { .. }
            | Work::Defer { .. },
        ) => false,
        (Stop::Zero, Work::Close { .. }) => false,
        (Stop::Zero, _) => !step.opens(),
        (Stop::Never, _) => true,
    };
    if fits { Ok(()) } else { Err(format!("can't be told to stop at {:?}", step.stop)) }
}

impl Walk<'_> {
    /// The steps from `start` up to `end`, each of which runs up to `rounds` times.
    fn block(
        &mut self,
        start: usize,
        end: usize,
        mut known: Option<Known>,
        rounds: u64,
    ) -> Checked<Option<Known>> {
        if self.depth > DEEPEST {
            return Err(format!("stands within more than {DEEPEST} loops and branches"));
        }
        self.depth += 1;
        let mut next = start;
        while next < end {
            self.at = next;
            let Some(now) = known else {
                return Err(
                    "is never come to: the steps before it end the loop or the chain".into()
                );
            };
            (known, next) = self.step(next, now, rounds)?;
        }
        self.depth -= 1;
        Ok(known)
    }

    /// One step, with the block that it heads: what is known behind it, and which step that is.
    fn step(&mut self, at: usize, known: Known, rounds: u64) -> Checked<(Option<Known>, usize)> {
        self.uses(at, &known)?;
        stops(&self.chain.steps[at])?;
        let work = &self.chain.steps[at].work;
        let behind = match work {
            Work::Loop { most, end } => {
                return Ok((Some(self.repeat(at, known, *most, *end, rounds)?), *end));
            }
            Work::Branch { condition, otherwise, end } => {
                if *otherwise <= at || end < otherwise {
                    return Err("was not built to its end".into());
                }
                let then = Some(known.learn(condition, true));
                let then = self.block(at + 1, *otherwise, then, rounds)?;
                let other = Some(known.learn(condition, false));
                let other = self.block(*otherwise, *end, other, rounds)?;
                let behind = join(then, other);
                return Ok((behind.map(|known| known.with(at)), *end));
            }
            Work::Leave { condition } => {
                self.leave(known.learn(condition, true).with(at));
                known.learn(condition, false).with(at)
            }
            Work::Fail { condition, .. } => known.learn(condition, false).with(at),
            Work::Defer { .. } | Work::Whole { repeats: false, .. } if !self.left.is_empty() => {
                return Err("runs only once, so it can't stand in a loop".into());
            }
            _ => self.run(at, known)?,
        };
        Ok((Some(behind), at + 1))
    }

    /// A step that does something to files or bytes.
    fn run(&mut self, at: usize, known: Known) -> Checked<Known> {
        let step = &self.chain.steps[at];
        let mut done = known;
        done.given = done.given.with(at);
        if step.opens() {
            if known.perhaps_open.has(at) {
                return Err("opens once more what may still be open".into());
            }
            done.open = done.open.with(at);
            done.perhaps_open = done.perhaps_open.with(at);
            done.unclosed = done.unclosed.with(at);
        }
        if let Work::Close { file } = step.work {
            done.open = done.open.without(file.index);
            done.perhaps_open = done.perhaps_open.without(file.index);
            done.unclosed = done.unclosed.without(file.index);
        }
        match step.stop {
            Stop::Error => {}
            Stop::Zero | Stop::Short => self.leave(done),
            Stop::Never if step.opens() => {
                // It may have failed; then the file is not open, and its branch finds out.
                let mut failed = known;
                failed.unclosed = failed.unclosed.with(at);
                return Ok(done.and(failed));
            }
            // A file is gone also when its closing has failed.
            Stop::Never => done.given = known.given,
        }
        Ok(done)
    }

    /// Out of the innermost loop, with this knowledge. Out of the chain, there is nothing to know.
    fn leave(&mut self, known: Known) {
        if let Some(left) = self.left.last_mut() {
            *left = join(*left, Some(known));
        }
    }

    fn repeat(
        &mut self,
        at: usize,
        known: Known,
        most: u64,
        end: usize,
        rounds: u64,
    ) -> Checked<Known> {
        if end <= at {
            return Err("was not built to its end".into());
        }
        let rounds = rounds.saturating_mul(most);
        if most == 0 || rounds > MOST_ROUNDS {
            return Err(format!(
                "is a loop of {most} rounds, with those around it {rounds}: between 1 and \
                 {MOST_ROUNDS} can be"
            ));
        }
        self.left.push(None);
        let back = self.block(at + 1, end, Some(known), rounds)?;
        let left = self.left.pop().flatten();
        self.at = at;
        if let Some(back) = back {
            if !back.open.holds(known.open) || !back.unclosed.holds(known.unclosed) {
                return Err("is a loop that closes a file from outside of it, and goes on".into());
            }
            if !known.perhaps_open.holds(back.perhaps_open) {
                return Err("is a loop that opens a file, and goes on without closing it".into());
            }
        }
        let left =
            left.ok_or("is a loop without a way out: have a step in it stop, or leave it")?;
        Ok(left.with(at))
    }

    /// Whether all that the step takes is there.
    fn uses(&self, at: usize, known: &Known) -> Checked {
        match &self.chain.steps[at].work {
            Work::Loop { .. } => Ok(()),
            Work::Whole { op, dirs, .. } => {
                self.dirs(op.as_deref(), dirs, known)?;
                whole(op.as_deref())?;
                self.in_line(op.as_deref().and_then(|op| op.socket()))
            }
            Work::Defer { op, dirs, .. } => {
                self.dirs(op.as_deref(), dirs, known)?;
                cleanup(op.as_deref())?;
                self.in_line(op.as_deref().and_then(|op| op.socket()))
            }
            Work::Between { files: [from, to], offsets, length, .. } => {
                self.file(*from, known)?;
                self.file(*to, known)?;
                offsets.iter().try_for_each(|offset| self.range(offset, length, known))
            }
            Work::OnFile { file, .. } => self.file(*file, known),
            Work::Close { file } if self.chain.keeps(file.index) => {
                self.own(*file)?;
                Err("closes a file that is to be kept".into())
            }
            Work::Close { file } => {
                self.file(*file, known)?;
                self.needed_at_the_end(*file)
            }
            Work::Read { file, offset, length } | Work::OnRange { file, offset, length, .. } => {
                self.file(*file, known)?;
                self.range(offset, length, known)
            }
            Work::ReadDir { dir, capacity } => {
                self.file(*dir, known)?;
                check_room(*capacity).map_err(|error| format!("can't be done: {error}"))
            }
            Work::Write { file, offset, data } => {
                self.file(*file, known)?;
                let own = if data.index == at { self.chain.bytes(at).len() as u64 } else { 0 };
                self.range(offset, &own.into(), known)?;
                if data.index == at { Ok(()) } else { self.given(*data, known) }
            }
            Work::Recv { socket, length, .. } => {
                self.reads(socket, known)?;
                self.value(length, known)
            }
            Work::Shutdown { socket, how: net::Shutdown::Read } => self.reads(socket, known),
            Work::Shutdown { socket, .. } => self.writes(socket, known),
            Work::Sendfile { socket, file, span, header } => {
                self.writes(socket, known)?;
                self.file(*file, known)?;
                self.header(header, known)?;
                self.value(&span.offset, known)?;
                self.value(&span.length, known)
            }
            Work::Send { socket, content } => {
                self.writes(socket, known)?;
                self.content(content, known)
            }
            Work::Feed { stream, data } => {
                self.own(*stream)?;
                self.given(*data, known)
            }
            Work::Finish { stream } => self.own(*stream),
            Work::Set { variable, value } => {
                self.own(*variable)?;
                self.value(value, known)
            }
            Work::Branch { condition, .. }
            | Work::Leave { condition }
            | Work::Fail { condition, .. } => self.condition(condition, known),
        }
    }

    /// The directories at which the paths of an operation are to start.
    fn dirs(&self, op: Option<&Op>, dirs: &Dirs, known: &Known) -> Checked {
        let [Some(first), Some(second)] = *dirs else { return Ok(()) };
        self.file(first, known)?;
        self.file(second, known)?;
        match op.map_or(0, paths) {
            0 => Err("has no path that could start at a directory".into()),
            1 if first != second => Err("has one path, and so starts at one directory".into()),
            _ => Ok(()),
        }
    }

    /// Whether no clean-up starts at that directory.
    fn needed_at_the_end(&self, dir: Reference) -> Checked {
        let starts_there = |step: &StepState| match &step.work {
            Work::Defer { dirs, .. } => dirs.contains(&Some(dir)),
            _ => false,
        };
        if !self.chain.steps.iter().any(starts_there) {
            return Ok(());
        }
        Err("closes the directory at which a clean-up starts: leave that to the end".into())
    }

    fn own(&self, reference: Reference) -> Checked {
        if reference.chain == self.chain.number {
            return Ok(());
        }
        Err("uses a step of another chain".into())
    }

    fn given(&self, step: Reference, known: &Known) -> Checked {
        self.own(step)?;
        if known.given.has(step.index) {
            return Ok(());
        }
        Err(format!("uses what {} gives, and that may not have run by then", self.name(step)))
    }

    fn file(&self, file: Reference, known: &Known) -> Checked {
        self.own(file)?;
        if known.open.has(file.index) {
            return Ok(());
        }
        let name = self.name(file);
        Err(if known.given.has(file.index) && !known.perhaps_open.has(file.index) {
            format!("uses the file of {name} after the step that closes it")
        } else {
            format!("uses the file of {name}, and that may not be open by then")
        })
    }

    fn value(&self, value: &Value, known: &Known) -> Checked {
        if value.then.len() >= MOST_OPERANDS {
            return Err(format!(
                "has a value of more than {MOST_OPERANDS} operands: set a variable on the way"
            ));
        }
        value.operands().try_for_each(|Operand(source)| match source {
            Source::Constant(_) => Ok(()),
            Source::Variable(variable) => self.own(variable),
            Source::Count(step) | Source::Size(step) => self.given(step, known),
        })
    }

    /// An offset and a length. What is computed is checked when it is known.
    fn range(&self, offset: &Value, length: &Value, known: &Known) -> Checked {
        self.value(offset, known)?;
        self.value(length, known)?;
        let (offset, length) = (offset.constant().unwrap_or(0), length.constant().unwrap_or(0));
        check_range(offset, length).map_err(|error| format!("has a bad range: {error}"))
    }

    fn condition(&self, condition: &Condition, known: &Known) -> Checked {
        match &condition.test {
            Test::Succeeded(step) | Test::FailedWith(step, _) => self.own(*step),
            Test::Holds(step, _) => self.given(*step, known),
            Test::Equal(one, other) | Test::Less(one, other) => {
                self.value(one, known)?;
                self.value(other, known)
            }
        }
    }

    fn header(&self, header: &Header, known: &Known) -> Checked {
        match &header.0 {
            HeaderKind::Known(_) => Ok(()),
            HeaderKind::FromStat(stat, _) => self.given(*stat, known),
        }
    }

    fn content(&self, content: &Content, known: &Known) -> Checked {
        match &content.0 {
            ContentKind::Bytes(_) => Ok(()),
            ContentKind::Of(step) => self.given(*step, known),
        }
    }

    fn reads(&self, socket: &Socket, known: &Known) -> Checked {
        match socket.0 {
            SocketKind::Own(_) => Ok(()),
            SocketKind::Of(step) => self.file(step, known),
        }
    }

    fn writes(&self, socket: &Socket, known: &Known) -> Checked {
        match &socket.0 {
            SocketKind::Own(socket) => self.in_line(Some(socket.as_fd())),
            SocketKind::Of(step) => self.file(*step, known),
        }
    }

    /// Whether the chain has its place in the line of that socket, if there is one.
    fn in_line(&self, socket: Option<BorrowedFd<'_>>) -> Checked {
        let Some(socket) = socket else { return Ok(()) };
        let first = self.chain.socket.as_ref().map(|first| first.as_fd().as_raw_fd());
        if first == Some(socket.as_raw_fd()) {
            return Ok(());
        }
        Err("sends to another socket than the steps before: make it another chain".into())
    }

    fn name(&self, step: Reference) -> String {
        let name = self.chain.steps.get(step.index).map_or("", |step| step.report.name);
        format!("step {} ({name})", step.index)
    }
}
