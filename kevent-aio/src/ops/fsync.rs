//! Bringing a file to stable storage.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::types::FsyncFlags;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::sys::file;

/// Brings data and metadata of a file to stable storage, as fsync(2).
///
/// It covers the writes that have completed before it is submitted, and promises nothing of those that
/// are in flight.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Fsync};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// queue[aio].submit(Fsync::new(Arc::new(tempfile::tempfile()?)), 1).unwrap();
/// queue.wait(None)?;
/// assert!(queue.next().unwrap().result.is_ok());
/// # std::io::Result::Ok(())
/// ```
pub struct Fsync(Fd);

/// Brings the data of a file, and what is needed to read it back, to stable storage, as fdatasync(2).
/// In all else like [`Fsync`].
pub struct Fdatasync(Fd);

impl Fsync {
    /// For all of `file`.
    pub fn new(file: Fd) -> Fsync {
        Fsync(file)
    }
}

impl Fdatasync {
    /// For all of `file`.
    pub fn new(file: Fd) -> Fdatasync {
        Fdatasync(file)
    }
}

fn entry(file: &Fd, flags: FsyncFlags) -> Entry {
    opcode::Fsync::new(types::Fd(file.as_fd().as_raw_fd())).flags(flags).build()
}

impl Operation for Fsync {
    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        Some(entry(&self.0, FsyncFlags::empty()))
    }

    fn run(&mut self) -> Outcome {
        file::fsync(self.0.as_fd())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl Operation for Fdatasync {
    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        Some(entry(&self.0, FsyncFlags::DATASYNC))
    }

    fn run(&mut self) -> Outcome {
        file::fdatasync(self.0.as_fd())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl fmt::Debug for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fsync").field(&self.0.as_fd()).finish()
    }
}

impl fmt::Debug for Fdatasync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fdatasync").field(&self.0.as_fd()).finish()
    }
}
