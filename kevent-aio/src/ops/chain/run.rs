//! Doing the steps of a chain, one after another, and cleaning up behind them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;

use super::bind::{Doing, is_for_a_thread};
use super::check::check;
use super::report::{CleanupReport, StepResult};
use super::state::Live;
use super::steps::Work;
use super::transform::{Lent, Transforming};
use super::values::Stop;
use super::{Chain, Given};
use crate::operation::{Operation, Outcome, Side, Step};
use crate::ops::sendfile::{End, Sendfile};
use crate::ops::{Close, Op, window};

/// So long a thread of the pool begins with further steps. Only in between it is seen that the chain is to
/// end early.
const ON_THREAD: Duration = Duration::from_millis(1);

/// So many steps that don't block are done in a row; others are to have their turn.
const STEPS_IN_A_ROW: u32 = 64;

impl Operation for Chain {
    fn check(&self) -> io::Result<()> {
        let refuse = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.run.begun {
            return refuse("a chain runs once: build another, or renew it".to_owned());
        }
        if self.run.checked {
            return Ok(());
        }
        check(self).or_else(refuse)
    }

    fn advance(&mut self) -> Step {
        // What was not found to be right is never begun.
        (self.run.begun, self.run.checked) = (true, true);
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

    /// Goes on with steps that are for a thread, each of which would otherwise be handed to one and back:
    /// to make a small file, to write it and to close it takes no longer than that.
    fn go_on(&mut self, outcome: Outcome) -> Option<Outcome> {
        let since = *self.run.on_thread.get_or_insert_with(Instant::now);
        let step = self.complete(outcome);
        let stays = self.run.live.as_ref().is_some_and(|live| live.doing.is_for_a_thread());
        if stays && matches!(step, Step::Run) && since.elapsed() < ON_THREAD {
            return None;
        }
        self.run.on_thread = None;
        self.run.come_to = Some(step);
        Some(Ok(0))
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        if let Some(step) = self.run.come_to.take() {
            return step;
        }
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

    fn waits_for(&self) -> Option<Side> {
        self.run.live.as_ref()?.doing.waits_for()
    }

    fn waits_at(&self, side: Side) -> Option<BorrowedFd<'_>> {
        self.run.live.as_ref()?.doing.waits_at(side)
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
                    let much = steps >= STEPS_IN_A_ROW || self.run.moved - moved >= window::TURN;
                    if much && !self.is_through() {
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
            if self.run.on_thread.is_some() && !self.begins_on_a_thread(at) {
                self.run.next = at;
                return Some(Step::Again);
            }
            return Some(self.begin_step(at));
        }
        let live = self.next_cleanup()?;
        Some(self.run.live.insert(live).doing.advance())
    }

    /// Whether a thread of the pool may begin with the step. What goes to a socket is for the engine,
    /// which knows whose turn it is there; and what the user's own code makes of a header, too.
    fn begins_on_a_thread(&self, at: usize) -> bool {
        match &self.steps[at].work {
            Work::Whole { op: Some(op), .. } => is_for_a_thread(op),
            Work::Sendfile { .. } | Work::Send { .. } => false,
            _ => true,
        }
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
        let Live { doing, step, cleanup } = live;
        if cleanup {
            if let Doing::Whole(op) = doing {
                self.own(step, op);
            }
            self.run.cleaned.push(CleanupReport { step, result });
            return;
        }
        let result = self.settle(step, doing, result);
        self.note(step, result);
    }

    /// Keeps what an operation gives; what was lent to it goes back. Says how it went.
    fn settle(&mut self, at: usize, doing: Doing, result: io::Result<u64>) -> io::Result<u64> {
        match doing {
            Doing::Whole(op) => self.take_back(at, op),
            Doing::Made(Op::Statx(statx)) => {
                if let Some(stat) = statx.stat() {
                    self.give(at, Given::Stat(stat));
                }
            }
            Doing::Made(Op::Sendfile(send)) => {
                self.add_moved(at, send.sent().total());
                self.give(at, Given::Sent(send.sent()));
                return self.sent_all(at, &send, result);
            }
            Doing::Made(Op::CopyRange(copy)) => self.add_moved(at, copy.copied()),
            Doing::Made(Op::ReadDir(read)) => self.give(at, Given::Data(read.into_buffer())),
            Doing::Made(Op::Recv(recv)) => {
                let data = recv.into_buffer();
                self.add_moved(at, data.len() as u64);
                self.give(at, Given::Data(data));
            }
            Doing::Made(_) => {}
            Doing::Read(read) => {
                let data = read.into_data();
                self.add_moved(at, data.len() as u64);
                self.give(at, Given::Data(data));
            }
            Doing::Write(write, from) => {
                self.add_moved(at, write.written());
                self.give(from, Given::Data(write.into_bytes()));
            }
            Doing::Transform(transforming, stream) => {
                let Transforming { stream: taken, input, output, .. } = transforming;
                self.streams[stream] = Some(taken);
                if let Some(Lent { step, bytes }) = input {
                    self.give(step, Given::Data(bytes));
                }
                self.give(at, Given::Data(output));
            }
            Doing::Close(close, file) => self.closed(close, file),
        }
        result
    }

    fn add_moved(&mut self, at: usize, bytes: u64) {
        self.steps[at].report.moved += bytes;
        self.run.moved += bytes;
    }

    /// An operation that a step owns is over.
    fn take_back(&mut self, at: usize, mut op: Box<Op>) {
        if let Some(file) = self.open_file(at) {
            let opened = match op.as_mut() {
                Op::Open(open) => open.take(),
                Op::Accept(accept) => accept.take(),
                _ => None,
            };
            if let Some(fd) = opened {
                file.fd = Some(Arc::new(fd));
                self.run.pending.push(at);
            }
        }
        self.own(at, op);
    }

    fn closed(&mut self, mut close: Close, file: usize) {
        let fd = close.take().map(Arc::new);
        // Cancelled before it was closed: that is left to the clean-up.
        if fd.is_none() {
            self.run.pending.retain(|pending| *pending != file);
        }
        if let Some(file) = self.open_file(file) {
            file.fd = fd;
        }
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
    pub(super) fn note(&mut self, at: usize, result: io::Result<u64>) {
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
            (
                Stop::Short,
                Work::Read { length, .. }
                | Work::Recv { length, .. }
                | Work::Between { length, .. },
            ) => count < self.value(length),
            (Stop::Short, Work::Sendfile { span, .. }) => {
                let Given::Sent(sent) = &step.given else { return false };
                sent.body < self.value(&span.length)
            }
            _ => false,
        }
    }
}
