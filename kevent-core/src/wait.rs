//! How long to wait, and for how many events.

use std::time::{Duration, Instant};

/// What [`Queue::wait`](crate::Queue::wait) waits for.
///
/// ```
/// use std::time::{Duration, Instant};
/// use kevent_core::Wait;
///
/// let _ = Wait::forever();
/// let _ = Wait::timeout(Duration::from_micros(50)).at_least(8).at_most(64);
/// let _ = Wait::until(Instant::now() + Duration::from_secs(1));
/// // Where a `Wait` is taken, a time or an optional time will do:
/// let _: Wait = Duration::from_millis(3).into();
/// let _: Wait = None.into();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    limit: Limit,
    at_least: usize,
    at_most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Never,
    /// Becomes `Until` when the wait begins to sleep: one that need not sleep asks no clock.
    After(Duration),
    Until(Instant),
}

impl Wait {
    /// However long it takes.
    #[must_use]
    pub const fn forever() -> Wait {
        Wait { limit: Limit::Never, at_least: 1, at_most: usize::MAX }
    }

    /// Not at all: only look.
    #[must_use]
    pub const fn poll() -> Wait {
        Wait::timeout(Duration::ZERO)
    }

    /// At most for that time, to the nanosecond as far as the kernel's timer slack allows (50 us
    /// unless the thread changed it, see `PR_SET_TIMERSLACK` in prctl(2)).
    #[must_use]
    pub const fn timeout(timeout: Duration) -> Wait {
        Wait { limit: Limit::After(timeout), ..Wait::forever() }
    }

    /// Until that time on the monotonic clock.
    #[must_use]
    pub const fn until(deadline: Instant) -> Wait {
        Wait { limit: Limit::Until(deadline), ..Wait::forever() }
    }

    /// Come back with that many events, or when the time has passed with what there is. One unless
    /// said otherwise; never more than the ring holds. Zero looks, and does not wait.
    #[must_use]
    pub const fn at_least(self, count: usize) -> Wait {
        Wait { at_least: count, ..self }
    }

    /// Hand out that many events at most before the next wait. The others stay in the ring.
    #[must_use]
    pub const fn at_most(self, count: usize) -> Wait {
        Wait { at_most: count, ..self }
    }

    pub(crate) fn minimum(&self) -> usize {
        self.at_least
    }

    pub(crate) fn maximum(&self) -> usize {
        self.at_most
    }

    /// How long to sleep now if `due` is the next thing that is known to happen; `None` is for ever.
    pub(crate) fn sleep(&mut self, due: Option<Instant>) -> Option<Duration> {
        if self.limit == Limit::After(Duration::ZERO) {
            return Some(Duration::ZERO);
        }
        let deadline = match (self.deadline(), due) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return None,
        };
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether the time has passed.
    pub(crate) fn is_over(&mut self) -> bool {
        self.limit == Limit::After(Duration::ZERO)
            || self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    fn deadline(&mut self) -> Option<Instant> {
        if let Limit::After(timeout) = self.limit {
            // A time that the clock can't show never comes.
            self.limit = Instant::now().checked_add(timeout).map_or(Limit::Never, Limit::Until);
        }
        match self.limit {
            Limit::Until(deadline) => Some(deadline),
            Limit::Never | Limit::After(_) => None,
        }
    }
}

impl From<Duration> for Wait {
    fn from(timeout: Duration) -> Wait {
        Wait::timeout(timeout)
    }
}

impl From<Option<Duration>> for Wait {
    fn from(timeout: Option<Duration>) -> Wait {
        timeout.map_or(Wait::forever(), Wait::timeout)
    }
}

impl From<Instant> for Wait {
    fn from(deadline: Instant) -> Wait {
        Wait::until(deadline)
    }
}
