//! Opening a file.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::sys::file::{self, OpenHow};

/// How often an open is made again that met a rename on its way: see [`Open::beneath`].
const RETRIES: u32 = 32;

/// Flags of an open that may change the disk. (O_TMPFILE is a bit of its own and O_DIRECTORY.)
const CHANGES: i32 = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;

/// Opens a file, as openat2(2).
///
/// The result is the new descriptor, [taken](Open::take) out of the operation that the completion gives
/// back. One that nobody takes is closed, however the operation ends: nothing leaks. Descriptors are
/// always closed on exec.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Op, Open};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let root = Arc::new(std::fs::File::open("/proc/self")?);
/// queue[aio].submit(Open::new("status").at(root).beneath(), 1).unwrap();
/// queue.wait(None)?;
/// let mut completion = queue.next().unwrap();
/// completion.result?;
/// let Op::Open(open) = &mut *completion.op else { unreachable!() };
/// let file = std::fs::File::from(open.take().unwrap());
/// assert!(std::io::read_to_string(file)?.starts_with("Name:"));
/// # std::io::Result::Ok(())
/// ```
pub struct Open {
    dir: Option<Fd>,
    /// `None` for a path with a zero byte in it, which `check` refuses.
    path: Option<CString>,
    how: OpenHow,
    retries: u32,
    opened: Option<OwnedFd>,
}

impl Open {
    /// Opens `path` for reading, unless said otherwise.
    pub fn new(path: impl AsRef<Path>) -> Open {
        let path = CString::new(path.as_ref().as_os_str().as_bytes()).ok();
        let how = OpenHow { flags: flags(libc::O_CLOEXEC), ..OpenHow::default() };
        Open { dir: None, path, how, retries: 0, opened: None }
    }

    /// A relative path starts at this directory, and not at the working directory.
    #[must_use]
    pub fn at(mut self, dir: Fd) -> Open {
        self.dir = Some(dir);
        self
    }

    /// The same, for an open that is used again.
    pub(crate) fn start_at(&mut self, dir: Option<Fd>) {
        self.dir = dir;
    }

    /// For reading.
    #[must_use]
    pub fn read_only(self) -> Open {
        self.access(libc::O_RDONLY)
    }

    /// For writing.
    #[must_use]
    pub fn write_only(self) -> Open {
        self.access(libc::O_WRONLY)
    }

    /// For both.
    #[must_use]
    pub fn read_write(self) -> Open {
        self.access(libc::O_RDWR)
    }

    /// Makes the file if there is none, with these permissions less the process's umask.
    #[must_use]
    pub fn create(mut self, mode: u32) -> Open {
        self.how.mode = mode.into();
        self.flags(libc::O_CREAT)
    }

    /// Makes the file likewise; the error is EEXIST if there is one already.
    #[must_use]
    pub fn create_new(self, mode: u32) -> Open {
        self.create(mode).flags(libc::O_EXCL)
    }

    /// Adds `O_*` flags.
    #[must_use]
    pub fn flags(mut self, more: i32) -> Open {
        self.how.flags |= flags(more);
        self
    }

    /// Refuses whatever leads out of the directory that it starts at: absolute paths, `..` above it,
    /// links to elsewhere (`RESOLVE_BENEATH`). The error is EXDEV.
    ///
    /// If somebody renames directories on the path at that moment, the kernel can't tell and the open
    /// is made again, 32 times at most; then the error is `WouldBlock`.
    #[must_use]
    pub fn beneath(self) -> Open {
        self.resolve(libc::RESOLVE_BENEATH)
    }

    /// Takes the directory that it starts at for the root of everything (`RESOLVE_IN_ROOT`): `/` and
    /// `..` stay inside. Repeated like [`beneath`](Open::beneath).
    #[must_use]
    pub fn in_root(self) -> Open {
        self.resolve(libc::RESOLVE_IN_ROOT)
    }

    /// Follows no symbolic link anywhere on the path; the error is ELOOP.
    #[must_use]
    pub fn no_symlinks(self) -> Open {
        self.resolve(libc::RESOLVE_NO_SYMLINKS)
    }

    /// Follows none of the links of /proc that lead where no path does.
    #[must_use]
    pub fn no_magic_links(self) -> Open {
        self.resolve(libc::RESOLVE_NO_MAGICLINKS)
    }

    /// Enters no other file system; the error is EXDEV.
    #[must_use]
    pub fn no_xdev(self) -> Open {
        self.resolve(libc::RESOLVE_NO_XDEV)
    }

    /// The new descriptor, once.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.opened.take()
    }

    fn access(mut self, access: i32) -> Open {
        self.how.flags = self.how.flags & !flags(libc::O_ACCMODE) | flags(access);
        self
    }

    fn resolve(mut self, more: u64) -> Open {
        self.how.resolve |= more;
        self
    }

    /// Whether that is the kernel's "somebody renamed a directory on the way".
    fn met_a_rename(&self, outcome: Outcome) -> bool {
        let scoped = self.how.resolve & (libc::RESOLVE_BENEATH | libc::RESOLVE_IN_ROOT) != 0;
        scoped && outcome == Err(Errno(libc::EAGAIN)) && self.retries < RETRIES
    }
}

/// `O_*` flags are not negative.
fn flags(flags: i32) -> u64 {
    u64::from(flags as u32)
}

impl Operation for Open {
    fn check(&self) -> io::Result<()> {
        if self.path.is_some() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has a zero byte in it"))
    }

    fn advance(&mut self) -> Step {
        self.retries = 0;
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        // The ring would hand it to a thread of the kernel without a try.
        if self.how.flags & flags(CHANGES) != 0 {
            return None;
        }
        let dir = self.dir.as_ref().map_or(libc::AT_FDCWD, |dir| dir.as_fd().as_raw_fd());
        let path = self.path.as_ref()?.as_ptr();
        let how = (&raw const self.how).cast::<types::OpenHow>();
        Some(opcode::OpenAt2::new(types::Fd(dir), path, how).build())
    }

    fn run(&mut self) -> Outcome {
        let Some(path) = &self.path else { return Err(Errno(libc::EINVAL)) };
        file::open(self.dir.as_ref().map(|dir| dir.as_fd()), path, &self.how)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if self.met_a_rename(outcome) {
            self.retries += 1;
            return Step::Run;
        }
        self.opened = outcome.ok().map(file::adopt);
        done(outcome.map(|_| 0))
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("dir", &self.dir.as_ref().map(|dir| dir.as_fd()))
            .field("path", &self.path)
            .field("how", &self.how)
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rename_during_a_scoped_walk_is_tried_again_and_not_for_ever() {
        let eagain = Err(Errno(libc::EAGAIN));
        for mut open in [Open::new("x").beneath(), Open::new("x").in_root()] {
            for _ in 0..RETRIES {
                assert!(matches!(open.complete(eagain), Step::Run));
            }
            assert!(matches!(open.complete(eagain), Step::Done(Err(_))));
        }
        let mut open = Open::new("x").no_symlinks();
        assert!(matches!(open.complete(eagain), Step::Done(Err(_))), "no scope, no reason");
    }
}
