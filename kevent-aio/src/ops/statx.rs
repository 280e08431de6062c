//! Asking for the metadata of a file.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::sys::file;

/// Asks for the metadata of a file, as statx(2).
///
/// Of an open file it is asked at once, by [`submit`](crate::Aio::submit) itself, since the kernel has
/// it in memory. If the file is on a network, that may be a little older than what the server has:
/// [`sync`](Statx::sync) asks the server.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Op, Statx};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// queue[aio].submit(Statx::of(Arc::new(std::fs::File::open("/")?)), 1).unwrap();
/// queue.wait(None)?;
/// let completion = queue.next().unwrap();
/// completion.result?;
/// let Op::Statx(statx) = *completion.op else { unreachable!() };
/// assert!(statx.stat().unwrap().is_dir());
/// # std::io::Result::Ok(())
/// ```
pub struct Statx {
    dir: Option<Fd>,
    /// `None` for a path with a zero byte in it, which `check` refuses.
    path: Option<CString>,
    flags: i32,
    /// Where the kernel writes.
    answer: Box<libc::statx>,
    answered: bool,
}

impl Statx {
    /// Of an open file or directory.
    pub fn of(file: Fd) -> Statx {
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        Statx { flags, ..Statx::at(Some(file), "") }
    }

    /// Of what is at `path`, which starts at `dir` if it is relative, or at the working directory
    /// without one.
    pub fn at(dir: Option<Fd>, path: impl AsRef<Path>) -> Statx {
        let path = CString::new(path.as_ref().as_os_str().as_bytes()).ok();
        Statx { dir, path, flags: 0, answer: Box::new(file::blank_statx()), answered: false }
    }

    /// If the path ends in a symbolic link, of that and not of what it leads to.
    #[must_use]
    pub fn no_follow(mut self) -> Statx {
        self.flags |= libc::AT_SYMLINK_NOFOLLOW;
        self
    }

    /// As the server has it, if the file is on a network.
    #[must_use]
    pub fn sync(mut self) -> Statx {
        self.flags &= !libc::AT_STATX_DONT_SYNC;
        self
    }

    /// What it found, once it has completed without an error.
    #[must_use]
    pub fn stat(&self) -> Option<Stat> {
        self.answered.then(|| Stat::new(&self.answer))
    }
}

impl Operation for Statx {
    fn check(&self) -> io::Result<()> {
        if self.path.is_some() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has a zero byte in it"))
    }

    fn advance(&mut self) -> Step {
        if self.flags & libc::AT_STATX_DONT_SYNC == 0 {
            return Step::Run;
        }
        let outcome = self.run();
        self.complete(outcome)
    }

    fn encode(&mut self) -> Option<Entry> {
        let dir = self.dir.as_ref().map_or(libc::AT_FDCWD, |dir| dir.as_fd().as_raw_fd());
        let path = self.path.as_ref()?.as_ptr();
        let answer = (&raw mut *self.answer).cast::<types::statx>();
        let entry = opcode::Statx::new(types::Fd(dir), path, answer);
        Some(entry.flags(self.flags).mask(libc::STATX_BASIC_STATS).build())
    }

    fn run(&mut self) -> Outcome {
        let Some(path) = &self.path else { return Err(Errno(libc::EINVAL)) };
        let dir = self.dir.as_ref().map(|dir| dir.as_fd());
        file::statx(dir, path, self.flags, libc::STATX_BASIC_STATS, &mut self.answer)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        self.answered = outcome.is_ok();
        done(outcome)
    }
}

impl fmt::Debug for Statx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statx")
            .field("dir", &self.dir.as_ref().map(|dir| dir.as_fd()))
            .field("path", &self.path)
            .field("stat", &self.stat())
            .finish_non_exhaustive()
    }
}

/// The metadata of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// Length in bytes.
    pub size: u64,
    /// Kind and permissions, as `st_mode`.
    pub mode: u32,
    /// When the data was changed last: nanoseconds since 1970, before it negative.
    pub mtime_ns: i128,
    /// When data or metadata were changed last, likewise.
    pub ctime_ns: i128,
    /// The number of the file in its file system.
    pub ino: u64,
    /// The number of its file system, as `st_dev`.
    pub dev: u64,
    /// How many names it has.
    pub nlink: u32,
    /// Who owns it.
    pub uid: u32,
    /// Which group owns it.
    pub gid: u32,
    /// How much space it takes, in units of 512 bytes.
    pub blocks: u64,
}

impl Stat {
    fn new(raw: &libc::statx) -> Stat {
        let ns = |t: &libc::statx_timestamp| {
            i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec)
        };
        Stat {
            size: raw.stx_size,
            mode: raw.stx_mode.into(),
            mtime_ns: ns(&raw.stx_mtime),
            ctime_ns: ns(&raw.stx_ctime),
            ino: raw.stx_ino,
            dev: libc::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            nlink: raw.stx_nlink,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            blocks: raw.stx_blocks,
        }
    }

    /// A regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.is(libc::S_IFREG)
    }

    /// A directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.is(libc::S_IFDIR)
    }

    /// A symbolic link: only [`Statx::no_follow`] finds one.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.is(libc::S_IFLNK)
    }

    fn is(&self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}
