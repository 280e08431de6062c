//! Chains: several operations, one submission, one completion.
//!
//! The steps are data. The chain is an operation that does whichever step it has come to, so it runs
//! on every backend, and inline while nothing blocks.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use crate::operation::Fd;
use crate::ops::payload::Payload;
use crate::ops::sendfile::{Sendfile, Sent};
use crate::ops::{Open, Stat, check_range};

mod report;
mod run;
mod whole;
mod wiring;

pub use report::{StepKind, StepReport, StepResult};
pub use wiring::{Content, Data, Effect, Header, Opened, Span, StepId};

use run::Live;
use wiring::Spec;

/// Steps that are done one after another: submitted together, completed together.
///
/// Each function adds a step and gives a handle by which later steps name its result. The first step
/// that fails ends the chain; the completion has its error, and the [report](Chain::report) says which
/// it was and what became of each.
///
/// A file that the chain has opened is closed exactly once, whatever happens: by its
/// [close](Chain::close) step, by that step done to clean up when the chain ends early, or at the
/// end when there is none. One that is to be [kept](Chain::keep) is handed over instead, also by a
/// chain that failed.
///
/// The result is the number of bytes moved: the sum over the steps that read, write and send. A chain
/// that sends has its place among the transfers to that socket from its first step on.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Chain, Fd, Header, Op, Open, Span};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// # let dir = tempfile::tempdir()?;
/// # std::fs::write(dir.path().join("index.html"), "<p>Hello")?;
/// let root: Fd = Arc::new(std::fs::File::open(dir.path())?);
/// let (ours, theirs) = UnixStream::pair()?;
/// ours.set_nonblocking(true)?;
///
/// let mut chain = Chain::new();
/// let file = chain.open(Open::new("index.html").at(root).beneath());
/// let stat = chain.statx(file);
/// let length = Header::from_stat(stat, |stat| format!("Content-Length: {}\r\n\r\n", stat.size));
/// chain.sendfile(Arc::new(ours), file, Span::whole(stat), length);
/// chain.close(file);
/// queue[aio].submit(chain, 1).unwrap();
///
/// queue.wait(None)?;
/// let completion = queue.next().unwrap();
/// assert_eq!(completion.result?, 29);
/// let Op::Chain(chain) = *completion.op else { unreachable!() };
/// assert_eq!(chain.report().len(), 4);
/// # drop(chain);
/// assert_eq!(std::io::read_to_string(theirs)?, "Content-Length: 8\r\n\r\n<p>Hello");
/// # std::io::Result::Ok(())
/// ```
pub struct Chain {
    number: u64,
    steps: Vec<StepState>,
    socket: Option<Fd>,
    /// The first mistake that was made in building it.
    mistake: Option<String>,
    begun: bool,
    /// The step to begin next; the end of `steps` once it only cleans up.
    next: usize,
    live: Option<Box<Live>>,
    moved: u64,
    failure: Option<io::Error>,
}

/// A step, with what it has given.
struct StepState {
    spec: Spec,
    report: StepReport,
    given: Given,
}

enum Given {
    Nothing,
    File(OpenFile),
    Stat(Stat),
    Data(Vec<u8>),
    Sent(Sent),
}

/// The file of a step that opens.
struct OpenFile {
    /// `None` before it is opened and after it has left: closed, or handed over.
    fd: Option<Arc<OwnedFd>>,
    /// The step that closes it.
    closer: Option<usize>,
    keep: bool,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain::new()
    }
}

/// Building.
impl Chain {
    /// A chain without steps.
    #[must_use]
    pub fn new() -> Chain {
        Chain {
            number: wiring::chain_number(),
            steps: Vec::new(),
            socket: None,
            mistake: None,
            begun: false,
            next: 0,
            live: None,
            moved: 0,
            failure: None,
        }
    }

    /// Opens a file.
    pub fn open(&mut self, open: Open) -> StepId<Opened> {
        let id = self.add(StepKind::Open, Spec::Open(Box::new(open)));
        let file = OpenFile { fd: None, closer: None, keep: false };
        if let Some(step) = self.steps.last_mut() {
            step.given = Given::File(file);
        }
        id
    }

    /// Asks for the file's metadata.
    pub fn statx(&mut self, file: StepId<Opened>) -> StepId<Stat> {
        let file = self.use_file(file);
        self.add(StepKind::Statx, Spec::Statx { file })
    }

    /// Reads `length` bytes, or as many as there are up to the end of the file.
    pub fn read(&mut self, file: StepId<Opened>, offset: u64, length: usize) -> StepId<Data> {
        let file = self.use_file(file);
        self.check_range(offset, length as u64);
        self.add(StepKind::Read, Spec::Read { file, offset, length })
    }

    /// Writes all of it: bytes, or what an earlier step has read.
    pub fn write(
        &mut self,
        file: StepId<Opened>,
        offset: u64,
        content: impl Into<Content>,
    ) -> StepId<Effect> {
        let file = self.use_file(file);
        let content = content.into();
        match &content {
            Content::Of(step) => self.use_step(*step),
            Content::Bytes(bytes) => self.check_range(offset, bytes.len() as u64),
        }
        self.add(StepKind::Write, Spec::Write { file, offset, content })
    }

    /// Brings the file to stable storage.
    pub fn fsync(&mut self, file: StepId<Opened>) -> StepId<Effect> {
        let file = self.use_file(file);
        self.add(StepKind::Fsync, Spec::Fsync { file })
    }

    /// Brings the file's data to stable storage.
    pub fn fdatasync(&mut self, file: StepId<Opened>) -> StepId<Effect> {
        let file = self.use_file(file);
        self.add(StepKind::Fdatasync, Spec::Fdatasync { file })
    }

