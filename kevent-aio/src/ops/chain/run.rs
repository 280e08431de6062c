//! Doing the steps of a chain, one after another, and cleaning up behind them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use io_uring::squeue::Entry;

use super::report::{StepResult, again};
use super::whole::{ReadWhole, WriteWhole};
use super::wiring::{Content, Header, HeaderKind, Span, SpanKind, Spec, StepId};
use super::{Chain, Given};
use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::payload::Payload;
use crate::ops::sendfile::{End, Sendfile};
use crate::ops::{Close, Fallocate, Fdatasync, Fsync, Open, Stat, Statx};

/// What is being done, and for which step.
pub(super) struct Live {
    doing: Doing,
    /// `None` for closing a file that no step closes.
    step: Option<usize>,
    cleanup: bool,
}

/// The operation of a step.
enum Doing {
    Open(Box<Open>),
    Statx(Statx),
    Read(ReadWhole),
    Write(WriteWhole),
    Fsync(Fsync),
    Fdatasync(Fdatasync),
    Fallocate(Fallocate),
    Send(Sendfile),
    /// Of the file which that step has opened.
    Close(Close, usize),
}

impl Doing {
    fn operation(&mut self) -> &mut dyn Operation {
        match self {
            Doing::Open(op) => op.as_mut(),
            Doing::Statx(op) => op,
            Doing::Read(op) => op,
            Doing::Write(op) => op,
            Doing::Fsync(op) => op,
            Doing::Fdatasync(op) => op,
            Doing::Fallocate(op) => op,
            Doing::Send(op) => op,
            Doing::Close(op, _) => op,
        }
    }
}

impl Operation for Chain {
    fn check(&self) -> io::Result<()> {
        let refuse = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.begun {
            return refuse("a chain runs once: build another");
        }
        if let Some(mistake) = &self.mistake {
            return refuse(mistake);
        }
        self.steps.iter().try_for_each(|step| match &step.spec {
            Spec::Open(open) => open.check(),
            _ => Ok(()),
        })
    }

    fn advance(&mut self) -> Step {
        if !self.begun {
            if let Err(error) = self.check() {
                return Step::Done(Err(error));
            }
            self.begun = true;
        }
        let step = match &mut self.live {
            Some(live) => Some(live.doing.operation().advance()),
            None => self.begin(),
        };
        self.follow(step)
    }

    fn encode(&mut self) -> Option<Entry> {
        self.live.as_mut()?.doing.operation().encode()
    }

    fn run(&mut self) -> Outcome {
        self.live.as_mut().map_or(Ok(0), |live| live.doing.operation().run())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        let step = self.live.as_mut().map(|live| live.doing.operation().complete(outcome));
        self.follow(step)
    }

