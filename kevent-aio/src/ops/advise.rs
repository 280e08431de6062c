//! Saying how a file will be used.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::{check_range, done};
use crate::sys::file;

/// Says how a file will be used, as posix_fadvise(2). It is advice: nothing need come of it.
///
/// What is only marked in the open file is done by [`submit`](crate::Aio::submit) itself, and all that is
/// read through that open file from then on feels it.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Advice, Advise, Aio};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// # let path = std::env::current_exe()?;
/// let file = Arc::new(std::fs::File::open(path)?);
/// queue[aio].submit(Advise::new(file, Advice::WillNeed).range(0, 1 << 20), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// # std::io::Result::Ok(())
/// ```
pub struct Advise {
    file: Fd,
    advice: Advice,
    /// Offset and length; `None` is the whole file.
    range: Option<(u64, u64)>,
}

/// How a file will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// In no special way: takes back what was said of the order. Of the open file, not of a range.
    Normal,
    /// From front to back: more is read ahead. Of the open file, not of a range.
    Sequential,
    /// Here and there: nothing is read ahead. Of the open file, not of a range.
    Random,
    /// Once: what is read does not push others out of the page cache. Of the open file, not of a range.
    /// Linux 6.3; before, nothing comes of it.
    NoReuse,
    /// Soon: reading into the page cache begins. The completion does not wait for the data. One call makes
    /// the kernel read as much as the disk takes in one request, some hundred KiB, and leave the rest.
    WillNeed,
    /// Not again: the range leaves the page cache, except what was written and is not on the disk yet
    /// ([`Fdatasync`](crate::Fdatasync) first), and pages of which it is only a part; some pages are
    /// large, a megabyte and more.
    DontNeed,
}

impl Advise {
    /// Says it of the whole file, unless said otherwise.
    pub fn new(file: Fd, advice: Advice) -> Advise {
        Advise { file, advice, range: None }
    }

    /// Says it of `len` bytes from `offset`. (No bytes are no bytes, other than for the kernel.)
    #[must_use]
    pub fn range(self, offset: u64, len: u64) -> Advise {
        Advise { range: Some((offset, len)), ..self }
    }

    /// As the kernel has it, where a length of zero means the rest of the file.
    fn parts(&self) -> (u64, u64) {
        self.range.unwrap_or((0, 0))
    }

    /// Whether it is but a mark on the open file, which never blocks.
    fn is_a_mark(&self) -> bool {
        !matches!(self.advice, Advice::WillNeed | Advice::DontNeed)
    }
}

impl Advice {
    fn raw(self) -> i32 {
        match self {
            Advice::Normal => libc::POSIX_FADV_NORMAL,
            Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
            Advice::Random => libc::POSIX_FADV_RANDOM,
            Advice::NoReuse => libc::POSIX_FADV_NOREUSE,
            Advice::WillNeed => libc::POSIX_FADV_WILLNEED,
            Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
        }
    }
}

impl Operation for Advise {
    fn check(&self) -> io::Result<()> {
        let (offset, len) = self.parts();
        check_range(offset, len)
    }

    fn advance(&mut self) -> Step {
        if matches!(self.range, Some((_, 0))) {
            return Step::Done(Ok(0));
        }
        if !self.is_a_mark() {
            return Step::Run;
        }
        let outcome = self.run();
        self.complete(outcome)
    }

    fn encode(&mut self) -> Option<Entry> {
        let (offset, len) = self.parts();
        // The ring has 32 bits for it.
        let len = u32::try_from(len).ok()?;
        let fd = types::Fd(self.file.as_fd().as_raw_fd());
        let entry = opcode::Fadvise::new(fd, len.into(), self.advice.raw());
        Some(entry.offset(offset).build())
    }

    fn run(&mut self) -> Outcome {
        // `check` has seen that both fit.
        let (offset, len) = self.parts();
        file::advise(self.file.as_fd(), offset as i64, len as i64, self.advice.raw())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl fmt::Debug for Advise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Advise")
            .field("file", &self.file.as_fd())
            .field("advice", &self.advice)
            .field("range", &self.range)
            .finish()
    }
}
