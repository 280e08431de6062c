//! epoll(7) where `polling` stops.
//!
//! # Safety
//!
//! Every call below passes descriptors that are borrowed, so open, and memory that it owns.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use polling::{Event, PollMode, Poller};

/// How many ready sockets one look brings. The others come with the next.
const ROOM: usize = 64;

/// Adds `fd` to the set of `poller`, to be told once when it takes data.
pub(crate) fn add_writable(poller: &Poller, fd: BorrowedFd<'_>, key: usize) -> io::Result<()> {
    let event = Event::writable(key);
    // SAFETY: `fd` is open now. `polling` further asks that it be deleted before it is closed,
    // because some systems keep the number. epoll(7) does not: it drops the entry when the open file
    // is closed. Nothing is ever read or written through the number.
    unsafe { poller.add_with_mode(fd.as_raw_fd(), event, PollMode::Oneshot) }
}

/// Calls `found` with the key of each descriptor that is ready now. One system call, where
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
