//! What happens while a simulated queue would sleep: the steps of a script, in made-up time.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::dice::Dice;
use crate::token::Token;
use crate::waker::Waker;

/// Something that happens at a time.
pub(crate) type Step = Box<dyn FnOnce(&Script) + Send>;

/// So often a queue may look and find nothing while the time stands still. A program that waits for
/// the time to pass, and does not let it pass, would go on for ever.
const LOOKS_MAX: u32 = 100_000;

/// The steps that are still to come, and the clock that they go by. Clones are of the same.
#[derive(Clone)]
pub(crate) struct Script(Arc<Shared>);

struct Shared {
    clock: Clock,
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    /// By time. Those of one time in an order that chance has chosen when they were added.
    steps: BTreeMap<(Instant, u64, u64), Step>,
    added: u64,
    /// Decides what the contract leaves open.
    order: Dice,
    /// Seeds the dice of the script itself: how it is used does not change the order.
    dice: Dice,
    injected: Vec<Injection>,
    /// The queues of this simulation, by number: one may lie in another, and has to be woken.
    queues: BTreeMap<u64, Waker>,
    /// The wall-clock time at which the next sleep ends.
    wall: Option<SystemTime>,
    patience: Duration,
    /// Looks for nothing, since the time moved.
    looks: u32,
}

/// An item on its way to a source's sink.
pub(crate) struct Injection {
    pub(crate) queue: u64,
    pub(crate) source: Token,
    pub(crate) registration: Token,
    /// An `Option` of the source's item, so that it can be taken out and put back.
    pub(crate) item: Box<dyn Any + Send>,
}

impl Script {
    pub(crate) fn new(seed: u64, wall: SystemTime) -> Script {
        let clock = Clock::stopped_at(wall);
        let mut dice = Dice::new(seed);
        let state = State {
            steps: BTreeMap::new(),
            added: 0,
            order: Dice::new(dice.bits()),
            dice,
            injected: Vec::new(),
            queues: BTreeMap::new(),
            wall: None,
            patience: Duration::ZERO,
            looks: 0,
        };
        Script(Arc::new(Shared { begun: clock.now(), clock, state: Mutex::new(state) }))
    }

    /// No step runs under the lock, so a panic of one leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// How much time has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock().now().saturating_duration_since(self.0.begun)
    }

    /// Adds a step, `time` after the beginning. One beyond the clock never comes.
    pub(crate) fn add(&self, time: Duration, step: Step) {
        if let Some(time) = self.0.begun.checked_add(time) {
            self.add_at(time, step);
        }
    }

    pub(crate) fn add_at(&self, time: Instant, step: Step) {
        let mut state = self.state();
        state.added += 1;
        let key = (time, state.order.bits(), state.added);
        state.steps.insert(key, step);
    }

    pub(crate) fn dice(&self) -> Dice {
        Dice::new(self.state().dice.bits())
    }

    pub(crate) fn patience(&self) -> Duration {
        self.state().patience
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        self.state().patience = patience;
    }

    /// The next sleep ends when the wall clock shows `deadline`.
    pub(crate) fn set_wall(&self, deadline: SystemTime) {
        self.state().wall = Some(deadline);
    }

    /// From now on the queue of that number is woken for what is injected into it.
    pub(crate) fn enrol(&self, queue: u64, waker: Waker) {
        self.state().queues.insert(queue, waker);
    }

    pub(crate) fn inject(&self, injection: Injection) {
        let mut state = self.state();
        // One of another simulation, or of none, would never fetch it.
        if let Some(waker) = state.queues.get(&injection.queue).cloned() {
            state.injected.push(injection);
            drop(state);
            waker.wake();
        }
    }

    /// What was injected into sources of that queue.
    pub(crate) fn take_injected(&self, queue: u64) -> Vec<Injection> {
        let all = mem::take(&mut self.state().injected);
        let (mine, others) = all.into_iter().partition(|injection| injection.queue == queue);
        self.state().injected = others;
        mine
    }

    /// Puts what has no order of its own into one.
    pub(crate) fn shuffle<T>(&self, list: &mut [T]) {
        self.state().order.shuffle(list);
    }

    /// Something was found.
    pub(crate) fn found(&self) {
        let mut state = self.state();
        state.looks = 0;
        state.wall = None;
    }

    /// The script and the kernel both may have something. Says whether the script was first, and ran
    /// a step.
    pub(crate) fn interferes(&self) -> bool {
        let first = self.state().order.flip();
        first && self.run_due()
    }

    /// Nothing is there: runs the next step, or lets time pass, until `timeout` has passed.
    pub(crate) fn pass(&self, timeout: Option<Duration>) -> io::Result<()> {
        let now = self.clock().now();
        let (first_step, end) = {
            let mut state = self.state();
            let end = timeout.and_then(|timeout| now.checked_add(timeout));
            let wall = state.wall.take().and_then(|wall| self.clock().shows(wall));
            let first = state.steps.keys().next().map(|(time, ..)| *time);
            (first, [end, wall].into_iter().flatten().min())
        };
        let next = [first_step, end].into_iter().flatten().min();
        let next = next.ok_or_else(|| self.deadlock())?;
        self.clock().advance_to(next);
        let step_is_due = first_step.is_some_and(|step| step <= next.max(now));
        if next > now || step_is_due {
            self.state().looks = 0;
        } else {
            return self.count_look();
        }
        // Of two things that happen at one time either may be the first.
        let ends = end.is_some_and(|end| end <= next.max(now));
        if step_is_due && (!ends || end <= Some(now) || self.state().order.flip()) {
            self.run_due();
        }
        Ok(())
    }

    /// Runs a step whose time has come, if there is one.
    fn run_due(&self) -> bool {
        let now = self.clock().now();
        let mut state = self.state();
        let Some(entry) = state.steps.first_entry().filter(|entry| entry.key().0 <= now) else {
            return false;
        };
        let step = entry.remove();
        drop(state);
        step(self);
        true
    }

    fn count_look(&self) -> io::Result<()> {
        let mut state = self.state();
        state.looks += 1;
        if state.looks < LOOKS_MAX {
            return Ok(());
        }
        state.looks = 0;
        let text = format!(
            "livelock: {LOOKS_MAX} looks in a row found nothing, and the time stands still at {:?}; \
             wait for a time, or let it pass with `Sim::advance`",
            self.elapsed()
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    fn deadlock(&self) -> io::Error {
        let text = format!(
            "deadlock: nothing will ever happen. It is {:?} since the simulation began; there is no \
             step, no timer and no deadline to come, and no descriptor is ready",
            self.elapsed()
        );
        io::Error::new(io::ErrorKind::Deadlock, text)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("elapsed", &self.elapsed())
            .field("steps", &self.state().steps.len())
            .finish_non_exhaustive()
    }
}
