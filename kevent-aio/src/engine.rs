//! The engine: takes operations in, chooses the way for each, and gives completions out.

mod drain;
mod groups;
mod jobs;
mod lines;
mod pieces;
mod source;
mod turn;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::time::Instant;

use kevent_core::{PollSet, Table, Token};

use crate::backend::Job;
use crate::backend::pool::Pool;
use crate::backend::uring::Uring;
use crate::barriers::Barriers;
use crate::completion::{Cancel, Started, SubmitError};
use crate::flight::{Flight, Reason, Stage};
use crate::meter::Meter;
use crate::operation::{Errno, Fd, Operation, Order, Outcome, Side, Step};
use crate::ops::Op;
use crate::recent::Recent;
use crate::report::{Counters, Refusal, Report, Way};
use crate::sockets::Sockets;
use crate::ways::Ways;

/// Asynchronous I/O as a source of a queue.
///
/// [`submit`](Aio::submit) takes an operation and never blocks; when it is done one [`Completion`](crate::Completion)
/// comes out of the queue and gives the operation back, with buffers and descriptors. What does not
/// block is done at once. The rest goes to io_uring in batches, one system call for each turn of the
/// queue; or to a bounded pool of threads, where io_uring can't be had or is refused later on. Which of
/// the two makes no difference to the program; [`report`](Aio::report) tells.
///
/// The engine owns what an operation works on until the kernel is done with it. If the engine is
/// dropped before, it cancels what is in flight and waits for a second at most. What the kernel does not let
/// go of by then is left to a thread, which ends with it, as is what a thread of the pool is stuck in.
///
/// After a `fork` the child must not use the engine of its parent, nor the queue: what it submitted
/// would complete in the parent, and what it took out the parent would miss. It may drop the engine,
/// which leaves the parent's operations alone.
///
/// In a queue of a [`Sim`](kevent_core::testing::Sim) the engine does everything on the queue's thread, which
/// takes no made-up time: an operation that waits for somebody, as a read of a pipe may, would wait for
/// ever. See [`testing::lying`](crate::testing::lying) for delays and errors.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Read};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let file = Arc::new(std::fs::File::open("/proc/self/status")?);
/// for key in 0..4 {
///     let read = Read::new(file.clone(), key * 16, Vec::with_capacity(16));
///     queue[aio].submit(read, key).unwrap();
/// }
/// let mut keys = Vec::new();
/// while keys.len() < 4 {
///     queue.wait(None)?;
///     while let Some(completion) = queue.next() {
///         assert_eq!(completion.result?, 16);
///         keys.push(completion.key);
///     }
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct Aio {
    flights: Table<Flight>,
    capacity: usize,
    ring: Option<Uring>,
    refusal: Option<Refusal>,
    pool: Pool,
    /// How many operations the pool has.
    on_pool: usize,
    /// Operations for the ring that wait for room on it, in order; some may be gone since.
    backlog: VecDeque<Token>,
    sockets: Sockets,
    /// Whether the queue has the set of the sockets in its own.
    sockets_polled: bool,
    /// Whether a socket is ready.
    sockets_ready: bool,
    /// Operations that can go on: their turn on their socket has come, or they let others have a turn.
    /// Some may be gone since.
    runnable: VecDeque<Token>,
    /// Operations that bring more than is taken. Some may be gone since.
    resting: VecDeque<Token>,
    barriers: Barriers,
    deadlines: BTreeSet<(Instant, Token)>,
    /// What is done, in order. Some may be gone since.
    done: VecDeque<Token>,
    ways: Ways,
    counters: Counters,
    recent: Recent,
    meter: Box<Meter>,
    queue: Option<PollSet>,
}

impl Aio {
    pub(crate) fn assemble(
        ring: Option<Uring>,
        refusal: Option<Refusal>,
        pool: Pool,
        capacity: usize,
    ) -> Aio {
        Aio {
            flights: Table::new(),
            capacity,
            ring,
            refusal,
            pool,
            on_pool: 0,
            backlog: VecDeque::new(),
            sockets: Sockets::default(),
            sockets_polled: false,
            sockets_ready: false,
            runnable: VecDeque::new(),
            resting: VecDeque::new(),
            barriers: Barriers::default(),
            deadlines: BTreeSet::new(),
            done: VecDeque::new(),
            ways: Ways::new(),
            counters: Counters::default(),
            recent: Recent::default(),
            meter: Box::default(),
            queue: None,
        }
    }

