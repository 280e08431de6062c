//! Closing a descriptor.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Errno, Operation, Outcome, Step};
use crate::ops::done;
use crate::sys::file;

/// Closes a descriptor, as close(2), and says whether that brought news.
///
/// Closing may block: the last close of a deleted file frees its space, that of a file on a network
/// writes it back and tells errors of earlier writes. Whatever the result, the descriptor is closed,
/// unless the operation was cancelled: then it is still there, to be [taken](Close::take), and is
/// closed when the operation is dropped.
///
/// ```
/// use kevent_aio::{Aio, Close};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// queue[aio].submit(Close::new(tempfile::tempfile()?), 1).unwrap();
/// queue.wait(None)?;
/// assert!(queue.next().unwrap().result.is_ok());
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Close {
    /// Here until it is known that the kernel has closed it.
    fd: Option<OwnedFd>,
    /// The ring was told to close it.
    told: bool,
}

impl Close {
    /// Closes `fd`.
    pub fn new(fd: impl Into<OwnedFd>) -> Close {
        Close { fd: Some(fd.into()), told: false }
    }

    /// The descriptor, if it was not closed.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.fd.take()
    }
}

impl Operation for Close {
    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let fd = self.fd.as_ref()?;
        self.told = true;
        Some(opcode::Close::new(types::Fd(fd.as_raw_fd())).build())
    }

    fn run(&mut self) -> Outcome {
        // Without a descriptor it was taken before it was submitted.
        self.fd.take().map_or(Err(Errno(libc::EBADF)), file::close)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if self.told {
            // Closed by the ring: the number may be another file's by now, so not closed again.
            let _ = self.fd.take().map(OwnedFd::into_raw_fd);
        }
        // Linux has closed it nevertheless: see close(2).
        done(if outcome == Err(Errno(libc::EINTR)) { Ok(0) } else { outcome })
    }
}
