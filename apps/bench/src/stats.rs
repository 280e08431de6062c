//! Medians, how far they can be trusted, and what follows for a goal.
//!
//! The rule of noise. A median of a few rounds is uncertain: the median of many more rounds lies,
//! with 95 % confidence, between two of the measured values, which the binomial distribution names
//! (the sign test). This asks nothing of the noise but that rounds are independent: not that it is
//! normal, nor that it is small. A limit inside that interval is neither reached nor missed.

/// The middle of some rounds, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    /// The 95 % interval of the median.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) rounds: usize,
}

impl Summary {
    /// `None` when nothing was measured.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let cut = outside(sorted.len());
        let low = sorted.get(cut).copied().unwrap_or(min);
        let high = sorted.get(sorted.len() - 1 - cut).copied().unwrap_or(max);
        Some(Summary { min, median: middle(&sorted), max, low, high, rounds: sorted.len() })
    }

    /// What the figures say about a limit.
    pub(crate) fn against(&self, limit: f64) -> Verdict {
        Verdict::of(self.low, self.high, limit)
    }
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// How many of `rounds` sorted values lie outside of the interval, at each end. With fewer than six
/// there is no such interval, and the whole range stands for it.
fn outside(rounds: usize) -> usize {
    let mut ways = 1.0;
    let mut chance = 0.0;
    for cut in 0..rounds {
        chance += ways / 2_f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX));
        if chance > 0.025 {
            return cut.saturating_sub(1);
        }
        ways *= (rounds - cut) as f64 / (cut + 1) as f64;
    }
    0
}

/// Whether a goal is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Reached,
    Missed,
    /// The limit lies where the noise is.
    WithinNoise,
    NotMeasured,
}

impl Verdict {
    pub(crate) fn of(low: f64, high: f64, limit: f64) -> Verdict {
        if high <= limit {
            Verdict::Reached
        } else if low > limit {
            Verdict::Missed
        } else {
            Verdict::WithinNoise
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Verdict::Reached => "reached",
            Verdict::Missed => "not reached",
            Verdict::WithinNoise => "inside the noise",
            Verdict::NotMeasured => "not measured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f64]) -> Summary {
        Summary::of(values.iter().copied()).unwrap()
    }

    #[test]
    fn interval_is_that_of_the_sign_test() {
        // From the tables of the binomial distribution: 2nd to 9th of ten, 6th to 15th of twenty.
        assert_eq!((outside(5), outside(6), outside(10), outside(20)), (0, 0, 1, 5));
    }

    #[test]
    fn one_wild_round_of_ten_does_not_move_the_interval() {
        let calm = summary(&[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]);
        let wild = summary(&[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 99.0]);
        assert_eq!((calm.low, calm.high, calm.median), (wild.low, wild.high, wild.median));
        assert_eq!(wild.max, 99.0);
    }

    #[test]
    fn limit_among_the_values_is_neither_reached_nor_missed() {
        let values = summary(&[10.0, 11.0, 12.0]);
        assert_eq!(values.against(12.0), Verdict::Reached);
        assert_eq!(values.against(11.5), Verdict::WithinNoise);
        assert_eq!(values.against(9.0), Verdict::Missed);
    }

    #[test]
    fn nothing_measured_has_no_summary() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([f64::NAN, f64::INFINITY]), None);
    }
}
