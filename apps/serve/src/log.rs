//! The access log: lines gather in memory and leave by asynchronous writes, one at a time, so their
//! order stays and a full disk or a stopped reader stalls nobody.
//!
//! What a write does not take stays in front of the lines that came meanwhile. While the log refuses
//! them lines wait, up to a bound; those beyond are lost, counted, and spoken of on standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kevent_aio::{Fd, Write};

use crate::http::date::http_date;
use crate::options::LogTarget;

/// Bytes of lines that wait for the disk. Lines beyond are dropped, and counted.
const WAITING_MAX: usize = 1 << 20;

/// A log that refused lines is offered them again after that time.
const AGAIN: Duration = Duration::from_secs(1);

/// The same for one that is full for the moment and does not wait itself, as a pipe that whoever
/// started this process made non-blocking.
const FULL_AGAIN: Duration = Duration::from_millis(20);

/// A thread speaks of its log's troubles that often at most.
const COMPLAINTS_APART: Duration = Duration::from_secs(60);

/// What a pipe takes in one piece (pipe(7)): of longer writes the lines of several threads would mix.
const PIECE: usize = 4096;

/// One thread's end of the log.
pub struct Log {
    file: Fd,
    /// It is no file, which takes any write in one piece.
    in_pieces: bool,
    waiting: Vec<u8>,
    /// A write is under way. It has the bytes that were waiting before.
    writing: bool,
    /// The last write was refused, and it is not yet time for the next.
    pausing: bool,
    /// Lines lost since a line said so.
    dropped: u64,
    trouble: Trouble,
}

/// What is to be said on standard error.
#[derive(Debug, Default)]
struct Trouble {
    lost: u64,
    refusal: Option<io::Error>,
    said: Option<Instant>,
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
        Log {
            in_pieces: !is_file(&file),
            file,
            waiting: Vec::new(),
            writing: false,
            pausing: false,
            dropped: 0,
            trouble: Trouble::default(),
        }
    }

    /// Opens what the command line names, for appending. Never waits for a reader.
    ///
    /// # Errors
    ///
    /// As opening a file has.
    pub fn open(target: &LogTarget) -> io::Result<Fd> {
        match target {
            LogTarget::Stdout => stdout(),
            LogTarget::File(path) => append(path),
        }
    }

    /// From now on lines go to `file`.
    pub fn reopen(&mut self, file: Fd) {
        self.in_pieces = !is_file(&file);
        self.file = file;
        self.pausing = false;
    }

    /// Adds a line, as the common log format has it.
    pub fn line(&mut self, line: &Line<'_>) {
        if self.waiting.len() > WAITING_MAX {
            self.dropped += 1;
            self.trouble.lost += 1;
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
        if self.writing || self.pausing || self.waiting.is_empty() {
            return None;
        }
        self.writing = true;
        let length = if self.in_pieces { piece(&self.waiting) } else { self.waiting.len() };
        let rest = self.waiting.split_off(length);
        Some(Write::new(Arc::clone(&self.file), 0, mem::replace(&mut self.waiting, rest)))
    }

    /// The write that was taken has ended so. What it did not write stays; when there is a pause to be
    /// made before that is tried, this is how long, and `resume` ends it.
    pub fn written(&mut self, write: Write, result: io::Result<u64>) -> Option<Duration> {
        self.writing = false;
        let mut lines = write.into_buffer();
        let refused = match result {
            Ok(0) => Some(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                lines.drain(..lines.len().min(written as usize));
                None
            }
            Err(error) => Some(error),
        };
        if !lines.is_empty() {
            lines.append(&mut self.waiting);
            self.waiting = lines;
        }
        let error = refused?;
        self.pausing = true;
        if error.kind() == io::ErrorKind::WouldBlock {
            return Some(FULL_AGAIN);
        }
        self.trouble.refusal = Some(error);
        Some(AGAIN)
    }

    /// The pause is over.
    pub fn resume(&mut self) {
        self.pausing = false;
    }

    /// Whether lines are being written, or can be.
    pub fn is_busy(&self) -> bool {
        self.writing || !(self.waiting.is_empty() || self.pausing)
    }

    /// What people should hear of its troubles now.
    pub fn complaint(&mut self, now: Instant) -> Option<String> {
        let Trouble { lost, refusal, said } = &mut self.trouble;
        if *lost == 0 && refusal.is_none() {
            return None;
        }
        if said.is_some_and(|said| now.saturating_duration_since(said) < COMPLAINTS_APART) {
            return None;
        }
        *said = Some(now);
        Some(match (mem::take(lost), refusal.take()) {
            (0, Some(error)) => format!("the log: {error}. Its lines wait"),
            (lost, Some(error)) => format!("the log: {error}. lines lost: {lost}"),
            (lost, None) => format!("the log cannot keep up: lines lost: {lost}"),
        })
    }

    /// What people should hear at the end: the lines that still wait are lost, and there is no later.
    pub fn last_complaint(&mut self, now: Instant) -> Option<String> {
        let waiting = mem::take(&mut self.waiting);
        self.trouble.lost += waiting.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.trouble.said = None;
        self.complaint(now)
    }
}

