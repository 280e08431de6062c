//! Setting the space of a file aside, or giving it back.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Order, Outcome, Step};
use crate::ops::{check_range, done};
use crate::sys::file;

/// Changes how much space a range of a file takes, as fallocate(2).
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Fallocate};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let file = Arc::new(tempfile::tempfile()?);
/// queue[aio].submit(Fallocate::new(file.clone(), 0, 65_536), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert_eq!(file.metadata()?.len(), 65_536);
/// # std::io::Result::Ok(())
/// ```
pub struct Fallocate {
    file: Fd,
    offset: u64,
    len: u64,
    mode: i32,
}

impl Fallocate {
    /// Makes sure that the range can be written without running out of space. The file grows if the
    /// range ends beyond it.
    pub fn new(file: Fd, offset: u64, len: u64) -> Fallocate {
        Fallocate { file, offset, len, mode: 0 }
    }

    /// The same without the file's length changing.
    #[must_use]
    pub fn keep_size(self) -> Fallocate {
        self.mode(libc::FALLOC_FL_KEEP_SIZE)
    }

    /// Gives the space of the range back instead: it reads as zeros from then on.
    #[must_use]
    pub fn punch_hole(self) -> Fallocate {
        self.mode(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
    }

    /// Adds `FALLOC_FL_*` flags.
    #[must_use]
    pub fn mode(self, flags: i32) -> Fallocate {
        Fallocate { mode: self.mode | flags, ..self }
    }
}

impl Operation for Fallocate {
    fn check(&self) -> io::Result<()> {
        check_range(self.offset, self.len)
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let fd = types::Fd(self.file.as_fd().as_raw_fd());
        Some(opcode::Fallocate::new(fd, self.len).offset(self.offset).mode(self.mode).build())
    }

    fn run(&mut self) -> Outcome {
        // `check` has seen that both fit.
        file::fallocate(self.file.as_fd(), self.mode, self.offset as i64, self.len as i64)
    }

    fn order(&self) -> Order {
        Order::Write(self.file.as_fd().as_raw_fd())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl fmt::Debug for Fallocate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallocate")
            .field("file", &self.file.as_fd())
            .field("offset", &self.offset)
            .field("len", &self.len)
            .field("mode", &self.mode)
            .finish()
    }
}
