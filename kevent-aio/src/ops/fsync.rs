//! Bringing a file to stable storage.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::types::FsyncFlags;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Order, Outcome, Step};
use crate::ops::done;
use crate::sys::file;

/// Brings data and metadata of a file to stable storage, as fsync(2).
///
/// It covers the writes that have completed before it is submitted, and promises nothing of those that
/// are in flight; unless it is told to [wait for them](Fsync::after_writes).
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
pub struct Fsync {
    file: Fd,
    after_writes: bool,
}

/// Brings the data of a file, and what is needed to read it back, to stable storage, as fdatasync(2).
/// In all else like [`Fsync`].
pub struct Fdatasync {
    file: Fd,
    after_writes: bool,
}

impl Fsync {
    /// For all of `file`.
    pub fn new(file: Fd) -> Fsync {
        Fsync { file, after_writes: false }
    }

    /// It begins when all writes to the file are done that were submitted to this engine before, by whatever
    /// descriptor; whether they have succeeded, their completions say. (Those that chains do do not count.)
    #[must_use]
    pub fn after_writes(self) -> Fsync {
        Fsync { after_writes: true, ..self }
    }
}

impl Fdatasync {
    /// For all of `file`.
    pub fn new(file: Fd) -> Fdatasync {
        Fdatasync { file, after_writes: false }
    }

    /// It begins when all writes to the file are done that were submitted to this engine before, by whatever
    /// descriptor; whether they have succeeded, their completions say. (Those that chains do do not count.)
    #[must_use]
    pub fn after_writes(self) -> Fdatasync {
        Fdatasync { after_writes: true, ..self }
    }
}

fn entry(file: &Fd, flags: FsyncFlags) -> Entry {
    opcode::Fsync::new(types::Fd(file.as_fd().as_raw_fd())).flags(flags).build()
}

fn order(file: &Fd, after_writes: bool) -> Order {
    if after_writes { Order::AfterWrites(file.as_fd().as_raw_fd()) } else { Order::Free }
}

impl Operation for Fsync {
    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        Some(entry(&self.file, FsyncFlags::empty()))
    }

    fn run(&mut self) -> Outcome {
        file::fsync(self.file.as_fd())
    }

    fn order(&self) -> Order {
        order(&self.file, self.after_writes)
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
        Some(entry(&self.file, FsyncFlags::DATASYNC))
    }

    fn run(&mut self) -> Outcome {
        file::fdatasync(self.file.as_fd())
    }

    fn order(&self) -> Order {
        order(&self.file, self.after_writes)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl fmt::Debug for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fsync")
            .field("file", &self.file.as_fd())
            .field("after_writes", &self.after_writes)
            .finish()
    }
}

impl fmt::Debug for Fdatasync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fdatasync")
            .field("file", &self.file.as_fd())
            .field("after_writes", &self.after_writes)
            .finish()
    }
}