fn is_file(file: &Fd) -> bool {
    let file = file.as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.is_file())
}

/// The length of the whole lines that fit in a piece; of one line, if that is longer.
fn piece(lines: &[u8]) -> usize {
    if lines.len() <= PIECE {
        return lines.len();
    }
    let fits = lines[..PIECE].iter().rposition(|byte| *byte == b'\n');
    let end = fits.or_else(|| lines.iter().position(|byte| *byte == b'\n'));
    end.map_or(lines.len(), |end| end + 1)
}

/// Standard output, whatever it is. A file is opened anew, to append: the descriptor that the process
/// was given may write over what others append. Everything else can't be opened anew without waiting
/// for its reader, or, as a socket, at all.
fn stdout() -> io::Result<Fd> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if stdout.metadata()?.is_file() {
        append(Path::new("/dev/stdout"))
    } else {
        Ok(Arc::new(stdout))
    }
}

fn append(path: &Path) -> io::Result<Fd> {
    // Opened for writing alone, a fifo waits for a reader; opened for both it does not (fifo(7)).
    let is_fifo = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    let file = OpenOptions::new().append(true).read(is_fifo).create(true).open(path)?;
    Ok(Arc::new(file))
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

    fn line() -> Line<'static> {
        Line {
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            now: SystemTime::UNIX_EPOCH,
            request: "GET / HTTP/1.1",
            status: 200,
            bytes: 1,
        }
    }

    fn text(log: &Log) -> String {
        String::from_utf8(log.waiting.clone()).unwrap()
    }

    #[test]
    fn log_that_cannot_keep_up_is_bounded_and_says_what_was_lost() {
        let mut log = Log::new(Arc::new(tempfile::tempfile().unwrap()));
        while log.dropped < 3 {
            log.line(&line());
        }
        assert!(log.waiting.len() < 2 * WAITING_MAX);
        let now = Instant::now();
        let said = log.complaint(now).unwrap();
        assert!(said.contains("lines lost: 3"), "{said}");
        log.line(&line());
        assert_eq!(log.complaint(now), None, "not with every line");
        assert!(log.complaint(now + COMPLAINTS_APART).unwrap().contains("lines lost: 1"));
        assert!(log.take_write().is_some());
        assert!(log.take_write().is_none(), "one write at a time");
        log.line(&line());
        assert!(text(&log).starts_with("# 4 lines lost"));
    }

    #[test]
    fn what_a_write_did_not_take_is_written_next_and_in_order() {
        let mut log = Log::new(Arc::new(tempfile::tempfile().unwrap()));
        log.line(&line());
        let whole = text(&log).repeat(2);
        let write = log.take_write().unwrap();
        log.line(&line());
        assert_eq!(log.written(write, Ok(5)), None);
        assert_eq!(text(&log), whole[5..]);
        let write = log.take_write().unwrap();
        assert_eq!(log.written(write, Ok(whole.len() as u64 - 5)), None);
        assert!(!log.is_busy());
    }

    #[test]
    fn piece_is_of_whole_lines() {
        let long = "x".repeat(PIECE);
        for (lines, length) in [
            (String::from("a\nb"), 3),
            (format!("a\nb\n{long}\n"), 4),
            (format!("{long}{long}\nb\n"), 2 * PIECE + 1),
        ] {
            assert_eq!(piece(lines.as_bytes()), length);
        }
    }

    #[test]
    fn refused_lines_wait_for_the_end_of_the_pause() {
        let mut log = Log::new(Arc::new(tempfile::tempfile().unwrap()));
        log.line(&line());
        let whole = text(&log);
        for error in [libc::ENOSPC, libc::EAGAIN] {
            let write = log.take_write().unwrap();
            let error = io::Error::from_raw_os_error(error);
            assert!(log.written(write, Err(error)).is_some());
            assert!(log.take_write().is_none() && !log.is_busy(), "nobody waits for it");
            log.resume();
            assert_eq!(text(&log), whole);
        }
        let said = log.last_complaint(Instant::now()).unwrap();
        assert!(said.contains("No space") && said.contains("lines lost: 1"), "{said}");
    }
}
