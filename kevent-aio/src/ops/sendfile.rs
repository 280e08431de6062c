//! A range of a file to a socket, with a header and a trailer, as one ordered unit.
//!
//! Linux has no such call that never waits: sendfile(2) waits for the disk, and io_uring's splice
//! takes a kernel thread per transfer. So this is a state machine over calls that don't wait:
//!
//! ```text
//!            ┌────────────── the rest is small, or sendfile(2) can't ──────────────┐
//!            ▼                                                                     │
//!   read what is cached ──▶ send it from memory, with header and trailer ──▶ what is next?
//!            │ not there                      │ socket full                ▲       │ large
//!            ▼                                ▼                            │       ▼
//!      Run: read it                       Writable          sendfile(2) a window that is cached
//!                                                                          ▲       │ not there
//!                                                                          └── Run: read ahead, populate
//! ```

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::squeue::Entry;

use self::body::{Body, Reading};
use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::check_range;
use crate::ops::payload::Payload;
use crate::ops::window;
use crate::recent::Recent;
use crate::sys::sendfile as sys;

mod body;

/// A header, a range of a file and a trailer, to a socket, in this order and with nothing between.
///
/// Transfers to one socket, submitted to one engine, follow each other in the order of submission.
/// One completion tells the bytes sent, and [`end`](Sendfile::end) why it was over. Neither a slow
/// receiver nor a cold file holds a thread: what is in the page cache goes out by sendfile(2), what
/// is not is first read by the ring or the pool, and a full socket is waited for.
///
/// The socket is a connected stream, and better a non-blocking one: sendfile(2) waits for room in any
/// other, so to a blocking socket the bytes are copied instead. It is sent exactly the range, also
/// when the file grows; when the file is shorter, [`End::FileEnded`].
///
/// That bytes are in the page cache, and that the socket does not block, is asked before they are sent, for up to a
/// mebibyte at once, and believed for 20 ms. So the thread waits for the disk if what was there is thrown out just
/// then, and for the socket if that is made a blocking one; never for what was not there.
///
/// A file that was opened with `O_DIRECT` is refused (`InvalidInput`) before anything is sent.
///
/// sendfile(2) to a socket that the peer has closed raises SIGPIPE. Rust programs ignore that signal
/// from the start; a program whose `main` is not Rust's has to ignore it itself.
///
/// Source: sendfile(2), sendmsg(2), preadv2(2), cachestat(2).
///
/// ```no_run
/// # use std::io;
/// use std::fs::File;
/// use std::net::TcpListener;
/// use std::sync::Arc;
/// use kevent_aio::Sendfile;
///
/// let (socket, _) = TcpListener::bind("127.0.0.1:8080")?.accept()?;
/// socket.set_nonblocking(true)?;
/// let file = Arc::new(File::open("index.html")?);
/// let transfer = Sendfile::new(Arc::new(socket), file, 0, 1000)
///     .header("HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\n\r\n");
/// # drop(transfer);
/// # io::Result::Ok(())
/// ```
pub struct Sendfile {
    socket: Fd,
    header: Payload,
    /// Boxed, so that an operation is cheap to move, as it is several times.
    body: Option<Box<Body>>,
    trailer: Payload,
    sent: Sent,
    end: Option<End>,
    /// The kernel was told that more follows at once. It holds what does not fill a segment back for
    /// it, for 200 ms.
    corked: bool,
}

/// The bytes that a [`Sendfile`] has sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Of the header.
    pub header: u64,
    /// Of the file.
    pub body: u64,
    /// Of the trailer.
    pub trailer: u64,
}

impl Sent {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.header + self.body + self.trailer
    }
}

/// Why a transfer that did not fail was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All has been sent.
    Complete,
    /// The file is shorter than the range: it was cut meanwhile, or the range began or went past the
    /// end. The trailer has not been sent, because the receiver would take it for what follows the
    /// whole range. The header has not been sent either when nothing of the range was there. A
    /// socket whose protocol promised a length has to be closed.
    FileEnded,
}

impl Sendfile {
    /// The length that means: up to where the file ends when the transfer gets there. A file that
    /// grows meanwhile is followed.
    pub const TO_END: u64 = u64::MAX;

    /// `length` bytes of `file` from `offset`.
    #[must_use]
    pub fn new(socket: Fd, file: Fd, offset: u64, length: u64) -> Sendfile {
        let body = Body::new(file, offset, length);
        Sendfile { body: Some(Box::new(body)), ..Sendfile::bytes(socket, Payload::default()) }
    }

