//! The queue: sources in, events out.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Index, IndexMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::attached::{Attached, Turn};
use crate::changes::{Changed, Changes};
use crate::clock::Clock;
use crate::flow::{Flow, SourceStats};
use crate::histogram::Histogram;
use crate::interrupt::{Interrupter, Interrupts};
use crate::mask::SignalMask;
use crate::pace::Pace;
use crate::registry::{Order, Registry};
use crate::ring::{OWN, Ring, Taken, UNDATED};
use crate::script::Script;
use crate::sink::Full;
use crate::source::{Due, Source};
use crate::spin::Spin;
use crate::stall::{Progress, StallMonitor};
use crate::stats::{Snapshot, Stats};
use crate::token::Token;
use crate::trace;
use crate::wait::Wait;
use crate::waiter::{Sleeper, Waiter};

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
    ring: Ring<E>,
    sources: Registry<E>,
    waiter: Waiter,
    sleeper: Sleeper,
    /// Events that `next` may still hand out before the next wait.
    budget: usize,
    pace: Pace,
    spin: Spin,
    interrupts: Interrupts,
    /// While somebody watches for stalls.
    watched: Option<Watched>,
    /// What the sources do not count.
    refused: u64,
    polls: u64,
    interrupts_told: u64,
    handling: Histogram,
    lag: Histogram,
    /// When the kernel was looked at, if that look is measured.
    looked: u64,
    measured: bool,
    /// Somebody asks for the times of events.
    stamps: bool,
    /// The last wait had to sleep.
    slept: bool,
    /// Tells its ids from those of other queues.
    number: u64,
}

/// One of so many looks is measured: how long it is since the last one, and how long the user takes for
/// what comes of it.
const MEASURED: u32 = 16;

