//! eventfd(2): to wake a waiting thread, and to count.
//!
//! # Safety
//!
//! Every call below passes a descriptor that is owned or borrowed, so open, and memory that it
//! owns.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A counter that epoll can wait for, to wake somebody. In an edge-triggered entry each write is a
/// new event, so it is never read.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        create(0).map(EventFd)
    }

    /// Adds one. Can't fail in a way that matters: the only refusal of a counter that is not closed
    /// is EAGAIN at 2⁶⁴ - 2, and then it is readable anyway.
    ///
    /// May run in a signal handler: it makes one system call, and leaves `errno` as it was.
    pub(crate) fn add_one(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: always points to this thread's own.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let before = unsafe { *errno };
        // SAFETY: `one` is eight readable bytes.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        // SAFETY: as above.
        unsafe { *errno = before };
    }
}

/// A bell that goes on sounding until it is stopped: level-triggered, it wakes all.
#[derive(Debug)]
pub(crate) struct Gong(EventFd);

impl Gong {
    pub(crate) fn new() -> io::Result<Gong> {
        EventFd::new().map(Gong)
    }

    pub(crate) fn sound(&self) {
        self.0.add_one();
    }

    pub(crate) fn stop(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: `count` is eight writable bytes. If it does not sound there is nothing to read.
        let _ = unsafe { libc::read(self.0.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for Gong {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A counter at zero whose reads take all of it.
pub(crate) fn sum() -> io::Result<OwnedFd> {
    create(0)
}

/// A counter at zero whose reads take one each.
pub(crate) fn semaphore() -> io::Result<OwnedFd> {
    create(libc::EFD_SEMAPHORE)
}

fn create(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK | flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether reads and writes of `fd` fail rather than block.
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: takes no pointers.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(flags & libc::O_NONBLOCK != 0)
}
