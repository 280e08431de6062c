//! A path that an operation was given, and the directory at which it starts.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::operation::{Errno, Fd};
use crate::ops::Op;
use crate::sys::dir::At;

/// What the kernel takes for a path; `None` if there is a zero byte in it, which `check` refuses.
pub(crate) fn c_path(path: impl AsRef<Path>) -> Option<CString> {
    CString::new(path.as_ref().as_os_str().as_bytes()).ok()
}

/// The error of a path that has a zero byte in it.
pub(crate) fn zero_byte() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the path has a zero byte in it")
}

/// Where something is, or is to be.
pub(crate) struct Place {
    dir: Option<Fd>,
    path: Option<CString>,
}

impl Place {
    pub(crate) fn new(path: impl AsRef<Path>) -> Place {
        Place { dir: None, path: c_path(path) }
    }

    /// A relative path starts at `dir`; without one, at the working directory.
    pub(crate) fn start_at(&mut self, dir: Option<Fd>) {
        self.dir = dir;
    }

    /// Whether the kernel can be given it.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.path.is_some() { Ok(()) } else { Err(zero_byte()) }
    }

    /// As the kernel is given it. What that points to stays where it is when the place is moved.
    pub(crate) fn get(&self) -> Result<At<'_>, Errno> {
        let path = self.path.as_deref().ok_or(Errno(libc::EINVAL))?;
        Ok(At { dir: self.dir.as_ref().map(|dir| dir.as_fd()), path })
    }
}

/// How many paths an operation has that can start at a directory.
pub(crate) fn paths(op: &Op) -> usize {
    match op {
        Op::Open(_) | Op::Mkdir(_) | Op::Unlink(_) | Op::Symlink(_) => 1,
        Op::Rename(_) | Op::Link(_) => 2,
        _ => 0,
    }
}

/// Has the paths of an operation, the first and the second, start at these directories.
pub(crate) fn start_at(op: &mut Op, [first, second]: [Option<Fd>; 2]) {
    let (from, to) = match op {
        Op::Open(open) => return open.start_at(first),
        Op::Mkdir(op) => return op.place.start_at(first),
        Op::Unlink(op) => return op.place.start_at(first),
        Op::Symlink(op) => return op.place.start_at(first),
        Op::Rename(op) => (&mut op.from, &mut op.to),
        Op::Link(op) => (&mut op.from, &mut op.to),
        _ => return,
    };
    from.start_at(first);
    to.start_at(second);
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("dir", &self.dir.as_ref().map(|dir| dir.as_fd()))
            .field("path", &self.path)
            .finish()
    }
}
