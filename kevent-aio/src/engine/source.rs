//! The engine as a source: how it gets into a queue, and what it gives to it.

use std::io;
use std::os::fd::AsFd;

use kevent_core::{Due, Full, Interest, PollKey, PollSet, Ready, Sink, Source, Token, Trigger};

use super::Aio;
use crate::completion::Completion;
use crate::flight::{Flight, Stage};

/// The name of the ring in the poll set; the other name is that of the sockets.
fn ring_key() -> PollKey {
    PollKey::default()
}

pub(super) fn sockets_key() -> PollKey {
    PollKey::from(Token::from_bits(1))
}

impl Source for Aio {
    type Item = Completion;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        if poll_set.clock().is_simulated() {
            // What a ring has begun goes on in real time; one that has nothing is given up.
            self.ring.take_if(|_| self.flights.is_empty());
        }
        self.pool.go_by(poll_set.clock());
        if let Some(ring) = &self.ring {
            poll_set.add(ring.as_fd(), ring_key(), Interest::READABLE, Trigger::Level)?;
        }
        self.pool.set_waker(Some(poll_set.waker().clone()));
        self.queue = Some(poll_set.clone());
        self.poll_sockets()
    }

    fn ready(&mut self, key: PollKey, _: Ready) {
        // The ring is looked at in any case: that costs no system call.
        self.sockets_ready |= key == sockets_key();
    }

    fn flush(&mut self) -> io::Result<Due> {
        self.ways.turn();
        self.meter.turn();
        self.expire();
        let due = self.turn()?;
        if !self.done.is_empty() {
            return Ok(Due::Now);
        }
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let next = deadline.into_iter().chain(self.pool.due()).min();
        Ok(due.or_sooner(next.map_or(Due::OnWake, Due::At)))
    }

    fn drain(&mut self, sink: &mut impl Sink<Completion>) -> io::Result<()> {
        while let Some(token) = self.done.pop_front() {
            // Abandoned since.
            let Some(flight) = self.flights.get_mut(token) else { continue };
            let Some(completion) = flight.take_completion(token) else { continue };
            if let Err(Full(completion)) = sink.push(token, completion) {
                flight.put_back(completion);
                self.done.push_front(token);
                break;
            }
        }
        if !self.resting.is_empty() {
            self.changed();
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        match self.flights.get_mut(token) {
            Some(Flight { pieces: Some(pieces), abandoned, .. }) if pieces.handed > 0 => {
                pieces.handed -= 1;
                !*abandoned
            }
            _ => self.flights.remove(token).is_some(),
        }
    }

    fn detach(&mut self) {
        // What is in the queue goes with the queue.
        let tokens: Vec<_> = self.flights.iter().map(|(token, _)| token).collect();
        for token in tokens {
            match self.flights.get_mut(token) {
                Some(Flight { stage: Stage::Handed, .. }) => drop(self.flights.remove(token)),
                Some(Flight { pieces: Some(pieces), .. }) => pieces.handed = 0,
                _ => {}
            }
        }
        self.pool.set_waker(None);
        let Some(queue) = self.queue.take() else { return };
        // The engine lives on, perhaps in another queue; this one is not to hear of it.
        if let Some(ring) = &self.ring {
            let _ = queue.delete(ring.as_fd());
        }
        if let (true, Some(set)) = (self.sockets_polled, self.sockets.set()) {
            let _ = queue.delete(set);
        }
        self.sockets_polled = false;
    }
}
