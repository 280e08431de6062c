//! How long one turn of the engine goes on.

use std::time::{Duration, Instant};

/// So long one turn goes on with operations. What can go on after that has its turn after the other
/// sources: who waits for a small answer does not wait for everybody's large one. The first
/// step and the last come on top, 40 us each where it sends a lot: 150 us in all, less than 200 with what the kernel
/// does meanwhile.
const SLICE: Duration = Duration::from_micros(50);

/// How many steps that take no time may pass before the clock is asked again: it costs as much as one of them.
const QUICK: u32 = 16;

/// The time that a turn may take. Who has nothing to do asks no clock.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    until: Option<Instant>,
    quick: u32,
    pub(crate) is_over: bool,
}

impl Slice {
    /// An operation was gone on with, which may have taken time unless it was a `quick` step.
    #[inline]
    pub(crate) fn pass(&mut self, quick: bool, now: impl FnOnce() -> Instant) {
        self.quick = if quick && self.until.is_some() { self.quick + 1 } else { QUICK };
        if self.quick >= QUICK {
            self.quick = 0;
            let now = now();
            self.is_over = now >= *self.until.get_or_insert(now + SLICE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_begins_with_the_first_operation_and_ends_in_time() {
        let (mut slice, begun) = (Slice::default(), Instant::now());
        assert!(!slice.is_over);
        for (after, is_over) in [(Duration::ZERO, false), (SLICE / 2, false), (SLICE, true)] {
            slice.pass(false, || begun + after);
            assert_eq!(slice.is_over, is_over, "{after:?}");
        }
    }

    #[test]
    fn quick_steps_ask_for_the_time_now_and_then() {
        let (mut slice, begun) = (Slice::default(), Instant::now());
        let mut asked = 0;
        for _ in 0..10 * QUICK {
            slice.pass(true, || {
                asked += 1;
                begun
            });
        }
        assert_eq!(asked, 10);
        for _ in 0..QUICK {
            slice.pass(true, || begun + SLICE);
        }
        assert!(slice.is_over);
    }
}
