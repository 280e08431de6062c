//! Chains: several operations, one submission, one completion.
//!
//! The steps are data: a small program, checked when it is submitted. The chain is an operation that does
//! whichever step it has come to, so it runs on every backend, and inline while nothing blocks.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::address::Address;
use crate::operation::Fd;
use crate::ops::sendfile::Sent;
use crate::ops::{Entries, Op, Stat};

mod bind;
mod check;
mod farewell;
mod flow;
mod program;
mod renew;
mod report;
mod run;
mod state;
mod steps;
mod transform;
#[cfg(feature = "transforms")]
mod transforms;
mod values;
mod whole;

pub use report::{CleanupReport, StepReport, StepResult};
pub use steps::{Content, Header, Socket, Span, StreamId};
pub use transform::Transform;
#[cfg(feature = "transforms")]
pub use transforms::{Blake3, Crc32c, Gzip};
pub use values::{
    Condition, Data, Effect, Listing, Opened, Operand, StepId, Stop, Value, Variable, When,
};

use state::Run;
use steps::Work;
use transform::Stream;

/// Steps that are done one after another: submitted together, completed together.
///
/// Each function adds a step and gives a handle by which later steps name its result. Steps can be
/// [repeated](Chain::repeat) and depend on [conditions](Chain::branch). The first step that fails
/// ends the chain, unless it was said [otherwise](Chain::stop); the completion has its error, and the
/// [report](Chain::report) says which it was and what became of each.
///
/// A chain is checked when it is submitted: a step that uses what may not be there, a file after it was
/// closed, a loop without a way out. Then it is refused and given back, and has done nothing.
///
/// A file that the chain has opened is closed exactly once, whatever happens: by a
/// [close](Chain::close) step, or at the end. One that is to be [kept](Chain::keep) is handed over
/// instead, also by a chain that failed. Other things that are to be done at the end, or when the chain
/// fails, are [deferred](Chain::defer).
///
/// The result is the number of bytes moved: the sum over the steps that read, write and send. A chain
/// that sends has its place among the transfers to that socket from its first step on.
///
/// A file is copied in pieces, by way of a temporary one, with a checksum of what was read:
///
/// ```
/// # #[cfg(feature = "transforms")] {
/// use kevent_aio::{Aio, Blake3, Chain, Op, Open, Rename, Stop, Unlink, When};
/// use kevent_core::Queue;
///
/// # let dir = tempfile::tempdir()?;
/// # let at = |name| dir.path().join(name);
/// # std::fs::write(at("from"), "hello")?;
/// let mut chain = Chain::new();
/// let from = chain.open(Open::new(at("from")));
/// let to = chain.open(Open::new(at("to.tmp")).write_only().create_new(0o600));
/// chain.defer(Unlink::new(at("to.tmp")), When::Failed);
/// let hash = chain.transform(Blake3::new());
/// let position = chain.variable(0);
/// chain.repeat(1_000_000, |chain| {
///     let piece = chain.read(from, position, 128 * 1024);
///     chain.stop(piece, Stop::Zero);
///     chain.feed(hash, piece);
///     let written = chain.write(to, position, piece);
///     chain.add(position, written.count());
/// });
/// let digest = chain.finish(hash);
/// chain.fsync(to);
/// chain.close(to);
/// chain.operation(Rename::new(at("to.tmp"), at("to")));
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// queue[aio].submit(chain, 1)?;
/// while queue.is_empty() {
///     queue.wait(None)?;
/// }
/// let completion = queue.next().unwrap();
/// assert_eq!(completion.result?, 5 + 5);
/// let Op::Chain(chain) = *completion.op else { unreachable!() };
/// assert_eq!(chain.data(digest).unwrap().len(), 32);
/// assert_eq!(std::fs::read(at("to"))?, b"hello");
/// # }
/// # std::io::Result::Ok(())
/// ```
///
/// An answer goes out with a header that tells the length:
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
    variables: Vec<u64>,
    /// `None` for one that is at work.
    streams: Vec<Option<Stream>>,
    socket: Option<Fd>,
    cold: bool,
    /// Boxed, since the kernel may hold pointers into it while the chain is moved.
    run: Box<Run>,
}

/// A step, with what it has given.
struct StepState {
    work: Work,
    stop: Stop,
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
    keep: bool,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain::new()
    }
}

impl Chain {
    /// A chain without steps.
    #[must_use]
    pub fn new() -> Chain {
        Chain {
            number: values::chain_number(),
            steps: Vec::new(),
            variables: Vec::new(),
            streams: Vec::new(),
            socket: None,
            cold: false,
            run: Box::default(),
        }
    }
}

/// Results.
impl Chain {
    /// What became of each step, in their order.
    pub fn report(&self) -> impl ExactSizeIterator<Item = &StepReport> {
        self.steps.iter().map(|step| &step.report)
    }

