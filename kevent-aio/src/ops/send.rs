//! Sending to a connected socket.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::buffer::MOST;
use crate::operation::{Errno, Fd, Operation, Outcome, Side, Step};
use crate::ops::payload::Payload;
use crate::ops::{check_flags, done, window};
use crate::sys::socket;

/// Sends bytes, as send(2), to a blocking or a non-blocking socket.
///
/// The result is how much the socket has taken: less than the whole is a result and no error, unless
/// [`all`](Send::all) was asked for. A peer that is gone is `BrokenPipe`, never SIGPIPE.
///
/// What is sent on one socket, by this and by [`Sendfile`](crate::Sendfile), goes out in the order of
/// submission, and nothing comes in between. A send that waits for room holds no thread.
///
/// Source: send(2).
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Send};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let (ours, theirs) = UnixStream::pair()?;
/// queue[aio].submit(Send::new(Arc::new(ours), "hello").all(), 1).unwrap();
/// queue.wait(None)?;
/// assert_eq!(queue.next().unwrap().result?, 5);
/// assert_eq!(std::io::read_to_string(theirs)?, "hello");
/// # std::io::Result::Ok(())
/// ```
pub struct Send {
    socket: Fd,
    bytes: Payload,
    sent: usize,
    flags: i32,
    all: bool,
    /// The ring does not wait for this socket.
    not_by_ring: bool,
}

impl Send {
    /// Sends `bytes` to `socket`.
    #[must_use]
    pub fn new(socket: Fd, bytes: impl Into<Payload>) -> Send {
        let bytes = bytes.into();
        Send { socket, bytes, sent: 0, flags: 0, all: false, not_by_ring: false }
    }

    /// Goes on after a short count, until the socket has taken all.
    #[must_use]
    pub fn all(mut self) -> Send {
        self.all = true;
        self
    }

    /// Adds `MSG_*` flags. `MSG_WAITALL` and `MSG_DONTWAIT` are refused.
    #[must_use]
    pub fn flags(mut self, more: i32) -> Send {
        self.flags |= more;
        self
    }

    /// How much the socket has taken, also when the operation failed or was cancelled.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent as u64
    }

    /// The bytes, all of them.
    #[must_use]
    pub fn into_bytes(self) -> Payload {
        self.bytes
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Fd {
        &self.socket
    }

    /// What is to be sent next.
    fn rest(&self) -> &[u8] {
        let rest = self.bytes.as_slice().get(self.sent..).unwrap_or_default();
        &rest[..rest.len().min(MOST)]
    }

    /// Counts what was taken. Without a step it is not enough.
    fn count(&mut self, count: u32) -> Option<Step> {
        self.sent += count as usize;
        let over = !self.all || self.rest().is_empty();
        over.then(|| Step::Done(Ok(self.sent())))
    }
}

impl Operation for Send {
    fn check(&self) -> io::Result<()> {
        check_flags(self.flags)
    }

    fn advance(&mut self) -> Step {
        let before = self.sent();
        while self.sent() - before <= window::TURN {
            match self.run() {
                Ok(count) => {
                    if let Some(step) = self.count(count) {
                        return step;
                    }
                }
                Err(Errno(libc::EAGAIN)) => return Step::Run,
                outcome => return done(outcome),
            }
        }
        Step::Again
    }

    fn encode(&mut self) -> Option<Entry> {
        if self.not_by_ring {
            return None;
        }
        let fd = types::Fd(self.socket.as_fd().as_raw_fd());
        let rest = self.rest();
        let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32);
        // Kernels of today add this by themselves, for the ring only.
        Some(entry.flags(self.flags | libc::MSG_NOSIGNAL).build())
    }

    fn run(&mut self) -> Outcome {
        socket::send(self.socket.as_fd(), self.rest(), self.flags, None)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Ok(count) => self.count(count).unwrap_or(Step::Run),
            Err(Errno(libc::EAGAIN)) => {
                self.not_by_ring = true;
                Step::Run
            }
            outcome => done(outcome),
        }
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn waits_for(&self) -> Option<Side> {
        Some(Side::Writing)
    }
}

impl fmt::Debug for Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send")
            .field("socket", &self.socket.as_fd())
            .field("bytes", &self.bytes)
            .field("sent", &self.sent)
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}
