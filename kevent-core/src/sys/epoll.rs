//! epoll(7) where `polling` stops: waiting with one system call, and entries with exactly the flags
//! that were asked for. `polling` has no word for `RDHUP` and `EXCLUSIVE`, and adds `PRI` to `IN`:
//! with that a peer's urgent byte, which nobody reads, keeps a level-triggered entry ready for ever.
//!
//! # Safety
//!
//! Every call below passes descriptors that are borrowed, so open, and memory that it owns. The one
//! exception, `control`, says why it may take the number of a closed one.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polling::{Event, PollMode, Poller};

use crate::mask::SignalMask;

pub(crate) const IN: u32 = libc::EPOLLIN as u32;
pub(crate) const OUT: u32 = libc::EPOLLOUT as u32;
pub(crate) const PRI: u32 = libc::EPOLLPRI as u32;
pub(crate) const RDHUP: u32 = libc::EPOLLRDHUP as u32;
pub(crate) const HUP: u32 = libc::EPOLLHUP as u32;
pub(crate) const ERR: u32 = libc::EPOLLERR as u32;
pub(crate) const ET: u32 = libc::EPOLLET as u32;
pub(crate) const ONESHOT: u32 = libc::EPOLLONESHOT as u32;
pub(crate) const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;

pub(crate) const EBADF: i32 = libc::EBADF;
pub(crate) const ENOENT: i32 = libc::ENOENT;
pub(crate) const EEXIST: i32 = libc::EEXIST;

/// Adds `fd` to the set of `poller`, in the words of `polling`.
pub(crate) fn add(
    poller: &Poller,
    fd: BorrowedFd<'_>,
    event: Event,
    mode: PollMode,
) -> io::Result<()> {
    // SAFETY: `fd` is open now. `polling` further asks that it be deleted before it is closed,
    // because some systems keep the number. epoll(7) does not: it keeps the open file, and drops
    // the entry itself when that is closed. Nothing is ever read or written through the number.
    unsafe { poller.add_with_mode(fd.as_raw_fd(), event, mode) }
}

/// What to do with an entry of the set.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    Add = libc::EPOLL_CTL_ADD as isize,
    Modify = libc::EPOLL_CTL_MOD as isize,
    Delete = libc::EPOLL_CTL_DEL as isize,
}

/// epoll_ctl(2) with any flags.
///
/// It takes a number and not a borrowed descriptor, because a set may be asked about a file that is
/// closed already: the kernel then says EBADF or ENOENT. Whatever the number names, the file itself
/// is not touched, only its entry in this set.
pub(crate) fn control(
    poller: &Poller,
    change: Change,
    fd: RawFd,
    flags: u32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: flags, u64: data };
    let epoll = poller.as_fd().as_raw_fd();
    // SAFETY: `epoll` is open; `fd` may be any number; the kernel copies `event` before it returns.
    let done = unsafe { libc::epoll_ctl(epoll, change as i32, fd, &raw mut event) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Room for what one wait brings.
pub(crate) struct Events {
    list: Box<[libc::epoll_event]>,
    len: usize,
}

impl Events {
    pub(crate) fn with_capacity(capacity: usize) -> Events {
        let blank = libc::epoll_event { events: 0, u64: 0 };
        Events { list: vec![blank; capacity].into_boxed_slice(), len: 0 }
    }

    /// What the last wait brought, to put it into another order.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [libc::epoll_event] {
        &mut self.list[..self.len]
    }

    /// The flags and the data of each entry that the last wait brought.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.list[..self.len].iter().map(|event| (event.events, event.u64))
    }
}

/// Waits on the set of `poller`, for ever without a `timeout`.
///
/// epoll_pwait2(2) is one call where `Poller::wait` is five, and counts nanoseconds. EINTR comes
/// back as `Interrupted`: the caller knows how much of its time is left. With a `mask`, that is what
/// the thread blocks while it sleeps.
pub(crate) fn wait(
    poller: &Poller,
    events: &mut Events,
    timeout: Option<Duration>,
    mask: Option<SignalMask>,
) -> io::Result<()> {
    events.len = 0;
    let found = if mask.is_none() && timeout.is_none_or(|timeout| timeout.is_zero()) {
        // Says the same in the words of the older call, which is 50 ns faster.
        wait_plainly(poller, events, timeout.map_or(-1, |_| 0))
    } else if COARSE.load(Ordering::Relaxed) {
        wait_ms(poller, events, timeout, mask)
    } else {
        match wait_ns(poller, events, timeout, mask) {
            // Linux before 5.11, or a seccomp filter older than the call.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                COARSE.store(true, Ordering::Relaxed);
                wait_ms(poller, events, timeout, mask)
            }
            found => found,
        }
    };
    events.len = found?;
    Ok(())
}

/// This kernel refuses epoll_pwait2(2). A fact about the process, found out once.
static COARSE: AtomicBool = AtomicBool::new(false);

/// For that many milliseconds; for ever if they are negative.
fn wait_plainly(poller: &Poller, events: &mut Events, ms: i32) -> io::Result<usize> {
    let epoll = poller.as_fd().as_raw_fd();
    let room = i32::try_from(events.list.len()).unwrap_or(i32::MAX);
    // SAFETY: the list has at least `room` entries.
    let found = unsafe { libc::epoll_wait(epoll, events.list.as_mut_ptr(), room, ms) };
    usize::try_from(found).map_err(|_| io::Error::last_os_error())
}

fn wait_ns(
    poller: &Poller,
    events: &mut Events,
    timeout: Option<Duration>,
    mask: Option<SignalMask>,
) -> io::Result<usize> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mask = mask.map(SignalMask::bits);
    let mask = mask.as_ref().map_or(ptr::null(), ptr::from_ref);
    let epoll = poller.as_fd().as_raw_fd();
    let (list, room) = (events.list.as_mut_ptr(), events.list.len());
    // SAFETY: `list` has `room` entries; `timeout` and `mask` are null or outlive the call, and a mask
    // has the eight bytes that its size says. A raw call, because glibc has the wrapper only since 2.35.
    let found = unsafe {
        libc::syscall(libc::SYS_epoll_pwait2, epoll, list, room, timeout, mask, MASK_BYTES)
    };
    usize::try_from(found).map_err(|_| io::Error::last_os_error())
}

/// Rounds up to milliseconds: late rather than a busy loop.
fn wait_ms(
    poller: &Poller,
    events: &mut Events,
    timeout: Option<Duration>,
    mask: Option<SignalMask>,
) -> io::Result<usize> {
    let ms =
        timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    let mask = mask.map(SignalMask::bits);
    let mask = mask.as_ref().map_or(ptr::null(), ptr::from_ref);
    let epoll = poller.as_fd().as_raw_fd();
    let (list, room) = (events.list.as_mut_ptr(), events.list.len());
    // SAFETY: as in `wait_ns`. A raw call, because the wrapper takes the C library's larger mask.
    let found =
        unsafe { libc::syscall(libc::SYS_epoll_pwait, epoll, list, room, ms, mask, MASK_BYTES) };
    usize::try_from(found).map_err(|_| io::Error::last_os_error())
}

/// The size of the kernel's own set of signals.
const MASK_BYTES: usize = size_of::<u64>();

pub(crate) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        // A wait of 292 billion years is cut short, and then begun again by whoever asked.
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
