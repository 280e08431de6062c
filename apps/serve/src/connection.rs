//! One client's connection, apart from the queue: what was read, what is being answered, and by when
//! something has to happen.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_core::Token;
use mio::net::TcpStream;

use crate::exchange::Exchange;

/// Bytes of requests that are read ahead of the one being answered. A header block has to fit.
pub const INPUT_MAX: usize = 32 << 10;

/// Room that a connection keeps for the next request while it waits. A longer one makes its own anew.
pub const INPUT_KEPT: usize = 4 << 10;

/// A connection may be silent for that long between requests, and a client for that long while it is
/// being sent something. They are equal so that going from one to the other re-arms no timer.
pub const IDLE: Duration = Duration::from_secs(60);

/// Where there is no room for a new client, a connection that has waited that long for a request makes
/// room. One that is younger may have its first request on the way.
pub const IDLE_AT_THE_LIMIT: Duration = Duration::from_secs(1);

/// A header block has that long to arrive, from its first byte.
pub const HEADER: Duration = Duration::from_secs(10);

/// After the last response the client has that long to close, so that the response is not torn away
/// by a reset because something of the client's was left unread.
pub const LINGER: Duration = Duration::from_secs(2);

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    pub stream: Arc<TcpStream>,
    pub peer: SocketAddr,
    /// The registration for readiness.
    pub readiness: Token,
    pub input: Vec<u8>,
    /// The socket may hold more than was read: it is edge-triggered, so nobody will say so again.
    pub more: bool,
    /// The client has closed its writing side. The edge that said so comes once, so from then on the
    /// socket is read to its end.
    pub half_closed: bool,
    /// That end was read.
    pub ended: bool,
    pub state: State,
    /// The request being answered.
    pub exchange: Option<Exchange>,
    /// Its place among those that wait for a request, and since when it waits.
    pub idle: Option<(usize, Instant)>,
    pub timer: Timer,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for a request, or for the rest of one.
    Reading,
    /// Waiting for a file to be opened or a folder to be read.
    Finding,
    /// Sending the response.
    Sending,
    /// Everything is sent and no request will be taken any more.
    Lingering,
}

/// How far the throwing away came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// The socket has nothing more for now.
    All,
    /// The socket has more.
    Some,
    /// The client has closed, or is gone.
    End,
}

/// The one timer of a connection. Its deadline moves with every request; the timer itself is moved
/// only to an earlier time, and for a later one when it fires.
#[derive(Debug)]
pub struct Timer {
    pub token: Token,
    /// When it will fire; `None` once it has.
    pub armed: Option<Instant>,
    pub deadline: Instant,
    /// The time by which the header block that has begun has to be there.
    pub header_by: Option<Instant>,
    /// Bytes of the operation under way when the timer last fired.
    pub progress: u64,
}

impl Timer {
    /// A timer that is armed for `deadline`. Its token comes later.
    pub fn armed_for(deadline: Instant) -> Timer {
        Timer { token: Token::SOLE, armed: Some(deadline), deadline, header_by: None, progress: 0 }
    }

    /// The time by which a header block has to be there, of which some has been read by `now`. Asked
    /// again, it is the same: the rest does not get its time anew with every byte.
    pub fn header_by(&mut self, now: Instant) -> Instant {
        *self.header_by.get_or_insert(now + HEADER)
    }
}

impl Connection {
    /// Reads what the socket has, up to the bound.
    ///
    /// # Errors
    ///
    /// As the socket has them: the connection is of no use any more.
    pub fn fill(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        while self.more && self.input.len() < INPUT_MAX {
            let room = scratch.len().min(INPUT_MAX - self.input.len());
            match (&*self.stream).read(&mut scratch[..room]) {
                Ok(0) => {
                    self.ended = true;
                    self.more = false;
                }
                Ok(n) => {
                    self.input.extend_from_slice(&scratch[..n]);
                    // Less than asked for is all there was; what comes later is a new edge.
                    self.more = n == room || self.half_closed;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.more = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether it waits for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        self.state == State::Reading && self.input.is_empty()
    }

    /// Throws away what the client still sends.
    pub fn discard(&mut self, scratch: &mut [u8]) -> Discarded {
        self.input.clear();
        // Bounded, so that a client who floods does not keep the thread.
        for _ in 0..16 {
            match (&*self.stream).read(scratch) {
                Ok(0) => return Discarded::End,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Discarded::All,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Discarded::End,
            }
        }
        Discarded::Some
    }
}

impl Connection {
    /// The operation under way.
    pub(crate) fn operation(&self) -> Option<Token> {
        self.exchange.as_ref()?.operation
    }
}

/// The request line, for the log.
pub fn first_line(input: &[u8]) -> String {
    let line = input.trim_ascii_start().split(|byte| *byte == b'\r' || *byte == b'\n').next();
    String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_that_begins_late_in_the_idle_minute_has_its_whole_time_and_no_more() {
        let begun = Instant::now();
        let mut timer = Timer::armed_for(begun + IDLE);
        let late = begun + IDLE - Duration::from_secs(1);
        assert_eq!(timer.header_by(late), late + HEADER);
        assert_eq!(timer.header_by(late + HEADER / 2), late + HEADER);
        timer.header_by = None; // The request was complete.
        assert_eq!(timer.header_by(late + HEADER), late + HEADER + HEADER);
    }
}
