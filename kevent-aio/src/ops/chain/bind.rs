//! Making the operation of a step out of what the steps before have given.
//!
//! Bytes are lent: they move from the step that has given them into the operation, and back when that is
//! over.

use std::io;
use std::os::fd::BorrowedFd;

use io_uring::squeue::Entry;

use super::program::works_on_names;
use super::report::StepResult;
use super::steps::{ContentKind, Header, HeaderKind, Socket, SocketKind, Work};
use super::transform::{Lent, Transforming};
use super::values::{Condition, Operand, Reference, Source, Test, Value};
use super::whole::{ReadWhole, WriteWhole, room};
use super::{Chain, Given};
use crate::operation::{Fd, Operation, Outcome, Side, Step};
use crate::ops::payload::Payload;
use crate::ops::place;
use crate::ops::sendfile::Sendfile;
use crate::ops::{Close, Op, ReadDir, Recv, Shutdown, Stat};

/// The operation of a step.
pub(super) enum Doing {
    /// One that the step owns.
    Whole(Box<Op>),
    /// One that was made for this run.
    Made(Op),
    Read(ReadWhole),
    /// Of bytes that a step has lent.
    Write(WriteWhole, usize),
    /// By a stream.
    Transform(Transforming, usize),
    /// Of the file that a step has opened.
    Close(Close, usize),
}

