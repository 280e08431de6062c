//! Doing the steps of a chain, one after another, and cleaning up behind them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use io_uring::squeue::Entry;

use super::bind::Doing;
use super::check::check;
use super::report::{CleanupReport, StepResult};
use super::steps::Work;
use super::transform::{Lent, Transforming};
use super::values::{Stop, When};
use super::{Chain, Given};
use crate::operation::{Operation, Outcome, Step};
use crate::ops::sendfile::{End, Sendfile};
use crate::ops::{Op, window};

/// So many steps that don't block are done in a row; others are to have their turn.
const STEPS_IN_A_ROW: u32 = 64;

/// How far a chain is.
#[derive(Default)]
pub(super) struct Run {
    begun: bool,
    /// The step to begin next.
    next: usize,
    /// The blocks that it stands in, the innermost last.
    blocks: Vec<Block>,
    pub(super) live: Option<Live>,
    /// Nothing but clean-ups is left to be done.
    ending: bool,
    /// What is to be cleaned up: of which step, the last first.
    pending: Vec<usize>,
    pub(super) cleaned: Vec<CleanupReport>,
    pub(super) moved: u64,
    failure: Option<io::Error>,
    pub(super) failed: Option<usize>,
}

/// What is being done, and for which step.
pub(super) struct Live {
    pub(super) doing: Doing,
    pub(super) step: usize,
    pub(super) cleanup: bool,
}

/// Steps that belong together, up to `end`, and what comes behind them.
struct Block {
    end: usize,
    then: Then,
}

enum Then {
    /// The loop of that step, once more.
    Repeat(usize),
    /// The step behind the branch.
    Skip(usize),
}

impl Operation for Chain {
    fn check(&self) -> io::Result<()> {
        let refuse = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.run.begun {
            return refuse("a chain runs once: build another".to_owned());
        }
        check(self).or_else(refuse)
    }

    fn advance(&mut self) -> Step {
        self.run.begun = true;
        let step = match &mut self.run.live {
            Some(live) => Some(live.doing.advance()),
            None => self.begin(),
        };
        self.follow(step)
    }

    fn encode(&mut self) -> Option<Entry> {
        self.run.live.as_mut()?.doing.encode()
    }

    fn run(&mut self) -> Outcome {
        self.run.live.as_mut().map_or(Ok(0), |live| live.doing.run())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        let step = self.run.live.as_mut().map(|live| live.doing.complete(outcome));
        self.follow(step)
    }

    fn abort(&mut self, reason: io::Error) -> Step {
        self.run.begun = true;
        let step = match &mut self.run.live {
            // Nothing but that is left to be done, and it is not given up.
            Some(live) if live.cleanup => return Step::Run,
            Some(live) => {
                self.run.ending = true;
                Some(live.doing.abort(reason))
            }
            None => {
                if !self.run.ending {
                    self.run.ending = true;
                    self.run.failure = Some(reason);
                }
                self.begin()
            }
        };
        self.follow(step)
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(|socket| socket.as_fd())
    }
}

impl Chain {
    /// Whether what a backend is given now answers with a count of bytes.
    pub(crate) fn counts_bytes(&self) -> bool {
        self.run.live.as_ref().is_some_and(|live| live.doing.counts_bytes())
    }

    /// Does step after step, as long as none has to wait and it is this chain's turn.
    fn follow(&mut self, mut step: Option<Step>) -> Step {
        let (mut steps, moved) = (0, self.run.moved);
        loop {
            match step {
                None => return self.over(),
                Some(Step::Done(result)) => {
                    if let Some(live) = self.run.live.take() {
                        self.end(live, result);
                    }
                    steps += 1;
                    if steps >= STEPS_IN_A_ROW || self.run.moved - moved >= window::TURN {
                        return Step::Again;
                    }
                    step = self.begin();
                }
                Some(wait) => return wait,
            }
        }
    }

    /// The end of the whole chain.
    fn over(&mut self) -> Step {
        Step::Done(self.run.failure.take().map_or(Ok(self.run.moved), Err))
    }

    /// Begins the next step or, when there is none or one has failed, the next clean-up. `None` when
    /// nothing is left to be done.
    fn begin(&mut self) -> Option<Step> {
        if let Some(at) = self.next_step() {
            return Some(self.begin_step(at));
        }
        let live = self.next_cleanup()?;
        Some(self.run.live.insert(live).doing.advance())
    }

    fn begin_step(&mut self, at: usize) -> Step {
        self.steps[at].report.runs += 1;
        if let Some(result) = self.control(at) {
            self.note(at, result);
            return Step::Done(Ok(0));
        }
        match self.bind(at) {
            Ok(doing) => {
                let live = self.run.live.insert(Live { doing, step: at, cleanup: false });
                live.doing.check().map_or_else(|e| Step::Done(Err(e)), |()| live.doing.advance())
            }
            Err(error) => {
                self.note(at, Err(error));
                Step::Done(Ok(0))
            }
        }
    }

