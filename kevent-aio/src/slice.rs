//! How long one turn of the engine goes on.

use std::time::{Duration, Instant};

/// So long one turn goes on with operations. What can go on after that has its turn after the other
/// sources: who waits for a small answer does not wait for everybody's large one.
const SLICE: Duration = Duration::from_micros(200);

/// The time that a turn may take. Who has nothing to do asks no clock.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    until: Option<Instant>,
    pub(crate) is_over: bool,
}

impl Slice {
    /// An operation was gone on with.
    pub(crate) fn pass(&mut self, now: Instant) {
        self.is_over = now >= *self.until.get_or_insert(now + SLICE);
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
            slice.pass(begun + after);
            assert_eq!(slice.is_over, is_over, "{after:?}");
        }
    }
}
