//! Doing something that may pay only as often as it pays.

/// The most occasions that go by before it is tried again.
const LONGEST: u32 = 1024;

/// Counts occasions: after every try for nothing twice as many go by, after one that paid none.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// How many occasions the last try for nothing made go by, and how many of them are left.
    length: u32,
    left: u32,
}

impl Rest {
    /// An occasion. Says whether to try.
    #[inline]
    pub(crate) fn is_over(&mut self) -> bool {
        let over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        over
    }

    /// It was tried, and paid or not.
    pub(crate) fn tried(&mut self, paid: bool) {
        self.length = if paid { 0 } else { (2 * self.length).clamp(1, LONGEST) };
        self.left = self.length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Occasions that go by.
    fn skipped(rest: &mut Rest) -> u32 {
        (0..).take_while(|_| !rest.is_over()).count() as u32
    }

    #[test]
    fn tries_for_nothing_become_rare_and_one_that_pays_brings_them_back() {
        let mut rest = Rest::default();
        for expected in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(skipped(&mut rest), expected);
            rest.tried(false);
        }
        skipped(&mut rest);
        rest.tried(true);
        assert_eq!(skipped(&mut rest), 0);
    }
}
