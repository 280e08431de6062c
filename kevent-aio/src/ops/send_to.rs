//! Sending a datagram to an address.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::squeue::Entry;

use crate::address::{Address, RawAddress};
use crate::operation::{Errno, Fd, Operation, Outcome, Side, Step};
use crate::ops::payload::Payload;
use crate::ops::{check_flags, done};
use crate::sys::socket;

/// Sends a datagram, as sendto(2): the whole, or an error. In all else like [`Send`](crate::Send), which
/// see.
///
/// That it was sent does not say that it arrives. The ring is not used: the engine waits for the socket
/// by itself.
///
/// Source: sendto(2).
///
/// ```
/// use std::net::UdpSocket;
/// use std::sync::Arc;
/// use kevent_aio::{Aio, SendTo};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let there = theirs.local_addr()?;
/// queue[aio].submit(SendTo::new(Arc::new(ours), there, "hello"), 1).unwrap();
/// queue.wait(None)?;
/// assert_eq!(queue.next().unwrap().result?, 5);
/// assert_eq!(theirs.recv(&mut [0; 100])?, 5);
/// # std::io::Result::Ok(())
/// ```
pub struct SendTo {
    socket: Fd,
    to: Box<RawAddress>,
    bytes: Payload,
    flags: i32,
}

impl SendTo {
    /// Sends `bytes` from `socket` to `to`.
    #[must_use]
    pub fn new(socket: Fd, to: impl Into<Address>, bytes: impl Into<Payload>) -> SendTo {
        let to = Box::new(RawAddress::new(&to.into()));
        SendTo { socket, to, bytes: bytes.into(), flags: 0 }
    }

    /// Adds `MSG_*` flags. `MSG_WAITALL` and `MSG_DONTWAIT` are refused.
    #[must_use]
    pub fn flags(mut self, more: i32) -> SendTo {
        self.flags |= more;
        self
    }

    /// Where to.
    #[must_use]
    pub fn to(&self) -> Option<Address> {
        self.to.address()
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Payload {
        self.bytes
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Fd {
        &self.socket
    }
}

impl Operation for SendTo {
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
        let (socket, bytes) = (self.socket.as_fd(), self.bytes.as_slice());
        socket::send(socket, bytes, self.flags, Some(&self.to))
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if outcome == Err(Errno(libc::EAGAIN)) { Step::Run } else { done(outcome) }
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn waits_for(&self) -> Option<Side> {
        Some(Side::Writing)
    }
}

impl fmt::Debug for SendTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendTo")
            .field("socket", &self.socket.as_fd())
            .field("to", &self.to())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
