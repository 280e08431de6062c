//! eventfd(2), to wake a waiting thread.
//!
//! # Safety
//!
//! Every call below passes a descriptor that it owns and memory that it owns.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A counter that epoll can wait for. In an edge-triggered entry each write is a new event, so it is
/// never read.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made `fd` and nobody else knows it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds one. Can't fail in a way that matters: the only refusal of a counter that is not closed
    /// is EAGAIN at 2⁶⁴ - 2, and then it is readable anyway.
    pub(crate) fn add_one(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: `one` is eight readable bytes.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
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