impl Doing {
    fn inner(&self) -> &dyn Operation {
        match self {
            Doing::Whole(op) => op.as_ref(),
            Doing::Made(op) => op,
            Doing::Read(op) => op,
            Doing::Write(op, _) => op,
            Doing::Transform(op, _) => op,
            Doing::Close(op, _) => op,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Operation {
        match self {
            Doing::Whole(op) => op.as_mut(),
            Doing::Made(op) => op,
            Doing::Read(op) => op,
            Doing::Write(op, _) => op,
            Doing::Transform(op, _) => op,
            Doing::Close(op, _) => op,
        }
    }

    /// Whether a thread of the pool that has the chain already is to run it.
    pub(super) fn is_for_a_thread(&self) -> bool {
        match self {
            Doing::Whole(op) => is_for_a_thread(op),
            Doing::Made(op) => is_for_a_thread(op),
            // Of the disk's answers the ring waits for more at a time than the pool has threads.
            Doing::Read(_) => false,
            Doing::Write(..) | Doing::Transform(..) | Doing::Close(..) => true,
        }
    }

    /// Whether it answers with a count of bytes, which may be shorter than what was asked for.
    pub(super) fn counts_bytes(&self) -> bool {
        matches!(self, Doing::Read(_) | Doing::Write(..))
    }
}

/// Whether the operation is one that takes a thread in any case, or is over in no time. Those that wait for
/// the disk, or for a peer, are not.
pub(super) fn is_for_a_thread(op: &Op) -> bool {
    works_on_names(op)
        || matches!(op, Op::Open(_) | Op::Statx(_) | Op::CopyRange(_) | Op::Reflink(_))
        || matches!(op, Op::ReadDir(_) | Op::Fallocate(_) | Op::Truncate(_) | Op::Advise(_))
}

impl Operation for Doing {
    fn check(&self) -> io::Result<()> {
        self.inner().check()
    }

    fn advance(&mut self) -> Step {
        self.inner_mut().advance()
    }

    fn encode(&mut self) -> Option<Entry> {
        self.inner_mut().encode()
    }

    fn run(&mut self) -> Outcome {
        self.inner_mut().run()
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        self.inner_mut().complete(outcome)
    }

    fn abort(&mut self, reason: io::Error) -> Step {
        self.inner_mut().abort(reason)
    }

    fn waits_for(&self) -> Option<Side> {
        self.inner().waits_for()
    }

    fn waits_at(&self, side: Side) -> Option<BorrowedFd<'_>> {
        self.inner().waits_at(side)
    }
}

impl Chain {
    /// The operation of a step that has one.
    pub(super) fn bind(&mut self, at: usize) -> io::Result<Doing> {
        let step = self.steps.get(at).ok_or_else(missing)?;
        Ok(match &step.work {
            Work::OnFile { file, make } => Doing::Made(make(self.file(*file)?)),
            Work::OnRange { file, offset, length, make } => {
                Doing::Made(make(self.file(*file)?, self.value(offset), self.value(length)))
            }
            Work::Between { files: [from, to], offsets, length, make } => {
                let files = [self.file(*from)?, self.file(*to)?];
                let offsets = [self.value(&offsets[0]), self.value(&offsets[1])];
                Doing::Made(make(files, offsets, self.value(length)))
            }
            Work::Read { file, offset, length } => {
                let (file, offset) = (self.file(*file)?, self.value(offset));
                let length = self.value(length);
                let read = ReadWhole::new(file, offset, length, self.lend(at))?;
                Doing::Read(if self.cold { read.cold() } else { read })
            }
            Work::ReadDir { dir, capacity } => {
                let (dir, capacity) = (self.file(*dir)?, *capacity);
                let (buffer, _) = room(self.lend(at), capacity as u64)?;
                Doing::Made(ReadDir::new(dir, buffer).into())
            }
            Work::Write { file, offset, data } => {
                let (file, offset, data) = (self.file(*file)?, self.value(offset), data.index);
                Doing::Write(WriteWhole::new(file, offset, self.lend(data)), data)
            }
            Work::Recv { socket, length, all } => {
                let (socket, length, all) = (self.socket(socket)?, self.value(length), *all);
                let (buffer, length) = room(self.lend(at), length)?;
                let recv = Recv::new(socket, buffer).up_to(length);
                // Nothing to receive is nothing to wait for, either.
                Doing::Made(if all || length == 0 { recv.all() } else { recv }.into())
            }
            Work::Shutdown { socket, how } => {
                Doing::Made(Shutdown::new(self.socket(socket)?, *how).into())
            }
            Work::Sendfile { socket, file, span, header } => {
                let (offset, length) = (self.value(&span.offset), self.value(&span.length));
                let send = Sendfile::new(self.socket(socket)?, self.file(*file)?, offset, length);
                Doing::Made(send.header(self.header(header)?).into())
            }
            Work::Send { socket, content } => {
                let bytes = match &content.0 {
                    ContentKind::Bytes(bytes) => bytes.clone(),
                    ContentKind::Of(step) => self.bytes(step.index).to_vec().into(),
                };
                Doing::Made(Sendfile::bytes(self.socket(socket)?, bytes).into())
            }
            Work::Close { file } => self.closing(file.index)?,
            Work::Feed { stream, data } => self.transforming(at, stream.index, Some(data.index))?,
            Work::Finish { stream } => self.transforming(at, stream.index, None)?,
            _ => Doing::Whole(self.whole_of(at)?),
        })
    }

    /// The operation that a step owns, and that starts at the directories which others have opened.
    pub(super) fn whole_of(&mut self, at: usize) -> io::Result<Box<Op>> {
        let dirs = self.dirs(at)?;
        let work = self.steps.get_mut(at).map(|step| &mut step.work);
        let Some(Work::Whole { op, .. } | Work::Defer { op, .. }) = work else {
            return Err(missing());
        };
        let mut op = op.take().ok_or_else(missing)?;
        if let Some(dirs) = dirs {
            place::start_at(&mut op, dirs);
        }
        Ok(op)
    }

    /// Gives it back. It holds no directory open.
    pub(super) fn own(&mut self, at: usize, mut done: Box<Op>) {
        let work = self.steps.get_mut(at).map(|step| &mut step.work);
        if let Some(Work::Whole { op, dirs, .. } | Work::Defer { op, dirs, .. }) = work {
            if *dirs != [None; 2] {
                place::start_at(&mut done, [None, None]);
            }
            *op = Some(done);
        }
    }

