//! How far a chain is, while it runs and behind that.

use std::io;
use std::time::Instant;

use super::bind::Doing;
use super::report::CleanupReport;
use crate::operation::Step;

/// How far a chain is.
#[derive(Default)]
pub(super) struct Run {
    pub(super) begun: bool,
    /// The chain was found to be right, and has not changed since.
    pub(super) checked: bool,
    /// What the variables are when it begins.
    pub(super) starts: Vec<u64>,
    /// The step to begin next.
    pub(super) next: usize,
    /// The blocks that it stands in, the innermost last.
    pub(super) blocks: Vec<Block>,
    pub(super) live: Option<Live>,
    /// Since when a thread of the pool has it, and does more than the step that it was given for.
    pub(super) on_thread: Option<Instant>,
    /// What it has come to there.
    pub(super) come_to: Option<Step>,
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

impl Run {
    /// From the beginning, with the memory that it has.
    pub(super) fn renew(&mut self) {
        let Run { starts, mut blocks, mut pending, mut cleaned, checked, .. } =
            std::mem::take(self);
        blocks.clear();
        pending.clear();
        cleaned.clear();
        *self = Run { starts, blocks, pending, cleaned, checked, ..Run::default() };
    }
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
