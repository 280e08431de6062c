//! The handle by which tasks use the engine, and what they wait for.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use ::tokio::net::TcpStream;
use ::tokio::runtime::Handle;
use ::tokio::task::coop;

use crate::builder::Builder;
use crate::engine::Aio;
use crate::operation::{Fd, Operation, Step};
use crate::ops::{Chain, Op, Read, Sendfile};
use crate::report::{Report, Way};
use crate::tokio::desk::Desk;
use crate::tokio::driver::Office;
use crate::tokio::hub::{Submission, Wish, shut_down};
use crate::tokio::slot::{Answer, Slot};
use crate::ways::Ways;

/// An [`Aio`] that the tasks of a program share.
///
/// A clone is another handle to the same engine. Any operation of this crate is [run](Engine::run) by it;
/// [`File`](crate::tokio::File) has the common ones as methods. What does not block is done where it is
/// asked for, without a system call more than the operation itself, or another task: a read of
/// what is in the page cache, metadata of an open file. All else waits for one task that the engine
/// starts in each runtime it is used in; so whatever tasks ask for before they all wait goes to the kernel
/// in one call.
///
/// # Dropping
///
/// To drop a future is to cancel its operation. The engine owns what that works on, buffers and
/// descriptors, until the kernel is done with it, and then drops it: a file that was opened for nobody is
/// closed. What was done by then is done, a write for example in whole, in part or not at all. What a
/// thread of the pool is at work on is not stopped, only forgotten.
///
/// # Being full
///
/// As many operations are in flight as the [capacity](Builder::capacity) says. Those beyond it wait, and
/// begin in the order in which they were asked for. Their memory is that of the futures that wait, so
/// the number of tasks bounds it.
///
/// # Ending
///
/// When the last handle is dropped, and the last [`File`](crate::tokio::File) and cursor with it, the engine
/// ends what is in flight and goes. [`shutdown`](Engine::shutdown) ends it before that. When the runtime
/// goes, operations that its tasks had in flight are cancelled; another runtime can go on with the same
/// engine. If the last handle goes when no runtime is left, dropping it may take a second: as of
/// [`Aio`].
///
/// # Panics
///
/// Operations panic in a runtime that was built without I/O (`enable_io`), if they have to wait.
///
/// ```
/// use kevent_aio::tokio::Engine;
/// use kevent_aio::{Open, Read};
///
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let engine = Engine::new()?;
/// let opened = engine.run(Open::new("/proc/self/status")).await;
/// opened.result?;
/// let file = opened.op.and_then(|mut open| open.take()).expect("a file that was opened");
/// let read = engine.run(Read::new(std::sync::Arc::new(file), 0, Vec::with_capacity(4096))).await;
/// read.result?;
/// assert!(read.op.expect("a read that is done").data().starts_with(b"Name:"));
/// # std::io::Result::Ok(())
/// # })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Handles>);

/// What all handles have in common. With the last of them the engine ends.
struct Handles {
    office: Arc<Office>,
    /// What reads have met that tasks have tried themselves.
    ways: Mutex<Ways>,
    /// Operations that were done on the spot.
    inline: AtomicU64,
}

/// An operation that is over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished<O> {
    /// The count, or whatever else the operation has for a result.
    pub result: io::Result<u64>,
    /// The operation, with its buffers and descriptors. `None` only when the engine was
    /// [shut down](Engine::shutdown) while the kernel, or a thread, was still at work on it; or when there
    /// is no runtime any more in which to wait for it.
    pub op: Option<O>,
    /// How it was done.
    pub way: Way,
}

impl Engine {
    /// An engine as [`Aio::new`] makes it.
    ///
    /// # Errors
    ///
    /// As [`Aio::new`]; and when the process may open no more descriptors.
    pub fn new() -> io::Result<Engine> {
        Engine::with(Aio::builder())
    }

    /// An engine made to measure. It needs no runtime yet.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`]; and when the process may open no more descriptors.
    pub fn with(builder: Builder) -> io::Result<Engine> {
        let office = Arc::new(Office::new(Desk::new(builder.build()?)?));
        Ok(Engine(Arc::new(Handles {
            office,
            ways: Mutex::new(Ways::new()),
            inline: AtomicU64::new(0),
        })))
    }

