//! Connecting a socket.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::address::{Address, RawAddress};
use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::sys::socket;

/// Connects a socket, as connect(2).
///
/// It is done when the connection stands, whether the socket is blocking or not. What is submitted
/// after it to be sent on the same socket is sent after it.
///
/// A connect that was cancelled, or came past its deadline, may go on in the kernel: close the socket.
/// A non-blocking Unix socket is refused (`WouldBlock`) where a blocking one waits, when the listener
/// has as many connections waiting as it takes; where there is no ring that holds a thread of the pool.
/// Connects on a network hold none.
///
/// Source: connect(2).
///
/// ```
/// use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Connect};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("socket");
/// let service = UnixDatagram::bind(&path)?;
/// let socket = Arc::new(UnixDatagram::unbound()?);
/// let to = SocketAddr::from_pathname(&path)?;
/// queue[aio].submit(Connect::new(socket.clone(), to), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert_eq!(socket.peer_addr()?.as_pathname(), Some(path.as_path()));
/// # std::io::Result::Ok(())
/// ```
pub struct Connect {
    socket: Fd,
    to: Box<RawAddress>,
    /// On a network connecting can be begun without waiting for its end.
    on_network: bool,
    /// The kernel goes on with it; the socket takes data when that is over.
    in_progress: bool,
    /// The ring was told to do it. Should a thread be told after it, the ring may have done it.
    told: bool,
}

impl Connect {
    /// Connects `socket` to `to`.
    #[must_use]
    pub fn new(socket: Fd, to: impl Into<Address>) -> Connect {
        let to = to.into();
        Connect {
            socket,
            to: Box::new(RawAddress::new(&to)),
            on_network: to.ip().is_some(),
            in_progress: false,
            told: false,
        }
    }

    /// Where to.
    #[must_use]
    pub fn to(&self) -> Option<Address> {
        self.to.address()
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Fd {
        &self.socket
    }
}

impl Operation for Connect {
    fn advance(&mut self) -> Step {
        let socket = self.socket.as_fd();
        // Asking again how a connect in progress ended does not wait, once it has.
        if self.in_progress && !socket::is_writable(socket) {
            return Step::Writable;
        }
        if !self.in_progress && !socket::is_nonblocking(socket) {
            return Step::Run;
        }
        let outcome = socket::connect(socket, &self.to);
        self.complete(outcome)
    }

    fn encode(&mut self) -> Option<Entry> {
        self.told = true;
        let (address, length) = self.to.parts();
        let fd = types::Fd(self.socket.as_fd().as_raw_fd());
        Some(opcode::Connect::new(fd, address, length).build())
    }

    fn run(&mut self) -> Outcome {
        let socket = self.socket.as_fd();
        let outcome = if self.on_network {
            socket::begin_connect(socket, &self.to)
        } else {
            socket::connect(socket, &self.to)
        };
        if self.told && outcome == Err(Errno(libc::EISCONN)) { Ok(0) } else { outcome }
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Err(Errno(libc::EINPROGRESS | libc::EALREADY | libc::EINTR)) => {
                self.in_progress = true;
                Step::Writable
            }
            Err(Errno(libc::EISCONN)) if self.in_progress => done(Ok(0)),
            outcome => done(outcome),
        }
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("socket", &self.socket.as_fd())
            .field("to", &self.to())
            .field("in_progress", &self.in_progress)
            .finish_non_exhaustive()
    }
}
