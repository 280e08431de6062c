//! Copying from one file to another.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;

use crate::buffer::Filling;
use crate::operation::{Errno, Fd, Operation, Order, Outcome, Step};
use crate::ops::check_range;
use crate::sys::file;

/// What is copied before others have their turn on the thread, and it is seen whether it is to end: some
/// milliseconds, on a slow disk some tens.
const CHUNK: u64 = 8 << 20;

/// What is read and written at a time where the kernel does not copy.
const PIECE: u64 = 128 << 10;

/// Where the kernel's signed offsets end.
const LAST: u64 = i64::MAX as u64;

/// Copies bytes from one file to another, or to elsewhere in the same, as copy_file_range(2), with both
/// places said. The files' own positions are neither used nor moved.
///
/// The result is the number of bytes copied: less than asked for at the end of the source, and no error.
/// Holes may become zeros. A file system that shares what is equal may copy nothing and share instead; to
/// ask for that, see [`Reflink`](crate::Reflink). Where the kernel can't copy (from one kind of file
/// system to another, from a file of /proc or a device) it is read and written through a buffer of 128 KiB.
///
/// When it ends early, by an error or because it is cancelled or late, what was copied until then is in
/// the target, and [`copied`](CopyRange::copied) says how much that is; submitted again, it goes on from
/// there. One that is cancelled at work ends after 8 MiB at the latest.
///
/// Errors are EINVAL if the ranges overlap in one file, and EBADF if the target is open with O_APPEND,
/// which knows no places.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, CopyRange};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let source = Arc::new(std::fs::File::open(std::env::current_exe()?)?);
/// let target = Arc::new(tempfile::tempfile()?);
/// let copy = CopyRange::new(source.clone(), 0, target.clone(), 0);
/// queue[aio].submit(copy, 1).unwrap();
/// queue.wait(None)?;
/// assert_eq!(queue.next().unwrap().result?, source.metadata()?.len());
/// # std::io::Result::Ok(())
/// ```
pub struct CopyRange {
    source: Fd,
    from: u64,
    target: Fd,
    to: u64,
    /// How much is copied at most.
    limit: u64,
    copied: u64,
    /// It is known that the ranges do not overlap.
    checked: bool,
    /// What it is read into, once it is known that the kernel does not copy between these two.
    buffer: Option<Vec<u8>>,
    /// The source has no more.
    ended: bool,
}

impl CopyRange {
    /// Copies what `source` has from `from` on to `target`, where it begins at `to`.
    pub fn new(source: Fd, from: u64, target: Fd, to: u64) -> CopyRange {
        let limit = LAST.saturating_sub(from.max(to));
        let (copied, checked, buffer, ended) = (0, false, None, false);
        CopyRange { source, from, target, to, limit, copied, checked, buffer, ended }
    }

    /// Copies `len` bytes at most.
    #[must_use]
    pub fn up_to(self, len: u64) -> CopyRange {
        CopyRange { limit: len, ..self }
    }

    /// How much was copied, also if it ended with an error.
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Where it goes on, in both. `check` has seen that all of it fits.
    fn position(&self) -> (i64, i64) {
        ((self.from + self.copied) as i64, (self.to + self.copied) as i64)
    }

    fn left(&self) -> u64 {
        self.limit.saturating_sub(self.copied)
    }

    /// Sees to it that nothing is read which was written before. The kernel can't: it is told of one chunk at
    /// a time. And a file that is copied to its own end has its end where that was at the beginning.
    fn keep_apart(&mut self) -> Result<(), Errno> {
        let (source, target) = (identity(&self.source)?, identity(&self.target)?);
        let of = |stat: &libc::statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if of(&source) != of(&target) {
            return Ok(());
        }
        if u32::from(source.stx_mode) & libc::S_IFMT == libc::S_IFREG {
            self.limit = self.limit.min(source.stx_size.saturating_sub(self.from));
        }
        if self.from.abs_diff(self.to) < self.limit { Err(Errno(libc::EINVAL)) } else { Ok(()) }
    }

