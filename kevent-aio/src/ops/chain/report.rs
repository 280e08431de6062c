//! What became of each step.

use std::io;

/// One line of a chain's report.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// What the step was to do: the name of the operation, or `Loop`, `Branch`, `Set` and so on.
    pub name: &'static str,
    /// How often it ran; of a loop, how many rounds it was begun for.
    pub runs: u64,
    /// The bytes that it moved in all its runs, if it reads, writes or sends.
    pub moved: u64,
    /// What became of it when it ran last.
    pub result: StepResult,
}

/// What became of a step of a chain.
#[derive(Debug)]
pub enum StepResult {
    /// The chain has not come to it.
    NotRun,
    /// It succeeded, and counted that: see [`StepId::count`](crate::StepId::count).
    Done(u64),
    /// It failed, or was cancelled. That ended the chain, unless the step [never](crate::Stop::Never) does.
    Failed(io::Error),
}

/// A clean-up that was done.
#[derive(Debug)]
#[non_exhaustive]
pub struct CleanupReport {
    /// The step it belongs to: the one that opened the file which was closed, or that which
    /// [deferred](crate::Chain::defer) the operation.
    pub step: usize,
    /// How it went. It fails no chain.
    pub result: io::Result<u64>,
}

impl StepReport {
    pub(super) fn new(name: &'static str) -> StepReport {
        StepReport { name, runs: 0, moved: 0, result: StepResult::NotRun }
    }
}

impl StepResult {
    pub(super) fn of(result: &io::Result<u64>) -> StepResult {
        match result {
            Ok(count) => StepResult::Done(*count),
            Err(error) => StepResult::Failed(again(error)),
        }
    }
}

/// The same error once more: for the report, and for the completion.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
