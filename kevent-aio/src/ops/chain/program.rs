//! Writing a chain, step by step.

use std::io;
use std::net;
use std::sync::Arc;

use super::steps::{
    Content, ContentKind, Dirs, Header, MakeBetween, Socket, SocketKind, Span, StreamId, Work,
};
use super::transform::{Stream, Transform};
use super::values::{
    Condition, Data, Effect, Listing, Opened, Operand, Reference, StepId, Stop, Value, Variable,
    When,
};
use super::{Chain, Given, OpenFile, StepReport, StepState};
use crate::operation::{Fd, Operation};
use crate::ops::sendfile::Sent;
use crate::ops::{
    Accept, Advice, Advise, CopyRange, Fallocate, Fdatasync, Fsync, Op, Open, Reflink, Stat, Statx,
    Truncate,
};

/// Files.
impl Chain {
    /// Opens a file.
    pub fn open(&mut self, open: Open) -> StepId<Opened> {
        self.opening(open.into(), [None; 2])
    }

    /// Opens a file; a relative path starts at the directory that a step has opened.
    pub fn open_at(&mut self, dir: StepId<Opened>, open: Open) -> StepId<Opened> {
        self.opening(open.into(), [Some(Reference::to(dir)); 2])
    }

    /// Asks for the file's metadata.
    pub fn statx(&mut self, file: StepId<Opened>) -> StepId<Stat> {
        self.on_file("Statx", file, |file| Statx::of(file).into())
    }

    /// Reads `length` bytes, or as many as there are up to the end of the file. A length that is too
    /// much for the memory fails the step.
    pub fn read(
        &mut self,
        file: StepId<Opened>,
        offset: impl Into<Value>,
        length: impl Into<Value>,
    ) -> StepId<Data> {
        let file = Reference::to(file);
        self.push("Read", Work::Read { file, offset: offset.into(), length: length.into() })
    }

    /// Writes all of it: bytes, or what an earlier step has given.
    pub fn write(
        &mut self,
        file: StepId<Opened>,
        offset: impl Into<Value>,
        content: impl Into<Content>,
    ) -> StepId<Effect> {
        let (file, offset) = (Reference::to(file), offset.into());
        let itself = Reference { chain: self.number, index: self.steps.len() };
        let (data, own) = match content.into().0 {
            ContentKind::Of(step) => (step, None),
            ContentKind::Bytes(bytes) => (itself, Some(bytes.into_vec())),
        };
        let id = self.push("Write", Work::Write { file, offset, data });
        if let Some(own) = own {
            self.give(id.index, Given::Data(own));
        }
        id
    }

    /// Brings the file to stable storage.
    pub fn fsync(&mut self, file: StepId<Opened>) -> StepId<Effect> {
        self.on_file("Fsync", file, |file| Fsync::new(file).into())
    }

    /// Brings the file's data to stable storage.
    pub fn fdatasync(&mut self, file: StepId<Opened>) -> StepId<Effect> {
        self.on_file("Fdatasync", file, |file| Fdatasync::new(file).into())
    }

    /// Sets space aside for the range.
    pub fn fallocate(
        &mut self,
        file: StepId<Opened>,
        offset: impl Into<Value>,
        length: impl Into<Value>,
    ) -> StepId<Effect> {
        self.on_range("Fallocate", file, offset, length, |file, offset, length| {
            Fallocate::new(file, offset, length).into()
        })
    }

    /// Makes the file that long.
    pub fn truncate(&mut self, file: StepId<Opened>, length: impl Into<Value>) -> StepId<Effect> {
        self.on_range("Truncate", file, 0, length, |file, _, length| {
            Truncate::new(file, length).into()
        })
    }

    /// Says how a range of the file will be used.
    pub fn advise(
        &mut self,
        file: StepId<Opened>,
        offset: impl Into<Value>,
        length: impl Into<Value>,
        advice: Advice,
    ) -> StepId<Effect> {
        self.on_range("Advise", file, offset, length, move |file, offset, length| {
            Advise::new(file, advice).range(offset, length).into()
        })
    }

    /// Copies `length` bytes from one file to another, or as many as there are, as
    /// [`CopyRange`]. Bytes that were copied have moved once.
    pub fn copy_range(
        &mut self,
        from: (StepId<Opened>, impl Into<Value>),
        to: (StepId<Opened>, impl Into<Value>),
        length: impl Into<Value>,
    ) -> StepId<Effect> {
        self.between("CopyRange", from, to, length, |[source, target], [from, to], length| {
            CopyRange::new(source, from, target, to).up_to(length).into()
        })
    }