    /// Runs an operation to its end. Dropping the future cancels it.
    ///
    /// Errors are in the [result](Finished::result): those of the operation, and those of waiting for it
    /// (outside of a tokio runtime, after a shutdown).
    pub async fn run<O: Into<Op> + TryFrom<Op>>(&self, op: O) -> Finished<O> {
        self.finish(op.into(), None).await
    }

    /// As [`run`](Engine::run), and cancels it if it is not done by `deadline`; the time in which it
    /// waits for room counts. The result is `TimedOut` then; if it was done nevertheless, because it
    /// could not be stopped, what it is.
    pub async fn run_until<O: Into<Op> + TryFrom<Op>>(
        &self,
        op: O,
        deadline: Instant,
    ) -> Finished<O> {
        self.finish(op.into(), Some(deadline)).await
    }

    /// Sends a range of a file through a stream, as [`Sendfile`], and says how many bytes that were: fewer
    /// only if the file is shorter.
    ///
    /// Neither a slow receiver nor a cold file holds a thread. The socket is used beside the stream,
    /// through a duplicate of its descriptor: what the program itself writes meanwhile comes out
    /// somewhere in between, so write before, or after it has ended. (Transfers by [`run`](Engine::run)
    /// of several [`Sendfile`] with one [`Fd`] follow each other by themselves.)
    ///
    /// Dropped, it has sent some of the range, and may send a little more: then close the stream.
    ///
    /// # Errors
    ///
    /// As of the operation. It is not known then how much was sent: [`Sendfile::sent`] tells who needs it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use kevent_aio::tokio::Engine;
    /// use tokio::io::AsyncReadExt;
    /// use tokio::net::{TcpListener, TcpStream};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("greeting");
    /// # std::fs::write(&path, "hello, world")?;
    /// let engine = Engine::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// let (stream, _) = listener.accept().await?;
    ///
    /// let file = Arc::new(std::fs::File::open(path)?);
    /// assert_eq!(engine.sendfile(file, 7..12, &stream).await?, 5);
    /// drop(stream);
    /// let mut received = String::new();
    /// client.read_to_string(&mut received).await?;
    /// assert_eq!(received, "world");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub async fn sendfile(&self, file: Fd, range: Range<u64>, to: &TcpStream) -> io::Result<u64> {
        let socket = Arc::new(to.as_fd().try_clone_to_owned()?);
        let length = range.end.saturating_sub(range.start);
        self.run(Sendfile::new(socket, file, range.start, length)).await.result
    }

    /// What does the work, why, and how much.
    ///
    /// It waits for the lock that a batch is submitted under: microseconds, and not for a hot path.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.0.office.desk().report();
        report.counters.inline += self.0.inline.load(Ordering::Relaxed);
        report
    }

    /// How many operations may be in flight.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.office.desk().capacity()
    }

    /// Ends the engine for all its handles: no operation is taken any more, those that wait for room come
    /// back with an error, and those in flight are cancelled. Does not wait for it.
    ///
    /// Each future ends within a tenth of a second, while its runtime is driven: with the operation and its
    /// result, or where something can't be stopped, as a read of a pipe by a thread, with an error and
    /// without the operation, which the engine keeps until that is over.
    pub fn shutdown(&self) {
        self.0.office.hub.close(Some(Wish::End));
    }

    pub(super) async fn finish<O: TryFrom<Op>>(
        &self,
        op: Op,
        deadline: Option<Instant>,
    ) -> Finished<O> {
        // A task that finds everything in the cache lets others run, too.
        coop::consume_budget().await;
        let Answer { result, op, way } = match self.start(op, deadline) {
            Begun::Pending(mut pending) => poll_fn(|cx| pending.poll(cx)).await,
            Begun::Done(answer) => answer,
        };
        Finished { result, op: op.and_then(|op| O::try_from(op).ok()), way }
    }

    /// An operation was done on the spot.
    pub(super) fn count_inline(&self) {
        self.0.inline.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins an operation. To be called by a task.
    pub(super) fn start(&self, mut op: Op, deadline: Option<Instant>) -> Begun {
        let office = &self.0.office;
        if office.hub.is_closed() {
            return Begun::refused(shut_down(), op);
        }
        if let Err(error) = op.check() {
            return Begun::refused(error, op);
        }
        if let Some(result) = self.look(&mut op) {
            self.count_inline();
            return Begun::Done(Answer { result, op: Some(op), way: Way::Inline });
        }
        let runtime = match office.hire() {
            Ok(runtime) => runtime,
            Err(error) => return Begun::refused(error, op),
        };
        let (number, slot) = (office.hub.number(), Arc::new(Slot::new()));
        let submission = Submission { number, op, deadline, slot: Arc::clone(&slot) };
        match office.hub.submit(submission, runtime) {
            Ok(()) => Begun::Pending(Pending { engine: self.clone(), number, slot }),
            Err(refused) => Begun::refused(shut_down(), refused.op),
        }
    }

    /// The result of an operation that does not block. Any other is not looked at a second time.
    fn look(&self, op: &mut Op) -> Option<io::Result<u64>> {
        let step = match op {
            Op::Read(read) => self.look_at(read),
            Op::Statx(statx) => statx.advance(),
            _ => Step::Run,
        };
        match step {
            Step::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Reads what can be read on the spot, if that is likely to be something.
    pub(super) fn look_at(&self, read: &mut Read) -> Step {
        let ways = || self.0.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reading) = read.reading() else { return Step::Run };
        // No batch is known of here: as without a ring.
        let wanted = ways().wants_look(reading, false);
        let step = read.look(wanted);
        if let (true, Some(reading)) = (wanted, read.reading()) {
            ways().looked(reading, matches!(step, Step::Done(_)));
        }
        step
    }
}

/// An operation was begun.
#[derive(Debug)]
pub(super) enum Begun {
    Pending(Pending),
    /// And is over.
    Done(Answer),
}

impl Begun {
    fn refused(error: io::Error, op: Op) -> Begun {
        Begun::Done(Answer::refused(error, op))
    }
}

impl Chain {
    /// Runs the chain, and gives it back with its [report](Chain::report) and all that its steps have
    /// found. Dropping the future cancels the chain; its steps that clean up are done all the same.
    ///
    /// ```
    /// use kevent_aio::tokio::Engine;
    /// use kevent_aio::{Chain, Open};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let engine = Engine::new()?;
    /// let mut chain = Chain::new();
    /// let file = chain.open(Open::new("/proc/self/status"));
    /// let data = chain.read(file, 0, 5);
    /// chain.close(file);
    /// let finished = chain.run(&engine).await;
    /// assert_eq!(finished.result?, 5);
    /// let chain = finished.op.expect("the chain");
    /// assert_eq!(chain.data(data), Some(&b"Name:"[..]));
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub async fn run(self, engine: &Engine) -> Finished<Chain> {
        engine.run(self).await
    }

    /// As [`run`](Chain::run), with a deadline for the whole: see [`Engine::run_until`].
    pub async fn run_until(self, engine: &Engine, deadline: Instant) -> Finished<Chain> {
        engine.run_until(self, deadline).await
    }
}

/// An operation that was begun and is not done. Dropping it cancels the operation.
#[derive(Debug)]
pub(super) struct Pending {
    engine: Engine,
    number: u64,
    slot: Arc<Slot>,
}

impl Pending {
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Answer> {
        let answer = self.slot.poll(cx);
        if answer.is_ready() {
            return answer;
        }
        // The task may have moved to another runtime, or lost its driver.
        let office = &self.engine.0.office;
        match office.hire() {
            Ok(runtime) => office.hub.remind(runtime),
            Err(error) => {
                let answer = Answer { result: Err(error), op: None, way: Way::Inline };
                self.cancel();
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    }

    /// Goes on also when this is dropped.
    pub(super) fn lasting(self) -> Pending {
        self.slot.make_lasting();
        self
    }

    fn cancel(&self) {
        if self.slot.leave() {
            let runtime = Handle::try_current().ok().map(|handle| handle.id());
            self.engine.0.office.hub.cancel(self.number, runtime);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Drop for Handles {
    /// No future waits any more. What was detached goes on, as long as there is a driver.
    fn drop(&mut self) {
        self.office.hub.close(None);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("closed", &self.0.office.hub.is_closed())
            .finish_non_exhaustive()
    }
}
