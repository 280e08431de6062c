//! How often the kernel is looked at while the sources have something anyway.
//!
//! A look costs as much as ten turns of a source that has its events in memory, so it is not for every
//! turn. But turns can be long, too (a megabyte sent, a slow user), and who waits for a descriptor
//! meanwhile waits for them all. So the turns between two looks are as many as fit into a fixed time,
//! going by how long those before the last look took. A few times on the way the clock is asked whether
//! they still are that short.

use std::time::{Duration, Instant};

/// For so long, about, nobody who waits for a descriptor is kept waiting by events that are there.
const SPAN: Duration = Duration::from_micros(200);

/// The most turns between two looks.
const TURNS_MAX: u32 = 512;

/// So many turns go by between two looks at the clock.
const TURNS_PER_CLOCK: u32 = 16;

/// Counts turns, and says when it is time to look.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Turns since the last look, and when the second of them was over.
    turns: u32,
    begun: Instant,
    allowed: u32,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace { turns: 0, begun: Instant::now(), allowed: TURNS_MAX }
    }

    /// Whether enough turns went by without a look.
    #[inline]
    pub(crate) fn wants_a_look(&self) -> bool {
        self.turns >= self.allowed
    }

    /// A turn is over. Says whether it is time to look.
    #[inline]
    pub(crate) fn turned(&mut self, clock: impl FnOnce() -> Instant) -> bool {
        self.turns = self.turns.saturating_add(1);
        // Not the first: where every turn looks, there is nothing to measure.
        if matches!(self.turns, 2 | 3 | 4 | 8)
            || self.turns % TURNS_PER_CLOCK == 0 && self.turns > 0
        {
            self.compare(clock());
        }
        self.wants_a_look()
    }

    fn compare(&mut self, now: Instant) {
        if self.turns == 2 {
            self.begun = now;
        } else if now >= self.begun + SPAN {
            // They are longer than those before the last look.
            self.allowed = self.turns;
        }
    }

    /// The kernel is about to be looked at.
    pub(crate) fn looks(&mut self, clock: impl FnOnce() -> Instant) {
        if let Some(measured @ 1..) = self.turns.checked_sub(2) {
            let each = clock().saturating_duration_since(self.begun) / measured;
            let fitting = SPAN.as_nanos() / each.as_nanos().max(1);
            self.allowed = u32::try_from(fitting).unwrap_or(TURNS_MAX).clamp(3, TURNS_MAX);
        }
        self.turns = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of that length until a look is wanted.
    fn turns_until_a_look(pace: &mut Pace, now: &mut Instant, each: Duration) -> u32 {
        let mut turns = 0;
        while !pace.wants_a_look() {
            *now += each;
            pace.turned(|| *now);
            turns += 1;
        }
        pace.looks(|| *now);
        turns
    }

    #[test]
    fn short_turns_are_many_and_long_ones_few() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        for (each, expected) in [(50, 512), (10_000, 20), (100_000, 3), (9_000_000, 3), (50, 512)] {
            let each = Duration::from_nanos(each);
            turns_until_a_look(&mut pace, &mut now, each);
            assert_eq!(turns_until_a_look(&mut pace, &mut now, each), expected, "{each:?}");
        }
    }

    #[test]
    fn turns_that_have_become_long_are_noticed_before_the_next_look() {
        for (each, expected) in [(10_000, 32), (100_000, 4), (9_000_000, 3)] {
            let (mut pace, mut now) = (Pace::new(), Instant::now());
            turns_until_a_look(&mut pace, &mut now, Duration::from_nanos(50));
            let each = Duration::from_nanos(each);
            assert_eq!(turns_until_a_look(&mut pace, &mut now, each), expected, "{each:?}");
        }
    }

    #[test]
    fn time_asleep_counts_for_nothing() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        for _ in 0..100 {
            pace.turned(|| now);
            now += Duration::from_secs(1);
            pace.looks(|| now);
        }
        assert_eq!(pace.allowed, TURNS_MAX);
    }

    #[test]
    fn turns_without_a_clock_tick_are_no_panic() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        assert_eq!(turns_until_a_look(&mut pace, &mut now, Duration::ZERO), TURNS_MAX);
        assert_eq!(turns_until_a_look(&mut pace, &mut now, Duration::ZERO), TURNS_MAX);
    }
}
