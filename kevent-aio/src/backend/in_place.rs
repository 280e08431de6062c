//! Operations that are run on the thread itself, when made-up time has come to them.
//!
//! In a simulated queue neither ring nor threads are of use: what they do takes real time, and comes in
//! another order each time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use kevent_core::{Clock, Token};

use crate::backend::Job;

/// Jobs by the time at which they are run.
pub(crate) struct InPlace {
    clock: Clock,
    waiting: BTreeMap<(Instant, u64), Job>,
    started: u64,
}

impl InPlace {
    pub(crate) fn new(clock: Clock) -> InPlace {
        InPlace { clock, waiting: BTreeMap::new(), started: 0 }
    }

    /// Takes `job` in, to be run that long from now.
    pub(crate) fn start(&mut self, job: Job, delay: Duration) {
        self.started += 1;
        let now = self.clock.now();
        self.waiting.insert((now.checked_add(delay).unwrap_or(now), self.started), job);
    }

    /// A job whose time has come, to be run now.
    pub(crate) fn take_due(&mut self) -> Option<Job> {
        let now = self.clock.now();
        let first = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(first.remove())
    }

    /// Takes a job back that was not run.
    pub(crate) fn take_back(&mut self, token: Token) -> Option<Job> {
        let key = *self.waiting.iter().find(|(_, job)| job.token == token)?.0;
        self.waiting.remove(&key)
    }

    /// All that was not run, in its order.
    pub(crate) fn into_jobs(self) -> impl Iterator<Item = Job> {
        self.waiting.into_values()
    }

    /// When the next job is to be run.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|(time, _)| *time)
    }
}

impl fmt::Debug for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InPlace").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}
