//! The queue: sources in, events out.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Index, IndexMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::numbers::Numbers;
use crate::pace::Pace;
use crate::poll::{PollKey, PollSet, Ready};
use crate::ring::Ring;
use crate::sink::{Entry, RingSink};
use crate::source::{Due, Source};
use crate::table::Table;
use crate::token::Token;
use crate::wait::Wait;
use crate::waiter::Waiter;

/// Events that the ring of [`Queue::new`] holds.
const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// One queue of events `E`, from any number of sources.
///
/// `E` is the user's own type, mostly an enum; each source is attached with the function that makes
/// an `E` of the source's item. One thread works with the queue at a time. Others reach it through
/// what the sources hand out, such as a [`Poster`](crate::Poster).
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Queue, TimerEvent, Timers, UserEvents};
///
/// enum Event {
///     Tick(TimerEvent),
///     Greeting(&'static str),
/// }
///
/// let mut queue = Queue::new()?;
/// let timers = queue.attach(Timers::new(), Event::Tick)?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, Event::Greeting)?;
///
/// queue[timers].after(Duration::from_millis(1), 7);
/// std::thread::spawn(move || poster.post("hello"));
///
/// let (mut ticks, mut greetings) = (0, 0);
/// while ticks + greetings < 2 {
///     queue.wait(None)?;
///     while let Some(event) = queue.next() {
///         match event {
///             Event::Tick(_) => ticks += 1,
///             Event::Greeting(text) => {
///                 assert_eq!(text, "hello");
///                 greetings += 1;
///             }
///         }
///     }
/// }
/// assert_eq!((ticks, greetings), (1, 1));
/// # std::io::Result::Ok(())
/// ```
///
/// The queue is itself a file descriptor ([`AsFd`]) that is readable when something is there: it can
/// be waited for in another queue, in another loop, or in a runtime. Whoever sees it readable calls
/// [`wait`](Queue::wait) with [`Wait::poll`] and takes the events out; it may be readable once too
/// often, never once too seldom. Taking the descriptor has a price: a `write(2)` for each turn that
/// leaves events behind, a `timerfd_settime(2)` for each new deadline.
///
/// It is no use in a child of fork(2): parent and child would share one epoll set, and what the child
/// does to it, dropping the queue included, the parent loses. (A child that executes another program, as
/// that of [`Command`](std::process::Command) does, inherits nothing of it.)
pub struct Queue<E> {
    ring: Ring<Entry<E>>,
    waiter: Waiter,
    sources: Table<Attached<E>>,
    numbers: Numbers,
    /// The sources in the order of attachment; turns begin at each in its turn.
    order: Vec<Token>,
    first: usize,
    /// Events that `next` may still hand out before the next wait.
    budget: usize,
    pace: Pace,
    stats: Stats,
    /// Tells its ids from those of other queues.
    number: u64,
}

/// The number of the next queue of this process.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// A source and whether it may have something.
struct Attached<E> {
    source: Box<dyn AnySource<E>>,
    /// Its number in the poll set.
    number: u16,
    pending: bool,
}

