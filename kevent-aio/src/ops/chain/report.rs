//! What became of each step.

use std::io;

/// One line of a chain's report.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// What the step was to do.
    pub kind: StepKind,
    /// What became of it.
    pub result: StepResult,
    /// It was done to clean up, after another step had failed or the chain had been cancelled.
    pub cleanup: bool,
}

/// What a step of a chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // Named after the functions of `Chain` that add them.
pub enum StepKind {
    Open,
    Statx,
    Read,
    Write,
    Fsync,
    Fdatasync,
    Fallocate,
    Sendfile,
    Send,
    Close,
}

/// What became of a step of a chain.
#[derive(Debug)]
pub enum StepResult {
    /// The chain has not come to it.
    NotRun,
    /// It succeeded. The number is the bytes that it moved; 0 for those that move none.
    Done(u64),
    /// It failed, or was cancelled. That ended the chain, unless it was done to clean up.
    Failed(io::Error),
}

impl StepReport {
    pub(super) fn new(kind: StepKind) -> StepReport {
        StepReport { kind, result: StepResult::NotRun, cleanup: false }
    }
}

/// The same error once more: for the report, and for the completion.
pub(super) fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
