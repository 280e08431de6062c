//! The end of an engine that is to lose nothing.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Aio;
use super::turn::TRY_AGAIN;
use crate::completion::Abandoned;
use crate::flight::{Flight, Reason, Stage};
use crate::sys::epoll::wait_readable;

/// How long [`Aio::drain`] waits for what it has cancelled.
const GRACE: Duration = Duration::from_millis(100);

impl Aio {
    /// Brings everything to an end: waits until what is in flight is done, until `deadline`, and cancels what is
    /// left then; what has no end of its own it cancels at once. What is done comes out of the queue as always; what does not even end then, because a thread
    /// is stuck in a call, is [abandoned](Aio::abandon) and named here: the engine, or what it leaves behind,
    /// keeps its memory until the kernel is done with it.
    ///
    /// What was [abandoned](Aio::abandon) before is not waited for.
    ///
    /// This blocks, for up to a tenth of a second beyond the deadline; in a simulated queue, not at all.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use kevent_aio::{Aio, Open};
    /// use kevent_core::{Queue, Wait};
    ///
    /// let mut queue = Queue::new()?;
    /// let aio = queue.attach(Aio::new()?, |completion| completion)?;
    /// queue[aio].submit(Open::new("/proc/self/status"), 1)?;
    /// let abandoned = queue[aio].drain(Instant::now() + Duration::from_secs(1));
    /// assert!(abandoned.is_empty());
    /// queue.wait(Wait::poll())?;
    /// assert!(queue.next().unwrap().result.is_ok());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn drain(&mut self, deadline: Instant) -> Vec<Abandoned> {
        let simulated = self.queue.as_ref().is_some_and(|queue| queue.clock().is_simulated());
        let mut cancelled = None;
        for gone in self.unfinished() {
            self.end_the_endless(gone.token);
        }
        loop {
            self.expire();
            let failed = self.turn().is_err();
            let left = self.unfinished();
            let now = Instant::now();
            if left.is_empty() {
                break;
            } else if let Some(cancelled) = cancelled {
                if simulated || failed || now >= cancelled + GRACE {
                    break;
                }
            } else if simulated || failed || now >= deadline {
                cancelled = Some(now);
                for gone in left {
                    self.end(gone.token, Reason::Cancelled);
                }
                continue;
            }
            let until = cancelled.map_or(deadline, |cancelled| cancelled + GRACE);
            self.wait_for_backends(until.saturating_duration_since(now));
        }
        self.changed();
        let left = self.unfinished();
        for gone in &left {
            self.abandon(gone.token);
        }
        left
    }

    /// What has no result yet.
    fn unfinished(&self) -> Vec<Abandoned> {
        let done = |flight: &Flight| {
            flight.abandoned || matches!(flight.stage, Stage::Done(..) | Stage::Handed)
        };
        let left = self.flights.iter().filter(|(_, flight)| !done(flight));
        left.map(|(token, flight)| Abandoned { token, key: flight.key }).collect()
    }

    /// Waits until there is something to go on with, or for so long; for a moment only, where that can come from
    /// several sides.
    fn wait_for_backends(&mut self, limit: Duration) {
        let moment = limit.min(TRY_AGAIN);
        let milliseconds = i32::try_from(moment.as_millis()).unwrap_or(1).max(1);
        let ring = self.ring.as_ref().map(AsFd::as_fd);
        match ring.or_else(|| self.sockets.set()) {
            _ if self.on_pool > 0 => self.pool.wait(moment),
            Some(readable) => wait_readable(readable, milliseconds),
            // What is left waits for its time.
            None => std::thread::sleep(moment),
        }
        self.sockets_ready = true;
    }
}
