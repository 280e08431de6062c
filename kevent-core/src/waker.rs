//! Waking the queue from elsewhere.
//!
//! One eventfd serves the whole queue. It is written only when the queue sleeps, and once for each
//! sleep, however many wake it: [`Doorbell`] has the protocol.
//!
//! A queue whose descriptor was taken (`exported`) may be slept on by somebody else at any time.
//! It counts as asleep whenever it is not just looking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::clock::Clock;
use crate::doorbell::{Doorbell, Was};
use crate::sync::EventFd;
use crate::sys::cpu;

/// Wakes a queue from any thread. Clones wake the same queue.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    eventfd: EventFd,
    doorbell: Doorbell,
    exported: AtomicBool,
    /// Whether those who post say when: the queue wants them in order.
    wants_stamps: AtomicBool,
    clock: Clock,
    /// Whether wakers leave their processor's number in `last_cpu`: somebody spins by it.
    notes_cpus: AtomicBool,
    last_cpu: AtomicU32,
}

/// In `last_cpu`: unknown. No processor has this number.
const NO_CPU: u32 = u32::MAX;

impl Waker {
    pub(crate) fn new(clock: Clock) -> io::Result<Waker> {
        Ok(Waker(Arc::new(Shared {
            eventfd: EventFd::new()?,
            doorbell: Doorbell::new(),
            exported: AtomicBool::new(false),
            wants_stamps: AtomicBool::new(false),
            clock,
            notes_cpus: AtomicBool::new(false),
            last_cpu: AtomicU32::new(NO_CPU),
        })))
    }

    /// Wakes the queue if it sleeps: its waiting thread then looks at every source again.
    ///
    /// Put what there is to find where the source finds it *before* this call. Costs a system call
    /// only when the queue sleeps, and then only for the first of those who wake it.
    ///
    /// Async-signal-safe: two accesses to an atomic and one write(2), which leaves `errno` as it was. A
    /// handler may call it in the middle of another call of it, and of anything that the queue does.
    /// (Cloning and dropping a waker are not: the last one to go closes a descriptor and frees memory.)
    #[inline]
    pub fn wake(&self) {
        let was = self.0.doorbell.wake();
        if was != Was::Awake && self.0.notes_cpus.load(Ordering::Relaxed) {
            self.note_cpu(cpu::current());
        }
        if was == Was::Asleep {
            self.ring();
        }
    }

    /// For a source, when a call from the user changed what it would answer to
    /// [`flush`](crate::Source::flush): an earlier deadline, something submitted.
    ///
    /// The queue asks before it sleeps, so it needs no telling. Only when its descriptor was taken,
    /// somebody else may be about to sleep on that; then this makes it readable.
    #[inline]
    pub fn changed(&self) {
        if self.is_exported() {
            self.wake();
        }
    }

    #[inline]
    pub(crate) fn fall_asleep(&self) {
        self.0.doorbell.fall_asleep();
    }

    #[inline]
    pub(crate) fn wake_up(&self) {
        self.0.doorbell.wake_up();
    }

    #[inline]
    pub(crate) fn is_asleep(&self) -> bool {
        self.0.doorbell.is_asleep()
    }

    #[inline]
    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.0.doorbell
    }

    /// Whether those who wake it leave word of where they run.
    pub(crate) fn note_cpus(&self, on: bool) {
        self.0.notes_cpus.store(on, Ordering::Relaxed);
    }

    pub(crate) fn note_cpu(&self, cpu: Option<u32>) {
        self.0.last_cpu.store(cpu.unwrap_or(NO_CPU), Ordering::Relaxed);
    }

    /// On which processor the last one ran who woke the queue.
    pub(crate) fn last_cpu(&self) -> Option<u32> {
        Some(self.0.last_cpu.load(Ordering::Relaxed)).filter(|cpu| *cpu != NO_CPU)
    }

    #[inline]
    pub(crate) fn is_exported(&self) -> bool {
        self.0.exported.load(Ordering::Relaxed)
    }

    /// What time it is, if the queue wants to know when things happened: for their order. In nanoseconds
    /// of the queue's [clock](Waker::clock).
    #[inline]
    pub(crate) fn stamp(&self) -> Option<u64> {
        self.wants_stamps().then(|| self.0.clock.now_nanos())
    }

    #[inline]
    pub(crate) fn wants_stamps(&self) -> bool {
        self.0.wants_stamps.load(Ordering::Relaxed)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn want_stamps(&self, wanted: bool) {
        self.0.wants_stamps.store(wanted, Ordering::Relaxed);
    }

    /// From now on somebody else may sleep on the queue's descriptor. The first time, it becomes
    /// readable, so that he lets the queue look at what was there before.
    pub(crate) fn export(&self) {
        if !self.0.exported.swap(true, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Makes the queue's descriptor readable, whoever sleeps.
    pub(crate) fn ring(&self) {
        self.0.eventfd.add_one();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::epoll::{self, Events};
    use polling::{PollMode, Poller};
    use std::time::Duration;

    /// A waker, and whether it has written its eventfd since the last look.
    fn bench() -> (Waker, impl FnMut() -> bool) {
        let waker = Waker::new(Clock::real()).unwrap();
        let poller = Poller::new().unwrap();
        epoll::add(&poller, waker.as_fd(), polling::Event::readable(0), PollMode::Edge).unwrap();
        let mut events = Events::with_capacity(1);
        let rang = move || {
            epoll::wait(&poller, &mut events, Some(Duration::ZERO), None).unwrap();
            events.iter().count() == 1
        };
        (waker, rang)
    }

    #[test]
    fn waking_a_queue_that_is_awake_makes_no_system_call() {
        let (waker, mut rang) = bench();
        waker.wake();
        waker.fall_asleep();
        waker.wake_up();
        waker.wake();
        assert!(!rang());
    }

    #[test]
    fn sleeping_queue_is_rung_once_however_many_wake_it() {
        let (waker, mut rang) = bench();
        for _ in 0..2 {
            waker.fall_asleep();
            waker.wake();
            assert!(rang());
            waker.wake();
            waker.clone().wake();
            assert!(!rang(), "rung twice in one sleep");
            waker.wake_up();
        }
    }

    #[test]
    fn change_rings_only_where_somebody_else_may_sleep_on_the_queue() {
        let (waker, mut rang) = bench();
        waker.fall_asleep();
        waker.changed();
        assert!(!rang());
        waker.export();
        assert!(rang(), "whoever takes the descriptor looks once");
        waker.export();
        assert!(!rang());
        waker.changed();
        assert!(rang());
    }
}
