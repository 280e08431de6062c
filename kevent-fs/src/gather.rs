//! When a descriptor is read: at once, or some time after it has spoken, with what came until then.
//!
//! A program that changes files makes thousands of events in a burst, and a reader that is woken by the
//! first of them reads a handful at a time. If it waits a little, the kernel merges what is equal, and
//! one call reads the rest. An armed descriptor would wake the queue for each event meanwhile, so it
//! is armed for one word, and armed again once it was read.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use kevent_core::{Due, Interest, PollKey, PollSet, Trigger};

#[derive(Debug, Default)]
pub(crate) struct Gather {
    time: Duration,
    /// The descriptor has spoken, and is silent until it is armed; it is read then.
    until: Option<Instant>,
    poll_set: Option<PollSet>,
}

impl Gather {
    pub(crate) fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    pub(crate) fn attach(&mut self, poll_set: &PollSet, fd: BorrowedFd<'_>) -> io::Result<()> {
        let trigger = if self.is_instant() { Trigger::Level } else { Trigger::OneShot };
        poll_set.add(fd, PollKey::default(), Interest::READABLE, trigger)?;
        self.poll_set = Some(poll_set.clone());
        Ok(())
    }

    /// The descriptor stays open with the source, so it has to be taken out.
    pub(crate) fn detach(&mut self, fd: BorrowedFd<'_>) {
        self.until = None;
        if let Some(poll_set) = self.poll_set.take() {
            let _ = poll_set.delete(fd);
        }
    }

    /// What the source answers in `flush` may have changed by a call of its user.
    pub(crate) fn changed(&self) {
        if let Some(poll_set) = &self.poll_set {
            poll_set.waker().changed();
        }
    }

    /// The time by the queue's clock.
    pub(crate) fn now(&self) -> Instant {
        self.poll_set.as_ref().map_or_else(Instant::now, |poll_set| poll_set.clock().now())
    }

    /// The descriptor says that there is something to read.
    pub(crate) fn spoke(&mut self, now: impl FnOnce(&Gather) -> Instant) {
        if !self.is_instant() {
            self.until = Some(now(self) + self.time);
        }
    }

    /// When the descriptor is to be read.
    pub(crate) fn due(&self, now: impl FnOnce(&Gather) -> Instant) -> Due {
        match self.until {
            Some(until) if now(self) >= until => Due::Now,
            Some(until) => Due::At(until),
            None => Due::OnWake,
        }
    }

    /// Whether the descriptor may be read now.
    pub(crate) fn may_read(&self, now: impl FnOnce(&Gather) -> Instant) -> bool {
        self.is_instant() || self.due(now) == Due::Now
    }

    /// The descriptor was read until nothing was left.
    pub(crate) fn was_read(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match (&self.poll_set, self.until.take()) {
            (Some(poll_set), Some(_)) => {
                poll_set.modify(fd, PollKey::default(), Interest::READABLE, Trigger::OneShot)
            }
            _ => Ok(()),
        }
    }

    fn is_instant(&self) -> bool {
        self.time.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_from_the_first_word_and_the_descriptor_is_read_when_it_is_over() {
        let (now, time) = (Instant::now(), Duration::from_millis(2));
        let mut gather = Gather { time, ..Gather::default() };
        assert_eq!(gather.due(|_| now), Due::OnWake);
        assert!(!gather.may_read(|_| now), "it has not spoken");
        gather.spoke(|_| now);
        assert_eq!(gather.due(|_| now), Due::At(now + time));
        assert!(!gather.may_read(|_| now));
        assert_eq!(gather.due(|_| now + time), Due::Now);
        assert!(gather.may_read(|_| now + time));
    }

    #[test]
    fn without_a_time_it_is_read_at_once_and_no_clock_is_asked() {
        let mut gather = Gather::default();
        gather.spoke(|_| unreachable!());
        assert!(gather.may_read(|_| unreachable!()));
        assert_eq!(gather.due(|_| unreachable!()), Due::OnWake);
    }
}
