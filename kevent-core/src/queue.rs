//! The queue: sources in, events out.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Index, IndexMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::attached::Attached;
use crate::changes::{Changed, Changes};
use crate::clock::Clock;
use crate::flow::{Flow, SourceStats};
use crate::harvest::Harvest;
use crate::interrupt::Interrupter;
use crate::meter::Meter;
use crate::registry::Order;
use crate::ring::{OWN, Ring, Taken, UNDATED};
use crate::script::Script;
use crate::sink::Full;
use crate::source::Source;
use crate::source_id::SourceId;
use crate::stall::{Progress, StallMonitor};
use crate::stamped::Stamped;
use crate::stats::{Snapshot, Stats};
use crate::token::Token;
use crate::wait::Wait;
use crate::waiter::Waiter;

/// Events that the ring of [`Queue::new`] holds.
pub(crate) const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

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
    pub(crate) harvest: Harvest<E>,
    /// Events that `next` may still hand out before the next wait.
    budget: usize,
    /// While somebody watches for stalls.
    watched: Option<Watched>,
    /// Own posts that found no room.
    refused: u64,
}

/// A loop that is watched for stalls writes down what it takes. It has its budget here, and the queue's
/// own is zero: so one that is not watched need not ask, which would cost each event 2 ns.
struct Watched {
    progress: Arc<Progress>,
    budget: usize,
}