    /// Copies `most` bytes at most, by whatever way; 0 is the end of the source.
    fn copy(&mut self, most: u64) -> Outcome {
        if self.buffer.is_none() {
            match self.copy_by_kernel(most) {
                // Files of /proc have no length, and before 5.19 kernels went by that. Reading tells.
                Ok(0) if self.copied == 0 => {}
                Err(errno) if takes_another_way(errno) => {}
                done => return done,
            }
            // Or what is written would go to its end.
            if file::status_flags(self.target.as_fd())? & libc::O_APPEND != 0 {
                return Err(Errno(libc::EBADF));
            }
        }
        self.copy_by_buffer(most.min(PIECE) as usize)
    }

    fn copy_by_kernel(&self, most: u64) -> Outcome {
        let (from, to) = self.position();
        file::copy_range(self.source.as_fd(), from, self.target.as_fd(), to, most as usize)
    }

    fn copy_by_buffer(&mut self, most: usize) -> Outcome {
        let (from, to) = self.position();
        let mut piece = Filling::new(self.buffer.take().unwrap_or_default());
        piece.up_to(most);
        let outcome = file::read(self.source.as_fd(), piece.room(), from).and_then(|count| {
            piece.filled(count as usize);
            write_all(&self.target, piece.as_slice(), to)
        });
        self.buffer = Some(piece.into_vec());
        outcome
    }
}

fn identity(file: &Fd) -> Result<libc::statx, Errno> {
    let mut stat = file::blank_statx();
    let asked = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_SIZE;
    file::statx(Some(file.as_fd()), c"", libc::AT_EMPTY_PATH, asked, &mut stat)?;
    Ok(stat)
}

/// Whether that is what the kernel says of two files between which it does not copy. It says EPERM for
/// a filter that knows the call no better; if it means the file, writing will say so, too.
fn takes_another_way(errno: Errno) -> bool {
    matches!(errno.0, libc::EXDEV | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM)
}

/// Writes until all is written or an error comes. If something was written before the error, how much;
/// whatever it was will happen again to the next piece.
fn write_all(target: &Fd, data: &[u8], to: i64) -> Outcome {
    let mut written = 0;
    while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
        match file::write(target.as_fd(), rest, to + written as i64) {
            Ok(0) if written == 0 => return Err(Errno(libc::EIO)),
            Err(errno) if written == 0 => return Err(errno),
            Ok(0) | Err(_) => break,
            Ok(count) => written += count as usize,
        }
    }
    Ok(written as u32)
}

impl Operation for CopyRange {
    fn check(&self) -> io::Result<()> {
        check_range(self.from, self.limit)?;
        check_range(self.to, self.limit)
    }

    fn advance(&mut self) -> Step {
        self.ended = false;
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        None
    }

    /// Copies one chunk.
    fn run(&mut self) -> Outcome {
        if !self.checked {
            self.keep_apart()?;
            self.checked = true;
        }
        let stop = self.copied.saturating_add(CHUNK.min(self.left()));
        while self.copied < stop && !self.ended {
            let count = self.copy(stop - self.copied)?;
            self.copied += u64::from(count);
            self.ended = count == 0;
        }
        Ok(0)
    }

    fn order(&self) -> Order {
        Order::Write(self.target.as_fd().as_raw_fd())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Ok(_) if self.ended || self.left() == 0 => Step::Done(Ok(self.copied)),
            Ok(_) => Step::Run,
            Err(errno) => Step::Done(Err(errno.into())),
        }
    }
}

impl fmt::Debug for CopyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyRange")
            .field("source", &self.source.as_fd())
            .field("from", &self.from)
            .field("target", &self.target.as_fd())
            .field("to", &self.to)
            .field("limit", &self.limit)
            .field("copied", &self.copied)
            .finish_non_exhaustive()
    }
}
