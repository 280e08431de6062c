//! The operations, one file each, and the one list of them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use io_uring::squeue::Entry;
use kevent_core::Waker;

use crate::buffer::Filling;
use crate::fixed::Fixed;
use crate::operation::{Operation, Order, Outcome, Side, Step};
use crate::priority::Priority;
use crate::provided::Provided;
use crate::reading::Reading;
use crate::recent::Recent;

mod accept;
mod accept_many;
mod advise;
mod chain;
mod close;
mod connect;
mod copy_range;
mod fallocate;
mod fsync;
mod group;
mod link;
mod mkdir;
mod open;
mod payload;
mod place;
mod read;
mod read_dir;
mod recv;
mod recv_from;
mod recv_many;
mod reflink;
mod rename;
mod send;
mod send_to;
mod sendfile;
mod shutdown;
mod statx;
mod symlink;
mod truncate;
mod unlink;
mod vectored;
mod window;
mod write;

pub use accept::Accept;
pub use accept_many::AcceptMany;
pub use advise::{Advice, Advise};
#[cfg(feature = "transforms")]
pub use chain::{Blake3, Crc32c, Gzip};
pub use chain::{
    Chain, CleanupReport, Condition, Content, Data, Effect, Header, Listing, Opened, Operand,
    Socket, Span, StepId, StepReport, StepResult, Stop, StreamId, Transform, Value, Variable, When,
};
pub use close::Close;
pub use connect::Connect;
pub use copy_range::CopyRange;
pub use fallocate::Fallocate;
pub use fsync::{Fdatasync, Fsync};
pub use group::Group;
pub use link::Link;
pub use mkdir::Mkdir;
pub use open::Open;
pub use payload::Payload;
pub use read::Read;
pub use read_dir::{DirEntry, Entries, FileKind, ReadDir};
pub use recv::Recv;
pub use recv_from::RecvFrom;
pub use recv_many::RecvMany;
pub use reflink::Reflink;
pub use rename::Rename;
pub use send::Send;
pub use send_to::SendTo;
pub use sendfile::{End, Sendfile, Sent};
pub use shutdown::Shutdown;
pub use statx::{Stat, Statx};
pub use symlink::Symlink;
pub use truncate::Truncate;
pub use unlink::Unlink;
pub use vectored::{ReadVectored, WriteVectored};
pub use write::Write;

/// Makes the one type that all operations are. Every function of the trait goes to the variant.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Any operation: what is submitted, and what a completion gives back.
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum Op {
            $($(#[$doc])* $name($name),)*
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op {
                Op::$name(op)
            }
        }

        /// The operation of that kind again, or the other that it is.
        impl TryFrom<Op> for $name {
            type Error = Op;

            fn try_from(op: Op) -> Result<$name, Op> {
                match op {
                    Op::$name(op) => Ok(op),
                    other => Err(other),
                }
            }
        })*

        impl Op {
            /// What the operation is called: the name of its type.
            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Op::$name(_) => stringify!($name),)*
                }
            }

            fn inner(&self) -> &dyn Operation {
                match self {
                    $(Op::$name(op) => op,)*
                }
            }

            fn inner_mut(&mut self) -> &mut dyn Operation {
                match self {
                    $(Op::$name(op) => op,)*
                }
            }
        }
    };
}

operations! {
    /// See [`Open`].
    Open,
    /// See [`Close`].
    Close,
    /// See [`Read`].
    Read,
    /// See [`Write`].
    Write,
    /// See [`ReadVectored`].
    ReadVectored,
    /// See [`WriteVectored`].
    WriteVectored,
    /// See [`Fsync`].
    Fsync,
    /// See [`Fdatasync`].
    Fdatasync,
    /// See [`Statx`].
    Statx,
    /// See [`Fallocate`].
    Fallocate,
    /// See [`CopyRange`].
    CopyRange,
    /// See [`Reflink`].
    Reflink,
    /// See [`Truncate`].
    Truncate,
    /// See [`Advise`].
    Advise,
    /// See [`ReadDir`].
    ReadDir,
    /// See [`Mkdir`].
    Mkdir,
    /// See [`Rename`].
    Rename,
    /// See [`Unlink`].
    Unlink,
    /// See [`Link`].
    Link,
    /// See [`Symlink`].
    Symlink,
    /// See [`Sendfile`].
    Sendfile,
    /// See [`Accept`].
    Accept,
    /// See [`AcceptMany`].
    AcceptMany,
    /// See [`Connect`].
    Connect,
    /// See [`Recv`].
    Recv,
    /// See [`Send`].
    Send,
    /// See [`RecvFrom`].
    RecvFrom,
    /// See [`RecvMany`].
    RecvMany,
    /// See [`SendTo`].
    SendTo,
    /// See [`Shutdown`].
    Shutdown,
    /// See [`Chain`].
    Chain,
    /// See [`Group`].
    Group,
}