/// The number of the next queue of this process.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

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
        Queue::assemble(capacity, None)
    }

    /// A queue; a simulated one, if there is a script for it.
    pub(crate) fn assemble(capacity: NonZeroUsize, script: Option<Script>) -> io::Result<Queue<E>> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let waiter = Waiter::new(script)?;
        if let Some(script) = waiter.script() {
            script.enrol(number, waiter.waker().clone());
        }
        let harvest = Harvest::new(Ring::new(capacity), waiter, number);
        Ok(Queue { harvest, budget: usize::MAX, watched: None, refused: 0 })
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
        let (token, number) = self.harvest.sources.insert(source, wrap)?;
        let poll_set = self.harvest.waiter.poll_set(number);
        let attached =
            self.harvest.sources.get_mut(token).map(|attached| attached.source.attach(&poll_set));
        if let Some(Err(error)) = attached {
            self.remove(token);
            return Err(error);
        }
        if let (Some(watched), Some(attached)) = (&self.watched, self.harvest.sources.get(token)) {
            watched.progress.name(token, attached.source.name());
        }
        self.harvest.waiter.waker().changed();
        Ok(SourceId::new(self.harvest.number, token))
    }

    /// Detaches a source and gives it back. No event of it comes out any more, not even one that is
    /// in the ring: take out first what must not be lost. (Timers and processes tell such an event
    /// again in their next queue; signals, changes of files and posts can't.) `None` when it is
    /// detached already.
    pub fn detach<S: Source>(&mut self, id: SourceId<S>) -> Option<S> {
        // An id may come from another queue.
        self.get_mut(id)?.detach();
        let attached = self.remove(id.token())?;
        attached.source.into_any().downcast().ok().map(|source| *source)
    }

    /// Takes a source out, and out of the poll set what it left there.
    fn remove(&mut self, source: Token) -> Option<Attached<E>> {
        let attached = self.harvest.sources.remove(source)?;
        self.harvest.waiter.poll_set(attached.number).clear();
        Some(attached)
    }

    /// Sets the terms on which a source puts events into the ring. `false` when it is detached or of
    /// another queue.
    ///
    /// No source can keep another from being heard, whatever the terms: in each turn each may push
    /// as many as its quota says, and the turns begin at each source in its turn. If the user takes
    /// out all that there is before he waits again, an event that is at its source comes out after at
    /// most two ringfuls of others: one that lay in the ring, and one that went in with it.
    pub fn set_flow<S: Source>(&mut self, id: SourceId<S>, flow: Flow<E>) -> bool {
        if id.queue() != self.harvest.number {
            return false;
        }
        let Some(attached) = self.harvest.sources.get_mut(id.token()) else { return false };
        attached.gate.set(flow);
        self.harvest.waiter.waker().changed();
        true
    }

    /// Makes several changes to one source in one go. What becomes of each is told, in their order; one
    /// that fails does not keep the others from being made.
    ///
    /// # Panics
    ///
    /// As by index: when the source is detached, or of another queue.
    pub fn change<'c, S: Changes>(
        &mut self,
        id: SourceId<S>,
        changes: impl IntoIterator<Item = S::Change<'c>>,
    ) -> Vec<io::Result<S::Done>> {
        let source = &mut self[id];
        changes.into_iter().map(|change| source.change(change)).collect()
    }

    /// As [`change`](Queue::change), and then waits, in one call.
    ///
    /// # Panics
    ///
    /// As [`change`](Queue::change).
    pub fn change_and_wait<'c, S: Changes>(
        &mut self,
        id: SourceId<S>,
        changes: impl IntoIterator<Item = S::Change<'c>>,
        wait: impl Into<Wait>,
    ) -> Changed<S::Done> {
        let changes = self.change(id, changes);
        Changed { changes, waited: self.wait(wait) }
    }

    /// Sets the order in which events of several sources come out.
    ///
    /// Under [`Order::Strict`] that is the order in which they happened, as far as it can be known. A post
    /// happened when it was posted, a timer when it was due. What the kernel tells without a time
    /// (descriptors, signals, children, files) happened when it told the queue, in the order of its
    /// telling. Of two events, one of which was over before the other began, the first
    /// comes out first, also when the ring is full meanwhile. Quotas do not count; an event costs
    /// several times as much. While the ring is full nothing is asked for, so that
    /// [overflow](crate::Overflow) is a matter of high-water marks.
    ///
    /// It holds for what happens from then on, and not for the user's own [posts](Queue::post), which
    /// are in the ring at once: in front of what is still at its source.
    pub fn set_order(&mut self, order: Order) {
        self.harvest.sources.in_what_order = order;
        self.harvest.waiter.waker().want_stamps(order == Order::Strict);
    }

    /// The source behind `id`; `None` when it is detached or of another queue.
    #[must_use]
    pub fn get<S: Source>(&self, id: SourceId<S>) -> Option<&S> {
        if id.queue() != self.harvest.number {
            return None;
        }
        self.harvest.sources.get(id.token())?.source.as_any().downcast_ref()
    }

    /// The source behind `id`, to use it; `None` when it is detached or of another queue.
    #[must_use]
    pub fn get_mut<S: Source>(&mut self, id: SourceId<S>) -> Option<&mut S> {
        if id.queue() != self.harvest.number {
            return None;
        }
        self.harvest.sources.get_mut(id.token())?.source.as_any_mut().downcast_mut()
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
    /// When a source can no longer work; the error says which ([`SourceError`](crate::SourceError)). The
    /// other sources and the events in the ring are not touched by it: go on taking them out, and
    /// detach the source.
    #[inline]
    pub fn wait(&mut self, wait: impl Into<Wait>) -> io::Result<usize> {
        let wait = wait.into();
        self.set_budget(wait.maximum());
        let enough = (1..=self.harvest.ring.len()).contains(&wait.minimum());
        // What sources have put there comes to an end without a look; what the user posts may not.
        if !enough
            || self.harvest.ring.own() > 0
                && self.harvest.pace.turned(|| self.harvest.waiter.clock().now())
        {
            self.note_return();
            self.harvest.gather(wait)?;
        }
        Ok(self.harvest.ring.len().min(wait.maximum()))
    }

    /// Whoever sleeps on the queue's descriptor is awake, and works with the queue until he
    /// [leaves](Queue::leave) it.
    ///
    /// Without it each call leaves the descriptor as somebody else expects it who may sleep on it that
    /// moment: what is submitted rings, and a turn rings for the events that it found, although who
    /// submits, and is about to take them out, is awake. Between these two calls nothing rings.
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use kevent_core::{Queue, UserEvents, Wait};
    ///
    /// let mut queue = Queue::new()?;
    /// let (users, poster) = UserEvents::new();
    /// queue.attach(users, |n: u32| n)?;
    /// let in_another_loop = queue.as_fd().try_clone_to_owned()?;
    ///
    /// // The other loop has found it readable:
    /// queue.attend();
    /// poster.post(7).unwrap();
    /// queue.wait(Wait::poll())?;
    /// while let Some(n) = queue.next() {
    ///     assert_eq!(n, 7);
    /// }
    /// queue.leave()?;
    /// # drop(in_another_loop);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn attend(&mut self) {
        self.harvest.attend();
    }

    /// The end of [`attend`](Queue::attend): from here on the descriptor tells what there is. It does so
    /// at once for what has come meanwhile, and for events that were not taken out.
    ///
    /// # Errors
    ///
    /// As [`wait`](Queue::wait).
    pub fn leave(&mut self) -> io::Result<()> {
        self.harvest.leave()
    }

    /// Takes the next event out, in the order in which they came into the ring. Makes no system call.
    ///
    /// `None` when the ring is empty, or when as many were taken as the last wait allowed.
    #[allow(clippy::should_implement_trait)] // An iterator could not be left alone between two events.
    #[inline]
    pub fn next(&mut self) -> Option<E> {
        self.take().map(|taken| taken.event)
    }

    /// As [`next`](Queue::next), with what the queue knows of the event.
    ///
    /// Until this is first called the queue reads no clock for its events: those that are in the ring at
    /// that time have then.
    pub fn next_stamped(&mut self) -> Option<Stamped<E>> {
        self.harvest.stamps = true;
        self.take().map(|taken| {
            let Taken { source, token, event, seen, sequence } = taken;
            let clock = self.harvest.waiter.clock();
            let seen = clock.instant(if seen == UNDATED { clock.turn_nanos() } else { seen });
            Stamped { event, sequence, seen, source, token }
        })
    }

    // Always: handed on in memory, from call to call, an event costs twice as much.
    #[inline(always)]
    fn take(&mut self) -> Option<Taken<E>> {
        while self.budget > 0 {
            let taken = self.harvest.ring.pop()?;
            if taken.source == OWN || self.harvest.sources.deliver(taken.source, taken.token) {
                self.budget -= 1;
                return Some(taken);
            }
        }
        if self.watched.is_some() { self.take_watched() } else { None }
    }

    /// Takes the oldest event out, whether it is still wanted or not: for a queue around this one, which
    /// asks for it when its own user takes it.
    pub(crate) fn take_unconfirmed(&mut self) -> Option<Taken<E>> {
        self.harvest.ring.pop()
    }

    /// Puts back the event that was taken unconfirmed last.
    pub(crate) fn put_back(&mut self, taken: Taken<E>) {
        self.harvest.ring.put_back(taken);
    }

    /// Asks the source of an event that was taken unconfirmed whether it is still wanted.
    pub(crate) fn confirm(&mut self, source: Token, token: Token) -> bool {
        if source == OWN {
            return true;
        }
        let wanted = self.harvest.sources.deliver(source, token);
        if self.harvest.has_news(source) {
            self.harvest.waiter.waker().changed();
        }
        wanted
    }

    /// As [`take`](Queue::take), and writes it down.
    #[cold]
    fn take_watched(&mut self) -> Option<Taken<E>> {
        let Watched { progress, budget } = self.watched.take()?;
        self.budget = budget;
        let taken = self.take();
        let budget = std::mem::take(&mut self.budget);
        if let Some(taken) = &taken {
            progress.takes(taken.sequence, taken.source, taken.token);
        }
        self.watched = Some(Watched { progress, budget });
        taken
    }

    /// The loop is in the queue again, and not in an event.
    fn note_return(&self) {
        if let Some(watched) = &self.watched {
            watched.progress.is_back();
        }
    }

    /// So many events may be taken.
    #[inline]
    fn set_budget(&mut self, budget: usize) {
        match &mut self.watched {
            None => self.budget = budget,
            Some(watched) => watched.budget = budget,
        }
    }

    /// Puts an event of the user's own into the ring, behind those that are there. For the thread that
    /// has the queue; others have a [`Poster`](crate::Poster).
    ///
    /// As cheap as an event can be: it needs no source, no lock and no clock. As its time it gets that of
    /// the queue's last turn.
    ///
    /// # Errors
    ///
    /// The event, when as many posts lie in the ring as it has [capacity](Queue::capacity). Events of
    /// sources do not count; they have their own room.
    #[inline]
    pub fn post(&mut self, event: E) -> Result<(), Full<E>> {
        if let Err(event) = self.harvest.ring.post(event, UNDATED) {
            self.refused += 1;
            return Err(Full(event));
        }
        self.harvest.waiter.waker().changed();
        Ok(())
    }

    /// What makes this queue's wait come back from elsewhere, without an event.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.harvest.interrupts.interrupter(self.harvest.waiter.waker())
    }

    /// Lets another thread see in which event this loop is stuck, if it ever is. From now on the loop
    /// writes down what it hands out, which takes a nanosecond or two for each event.
    ///
    /// An event counts as in hand until the next one is, or until a wait that finds the ring empty.
    pub fn stall_monitor(&mut self) -> StallMonitor {
        let watched = self.watched.get_or_insert_with(|| {
            let progress = Arc::new(Progress::new(self.harvest.sources.names()));
            Watched { progress, budget: std::mem::take(&mut self.budget) }
        });
        StallMonitor::new(Arc::clone(&watched.progress))
    }

    /// What the queue and each of its sources counted, as of now: for logs, and for people.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            capacity: self.capacity(),
            len: self.len(),
            stats: self.stats(),
            sources: self.harvest.sources.snapshot(),
        }
    }

    /// Lets [`wait`](Queue::wait) watch for a wake-up for a moment before it sleeps in the kernel, as long as
    /// that pays: whoever woke it last did so from another processor, and not too few such moments
    /// ended in a wake-up. Zero, which it is at first, for never.
    ///
    /// A thread on another processor is then answered in a fraction of a microsecond instead of tens of
    /// them. It costs processor time when nobody comes; and a descriptor that gets ready meanwhile
    /// waits for the moment to be over. Ten or twenty microseconds are sensible.
    pub fn set_spin(&mut self, limit: Duration) {
        self.harvest.waiter.waker().note_cpus(!limit.is_zero());
        self.harvest.spin.set_limit(limit);
    }

    /// The clock by which the queue and its sources go. A program that takes the time from here, and
    /// from nowhere else, runs unchanged in a [simulated](crate::testing::Sim) queue.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.harvest.waiter.clock()
    }

    /// How many events the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.harvest.ring.capacity()
    }

    /// How many events are in the ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.harvest.ring.len()
    }

    /// Whether no event is in the ring. The sources may have some all the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.harvest.ring.is_empty()
    }

    /// Counters since the queue was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.harvest.sources.stats();
        stats.delivered += self.harvest.ring.own_taken();
        stats.refused += self.refused;
        let Meter { polls, interrupts, handling, lag, .. } = self.harvest.meter;
        Stats { polls, interrupts, handling, lag, ..stats }
    }

    /// What one source counted; `None` when it is detached or of another queue.
    #[must_use]
    pub fn source_stats<S: Source>(&self, id: SourceId<S>) -> Option<SourceStats> {
        if id.queue() != self.harvest.number {
            return None;
        }
        self.harvest.sources.get(id.token()).map(|attached| attached.gate.stats)
    }
}

