//! Taking clients, reading what they ask for, and letting them go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::Op;
use kevent_core::Token;
use kevent_net::{Interest, Mode, ReadyEvent, socket};
use mio::net::TcpStream;

use crate::connection::{
    Connection, Discarded, IDLE, IDLE_AT_THE_LIMIT, INPUT_KEPT, LINGER, State, Timer, first_line,
};
use crate::http::Status;
use crate::http::request::{Parsed, parse};
use crate::idle::IdleLine;
use crate::stderr::complain;
use crate::worker::{ACCEPT_KEY, Worker};

/// A listener that could not accept is tried again after that time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A client who comes when this thread is at its limit is left to the others for that long. Only then
/// is a connection closed for him.
const LEFT_TO_OTHERS: Duration = Duration::from_millis(5);

/// Connections taken from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// What to do for a client when there is no room for him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtLimit {
    /// Another thread may have room.
    LeaveToOthers,
    /// None has taken him: close a connection that waits.
    MakeRoom,
}

impl Worker {
    pub(crate) fn close_those(&mut self, chosen: impl Fn(&Connection) -> bool) {
        let chosen: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, connection)| chosen(connection))
            .map(|(token, _)| token)
            .collect();
        for token in chosen {
            self.close(token);
        }
    }

    /// Takes the clients that wait at a listener, or leaves them to the other threads.
    pub(crate) fn accept(&mut self, number: usize) {
        self.accept_at(number, AtLimit::LeaveToOthers);
    }

    /// Takes the clients that wait at a listener. It is edge-triggered: what is left behind is taken
    /// when the timer says so, since the listener will not.
    fn accept_at(&mut self, number: usize, at_limit: AtLimit) {
        for _ in 0..ACCEPTS_PER_TURN {
            let is_full = self.connections.len() >= self.share.connections;
            if is_full && at_limit == AtLimit::LeaveToOthers {
                return self.pause_accepting(LEFT_TO_OTHERS);
            }
            let makes_room = if is_full { self.longest_idle() } else { None };
            if is_full && makes_room.is_none() {
                return self.pause_accepting(ACCEPT_AGAIN);
            }
            let Some(listener) = self.listeners.get(number) else { return };
            match socket::accept(&listener.socket) {
                Ok(Some((stream, peer))) => {
                    self.cannot_accept = false;
                    makes_room.into_iter().for_each(|idle| self.close(idle));
                    self.welcome(stream, peer);
                }
                Ok(None) => return,
                Err(error) => {
                    // Out of descriptors or memory. The files that are kept open give some back,
                    // and so does a connection that waits.
                    self.files.invalidate_tree(b"");
                    let Some(idle) = self.longest_idle() else {
                        if !std::mem::replace(&mut self.cannot_accept, true) {
                            complain(&format!("cannot accept, clients wait: {error}"));
                        }
                        return self.pause_accepting(ACCEPT_AGAIN);
                    };
                    self.close(idle);
                }
            }
        }
        self.accept_after(Duration::ZERO);
    }

    /// The connection that has waited longest for a request, if that is long enough.
    fn longest_idle(&mut self) -> Option<Token> {
        loop {
            let token = self.idle.longest()?;
            let connection = self.connections.get_mut(token)?;
            let (_, since) = connection.idle?;
            if self.now.saturating_duration_since(since) < IDLE_AT_THE_LIMIT {
                return None;
            }
            // A request may have come, and its event waits behind this one.
            connection.more = true;
            self.read(token);
            if self.idle.longest() == Some(token) {
                return Some(token);
            }
        }
    }

    fn pause_accepting(&mut self, pause: Duration) {
        self.stop_listening();
        self.accept_after(pause);
    }

    fn accept_after(&mut self, pause: Duration) {
        if self.accepting_again.is_none() {
            self.accepting_again = Some(self.queue[self.timers].after(pause, ACCEPT_KEY));
        }
    }

    pub(crate) fn resume_accepting(&mut self) {
        self.accepting_again = None;
        if let Err(error) = self.listen() {
            complain(&format!("cannot listen, trying again shortly: {error}"));
            return self.pause_accepting(ACCEPT_AGAIN);
        }
        for number in 0..self.listeners.len() {
            self.accept_at(number, AtLimit::MakeRoom);
        }
    }

    /// Takes a client in.
    pub(crate) fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        // Whole responses go out in one call, so there is nothing that waiting could merge.
        let _ = stream.set_nodelay(true);
        let deadline = self.now + IDLE;
        let token = self.connections.insert(Connection {
            stream: Arc::new(stream),
            peer,
            readiness: Token::SOLE,
            input: Vec::new(),
            more: true,
            half_closed: false,
            ended: false,
            state: State::Reading,
            exchange: None,
            idle: None,
            timer: Timer::armed_for(deadline),
        });
        let timer = self.queue[self.timers].at(deadline, token.to_bits());
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.timer.token = timer;
        connection.idle = Some((self.idle.join(token), self.now));
        let registered = self.queue[self.readiness].register(
            &*connection.stream,
            Interest::READABLE,
            Mode::Edge,
            token.to_bits(),
        );
        match registered {
            Ok(readiness) => connection.readiness = readiness,
            Err(_) => self.close(token),
        }
    }

    pub(crate) fn ready(&mut self, token: Token, event: &ReadyEvent) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.more = true;
        connection.half_closed |= event.ready.is_half_closed();
        match connection.state {
            State::Reading => self.read(token),
            State::Lingering => self.linger(token),
            // What was asked for is finished first; the rest is read afterwards.
            State::Finding | State::Sending => {}
        }
    }

    /// Reads requests and answers the first; the others stay until that is done.
    pub(crate) fn read(&mut self, token: Token) {
        while let Some(connection) = self.connections.get_mut(token) {
            if connection.state != State::Reading {
                return;
            }
            match parse(&connection.input) {
                Parsed::Complete { request, consumed } => {
                    let logged = self.log.is_some();
                    let line = if logged { first_line(&connection.input) } else { String::new() };
                    connection.input.drain(..consumed);
                    connection.timer.header_by = None;
                    self.answer(token, request, line);
                }
                Parsed::Invalid(status) => self.refuse(token, status),
                Parsed::Incomplete if connection.more => {
                    if connection.fill(&mut self.scratch).is_err() {
                        return self.close(token);
                    }
                    if !connection.input.is_empty() {
                        leave(&mut self.idle, connection);
                    }
                }
                Parsed::Incomplete if connection.ended => return self.close(token),
                Parsed::Incomplete => return self.await_request(token),
            }
        }
    }

    fn await_request(&mut self, token: Token) {
        if self.stopping {
            return self.close(token);
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.input.is_empty() {
            if connection.input.capacity() > INPUT_KEPT {
                connection.input = Vec::new();
            }
            // It has its minute from when it began to wait, however often it is looked at.
            if connection.idle.is_none() {
                connection.idle = Some((self.idle.join(token), self.now));
                self.set_deadline(token, self.now + IDLE);
            }
            return;
        }
        let by = connection.timer.header_by(self.now);
        self.set_deadline(token, by);
    }

    /// Takes no more requests, and waits for the client to close.
    pub(crate) fn begin_lingering(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.state = State::Lingering;
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        self.set_deadline(token, self.now + LINGER);
        self.linger(token);
    }

    fn linger(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.ended {
            return self.close(token);
        }
        match connection.discard(&mut self.scratch) {
            Discarded::All => {}
            Discarded::Some => {
                // A full socket has no further edge. This asks for one, after the others' turn.
                let readiness = connection.readiness;
                let asked =
                    self.queue[self.readiness].modify(readiness, Interest::READABLE, Mode::Edge);
                if asked.is_err() {
                    self.close(token);
                }
            }
            Discarded::End => self.close(token),
        }
    }

    pub(crate) fn set_deadline(&mut self, token: Token, deadline: Instant) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.timer.deadline = deadline;
        if connection.timer.armed.is_none_or(|armed| deadline < armed) {
            self.queue[self.timers].cancel(connection.timer.token);
            connection.timer.armed = Some(deadline);
            connection.timer.token = self.queue[self.timers].at(deadline, token.to_bits());
        }
    }

    pub(crate) fn tick(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.timer.armed = None;
        if connection.state == State::Sending {
            let operation =
                connection.operation().and_then(|token| self.queue[self.aio].get(token));
            let progress = match operation {
                Some(Op::Sendfile(transfer)) => Some(transfer.sent().total()),
                // The disk has it, not the client.
                _ => None,
            };
            if progress.is_none_or(|sent| sent > connection.timer.progress) {
                connection.timer.progress = progress.unwrap_or(connection.timer.progress);
                connection.timer.deadline = self.now + IDLE;
            }
        }
        let (state, deadline) = (connection.state, connection.timer.deadline);
        if self.now < deadline {
            return self.set_deadline(token, deadline);
        }
        match state {
            State::Reading if !connection.input.is_empty() => {
                self.refuse(token, Status::RequestTimeout);
            }
            // A disk that does not answer is not the client's fault, and closing does not help it.
            _ => self.close(token),
        }
    }

    /// Ends a connection. Operations that are under way keep its socket open until they have ended.
    pub(crate) fn close(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(token) else { return };
        leave(&mut self.idle, &mut connection);
        self.queue[self.timers].cancel(connection.timer.token);
        self.queue[self.readiness].unregister(connection.readiness);
        // What is being sent ends with the socket, and not when the client has taken it.
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        if let Some(exchange) = connection.exchange {
            self.cut(connection.peer, exchange);
        }
    }
}

/// A connection that does not wait for a request any more.
fn leave(idle: &mut IdleLine, connection: &mut Connection) {
    if let Some((place, _)) = connection.idle.take() {
        idle.leave(place);
    }
}
