//! Who waits for whom: the lines at the sockets, and the writes before a barrier.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use kevent_core::{Interest, Token, Trigger};

use super::{Aio, source};
use crate::flight::{Flight, Stage};
use crate::operation::{Operation, Order, Side, Step};
use crate::ops::Op;
use crate::sys::file;

impl Aio {
    /// Whether others are to be done before.
    pub(super) fn has_to_wait(&mut self, token: Token, order: Order) -> bool {
        match order {
            Order::Free | Order::Write(_) => false,
            Order::InLine(socket) => !self.sockets.join(socket, Side::Writing, token),
            Order::AfterWrites(file) => {
                let behind = self.writes_to(file);
                let waits = !behind.is_empty();
                if waits {
                    self.barriers.insert(token, behind);
                }
                waits
            }
        }
    }

    /// The writes to a file that are in flight.
    fn writes_to(&self, number: RawFd) -> Vec<Token> {
        let identity = file::identity(number);
        let is_same =
            |other| other == number || identity.is_some() && file::identity(other) == identity;
        let at_work = |flight: &Flight| !matches!(flight.stage, Stage::Done(..) | Stage::Handed);
        let writes = self.flights.iter().filter(|(_, flight)| at_work(flight));
        let writes = writes
            .filter(|(_, flight)| matches!(flight.order, Order::Write(other) if is_same(other)));
        writes.map(|(token, _)| token).collect()
    }

    /// Waits until the operation's socket is ready.
    pub(super) fn arm(&mut self, token: Token, mut op: Box<Op>, side: Side) {
        match self.wait_in_line(token, &op, side) {
            Ok(()) => self.put(token, Stage::Armed(op)),
            Err(error) => {
                self.stop_waiting(token, &op);
                let step = op.abort(error);
                match step {
                    Step::Writable => {
                        let error = io::Error::from_raw_os_error(libc::EIO);
                        self.finish(token, op, Err(error));
                    }
                    step => self.go_on(token, op, step),
                }
            }
        }
    }

    /// Only the first in a line waits for the socket, and the others wait for him. Who reads joins the
    /// line here, when there is nothing to read; so does a step of a chain.
    fn wait_in_line(&mut self, token: Token, op: &Op, side: Side) -> io::Result<()> {
        let Some(socket) = op.waits_at(side) else {
            return Err(io::Error::from_raw_os_error(libc::ENOTSOCK));
        };
        let Some(flight) = self.flights.get_mut(token) else { return Ok(()) };
        let own = op.socket_at(side).is_some_and(|own| own.as_raw_fd() == socket.as_raw_fd());
        let place = if own { &mut flight.line } else { &mut flight.waits };
        if place.replace(side).is_none() && !self.sockets.join(socket.as_raw_fd(), side, token) {
            return Ok(());
        }
        self.sockets.arm(socket, side)?;
        self.poll_sockets()
    }

    /// Takes an operation out of the line in which one of its steps has waited, before it goes on: that step may
    /// be its last with the socket, and the next one close that.
    pub(super) fn stop_waiting(&mut self, token: Token, op: &Op) {
        let side = self.flights.get_mut(token).and_then(|flight| flight.waits.take());
        let Some((side, socket)) = side.and_then(|side| Some((side, op.waits_at(side)?))) else {
            return;
        };
        let next = self.sockets.leave(socket, side, token);
        if next.is_none() {
            return;
        }
        // Told of what is left there, if anything is; sent to look at once, they would all come, one after another.
        match self.sockets.arm(socket, side) {
            Ok(()) => self.sockets_ready = true,
            Err(_) => self.runnable.extend(next),
        }
    }

    /// Puts the set of the sockets into that of the queue, once both are there.
    pub(super) fn poll_sockets(&mut self) -> io::Result<()> {
        if let (false, Some(queue), Some(set)) =
            (self.sockets_polled, &self.queue, self.sockets.set())
        {
            queue.add(set, source::sockets_key(), Interest::READABLE, Trigger::Level)?;
            self.sockets_polled = true;
        }
        Ok(())
    }
}
