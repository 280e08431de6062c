//! How long to wait, and for how many events.

use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::mask::SignalMask;

/// What [`Queue::wait`](crate::Queue::wait) waits for.
///
/// ```
/// use std::time::{Duration, Instant, SystemTime};
/// use kevent_core::Wait;
///
/// let _ = Wait::forever();
/// let _ = Wait::timeout(Duration::from_micros(50)).at_least(8).at_most(64);
/// let _ = Wait::until(Instant::now() + Duration::from_secs(1));
/// let _ = Wait::until_wall(SystemTime::now() + Duration::from_secs(1));
/// // Thirty-two, or after 200 us whatever there is, or the first that comes then:
/// let _ = Wait::forever().at_least(32).within(Duration::from_micros(200));
/// // Where a `Wait` is taken, a time or an optional time will do:
/// let _: Wait = Duration::from_millis(3).into();
/// let _: Wait = None.into();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    limit: Limit,
    at_least: usize,
    at_most: usize,
    within: Option<Within>,
    mask: Option<SignalMask>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Never,
    /// Becomes `Until` when the wait begins to sleep: one that need not sleep asks no clock.
    After(Duration),
    Until(Instant),
    Wall(SystemTime),
}

/// How long more than one event is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    After(Duration),
    Until(Instant),
}

impl Wait {
    /// However long it takes.
    #[must_use]
    pub const fn forever() -> Wait {
        Wait { limit: Limit::Never, at_least: 1, at_most: usize::MAX, within: None, mask: None }
    }

    /// Not at all: only look.
    #[must_use]
    pub const fn poll() -> Wait {
        Wait::timeout(Duration::ZERO)
    }

    /// At most for that time; some 20 us late where the processor is free, because that is what waking a
    /// thread takes. The kernel's timer slack (see `PR_SET_TIMERSLACK` in prctl(2)) is reckoned with.
    #[must_use]
    pub const fn timeout(timeout: Duration) -> Wait {
        Wait { limit: Limit::After(timeout), ..Wait::forever() }
    }

    /// Until that time on the monotonic clock.
    #[must_use]
    pub const fn until(deadline: Instant) -> Wait {
        Wait { limit: Limit::Until(deadline), ..Wait::forever() }
    }

    /// Until the wall clock shows that time. When the clock is set meanwhile, the wait goes by the
    /// clock as it is then.
    ///
    /// The first such wait of a queue takes one more descriptor.
    #[must_use]
    pub const fn until_wall(deadline: SystemTime) -> Wait {
        Wait { limit: Limit::Wall(deadline), ..Wait::forever() }
    }

    /// Come back with that many events, or when the time has passed with what there is. One unless
    /// said otherwise; never more than the ring holds. Zero looks, and does not wait.
    #[must_use]
    pub const fn at_least(self, count: usize) -> Wait {
        Wait { at_least: count, ..self }
    }

    /// Wait for more than one event ([`at_least`](Wait::at_least)) for that time only. Then what there
    /// is will do; and if there is nothing, the first event that comes.
    #[must_use]
    pub const fn within(self, time: Duration) -> Wait {
        Wait { within: Some(Within::After(time)), ..self }
    }

    /// Hand out that many events at most before the next wait. The others stay in the ring.
    #[must_use]
    pub const fn at_most(self, count: usize) -> Wait {
        Wait { at_most: count, ..self }
    }

    /// Let exactly these signals be blocked while the thread sleeps; as of old before and after it.
    /// Both changes are one with the sleep: a signal that was blocked until then either ends the
    /// sleep, or comes after it. The wait then comes back with what is there, as soon as the handler has
    /// run; other waits sleep on.
    ///
    /// Source: epoll_pwait(2).
    #[must_use]
    pub const fn with_mask(self, mask: SignalMask) -> Wait {
        Wait { mask: Some(mask), ..self }
    }

    #[inline]
    pub(crate) fn minimum(&self) -> usize {
        self.at_least
    }

    #[inline]
    pub(crate) fn maximum(&self) -> usize {
        self.at_most
    }

    pub(crate) fn mask(&self) -> Option<SignalMask> {
        self.mask
    }

    /// How many events are enough now.
    #[inline]
    pub(crate) fn enough(&mut self, clock: &Clock) -> usize {
        if self.at_least > 1 {
            if let Some(end) = self.end_of_within(clock) {
                return if end <= clock.turn() { 1 } else { self.at_least };
            }
        }
        self.at_least
    }

    /// The wall-clock time at which it ends, if it does.
    pub(crate) fn wall(&self) -> Option<SystemTime> {
        match self.limit {
            Limit::Wall(deadline) => Some(deadline),
            Limit::Never | Limit::After(_) | Limit::Until(_) => None,
        }
    }

    /// How long to sleep now if `due` is the next thing that is known to happen; `None` is for ever.
    pub(crate) fn sleep(&mut self, due: Option<Instant>, clock: &Clock) -> Option<Duration> {
        if self.limit == Limit::After(Duration::ZERO) {
            return Some(Duration::ZERO);
        }
        let within = if self.at_least > 1 { self.end_of_within(clock) } else { None };
        let within = within.filter(|end| *end > clock.turn());
        let times = [self.deadline(clock), due, within];
        // Without an end it is for ever, and asks no clock.
        let first = times.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(clock.turn()))
    }

    /// Whether the time has passed.
    pub(crate) fn is_over(&mut self, clock: &Clock) -> bool {
        match self.limit {
            Limit::After(Duration::ZERO) => true,
            Limit::Wall(deadline) => deadline <= clock.wall(),
            _ => self.deadline(clock).is_some_and(|deadline| deadline <= clock.turn()),
        }
    }

    #[inline]
    fn deadline(&mut self, clock: &Clock) -> Option<Instant> {
        if let Limit::After(timeout) = self.limit {
            // A time that the clock can't show never comes.
            self.limit = clock.turn().checked_add(timeout).map_or(Limit::Never, Limit::Until);
        }
        match self.limit {
            Limit::Until(deadline) => Some(deadline),
            Limit::Never | Limit::After(_) | Limit::Wall(_) => None,
        }
    }

    fn end_of_within(&mut self, clock: &Clock) -> Option<Instant> {
        if let Some(Within::After(time)) = self.within {
            self.within = clock.turn().checked_add(time).map(Within::Until);
        }
        match self.within {
            Some(Within::Until(end)) => Some(end),
            Some(Within::After(_)) | None => None,
        }
    }
}

impl From<Duration> for Wait {
    #[inline]
    fn from(timeout: Duration) -> Wait {
        Wait::timeout(timeout)
    }
}

impl From<Option<Duration>> for Wait {
    #[inline]
    fn from(timeout: Option<Duration>) -> Wait {
        timeout.map_or(Wait::forever(), Wait::timeout)
    }
}

impl From<Instant> for Wait {
    fn from(deadline: Instant) -> Wait {
        Wait::until(deadline)
    }
}

impl From<SystemTime> for Wait {
    fn from(deadline: SystemTime) -> Wait {
        Wait::until_wall(deadline)
    }
}
