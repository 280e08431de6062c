//! Writing to a place in a file.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::buffer::MOST;
use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::{check_range, done};
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
    file: Fd,
    offset: u64,
    buffer: Vec<u8>,
    /// The file turned out to have no places to write to.
    stream: bool,
}

impl Write {
    /// A write of `buffer` to `file` at `offset`. Of more than 2 GiB the kernel takes the first 2 GiB.
    pub fn new(file: Fd, offset: u64, buffer: impl Into<Vec<u8>>) -> Write {
        Write { file, offset, buffer: buffer.into(), stream: false }
    }

    /// The buffer, as it was submitted.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// The file that it writes to.
    #[must_use]
    pub fn file(&self) -> &Fd {
        &self.file
    }

    fn position(&self) -> i64 {
        // `check` has seen that it fits.
        if self.stream { STREAM } else { self.offset as i64 }
    }

    fn data(&self) -> &[u8] {
        &self.buffer[..self.buffer.len().min(MOST)]
    }
}

impl Operation for Write {
    fn check(&self) -> io::Result<()> {
        check_range(self.offset, self.buffer.len() as u64)
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let (pointer, len) = (self.data().as_ptr(), self.data().len() as u32);
        let fd = types::Fd(self.file.as_fd().as_raw_fd());
        Some(opcode::Write::new(fd, pointer, len).offset(self.position() as u64).build())
    }

    fn run(&mut self) -> Outcome {
        file::write(self.file.as_fd(), self.data(), self.position())
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
            .field("file", &self.file.as_fd())
            .field("offset", &self.offset)
            .field("len", &self.buffer.len())
            .finish_non_exhaustive()
    }
}
