//! A file with a position: what tokio's traits want.

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use ::tokio::task::coop;

use crate::operation::{Operation, Step};
use crate::ops::{Op, Read, Statx, Write};
use crate::tokio::engine::{Begun, Pending};
use crate::tokio::file::File;
use crate::tokio::slot::Answer;

/// How much is read ahead, unless said otherwise.
const READ_AHEAD: usize = 64 * 1024;

/// The most that one write takes: a copy of it is kept until it is written.
const MOST_WRITTEN: usize = 2 * 1024 * 1024;

/// A position in a file: [`AsyncRead`], [`AsyncWrite`] and [`AsyncSeek`].
///
/// It reads ahead, 64 KiB unless [said otherwise](Cursor::read_ahead), so many small reads are one
/// system call; what another writes into that part meanwhile is not seen.
///
/// It writes behind: a write is taken, at most 2 MiB of it, and done while the caller goes on, one at a
/// time. If it fails, that is told once, at the next call that writes, flushes, reads or seeks. So what was
/// written is in the file only after a flush; and a cursor that is dropped lets its last write go on,
/// but tells nobody how that ended. Many small writes are better gathered by
/// [`BufWriter`](https://docs.rs/tokio/latest/tokio/io/struct.BufWriter.html).
///
/// A read or a seek waits for the write before it.
///
/// Of a file without places, as a pipe or a terminal, it is for reading or for writing, not for both: a
/// write forgets what was read ahead, which can't be read again there.
///
/// ```
/// use kevent_aio::tokio::{Engine, File};
/// use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("greeting");
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let engine = Engine::new()?;
/// let mut cursor = File::create(&engine, &path).await?.cursor();
/// cursor.write_all(b"hello, world").await?;
/// cursor.rewind().await?;
/// let mut text = String::new();
/// cursor.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello, world");
/// # std::io::Result::Ok(())
/// # })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Cursor {
    file: File,
    /// Where the caller is.
    position: u64,
    /// What was read ahead. The first `taken` bytes of it are behind the position, the others in front.
    ahead: Vec<u8>,
    taken: usize,
    /// How much is read ahead.
    window: usize,
    busy: Busy,
    seek: Option<SeekFrom>,
    /// Of a write, not told yet.
    failure: Option<io::Error>,
}

/// What is under way.
#[derive(Debug)]
enum Busy {
    No,
    Reading(Pending),
    /// A write, of which so much was written before, at the place where it begins.
    Writing {
        pending: Pending,
        at: u64,
        written: usize,
    },
}

impl Cursor {
    /// A position in `file`, so many bytes from its beginning.
    #[must_use]
    pub fn new(file: File, position: u64) -> Cursor {
        Cursor {
            file,
            position,
            ahead: Vec::new(),
            taken: 0,
            window: READ_AHEAD,
            busy: Busy::No,
            seek: None,
            failure: None,
        }
    }

    /// Reads that many bytes ahead at most, and at least one.
    #[must_use]
    pub fn read_ahead(self, bytes: usize) -> Cursor {
        Cursor { window: bytes.max(1), ..self }
    }

    /// Where the next read or write begins, if no seek is under way.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file again. Flush before; else the error of a last write is lost.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// Forgets what was read ahead.
    fn forget(&mut self) {
        self.ahead.clear();
        self.taken = 0;
    }

    /// Finishes the write that is under way, and tells a failure, once.
    fn poll_written(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        while let Busy::Writing { pending, at, written } = &mut self.busy {
            let Answer { result, op, .. } = ready!(pending.poll(cx));
            let (at, written) = (*at, *written);
            self.busy = Busy::No;
            match result {
                Ok(0) => self.failure = Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.write_rest(op, at, written + count as usize),
                Err(error) => self.failure = Some(error),
            }
        }
        Poll::Ready(self.failure.take().map_or(Ok(()), Err))
    }

    /// Goes on with a write that was short.
    fn write_rest(&mut self, op: Option<Op>, at: u64, written: usize) {
        let Some(Op::Write(write)) = op else { return };
        let buffer = write.into_buffer();
        if written < buffer.len() {
            self.write(buffer, at, written);
        }
    }

    fn write(&mut self, buffer: Vec<u8>, at: u64, written: usize) {
        let write = Write::resume(self.file.fd(), at, buffer, written);
        match self.file.engine().start(write.into(), None) {
            Begun::Pending(pending) => {
                // The caller was told that it is written.
                let pending = pending.lasting();
                self.busy = Busy::Writing { pending, at, written };
            }
            Begun::Done(Answer { result, .. }) => self.failure = result.err(),
        }
    }