impl<E: 'static> Queue<E> {
    /// A queue whose ring holds 1,024 events.
    ///
    /// # Errors
    ///
    /// When the process may open no more descriptors: a queue takes four.
    pub fn new() -> io::Result<Queue<E>> {
        Queue::with_capacity(DEFAULT_CAPACITY)
    }

    /// A queue whose ring holds `capacity` events. What does not fit waits at its source.
    ///
    /// # Errors
    ///
    /// As [`new`](Queue::new).
    pub fn with_capacity(capacity: NonZeroUsize) -> io::Result<Queue<E>> {
        Ok(Queue {
            ring: Ring::new(capacity),
            waiter: Waiter::new()?,
            sources: Table::new(),
            numbers: Numbers::default(),
            order: Vec::new(),
            first: 0,
            budget: usize::MAX,
            pace: Pace::new(),
            stats: Stats::default(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Attaches `source`, whose items become events through `wrap`.
    ///
    /// # Errors
    ///
    /// Whatever the source needs and could not get; the source is dropped. `QuotaExceeded` for more
    /// than 65,535 sources.
    pub fn attach<S: Source>(
        &mut self,
        source: S,
        wrap: impl FnMut(S::Item) -> E + Send + 'static,
    ) -> io::Result<SourceId<S>> {
        let source = Box::new(Wrapped { source, wrap });
        let token = self.sources.try_insert_with(|token| {
            let number = self.numbers.give(token).ok_or_else(too_many_sources)?;
            Ok::<_, io::Error>(Attached { source, number, pending: true })
        })?;
        if let Err(error) = self.connect(token) {
            self.disconnect(token);
            return Err(error);
        }
        self.order.push(token);
        self.waiter.waker().changed();
        Ok(SourceId { queue: self.number, token, source: PhantomData })
    }

    /// Detaches a source and gives it back. No event of it comes out any more, not even one that is
    /// in the ring: take out first what must not be lost. (Timers and processes tell such an event
    /// again in their next queue; signals, changes of files and posts can't.) `None` when it is
    /// detached already.
    pub fn detach<S: Source>(&mut self, id: SourceId<S>) -> Option<S> {
        // An id may come from another queue.
        self.get_mut(id)?.detach();
        self.order.retain(|token| *token != id.token);
        let attached = self.disconnect(id.token)?;
        attached.source.into_any().downcast().ok().map(|source| *source)
    }

    /// Gives a source its share of the poll set.
    fn connect(&mut self, source: Token) -> io::Result<()> {
        let Some(attached) = self.sources.get_mut(source) else { return Ok(()) };
        attached.source.attach(&self.waiter.poll_set(attached.number))
    }

    /// Takes a source out, and out of the poll set what it left there.
    fn disconnect(&mut self, source: Token) -> Option<Attached<E>> {
        let attached = self.sources.remove(source)?;
        self.waiter.poll_set(attached.number).clear();
        self.numbers.take_back(attached.number);
        Some(attached)
    }

    /// The source behind `id`; `None` when it is detached or of another queue.
    #[must_use]
    pub fn get<S: Source>(&self, id: SourceId<S>) -> Option<&S> {
        if id.queue != self.number {
            return None;
        }
        self.sources.get(id.token)?.source.as_any().downcast_ref()
    }

    /// The source behind `id`, to use it; `None` when it is detached or of another queue.
    #[must_use]
    pub fn get_mut<S: Source>(&mut self, id: SourceId<S>) -> Option<&mut S> {
        if id.queue != self.number {
            return None;
        }
        self.sources.get_mut(id.token)?.source.as_any_mut().downcast_mut()
    }

    /// Waits for events and says how many there are now. Takes a [`Wait`], a time, or an optional
    /// time.
    ///
    /// With enough events in the ring already it returns without a system call. Otherwise it asks
    /// every source, sleeps in one system call if none has anything, and comes back with what fits
    /// into the ring. Signals do not end it. The number counts events whose registration was removed
    /// while they were in the ring; [`next`](Queue::next) leaves those out.
    ///
    /// # Errors
    ///
    /// When a source can no longer work; the error says which ([`SourceError`]). The other sources
    /// and the events in the ring are not touched by it: go on taking them out, and detach the
    /// source.
    pub fn wait(&mut self, wait: impl Into<Wait>) -> io::Result<usize> {
        let mut wait = wait.into();
        let enough = wait.minimum().min(self.ring.capacity());
        self.budget = wait.maximum();
        if self.ring.len() < enough || enough == 0 {
            self.gather(&mut wait, enough)?;
        }
        Ok(self.ring.len().min(self.budget))
    }

    /// Takes the next event out, in the order in which they came into the ring. Makes no system call.
    ///
    /// `None` when the ring is empty, or when as many were taken as the last wait allowed.
    #[allow(clippy::should_implement_trait)] // An iterator could not be left alone between two events.
    pub fn next(&mut self) -> Option<E> {
        while self.budget > 0 {
            let Entry { source, token, event } = self.ring.pop()?;
            let wanted = self.sources.get_mut(source).is_some_and(|s| s.source.deliver(token));
            if wanted {
                self.budget -= 1;
                self.stats.delivered += 1;
                return Some(event);
            }
            self.stats.stale += 1;
        }
        None
    }

    /// How many events the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// How many events are in the ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether no event is in the ring. The sources may have some all the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Counters since the queue was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { refused: self.ring.refused(), ..self.stats }
    }

    /// Gathers events until there are `enough` of them or the time has passed.
    fn gather(&mut self, wait: &mut Wait, enough: usize) -> io::Result<()> {
        let mut outcome = self.collect();
        // A source that fails at every turn must not keep the others from being looked at.
        if outcome.is_err() || self.pace.wants_a_look() || enough == 0 {
            outcome = outcome.and(self.look(Some(Duration::ZERO)));
        }
        while outcome.is_ok() && self.ring.len() < enough {
            outcome = self.sleep(wait);
            if wait.is_over() {
                break;
            }
        }
        self.pace.turned(Instant::now);
        if self.waiter.waker().is_exported() {
            outcome = outcome.and(self.leave_for_others());
        }
        outcome
    }

    /// Sleeps until something is there, and fetches it.
    fn sleep(&mut self, wait: &mut Wait) -> io::Result<()> {
        // Looked at only once it is known that others would ring: see `waker`.
        self.waiter.waker().fall_asleep();
        let before = self.ring.len();
        let due = self.collect_due()?;
        let timeout = if self.ring.len() > before || self.any_pending() {
            Some(Duration::ZERO)
        } else {
            match due {
                Due::Now => Some(Duration::ZERO),
                Due::At(instant) => wait.sleep(Some(instant)),
                Due::OnWake => wait.sleep(None),
            }
        };
        let looked = self.look(timeout);
        self.waiter.waker().wake_up();
        looked
    }

    /// One look at the kernel, then one at every source that may have something.
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.pace.looks(Instant::now);
        self.stats.polls += 1;
        self.waiter.wait(timeout)?;
        for (number, key, ready) in self.waiter.found() {
            let source = self.numbers.source(number);
            if let Some(attached) = source.and_then(|source| self.sources.get_mut(source)) {
                attached.source.ready(key, ready);
                attached.pending = true;
            } else {
                self.stats.strays += 1;
            }
        }
        self.collect()
    }

    fn collect(&mut self) -> io::Result<()> {
        self.collect_due().map(|_| ())
    }

    /// Asks every source what it has, moves it into the ring, and says when there will be more. A
    /// source that fails does not keep the others from their turn.
    fn collect_due(&mut self) -> io::Result<Due> {
        let mut due = Due::OnWake;
        let mut failure = Ok(());
        let (last, first) = self.order.split_at(self.first.min(self.order.len()));
        for token in first.iter().chain(last) {
            let Some(attached) = self.sources.get_mut(*token) else { continue };
            match attached.turn(&mut self.ring, *token) {
                Ok(next) => due = due.or_sooner(next),
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        self.first = if self.first + 1 < self.order.len() { self.first + 1 } else { 0 };
        failure.map(|()| due)
    }

    fn any_pending(&self) -> bool {
        self.sources.iter().any(|(_, attached)| attached.pending)
    }

    /// Leaves the descriptor as those expect it who may sleep on it now: it rings from here on,
    /// it is readable if events are left, and it will be at the next deadline.
    fn leave_for_others(&mut self) -> io::Result<()> {
        self.waiter.waker().fall_asleep();
        let due = self.collect_due();
        // After a failure the deadlines are not known: let the queue look again.
        let more = matches!(due, Ok(Due::Now) | Err(_));
        if more || !self.ring.is_empty() || self.any_pending() {
            self.waiter.waker().ring();
        }
        self.waiter.set_alarm(match due? {
            Due::At(instant) => Some(instant),
            Due::Now | Due::OnWake => None,
        })
    }
}

impl<E> Attached<E> {
    fn turn(&mut self, ring: &mut Ring<Entry<E>>, token: Token) -> io::Result<Due> {
        let mut due = self.source.flush()?;
        if due == Due::Now || self.pending {
            self.pending = self.source.drain(ring, token)?;
            // What is due after the drain; a source that was left with something is pending.
            due = self.source.flush()?;
        }
        Ok(due)
    }
}

/// [`Queue::as_fd`] tells the sources that somebody else may sleep on the queue from now on.
impl<E> AsFd for Queue<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waiter.waker().export();
        self.waiter.as_fd()
    }
}

impl<E> AsRawFd for Queue<E> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<E: 'static, S: Source> Index<SourceId<S>> for Queue<E> {
    type Output = S;

    /// # Panics
    ///
    /// When the source is detached, or of another queue. [`Queue::get`] asks first.
    fn index(&self, id: SourceId<S>) -> &S {
        self.get(id).expect("a source of this queue that is still attached")
    }
}

