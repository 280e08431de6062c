//! kevent: one queue with an engine in it, in the ways in which a program can have it.

mod in_tokio;
mod reads;
mod sends;
mod trees;

use std::collections::VecDeque;

use kevent_aio::{Aio, Builder, Choice, Completion, Op, Started, Way};
use kevent_core::{Queue, SourceId};

use crate::group::Result;
pub(super) use in_tokio::InTokio;
pub(super) use reads::Reads;
pub(super) use sends::{AllStreams, Paths, QueuedSends, Sends};
pub(super) use trees::{Chains, Copies, Ops};

/// How the engine is set up.
pub(super) trait Kind: 'static {
    const BACKEND: Choice;
    /// Whether reads say that what they read is not in the page cache.
    const HINTS: bool = false;
    /// Whether the kernel is told of file and memory in advance.
    const REGISTERED: bool = false;
}

/// As a program has it that chooses nothing.
pub(super) struct Usual;
/// The same, told what is cold.
pub(super) struct Hinted;
/// Nothing chosen, and file and memory registered.
pub(super) struct Registered;
/// By threads, where there is no io_uring.
pub(super) struct Pool;

impl Kind for Usual {
    const BACKEND: Choice = Choice::Auto;
}

impl Kind for Hinted {
    const BACKEND: Choice = Choice::Auto;
    const HINTS: bool = true;
}

impl Kind for Registered {
    const BACKEND: Choice = Choice::Auto;
    const REGISTERED: bool = true;
}

impl Kind for Pool {
    const BACKEND: Choice = Choice::Pool;
}

/// An engine that is set up so.
fn aio(backend: Choice) -> Result<Aio> {
    build(Aio::builder().backend(backend), backend)
}

fn build(builder: Builder, backend: Choice) -> Result<Aio> {
    let aio = builder.build()?;
    let report = aio.report();
    if backend == Choice::Auto && report.backend != Way::Ring {
        return Err(format!("it would be another peer: {report}").into());
    }
    Ok(aio)
}

/// A queue with an engine in it, and nothing else.
struct Engine {
    queue: Queue<Completion>,
    aio: SourceId<Aio>,
    /// What was done at once.
    at_once: VecDeque<Done>,
}

impl Engine {
    fn new(backend: Choice) -> Result<Engine> {
        Engine::around(aio(backend)?)
    }

    fn around(aio: Aio) -> Result<Engine> {
        let mut queue = Queue::new()?;
        let aio = queue.attach(aio, |completion| completion)?;
        Ok(Engine { queue, aio, at_once: VecDeque::new() })
    }

    fn submit(&mut self, op: impl Into<Op>, key: usize) -> Result<()> {
        self.queue[self.aio].submit(op, key as u64).map_err(|refused| refused.error)?;
        Ok(())
    }

    /// For who has one operation at a time.
    fn start(&mut self, op: impl Into<Op>, key: usize) -> Result<()> {
        let started =
            self.queue[self.aio].start(op, key as u64).map_err(|refused| refused.error)?;
        if let Started::Done { op, result } = started {
            self.at_once.push_back(Done { key, count: result?, op });
        }
        Ok(())
    }

    /// The next that is done.
    fn next(&mut self) -> Result<Done> {
        if let Some(done) = self.at_once.pop_front() {
            return Ok(done);
        }
        loop {
            if let Some(completion) = self.queue.next() {
                let (key, count) = (completion.key as usize, completion.result?);
                return Ok(Done { key, count, op: *completion.op });
            }
            self.queue.wait(None)?;
        }
    }
}

/// What was submitted, and did not fail.
struct Done {
    key: usize,
    count: u64,
    op: Op,
}

fn unexpected(op: &Op) -> Box<dyn std::error::Error + Send + Sync> {
    format!("a completion that nobody expects: {op:?}").into()
}
