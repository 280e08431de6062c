//! Goals against what was measured.

use crate::group::{Bound, Goal};
use crate::runner::Measured;
use crate::stats::{Summary, Verdict};

/// What became of a goal, in words.
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) who: &'static str,
    pub(crate) metric: &'static str,
    /// What was asked for.
    pub(crate) limit: String,
    /// What was found.
    pub(crate) found: String,
}

/// What the rounds say about one goal of their group.
pub(crate) fn judge(measured: &Measured, goal: &Goal) -> Judgement {
    let metric = &measured.group.metrics[goal.metric];
    let (limit, found) = match goal.bound {
        Bound::AtMost(limit) => {
            (format!("≤ {limit} {}", metric.unit), at_most(measured, goal, limit))
        }
        Bound::Times(factor, others) => {
            let other = best(measured, others, goal.metric);
            (times(measured, factor, other, others), paired(measured, goal, factor, other))
        }
        Bound::TimesOfBest(factor, others, resolution) => {
            let other = best(measured, others, goal.metric);
            let found = best_rounds(measured, goal, factor, other, resolution);
            (format!("{} (best rounds)", times(measured, factor, other, others)), found)
        }
    };
    let (verdict, found) = found.unwrap_or((Verdict::NotMeasured, String::new()));
    Judgement { verdict, who: goal.who, metric: metric.name, limit, found }
}

type Found = Option<(Verdict, String)>;

fn at_most(measured: &Measured, goal: &Goal, limit: f64) -> Found {
    let peer = measured.peer(goal.who)?;
    let summary = measured.summary(peer, goal.metric)?;
    let text = format!(
        "{} {} ({} to {})",
        short(summary.median),
        measured.group.metrics[goal.metric].unit,
        short(summary.low),
        short(summary.high)
    );
    Some((summary.against(limit), text))
}

fn paired(measured: &Measured, goal: &Goal, factor: f64, other: Option<usize>) -> Found {
    let (peer, other) = (measured.peer(goal.who)?, other?);
    let ratio = Summary::of(measured.ratios(peer, other, goal.metric))?;
    let median = |peer| Some(short(measured.summary(peer, goal.metric)?.median));
    let text = format!(
        "{:.2} × ({:.2} to {:.2}); {} against {} {}",
        ratio.median,
        ratio.low,
        ratio.high,
        median(peer)?,
        median(other)?,
        measured.group.metrics[goal.metric].unit
    );
    Some((ratio.against(factor), text))
}

fn best_rounds(
    measured: &Measured,
    goal: &Goal,
    factor: f64,
    other: Option<usize>,
    resolution: f64,
) -> Found {
    let min = |peer| Some(measured.summary(peer, goal.metric)?.min);
    let (ours, theirs) = (min(measured.peer(goal.who)?)?, min(other?)?);
    let ratio = ours / theirs;
    let verdict = if ratio <= factor {
        Verdict::Reached
    } else if ratio <= factor * (1.0 + resolution) {
        Verdict::WithinNoise
    } else {
        Verdict::Missed
    };
    let unit = measured.group.metrics[goal.metric].unit;
    Some((verdict, format!("{ratio:.2} ×; {} against {} {unit}", short(ours), short(theirs))))
}

/// The one of the peers whose median is least.
fn best(measured: &Measured, names: &[&str], metric: usize) -> Option<usize> {
    let peers = names.iter().filter_map(|name| measured.peer(name));
    let medians = peers.filter_map(|peer| Some((peer, measured.summary(peer, metric)?.median)));
    medians.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(peer, _)| peer)
}

fn times(measured: &Measured, factor: f64, other: Option<usize>, names: &[&str]) -> String {
    let name = match other {
        Some(peer) => measured.group.peers[peer].name.to_owned(),
        None => names.join(", "),
    };
    format!("≤ {factor} × {name}")
}

/// A number in three digits or so.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{part}")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        let texts = [0.456, 12.34, -123.4, 1_234_567.8].map(short);
        assert_eq!(texts, ["0.46", "12.3", "-123", "1,234,568"]);
    }
}
