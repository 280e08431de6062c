//! Reading into several buffers, and writing several, in one call.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::buffer::{Filling, Iovecs, MOST, PinnedIovecs};
use crate::operation::{Errno, Fd, Operation, Order, Outcome, Step};
use crate::ops::{check_range, done};
use crate::priority::Priority;
use crate::reading::Reading;
use crate::sys::file::{self, STREAM};

/// How many buffers one call takes (`UIO_MAXIOV`).
const MOST_BUFFERS: usize = 1024;

/// Reads into several buffers, one after the other, as preadv(2). In all else like
/// [`Read`](crate::Read), which see; it does not look into the page cache first.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Op, ReadVectored};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let file = Arc::new(std::fs::File::open("/proc/self/status")?);
/// let buffers = vec![Vec::with_capacity(5), Vec::with_capacity(100)];
/// queue[aio].submit(ReadVectored::new(file, 0, buffers), 1).unwrap();
/// queue.wait(None)?;
/// let Op::ReadVectored(read) = *queue.next().unwrap().op else { unreachable!() };
/// assert_eq!(read.into_buffers()[0], b"Name:");
/// # std::io::Result::Ok(())
/// ```
pub struct ReadVectored {
    place: Place,
    buffers: Vec<Filling>,
}

/// Writes several buffers, one after the other, as pwritev(2). In all else like
/// [`Write`](crate::Write), which see.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, WriteVectored};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let file = Arc::new(tempfile::tempfile()?);
/// let buffers = vec![b"header ".to_vec(), b"body".to_vec()];
/// queue[aio].submit(WriteVectored::new(file, 0, buffers), 1).unwrap();
/// queue.wait(None)?;
/// assert_eq!(queue.next().unwrap().result?, 11);
/// # std::io::Result::Ok(())
/// ```
pub struct WriteVectored {
    place: Place,
    buffers: Vec<Vec<u8>>,
}

/// Where to read or write, and the list of buffers while the ring works on them.
struct Place {
    /// Many buffers are not looked for in memory.
    reading: Reading,
    offset: u64,
    /// The file turned out to have no places.
    stream: bool,
    priority: Priority,
    pinned: PinnedIovecs,
}

impl Place {
    fn new(file: Fd, offset: u64) -> Place {
        Place {
            reading: Reading { cold: true, ..Reading::new(file) },
            offset,
            stream: false,
            priority: Priority::Normal,
            pinned: PinnedIovecs::default(),
        }
    }

    fn check(&self, buffers: usize) -> io::Result<()> {
        if buffers > MOST_BUFFERS {
            let text = format!("{buffers} buffers; one call takes {MOST_BUFFERS}: split them");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        check_range(self.offset, MOST as u64)
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.reading.file.as_fd().as_raw_fd())
    }

    fn position(&self) -> i64 {
        // `check` has seen that it fits.
        if self.stream { STREAM } else { self.offset as i64 }
    }

    /// Whether the file turns out now to have no places, so that the call is to be made again.
    fn turns_out_a_stream(&mut self, outcome: Outcome) -> bool {
        let news = outcome == Err(Errno(libc::ESPIPE)) && !self.stream;
        self.stream |= news;
        news
    }
}

impl ReadVectored {
    /// A read of `file` at `offset` that fills each of `buffers` up to its capacity.
    pub fn new(file: Fd, offset: u64, buffers: Vec<Vec<u8>>) -> ReadVectored {
        let buffers = buffers.into_iter().map(Filling::new).collect();
        ReadVectored { place: Place::new(file, offset), buffers }
    }

    /// The buffers, with what was read.
    #[must_use]
    pub fn into_buffers(self) -> Vec<Vec<u8>> {
        self.buffers.into_iter().map(Filling::into_vec).collect()
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> ReadVectored {
        self.place.priority = priority;
        self
    }
}

impl Operation for ReadVectored {
    fn check(&self) -> io::Result<()> {
        self.place.check(self.buffers.len())
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn reading(&mut self) -> Option<&mut Reading> {
        Some(&mut self.place.reading)
    }

    fn encode(&mut self) -> Option<Entry> {
        if !self.place.reading.takes_nowait() {
            return None;
        }
        self.place.pinned = Iovecs::of_rooms(&mut self.buffers).pinned();
        let (list, count) = self.place.pinned.parts();
        let entry = opcode::Readv::new(self.place.fd(), list, count);
        let entry = entry.offset(self.place.position() as u64);
        Some(entry.ioprio(self.place.priority.ioprio()).build())
    }

    fn run(&mut self) -> Outcome {
        let (fd, position) = (self.place.reading.file.as_fd(), self.place.position());
        file::read_vectored(fd, &Iovecs::of_rooms(&mut self.buffers), position)
    }

    fn priority(&self) -> Priority {
        self.place.priority
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if self.place.turns_out_a_stream(outcome) {
            return Step::Run;
        }
        let mut left = outcome.unwrap_or(0) as usize;
        for buffer in &mut self.buffers {
            let here = left.min(buffer.room().len());
            buffer.filled(here);
            left -= here;
        }
        done(outcome)
    }
}

impl WriteVectored {
    /// A write of `buffers` to `file`, from `offset` on.
    pub fn new(file: Fd, offset: u64, buffers: Vec<Vec<u8>>) -> WriteVectored {
        WriteVectored { place: Place::new(file, offset), buffers }
    }

    /// The buffers, as they were submitted.
    #[must_use]
    pub fn into_buffers(self) -> Vec<Vec<u8>> {
        self.buffers
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> WriteVectored {
        self.place.priority = priority;
        self
    }
}

impl Operation for WriteVectored {
    fn check(&self) -> io::Result<()> {
        self.place.check(self.buffers.len())
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn reading(&mut self) -> Option<&mut Reading> {
        Some(&mut self.place.reading)
    }

    fn encode(&mut self) -> Option<Entry> {
        if !self.place.reading.takes_nowait() {
            return None;
        }
        self.place.pinned = Iovecs::of_data(&self.buffers).pinned();
        let (list, count) = self.place.pinned.parts();
        let entry = opcode::Writev::new(self.place.fd(), list, count);
        let entry = entry.offset(self.place.position() as u64);
        Some(entry.ioprio(self.place.priority.ioprio()).build())
    }

    fn run(&mut self) -> Outcome {
        let (fd, position) = (self.place.reading.file.as_fd(), self.place.position());
        file::write_vectored(fd, &Iovecs::of_data(&self.buffers), position)
    }

    fn order(&self) -> Order {
        Order::Write(self.place.reading.file.as_fd().as_raw_fd())
    }

    fn priority(&self) -> Priority {
        self.place.priority
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if self.place.turns_out_a_stream(outcome) { Step::Run } else { done(outcome) }
    }
}

impl fmt::Debug for ReadVectored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadVectored")
            .field("file", &self.place.reading.file.as_fd())
            .field("offset", &self.place.offset)
            .field("buffers", &self.buffers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WriteVectored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteVectored")
            .field("file", &self.place.reading.file.as_fd())
            .field("offset", &self.place.offset)
            .field("buffers", &self.buffers.len())
            .finish_non_exhaustive()
    }
}