/// Where the events of this turn go.
fn turn<'q, E>(ring: &'q mut Ring<E>, waiter: &'q Waiter, stamps: bool) -> Turn<'q, E> {
    let clock = waiter.clock();
    Turn { ring, clock, seen: if stamps { clock.turn_nanos() } else { UNDATED }, until: None }
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
        Ok(Queue {
            ring: Ring::new(capacity),
            sources: Registry::new(),
            sleeper: waiter.sleeper(),
            waiter,
            budget: usize::MAX,
            pace: Pace::new(),
            spin: Spin::default(),
            interrupts: Interrupts::default(),
            watched: None,
            refused: 0,
            polls: 0,
            interrupts_told: 0,
            handling: Histogram::default(),
            lag: Histogram::default(),
            looked: 0,
            measured: false,
            stamps: false,
            slept: false,
            number,
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
        let (token, number) = self.sources.insert(source, wrap)?;
        let poll_set = self.waiter.poll_set(number);
        let attached =
            self.sources.get_mut(token).map(|attached| attached.source.attach(&poll_set));
        if let Some(Err(error)) = attached {
            self.remove(token);
            return Err(error);
        }
        if let (Some(watched), Some(attached)) = (&self.watched, self.sources.get(token)) {
            watched.progress.name(token, attached.source.name());
        }
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
        let attached = self.remove(id.token)?;
        attached.source.into_any().downcast().ok().map(|source| *source)
    }

    /// Takes a source out, and out of the poll set what it left there.
    fn remove(&mut self, source: Token) -> Option<Attached<E>> {
        let attached = self.sources.remove(source)?;
        self.waiter.poll_set(attached.number).clear();
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
        if id.queue != self.number {
            return false;
        }
        let Some(attached) = self.sources.get_mut(id.token) else { return false };
        attached.gate.set(flow);
        self.waiter.waker().changed();
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
        self.sources.in_what_order = order;
        self.waiter.waker().want_stamps(order == Order::Strict);
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
    /// When a source can no longer work; the error says which ([`SourceError`](crate::SourceError)). The
    /// other sources and the events in the ring are not touched by it: go on taking them out, and
    /// detach the source.
    #[inline]
    pub fn wait(&mut self, wait: impl Into<Wait>) -> io::Result<usize> {
        let wait = wait.into();
        self.set_budget(wait.maximum());
        let enough = (1..=self.ring.len()).contains(&wait.minimum());
        // What sources have put there comes to an end without a look; what the user posts may not.
        if !enough || self.ring.own() > 0 && self.pace.turned(|| self.waiter.clock().now()) {
            self.gather(wait)?;
        }
        Ok(self.ring.len().min(wait.maximum()))
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
        self.stamps = true;
        self.take().map(|taken| {
            let Taken { source, token, event, seen, sequence } = taken;
            let clock = self.waiter.clock();
            let seen = clock.instant(if seen == UNDATED { clock.turn_nanos() } else { seen });
            Stamped { event, sequence, seen, source, token }
        })
    }

    #[inline]
    fn take(&mut self) -> Option<Taken<E>> {
        while self.budget > 0 {
            let taken = self.ring.pop()?;
            if taken.source == OWN || self.sources.deliver(taken.source, taken.token) {
                self.budget -= 1;
                return Some(taken);
            }
        }
        if self.watched.is_some() { self.take_watched() } else { None }
    }

    /// Takes the oldest event out, whether it is still wanted or not: for a queue around this one, which
    /// asks for it when its own user takes it.
    pub(crate) fn take_unconfirmed(&mut self) -> Option<Taken<E>> {
        self.ring.pop()
    }

    /// Puts back the event that was taken unconfirmed last.
    pub(crate) fn put_back(&mut self, taken: Taken<E>) {
        self.ring.put_back(taken);
    }

    /// Asks the source of an event that was taken unconfirmed whether it is still wanted.
    pub(crate) fn confirm(&mut self, source: Token, token: Token) -> bool {
        if source == OWN {
            return true;
        }
        let wanted = self.sources.deliver(source, token);
        if self.has_news(source) {
            self.waiter.waker().changed();
        }
        wanted
    }

    /// Whether a source has something, now that an event of it was delivered: it may have been held
    /// back until then, or waited for that to go on. Asked where no turn follows by itself. (A failure
    /// is news, and told in the turn that follows.)
    fn has_news(&mut self, source: Token) -> bool {
        let asked = self.sources.get_mut(source).map(Attached::ask);
        matches!(asked, Some(Ok(None) | Err(_)))
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
        if let Err(event) = self.ring.post(event, UNDATED) {
            self.refused += 1;
            return Err(Full(event));
        }
        self.waiter.waker().changed();
        Ok(())
    }

    /// What makes this queue's wait come back from elsewhere, without an event.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.interrupts.interrupter(self.waiter.waker())
    }

    /// Lets another thread see in which event this loop is stuck, if it ever is. From now on the loop
    /// writes down what it hands out, which takes a nanosecond or two for each event.
    ///
    /// An event counts as in hand until the next one is, or until a wait that finds the ring empty.
    pub fn stall_monitor(&mut self) -> StallMonitor {
        let watched = self.watched.get_or_insert_with(|| {
            let progress = Arc::new(Progress::new(self.sources.names()));
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
            sources: self.sources.snapshot(),
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
        self.waiter.waker().note_cpus(!limit.is_zero());
        self.spin.set_limit(limit);
    }

    /// The clock by which the queue and its sources go. A program that takes the time from here, and
    /// from nowhere else, runs unchanged in a [simulated](crate::testing::Sim) queue.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.waiter.clock()
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
        let mut stats = self.sources.stats();
        stats.delivered += self.ring.own_taken();
        stats.refused += self.refused;
        stats.polls = self.polls;
        stats.interrupts = self.interrupts_told;
        stats.handling = self.handling;
        stats.lag = self.lag;
        stats
    }

    /// What one source counted; `None` when it is detached or of another queue.
    #[must_use]
    pub fn source_stats<S: Source>(&self, id: SourceId<S>) -> Option<SourceStats> {
        if id.queue != self.number {
            return None;
        }
        self.sources.get(id.token).map(|attached| attached.gate.stats)
    }

    /// Gathers events until there are enough of them or the time has passed.
    fn gather(&mut self, mut wait: Wait) -> io::Result<()> {
        let wait = &mut wait;
        let _span = trace::wait();
        self.begin_turn();
        let mut outcome = Ok(());
        // A thread that slept last time will do so again, and is going to ask the sources then.
        let mut asked = !self.slept || self.enough(wait) == 0;
        if asked {
            outcome = self.collect();
        }
        // A source that fails at every turn must not keep the others from being looked at.
        if outcome.is_err() || self.pace.wants_a_look() || self.enough(wait) == 0 {
            outcome = outcome.and(self.look(Some(Duration::ZERO), None).map(|_| ()));
        }
        self.slept = false;
        while outcome.is_ok()
            && self.ring.len() < self.enough(wait)
            && !(asked && self.interrupts.pending())
        {
            asked = true;
            let interrupted;
            (interrupted, outcome) = match self.sleep(wait) {
                Ok(interrupted) => (interrupted, Ok(())),
                Err(error) => (false, Err(error)),
            };
            if interrupted && wait.mask().is_some() || wait.is_over(self.waiter.clock()) {
                break;
            }
        }
        self.interrupts_told += self.interrupts.tell();
        self.pace.turned(|| self.waiter.clock().turn());
        if self.waiter.waker().is_exported() {
            outcome = outcome.and(self.leave_for_others());
        }
        outcome
    }

    /// Time has passed since the last turn: in the hands of the user, or of whoever slept for the queue.
    fn begin_turn(&mut self) {
        if let Some(watched) = &self.watched {
            watched.progress.is_back();
        }
        let clock = self.waiter.clock();
        if !self.ring.is_empty() {
            self.ring.date(clock.turn_nanos());
        }
        let before = clock.last_turn_nanos();
        clock.begin_turn();
        if self.measured && !self.waiter.waker().is_exported() {
            // By single nanoseconds the turn before may be ahead of a coarse clock: see `Clock::tick`.
            let handled = clock.turn_nanos().saturating_sub(before);
            self.handling.record_several(handled, MEASURED.into());
        }
    }

    /// How many events would end this wait now. One, if a source may not push what it has before the
    /// user takes some out.
    fn enough(&self, wait: &mut Wait) -> usize {
        let enough = wait.enough(self.waiter.clock()).min(self.ring.capacity());
        let held = enough > 1 && self.sources.any_held();
        if held { 1 } else { enough }
    }

    /// Sleeps until something is there, and fetches it. Says whether a signal ended it.
    fn sleep(&mut self, wait: &mut Wait) -> io::Result<bool> {
        let due = match self.fall_asleep() {
            Ok(due) => due,
            // A source that fails at every turn must not keep the others from being looked at.
            Err(error) => return self.look(Some(Duration::ZERO), None).and(Err(error)),
        };
        if self.ring.len() >= self.enough(wait) {
            self.waiter.waker().wake_up();
            return Ok(false);
        }
        let idle = due != Due::Now && self.sources.may_idle(&self.ring);
        let mut timeout = match due {
            // It is idle only if the kernel has nothing either.
            _ if idle => Some(Duration::ZERO),
            Due::Now | Due::WhenIdle => Some(Duration::ZERO),
            Due::At(instant) => wait.sleep(Some(instant), self.waiter.clock()),
            Due::OnWake => wait.sleep(None, self.waiter.clock()),
        };
        if timeout != Some(Duration::ZERO) {
            let real = self.waiter.script().is_none();
            if real && self.spin.is_woken(self.waiter.waker(), &mut timeout) {
                self.waiter.clock().begin_turn();
                return self.collect().map(|()| false);
            }
            if let Some(deadline) = wait.wall() {
                self.waiter.set_wall(deadline)?;
            }
        }
        self.slept = true;
        let interrupted = self.look(timeout, wait.mask())?;
        // Whoever rang is none of which the kernel spoke; those with a deadline are not, either. They
        // may come now or in the next turn, so in a simulation they do both.
        if self.ring.len() < self.enough(wait) || self.waiter.script().is_some() {
            self.collect()?;
        }
        if idle && self.sources.may_idle(&self.ring) && !wait.is_over(self.waiter.clock()) {
            self.sources.idle_turn(&mut turn(&mut self.ring, &self.waiter, self.stamps))?;
        }
        Ok(interrupted)
    }

    /// From here on others ring who have something for this thread. Says when there will be something:
    /// now, if something came meanwhile.
    fn fall_asleep(&mut self) -> io::Result<Due> {
        // The sources are looked at only once it is known that others would ring: see `waker`.
        self.waiter.waker().fall_asleep();
        let before = self.ring.len();
        let due = self.collect_due()?;
        let here = self.ring.len() > before || self.interrupts.pending();
        Ok(if here { Due::Now } else { due })
    }

    /// One look at the kernel, then one at those sources of which it spoke. The thread is awake after
    /// it. Says whether a signal ended it.
    fn look(&mut self, timeout: Option<Duration>, mask: Option<SignalMask>) -> io::Result<bool> {
        let span = trace::look();
        self.is_about_to_look();
        let slept = self.sleeper.sleep(timeout, mask);
        self.waiter.waker().wake_up();
        let interrupted = slept?;
        self.has_looked();
        span.end();
        self.sources.hear(self.sleeper.found(), self.waiter.clock());
        self.sources.turn_of_heard(&mut turn(&mut self.ring, &self.waiter, self.stamps))?;
        Ok(interrupted)
    }

    fn is_about_to_look(&mut self) {
        let clock = self.waiter.clock();
        if !self.ring.is_empty() {
            self.ring.date(clock.turn_nanos());
        }
        self.pace.looks(|| clock.turn());
        if self.measured {
            self.lag
                .record_several(clock.turn_nanos().saturating_sub(self.looked), MEASURED.into());
        }
        self.polls += 1;
        self.measured = self.polls % u64::from(MEASURED) == 0;
    }

    /// Time has passed, in the kernel.
    fn has_looked(&mut self) {
        let clock = self.waiter.clock();
        clock.begin_turn();
        if self.measured {
            self.looked = clock.turn_nanos();
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        self.collect_due().map(|_| ())
    }

    /// Asks every source what it has, moves it into the ring, and says when there will be more.
    fn collect_due(&mut self) -> io::Result<Due> {
        if let Some(script) = self.waiter.script() {
            self.sources.simulate(script, self.number);
        }
        self.sources.turn(&mut turn(&mut self.ring, &self.waiter, self.stamps))
    }

    /// Leaves the descriptor as those expect it who may sleep on it now: it rings from here on,
    /// it is readable if events are left, and it will be at the next deadline.
    fn leave_for_others(&mut self) -> io::Result<()> {
        self.waiter.waker().fall_asleep();
        let due = self.collect_due();
        // After a failure the deadlines are not known: let the queue look again. An interrupt may have
        // come since the wait was told of those before, when nobody slept yet.
        let more = matches!(due, Ok(Due::Now) | Err(_)) || self.interrupts.pending();
        if more || !self.ring.is_empty() {
            self.waiter.waker().ring();
        }
        self.waiter.set_alarm(match due? {
            Due::At(instant) => Some(instant),
            Due::Now | Due::WhenIdle | Due::OnWake => None,
        })
    }
}

/// For several threads, each of which has the queue for itself meanwhile.
impl<E: 'static> Queue<E> {
    /// A place for another thread to sleep.
    pub(crate) fn sleeper(&self) -> Sleeper {
        self.waiter.sleeper()
    }

    /// A file in the queue's set that wakes all who sleep on it, once it is readable, until it is not.
    pub(crate) fn add_gong(&self, gong: BorrowedFd<'_>) -> io::Result<()> {
        self.waiter.add_gong(gong)
    }

    /// From now on, what changes is told to those who sleep, whoever changes it.
    pub(crate) fn share(&mut self) -> io::Result<()> {
        self.waiter.waker().export();
        // That rang. Nobody sleeps yet, and the first to do so is not to wake for it.
        self.look(Some(Duration::ZERO), None).map(|_| ())
    }

    /// Takes an event out of the ring, or else what the sources have now, while others may sleep.
    pub(crate) fn take_here(&mut self, others_sleep: bool) -> io::Result<Option<Stamped<E>>> {
        self.set_budget(usize::MAX);
        let event = self.take_among(others_sleep);
        if event.is_some() {
            return Ok(event);
        }
        self.begin_turn();
        let mut outcome = self.collect();
        if self.pace.turned(|| self.waiter.clock().turn()) {
            outcome = outcome.and(self.look(Some(Duration::ZERO), None).map(|_| ()));
            outcome = outcome.and(self.watch_for(others_sleep));
        }
        outcome.map(|()| self.take_among(others_sleep))
    }

    fn take_among(&mut self, others_sleep: bool) -> Option<Stamped<E>> {
        let event = self.next_stamped()?;
        if others_sleep {
            // What there is, is then told to them: see `has_more`.
            self.has_news(event.source);
        }
        Some(event)
    }

    /// Whether an interrupt ends this wait.
    pub(crate) fn is_interrupted(&mut self) -> bool {
        let told = self.interrupts.tell();
        self.interrupts_told += told;
        told > 0
    }

    /// A thread is about to sleep, for as long as is said here; for ever if nothing is.
    pub(crate) fn send_to_sleep(&mut self, wait: &mut Wait) -> io::Result<Option<Duration>> {
        let due = self.fall_asleep()?;
        self.is_about_to_look();
        if due == Due::Now {
            return Ok(Some(Duration::ZERO));
        }
        // Not the time that this thread sleeps: one is to wake for it, and not all.
        self.waiter.set_alarm(match due {
            Due::At(instant) => Some(instant),
            Due::Now | Due::WhenIdle | Due::OnWake => None,
        })?;
        Ok(wait.sleep(None, self.waiter.clock()))
    }

    /// A thread has slept; others may go on sleeping.
    pub(crate) fn come_back(&mut self, sleeper: &Sleeper, others_sleep: bool) -> io::Result<()> {
        self.waiter.waker().wake_up();
        self.has_looked();
        self.sources.hear(sleeper.found(), self.waiter.clock());
        let heard =
            self.sources.turn_of_heard(&mut turn(&mut self.ring, &self.waiter, self.stamps));
        heard.and(self.watch_for(others_sleep))
    }

    /// After a look: what it found ready, the doorbell and the alarm among it, wakes none of those who
    /// sleep on. They are to be woken for what comes next, whatever this thread does meanwhile.
    fn watch_for(&mut self, others_sleep: bool) -> io::Result<()> {
        if others_sleep {
            // Before the sources are looked at: see `waker`.
            self.waiter.waker().fall_asleep();
        }
        match self.collect_due()? {
            Due::At(_) if !others_sleep => Ok(()),
            Due::At(instant) => self.waiter.set_alarm(Some(instant)),
            Due::Now | Due::WhenIdle | Due::OnWake => Ok(()),
        }
    }
}

impl<E> Queue<E> {
    /// Tells it from other queues: see [`SourceId::queue`].
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether there is something for another thread.
    pub(crate) fn has_more(&self) -> bool {
        !self.ring.is_empty() || self.sources.any_ready() || self.interrupts.pending()
    }

    /// Wakes a thread that sleeps.
    pub(crate) fn ring(&self) {
        self.waiter.waker().ring();
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
        let sources: Vec<_> = self.sources.names().map(|(_, name)| name).collect();
        f.debug_struct("Queue")
            .field("fd", &self.waiter.as_fd())
            .field("capacity", &self.ring.capacity())
            .field("len", &self.ring.len())
            .field("sources", &sources)
            .finish_non_exhaustive()
    }
}

/// An event with what the queue knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamped<E> {
    /// The event.
    pub event: E,
    /// How many events came into the ring before it. A gap in what comes out is an event that was
    /// withheld, because its registration had been removed.
    pub sequence: u64,
    /// When the queue saw it: the time of the turn in which it came into the ring.
    pub seen: Instant,
    /// Of which source it is: as [`SourceId::token`], or [`Token::SOLE`] if the user
    /// [posted](Queue::post) it himself.
    pub source: Token,
    /// Of which registration of that source.
    pub token: Token,
}

impl<E> Stamped<E> {
    /// The same of another event.
    pub fn map<T>(self, change: impl FnOnce(E) -> T) -> Stamped<T> {
        let Stamped { event, sequence, seen, source, token } = self;
        Stamped { event: change(event), sequence, seen, source, token }
    }
}

/// Names a source of a queue, and its type.
pub struct SourceId<S> {
    queue: u64,
    token: Token,
    source: PhantomData<fn() -> S>,
}

impl<S> SourceId<S> {
    /// Tells the source from the others of its queue: see [`Stamped::source`].
    #[must_use]
    pub fn token(self) -> Token {
        self.token
    }

    /// Of which queue it is.
    pub(crate) fn queue(self) -> u64 {
        self.queue
    }
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