    /// No file: only these bytes. They keep their place among the transfers to this socket.
    #[must_use]
    pub fn bytes(socket: Fd, bytes: impl Into<Payload>) -> Sendfile {
        Sendfile {
            socket,
            header: bytes.into(),
            body: None,
            trailer: Payload::default(),
            sent: Sent::default(),
            end: None,
            corked: false,
        }
    }

    /// Sends these bytes before the file's. They leave together where the file's are small.
    #[must_use]
    pub fn header(mut self, bytes: impl Into<Payload>) -> Sendfile {
        self.header = bytes.into();
        self
    }

    /// Sends these bytes after the file's.
    #[must_use]
    pub fn trailer(mut self, bytes: impl Into<Payload>) -> Sendfile {
        self.trailer = bytes.into();
        self
    }

    /// What has been sent, also when the transfer failed or was cancelled: the socket's buffer has
    /// taken it. Whether the peer has it, only the peer knows.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Why it was over; `None` before that, and when it ended in an error.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// How often it had to wait for the disk.
    #[must_use]
    pub fn misses(&self) -> u32 {
        self.body.as_ref().map_or(0, |body| body.misses)
    }

    /// Why the bytes were copied through memory instead of sent by sendfile(2), if they were: the
    /// error by which the kernel refused that for this file and this socket, or refused to tell
    /// what of the file is in the page cache; `WouldBlock` when the socket is a blocking one. It costs
    /// about twice the processor time.
    #[must_use]
    pub fn refusal(&self) -> Option<io::Error> {
        self.body.as_ref().and_then(|body| body.copying).map(io::Error::from)
    }

    /// Takes one step that does not wait, and says how many bytes that sent.
    fn go(&mut self) -> Result<u64, Step> {
        let Some(body) = &mut self.body else {
            return self.send_memory(0);
        };
        let left = body.left().map_err(failed)?;
        let alone = self.header.is_empty() && self.trailer.is_empty();
        if left == 0 || !body.staged().is_empty() {
            self.send_memory(left)
        } else if body.at < body.ready {
            self.send_window(left)
        } else if body.prepare(self.socket.as_fd(), left, alone)? {
            Ok(0)
        } else {
            Err(self.finish(End::FileEnded))
        }
    }

    /// Sends what is in memory: of the header, of the stage, and of the trailer when nothing of the
    /// file remains behind the stage.
    fn send_memory(&mut self, left: u64) -> Result<u64, Step> {
        let (staged, to_end): (&[u8], bool) = match &self.body {
            Some(body) => (body.staged(), body.to_end),
            None => (&[], false),
        };
        let behind = left.saturating_sub(staged.len() as u64);
        // Whether a file that is sent to its end has grown is looked up once the stage is out.
        let last = left == 0 || (behind == 0 && !to_end);
        let header = rest(&self.header, self.sent.header);
        let trailer = rest(&self.trailer, self.sent.trailer);
        let more = behind > 0 || (!last && !trailer.is_empty());
        let parts = [header, staged, if last { trailer } else { &[] }];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total == 0 {
            return Err(self.finish(End::Complete));
        }
        let sent = match sys::send(self.socket.as_fd(), &parts.map(IoSlice::new), more) {
            Ok(sent) => sent as usize,
            Err(Errno(libc::EAGAIN)) => return Err(Step::Writable),
            Err(errno) => return Err(failed(errno)),
        };
        self.corked = more;
        let of_header = sent.min(header.len());
        let of_body = (sent - of_header).min(staged.len());
        self.sent.header += of_header as u64;
        self.sent.trailer += (sent - of_header - of_body) as u64;
        self.sent.body += of_body as u64;
        if let Some(body) = &mut self.body {
            body.unstage(of_body);
            if self.sent.trailer > 0 {
                // Behind that comes nothing of the file, though it may grow now.
                body.cut();
            }
        }
        // A short count is a full socket: asking again would tell the same.
        if sent < total { Err(Step::Writable) } else { Ok(sent as u64) }
    }

