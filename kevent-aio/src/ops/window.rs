//! How much of a file is asked for, read ahead and sent at a time.
//!
//! A window ends on a page's end, so that no page is asked for twice, and before the next one
//! nothing is left over. It doubles while the transfer keeps pace, and halves when the
//! socket does not take what was made ready: what is read ahead of a slow client is memory that
//! nobody uses yet.

/// The smallest page that Linux has.
const PAGE: u64 = 4096;

/// The smallest and the first window. Reading less at once costs more in calls than in bytes.
pub(crate) const SMALLEST: u64 = 64 * 1024;
const FIRST: u64 = 128 * 1024;
pub(crate) const LARGEST: u64 = 512 * 1024;

/// What one transfer sends before others have their turn: 25 to 50 us.
pub(crate) const TURN: u64 = 128 * 1024;

/// The read-ahead window of one transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    size: u64,
}

impl Window {
    pub(crate) fn new() -> Window {
        Window { size: FIRST }
    }

    /// The length of the next window of a transfer that is at `offset`, with `left` bytes to go.
    pub(crate) fn next(self, offset: u64, left: u64) -> u64 {
        let length = self.size - offset % PAGE;
        length.min(left)
    }

    /// All that was made ready has been sent.
    pub(crate) fn grow(&mut self) {
        self.size = (self.size * 2).min(LARGEST);
    }

    /// The socket was full before all that was made ready had been sent.
    pub(crate) fn shrink(&mut self) {
        self.size = (self.size / 2).max(SMALLEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_cover_a_range_without_gap_or_overlap(
            offset in 0..1_u64 << 40,
            length in 0..20_000_000_u64,
            paces in proptest::collection::vec(any::<bool>(), 1..400),
        ) {
            let mut window = Window::new();
            let mut at = offset;
            let end = offset + length;
            for pace in paces.iter().cycle() {
                if at == end {
                    break;
                }
                let step = window.next(at, end - at);
                prop_assert!(step > 0 && step <= LARGEST);
                at += step;
                prop_assert!(at == end || at % PAGE == 0);
                if *pace { window.grow() } else { window.shrink() }
            }
            prop_assert_eq!(at, end);
        }
    }

    #[test]
    fn the_window_stays_within_its_bounds() {
        let mut window = Window::new();
        for _ in 0..70 {
            window.grow();
        }
        assert_eq!(window.next(0, u64::MAX), LARGEST);
        for _ in 0..70 {
            window.shrink();
        }
        assert_eq!(window.next(0, u64::MAX), SMALLEST);
    }

    #[test]
    fn the_end_of_the_address_range_does_not_overflow() {
        assert_eq!(Window::new().next(u64::MAX - 10, 10), 10);
    }
}
