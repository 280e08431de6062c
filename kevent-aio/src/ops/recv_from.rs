//! Receiving a datagram, and where it came from.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::squeue::Entry;

use crate::address::{Address, RawAddress};
use crate::buffer::Filling;
use crate::operation::{Errno, Fd, Operation, Outcome, Side, Step};
use crate::ops::{check_flags, done, room};
use crate::sys::socket;

/// Receives a datagram, as recvfrom(2). In all else like [`Recv`](crate::Recv), which see.
///
/// What of a datagram has no room in the buffer is gone. With the flag `MSG_TRUNC` the result is the
/// length of the whole. The ring is not used: the engine waits for the socket by itself.
///
/// Source: recvfrom(2).
///
/// ```
/// use std::net::UdpSocket;
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Op, RecvFrom};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let here = ours.local_addr()?;
/// queue[aio].submit(RecvFrom::new(Arc::new(ours), Vec::with_capacity(100)), 1).unwrap();
/// theirs.send_to(b"hello", here)?;
/// queue.wait(None)?;
/// let Op::RecvFrom(recv) = *queue.next().unwrap().op else { unreachable!() };
/// assert_eq!(recv.from().unwrap().ip(), Some(theirs.local_addr()?));
/// assert_eq!(recv.into_buffer(), b"hello");
/// # std::io::Result::Ok(())
/// ```
pub struct RecvFrom {
    socket: Fd,
    buffer: Filling,
    flags: i32,
    from: Box<RawAddress>,
}

impl RecvFrom {
    /// Receives from `socket` into `buffer`, up to its capacity. What it held is forgotten.
    #[must_use]
    pub fn new(socket: Fd, buffer: Vec<u8>) -> RecvFrom {
        let from = Box::new(RawAddress::blank());
        RecvFrom { socket, buffer: Filling::new(buffer), flags: 0, from }
    }

    /// Adds `MSG_*` flags. `MSG_WAITALL` and `MSG_DONTWAIT` are refused.
    #[must_use]
    pub fn flags(mut self, more: i32) -> RecvFrom {
        self.flags |= more;
        self
    }

    /// Who has sent it, once it is there. `None` for a sender without an address, and for families
    /// that std has no word for.
    #[must_use]
    pub fn from(&self) -> Option<Address> {
        self.from.address()
    }

    /// The buffer, with what was received.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer.into_vec()
    }

    /// What was received.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.buffer.as_slice()
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Fd {
        &self.socket
    }
}

impl Operation for RecvFrom {
    fn check(&self) -> io::Result<()> {
        check_flags(self.flags)
    }

    fn advance(&mut self) -> Step {
        let outcome = self.run();
        self.complete(outcome)
    }

    fn encode(&mut self) -> Option<Entry> {
        None
    }

    fn run(&mut self) -> Outcome {
        let (socket, room) = (self.socket.as_fd(), room(&mut self.buffer, self.flags));
        socket::receive(socket, room, self.flags, Some(&mut self.from))
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if outcome == Err(Errno(libc::EAGAIN)) {
            return Step::Run;
        }
        self.buffer.filled(outcome.unwrap_or(0) as usize);
        done(outcome)
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn waits_for(&self) -> Option<Side> {
        Some(Side::Reading)
    }
}

impl fmt::Debug for RecvFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvFrom")
            .field("socket", &self.socket.as_fd())
            .field("buffer", &self.buffer)
            .field("from", &self.from())
            .finish_non_exhaustive()
    }
}
