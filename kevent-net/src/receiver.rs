//! The source that receives: what comes in on sockets and pipes, in events.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use kevent_core::{Due, Full, Interest, PollKey, PollSet, Sink, Source, Token, Trigger};
use rustix::fs::{FileType, fstat};
use rustix::net::SocketType;

use crate::received::ReceiveEvent;
use crate::requests::{Requests, Socket};
use crate::uring::{Answer, How, Threads, Uring};

/// Buffers of [`Receiver::new`], and the bytes of each.
const DEFAULT_BUFFERS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const DEFAULT_SIZE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// As many buffers as a ring of them can hold.
const MAX_BUFFERS: usize = 1 << 15;

/// A source that receives by itself: its events carry what came in.
///
/// [`Readiness`](crate::Readiness) says that there is something to read; this one has read it already,
/// on io_uring, by one request for each socket that stays until it is cancelled. Where many sockets are
/// active at once that saves calls: none asks the kernel which they are, none reads. It needs
/// Linux 6.0 and permission to use io_uring; where that lacks, [`new`](Receiver::new) says so, and
/// `Readiness` does the job. What is said of sockets here holds for pipes alike.
///
/// # Buffers
///
/// There is a fixed number of them for all sockets together. What an event carries is one of them,
/// [`Buffer`](crate::Buffer), and goes back when it is dropped. When all are in the program's hands, what comes in stays
/// in the sockets, and their peers are held up: nothing is lost but by sockets that drop what they have
/// no room for, as UDP's do. Once a buffer is back the sockets that went without get their turn, the
/// longest waiting first.
///
/// The bytes of a stream come in order, in pieces of at most the size of a buffer. A datagram is one
/// event; what of it does not fit into a buffer is cut off, as by recv(2).
///
/// # Who owns the socket
///
/// The source has a share in it while it is registered, so that its number can't be given to another
/// file; the program writes through its own. A socket is closed when both have let go, and the turn of
/// the queue after that has told the kernel to end the request.
///
/// ```
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
/// use std::sync::Arc;
/// use kevent_core::Queue;
/// use kevent_net::{Received, Receiver};
///
/// let receiver = match Receiver::new() {
///     Ok(receiver) => receiver,
///     Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(()),
///     Err(error) => return Err(error),
/// };
/// let mut queue = Queue::new()?;
/// let receiver = queue.attach(receiver, |event| event)?;
/// let (here, mut there) = UnixStream::pair()?;
/// queue[receiver].register(&Arc::new(here), 7)?;
///
/// there.write_all(b"hello")?;
/// drop(there);
/// let mut received = Vec::new();
/// loop {
///     queue.wait(None)?;
///     let Some(event) = queue.next() else { continue };
///     assert_eq!(event.key, 7);
///     match event.received {
///         Received::Data(data) => received.extend_from_slice(&data),
///         Received::End => break,
///         Received::Error(error) => return Err(error),
///     }
/// }
/// assert_eq!(received, b"hello");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Receiver {
    uring: Uring,
    /// From pipes, too.
    can_read: bool,
    queue: Option<PollSet>,
    requests: Requests,
    /// What the ring of the queue had no room for.
    refused: Option<(Token, ReceiveEvent)>,
}

impl Receiver {
    /// A source with 1,024 buffers of 4 KiB.
    ///
    /// # Errors
    ///
    /// As [`with_buffers`](Receiver::with_buffers).
    pub fn new() -> io::Result<Receiver> {
        Receiver::with_buffers(DEFAULT_BUFFERS, DEFAULT_SIZE)
    }

    /// A source with at least `count` buffers (a power of two is taken) of `size` bytes each. Their
    /// memory is used as they are.
    ///
    /// It is tried out on a pair of sockets, not guessed from the kernel's version.
    ///
    /// # Errors
    ///
    /// * `Unsupported` where io_uring is not allowed, or can't receive for more than once (before Linux
    ///   6.0).
    /// * `InvalidInput` for more than 32,768 buffers, or for more than 4 GiB - 1 in each.
    /// * When descriptors or memory have run out.
    pub fn with_buffers(count: NonZeroUsize, size: NonZeroUsize) -> io::Result<Receiver> {
        Receiver::made_for(Threads::Any, count, size)
    }

