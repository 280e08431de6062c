//! What backends have: handed to the ring or to the pool, and back from them.

use super::Aio;
use crate::backend::pool::Worked;
use crate::backend::uring::{Pushed, Reaped, Uring};
use crate::backend::{Done, Job};
use crate::flight::Stage;
use crate::meter::Class;
use crate::operation::{Errno, Operation, Step};
use crate::report::{Refusal, Way};

impl Aio {
    /// Hands a job to the ring if that works and has room, or to the pool.
    pub(super) fn run(&mut self, job: Job) {
        let ring_works = self.ring.as_ref().is_some_and(Uring::works);
        if ring_works && !self.backlog.is_empty() {
            // Not before those who wait already.
            return self.run_later(job);
        }
        self.push(job);
    }

    pub(super) fn push(&mut self, job: Job) {
        let token = job.token;
        let Some(ring) = &mut self.ring else { return self.run_on_pool(job) };
        match ring.push(job) {
            Ok(Pushed::Yes) => self.put(token, Stage::OnRing),
            Ok(Pushed::Full(job)) => self.run_later(job),
            Ok(Pushed::Unable(job)) => self.run_on_pool(job),
            Err((job, refusal)) => {
                self.lose_ring(refusal);
                self.run_instead(job);
            }
        }
    }

    fn run_later(&mut self, job: Job) {
        self.backlog.push_back(job.token);
        self.put(job.token, Stage::Backlog(job.op));
    }

    /// What waits for a socket holds no thread: there may be a thousand of it.
    fn run_on_pool(&mut self, job: Job) {
        let token = job.token;
        if let Some(side) = job.op.waits_for() {
            return self.arm(token, job.op, side);
        }
        self.put(token, Stage::OnPool);
        match self.pool.start(job) {
            Ok(()) => self.on_pool += 1,
            // The step fails, not the engine.
            Err((job, error)) => self.complete(job, Err(Errno::from(error)), Way::Pool),
        }
    }

    /// Has the pool do what the ring did not, unless it is to end now anyway.
    fn run_instead(&mut self, job: Job) {
        if self.flights.get(job.token).is_some_and(|flight| flight.end.is_some()) {
            return self.go_on(job.token, job.op, Step::Run);
        }
        self.counters.fallbacks += 1;
        self.run_on_pool(job);
    }

    /// The ring takes nothing any more: from now on the pool does everything. What the kernel has taken
    /// still comes in.
    pub(super) fn lose_ring(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        let jobs = self.ring.as_mut().map(Uring::take_back).unwrap_or_default();
        for job in jobs {
            self.run_instead(job);
        }
    }

    /// Moves what waits for room to the ring, as far as there is room.
    pub(super) fn refill(&mut self) {
        for _ in 0..self.backlog.len() {
            let full = self.ring.as_ref().is_some_and(|ring| ring.works() && ring.is_full());
            if full {
                return;
            }
            let Some(token) = self.backlog.pop_front() else { return };
            let Some(flight) = self.flights.get_mut(token) else { continue };
            if !matches!(flight.stage, Stage::Backlog(_)) {
                continue;
            }
            let Some(op) = flight.take_waiting() else { continue };
            self.push(Job { token, op });
        }
    }

    /// Goes on with an operation that the ring has done; `false` when there is none.
    pub(super) fn reap_ring(&mut self) -> bool {
        match self.ring.as_mut().and_then(Uring::reap) {
            Some(Reaped::Done(Done { job, outcome }, since)) => {
                self.counters.ring += 1;
                self.meter.by_ring(Class::of(&job.op), since);
                self.complete(job, outcome, Way::Ring);
            }
            Some(Reaped::Undone(job)) => self.run_instead(job),
            Some(Reaped::More(token, piece)) => self.brought(token, piece),
            None => return false,
        }
        true
    }

    /// Goes on with an operation that the pool has done; `false` when there is none.
    pub(super) fn reap_pool(&mut self) -> bool {
        if self.on_pool == 0 {
            return false;
        }
        let Some(Worked { done, waited, took }) = self.pool.reap() else { return false };
        let Done { job, outcome } = done;
        self.on_pool -= 1;
        self.counters.pool += 1;
        self.meter.by_pool(Class::of(&job.op), waited, took);
        self.complete(job, outcome, Way::Pool);
        true
    }
}
