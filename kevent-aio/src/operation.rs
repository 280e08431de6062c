//! What an operation is, as the engine sees it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use io_uring::squeue::Entry;

use crate::fixed::Fixed;
use crate::priority::Priority;
use crate::reading::Reading;
use crate::recent::Recent;

/// A file, socket or directory that an operation works on. The operation keeps it open.
///
/// Anything that has a descriptor will do: `Arc::new(std::fs::File::open(path)?)`, or the
/// `Arc<TcpStream>` through which the program itself reads.
pub type Fd = Arc<dyn AsFd + Send + Sync>;

/// One operation: the ways in which it can be done, side by side.
///
/// The engine drives it: [`advance`](Operation::advance) first, then whatever the returned [`Step`]
/// asks for, until that is [`Step::Done`]. It calls nothing else, so an operation knows no engine and no
/// backend, and a chain of operations is an operation itself.
pub(crate) trait Operation: Send {
    /// Whether what the user asked for makes sense. Asked once, before anything else; the error is the
    /// one that `submit` gives.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whether the first `advance` may be made, and its result given, before the operation has a place of its own.
    /// It does more than to look, so it is not left out.
    fn begins_at_once(&self) -> bool {
        false
    }

    /// Takes over what an operation before it has found out. Called before the first `advance`.
    fn recall(&mut self, recent: &Recent) {
        let _ = recent;
    }

    /// What the next one may take over. Called after the last step.
    fn remember(&self, recent: &mut Recent) {
        let _ = recent;
    }

    /// Goes on as far as that is possible without blocking. Called by the waiting thread: at the
    /// beginning, and again when what [`Step::Writable`] or [`Step::Again`] asked for has come true.
    fn advance(&mut self) -> Step;

    /// The file that it reads or writes. If that is not cold, the first `advance` only looks: whether what is to be read is
    /// in memory, so that the operation is done. The engine, which knows from earlier reads what the file is
    /// like, may leave that out, and go on as if it had said [`Step::Run`].
    fn reading(&mut self) -> Option<&mut Reading> {
        None
    }

    /// The io_uring entry for what [`Step::Run`] asked for; `None` when it takes a thread. Everything
    /// that it points to stays where it is until `complete`: the engine does not move the operation
    /// meanwhile (it is boxed), and calls nothing else on it. A multishot, which is completed while the
    /// kernel has it, points to nothing of the operation.
    fn encode(&mut self) -> Option<Entry>;

    /// The same entry, by what the ring knows already of files and buffers; `None` when it knows nothing of
    /// those of the operation.
    fn encode_fixed(&mut self, fixed: &Fixed) -> Option<Entry> {
        let _ = fixed;
        None
    }

    /// The same by a blocking call, on a thread of the pool. Retries EINTR itself. It may follow an
    /// `encode`, without a `complete` in between, when the ring could not do it.
    fn run(&mut self) -> Outcome;

    /// A `run` had this outcome, on a thread of the pool. An operation of several steps may go on there:
    /// `None` asks for another `run`. Else the outcome to be completed with; nobody has an answer for it yet.
    fn go_on(&mut self, outcome: Outcome) -> Option<Outcome> {
        Some(outcome)
    }

    /// What `Step::Run` asked for has been done, by either way, with this outcome. One that is encoded as a
    /// multishot has several: each but the last is a [`Step::Piece`], while the kernel has the entry, which points
    /// to nothing of the operation.
    fn complete(&mut self, outcome: Outcome) -> Step;

    /// The operation is to end early, for this reason (cancelled, or past its deadline), at a point
    /// where nothing of it is with a backend. What must be cleaned up is cleaned up by the steps that
    /// follow; they end in `Done`.
    fn abort(&mut self, reason: io::Error) -> Step {
        Step::Done(Err(reason))
    }

    /// How urgent it is.
    fn priority(&self) -> Priority {
        Priority::Normal
    }

    /// Which others it is to be done after, and which others after it.
    fn order(&self) -> Order {
        self.socket().map_or(Order::Free, |socket| Order::InLine(socket.as_raw_fd()))
    }

    /// The socket that the operation writes to. Operations on one socket are done one after another,
    /// in the order of submission; [`Step::Writable`] waits for this one.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The socket that the operation reads from. Any number of operations may be at it.
    fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What the operation waits for, when nobody knows for how long. What [`Step::Run`] asks for is then
    /// for the ring only: without one the operation is advanced again once its socket is ready on
    /// this side, and takes no thread meanwhile.
    fn waits_for(&self) -> Option<Side> {
        None
    }

    /// The socket for which the operation waits on this side, if it does. Of a chain it is that of the step
    /// which it has come to: the chain stands in its line only while it waits.
    fn waits_at(&self, side: Side) -> Option<BorrowedFd<'_>> {
        self.socket_at(side)
    }

    /// The operation's socket on this side.
    fn socket_at(&self, side: Side) -> Option<BorrowedFd<'_>> {
        match side {
            Side::Reading => self.source(),
            Side::Writing => self.socket(),
        }
    }
}

/// Which operations are done one after another. All others are done in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It waits for none, and none for it.
    Free,
    /// After those that write to the same socket, and were submitted before.
    InLine(RawFd),
    /// It changes what is in this file: a barrier may wait for it.
    Write(RawFd),
    /// After all writes to this file that were submitted before.
    AfterWrites(RawFd),
}

/// The two sides of a socket, which get ready each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Data has come, or a connection, or the end.
    Reading,
    /// There is room for data, or the connection stands.
    Writing,
}

/// What an operation wants next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing more: this is the result.
    Done(io::Result<u64>),
    /// To be encoded for the ring, or run on a thread, and then completed.
    Run,
    /// To be advanced again once its socket takes data.
    Writable,
    /// To be advanced again after the others have had their turn: it could go on, but has done as much
    /// as one may do in a row.
    Again,
    /// It has something for the user, who is to be told. Then as `Rest`.
    Piece,
    /// To be advanced again when there is room for more of what it brings.
    Rest,
}

/// The kernel's answer to one call: the raw result of the ring, or of a system call, made typed once.
pub(crate) type Outcome = Result<u32, Errno>;

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.0)
    }
}
