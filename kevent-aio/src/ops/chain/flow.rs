//! Which step of a chain is next, and what is cleaned up at its end.

use std::io;

use super::Chain;
use super::bind::Doing;
use super::report::StepResult;
use super::state::{Block, Live, Then};
use super::steps::Work;
use super::values::When;

impl Chain {
    /// The step that is next. `None` when only cleaning up is left.
    pub(super) fn next_step(&mut self) -> Option<usize> {
        while let Some(block) = self.run.blocks.last() {
            if self.run.ending || self.run.next < block.end {
                break;
            }
            match block.then {
                Then::Skip(to) => {
                    self.run.next = to;
                    self.run.blocks.pop();
                }
                Then::Repeat(at) => self.next_round(at),
            }
        }
        if self.run.ending || self.run.next >= self.steps.len() {
            self.run.ending = true;
            return None;
        }
        self.run.next += 1;
        Some(self.run.next - 1)
    }

    /// Whether the last step is done, so that nobody can end the chain any more.
    pub(super) fn is_through(&self) -> bool {
        let behind = self.run.blocks.iter().rev().try_fold(self.run.next, |next, block| {
            let Then::Skip(to) = block.then else { return None };
            (next >= block.end).then_some(to)
        });
        behind.is_some_and(|next| next >= self.steps.len())
    }

    fn next_round(&mut self, at: usize) {
        let step = &mut self.steps[at];
        let (Work::Loop { most, .. }, StepResult::Done(rounds)) =
            (&step.work, &mut step.report.result)
        else {
            return;
        };
        if *rounds < *most {
            *rounds += 1;
            step.report.runs += 1;
            self.run.next = at + 1;
            return;
        }
        let text = format!("the loop of step {at} has not ended within {most} rounds");
        self.run.blocks.pop();
        self.note(at, Err(io::Error::other(text)));
    }

    /// Does a step that only decides what comes next; `None` for one that does something.
    pub(super) fn control(&mut self, at: usize) -> Option<io::Result<u64>> {
        Some(Ok(match &self.steps[at].work {
            Work::Set { variable, value } => {
                let (index, value) = (variable.index, self.value(value));
                if let Some(variable) = self.variables.get_mut(index) {
                    *variable = value;
                }
                value
            }
            Work::Loop { end, .. } => {
                let end = *end;
                self.run.blocks.push(Block { end, then: Then::Repeat(at) });
                1
            }
            Work::Branch { condition, otherwise, end } => {
                let (holds, otherwise, end) = (self.holds(condition), *otherwise, *end);
                if holds {
                    self.run.blocks.push(Block { end: otherwise, then: Then::Skip(end) });
                } else {
                    self.run.next = otherwise;
                }
                u64::from(holds)
            }
            Work::Leave { condition } => {
                let holds = self.holds(condition);
                if holds {
                    self.leave();
                }
                u64::from(holds)
            }
            Work::Fail { condition, kind } => match self.holds(condition) {
                true => return Some(Err(io::Error::new(*kind, "the chain was to fail here"))),
                false => 0,
            },
            Work::Defer { .. } => {
                self.run.process = std::process::id();
                self.run.pending.push(at);
                0
            }
            _ => return None,
        }))
    }

    /// Goes on behind the innermost loop; there is nothing behind the chain itself.
    pub(super) fn leave(&mut self) {
        while let Some(block) = self.run.blocks.pop() {
            if matches!(block.then, Then::Repeat(_)) {
                self.run.next = block.end;
                return;
            }
        }
        self.run.ending = true;
    }

    /// What is to be cleaned up next, the last first: a file that is open and not to be kept, or what
    /// was deferred.
    pub(super) fn next_cleanup(&mut self) -> Option<Live> {
        while let Some(step) = self.run.pending.pop() {
            let doing = match &self.steps[step].work {
                Work::Defer { when, .. } => {
                    let wanted = *when == When::Always || self.run.failure.is_some();
                    if wanted { self.whole_of(step).map(Doing::Whole).ok() } else { None }
                }
                _ if self.keeps(step) => None,
                _ => self.closing(step).ok(),
            };
            if let Some(doing) = doing {
                return Some(Live { doing, step, cleanup: true });
            }
        }
        None
    }
}
