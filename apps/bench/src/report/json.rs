//! `results.jsonl`: the machine, every round as it was measured, and what became of the goals.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::json;

use crate::group::Result;
use crate::judge::judge;
use crate::machine::Machine;
use crate::runner::Measured;

/// Writes one JSON object a line, each with a `kind`.
pub(crate) fn write(path: &Path, machine: &Machine, results: &[Measured]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "{}", json!({ "kind": "machine", "machine": machine }))?;
    for measured in results {
        for (index, peer) in measured.group.peers.iter().enumerate() {
            for (number, metric) in measured.group.metrics.iter().enumerate() {
                let line = json!({
                    "kind": "rounds",
                    "group": measured.group.name,
                    "peer": peer.name,
                    "metric": metric.name,
                    "unit": metric.unit,
                    "values": measured.series(index, number),
                    "failure": measured.failures[index],
                });
                writeln!(file, "{line}")?;
            }
        }
        for goal in &measured.group.goals {
            let judgement = judge(measured, goal);
            let line = json!({
                "kind": "goal",
                "group": measured.group.name,
                "peer": judgement.who,
                "metric": judgement.metric,
                "limit": judgement.limit,
                "found": judgement.found,
                "verdict": judgement.verdict.text(),
            });
            writeln!(file, "{line}")?;
        }
    }
    Ok(file.flush()?)
}