    /// Sends what is in the page cache, after the header.
    fn send_window(&mut self, left: u64) -> Result<u64, Step> {
        if self.sent.header < self.header.len() as u64 {
            return self.send_memory(left);
        }
        let Some(body) = &mut self.body else {
            return Ok(0);
        };
        let count = (body.ready - body.at).min(left).min(window::TURN);
        match sys::sendfile(self.socket.as_fd(), body.file.as_fd(), body.at, count as usize) {
            Ok(0) => {
                let whole = body.cut();
                if whole { Ok(0) } else { Err(self.finish(End::FileEnded)) }
            }
            Ok(sent) => {
                self.sent.body += u64::from(sent);
                body.at += u64::from(sent);
                // It says itself that more follows, within what it was asked for.
                self.corked = u64::from(sent) < count;
                if body.at == body.ready {
                    body.window.grow();
                }
                Ok(u64::from(sent))
            }
            Err(Errno(libc::EAGAIN)) => {
                body.window.shrink();
                // When the socket takes more, the rest of the window may have been evicted.
                body.ready = body.at;
                Err(Step::Writable)
            }
            Err(errno @ Errno(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) => {
                body.copy(errno);
                Ok(0)
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    fn finish(&mut self, end: End) -> Step {
        self.end = Some(end);
        Step::Done(Ok(self.sent.total()))
    }

    /// Takes steps that do not wait, as many as one may in a row.
    fn go_on(&mut self) -> Step {
        if let Some(body) = self.body.as_mut().filter(|_| self.sent.body > 0) {
            // Since its last turn.
            body.doubt();
        }
        let mut sent = 0;
        while sent < window::TURN {
            match self.go() {
                Ok(more) => sent += more,
                Err(step) => return step,
            }
        }
        Step::Again
    }

    /// Goes on after a read.
    fn resume(&mut self, outcome: Outcome) -> Step {
        let Some(body) = &mut self.body else {
            return self.go_on();
        };
        let Some(reading) = body.reading else {
            return self.go_on();
        };
        match outcome {
            // The ring does not wait for a file that was opened O_NONBLOCK. A thread does.
            Err(Errno(libc::EAGAIN)) if !body.thread_only => {
                body.thread_only = true;
                return Step::Run;
            }
            Err(Errno(libc::EINTR)) => return Step::Run,
            // Reading all of it tells what is wrong, and where.
            Err(_) if matches!(reading, Reading::Ahead { .. } | Reading::Arrival(_)) => {
                body.reading = None;
                body.lacks_read_ahead = true;
            }
            Err(errno) => return failed(errno),
            Ok(length) => {
                body.reading = None;
                if let Reading::Ahead { length, .. } = reading {
                    return body.wait_for(Reading::Arrival(length));
                }
                if !body.arrived(reading, length) {
                    return self.finish(End::FileEnded);
                }
                // To take an answer in costs nothing, so many may come in a row. To send does.
                return Step::Again;
            }
        }
        self.go_on()
    }

    /// At the end, whichever it is, nothing stays held back for what does not follow.
    fn uncorked(&mut self, step: Step) -> Step {
        if self.corked && matches!(step, Step::Done(_)) {
            self.corked = false;
            sys::uncork(self.socket.as_fd());
        }
        step
    }
}

impl Operation for Sendfile {
    fn check(&self) -> io::Result<()> {
        self.body.as_ref().map_or(Ok(()), |body| check_range(body.at, 0))
    }

    fn begins_at_once(&self) -> bool {
        true
    }

    fn recall(&mut self, recent: &Recent) {
        // With a header it has to be known whether the file goes so far, before the header leaves.
        let alone = self.header.is_empty() && self.trailer.is_empty();
        if let Some(body) = self.body.as_mut().filter(|_| alone) {
            if let Some(known) = recent.of(&self.socket, &body.file) {
                body.recall(known);
            }
        }
    }

    fn remember(&self, recent: &mut Recent) {
        if let Some(body) = self.body.as_ref().filter(|body| body.copying.is_none()) {
            recent.keep(&self.socket, &body.file, body.known());
        }
    }

    fn advance(&mut self) -> Step {
        let step = self.go_on();
        self.uncorked(step)
    }

    fn encode(&mut self) -> Option<Entry> {
        self.body.as_mut().filter(|body| !body.thread_only)?.encode()
    }

    fn run(&mut self) -> Outcome {
        self.body.as_mut().map_or(Ok(0), |body| body.run())
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        let step = self.resume(outcome);
        self.uncorked(step)
    }

    fn abort(&mut self, reason: io::Error) -> Step {
        self.uncorked(Step::Done(Err(reason)))
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

impl fmt::Debug for Sendfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sendfile")
            .field("sent", &self.sent)
            .field("end", &self.end)
            .field("misses", &self.misses())
            .finish_non_exhaustive()
    }
}

/// What is behind the first `sent` bytes.
fn rest(payload: &Payload, sent: u64) -> &[u8] {
    // Never more than its length, which fits.
    payload.as_slice().get(sent as usize..).unwrap_or_default()
}

fn failed(errno: Errno) -> Step {
    Step::Done(Err(errno.into()))
}

#[cfg(test)]
mod tests;
