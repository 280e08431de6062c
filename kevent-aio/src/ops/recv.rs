//! Receiving from a connected socket.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::buffer::{Filling, Memory};
use crate::operation::{Errno, Fd, Operation, Outcome, Side, Step};
use crate::ops::{check_flags, done, room, window};
use crate::sys::socket;

/// Receives into a buffer, as recv(2), from a blocking or a non-blocking socket.
///
/// The result is how much has come; 0 is the end of the stream. The buffer comes back in the
/// completion ([`into_buffer`](Recv::into_buffer)) and holds what was received, also when the operation
/// failed or was cancelled: nothing that has left the socket is lost.
///
/// Any number of receives may wait, on one socket or on many, and hold no thread. They do not stand
/// behind what is to be sent. Those on one socket are not ordered: of a stream, receive the next once
/// the last is done.
///
/// Source: recv(2).
///
/// ```
/// use std::io::Write as _;
/// use std::os::unix::net::UnixStream;
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Op, Recv};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let (ours, mut theirs) = UnixStream::pair()?;
/// queue[aio].submit(Recv::new(Arc::new(ours), Vec::with_capacity(100)), 1).unwrap();
/// theirs.write_all(b"hello")?;
/// queue.wait(None)?;
/// let completion = queue.next().unwrap();
/// assert_eq!(completion.result?, 5);
/// let Op::Recv(recv) = *completion.op else { unreachable!() };
/// assert_eq!(recv.into_buffer(), b"hello");
/// # std::io::Result::Ok(())
/// ```
pub struct Recv {
    socket: Fd,
    buffer: Filling,
    flags: i32,
    all: bool,
    /// The ring does not wait for this socket.
    not_by_ring: bool,
}

impl Recv {
    /// Receives from `socket` into `buffer`, up to its capacity. What it held is forgotten.
    #[must_use]
    pub fn new(socket: Fd, buffer: Vec<u8>) -> Recv {
        Recv { socket, buffer: Filling::new(buffer), flags: 0, all: false, not_by_ring: false }
    }

    /// One that has received what `memory` holds.
    pub(crate) fn received(socket: Fd, memory: Memory) -> Recv {
        Recv { buffer: Filling::full(memory), ..Recv::new(socket, Vec::new()) }
    }

    /// Receives `len` bytes at most, whatever the buffer's capacity, which grows if it must.
    ///
    /// # Panics
    ///
    /// As [`Vec::with_capacity`], if no memory can be had for so many.
    #[must_use]
    pub fn up_to(mut self, len: usize) -> Recv {
        self.buffer.up_to(len);
        self
    }

    /// Goes on until the buffer is full, or the stream at its end.
    #[must_use]
    pub fn all(mut self) -> Recv {
        self.all = true;
        self
    }

    /// Adds `MSG_*` flags. `MSG_WAITALL` and `MSG_DONTWAIT` are refused, as is `MSG_PEEK` with
    /// [`all`](Recv::all), which would never end.
    ///
    /// With `MSG_TRUNC` the result is the length of the datagram, which may be more than the buffer
    /// holds. TCP throws away what has come then, and the buffer has as many zeros.
    #[must_use]
    pub fn flags(mut self, more: i32) -> Recv {
        self.flags |= more;
        self
    }

    /// The buffer, with what was received.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer.into_vec()
    }

    /// The buffer, with what was received: the one of the pool, of a piece that a
    /// [`RecvMany`](crate::RecvMany) has brought.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        self.buffer.into_memory()
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

    /// Takes what has come. Without a step it is not enough.
    fn take(&mut self, count: u32) -> Option<Step> {
        self.buffer.filled(count as usize);
        if !self.all {
            return Some(done(Ok(count)));
        }
        let over = count == 0 || self.buffer.room().is_empty();
        over.then(|| Step::Done(Ok(self.data().len() as u64)))
    }
}

impl Operation for Recv {
    fn check(&self) -> io::Result<()> {
        if self.all && self.flags & libc::MSG_PEEK != 0 {
            let text = "MSG_PEEK leaves the data where it is, so a buffer is never full of all of it: \
                        leave out one of the two";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        check_flags(self.flags)
    }

    fn advance(&mut self) -> Step {
        let before = self.data().len() as u64;
        if self.all && self.buffer.room().is_empty() {
            return Step::Done(Ok(before));
        }
        while self.data().len() as u64 - before <= window::TURN {
            match self.run() {
                Ok(count) => {
                    if let Some(step) = self.take(count) {
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
        let room = room(&mut self.buffer, self.flags);
        let (pointer, len) = (room.as_mut_ptr().cast(), room.len() as u32);
        Some(opcode::Recv::new(fd, pointer, len).flags(self.flags).build())
    }

    fn run(&mut self) -> Outcome {
        let room = room(&mut self.buffer, self.flags);
        socket::receive(self.socket.as_fd(), room, self.flags, None)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Ok(count) => self.take(count).unwrap_or(Step::Run),
            Err(Errno(libc::EAGAIN)) => {
                self.not_by_ring = true;
                Step::Run
            }
            outcome => done(outcome),
        }
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn waits_for(&self) -> Option<Side> {
        Some(Side::Reading)
    }
}

impl fmt::Debug for Recv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recv")
            .field("socket", &self.socket.as_fd())
            .field("buffer", &self.buffer)
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}
