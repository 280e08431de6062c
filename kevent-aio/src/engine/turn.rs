//! A turn: what is batched is submitted, what is done is collected, and what can go on goes on.

use std::io;
use std::time::Duration;

use kevent_core::Due;

use super::Aio;
use crate::flight::{Reason, Stage};
use crate::operation::Operation;
use crate::slice::Slice;

/// How often one turn submits what the completions of the last submission led to.
const ROUNDS: usize = 16;

/// When to try again what the kernel had no room for.
pub(super) const TRY_AGAIN: Duration = Duration::from_millis(1);

impl Aio {
    /// Submits what is batched, collects what is done, and again as long as one leads to the other and
    /// time is left. Says when to come back although nothing wakes the queue.
    pub(super) fn turn(&mut self) -> io::Result<Due> {
        let mut slice = Slice::default();
        let due = self.rounds(&mut slice)?;
        // There may be more where the slice ended, and what `refill` has set free.
        Ok(if slice.is_over || !self.runnable.is_empty() { Due::At(self.now()) } else { due })
    }

    fn rounds(&mut self, slice: &mut Slice) -> io::Result<Due> {
        for _ in 0..ROUNDS {
            self.go_round(slice)?;
            self.refill();
            let Some(ring) = self.ring.as_mut().filter(|ring| ring.has_unsubmitted()) else {
                return Ok(Due::OnWake);
            };
            match ring.submit() {
                Ok(()) if ring.has_unsubmitted() => {
                    return Ok(Due::At(self.now() + TRY_AGAIN));
                }
                Ok(()) => {}
                Err(refusal) => self.lose_ring(refusal),
            }
        }
        Ok(Due::At(self.now()))
    }

    /// Goes on with what can go on: what the ring has done, what the pool has done, and who has only
    /// waited for his turn. One of each at a time: any of the three may never run out.
    fn go_round(&mut self, slice: &mut Slice) -> io::Result<()> {
        while !slice.is_over {
            if std::mem::take(&mut self.sockets_ready) {
                self.sockets.look(&mut self.runnable)?;
            }
            let reaped = self.reap_ring() | self.reap_pool();
            let resumed = self.resume() || self.wake();
            if !reaped && !resumed {
                break;
            }
            slice.pass(!resumed, || self.now());
        }
        Ok(())
    }

    /// Advances an operation whose turn has come; `false` when there is none.
    fn resume(&mut self) -> bool {
        while let Some(token) = self.runnable.pop_front() {
            let Some(flight) = self.flights.get_mut(token) else { continue };
            if !matches!(flight.stage, Stage::InLine(_) | Stage::Armed(_)) {
                continue;
            }
            let is_new = matches!(flight.stage, Stage::InLine(_));
            let Some(mut op) = flight.take_waiting() else { continue };
            self.stop_waiting(token, &op);
            if is_new {
                op.recall(&self.recent);
            }
            let step = op.advance();
            self.go_on(token, op, step);
            return true;
        }
        false
    }

    /// Ends what is past its deadline.
    pub(super) fn expire(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now = self.now();
        while let Some(&(deadline, token)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            self.end(token, Reason::Late);
        }
    }
}