    /// As [`with_buffers`](Receiver::with_buffers), for a queue that one thread waits for: that which
    /// is the first to wait after something was registered. In return the program is not interrupted for
    /// each thing that comes in: it is received when the queue looks, all of it in a few calls. On pipes of
    /// which many are active that costs a third; elsewhere the two are close. The example `cost` measures
    /// both.
    ///
    /// For another thread that waits for the queue the source has an error, `PermissionDenied`. A
    /// receiver that is dropped by another thread leaks the memory of its buffers, because the kernel
    /// does not let go of them in time.
    ///
    /// # Errors
    ///
    /// As [`with_buffers`](Receiver::with_buffers), and `Unsupported` before Linux 6.1.
    pub fn for_one_thread(count: NonZeroUsize, size: NonZeroUsize) -> io::Result<Receiver> {
        Receiver::made_for(Threads::One, count, size)
    }

    fn made_for(threads: Threads, count: NonZeroUsize, size: NonZeroUsize) -> io::Result<Receiver> {
        let fitting = count.get().checked_next_power_of_two().filter(|n| *n <= MAX_BUFFERS);
        let count = fitting.and_then(|count| u16::try_from(count).ok());
        let (Some(count), Ok(size)) = (count, u32::try_from(size.get())) else {
            let text = "a receiver has 32,768 buffers at most, each below 4 GiB";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        // Another ring, because the trial would make it this thread's.
        let mut trial = Uring::new(Threads::Any, 2, 1)?;
        try_out(&mut trial)?;
        Ok(Receiver {
            uring: Uring::new(threads, count, size)?,
            can_read: trial.can(How::Read),
            queue: None,
            requests: Requests::new(),
            refused: None,
        })
    }

    /// Receives what comes in on `socket`, and what is there already, under the user's own number
    /// `key`, until its end or until it is unregistered. It need not be non-blocking. Who else reads
    /// from it takes what this one would have.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what is neither socket nor pipe; `Unsupported` for a pipe before Linux 6.7. What is
    /// wrong with the socket itself (it is not connected,
    /// for example) comes as [`Received::Error`](crate::Received::Error).
    pub fn register(
        &mut self,
        socket: &Arc<impl AsFd + Send + Sync + 'static>,
        key: u64,
    ) -> io::Result<Token> {
        let (how, datagrams) = self.way_of(socket.as_fd())?;
        let token = self.requests.register(Socket(socket.clone()), key, how, datagrams);
        self.changed();
        Ok(token)
    }

    /// How to receive from `fd`, and whether in datagrams.
    fn way_of(&self, fd: BorrowedFd<'_>) -> io::Result<(How, bool)> {
        let error = match rustix::net::sockopt::socket_type(fd) {
            Ok(SocketType::STREAM | SocketType::SEQPACKET) => return Ok((How::Receive, false)),
            Ok(_) => return Ok((How::Receive, true)),
            Err(error) => error,
        };
        let is_pipe = fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo());
        if is_pipe && self.can_read {
            return Ok((How::Read, false));
        }
        let (kind, text) = if is_pipe {
            let text = "receiving from a pipe takes Linux 6.7: use `Readiness`".to_owned();
            (io::ErrorKind::Unsupported, text)
        } else {
            let text = format!("a receiver receives from sockets and pipes only: {error}");
            (io::ErrorKind::InvalidInput, text)
        };
        Err(io::Error::new(kind, text))
    }

    /// Receives no more from the socket until [`resume`](Receiver::resume). What was received already
    /// still comes: so this is the way to hold up one peer, whose data stay in the socket, or to hand
    /// the socket over to another reader, once nothing comes any more.
    ///
    /// # Errors
    ///
    /// `NotFound` when the registration is gone.
    pub fn pause(&mut self, token: Token) -> io::Result<()> {
        if self.requests.pause(token).ok_or_else(no_such)? {
            self.changed();
        }
        Ok(())
    }