    /// Takes `op` in. Its completion, which carries `key`, comes out of the queue. Never blocks.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when as many operations are in flight as the capacity allows, `InvalidInput` when
    /// the operation can't be meant. It is given back.
    pub fn submit(&mut self, op: impl Into<Op>, key: u64) -> Result<Token, SubmitError> {
        self.admit(Box::new(op.into()), key, None)
    }

    /// Takes `op` in, and cancels it if it is not done by `deadline`. The result is `TimedOut` then;
    /// if it was done nevertheless, because it could not be stopped, what it is.
    ///
    /// # Errors
    ///
    /// As [`submit`](Aio::submit).
    pub fn submit_until(
        &mut self,
        op: impl Into<Op>,
        key: u64,
        deadline: Instant,
    ) -> Result<Token, SubmitError> {
        self.admit(Box::new(op.into()), key, Some(deadline))
    }

    /// Begins `op`. If it can be done at once, without blocking, it is done when this returns, and nothing of it
    /// comes out of the queue: as cheap as the call itself. Else it is as if it had been
    /// [submitted](Aio::submit).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use kevent_aio::{Aio, Read, Started};
    /// use kevent_core::Queue;
    ///
    /// let mut queue = Queue::new()?;
    /// let aio = queue.attach(Aio::new()?, |completion| completion)?;
    ///
    /// let file = Arc::new(std::fs::File::open("/proc/self/status")?);
    /// let count = match queue[aio].start(Read::new(file, 0, Vec::with_capacity(16)), 1)? {
    ///     Started::Done { result, .. } => result?,
    ///     Started::InFlight(_) => {
    ///         queue.wait(None)?;
    ///         queue.next().unwrap().result?
    ///     }
    /// };
    /// assert_eq!(count, 16);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`submit`](Aio::submit).
    pub fn start(&mut self, op: impl Into<Op>, key: u64) -> Result<Started, SubmitError> {
        let mut op = op.into();
        let order = op.order();
        if !self.may_begin(&mut op, order)
            || self.flights.len() >= self.capacity
            || op.check().is_err()
        {
            return self.admit(Box::new(op), key, None).map(Started::InFlight);
        }
        let step = self.first_step(&mut op);
        let Step::Done(result) = step else {
            let line = matches!(order, Order::InLine(_)).then_some(Side::Writing);
            let token = self.flights.insert(Flight { order, line, ..Flight::new(key, None) });
            if let Order::InLine(socket) = order {
                self.sockets.join(socket, Side::Writing, token);
            }
            self.go_on(token, Box::new(op), step);
            self.changed();
            return Ok(Started::InFlight(token));
        };
        if matches!(order, Order::InLine(_)) {
            op.remember(&mut self.recent);
        } else {
            self.ways.went_back();
        }
        self.counters.inline += 1;
        Ok(Started::Done { op, result })
    }

    /// Whether `op` may be begun where the user has it. What is written to a socket has its turn there.
    fn may_begin(&self, op: &mut Op, order: Order) -> bool {
        match order {
            Order::InLine(socket) => {
                op.begins_at_once() && self.sockets.is_free(socket, Side::Writing)
            }
            _ => op.reading().is_some_and(|reading| !reading.cold),
        }
    }

    /// Asks for an operation to end early.
    ///
    /// One completion comes in any case, and tells the truth: that it
    /// [was cancelled](crate::Completion::was_cancelled), or the result if the operation was done before it
    /// could be stopped. What is at work in the pool, a read of a pipe for example, can't be stopped: it ends
    /// when it ends. Nor, on the ring either, can a call that a file server (FUSE, NFS) has taken and does not
    /// answer: the kernel itself waits for that. Who wants no more of it [abandons](Aio::abandon) it.
    pub fn cancel(&mut self, token: Token) -> Cancel {
        let answer = self.end(token, Reason::Cancelled);
        self.changed();
        answer
    }

    /// Forgets an operation: no completion of it comes out any more, not even one that is in the queue.
    ///
    /// It is not cancelled (cancel it first if it is to be): it goes on, the engine owns what it needs
    /// meanwhile, and drops that in the end; a file that it opens is closed. But what has no end of its own,
    /// [`AcceptMany`](crate::AcceptMany), is cancelled. `false` if there is no such operation any more.
    pub fn abandon(&mut self, token: Token) -> bool {
        let Some(flight) = self.flights.get_mut(token) else { return false };
        if flight.abandoned {
            return false;
        }
        match flight.stage {
            Stage::Done(..) | Stage::Handed => drop(self.flights.remove(token)),
            Stage::Together(_) => {
                flight.abandoned = true;
                for member in self.members(token) {
                    self.abandon(member);
                }
            }
            _ => {
                flight.abandoned = true;
                if let Some(pieces) = &mut flight.pieces {
                    pieces.waiting.clear();
                }
                self.end_the_endless(token);
            }
        }
        true
    }

