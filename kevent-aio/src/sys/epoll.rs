//! epoll(7) where `polling` stops.
//!
//! # Safety
//!
//! Every call below passes descriptors that are borrowed, so open, and memory that it owns.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use polling::Poller;

/// How many ready sockets one look brings. The others come with the next.
const ROOM: usize = 64;

pub(crate) const IN: u32 = libc::EPOLLIN as u32;
pub(crate) const OUT: u32 = libc::EPOLLOUT as u32;

/// Tells once when `fd` is ready for one of `flags`, or broken. It is `new` to the set of `poller`, or
/// an entry whose flags are replaced.
///
/// Not in the words of `polling`, which adds `PRI` to `IN`: an urgent byte that nobody reads would make
/// the socket ready for ever.
///
/// epoll refuses files and directories (EPERM). Here that is ENOTSOCK, which says more to who asked for
/// something that only sockets do.
pub(crate) fn tell_once(
    poller: &Poller,
    fd: BorrowedFd<'_>,
    new: bool,
    flags: u32,
) -> io::Result<()> {
    let (epoll, fd) = (poller.as_fd().as_raw_fd(), fd.as_raw_fd());
    let change = if new { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
    let events = flags | libc::EPOLLONESHOT as u32;
    // A descriptor is not negative.
    let mut event = libc::epoll_event { events, u64: fd as u64 };
    // SAFETY: both are open; the kernel copies `event` before it returns.
    let done = unsafe { libc::epoll_ctl(epoll, change, fd, &raw mut event) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let is_file = error.raw_os_error() == Some(libc::EPERM);
    Err(if is_file { io::Error::from_raw_os_error(libc::ENOTSOCK) } else { error })
}

/// Calls `found` with the number of each descriptor that is ready now. One system call, where
/// `Poller::wait` makes five.
pub(crate) fn look(poller: &Poller, mut found: impl FnMut(u64)) -> io::Result<()> {
    let mut list = [libc::epoll_event { events: 0, u64: 0 }; ROOM];
    let epoll = poller.as_fd().as_raw_fd();
    // SAFETY: the list has `ROOM` entries.
    let count = unsafe { libc::epoll_wait(epoll, list.as_mut_ptr(), ROOM as i32, 0) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
    };
    for event in list.iter().take(count) {
        found(event.u64);
    }
    Ok(())
}

/// Waits until `fd` is readable, or that many milliseconds have passed.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, milliseconds: i32) {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call. What it says is not needed: the caller looks.
    let _ = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
}
