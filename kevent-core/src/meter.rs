//! What the loop measures of itself.

use crate::clock::Clock;
use crate::histogram::Histogram;

/// One of so many looks is measured: how long it is since the last one, and how long the user takes for
/// what comes of it. A clock for each would be dearer than the rest of the turn.
const MEASURED: u32 = 16;

/// Counts looks and interrupts, and measures one look of sixteen.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) polls: u64,
    pub(crate) interrupts: u64,
    pub(crate) handling: Histogram,
    pub(crate) lag: Histogram,
    /// When the kernel was looked at, if that look is measured.
    looked: u64,
    measured: bool,
}

impl Meter {
    /// The user is back; he had what came of a turn at that time.
    pub(crate) fn handled(&mut self, clock: &Clock, turn: u64) {
        if self.measured {
            // By single nanoseconds the turn before may be ahead of a coarse clock: see `Clock::tick`.
            let handled = clock.turn_nanos().saturating_sub(turn);
            self.handling.record_several(handled, MEASURED.into());
        }
    }

    pub(crate) fn is_about_to_look(&mut self, clock: &Clock) {
        if self.measured {
            let lag = clock.turn_nanos().saturating_sub(self.looked);
            self.lag.record_several(lag, MEASURED.into());
        }
        self.polls += 1;
        self.measured = self.polls % u64::from(MEASURED) == 0;
    }

    pub(crate) fn has_looked(&mut self, clock: &Clock) {
        if self.measured {
            self.looked = clock.turn_nanos();
        }
    }
}