    /// The directories at which the paths of a step's operation start, if it was told of some.
    fn dirs(&self, at: usize) -> io::Result<Option<[Option<Fd>; 2]>> {
        let [first, second] = match self.steps.get(at).map(|step| &step.work) {
            Some(Work::Whole { dirs, .. } | Work::Defer { dirs, .. }) => *dirs,
            _ => [None; 2],
        };
        let (Some(first), Some(second)) = (first, second) else { return Ok(None) };
        Ok(Some([Some(self.file(first)?), Some(self.file(second)?)]))
    }

    /// Takes the file from its step. Nobody shares it any more: the operations that did were dropped
    /// when their steps ended.
    pub(super) fn closing(&mut self, file: usize) -> io::Result<Doing> {
        let fd = self.open_file(file).and_then(|file| file.fd.take());
        let fd = fd.and_then(std::sync::Arc::into_inner).ok_or_else(missing)?;
        Ok(Doing::Close(Close::new(fd), file))
    }

    fn transforming(&mut self, at: usize, stream: usize, data: Option<usize>) -> io::Result<Doing> {
        let taken = self.streams.get_mut(stream).and_then(Option::take).ok_or_else(missing)?;
        let input = data.map(|step| Lent { step, bytes: self.lend(step) });
        Ok(Doing::Transform(Transforming::new(taken, input, self.lend(at)), stream))
    }

    /// Takes the bytes that a step has given, or its used buffer.
    fn lend(&mut self, step: usize) -> Vec<u8> {
        match self.steps.get_mut(step).map(|step| &mut step.given) {
            Some(Given::Data(data)) => std::mem::take(data),
            _ => Vec::new(),
        }
    }

    fn file(&self, step: Reference) -> io::Result<Fd> {
        let given = self.steps.get(step.index).map(|step| &step.given);
        match given {
            Some(Given::File(file)) => file.fd.clone().map(|fd| fd as Fd).ok_or_else(missing),
            _ => Err(missing()),
        }
    }

    fn socket(&self, socket: &Socket) -> io::Result<Fd> {
        match &socket.0 {
            SocketKind::Own(socket) => Ok(socket.clone()),
            SocketKind::Of(step) => self.file(*step),
        }
    }

    fn header(&self, header: &Header) -> io::Result<Payload> {
        match &header.0 {
            HeaderKind::Known(bytes) => Ok(bytes.clone()),
            HeaderKind::FromStat(stat, write) => {
                self.found(*stat).map(|stat| write(&stat)).ok_or_else(missing)
            }
        }
    }

    fn found(&self, step: Reference) -> Option<Stat> {
        match self.steps.get(step.index)?.given {
            Given::Stat(stat) => Some(stat),
            _ => None,
        }
    }
}

/// Numbers and conditions.
impl Chain {
    pub(super) fn value(&self, value: &Value) -> u64 {
        value.evaluate(|operand| self.look_up(operand))
    }

    fn look_up(&self, Operand(source): Operand) -> u64 {
        match source {
            Source::Constant(number) => number,
            Source::Variable(variable) => self.variables.get(variable.index).copied().unwrap_or(0),
            Source::Size(step) => self.found(step).map_or(0, |stat| stat.size),
            Source::Count(step) => match self.result(step) {
                Some(StepResult::Done(count)) => *count,
                _ => 0,
            },
        }
    }

    pub(super) fn holds(&self, condition: &Condition) -> bool {
        let holds = match &condition.test {
            Test::Succeeded(step) => matches!(self.result(*step), Some(StepResult::Done(_))),
            Test::FailedWith(step, kind) => {
                matches!(self.result(*step), Some(StepResult::Failed(e)) if e.kind() == *kind)
            }
            Test::Equal(one, other) => self.value(one) == self.value(other),
            Test::Less(one, other) => self.value(one) < self.value(other),
            Test::Holds(step, bytes) => self.bytes(step.index) == bytes,
        };
        holds != condition.negated
    }

    fn result(&self, step: Reference) -> Option<&StepResult> {
        self.steps.get(step.index).map(|step| &step.report.result)
    }
}

/// No chain that was checked comes to this: a step runs when what it uses is there.
fn missing() -> io::Error {
    io::Error::other("a step of the chain lacks what an earlier one was to give")
}
