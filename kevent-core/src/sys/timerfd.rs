//! timerfd_create(2).
//!
//! # Safety
//!
//! Every call below passes a descriptor that it owns and memory that it owns.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::sys::epoll::timespec;

/// A timer of the kernel that epoll can wait for.
#[derive(Debug)]
pub(crate) struct TimerFd(OwnedFd);

/// What a look at the timer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It has not expired.
    Pending,
    /// It has expired.
    Expired,
    /// The wall clock was set: what it was armed to may lie elsewhere now.
    ClockStepped,
}

impl TimerFd {
    /// A timer on CLOCK_MONOTONIC.
    pub(crate) fn monotonic() -> io::Result<TimerFd> {
        TimerFd::new(libc::CLOCK_MONOTONIC)
    }

    /// A timer on CLOCK_REALTIME.
    pub(crate) fn wall_clock() -> io::Result<TimerFd> {
        TimerFd::new(libc::CLOCK_REALTIME)
    }

    fn new(clock: libc::clockid_t) -> io::Result<TimerFd> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made `fd` and nobody else knows it.
        Ok(TimerFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Expires `delay` from now, or never. A delay of zero expires at once.
    pub(crate) fn set_relative(&self, delay: Option<Duration>) -> io::Result<()> {
        // Zero would disarm.
        let delay = delay.map_or(Duration::ZERO, |d| d.max(Duration::from_nanos(1)));
        self.set(0, delay)
    }

    /// Expires when the wall clock shows `since_epoch`, and tells when the clock is set before.
    ///
    /// It is set in any case. `ClockStepped` says that the clock was set since it was set last, and
    /// that nobody has read that.
    pub(crate) fn set_wall(&self, since_epoch: Duration) -> io::Result<Expiry> {
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        match self.set(flags, since_epoch.max(Duration::from_nanos(1))) {
            Err(e) if e.raw_os_error() == Some(libc::ECANCELED) => Ok(Expiry::ClockStepped),
            set => set.map(|()| Expiry::Pending),
        }
    }

    fn set(&self, flags: i32, value: Duration) -> io::Result<()> {
        let spec =
            libc::itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(value) };
        let fd = self.0.as_raw_fd();
        // SAFETY: `spec` outlives the call; the old value is not asked for.
        let done =
            unsafe { libc::timerfd_settime(fd, flags, &raw const spec, std::ptr::null_mut()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Asks what happened, and forgets it.
    pub(crate) fn read(&self) -> io::Result<Expiry> {
        let mut count = [0_u8; 8];
        // SAFETY: `count` is eight writable bytes.
        let got = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        if got >= 0 {
            return Ok(Expiry::Expired);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(Expiry::Pending),
            Some(libc::ECANCELED) => Ok(Expiry::ClockStepped),
            _ => Err(error),
        }
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
