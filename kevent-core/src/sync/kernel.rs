//! What the kernel promises of a queue's epoll set, for the models: that, and no more.
//!
//! - The eventfd of the waker is edge-triggered. Writing it makes it ready once, however often it is
//!   written meanwhile. One of those who sleep finds that, or the next who looks, and nobody else.
//! - The gong is level-triggered: as long as it sounds, nobody sleeps.
//! - A sleep for a limited time may end at any moment; so it does not begin.
//!
//! There is one kernel, so a model has one queue. Its descriptors are real, because the sources put
//! theirs into a real set; nobody ever sleeps on that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread;
use polling::Poller;

use crate::mask::SignalMask;
use crate::sys::epoll::Events;
use crate::sys::eventfd;

loom::lazy_static! {
    static ref KERNEL: Kernel = Kernel::default();
}

#[derive(Default)]
struct Kernel {
    set: Mutex<Set>,
    readable: Condvar,
}

/// What is ready in the queue's set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Set {
    rung: bool,
    /// The gong sounds.
    pub(super) sounds: bool,
    /// How often a thread that slept was woken by the eventfd.
    pub(super) wake_ups: u64,
}

/// As it is now.
#[cfg(test)]
pub(super) fn set() -> Set {
    *lock()
}

fn lock() -> MutexGuard<'static, Set> {
    KERNEL.set.lock().unwrap()
}

#[derive(Debug)]
pub(crate) struct EventFd(eventfd::EventFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        eventfd::EventFd::new().map(EventFd)
    }

    pub(crate) fn add_one(&self) {
        lock().rung = true;
        KERNEL.readable.notify_one();
    }
}

#[derive(Debug)]
pub(crate) struct Gong(eventfd::Gong);

impl Gong {
    pub(crate) fn new() -> io::Result<Gong> {
        eventfd::Gong::new().map(Gong)
    }

    pub(crate) fn sound(&self) {
        lock().sounds = true;
        KERNEL.readable.notify_all();
    }

    pub(crate) fn stop(&self) {
        lock().sounds = false;
    }
}

/// In place of epoll_pwait2(2).
pub(crate) fn wait(
    _: &Poller,
    _: &mut Events,
    timeout: Option<Duration>,
    _: Option<SignalMask>,
) -> io::Result<()> {
    let mut set = lock();
    let mut slept = false;
    while timeout.is_none() && !set.rung && !set.sounds {
        set = KERNEL.readable.wait(set).unwrap();
        slept = true;
    }
    set.wake_ups += u64::from(slept && set.rung);
    set.rung = false;
    if set.sounds {
        // Who is not meant comes by again and again, until those who are have come.
        drop(set);
        thread::yield_now();
    }
    Ok(())
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Gong {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
