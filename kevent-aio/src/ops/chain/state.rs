//! How far a chain is, while it runs and behind that.

use std::io;

use super::bind::Doing;
use super::report::CleanupReport;

/// How far a chain is.
#[derive(Default)]
pub(super) struct Run {
    pub(super) begun: bool,
    /// The step to begin next.
    pub(super) next: usize,
    /// The blocks that it stands in, the innermost last.
    pub(super) blocks: Vec<Block>,
    pub(super) live: Option<Live>,
    /// Nothing but clean-ups is left to be done.
    pub(super) ending: bool,
    /// What is to be cleaned up: of which step, the last first.
    pub(super) pending: Vec<usize>,
    /// The process that is to do what was deferred.
    pub(super) process: u32,
    pub(super) cleaned: Vec<CleanupReport>,
    pub(super) moved: u64,
    pub(super) failure: Option<io::Error>,
    pub(super) failed: Option<usize>,
}

/// What is being done, and for which step.
pub(super) struct Live {
    pub(super) doing: Doing,
    pub(super) step: usize,
    pub(super) cleanup: bool,
}

/// Steps that belong together, up to `end`, and what comes behind them.
pub(super) struct Block {
    pub(super) end: usize,
    pub(super) then: Then,
}

pub(super) enum Then {
    /// The loop of that step, once more.
    Repeat(usize),
    /// The step behind the branch.
    Skip(usize),
}