    /// Has one file share the data of another, as [`Reflink`].
    pub fn reflink(
        &mut self,
        from: (StepId<Opened>, impl Into<Value>),
        to: (StepId<Opened>, impl Into<Value>),
        length: impl Into<Value>,
    ) -> StepId<Effect> {
        self.between("Reflink", from, to, length, |[source, target], [from, to], length| {
            Reflink::new(source, target).range(from, to, length).into()
        })
    }

    /// Reads entries of a directory, as many as there is room for: see [`ReadDir`](crate::ReadDir). It counts them, and
    /// goes on where it was when it runs again; 0 is the end.
    pub fn read_dir(&mut self, dir: StepId<Opened>, capacity: usize) -> StepId<Listing> {
        self.push("ReadDir", Work::ReadDir { dir: Reference::to(dir), capacity })
    }

    /// Closes the file. No step behind may use it.
    ///
    /// An error is told, and the file is closed nevertheless.
    pub fn close(&mut self, file: StepId<Opened>) -> StepId<Effect> {
        self.push("Close", Work::Close { file: Reference::to(file) })
    }

    /// Keeps the file open when the chain is over: [`take_file`](Chain::take_file) hands it over.
    pub fn keep(&mut self, file: StepId<Opened>) {
        if file.chain != self.number {
            return;
        }
        if let Some(Given::File(file)) = self.steps.get_mut(file.index).map(|step| &mut step.given)
        {
            file.keep = true;
        }
    }
}

/// Names, and whatever else needs nothing of the steps before.
impl Chain {
    /// Does any operation: [`Rename`](crate::Rename), [`Mkdir`](crate::Mkdir), or a read of a file that
    /// the program has open. [`take_op`](Chain::take_op) gives it back, with its buffers.
    ///
    /// Those that work on names may stand in a loop, the others run once.
    ///
    /// What sends does that in the place of the chain, which is that of its submission: to the same socket as
    /// [`send`](Chain::send). For [`Sendfile`](crate::Sendfile) there is the [step](Chain::sendfile). A
    /// listener must be a non-blocking one.
    pub fn operation(&mut self, op: impl Into<Op>) -> StepId<Effect> {
        self.whole(op.into(), [None; 2])
    }

    /// Does an operation on names: its relative paths, both of a rename, start at the directory that a step has
    /// opened.
    pub fn operation_at(&mut self, dir: StepId<Opened>, op: impl Into<Op>) -> StepId<Effect> {
        self.whole(op.into(), [Some(Reference::to(dir)); 2])
    }

    /// Does a [`Rename`](crate::Rename) or a [`Link`](crate::Link) from one directory to another that steps have
    /// opened.
    pub fn operation_across(
        &mut self,
        from: StepId<Opened>,
        to: StepId<Opened>,
        op: impl Into<Op>,
    ) -> StepId<Effect> {
        self.whole(op.into(), [Some(Reference::to(from)), Some(Reference::to(to))])
    }

    fn whole(&mut self, op: Op, dirs: Dirs) -> StepId<Effect> {
        if let Some(socket) = sends_to(&op) {
            self.socket.get_or_insert_with(|| Arc::clone(socket));
        }
        let repeats = works_on_names(&op);
        self.push(op.name(), Work::Whole { op: Some(Box::new(op)), repeats, dirs })
    }

    /// From here on, `op` is to be done when the chain ends: the removal of a temporary file.
    ///
    /// Clean-ups run once each, the last that was deferred first, also when the chain is cancelled or
    /// past its deadline, which does not stop them. Files that are still open are closed in between,
    /// each in the place of the step that opened it.
    ///
    /// An engine that is dropped while the chain runs ends it as a cancel does, and makes the calls of the
    /// clean-ups itself, as long as that takes; a call that a thread is stuck in then, that thread goes on with. Only
    /// a chain of which the kernel does not let go in time is left as it is.
    pub fn defer(&mut self, op: impl Into<Op>, when: When) -> StepId<Effect> {
        self.deferred(op.into(), when, [None; 2])
    }

    /// The same for an operation on names, whose relative paths start at the directory that a step has opened. The
    /// directory is closed after that, so no step can close it.
    pub fn defer_at(
        &mut self,
        dir: StepId<Opened>,
        op: impl Into<Op>,
        when: When,
    ) -> StepId<Effect> {
        self.deferred(op.into(), when, [Some(Reference::to(dir)); 2])
    }

    fn deferred(&mut self, op: Op, when: When, dirs: Dirs) -> StepId<Effect> {
        if let Some(socket) = sends_to(&op) {
            self.socket.get_or_insert_with(|| Arc::clone(socket));
        }
        self.push("Defer", Work::Defer { op: Some(Box::new(op)), when, dirs })
    }
}