impl<E: 'static, S: Source> IndexMut<SourceId<S>> for Queue<E> {
    /// # Panics
    ///
    /// As [`index`](Index::index).
    fn index_mut(&mut self, id: SourceId<S>) -> &mut S {
        self.get_mut(id).expect("a source of this queue that is still attached")
    }
}

impl<E> fmt::Debug for Queue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.sources.iter().map(|(_, s)| s.source.name()).collect();
        f.debug_struct("Queue")
            .field("fd", &self.waiter.as_fd())
            .field("capacity", &self.ring.capacity())
            .field("len", &self.ring.len())
            .field("sources", &sources)
            .finish_non_exhaustive()
    }
}

/// Counters of a [`Queue`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events handed to the user.
    pub delivered: u64,
    /// Events thrown away on the way out, because their registration had been removed.
    pub stale: u64,
    /// Times that a source found the ring full, and kept what it had.
    pub refused: u64,
    /// Looks at the kernel, each one system call.
    pub polls: u64,
    /// How often the kernel spoke of a descriptor of a source that is detached.
    ///
    /// That takes one that was closed while it was in the queue's set and a duplicate of it is open
    /// somewhere: nobody can take it out any more, until the duplicate is closed. If it is
    /// level-triggered and stays ready, every wait looks again at once: a number that grows all the
    /// time explains a busy processor.
    pub strays: u64,
}

