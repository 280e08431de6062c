//! The access log: lines gather in memory and leave by asynchronous writes, one at a time, so their
//! order stays and a full disk or a stopped reader stalls nobody.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::mem;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use kevent_aio::{Fd, Write};

use crate::http::date::http_date;
use crate::options::LogTarget;

/// Bytes of lines that wait for the disk. Lines beyond are dropped, and counted.
const WAITING_MAX: usize = 1 << 20;

/// One thread's end of the log.
pub struct Log {
    file: Fd,
    waiting: Vec<u8>,
    /// A write is under way. It has the bytes that were waiting before.
    writing: bool,
    dropped: u64,
}

/// What a line says of a request.
#[derive(Debug)]
pub struct Line<'a> {
    pub peer: SocketAddr,
    pub now: SystemTime,
    /// The request line as far as it is known.
    pub request: &'a str,
    pub status: u16,
    pub bytes: u64,
}

impl Log {
    /// A log that appends to `file`, which was opened for appending.
    pub fn new(file: Fd) -> Log {
        Log { file, waiting: Vec::new(), writing: false, dropped: 0 }
    }

    /// Opens what the command line names, for appending.
    ///
    /// # Errors
    ///
    /// As opening a file has.
    pub fn open(target: &LogTarget) -> io::Result<Fd> {
        let path = match target {
            LogTarget::Stdout => Path::new("/dev/stdout"),
            LogTarget::File(path) => path,
        };
        let file: File = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Arc::new(file))
    }

    /// From now on lines go to `file`.
    pub fn reopen(&mut self, file: Fd) {
        self.file = file;
    }

    /// Adds a line, as the common log format has it.
    pub fn line(&mut self, line: &Line<'_>) {
        if self.waiting.len() > WAITING_MAX {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 {
            let dropped = mem::take(&mut self.dropped);
            let _ = writeln!(self.waiting, "# {dropped} lines lost: the log could not keep up");
        }
        // Writing to memory does not fail.
        let _ = writeln!(
            self.waiting,
            "{} - - [{}] \"{}\" {} {}",
            line.peer.ip(),
            http_date(line.now),
            Printable(line.request),
            line.status,
            line.bytes,
        );
    }

    /// The next write, when one is due.
    pub fn take_write(&mut self) -> Option<Write> {
        if self.writing || self.waiting.is_empty() {
            return None;
        }
        self.writing = true;
        Some(Write::new(Arc::clone(&self.file), 0, mem::take(&mut self.waiting)))
    }

    /// The write that was taken is done.
    pub fn written(&mut self) {
        self.writing = false;
    }

    /// Whether lines wait, or are being written.
    pub fn is_busy(&self) -> bool {
        self.writing || !self.waiting.is_empty()
    }
}

/// A request line in which nothing breaks out of its quotes or of its line.
struct Printable<'a>(&'a str);

impl std::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in self.0.split_inclusive(|c: char| c == '"' || c == '\\' || c.is_control()) {
            let last = part.chars().next_back();
            match last.filter(|c| *c == '"' || *c == '\\' || c.is_control()) {
                Some(special) => {
                    f.write_str(&part[..part.len() - special.len_utf8()])?;
                    write!(f, "{}", special.escape_default())?;
                }
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_line_cannot_forge_a_log_line() {
        let text = Printable("GET /\"x\\\n127.0.0.1 \u{1b}[2J HTTP/1.1").to_string();
        assert_eq!(text, "GET /\\\"x\\\\\\n127.0.0.1 \\u{1b}[2J HTTP/1.1");
    }

    #[test]
    fn log_that_cannot_keep_up_is_bounded_and_says_what_was_lost() {
        let mut log = Log::new(Arc::new(io::stderr()));
        let line = Line {
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            now: SystemTime::UNIX_EPOCH,
            request: "GET / HTTP/1.1",
            status: 200,
            bytes: 1,
        };
        while log.dropped < 3 {
            log.line(&line);
        }
        assert!(log.waiting.len() < 2 * WAITING_MAX);
        assert!(log.take_write().is_some());
        assert!(log.take_write().is_none(), "one write at a time");
        log.line(&line);
        assert!(String::from_utf8_lossy(&log.waiting).starts_with("# 3 lines lost"));
    }
}
