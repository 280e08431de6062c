//! A distribution, in as few words as can be.

use std::fmt;

/// How many values of which size there were, by powers of two.
///
/// Recording one is three memory accesses; so it can be always on. A value is known to within a
/// factor of two, the largest exactly.
///
/// ```
/// let mut sizes = kevent_core::Histogram::default();
/// for value in [0, 3, 3, 1000] {
///     sizes.record(value);
/// }
/// assert_eq!((sizes.count(), sizes.max()), (4, 1000));
/// assert_eq!(sizes.quantile(0.5), 3, "half of them are at most that");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    /// How many values of that many significant bits.
    buckets: [u64; BUCKETS],
    max: u64,
}

const BUCKETS: usize = u64::BITS as usize + 1;

impl Histogram {
    /// Counts a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_several(value, 1);
    }

    /// Counts a value that stands for that many.
    #[inline]
    pub(crate) fn record_several(&mut self, value: u64, count: u64) {
        self.buckets[(u64::BITS - value.leading_zeros()) as usize] += count;
        self.max = self.max.max(value);
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The largest of them.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// A value that the given part of them (0.5 is the median, 0.99 the 99th percentile) is not above.
    /// Zero when there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut below = 0;
        for (limit, count) in self.iter() {
            below += count;
            if below >= wanted {
                return limit.min(self.max);
            }
        }
        self.max
    }

    /// The buckets that are not empty: the largest value that falls into each, and how many did.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bits, count)| {
            (u64::MAX.checked_shr(u64::BITS - bits as u32).unwrap_or(0), *count)
        })
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BUCKETS], max: 0 }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantile_is_within_a_factor_of_two(
            mut values in prop::collection::vec((0_u32..64, any::<u64>()), 1..100),
            part in 0.0..1.0_f64,
        ) {
            let mut histogram = Histogram::default();
            let mut values: Vec<u64> = values.drain(..).map(|(bits, v)| v >> bits).collect();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let rank = (values.len() as f64 * part).ceil() as usize;
            let exact = values[rank.max(1) - 1];
            let told = histogram.quantile(part);
            prop_assert!(exact <= told && told / 2 <= exact, "{} told for {}", told, exact);
            prop_assert_eq!(Some(histogram.max()), values.last().copied());
            prop_assert_eq!(histogram.count(), values.len() as u64);
        }
    }
}
