//! poll(2) of one descriptor, without waiting.
//!
//! # Safety
//!
//! The one call below passes memory that it owns. It takes any number for a descriptor: of one that is
//! not open the kernel says so, and it changes nothing about one that is.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use crate::sys::epoll;

/// The flags of poll(2) are those of epoll(7), but for this one on some machines.
const RDHUP: u32 = libc::POLLRDHUP as u32;

/// Which of `flags`, of hang-up and of error hold now, all in the words of epoll(7). `None` when the
/// number is not open.
///
/// # Errors
///
/// When the kernel is out of memory.
pub(crate) fn now(fd: RawFd, flags: u32) -> io::Result<Option<u32>> {
    let asked = flags & !epoll::RDHUP | if flags & epoll::RDHUP != 0 { RDHUP } else { 0 };
    // No flag that is asked for is higher than `RDHUP`, which fits.
    let mut entry = libc::pollfd { fd, events: asked as libc::c_short, revents: 0 };
    // SAFETY: `entry` is one, as the call is told. It does not wait, so it is not interrupted.
    if unsafe { libc::poll(&raw mut entry, 1, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if entry.revents & libc::POLLNVAL != 0 {
        return Ok(None);
    }
    let found = u32::from(entry.revents as u16);
    Ok(Some(found & !RDHUP | if found & RDHUP != 0 { epoll::RDHUP } else { 0 }))
}