    fn abort(&mut self, reason: io::Error) -> Step {
        self.begun = true;
        let step = match &mut self.live {
            // Already cleaning up, and nothing but that is left to be done.
            Some(live) if live.cleanup => return Step::Run,
            Some(live) => Some(live.doing.operation().abort(reason)),
            None => {
                self.failure.get_or_insert(reason);
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
    /// Does step after step, as long as none has to wait.
    fn follow(&mut self, mut step: Option<Step>) -> Step {
        loop {
            match step {
                None => return Step::Done(self.failure.take().map_or(Ok(self.moved), Err)),
                Some(Step::Done(result)) => {
                    if let Some(live) = self.live.take() {
                        self.end(*live, result);
                    }
                    step = self.begin();
                }
                Some(wait) => return wait,
            }
        }
    }

    /// Begins the next step or, when there is none or one has failed, the next clean-up. `None` when
    /// nothing is left to be done.
    fn begin(&mut self) -> Option<Step> {
        let step = self.next;
        let live = if self.failure.is_none() && step < self.steps.len() {
            self.next += 1;
            match self.bind(step) {
                Ok(doing) => Live { doing, step: Some(step), cleanup: false },
                Err(error) => {
                    self.note(Some(step), false, Err(error));
                    self.clean_up()?
                }
            }
        } else {
            self.clean_up()?
        };
        Some(self.live.insert(Box::new(live)).doing.operation().advance())
    }

    /// The closing of a file that is still open and not to be kept.
    fn clean_up(&mut self) -> Option<Live> {
        let (file, closer) = self.steps.iter().enumerate().find_map(|(index, step)| {
            let Given::File(file) = &step.given else { return None };
            (file.fd.is_some() && !file.keep).then_some((index, file.closer))
        })?;
        let doing = self.closing(file).ok()?;
        Some(Live { doing, step: closer, cleanup: true })
    }

    /// What an operation has come to: keeps what it gives, and how it went.
    fn end(&mut self, live: Live, mut result: io::Result<u64>) {
        let mut given = None;
        match live.doing {
            Doing::Open(mut open) => {
                let file = live.step.and_then(|step| self.open_file(step));
                if let (Some(file), Some(fd)) = (file, open.take()) {
                    file.fd = Some(Arc::new(fd));
                }
            }
            Doing::Statx(statx) => given = statx.stat().map(Given::Stat),
            Doing::Read(read) => {
                let data = read.into_data();
                self.moved += data.len() as u64;
                given = Some(Given::Data(data));
            }
            Doing::Write(write) => self.moved += write.written(),
            Doing::Send(send) => {
                self.moved += send.sent().total();
                given = Some(Given::Sent(send.sent()));
                if send.end() == Some(End::FileEnded) {
                    let text = "the file ended before the range did";
                    result = Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
            }
            Doing::Close(mut close, step) => {
                // Cancelled before it was closed: that is left to the clean-up. If even that could
                // not close it, `close` does so when it is dropped here.
                if let (false, Some(file)) = (live.cleanup, self.open_file(step)) {
                    file.fd = close.take().map(Arc::new);
                }
            }
            Doing::Fsync(_) | Doing::Fdatasync(_) | Doing::Fallocate(_) => {}
        }
        if let (Some(given), Some(step)) = (given, live.step) {
            self.steps[step].given = given;
        }
        self.note(live.step, live.cleanup, result);
    }

    /// Writes into the report how a step went. Its failure is that of the chain, unless it was to clean
    /// up.
    fn note(&mut self, step: Option<usize>, cleanup: bool, result: io::Result<u64>) {
        let result = match result {
            Ok(count) => StepResult::Done(count),
            Err(error) => {
                let told = again(&error);
                if !cleanup {
                    self.failure.get_or_insert(error);
                }
                StepResult::Failed(told)
            }
        };
        let Some(report) = step.map(|step| &mut self.steps[step].report) else {
            return;
        };
        // A close step that was cancelled stays the step that failed.
        if let StepResult::NotRun = report.result {
            report.cleanup = cleanup;
            report.result = result;
        }
    }
}

/// Making the operation of a step out of what the steps before have given.
impl Chain {
    fn bind(&mut self, step: usize) -> io::Result<Doing> {
        Ok(match std::mem::replace(&mut self.steps[step].spec, Spec::Begun) {
            Spec::Open(open) => Doing::Open(open),
            Spec::Statx { file } => Doing::Statx(Statx::of(self.file(file)?)),
            Spec::Read { file, offset, length } => {
                Doing::Read(ReadWhole::new(self.file(file)?, offset, length))
            }
            Spec::Write { file, offset, content } => {
                let content = self.content(content)?;
                let write = WriteWhole::new(self.file(file)?, offset, content);
                write.check()?;
                Doing::Write(write)
            }
            Spec::Fsync { file } => Doing::Fsync(Fsync::new(self.file(file)?)),
            Spec::Fdatasync { file } => Doing::Fdatasync(Fdatasync::new(self.file(file)?)),
            Spec::Fallocate { file, offset, length } => {
                Doing::Fallocate(Fallocate::new(self.file(file)?, offset, length))
            }
            Spec::Sendfile { socket, file, span, header } => {
                let ((offset, length), header) = (self.span(span)?, self.header(header)?);
                let send = Sendfile::new(socket, self.file(file)?, offset, length).header(header);
                send.check()?;
                Doing::Send(send)
            }
            Spec::Send { socket, bytes } => Doing::Send(Sendfile::bytes(socket, bytes)),
            Spec::Close { file } => self.closing(file)?,
            Spec::Begun => return Err(missing()),
        })
    }

    fn file(&mut self, step: usize) -> io::Result<Fd> {
        let file = self.open_file(step).and_then(|file| file.fd.clone()).ok_or_else(missing)?;
        Ok(file)
    }

    /// Takes the file from its step. Nobody shares it any more: the operations that did were dropped
    /// when their steps ended.
    fn closing(&mut self, step: usize) -> io::Result<Doing> {
        let fd = self.open_file(step).and_then(|file| file.fd.take()).and_then(Arc::into_inner);
        Ok(Doing::Close(Close::new(fd.ok_or_else(missing)?), step))
    }

    fn span(&self, span: Span) -> io::Result<(u64, u64)> {
        Ok(match span.0 {
            SpanKind::Known { offset, length } => (offset, length),
            SpanKind::FromStat(stat, choose) => {
                let range = choose(&self.found(stat)?);
                (range.start, range.end.saturating_sub(range.start))
            }
        })
    }

    fn header(&self, header: Header) -> io::Result<Payload> {
        Ok(match header.0 {
            HeaderKind::Known(bytes) => bytes,
            HeaderKind::FromStat(stat, write) => write(&self.found(stat)?),
        })
    }

    fn content(&self, content: Content) -> io::Result<Vec<u8>> {
        match content {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Of(step) => self.data(step).map(<[u8]>::to_vec).ok_or_else(missing),
        }
    }

    fn found(&self, step: StepId<Stat>) -> io::Result<Stat> {
        self.stat(step).ok_or_else(missing)
    }
}

/// No chain that `check` has passed comes to this: a step runs when all before it have succeeded.
fn missing() -> io::Error {
    io::Error::other("a step of the chain lacks what an earlier one was to give")
}
