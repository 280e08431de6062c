//! A step as it was asked for.

use std::fmt;
use std::io;
use std::net;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::values::{Condition, Data, Opened, Reference, StepId, Value, When};
use crate::operation::Fd;
use crate::ops::payload::Payload;
use crate::ops::{Op, Sendfile, Stat};

/// What a step does. Whatever it takes from other steps it names by reference.
///
/// A kind of operation joins by a function of [`Chain`](crate::Chain) that adds one of the first four.
pub(super) enum Work {
    /// An operation that needs nothing from other steps. It is here except while it is done.
    Whole { op: Option<Box<Op>>, repeats: bool, dirs: Dirs },
    /// An operation on a file.
    OnFile { file: Reference, make: fn(Fd) -> Op },
    /// An operation on a range of a file.
    OnRange { file: Reference, offset: Value, length: Value, make: MakeOnRange },
    /// An operation from a place in one file to a place in another, over a length.
    Between { files: [Reference; 2], offsets: [Value; 2], length: Value, make: MakeBetween },
    /// Reading up to the length or the end of the file.
    Read { file: Reference, offset: Value, length: Value },
    /// Reading as many entries of a directory as there is room for.
    ReadDir { dir: Reference, capacity: usize },
    /// Writing all of what a step has given. Bytes of its own, the step has "given" itself.
    Write { file: Reference, offset: Value, data: Reference },
    /// Receiving up to the length: what has come, or all of it.
    Recv { socket: Socket, length: Value, all: bool },
    /// Ending a side of a connection.
    Shutdown { socket: Socket, how: net::Shutdown },
    /// Sending a header and a part of a file.
    Sendfile { socket: Socket, file: Reference, span: Span, header: Header },
    /// Sending bytes.
    Send { socket: Socket, content: Content },
    /// Closing a file.
    Close { file: Reference },
    /// Bytes through a transform.
    Feed { stream: Reference, data: Reference },
    /// What a transform has left at the end.
    Finish { stream: Reference },
    /// A variable gets a value.
    Set { variable: Reference, value: Value },
    /// The steps up to `end` again and again.
    Loop { most: u64, end: usize },
    /// The steps up to `otherwise`, or those from there up to `end`.
    Branch { condition: Condition, otherwise: usize, end: usize },
    /// The innermost loop, or the chain, is over.
    Leave { condition: Condition },
    /// The chain fails.
    Fail { condition: Condition, kind: io::ErrorKind },
    /// From here on the operation is a clean-up.
    Defer { op: Option<Box<Op>>, when: When, dirs: Dirs },
}

/// The directories, opened by steps, at which the first and the second path of an operation start.
pub(super) type Dirs = [Option<Reference>; 2];

/// Makes an operation on a file, from an offset, over a length.
pub(super) type MakeOnRange = Box<dyn Fn(Fd, u64, u64) -> Op + Send + Sync>;

/// Makes an operation from one file to another, from offset to offset, over a length.
pub(super) type MakeBetween = fn([Fd; 2], [u64; 2], u64) -> Op;

/// A transform that a chain works with: see [`Chain::transform`](crate::Chain::transform).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(pub(super) Reference);

/// The socket of a step: one that the program has, or the connection that a step has accepted.
///
/// Made with `into()`: of an [`Fd`], of an `Arc` of any socket, or of the step that
/// [accepts](crate::Chain::accept).
#[derive(Clone)]
pub struct Socket(pub(super) SocketKind);

#[derive(Clone)]
pub(super) enum SocketKind {
    Own(Fd),
    Of(Reference),
}

impl From<Fd> for Socket {
    fn from(socket: Fd) -> Socket {
        Socket(SocketKind::Own(socket))
    }
}

impl<S: AsFd + Send + Sync + 'static> From<Arc<S>> for Socket {
    fn from(socket: Arc<S>) -> Socket {
        Socket(SocketKind::Own(socket))
    }
}

impl From<StepId<Opened>> for Socket {
    fn from(step: StepId<Opened>) -> Socket {
        Socket(SocketKind::Of(Reference::to(step)))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            SocketKind::Own(socket) => write!(f, "Socket({:?})", socket.as_fd()),
            SocketKind::Of(step) => write!(f, "Socket(of step {})", step.index),
        }
    }
}

/// Which part of a file a chain sends.
#[derive(Clone, Debug)]
pub struct Span {
    pub(super) offset: Value,
    pub(super) length: Value,
}

impl Span {
    /// As many bytes as the file had when that step looked, from the beginning: what a header that
    /// tells the length has promised.
    #[must_use]
    pub fn whole(stat: StepId<Stat>) -> Span {
        Span::new(0, stat.size())
    }

    /// So many bytes from that offset on.
    #[must_use]
    pub fn new(offset: impl Into<Value>, length: impl Into<Value>) -> Span {
        Span { offset: offset.into(), length: length.into() }
    }

    /// These bytes.
    #[must_use]
    pub fn range(range: Range<u64>) -> Span {
        Span::new(range.start, range.end.saturating_sub(range.start))
    }

    /// From this byte up to where the file ends when the transfer gets there.
    #[must_use]
    pub fn to_end(offset: impl Into<Value>) -> Span {
        Span::new(offset, Sendfile::TO_END)
    }
}

/// What a chain sends before a file.
pub struct Header(pub(super) HeaderKind);

pub(super) enum HeaderKind {
    Known(Payload),
    FromStat(Reference, Box<dyn Fn(&Stat) -> Payload + Send + Sync>),
}

impl Header {
    /// Nothing.
    #[must_use]
    pub fn none() -> Header {
        Header::bytes(Payload::default())
    }

    /// These bytes.
    #[must_use]
    pub fn bytes(bytes: impl Into<Payload>) -> Header {
        Header(HeaderKind::Known(bytes.into()))
    }

    /// The bytes that `write` makes of what that step has found: the length, the time.
    #[must_use]
    pub fn from_stat<P: Into<Payload>>(
        stat: StepId<Stat>,
        write: impl Fn(&Stat) -> P + Send + Sync + 'static,
    ) -> Header {
        Header(HeaderKind::FromStat(Reference::to(stat), Box::new(move |stat| write(stat).into())))
    }
}

/// What a chain writes to a file or sends: bytes, or what an earlier step has given.
///
/// Made with `into()`: of a `StepId<Data>`, or of whatever makes a [`Payload`].
#[derive(Clone, Debug)]
pub struct Content(pub(super) ContentKind);

#[derive(Clone, Debug)]
pub(super) enum ContentKind {
    Of(Reference),
    Bytes(Payload),
}

impl From<StepId<Data>> for Content {
    fn from(step: StepId<Data>) -> Content {
        Content(ContentKind::Of(Reference::to(step)))
    }
}

impl<P: Into<Payload>> From<P> for Content {
    fn from(bytes: P) -> Content {
        Content(ContentKind::Bytes(bytes.into()))
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            HeaderKind::Known(bytes) => write!(f, "Header({bytes:?})"),
            HeaderKind::FromStat(stat, _) => write!(f, "Header(by step {})", stat.index),
        }
    }
}
