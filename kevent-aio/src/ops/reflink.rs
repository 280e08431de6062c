//! Sharing the data of one file with another.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;

use crate::operation::{Fd, Operation, Order, Outcome, Step};
use crate::ops::{check_range, done};
use crate::sys::file;

/// Lets one file have the data of another without copying it, as ioctl_ficlone(2): both share it on the disk
/// until one of them is written to.
///
/// Btrfs, XFS and some others can do that, within one file system. Those that can't say EOPNOTSUPP, and EXDEV
/// is the error across two; [`CopyRange`](crate::CopyRange) copies there.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Reflink};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let source = Arc::new(tempfile::tempfile()?);
/// let target = Arc::new(tempfile::tempfile()?);
/// queue[aio].submit(Reflink::new(source, target), 1).unwrap();
/// queue.wait(None)?;
/// if let Err(error) = queue.next().unwrap().result {
///     println!("no sharing here, so copy: {error}");
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct Reflink {
    source: Fd,
    target: Fd,
    range: Option<Range>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    from: u64,
    to: u64,
    len: u64,
}

impl Reflink {
    /// Gives `target` all the data of `source`, at the same places. What else `target` has beyond that
    /// stays: make it empty first.
    pub fn new(source: Fd, target: Fd) -> Reflink {
        Reflink { source, target, range: None }
    }

    /// Only `len` bytes from `from` on, to `to` in the target and on.
    ///
    /// All three in whole blocks of the file system, except that the range may end where the source
    /// ends; else the error is EINVAL. (No bytes are no bytes, other than for the kernel.)
    #[must_use]
    pub fn range(self, from: u64, to: u64, len: u64) -> Reflink {
        Reflink { range: Some(Range { from, to, len }), ..self }
    }
}

impl Operation for Reflink {
    fn check(&self) -> io::Result<()> {
        let Some(Range { from, to, len }) = self.range else { return Ok(()) };
        check_range(from, len)?;
        check_range(to, len)
    }

    fn advance(&mut self) -> Step {
        // To the kernel a length of zero means the rest of the source.
        if matches!(self.range, Some(Range { len: 0, .. })) { Step::Done(Ok(0)) } else { Step::Run }
    }

    fn encode(&mut self) -> Option<Entry> {
        None
    }

    fn run(&mut self) -> Outcome {
        let Range { from, to, len } = self.range.unwrap_or(Range { from: 0, to: 0, len: 0 });
        file::clone_range(self.source.as_fd(), from, self.target.as_fd(), to, len)
    }

    fn order(&self) -> Order {
        Order::Write(self.target.as_fd().as_raw_fd())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl fmt::Debug for Reflink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reflink")
            .field("source", &self.source.as_fd())
            .field("target", &self.target.as_fd())
            .field("range", &self.range)
            .finish()
    }
}
