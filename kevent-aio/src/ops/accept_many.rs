//! Accepting one connection after another.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use io_uring::squeue::Entry;

use crate::operation::{Errno, Fd, Operation, Outcome, Side, Step};
use crate::ops::Accept;

/// Accepts connections until it is cancelled or fails.
///
/// Each connection is a completion of its own, with the same token and key; its `op` is an [`Accept`] that is
/// done, from which the socket is [taken](Accept::take), and it says that it [has
/// more](crate::Completion::has_more). The last completion gives this operation back, and is always an error:
/// that it was cancelled or is late, or what is wrong with the listener. It can be submitted again. (EMFILE,
/// for one, ends it: the process may open no more descriptors. The connection waits meanwhile.)
///
/// On the ring it is submitted once, and no system call is made for a connection; elsewhere, and before Linux
/// 5.19, the listener is waited for. Cancelling it loses no connection: those that were accepted by then come
/// before the last completion, the others wait for the next accept. Of one that is
/// [abandoned](crate::Aio::abandon) they are closed, and it is cancelled.
///
/// It does not run ahead of the program: when a thousand completions wait that the queue has no room for, it
/// pauses until half of them were taken. Connections wait with the listener then.
///
/// What is said of listeners at [`Accept`] holds here: a non-blocking one is better. An accept of one connection
/// that is submitted for the same listener may wait for ever.
///
/// Source: accept(2), io_uring_prep_multishot_accept(3).
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use std::sync::Arc;
/// use kevent_aio::{AcceptMany, Aio, Op};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// listener.set_nonblocking(true)?;
/// let token = queue[aio].submit(AcceptMany::new(Arc::new(listener)).nonblocking(), 1)?;
/// let clients = [TcpStream::connect(address)?, TcpStream::connect(address)?];
/// let mut accepted = Vec::new();
/// loop {
///     queue.wait(None)?;
///     let Some(mut completion) = queue.next() else { continue };
///     if !completion.has_more() {
///         assert!(completion.was_cancelled());
///         break;
///     }
///     let Op::Accept(accept) = &mut *completion.op else { unreachable!() };
///     accepted.extend(accept.take());
///     if accepted.len() == clients.len() {
///         queue[aio].cancel(token);
///     }
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct AcceptMany {
    /// The next connection.
    next: Accept,
    /// One that is to be told.
    piece: Option<Accept>,
    /// An entry for it was made since it was advanced.
    on_ring: bool,
    /// None of that entry's completions has come.
    untried: bool,
}

impl AcceptMany {
    /// Accepts connections to `listener`.
    #[must_use]
    pub fn new(listener: Fd) -> AcceptMany {
        AcceptMany { next: Accept::new(listener), piece: None, on_ring: false, untried: false }
    }

    /// The new sockets are to be non-blocking.
    #[must_use]
    pub fn nonblocking(self) -> AcceptMany {
        AcceptMany { next: self.next.nonblocking(), ..self }
    }

    /// The listener.
    #[must_use]
    pub fn listener(&self) -> &Fd {
        self.next.listener()
    }

    /// The connection that is to be told.
    pub(crate) fn take_piece(&mut self) -> Option<Accept> {
        self.piece.take()
    }

    /// One accept has gone as far as that.
    fn after(&mut self, step: Step) -> Step {
        match step {
            Step::Done(Ok(_)) => {
                let another = self.next.another();
                self.piece = Some(std::mem::replace(&mut self.next, another));
                Step::Piece
            }
            Step::Done(Err(error)) if is_of_the_connection(&error) => Step::Again,
            step => step,
        }
    }
}

/// The connection has gone before it was accepted. accept(2) says that of some other errors, too; those may as
/// well be the listener's own, and are left to the user.
fn is_of_the_connection(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECONNABORTED)
}

impl Operation for AcceptMany {
    fn advance(&mut self) -> Step {
        self.on_ring = false;
        // The ring has given it back: it does not know multishots, or takes nothing any more.
        if std::mem::take(&mut self.untried) {
            self.next.leave_ring();
        }
        let step = self.next.advance();
        self.after(step)
    }

    fn encode(&mut self) -> Option<Entry> {
        let entry = self.next.encode_many()?;
        (self.on_ring, self.untried) = (true, true);
        Some(entry)
    }

    fn run(&mut self) -> Outcome {
        self.next.run()
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        self.untried = false;
        if self.on_ring && matches!(outcome, Err(Errno(libc::ECANCELED | libc::EINTR))) {
            // It was not to end: else the engine would not have asked.
            return Step::Rest;
        }
        let step = self.next.complete(outcome);
        self.after(step)
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        self.next.source()
    }

    fn waits_for(&self) -> Option<Side> {
        self.next.waits_for()
    }
}

impl fmt::Debug for AcceptMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptMany").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;

    /// One that was begun, and is to be run.
    fn begun() -> (AcceptMany, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut accept = AcceptMany::new(Arc::new(listener));
        assert!(matches!(accept.advance(), Step::Run));
        (accept, address)
    }

    #[test]
    fn ring_that_can_not_do_it_is_not_asked_again() {
        let (mut accept, address) = begun();
        assert!(accept.encode().is_some());
        let _client = TcpStream::connect(address).unwrap();
        // The kernel has refused the entry, and the listener is ready.
        assert!(matches!(accept.advance(), Step::Piece));
        assert!(accept.take_piece().unwrap().take().is_some());
        assert!(matches!(accept.advance(), Step::Run));
        assert!(accept.encode().is_none());
    }

    #[test]
    fn ring_that_has_brought_something_is_asked_again() {
        let (mut accept, address) = begun();
        assert!(accept.encode().is_some());
        let _client = TcpStream::connect(address).unwrap();
        let outcome = accept.run();
        assert!(matches!(accept.complete(outcome), Step::Piece));
        // The thread that had submitted it has ended, for example.
        drop(accept.take_piece());
        assert!(matches!(accept.advance(), Step::Run));
        assert!(accept.encode().is_some());
    }

    #[test]
    fn taken_off_the_ring_it_goes_on_and_by_itself_it_ends() {
        let (mut accept, _) = begun();
        let cancelled = || Err(Errno(libc::ECANCELED));
        assert!(accept.encode().is_some());
        assert!(matches!(accept.complete(cancelled()), Step::Rest));
        assert!(matches!(accept.advance(), Step::Run));
        assert!(matches!(accept.complete(cancelled()), Step::Done(Err(_))));
    }

    #[test]
    fn connection_that_has_gone_is_passed_over() {
        let (mut accept, _) = begun();
        assert!(matches!(accept.complete(Err(Errno(libc::ECONNABORTED))), Step::Again));
        assert!(matches!(accept.complete(Err(Errno(libc::EMFILE))), Step::Done(Err(_))));
    }
}