    /// Receives again from the socket of a paused registration.
    ///
    /// # Errors
    ///
    /// `NotFound` when the registration is gone.
    pub fn resume(&mut self, token: Token) -> io::Result<()> {
        if self.requests.resume(token).ok_or_else(no_such)? {
            self.changed();
        }
        Ok(())
    }

    /// Ends a registration; says whether it stood. No event of it is delivered any more, not even one
    /// that is in the ring: what was received and not delivered is lost. [`pause`](Receiver::pause)
    /// first, if somebody else is to go on reading.
    pub fn unregister(&mut self, token: Token) -> bool {
        let unseen = !self.uring.is_submitted();
        let Some(standing) = self.requests.unregister(token, unseen) else { return false };
        if standing {
            self.changed();
        }
        true
    }

    /// How many registrations stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether no registration stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many registrations wait for a buffer.
    #[must_use]
    pub fn starved(&self) -> usize {
        self.requests.starved()
    }

    /// The queue's descriptor has to know that a turn is due, if somebody sleeps on that.
    fn changed(&self) {
        if let Some(queue) = &self.queue {
            queue.waker().changed();
        }
    }
}

impl Source for Receiver {
    type Item = ReceiveEvent;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        let ring = self.uring.as_fd();
        poll_set.add(ring, PollKey::default(), Interest::READABLE, Trigger::Edge)?;
        self.uring.set_waker(Some(poll_set.waker().clone()));
        self.queue = Some(poll_set.clone());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        self.requests.hand_over(&mut self.uring)?;
        self.uring.heed(self.queue.as_ref().is_some_and(PollSet::is_awake))?;
        let some = self.refused.is_some() || self.uring.has_answers()?;
        Ok(if some { Due::Now } else { Due::OnWake })
    }

    fn drain(&mut self, sink: &mut impl Sink<ReceiveEvent>) -> io::Result<()> {
        // It may have been removed while it waited for room.
        let waiting = self.refused.take().filter(|(token, _)| self.requests.is_registered(*token));
        if let Some((token, event)) = waiting {
            if let Err(Full(event)) = sink.push(token, event) {
                self.refused = Some((token, event));
                return Ok(());
            }
        }
        while self.uring.has_answers()? {
            for answer in self.uring.answers() {
                let Some((token, event)) = self.requests.understand(answer) else { continue };
                if let Err(Full(event)) = sink.push(token, event) {
                    self.refused = Some((token, event));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        self.requests.deliver(token)
    }

    /// The registrations end.
    fn detach(&mut self) {
        for token in self.requests.tokens() {
            self.unregister(token);
        }
        self.refused = None;
        self.requests.forget();
        // What it can't hand over now it hands over in the next queue, or when it is dropped.
        let _ = self.requests.hand_over(&mut self.uring);
        self.uring.set_waker(None);
        self.queue = None;
    }
}

impl Drop for Receiver {
    /// Cancels the requests by their names. For whoever ends them without, each is a search.
    fn drop(&mut self) {
        self.detach();
    }
}

/// Receives twice from a pair of sockets by one request: a byte, and the end.
fn try_out(uring: &mut Uring) -> io::Result<()> {
    let (here, there) = UnixStream::pair()?;
    io::Write::write_all(&mut &there, b"x")?;
    drop(there);
    // A name that no registration has.
    uring.push_receive(Token::SOLE.to_bits(), here.as_fd(), How::Receive);
    uring.submit()?;
    match (uring.answer()?, uring.answer()?) {
        (Some(byte), Some(end)) if byte.more && *byte.buffer == *b"x" && end.result == Ok(0) => {
            Ok(())
        }
        (Some(Answer { result: Err(errno), .. }), _) => {
            Err(unable(&io::Error::from_raw_os_error(errno)))
        }
        _ => Err(unable(&"a request does not receive more than once")),
    }
}

fn unable(reason: &dyn fmt::Display) -> io::Error {
    let text = format!(
        "this io_uring can't receive as it should: {reason}; probably a kernel before 6.0: use \
         `Readiness`"
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

fn no_such() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such registration")
}