/// Sockets. A step that waits for one holds no thread meanwhile, on any backend.
impl Chain {
    /// Accepts a connection. Its socket is closed as a file that the chain opens, unless it is
    /// [kept](Chain::keep): also one that was accepted just when the chain was cancelled.
    ///
    /// The listener must be a non-blocking one.
    pub fn accept(&mut self, accept: Accept) -> StepId<Opened> {
        self.opening(accept.into(), [None; 2])
    }

    /// Receives what has come, up to `length` bytes: see [`Recv`](crate::Recv). 0 is the end of the stream.
    ///
    /// Nothing that has left the socket is lost: [`data`](Chain::data) has it, however the chain ends.
    pub fn recv(&mut self, socket: impl Into<Socket>, length: impl Into<Value>) -> StepId<Data> {
        let (socket, length) = (socket.into(), length.into());
        self.push("Recv", Work::Recv { socket, length, all: false })
    }

    /// Receives `length` bytes, or as many as there are up to the end of the stream.
    pub fn recv_all(
        &mut self,
        socket: impl Into<Socket>,
        length: impl Into<Value>,
    ) -> StepId<Data> {
        let (socket, length) = (socket.into(), length.into());
        self.push("Recv", Work::Recv { socket, length, all: true })
    }

    /// Ends a side of a connection, as [`Shutdown`](crate::Shutdown).
    pub fn shutdown(&mut self, socket: impl Into<Socket>, how: net::Shutdown) -> StepId<Effect> {
        let socket = socket.into();
        if how != net::Shutdown::Read {
            self.goes_to(&socket);
        }
        self.push("Shutdown", Work::Shutdown { socket, how })
    }

    /// Sends a header and a part of the file, as [`Sendfile`](crate::Sendfile). A file that is shorter
    /// than the part fails the step, with `UnexpectedEof`: what a later step would send is not what the
    /// receiver expects at that place.
    ///
    /// All that one chain sends goes to the same socket, and to those that it has accepted.
    pub fn sendfile(
        &mut self,
        socket: impl Into<Socket>,
        file: StepId<Opened>,
        span: Span,
        header: Header,
    ) -> StepId<Sent> {
        let (socket, file) = (socket.into(), Reference::to(file));
        self.goes_to(&socket);
        self.push("Sendfile", Work::Sendfile { socket, file, span, header })
    }

    /// Sends bytes, or what an earlier step has given: what belongs between or behind files.
    pub fn send(&mut self, socket: impl Into<Socket>, content: impl Into<Content>) -> StepId<Sent> {
        let socket = socket.into();
        self.goes_to(&socket);
        self.push("Send", Work::Send { socket, content: content.into() })
    }
}

/// The socket of the program to which that sends, if it does.
fn sends_to(op: &Op) -> Option<&Fd> {
    match op {
        Op::Connect(op) => Some(op.socket()),
        Op::Send(op) => Some(op.socket()),
        Op::SendTo(op) => Some(op.socket()),
        Op::Shutdown(op) => Operation::socket(op).map(|_| op.socket()),
        _ => None,
    }
}

/// Transforms.
impl Chain {
    /// A transform for later steps: a stream of bytes through it begins.
    pub fn transform(&mut self, transform: impl Transform + 'static) -> StreamId {
        self.streams.push(Some(Stream::new(Box::new(transform))));
        StreamId(Reference { chain: self.number, index: self.streams.len() - 1 })
    }

    /// Has what a step has given go through a transform. Gives what comes out, if anything does yet.
    pub fn feed(&mut self, stream: StreamId, data: StepId<Data>) -> StepId<Data> {
        self.push("Feed", Work::Feed { stream: stream.0, data: Reference::to(data) })
    }

    /// Gives what comes out of a transform at the end: the checksum, the end of the compressed bytes.
    /// What is fed behind this step begins another stream.
    pub fn finish(&mut self, stream: StreamId) -> StepId<Data> {
        self.push("Finish", Work::Finish { stream: stream.0 })
    }
}

/// The order of things.
impl Chain {
    /// A number that steps share, which is this at the beginning.
    pub fn variable(&mut self, start: u64) -> Variable {
        self.variables.push(start);
        self.run.starts.push(start);
        Variable(Reference { chain: self.number, index: self.variables.len() - 1 })
    }

    /// Gives a variable another value.
    pub fn set(&mut self, variable: Variable, value: impl Into<Value>) -> StepId<Effect> {
        self.push("Set", Work::Set { variable: variable.0, value: value.into() })
    }

    /// Adds to a variable.
    pub fn add(&mut self, variable: Variable, more: impl Into<Operand>) -> StepId<Effect> {
        self.set(variable, Value::from(variable).plus(more))
    }