    /// Sets space aside for the range.
    pub fn fallocate(&mut self, file: StepId<Opened>, offset: u64, length: u64) -> StepId<Effect> {
        let file = self.use_file(file);
        self.check_range(offset, length);
        self.add(StepKind::Fallocate, Spec::Fallocate { file, offset, length })
    }

    /// Sends a header and a part of the file, as [`Sendfile`]. A file that is shorter than the part
    /// fails the step, with `UnexpectedEof`: what a later step would send is not what the receiver
    /// expects at that place.
    ///
    /// All that one chain sends goes to the same socket.
    pub fn sendfile(
        &mut self,
        socket: Fd,
        file: StepId<Opened>,
        span: Span,
        header: Header,
    ) -> StepId<Sent> {
        let file = self.use_file(file);
        self.use_socket(&socket);
        if let wiring::SpanKind::FromStat(stat, _) = &span.0 {
            self.use_step(*stat);
        }
        if let wiring::HeaderKind::FromStat(stat, _) = &header.0 {
            self.use_step(*stat);
        }
        self.add(StepKind::Sendfile, Spec::Sendfile { socket, file, span, header })
    }

    /// Sends bytes: what belongs between or behind files.
    pub fn send(&mut self, socket: Fd, bytes: impl Into<Payload>) -> StepId<Sent> {
        self.use_socket(&socket);
        self.add(StepKind::Send, Spec::Send { socket, bytes: bytes.into() })
    }

    /// Closes the file. No step behind may use it.
    pub fn close(&mut self, file: StepId<Opened>) -> StepId<Effect> {
        let file = self.use_file(file);
        let closer = self.steps.len();
        if let Some(open) = self.open_file(file) {
            open.closer = Some(closer);
            if open.keep {
                self.mistaken("closes a file that is to be kept");
            }
        }
        self.add(StepKind::Close, Spec::Close { file })
    }

    /// Keeps the file open when the chain is over: [`take_file`](Chain::take_file) hands it over.
    pub fn keep(&mut self, file: StepId<Opened>) {
        let file = self.use_file(file);
        if let Some(open) = self.open_file(file) {
            open.keep = true;
        }
    }

    fn add<T>(&mut self, kind: StepKind, spec: Spec) -> StepId<T> {
        self.steps.push(StepState { spec, report: StepReport::new(kind), given: Given::Nothing });
        StepId::new(self.number, self.steps.len() - 1)
    }

    /// The first mistake is the one that is told: others follow from it.
    fn mistaken(&mut self, what: &str) {
        let step = self.steps.len();
        self.mistake.get_or_insert_with(|| format!("step {step} of the chain {what}"));
    }

    fn use_step<T>(&mut self, step: StepId<T>) {
        if step.chain != self.number {
            self.mistaken("uses a step of another chain");
        }
    }

    fn use_file(&mut self, file: StepId<Opened>) -> usize {
        self.use_step(file);
        if self.open_file(file.index).is_some_and(|file| file.closer.is_some()) {
            self.mistaken("uses a file after the step that closes it");
        }
        file.index
    }

    fn use_socket(&mut self, socket: &Fd) {
        let first = self.socket.get_or_insert_with(|| Arc::clone(socket));
        if first.as_fd().as_raw_fd() != socket.as_fd().as_raw_fd() {
            self.mistaken("sends to another socket than the steps before: make it another chain");
        }
    }

    fn check_range(&mut self, offset: u64, length: u64) {
        if let Err(error) = check_range(offset, length) {
            self.mistaken(&format!("has a bad range: {error}"));
        }
    }

    fn open_file(&mut self, step: usize) -> Option<&mut OpenFile> {
        match &mut self.steps.get_mut(step)?.given {
            Given::File(file) => Some(file),
            _ => None,
        }
    }
}

/// Results.
impl Chain {
    /// What became of each step, in their order.
    pub fn report(&self) -> impl ExactSizeIterator<Item = &StepReport> {
        self.steps.iter().map(|step| &step.report)
    }

    /// The step that failed first, or at which the chain was cancelled: its place, and what became of
    /// it.
    #[must_use]
    pub fn failed(&self) -> Option<(usize, &StepReport)> {
        let failed =
            |report: &StepReport| !report.cleanup && matches!(report.result, StepResult::Failed(_));
        self.report().enumerate().find(|(_, report)| failed(report))
    }

    /// The bytes that its steps have moved, also when it failed.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// What that step has found, if it came to it.
    #[must_use]
    pub fn stat(&self, step: StepId<Stat>) -> Option<Stat> {
        match self.given(step)? {
            Given::Stat(stat) => Some(*stat),
            _ => None,
        }
    }

    /// What that step has read, if it came to it.
    #[must_use]
    pub fn data(&self, step: StepId<Data>) -> Option<&[u8]> {
        match self.given(step)? {
            Given::Data(data) => Some(data),
            _ => None,
        }
    }

    /// What that step has sent, if it came to it; also when it failed.
    #[must_use]
    pub fn sent(&self, step: StepId<Sent>) -> Option<Sent> {
        match self.given(step)? {
            Given::Sent(sent) => Some(*sent),
            _ => None,
        }
    }

    /// The file that was to be [kept](Chain::keep), once, if it was opened.
    pub fn take_file(&mut self, step: StepId<Opened>) -> Option<OwnedFd> {
        if step.chain != self.number {
            return None;
        }
        let fd = self.open_file(step.index).filter(|file| file.keep)?.fd.take()?;
        Arc::into_inner(fd)
    }

    fn given<T>(&self, step: StepId<T>) -> Option<&Given> {
        let own = self.steps.get(step.index).filter(|_| step.chain == self.number)?;
        Some(&own.given)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<&StepReport> = self.report().collect();
        f.debug_struct("Chain")
            .field("steps", &steps)
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