/// For several threads, each of which has the queue for itself meanwhile.
impl<E: 'static> Queue<E> {
    /// Takes an event out of the ring, or else what the sources have now, while others may sleep.
    pub(crate) fn take_here(&mut self, others_sleep: bool) -> io::Result<Option<Stamped<E>>> {
        self.set_budget(usize::MAX);
        let event = self.take_among(others_sleep);
        if event.is_some() {
            return Ok(event);
        }
        self.note_return();
        let gathered = self.harvest.gather_among(others_sleep);
        gathered.map(|()| self.take_among(others_sleep))
    }

    fn take_among(&mut self, others_sleep: bool) -> Option<Stamped<E>> {
        let event = self.next_stamped()?;
        if others_sleep {
            // What there is, is then told to them: see `Harvest::has_more`.
            self.harvest.has_news(event.source);
        }
        Some(event)
    }
}

/// [`Queue::as_fd`] tells the sources that somebody else may sleep on the queue from now on.
impl<E> AsFd for Queue<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.harvest.waiter.waker().export();
        self.harvest.waiter.as_fd()
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
        let sources: Vec<_> = self.harvest.sources.names().map(|(_, name)| name).collect();
        f.debug_struct("Queue")
            .field("fd", &self.harvest.waiter.as_fd())
            .field("capacity", &self.harvest.ring.capacity())
            .field("len", &self.harvest.ring.len())
            .field("sources", &sources)
            .finish_non_exhaustive()
    }
}
