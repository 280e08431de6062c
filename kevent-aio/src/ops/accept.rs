//! Accepting a connection.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::address::{Address, RawAddress};
use crate::operation::{Errno, Fd, Operation, Outcome, Side, Step};
use crate::ops::done;
use crate::sys::{file, socket};

/// Accepts a connection, as accept4(2).
///
/// The result is the new socket, [taken](Accept::take) out of the operation that the completion gives
/// back, and its peer. One that nobody takes is closed, however the operation ends. It is closed on
/// exec, and blocking unless said [otherwise](Accept::nonblocking).
///
/// No connection is lost by cancelling: one that had been accepted by then comes with the completion,
/// and one that had not waits for the next accept. Any number of accepts may wait for one listener, and
/// hold no thread. Which of them gets which connection is not said.
///
/// The listener is better a non-blocking one, which is asked at once. A blocking one, where there is no
/// ring, takes a thread of the pool when a connection is there; should another process or engine take
/// that first, the thread waits for the next.
///
/// An error may be one of the connection and not of the listener (`ConnectionAborted`, network errors):
/// accept again. With EMFILE the process may open no more descriptors; the connection waits.
///
/// Source: accept(2).
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use std::sync::Arc;
/// use kevent_aio::{Accept, Aio, Op};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
/// queue[aio].submit(Accept::new(listener.clone()).nonblocking(), 1).unwrap();
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// queue.wait(None)?;
/// let mut completion = queue.next().unwrap();
/// completion.result?;
/// let Op::Accept(accept) = &mut *completion.op else { unreachable!() };
/// let connection = TcpStream::from(accept.take().unwrap());
/// assert_eq!(connection.peer_addr()?, client.local_addr()?);
/// assert_eq!(accept.peer().unwrap().ip(), Some(client.local_addr()?));
/// # std::io::Result::Ok(())
/// ```
pub struct Accept {
    listener: Fd,
    flags: i32,
    /// Where the kernel writes.
    peer: Box<RawAddress>,
    accepted: Option<OwnedFd>,
    begun: bool,
    /// The listener is a blocking one, and a connection was there: a thread may take it.
    ready: bool,
    /// The ring does not wait for this listener, because it is a non-blocking one (kernels before 6.0).
    not_by_ring: bool,
}

impl Accept {
    /// Accepts a connection to `listener`.
    #[must_use]
    pub fn new(listener: Fd) -> Accept {
        Accept {
            listener,
            flags: libc::SOCK_CLOEXEC,
            peer: Box::new(RawAddress::blank()),
            accepted: None,
            begun: false,
            ready: false,
            not_by_ring: false,
        }
    }

    /// The new socket is to be non-blocking.
    #[must_use]
    pub fn nonblocking(mut self) -> Accept {
        self.flags |= libc::SOCK_NONBLOCK;
        self
    }

    /// The new socket, once.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.accepted.take()
    }

    /// Who has connected, once somebody has. `None` before, and for families of addresses that std has
    /// no word for. Of one that an [`AcceptMany`](crate::AcceptMany) has brought the kernel is asked: so not after
    /// the socket was taken.
    #[must_use]
    pub fn peer(&self) -> Option<Address> {
        let of = |accepted: &OwnedFd| socket::peer(accepted.as_fd()).ok()?.address();
        self.peer.address().or_else(|| of(self.accepted.as_ref()?))
    }

    /// Another one, for the next connection.
    pub(crate) fn another(&self) -> Accept {
        let Accept { flags, not_by_ring, .. } = *self;
        Accept { flags, not_by_ring, ..Accept::new(self.listener.clone()) }
    }

    /// The multishot's entry. It names no place for the address: that would be one for all.
    pub(crate) fn encode_many(&self) -> Option<Entry> {
        let fd = types::Fd(self.listener.as_fd().as_raw_fd());
        (!self.not_by_ring).then(|| opcode::AcceptMulti::new(fd).flags(self.flags).build())
    }

    /// It is done by readiness only.
    pub(crate) fn leave_ring(&mut self) {
        self.not_by_ring = true;
    }

    /// The listener.
    #[must_use]
    pub fn listener(&self) -> &Fd {
        &self.listener
    }
}

impl Operation for Accept {
    fn advance(&mut self) -> Step {
        if socket::is_nonblocking(self.listener.as_fd()) {
            let outcome = self.run();
            return match outcome {
                Err(Errno(libc::EAGAIN)) => Step::Run,
                outcome => self.complete(outcome),
            };
        }
        // There is no call that takes a connection only if there is one. Between this look and an
        // accept here somebody else could take it, and the waiting thread would wait. The first time
        // this operation does not even look: only in the line of those who wait for the listener is
        // it alone in looking, so that one connection sends one thread.
        self.ready = self.begun && socket::is_readable(self.listener.as_fd());
        self.begun = true;
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        if self.not_by_ring {
            return None;
        }
        let fd = types::Fd(self.listener.as_fd().as_raw_fd());
        let (peer, length) = self.peer.room();
        Some(opcode::Accept::new(fd, peer, length).flags(self.flags).build())
    }

    fn run(&mut self) -> Outcome {
        socket::accept(self.listener.as_fd(), &mut self.peer, self.flags)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if outcome == Err(Errno(libc::EAGAIN)) {
            (self.ready, self.not_by_ring) = (false, true);
            return Step::Run;
        }
        self.accepted = outcome.ok().map(file::adopt);
        done(outcome.map(|_| 0))
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.listener.as_fd())
    }

    fn waits_for(&self) -> Option<Side> {
        (!self.ready).then_some(Side::Reading)
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept")
            .field("listener", &self.listener.as_fd())
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}