impl Op {
    /// Whether it brings one thing after another, and may have no end of its own.
    pub(crate) fn is_endless(&self) -> bool {
        matches!(self, Op::AcceptMany(_) | Op::RecvMany(_))
    }

    /// What it has brought, once after each [`Step::Piece`]: as an operation that is done.
    pub(crate) fn take_piece(&mut self) -> Option<Box<Op>> {
        match self {
            Op::AcceptMany(accept) => accept.take_piece().map(|piece| Box::new(piece.into())),
            Op::RecvMany(recv) => Some(Box::new(recv.take_piece().into())),
            _ => None,
        }
    }

    /// For how many pieces more there is room. If that is none, `waker` is called when there is.
    pub(crate) fn room(&self, waker: Option<&Waker>) -> usize {
        match self {
            Op::RecvMany(recv) => recv.room(waker),
            _ => usize::MAX,
        }
    }

    /// The kernel has filled a buffer that it was lent.
    pub(crate) fn fill(&mut self, provided: &mut Provided, number: u16, len: usize) {
        if let Op::RecvMany(recv) = self {
            recv.fill(provided, number, len);
        }
    }

    /// The result of a piece.
    pub(crate) fn amount(&self) -> u64 {
        match self {
            Op::Recv(recv) => recv.data().len() as u64,
            _ => 0,
        }
    }
}

impl Operation for Op {
    fn check(&self) -> io::Result<()> {
        self.inner().check()
    }

    fn begins_at_once(&self) -> bool {
        self.inner().begins_at_once()
    }

    fn recall(&mut self, recent: &Recent) {
        self.inner_mut().recall(recent);
    }

    fn remember(&self, recent: &mut Recent) {
        self.inner().remember(recent);
    }

    fn advance(&mut self) -> Step {
        self.inner_mut().advance()
    }

    fn reading(&mut self) -> Option<&mut Reading> {
        self.inner_mut().reading()
    }

    fn encode(&mut self) -> Option<Entry> {
        self.inner_mut().encode()
    }

    fn encode_fixed(&mut self, fixed: &Fixed) -> Option<Entry> {
        self.inner_mut().encode_fixed(fixed)
    }

    fn run(&mut self) -> Outcome {
        self.inner_mut().run()
    }

    fn go_on(&mut self, outcome: Outcome) -> Option<Outcome> {
        self.inner_mut().go_on(outcome)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        self.inner_mut().complete(outcome)
    }

    fn abort(&mut self, reason: io::Error) -> Step {
        self.inner_mut().abort(reason)
    }

    fn priority(&self) -> Priority {
        self.inner().priority()
    }

    fn order(&self) -> Order {
        self.inner().order()
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.inner().socket()
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        self.inner().source()
    }

    fn waits_for(&self) -> Option<Side> {
        self.inner().waits_for()
    }

    fn waits_at(&self, side: Side) -> Option<BorrowedFd<'_>> {
        self.inner().waits_at(side)
    }
}

/// The result of an operation that is done with its only call.
fn done(outcome: Outcome) -> Step {
    Step::Done(outcome.map(u64::from).map_err(io::Error::from))
}

/// Refuses flags of a receive or a send by which it would wait as it should not.
fn check_flags(flags: i32) -> io::Result<()> {
    if flags & (libc::MSG_WAITALL | libc::MSG_DONTWAIT) == 0 {
        return Ok(());
    }
    let text = "MSG_WAITALL and MSG_DONTWAIT are not for an operation that waits anyway: leave them \
                out, and say `all` where nothing less will do";
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Where a receive with these flags puts the next bytes. With `MSG_TRUNC` TCP counts bytes that it
/// throws away: what it does not write must have been written before, since the count makes it the user's.
fn room(buffer: &mut Filling, flags: i32) -> &mut [MaybeUninit<u8>] {
    if flags & libc::MSG_TRUNC != 0 {
        buffer.blank();
    }
    buffer.room()
}

/// Refuses offsets and lengths beyond what the kernel's signed numbers hold. To io_uring -1 means "the
/// file's own position", which a program that computed an offset wrongly must not get.
fn check_range(offset: u64, len: u64) -> io::Result<()> {
    let end = offset.checked_add(len);
    if end.is_some_and(|end| i64::try_from(end).is_ok()) {
        return Ok(());
    }
    let text = format!("offset {offset} with length {len} ends beyond 2^63 - 1, where files end");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}
