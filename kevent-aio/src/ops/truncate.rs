//! Changing the length of a file.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Order, Outcome, Step};
use crate::ops::{check_range, done};
use crate::sys::file;

/// Changes the length of an open file, as ftruncate(2): what is beyond is lost, what is added reads as
/// zeros and takes no space.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Truncate};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let file = Arc::new(tempfile::tempfile()?);
/// queue[aio].submit(Truncate::new(file.clone(), 1 << 30), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert_eq!(file.metadata()?.len(), 1 << 30);
/// # std::io::Result::Ok(())
/// ```
pub struct Truncate {
    file: Fd,
    len: u64,
}

impl Truncate {
    /// Makes `file`, which is open for writing, `len` bytes long.
    pub fn new(file: Fd, len: u64) -> Truncate {
        Truncate { file, len }
    }
}

impl Operation for Truncate {
    fn check(&self) -> io::Result<()> {
        check_range(0, self.len)
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let fd = types::Fd(self.file.as_fd().as_raw_fd());
        Some(opcode::Ftruncate::new(fd, self.len).build())
    }

    fn run(&mut self) -> Outcome {
        // `check` has seen that it fits.
        file::truncate(self.file.as_fd(), self.len as i64)
    }

    fn order(&self) -> Order {
        Order::Write(self.file.as_fd().as_raw_fd())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl fmt::Debug for Truncate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Truncate")
            .field("file", &self.file.as_fd())
            .field("len", &self.len)
            .finish()
    }
}
