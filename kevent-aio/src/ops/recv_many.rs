//! Receiving one piece after another.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use kevent_core::Waker;

use crate::buffer::Memory;
use crate::buffers::{Buffer, Buffers};
use crate::operation::{Errno, Fd, Operation, Outcome, Side, Step};
use crate::ops::Recv;
use crate::provided::Provided;
use crate::sys::socket;

/// Receives from a connected socket until its end, or until it is cancelled, into the buffers of a pool.
///
/// Each piece is a completion of its own, with the same token and key; its `op` is a [`Recv`] that is done, with a
/// [`Buffer`] of the pool, and it says that it [has more](crate::Completion::has_more). The buffer is free again
/// when that is dropped. The last completion gives this operation back; its result is how many bytes have come in
/// all pieces, at the end of the stream, or why it ended before.
///
/// The pieces of a stream come in order; a datagram is one piece, and what of it does not fit into a buffer is cut
/// off, as by recv(2). Cancelling it loses nothing: what had left the socket comes before the last completion.
/// Of one that is [abandoned](crate::Aio::abandon) that is dropped, and it is cancelled.
///
/// # Buffers
///
/// Any number of sockets may share a pool. When all its buffers are in the program's hands nothing is received: what
/// comes in stays in the sockets, and their peers are held up. It goes on when one is dropped, on whatever
/// thread. So the pool is a limit for all of them; and a program that keeps pieces keeps them from each other.
///
/// On the ring it is submitted once, and no call is made for a piece. The kernel is lent the buffers of the pool
/// that are free: then [`Buffers::take`] has none, so use a pool for this alone, and with one engine. It has
/// them until the engine goes, or learns of another pool when nobody receives into this one any more. Elsewhere,
/// and before Linux 6.0, the socket is waited for.
///
/// A [`Recv`] of the same socket beside it would take pieces of the stream.
///
/// Source: recv(2), io_uring_prep_recv_multishot(3).
///
/// ```
/// use std::io::Write as _;
/// use std::num::NonZero;
/// use std::os::unix::net::UnixStream;
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Buffers, Op, RecvMany};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let buffers = Buffers::new(NonZero::new(16).unwrap(), NonZero::new(4096).unwrap())?;
/// let (ours, mut theirs) = UnixStream::pair()?;
/// queue[aio].submit(RecvMany::new(Arc::new(ours), &buffers), 1)?;
/// theirs.write_all(b"hello")?;
/// drop(theirs);
/// let mut received = Vec::new();
/// loop {
///     queue.wait(None)?;
///     let Some(completion) = queue.next() else { continue };
///     if !completion.has_more() {
///         assert_eq!(completion.result?, 5, "the end of the stream");
///         break;
///     }
///     let Op::Recv(piece) = *completion.op else { unreachable!() };
///     received.extend_from_slice(piece.data());
/// }
/// assert_eq!(received, b"hello");
/// # std::io::Result::Ok(())
/// ```
pub struct RecvMany {
    socket: Fd,
    buffers: Buffers,
    /// The name by which the kernel knows the buffers that it was lent. As long as it is here they are not taken
    /// from the kernel.
    name: Option<Arc<u16>>,
    /// What the next outcome is about, and then what is to be told.
    filled: Option<Buffer>,
    received: u64,
    /// An entry was made, and none of its completions has come.
    untried: bool,
}

impl RecvMany {
    /// Receives from `socket` into `buffers`.
    #[must_use]
    pub fn new(socket: Fd, buffers: &Buffers) -> RecvMany {
        RecvMany {
            socket,
            buffers: buffers.clone(),
            name: None,
            filled: None,
            received: 0,
            untried: false,
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Fd {
        &self.socket
    }

    /// The pool.
    #[must_use]
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// How many bytes have come in all pieces.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the kernel was lent the buffers, and by which name.
    pub(crate) fn receive_into(&mut self, name: Option<Arc<u16>>) {
        (self.name, self.untried) = (name, false);
    }

    /// What is to be told. An empty datagram may have taken no buffer.
    pub(crate) fn take_piece(&mut self) -> Recv {
        let memory = self.filled.take().map_or_else(|| Vec::new().into(), Memory::from);
        Recv::received(self.socket.clone(), memory)
    }

    /// The next outcome is about a buffer of that number.
    pub(crate) fn fill(&mut self, provided: &mut Provided, number: u16, len: usize) {
        self.filled = self.name.as_ref().and_then(|name| provided.take(**name, number, len));
    }

    /// How many buffers there are for it. Those that the kernel has count where it receives by itself.
    pub(crate) fn room(&self, waker: Option<&Waker>) -> usize {
        let lent = if self.name.is_some() { self.buffers.lent() } else { 0 };
        lent + self.buffers.free_or_wake(waker)
    }
}

impl Operation for RecvMany {
    fn advance(&mut self) -> Step {
        if std::mem::take(&mut self.untried) {
            // The ring has given it back: it does not know multishots, or takes nothing any more.
            self.name = None;
        }
        if self.name.is_some() {
            return Step::Run;
        }
        let outcome = self.run();
        self.complete(outcome)
    }

    fn encode(&mut self) -> Option<Entry> {
        let name = **self.name.as_ref()?;
        self.untried = true;
        let fd = types::Fd(self.socket.as_fd().as_raw_fd());
        Some(opcode::RecvMulti::new(fd, name).build())
    }

    fn run(&mut self) -> Outcome {
        let mut buffer = self.buffers.take().ok_or(Errno(libc::ENOBUFS))?;
        let count = socket::receive(self.socket.as_fd(), buffer.room(), 0, None)?;
        buffer.grow(count as usize);
        self.filled = Some(buffer);
        Ok(count)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        self.untried = false;
        match outcome {
            Ok(0) if !socket::is_datagram(self.socket.as_fd()) => {
                self.filled = None;
                Step::Done(Ok(self.received))
            }
            Ok(count) if count > 0 && self.filled.is_none() => {
                // The kernel has named no buffer that it was lent.
                Step::Done(Err(Errno(libc::EIO).into()))
            }
            Ok(count) => {
                self.received += u64::from(count);
                Step::Piece
            }
            Err(Errno(libc::EAGAIN)) => Step::Run,
            // No buffer; or it was taken off the ring, but is not to end: else the engine would not have asked.
            Err(Errno(libc::ENOBUFS)) => Step::Rest,
            Err(Errno(libc::ECANCELED | libc::EINTR)) if self.name.is_some() => Step::Rest,
            Err(errno) => Step::Done(Err(errno.into())),
        }
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn waits_for(&self) -> Option<Side> {
        Some(Side::Reading)
    }
}

impl fmt::Debug for RecvMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvMany")
            .field("socket", &self.socket.as_fd())
            .field("buffers", &self.buffers)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
