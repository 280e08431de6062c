//! What waits for the wall clock: the kernel's timer, or in a simulated queue its clock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::sys::timerfd::{Expiry, TimerFd};

/// A timer that is set to a time of the wall clock, and says when the clock was set.
#[derive(Debug)]
pub(crate) enum WallTimer {
    /// Its descriptor gets readable.
    Kernel(TimerFd),
    /// It has to be asked.
    MadeUp { clock: Clock, set_to: Option<Duration>, steps: u64 },
}

impl WallTimer {
    /// A timer by `clock`.
    pub(crate) fn new(clock: &Clock) -> io::Result<WallTimer> {
        Ok(match clock.wall_steps() {
            None => WallTimer::Kernel(TimerFd::wall_clock()?),
            Some(steps) => WallTimer::MadeUp { clock: clock.clone(), set_to: None, steps },
        })
    }

    /// What gets readable when there is something to read.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            WallTimer::Kernel(timer) => Some(timer.as_fd()),
            WallTimer::MadeUp { .. } => None,
        }
    }

    /// Sets it to a time since 1970, or to none. `ClockStepped` says that the clock was set since, and
    /// that nobody has read that; the timer is set in any case.
    pub(crate) fn set(&mut self, to: Option<Duration>) -> io::Result<Expiry> {
        match (self, to) {
            (WallTimer::Kernel(timer), Some(to)) => timer.set_wall(to),
            (WallTimer::Kernel(timer), None) => timer.set_relative(None).map(|()| Expiry::Pending),
            (WallTimer::MadeUp { clock, set_to, steps }, to) => {
                *set_to = to;
                let stepped = to.is_some() && was_set(clock, steps);
                Ok(if stepped { Expiry::ClockStepped } else { Expiry::Pending })
            }
        }
    }

    /// Asks what happened, and forgets it.
    pub(crate) fn read(&mut self) -> io::Result<Expiry> {
        match self {
            WallTimer::Kernel(timer) => timer.read(),
            WallTimer::MadeUp { clock, set_to, steps } => {
                let shown = since_epoch(clock);
                Ok(if set_to.is_some() && was_set(clock, steps) {
                    Expiry::ClockStepped
                } else if set_to.take_if(|at| *at <= shown).is_some() {
                    Expiry::Expired
                } else {
                    Expiry::Pending
                })
            }
        }
    }

    /// When to ask, if no descriptor will tell.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            WallTimer::Kernel(_) => None,
            WallTimer::MadeUp { clock, set_to, .. } => {
                clock.shows(SystemTime::UNIX_EPOCH.checked_add((*set_to)?)?)
            }
        }
    }
}

/// What the wall clock shows, since 1970.
pub(crate) fn since_epoch(clock: &Clock) -> Duration {
    clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Whether the clock was set since the last question.
fn was_set(clock: &Clock, seen: &mut u64) -> bool {
    let steps = clock.wall_steps().unwrap_or_default();
    std::mem::replace(seen, steps) != steps
}
