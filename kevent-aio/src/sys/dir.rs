//! The calls on names and directories, as the pool makes them.
//!
//! Those that change names are made once, unlike all others: a file server that says EINTR may have made
//! the change, and made again the call would fail with EEXIST or ENOENT. Local file systems never say
//! it of them, and the pool's threads take no signals.
//!
//! # Safety
//!
//! Every call below passes descriptors that are borrowed, so open, and memory that is borrowed for as
//! long as the call takes.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::operation::Outcome;
use crate::sys::{once, retry};

/// A path, and the directory at which it starts if it is relative: without one, the working directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) dir: Option<BorrowedFd<'a>>,
    pub(crate) path: &'a CStr,
}

impl At<'_> {
    /// As system calls and entries of the ring take it.
    pub(crate) fn raw(self) -> (RawFd, *const c_char) {
        let dir = self.dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
        (dir, self.path.as_ptr())
    }
}

/// mkdirat(2).
pub(crate) fn mkdir(at: At<'_>, mode: u32) -> Outcome {
    let (dir, path) = at.raw();
    // SAFETY: `path` ends in zero, and outlives the call.
    once(|| unsafe { libc::mkdirat(dir, path, mode).into() })
}

/// renameat2(2). A raw call, because not every libc has the wrapper.
pub(crate) fn rename(from: At<'_>, to: At<'_>, flags: u32) -> Outcome {
    let ((from_dir, from), (to_dir, to)) = (from.raw(), to.raw());
    // SAFETY: both paths end in zero, and outlive the call.
    once(|| unsafe { libc::syscall(libc::SYS_renameat2, from_dir, from, to_dir, to, flags) })
}

/// unlinkat(2).
pub(crate) fn unlink(at: At<'_>, flags: i32) -> Outcome {
    let (dir, path) = at.raw();
    // SAFETY: `path` ends in zero, and outlives the call.
    once(|| unsafe { libc::unlinkat(dir, path, flags).into() })
}

/// linkat(2).
pub(crate) fn link(from: At<'_>, to: At<'_>, flags: i32) -> Outcome {
    let ((from_dir, from), (to_dir, to)) = (from.raw(), to.raw());
    // SAFETY: both paths end in zero, and outlive the call.
    once(|| unsafe { libc::linkat(from_dir, from, to_dir, to, flags).into() })
}

/// symlinkat(2).
pub(crate) fn symlink(target: &CStr, at: At<'_>) -> Outcome {
    let (dir, path) = at.raw();
    // SAFETY: both strings end in zero, and outlive the call.
    once(|| unsafe { libc::symlinkat(target.as_ptr(), dir, path).into() })
}

/// getdents64(2): whole records, as many as `room` takes; how many bytes they are. A raw call, because
/// libc has no wrapper. When it is interrupted, it has taken nothing out of the directory.
pub(crate) fn read_entries(dir: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>]) -> Outcome {
    let (pointer, len) = (room.as_mut_ptr(), room.len());
    // SAFETY: `room` is writable for its length.
    retry(|| unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), pointer, len) })
}