    /// Does the steps of `body` again and again, until one of them [stops](Chain::stop) or
    /// [leaves](Chain::leave_if) the loop. If none has after `most` rounds, the loop fails.
    ///
    /// It counts the rounds that were begun.
    pub fn repeat(&mut self, most: u64, body: impl FnOnce(&mut Chain)) -> StepId<Effect> {
        let id = self.push("Loop", Work::Loop { most, end: 0 });
        body(self);
        let behind = self.steps.len();
        if let Some(Work::Loop { end, .. }) = self.steps.get_mut(id.index).map(|s| &mut s.work) {
            *end = behind;
        }
        id
    }

    /// Does the steps of `then` if the condition holds, and else those of `otherwise`.
    ///
    /// It counts 1 if the condition held.
    pub fn branch(
        &mut self,
        condition: Condition,
        then: impl FnOnce(&mut Chain),
        otherwise: impl FnOnce(&mut Chain),
    ) -> StepId<Effect> {
        let id = self.push("Branch", Work::Branch { condition, otherwise: 0, end: 0 });
        then(self);
        let middle = self.steps.len();
        otherwise(self);
        let behind = self.steps.len();
        let own = self.steps.get_mut(id.index).map(|step| &mut step.work);
        if let Some(Work::Branch { otherwise, end, .. }) = own {
            (*otherwise, *end) = (middle, behind);
        }
        id
    }

    /// Leaves the innermost loop if the condition holds. In no loop, the chain is over and has succeeded.
    pub fn leave_if(&mut self, condition: Condition) -> StepId<Effect> {
        self.push("Leave", Work::Leave { condition })
    }

    /// Fails if the condition holds, with an error of that kind.
    pub fn fail_if(&mut self, condition: Condition, kind: io::ErrorKind) -> StepId<Effect> {
        self.push("Fail", Work::Fail { condition, kind })
    }

    /// Says when that step is the last one. [`Stop::Error`] unless said otherwise.
    pub fn stop<T>(&mut self, step: StepId<T>, stop: Stop) {
        if step.chain != self.number {
            return;
        }
        self.run.checked = false;
        if let Some(step) = self.steps.get_mut(step.index) {
            step.stop = stop;
        }
    }

    /// What the steps read is not expected in the page cache: they do not look there first. See
    /// [`Read::cold`](crate::Read::cold).
    #[must_use]
    pub fn cold(mut self) -> Chain {
        self.cold = true;
        self
    }
}

/// Whether an operation has nothing of its own but names, so that it can be done again.
pub(super) fn works_on_names(op: &Op) -> bool {
    matches!(op, Op::Mkdir(_) | Op::Rename(_) | Op::Unlink(_) | Op::Link(_) | Op::Symlink(_))
}

/// Adding a step of each shape.
impl Chain {
    fn on_file<T>(
        &mut self,
        name: &'static str,
        file: StepId<Opened>,
        make: fn(Fd) -> Op,
    ) -> StepId<T> {
        self.push(name, Work::OnFile { file: Reference::to(file), make })
    }

    fn on_range<T>(
        &mut self,
        name: &'static str,
        file: StepId<Opened>,
        offset: impl Into<Value>,
        length: impl Into<Value>,
        make: impl Fn(Fd, u64, u64) -> Op + Send + Sync + 'static,
    ) -> StepId<T> {
        let (file, offset, length) = (Reference::to(file), offset.into(), length.into());
        self.push(name, Work::OnRange { file, offset, length, make: Box::new(make) })
    }

    fn between(
        &mut self,
        name: &'static str,
        from: (StepId<Opened>, impl Into<Value>),
        to: (StepId<Opened>, impl Into<Value>),
        length: impl Into<Value>,
        make: MakeBetween,
    ) -> StepId<Effect> {
        let files = [Reference::to(from.0), Reference::to(to.0)];
        let offsets = [from.1.into(), to.1.into()];
        self.push(name, Work::Between { files, offsets, length: length.into(), make })
    }

    fn opening(&mut self, op: Op, dirs: Dirs) -> StepId<Opened> {
        let name = op.name();
        let id = self.push(name, Work::Whole { op: Some(Box::new(op)), repeats: true, dirs });
        self.give(id.index, Given::File(OpenFile { fd: None, keep: false }));
        id
    }

    /// The chain has its place in the line of that socket, if it is one that others may send to.
    fn goes_to(&mut self, socket: &Socket) {
        if let SocketKind::Own(socket) = &socket.0 {
            self.socket.get_or_insert_with(|| Arc::clone(socket));
        }
    }

    fn push<T>(&mut self, name: &'static str, work: Work) -> StepId<T> {
        let report = StepReport::new(name);
        self.run.checked = false;
        self.steps.push(StepState { work, stop: Stop::Error, report, given: Given::Nothing });
        StepId::new(self.number, self.steps.len() - 1)
    }

    pub(super) fn give(&mut self, step: usize, given: Given) {
        if let Some(step) = self.steps.get_mut(step) {
            step.given = given;
        }
    }
}
