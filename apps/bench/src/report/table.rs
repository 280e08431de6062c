//! Tables on the terminal.

use crate::judge::{judge, short};
use crate::runner::Measured;
use crate::stats::Summary;

/// The peer that all others are compared with.
const OURS: &str = "kevent";

/// A cell of the tables: the figures of one peer for one metric.
pub(crate) struct Cell {
    pub(crate) summary: Summary,
    /// What the peer takes for what kevent takes, by round.
    pub(crate) ratio: Option<Summary>,
}

/// The figures of a peer; `None` when it has none.
pub(crate) fn cell(measured: &Measured, peer: usize, metric: usize) -> Option<Cell> {
    let summary = measured.summary(peer, metric)?;
    let ours = measured.peer(OURS).filter(|ours| *ours != peer);
    let ratio = ours.and_then(|ours| Summary::of(measured.ratios(peer, ours, metric)));
    Some(Cell { summary, ratio })
}

impl Cell {
    /// The ratio to kevent, in words: it is said when it can't be told from one.
    pub(crate) fn ratio_text(&self) -> String {
        match &self.ratio {
            None => String::new(),
            Some(ratio) if ratio.low <= 1.0 && ratio.high >= 1.0 => {
                format!("{:.2} × (noise)", ratio.median)
            }
            Some(ratio) => format!("{:.2} ×", ratio.median),
        }
    }

    pub(crate) fn range_text(&self) -> String {
        format!("{} – {}", short(self.summary.min), short(self.summary.max))
    }
}

/// Prints one group.
pub(crate) fn print(measured: &Measured) {
    let group = &measured.group;
    println!("\n{}: {}", group.name, group.title);
    for (number, metric) in group.metrics.iter().enumerate() {
        println!("  {}, {}", metric.name, metric.unit);
        println!("    {:<28} {:>10}   {:<22} of kevent's", "", "median", "min – max");
        for (index, peer) in group.peers.iter().enumerate() {
            match cell(measured, index, number) {
                Some(cell) => println!(
                    "    {:<28} {:>10}   {:<22} {}",
                    peer.name,
                    short(cell.summary.median),
                    cell.range_text(),
                    cell.ratio_text()
                ),
                None => {
                    println!("    {:<28} {:>10}   {}", peer.name, "–", failure(measured, index))
                }
            }
        }
    }
}

/// Why a peer has no figures.
pub(crate) fn failure(measured: &Measured, peer: usize) -> &str {
    measured.failures[peer].as_deref().unwrap_or("")
}

/// Prints what became of the goals.
pub(crate) fn print_goals(results: &[Measured]) {
    println!("\nGoals");
    for measured in results {
        for goal in &measured.group.goals {
            let judgement = judge(measured, goal);
            println!(
                "  {:<16} {:<22} {:<18} {:<38} {}",
                judgement.verdict.text(),
                measured.group.name,
                format!("{}, {}", judgement.metric, judgement.who),
                judgement.limit,
                judgement.found
            );
        }
    }
}
