//! Operations that bring one thing after another, each a completion of its own.
//!
//! On the ring such an operation is a multishot: one entry, any number of completions. It stays in
//! [`Stage::OnRing`], its slot is its own, until the kernel's last one is in; the kernel may end it at any time,
//! and the operation is put there again.
//!
//! What the user does not take is bounded. When [`MANY`] completions wait for room in the queue, an operation that
//! brings one more is taken off the ring; and one that is not there rests. It goes on when [`FEW`] are left.
//! So there are never more of them than `MANY`, what one look at the ring finds (the length of its completion
//! queue), and one for each such operation.

use kevent_core::{PollSet, Token};

use super::Aio;
use crate::flight::{Flight, Reason, Stage};
use crate::ops::{Op, RecvMany};
use crate::report::Way;

/// Completions that wait for room in the queue when operations stop to bring more.
const MANY: usize = 1024;

/// Completions that still wait when they go on.
const FEW: usize = MANY / 2;

impl Aio {
    /// The ring has something of an operation that stays there.
    pub(super) fn brought(&mut self, token: Token, piece: Option<Box<Op>>) {
        self.counters.ring += 1;
        let Some(flight) = self.flights.get_mut(token) else { return };
        flight.way = Way::Ring;
        self.tell_piece(token, piece);
        if self.done.len() >= MANY {
            // It is not to end: the operation hears of it, and goes on when it may.
            if let Some(ring) = &mut self.ring {
                ring.pause(token);
            }
        }
    }

    /// The user is to have a piece, with the token and the key of its operation.
    pub(super) fn tell_piece(&mut self, token: Token, piece: Option<Box<Op>>) {
        let (Some(flight), Some(op)) = (self.flights.get_mut(token), piece) else { return };
        self.counters.inline += u64::from(flight.way == Way::Inline);
        if !flight.abandoned {
            flight.pieces.get_or_insert_default().waiting.push_back(op);
            self.done.push_back(token);
        }
    }

    /// Has those who rest go on, as far as there is room for what they bring; `false` when nobody does.
    pub(super) fn wake(&mut self) -> bool {
        if self.resting.is_empty() || self.done.len() >= FEW {
            return false;
        }
        if let Some(ring) = &mut self.ring {
            ring.lend();
        }
        let waker = self.queue.as_ref().map(PollSet::waker);
        let before = self.runnable.len();
        for _ in 0..self.resting.len() {
            let Some(token) = self.resting.pop_front() else { break };
            let Some(op) = self.flights.get(token).and_then(Flight::waiting) else { continue };
            let woken = self.runnable.len() - before;
            let awake = if op.room(waker) > woken { &mut self.runnable } else { &mut self.resting };
            awake.push_back(token);
        }
        self.runnable.len() > before
    }

    /// Lends the kernel what an operation receives into, if there is a ring.
    pub(super) fn provide(&mut self, recv: &mut RecvMany) {
        let name = self.ring.as_mut().and_then(|ring| ring.provide(recv.buffers()));
        recv.receive_into(name);
    }

    /// Cancels an operation that has no end of its own.
    pub(super) fn end_the_endless(&mut self, token: Token) {
        let Some(flight) = self.flights.get(token) else { return };
        let on_ring = || self.ring.as_ref().and_then(|ring| ring.multishot(token));
        let op = if let Stage::OnRing = flight.stage { on_ring() } else { flight.waiting() };
        if op.is_some_and(Op::is_endless) {
            self.end(token, Reason::Cancelled);
            self.changed();
        }
    }
}