    /// Fills what is read ahead, once it is used up.
    fn poll_ahead(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.taken < self.ahead.len() {
            return Poll::Ready(Ok(()));
        }
        if let Busy::No = self.busy {
            let buffer = std::mem::take(&mut self.ahead);
            self.taken = 0;
            let mut read = Read::new(self.file.fd(), self.position, buffer).up_to(self.window);
            read.check()?;
            let looked = self.file.engine().look_at(&mut read);
            if matches!(looked, Step::Done(_)) || !read.data().is_empty() {
                // Also when only some of it is cached: the caller need not wait for the rest.
                self.file.engine().count_inline();
                self.ahead = read.into_buffer();
                let Step::Done(result) = looked else { return Poll::Ready(Ok(())) };
                return Poll::Ready(result.map(drop));
            }
            match self.file.engine().start(read.into(), None) {
                Begun::Pending(pending) => self.busy = Busy::Reading(pending),
                Begun::Done(answer) => return Poll::Ready(self.take_in(answer)),
            }
        }
        let Busy::Reading(pending) = &mut self.busy else { return Poll::Ready(Ok(())) };
        let answer = ready!(pending.poll(cx));
        self.busy = Busy::No;
        Poll::Ready(self.take_in(answer))
    }

    fn take_in(&mut self, answer: Answer) -> io::Result<()> {
        if let Some(Op::Read(read)) = answer.op {
            self.ahead = read.into_buffer();
        }
        answer.result.map(drop)
    }

    /// Where a seek leads to.
    fn target(&self, to: SeekFrom) -> io::Result<u64> {
        let (from, target) = match to {
            SeekFrom::Start(position) => (0, Some(position)),
            SeekFrom::Current(by) => (self.position, self.position.checked_add_signed(by)),
            SeekFrom::End(by) => {
                let length = self.length()?;
                (length, length.checked_add_signed(by))
            }
        };
        target.filter(|target| i64::try_from(*target).is_ok()).ok_or_else(|| {
            let text =
                format!("a seek by {to:?} from {from} leads out of 0 to 2^63 - 1, where files are");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    fn length(&self) -> io::Result<u64> {
        let mut statx = Statx::of(self.file.fd());
        // Of an open file the kernel has it in memory: this does not wait.
        match statx.advance() {
            Step::Done(Err(error)) => Err(error),
            _ => Ok(statx.stat().map_or(0, |stat| stat.size)),
        }
    }

    /// Goes there, and keeps what was read ahead if it is still in front.
    fn go_to(&mut self, position: u64) {
        let begins = self.position - self.taken as u64;
        let within = position.checked_sub(begins).filter(|n| *n <= self.ahead.len() as u64);
        match within {
            Some(taken) => self.taken = taken as usize,
            None => self.forget(),
        }
        self.position = position;
    }
}

impl AsyncRead for Cursor {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let cursor = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let budget = ready!(coop::poll_proceed(cx));
        ready!(cursor.poll_written(cx))?;
        ready!(cursor.poll_ahead(cx))?;
        budget.made_progress();
        let there = &cursor.ahead[cursor.taken..];
        let taken = &there[..there.len().min(buf.remaining())];
        buf.put_slice(taken);
        let count = taken.len();
        cursor.taken += count;
        cursor.position += count as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cursor {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let cursor = self.get_mut();
        let budget = ready!(coop::poll_proceed(cx));
        ready!(cursor.poll_written(cx))?;
        budget.made_progress();
        let data = &data[..data.len().min(MOST_WRITTEN)];
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // A read ahead that is under way is stopped, and one that was done is out of date.
        cursor.busy = Busy::No;
        cursor.forget();
        cursor.write(data.to_vec(), cursor.position, 0);
        if let Some(failure) = cursor.failure.take() {
            return Poll::Ready(Err(failure));
        }
        cursor.position += data.len() as u64;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_written(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl AsyncSeek for Cursor {
    fn start_seek(self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        self.get_mut().seek = Some(position);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let cursor = self.get_mut();
        // Without a seek this is asked first, to end one that was not waited for.
        let Some(to) = cursor.seek else { return Poll::Ready(Ok(cursor.position)) };
        let written = ready!(cursor.poll_written(cx));
        cursor.seek = None;
        written?;
        cursor.busy = Busy::No;
        let target = cursor.target(to)?;
        cursor.go_to(target);
        Poll::Ready(Ok(cursor.position))
    }
}
