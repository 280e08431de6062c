//! Ending one side of a connection, or both.

use std::fmt;
use std::net;
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::squeue::Entry;

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::sys::socket;

/// Ends one side of a connection, or both, as shutdown(2).
///
/// Ending the writing side has its place among what is sent on the socket: the peer sees the end after
/// all that was submitted before. It never blocks.
///
/// Source: shutdown(2).
///
/// ```
/// use std::net;
/// use std::os::unix::net::UnixStream;
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Send, Shutdown};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let (ours, theirs) = UnixStream::pair()?;
/// let ours = Arc::new(ours);
/// queue[aio].submit(Send::new(ours.clone(), "the last").all(), 1).unwrap();
/// queue[aio].submit(Shutdown::new(ours.clone(), net::Shutdown::Write), 2).unwrap();
/// queue.wait(None)?;
/// assert_eq!(std::io::read_to_string(theirs)?, "the last");
/// # std::io::Result::Ok(())
/// ```
pub struct Shutdown {
    socket: Fd,
    how: net::Shutdown,
}

impl Shutdown {
    /// Ends that side of `socket`.
    #[must_use]
    pub fn new(socket: Fd, how: net::Shutdown) -> Shutdown {
        Shutdown { socket, how }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Fd {
        &self.socket
    }
}

impl Operation for Shutdown {
    fn advance(&mut self) -> Step {
        done(self.run())
    }

    fn encode(&mut self) -> Option<Entry> {
        None
    }

    fn run(&mut self) -> Outcome {
        let how = match self.how {
            net::Shutdown::Read => libc::SHUT_RD,
            net::Shutdown::Write => libc::SHUT_WR,
            net::Shutdown::Both => libc::SHUT_RDWR,
        };
        socket::shutdown(self.socket.as_fd(), how)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        // Who ends only reading need not wait for what is to be sent.
        (self.how != net::Shutdown::Read).then(|| self.socket.as_fd())
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("socket", &self.socket.as_fd())
            .field("how", &self.how)
            .finish()
    }
}