fn too_many_sources() -> io::Error {
    io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "a queue takes 65,535 sources; use a second queue inside this one",
    )
}

/// Names a source of a queue, and its type.
pub struct SourceId<S> {
    queue: u64,
    token: Token,
    source: PhantomData<fn() -> S>,
}

impl<S> Clone for SourceId<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for SourceId<S> {}

impl<S> fmt::Debug for SourceId<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceId<{}>({:?})", std::any::type_name::<S>(), self.token)
    }
}

/// A source can no longer work.
#[derive(Debug)]
pub struct SourceError {
    /// The type of the source.
    pub source_name: &'static str,
    /// What happened to it.
    pub error: io::Error,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source_name, self.error)
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// A source of any type, with its items made into `E`. One dynamic call for each batch.
trait AnySource<E>: Send {
    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()>;
    fn ready(&mut self, key: PollKey, ready: Ready);
    fn flush(&mut self) -> io::Result<Due>;
    /// Says whether the ring refused something.
    fn drain(&mut self, ring: &mut Ring<Entry<E>>, source: Token) -> io::Result<bool>;
    fn deliver(&mut self, token: Token) -> bool;
    fn name(&self) -> &'static str;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

struct Wrapped<S, W> {
    source: S,
    wrap: W,
}

impl<S, W> Wrapped<S, W> {
    fn in_context(error: io::Error) -> io::Error {
        let source_name = std::any::type_name::<S>();
        io::Error::new(error.kind(), SourceError { source_name, error })
    }
}

impl<E, S: Source, W: FnMut(S::Item) -> E + Send + 'static> AnySource<E> for Wrapped<S, W> {
    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.source.attach(poll_set).map_err(Self::in_context)
    }

    fn ready(&mut self, key: PollKey, ready: Ready) {
        self.source.ready(key, ready);
    }

    fn flush(&mut self) -> io::Result<Due> {
        self.source.flush().map_err(Self::in_context)
    }

    fn drain(&mut self, ring: &mut Ring<Entry<E>>, source: Token) -> io::Result<bool> {
        let mut sink = RingSink { ring, source, wrap: &mut self.wrap, refused: false };
        self.source.drain(&mut sink).map_err(Self::in_context)?;
        Ok(sink.refused)
    }

    fn deliver(&mut self, token: Token) -> bool {
        self.source.deliver(token)
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<S>()
    }

    fn as_any(&self) -> &dyn Any {
        &self.source
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        &mut self.source
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.source)
    }
}
