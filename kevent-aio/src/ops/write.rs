//! Writing to a place in a file.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::buffer::{MOST, Memory};
use crate::fixed::Fixed;
use crate::operation::{Errno, Fd, Operation, Order, Outcome, Step};
use crate::ops::{check_range, done};
use crate::priority::Priority;
use crate::reading::Reading;
use crate::sys::file::{self, STREAM};

/// Writes a buffer at an offset, as pwrite(2).
///
/// The result says how much was written; less than the whole is a result and no error. On a pipe, a
/// socket or a terminal, and on a file that is open with O_APPEND, the offset counts for nothing. The
/// buffer comes back in the completion.
///
/// Two writes in flight are not ordered. A write to a pipe or socket whose other end is gone is
/// `BrokenPipe`, and raises SIGPIPE in a program that has undone Rust's ignoring it. A write beyond the
/// limit of file sizes (RLIMIT_FSIZE) is `FileTooLarge`; if the file is open with O_DIRECT it may raise
/// SIGXFSZ as well, as pwrite(2) does, which ends a program that does not ignore that.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Write};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let file = Arc::new(tempfile::tempfile()?);
/// queue[aio].submit(Write::new(file.clone(), 5, "hello"), 1).unwrap();
/// queue.wait(None)?;
/// assert_eq!(queue.next().unwrap().result?, 5);
/// assert_eq!(file.metadata()?.len(), 10);
/// # std::io::Result::Ok(())
/// ```
pub struct Write {
    /// To write is to wait, so it is not tried first.
    reading: Reading,
    offset: u64,
    buffer: Memory,
    /// How much of the buffer was written before.
    written: usize,
    /// The file turned out to have no places to write to.
    stream: bool,
    priority: Priority,
}

impl Write {
    /// A write of `memory` to `file` at `offset`: bytes, or a [`Buffer`](crate::Buffer) of a pool, as O_DIRECT
    /// needs one. Of more than 2 GiB the kernel takes the first 2 GiB.
    pub fn new(file: Fd, offset: u64, memory: impl Into<Memory>) -> Write {
        let reading = Reading { cold: true, ..Reading::new(file) };
        let buffer = memory.into();
        Write { reading, offset, buffer, written: 0, stream: false, priority: Priority::Normal }
    }

    /// Goes on with a write of `buffer` at `offset` of which so much was written. The result does not
    /// count that.
    #[cfg(feature = "tokio")]
    pub(crate) fn resume(file: Fd, offset: u64, buffer: Vec<u8>, written: usize) -> Write {
        let written = written.min(buffer.len());
        Write { written, ..Write::new(file, offset, buffer) }
    }

    /// The bytes, as they were submitted: the vector itself, or a copy out of the buffer of a pool.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer.into_vec()
    }

    /// The memory, as it was submitted.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        self.buffer
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Write {
        Write { priority, ..self }
    }

    /// The file that it writes to.
    #[must_use]
    pub fn file(&self) -> &Fd {
        &self.reading.file
    }

    fn position(&self) -> i64 {
        // `check` has seen that it fits.
        if self.stream { STREAM } else { (self.offset + self.written as u64) as i64 }
    }

    fn data(&self) -> &[u8] {
        let left = &self.buffer.as_slice()[self.written..];
        &left[..left.len().min(MOST)]
    }
}

impl Operation for Write {
    fn check(&self) -> io::Result<()> {
        check_range(self.offset, self.buffer.as_slice().len() as u64)
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn reading(&mut self) -> Option<&mut Reading> {
        Some(&mut self.reading)
    }

    fn encode(&mut self) -> Option<Entry> {
        if !self.reading.takes_nowait() {
            return None;
        }
        let (pointer, len) = (self.data().as_ptr(), self.data().len() as u32);
        let fd = types::Fd(self.reading.file.as_fd().as_raw_fd());
        Some(
            opcode::Write::new(fd, pointer, len)
                .offset(self.position() as u64)
                .ioprio(self.priority.ioprio())
                .build(),
        )
    }

    fn encode_fixed(&mut self, fixed: &Fixed) -> Option<Entry> {
        if !self.reading.takes_nowait() {
            return None;
        }
        let (number, slot) = (fixed.buffer(&self.buffer), fixed.file(self.reading.file.as_fd()));
        let (pointer, len) = (self.data().as_ptr(), self.data().len() as u32);
        let (position, ioprio) = (self.position() as u64, self.priority.ioprio());
        let fd = types::Fd(self.reading.file.as_fd().as_raw_fd());
        Some(match (slot.map(types::Fixed), number) {
            (Some(slot), Some(number)) => opcode::WriteFixed::new(slot, pointer, len, number)
                .offset(position)
                .ioprio(ioprio)
                .build(),
            (None, Some(number)) => opcode::WriteFixed::new(fd, pointer, len, number)
                .offset(position)
                .ioprio(ioprio)
                .build(),
            (Some(slot), None) => {
                opcode::Write::new(slot, pointer, len).offset(position).ioprio(ioprio).build()
            }
            (None, None) => return None,
        })
    }

    fn run(&mut self) -> Outcome {
        file::write(self.reading.file.as_fd(), self.data(), self.position())
    }

    fn order(&self) -> Order {
        Order::Write(self.reading.file.as_fd().as_raw_fd())
    }

    fn priority(&self) -> Priority {
        self.priority
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Err(Errno(libc::ESPIPE)) if !self.stream => {
                self.stream = true;
                Step::Run
            }
            outcome => done(outcome),
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("file", &self.reading.file.as_fd())
            .field("offset", &self.offset)
            .field("len", &self.buffer.as_slice().len())
            .finish_non_exhaustive()
    }
}