    /// What an operation has come to: keeps what it gives, and how it went.
    fn end(&mut self, live: Live, result: io::Result<u64>) {
        if live.cleanup {
            self.run.cleaned.push(CleanupReport { step: live.step, result });
            return;
        }
        let (given, moved, result) = self.take_apart(live.step, live.doing, result);
        let step = &mut self.steps[live.step];
        if let Some(given) = given {
            step.given = given;
        }
        step.report.moved += moved;
        self.run.moved += moved;
        self.note(live.step, result);
    }

    /// What an operation gives, how many bytes it has moved, and its result. What was lent to it goes
    /// back.
    fn take_apart(
        &mut self,
        at: usize,
        doing: Doing,
        result: io::Result<u64>,
    ) -> (Option<Given>, u64, io::Result<u64>) {
        match doing {
            Doing::Whole(mut op) => {
                if let Op::Open(open) = op.as_mut() {
                    if let (Some(file), Some(fd)) = (self.open_file(at), open.take()) {
                        file.fd = Some(Arc::new(fd));
                        self.run.pending.push(at);
                    }
                }
                self.own(at, op);
            }
            Doing::Made(Op::Statx(statx)) => return (statx.stat().map(Given::Stat), 0, result),
            Doing::Made(Op::Sendfile(send)) => {
                let (sent, result) = (send.sent(), self.sent_all(at, &send, result));
                return (Some(Given::Sent(sent)), sent.total(), result);
            }
            Doing::Made(Op::CopyRange(copy)) => return (None, copy.copied(), result),
            Doing::Made(Op::ReadDir(read)) => {
                return (Some(Given::Data(read.into_buffer())), 0, result);
            }
            Doing::Made(_) => {}
            Doing::Read(read) => {
                let data = read.into_data();
                let moved = data.len() as u64;
                return (Some(Given::Data(data)), moved, result);
            }
            Doing::Write(write, from) => {
                let moved = write.written();
                self.steps[from].given = Given::Data(write.into_bytes());
                return (None, moved, result);
            }
            Doing::Transform(transforming, stream) => {
                let Transforming { stream: taken, input, output, .. } = transforming;
                self.streams[stream] = Some(taken);
                if let Some(Lent { step, bytes }) = input {
                    self.steps[step].given = Given::Data(bytes);
                }
                return (Some(Given::Data(output)), 0, result);
            }
            Doing::Close(mut close, file) => {
                let fd = close.take().map(Arc::new);
                // Cancelled before it was closed: that is left to the clean-up.
                if fd.is_none() {
                    self.run.pending.retain(|pending| *pending != file);
                }
                if let Some(file) = self.open_file(file) {
                    file.fd = fd;
                }
            }
        }
        (None, 0, result)
    }

    /// A file that ended before its range did is a failure, unless the step stops at that.
    fn sent_all(&self, at: usize, send: &Sendfile, result: io::Result<u64>) -> io::Result<u64> {
        if send.end() != Some(End::FileEnded) || self.steps[at].stop == Stop::Short {
            return result;
        }
        let text = "the file ended before the range did";
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }

    /// Writes into the report how a step went, and draws the consequences.
    fn note(&mut self, at: usize, result: io::Result<u64>) {
        let stop = self.steps[at].stop;
        self.steps[at].report.result = StepResult::of(&result);
        match result {
            // A chain that is to end ends here, also at a step that never stops.
            Err(error) if stop != Stop::Never || self.run.ending => {
                self.run.ending = true;
                self.run.failed = Some(at);
                self.run.failure = Some(error);
            }
            Ok(count) if self.stops(at, count) => self.leave(),
            _ => {}
        }
    }

    /// Whether the count makes the step the last of its loop.
    fn stops(&self, at: usize, count: u64) -> bool {
        let step = &self.steps[at];
        match (step.stop, &step.work) {
            (Stop::Zero, _) => count == 0,
            (Stop::Short, Work::Read { length, .. } | Work::Between { length, .. }) => {
                count < self.value(length)
            }
            (Stop::Short, Work::Sendfile { span, .. }) => {
                let Given::Sent(sent) = &step.given else { return false };
                sent.body < self.value(&span.length)
            }
            _ => false,
        }
    }
}

/// The order of the steps.
impl Chain {
    /// The step that is next. `None` when only cleaning up is left.
    fn next_step(&mut self) -> Option<usize> {
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
    fn control(&mut self, at: usize) -> Option<io::Result<u64>> {
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
                self.run.pending.push(at);
                0
            }
            _ => return None,
        }))
    }

    /// Goes on behind the innermost loop; there is nothing behind the chain itself.
    fn leave(&mut self) {
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
    fn next_cleanup(&mut self) -> Option<Live> {
        while let Some(step) = self.run.pending.pop() {
            let doing = match &self.steps[step].work {
                Work::Defer { when, .. } => {
                    let wanted = *when == When::Always || self.run.failure.is_some();
                    if wanted { self.whole(step).map(Doing::Whole) } else { None }
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