    /// The clean-ups that were done, in their order: files that no step has closed, and what was
    /// [deferred](Chain::defer).
    pub fn cleanups(&self) -> impl ExactSizeIterator<Item = &CleanupReport> {
        self.run.cleaned.iter()
    }

    /// The step that ended the chain by its failure, or at which it was cancelled: its place, and what
    /// became of it. `None` also for a chain that was cancelled between two steps, or before the first.
    #[must_use]
    pub fn failed(&self) -> Option<(usize, &StepReport)> {
        let step = self.run.failed?;
        Some((step, &self.steps.get(step)?.report))
    }

    /// The bytes that its steps have moved, also when it failed.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.run.moved
    }

    /// What that step has found, if it came to it.
    #[must_use]
    pub fn stat(&self, step: StepId<Stat>) -> Option<Stat> {
        match self.given(step)? {
            Given::Stat(stat) => Some(*stat),
            _ => None,
        }
    }

    /// What that step has read, or made, when it ran last.
    #[must_use]
    pub fn data(&self, step: StepId<Data>) -> Option<&[u8]> {
        match self.given(step)? {
            Given::Data(data) => Some(data),
            _ => None,
        }
    }

    /// The entries that that step has found when it ran last.
    #[must_use]
    pub fn entries(&self, step: StepId<Listing>) -> Option<Entries<'_>> {
        match self.given(step)? {
            Given::Data(records) => Some(Entries::of(records)),
            _ => None,
        }
    }

    /// What that step has read, or made, to own it.
    pub fn take_data(&mut self, step: StepId<Data>) -> Option<Vec<u8>> {
        match self.given_mut(step)? {
            Given::Data(data) => Some(std::mem::take(data)),
            _ => None,
        }
    }

    /// What that step has sent when it ran last; also when it failed.
    #[must_use]
    pub fn sent(&self, step: StepId<Sent>) -> Option<Sent> {
        match self.given(step)? {
            Given::Sent(sent) => Some(*sent),
            _ => None,
        }
    }

    /// What a variable is now.
    #[must_use]
    pub fn number(&self, variable: Variable) -> Option<u64> {
        let own = Some(variable.0).filter(|variable| variable.chain == self.number)?;
        self.variables.get(own.index).copied()
    }

    /// Who has connected, to the step that [accepts](Chain::accept) when it ran last: see [`Accept`](crate::Accept::peer).
    #[must_use]
    pub fn peer(&self, step: StepId<Opened>) -> Option<Address> {
        let own = self.steps.get(step.index).filter(|_| step.chain == self.number)?;
        match &own.work {
            Work::Whole { op: Some(op), .. } => match op.as_ref() {
                Op::Accept(accept) => accept.peer(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The file that was to be [kept](Chain::keep), once, if it was opened.
    pub fn take_file(&mut self, step: StepId<Opened>) -> Option<OwnedFd> {
        match self.given_mut(step)? {
            Given::File(file) if file.keep => file.fd.take().and_then(Arc::into_inner),
            _ => None,
        }
    }

    /// The [operation](Chain::operation) of that step, once.
    pub fn take_op(&mut self, step: StepId<Effect>) -> Option<Op> {
        let own = self.steps.get_mut(step.index).filter(|_| step.chain == self.number)?;
        self.run.checked = false;
        match &mut own.work {
            Work::Whole { op, .. } | Work::Defer { op, .. } => op.take().map(|op| *op),
            _ => None,
        }
    }

    fn given<T>(&self, step: StepId<T>) -> Option<&Given> {
        let own = self.steps.get(step.index).filter(|_| step.chain == self.number)?;
        (own.report.runs > 0).then_some(&own.given)
    }

    fn given_mut<T>(&mut self, step: StepId<T>) -> Option<&mut Given> {
        let own = self.steps.get_mut(step.index).filter(|_| step.chain == self.number)?;
        (own.report.runs > 0).then_some(&mut own.given)
    }

    fn open_file(&mut self, step: usize) -> Option<&mut OpenFile> {
        match &mut self.steps.get_mut(step)?.given {
            Given::File(file) => Some(file),
            _ => None,
        }
    }

    /// Whether the file of that step is not to be closed.
    fn keeps(&self, step: usize) -> bool {
        let given = self.steps.get(step).map(|step| &step.given);
        matches!(given, Some(Given::File(file)) if file.keep)
    }

    /// The bytes that a step has given.
    fn bytes(&self, step: usize) -> &[u8] {
        match self.steps.get(step).map(|step| &step.given) {
            Some(Given::Data(data)) => data,
            _ => &[],
        }
    }
}

impl StepState {
    fn opens(&self) -> bool {
        matches!(self.given, Given::File(_))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<&StepReport> = self.report().collect();
        f.debug_struct("Chain")
            .field("steps", &steps)
            .field("cleanups", &self.run.cleaned)
            .field("moved", &self.run.moved)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