    /// How many operations were submitted and have not come out of the queue as completions.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The operation, to see how far it is; `None` while a backend has it, and when it is done.
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&Op> {
        self.flights.get(token)?.waiting()
    }

    /// How many operations may be in flight.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes a file known to the kernel, where there is a ring: operations on it then cost less. It is kept open
    /// until it is [unregistered](Aio::unregister_file), or the engine goes. Says whether it is known now; it is
    /// not where there is no ring, and when 64 files are known already. Operations on it work in any case.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn register_file(&mut self, file: &Fd) -> io::Result<bool> {
        self.ring.as_mut().map_or(Ok(false), |ring| ring.register_file(file))
    }

    /// Takes that back. Says whether the file was known.
    pub fn unregister_file(&mut self, file: &Fd) -> bool {
        self.ring.as_mut().is_some_and(|ring| ring.unregister_file(file))
    }

    /// What does the work, why, and how much.
    #[must_use]
    pub fn report(&self) -> Report {
        let on_ring = self.ring.as_ref().is_some_and(Uring::works);
        Report {
            backend: if on_ring { Way::Ring } else { Way::Pool },
            refusal: self.refusal,
            knows_buffers: self.ring.as_ref().is_some_and(Uring::knows_buffers),
            counters: self.counters,
            in_flight: self.flights.len(),
            waits_for_pool: self.meter.waits,
            latencies: self.meter.latencies(),
        }
    }

    /// From here on the operation stays where it is: the kernel may point into it, and it is moved no more.
    fn admit(
        &mut self,
        mut op: Box<Op>,
        key: u64,
        deadline: Option<Instant>,
    ) -> Result<Token, SubmitError> {
        if let Err(error) = self.has_room_for(&op).and_then(|()| op.check()) {
            return Err(SubmitError { error, op: *op });
        }
        let token = match op.as_mut() {
            Op::Group(_) => self.take_apart(op, key, deadline),
            Op::RecvMany(recv) => {
                self.provide(recv);
                self.take_in(op, key, deadline, None)
            }
            _ => self.take_in(op, key, deadline, None),
        };
        self.changed();
        Ok(token)
    }

    fn has_room_for(&self, op: &Op) -> io::Result<()> {
        let places = if let Op::Group(group) = op { 1 + group.len() } else { 1 };
        if places <= self.capacity - self.flights.len().min(self.capacity) {
            return Ok(());
        }
        let text = format!(
            "{} operations are in flight of {} that the capacity allows: take completions out",
            self.flights.len(),
            self.capacity
        );
        Err(io::Error::new(io::ErrorKind::WouldBlock, text))
    }

    /// Begins an operation that was admitted.
    fn take_in(
        &mut self,
        op: Box<Op>,
        key: u64,
        deadline: Option<Instant>,
        group: Option<Token>,
    ) -> Token {
        let order = op.order();
        let line = matches!(order, Order::InLine(_)).then_some(Side::Writing);
        let token = self.insert(Flight { group, order, line, ..Flight::new(key, deadline) });
        if self.has_to_wait(token, order) {
            self.put(token, Stage::InLine(op));
        } else {
            self.begin(token, op);
        }
        token
    }

    fn insert(&mut self, flight: Flight) -> Token {
        let deadline = flight.deadline;
        let token = self.flights.insert(flight);
        self.deadlines.extend(deadline.map(|deadline| (deadline, token)));
        token
    }

    /// The first step.
    fn begin(&mut self, token: Token, mut op: Box<Op>) {
        let step = self.first_step(&mut op);
        self.go_on(token, op, step);
    }

    /// Has an operation that reads look whether it can be done at once, if that is likely, and cheaper than to be
    /// one of a batch.
    fn first_step(&mut self, op: &mut Op) -> Step {
        let on_ring = self.ring.as_ref().is_some_and(Uring::works);
        let Some(reading) = op.reading() else {
            op.recall(&self.recent);
            return op.advance();
        };
        if !self.ways.wants_look(reading, on_ring) {
            return Step::Run;
        }
        let step = op.advance();
        if let Some(reading) = op.reading() {
            self.ways.looked(reading, matches!(step, Step::Done(_)));
        }
        step
    }

    /// Does what an operation asked for; or has it end early, if that is wanted by now.
    fn go_on(&mut self, token: Token, mut op: Box<Op>, mut step: Step) {
        if let Step::Piece = step {
            // Before it may end: what the kernel has given is not lost.
            self.tell_piece(token, op.take_piece());
        }
        if !matches!(step, Step::Done(_)) {
            if let Some(reason) = self.flights.get_mut(token).and_then(Flight::take_end) {
                step = op.abort(reason.error());
            }
        }
        match step {
            Step::Done(result) => self.finish(token, op, result),
            Step::Run => self.run(Job { token, op }),
            Step::Writable => self.arm(token, op, Side::Writing),
            Step::Again => {
                self.runnable.push_back(token);
                self.put(token, Stage::Armed(op));
            }
            Step::Rest | Step::Piece => {
                self.resting.push_back(token);
                self.put(token, Stage::Armed(op));
            }
        }
    }

    /// A step was done by `way`.
    fn complete(&mut self, mut job: Job, outcome: Outcome, way: Way) {
        let Some(flight) = self.flights.get_mut(job.token) else { return };
        flight.stage = Stage::Here;
        flight.way = way;
        let stopped = matches!(outcome, Err(Errno(libc::ECANCELED | libc::EINTR)));
        let step = if stopped && flight.end.is_some() {
            // Not the step's own outcome: `go_on` tells the operation why.
            Step::Run
        } else {
            job.op.complete(outcome)
        };
        self.go_on(job.token, job.op, step);
    }

    /// An operation has its result.
    fn finish(&mut self, token: Token, op: Box<Op>, result: io::Result<u64>) {
        let Some(flight) = self.flights.get_mut(token) else { return };
        self.counters.inline +=
            u64::from(flight.way == Way::Inline && !matches!(*op, Op::Group(_)));
        if let Some(deadline) = flight.deadline {
            self.deadlines.remove(&(deadline, token));
        }
        if let Some(side) = flight.line {
            op.remember(&mut self.recent);
            if let Some(socket) = op.socket_at(side) {
                self.runnable.extend(self.sockets.leave(socket, side, token));
            }
        }
        if matches!(flight.order, Order::Write(_)) && !self.barriers.is_empty() {
            self.runnable.extend(self.barriers.done(token));
        }
        flight.stage = Stage::Done(op, result);
        match flight.group {
            Some(group) => self.settle(token, group),
            None => self.tell(token),
        }
    }

    /// The user is to have the completion of what is done, unless he has said that he does not want it.
    fn tell(&mut self, token: Token) {
        if self.flights.get(token).is_some_and(|flight| flight.abandoned) {
            self.flights.remove(token);
        } else {
            self.done.push_back(token);
        }
    }

    /// Has an operation end early.
    fn end(&mut self, token: Token, reason: Reason) -> Cancel {
        let Some(flight) = self.flights.get_mut(token) else { return Cancel::NotFound };
        if flight.abandoned && flight.end.is_some() {
            return Cancel::NotFound;
        }
        if flight.end.is_some() || flight.ended.is_some() {
            return Cancel::Requested;
        }
        if let Some(op) = flight.take_waiting() {
            flight.end = Some(reason);
            self.stop_waiting(token, &op);
            self.go_on(token, op, Step::Run);
            return Cancel::Requested;
        }
        if let Stage::Together(_) = flight.stage {
            // Before its members are: they come on their own then.
            self.finish_group(token, Some(reason));
            for member in self.members(token) {
                self.end(member, reason);
            }
            return Cancel::Requested;
        }
        match flight.stage {
            Stage::OnRing => {
                flight.end = Some(reason);
                if let Some(ring) = &mut self.ring {
                    ring.cancel(token);
                }
            }
            Stage::OnPool => {
                flight.end = Some(reason);
                if let Some(job) = self.pool.take_back(token) {
                    self.on_pool -= 1;
                    self.go_on(token, job.op, Step::Run);
                }
            }
            // Done, which the completion says.
            _ => {}
        }
        Cancel::Requested
    }

    fn put(&mut self, token: Token, stage: Stage) {
        if let Some(flight) = self.flights.get_mut(token) {
            flight.stage = stage;
        }
    }

    fn now(&self) -> Instant {
        self.queue.as_ref().map_or_else(Instant::now, |queue| queue.clock().now())
    }

    /// The next flush may say something else than the last one.
    fn changed(&self) {
        if let Some(queue) = &self.queue {
            queue.waker().changed();
        }
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        self.ring.take().into_iter().for_each(Uring::farewell);
    }
}

impl fmt::Debug for Aio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aio")
            .field("in_flight", &self.flights.len())
            .field("capacity", &self.capacity)
            .field("ring", &self.ring)
            .field("pool", &self.pool)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
