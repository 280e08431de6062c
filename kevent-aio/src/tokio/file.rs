//! An open file, and what is done at a place in it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ::tokio::net::TcpStream;

use crate::operation::Fd;
use crate::ops::{
    Close, Fallocate, Fdatasync, Fsync, Op, Open, Read, Stat, Statx, Truncate, Write,
};
use crate::tokio::cursor::Cursor;
use crate::tokio::engine::{Engine, Finished};

/// What became of a call that was given a buffer: the result, and the buffer.
///
/// The buffer is back in any case but one: when the engine was [shut down](Engine::shutdown) while the
/// kernel was at it, this is another one, empty.
pub type BufResult<T> = (io::Result<T>, Vec<u8>);

/// An open file.
///
/// All that reads and writes is told the place, takes a buffer, and gives it back: the kernel works on
/// it while the future waits, so a future that is dropped must not take the memory along. Any number
/// of calls may be under way at once; share the file by reference, or in an [`Arc`]. Reads are not
/// ordered after writes that are still under way, nor are writes among themselves.
///
/// With a position, and for whatever takes `AsyncRead`: [`cursor`](File::cursor). Each operation that
/// has no method here is [run](Engine::run) by the engine, with the file's [`fd`](File::fd).
///
/// ```
/// use kevent_aio::tokio::{Engine, File};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("greeting");
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let engine = Engine::new()?;
/// let file = File::create(&engine, &path).await?;
/// let (written, buffer) = file.write_all_at(b"hello, world".to_vec(), 0).await;
/// written?;
/// file.sync_data().await?;
/// let (read, buffer) = file.read_exact_at(buffer, 5, 7).await;
/// read?;
/// assert_eq!(buffer, b"world");
/// file.close().await?;
/// # std::io::Result::Ok(())
/// # })?;
/// # std::io::Result::Ok(())
/// ```
pub struct File {
    engine: Engine,
    fd: Arc<OwnedFd>,
}

/// Opening and closing.
impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// As openat2(2).
    pub async fn open(engine: &Engine, path: impl AsRef<Path>) -> io::Result<File> {
        File::open_with(engine, Open::new(path)).await
    }

    /// Makes a file, or empties the one that is there, for reading and writing.
    ///
    /// # Errors
    ///
    /// As openat2(2).
    pub async fn create(engine: &Engine, path: impl AsRef<Path>) -> io::Result<File> {
        let open = Open::new(path).read_write().create(0o666).flags(libc::O_TRUNC);
        File::open_with(engine, open).await
    }

    /// Opens a file in any way. If the future is dropped, a file that is opened all the same is closed.
    ///
    /// # Errors
    ///
    /// As openat2(2).
    pub async fn open_with(engine: &Engine, open: Open) -> io::Result<File> {
        let Finished { result, op, .. } = engine.run(open).await;
        result?;
        let fd = op.and_then(|mut open| open.take());
        let fd = fd.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        Ok(File { engine: engine.clone(), fd: Arc::new(fd) })
    }

    /// A file that was opened elsewhere. It may be a pipe or a terminal as well: see [`Read`] and
    /// [`Write`] for what becomes of offsets there.
    #[must_use]
    pub fn from_std(engine: &Engine, file: impl Into<OwnedFd>) -> File {
        File { engine: engine.clone(), fd: Arc::new(file.into()) }
    }

    /// Closes the file, and tells what only that brings to light: see [`Close`].
    ///
    /// An operation that was dropped and that the kernel has not let go of, keeps it open that much
    /// longer; then nothing is told.
    ///
    /// # Errors
    ///
    /// As close(2). It is closed in any case.
    pub async fn close(self) -> io::Result<()> {
        let File { engine, fd } = self;
        let Some(fd) = Arc::into_inner(fd) else { return Ok(()) };
        engine.run(Close::new(fd)).await.result.map(drop)
    }

    /// The file as operations take it.
    #[must_use]
    pub fn fd(&self) -> Fd {
        Arc::clone(&self.fd) as Fd
    }

    /// The engine that does the work.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A position in the file, at its beginning, with which to read and write.
    #[must_use]
    pub fn cursor(self) -> Cursor {
        Cursor::new(self, 0)
    }
}

/// Reading and writing.
impl File {
    /// Reads at `offset` what fits into the buffer's capacity; what it held is forgotten. See [`Read`].
    ///
    /// # Errors
    ///
    /// As pread(2). The end of the file is no error but a count of zero.
    pub async fn read_at(&self, buffer: Vec<u8>, offset: u64) -> BufResult<usize> {
        self.read(buffer, offset, None).await
    }

    /// As [`read_at`](File::read_at), and is cancelled at that time: see [`Engine::run_until`].
    ///
    /// # Errors
    ///
    /// As [`read_at`](File::read_at), and `TimedOut`.
    pub async fn read_at_until(
        &self,
        buffer: Vec<u8>,
        offset: u64,
        deadline: Instant,
    ) -> BufResult<usize> {
        self.read(buffer, offset, Some(deadline)).await
    }

    /// Reads `len` bytes at `offset`, whatever the buffer's capacity, which grows if it must.
    ///
    /// # Errors
    ///
    /// As [`read_at`](File::read_at); `UnexpectedEof` when the file ends before. The buffer holds what
    /// was read.
    pub async fn read_exact_at(&self, buffer: Vec<u8>, len: usize, offset: u64) -> BufResult<()> {
        self.read_exact(buffer, len, offset, None).await
    }

    /// As [`read_exact_at`](File::read_exact_at), and is cancelled at that time.
    ///
    /// # Errors
    ///
    /// As [`read_exact_at`](File::read_exact_at), and `TimedOut`.
    pub async fn read_exact_at_until(
        &self,
        buffer: Vec<u8>,
        len: usize,
        offset: u64,
        deadline: Instant,
    ) -> BufResult<()> {
        self.read_exact(buffer, len, offset, Some(deadline)).await
    }

    /// Writes the buffer at `offset`, or the beginning of it, and says how much. See [`Write`].
    ///
    /// # Errors
    ///
    /// As pwrite(2).
    pub async fn write_at(&self, buffer: Vec<u8>, offset: u64) -> BufResult<usize> {
        self.write(buffer, 0, offset, None).await
    }

    /// As [`write_at`](File::write_at), and is cancelled at that time.
    ///
    /// # Errors
    ///
    /// As [`write_at`](File::write_at), and `TimedOut`: some of it may be written.
    pub async fn write_at_until(
        &self,
        buffer: Vec<u8>,
        offset: u64,
        deadline: Instant,
    ) -> BufResult<usize> {
        self.write(buffer, 0, offset, Some(deadline)).await
    }

    /// Writes all of the buffer at `offset`.
    ///
    /// # Errors
    ///
    /// As pwrite(2); `WriteZero` when the file takes no more. Some of it may be written.
    pub async fn write_all_at(&self, buffer: Vec<u8>, offset: u64) -> BufResult<()> {
        self.write_all(buffer, offset, None).await
    }

    /// As [`write_all_at`](File::write_all_at), and is cancelled at that time.
    ///
    /// # Errors
    ///
    /// As [`write_all_at`](File::write_all_at), and `TimedOut`.
    pub async fn write_all_at_until(
        &self,
        buffer: Vec<u8>,
        offset: u64,
        deadline: Instant,
    ) -> BufResult<()> {
        self.write_all(buffer, offset, Some(deadline)).await
    }

    /// Sends a range of the file through a stream: see [`Engine::sendfile`].
    ///
    /// # Errors
    ///
    /// As [`Engine::sendfile`].
    pub async fn sendfile(&self, range: Range<u64>, to: &TcpStream) -> io::Result<u64> {
        self.engine.sendfile(self.fd(), range, to).await
    }

    async fn read(
        &self,
        buffer: Vec<u8>,
        offset: u64,
        deadline: Option<Instant>,
    ) -> BufResult<usize> {
        let (result, read) = self.run(Read::new(self.fd(), offset, buffer), deadline).await;
        (result.map(|n| n as usize), read.map(Read::into_buffer).unwrap_or_default())
    }

    async fn read_exact(
        &self,
        mut buffer: Vec<u8>,
        len: usize,
        offset: u64,
        deadline: Option<Instant>,
    ) -> BufResult<()> {
        buffer.clear();
        loop {
            let before = buffer.len();
            let read = Read::resume(self.fd(), offset, buffer).up_to(len);
            let (result, read) = self.run(read, deadline).await;
            buffer = read.map(Read::into_buffer).unwrap_or_default();
            match result {
                Err(error) => return (Err(error), buffer),
                Ok(_) if buffer.len() >= len => return (Ok(()), buffer),
                Ok(_) if buffer.len() == before => {
                    return (Err(io::ErrorKind::UnexpectedEof.into()), buffer);
                }
                Ok(_) => {}
            }
        }
    }

    async fn write(
        &self,
        buffer: Vec<u8>,
        written: usize,
        offset: u64,
        deadline: Option<Instant>,
    ) -> BufResult<usize> {
        let write = Write::resume(self.fd(), offset, buffer, written);
        let (result, write) = self.run(write, deadline).await;
        (result.map(|n| n as usize), write.map(Write::into_buffer).unwrap_or_default())
    }

    async fn write_all(
        &self,
        mut buffer: Vec<u8>,
        offset: u64,
        deadline: Option<Instant>,
    ) -> BufResult<()> {
        let mut written = 0;
        while written < buffer.len() {
            let (result, back) = self.write(buffer, written, offset, deadline).await;
            buffer = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(count) => written += count,
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }
}

/// The file as a whole.
impl File {
    /// Brings data and metadata to stable storage: all that was written before this is called.
    ///
    /// # Errors
    ///
    /// As fsync(2).
    pub async fn sync_all(&self) -> io::Result<()> {
        self.run(Fsync::new(self.fd()), None).await.0.map(drop)
    }

    /// As [`sync_all`](File::sync_all), and is cancelled at that time.
    ///
    /// # Errors
    ///
    /// As [`sync_all`](File::sync_all), and `TimedOut`.
    pub async fn sync_all_until(&self, deadline: Instant) -> io::Result<()> {
        self.run(Fsync::new(self.fd()), Some(deadline)).await.0.map(drop)
    }

    /// Brings the data to stable storage, with what is needed to read it back.
    ///
    /// # Errors
    ///
    /// As fdatasync(2).
    pub async fn sync_data(&self) -> io::Result<()> {
        self.run(Fdatasync::new(self.fd()), None).await.0.map(drop)
    }

    /// As [`sync_data`](File::sync_data), and is cancelled at that time.
    ///
    /// # Errors
    ///
    /// As [`sync_data`](File::sync_data), and `TimedOut`.
    pub async fn sync_data_until(&self, deadline: Instant) -> io::Result<()> {
        self.run(Fdatasync::new(self.fd()), Some(deadline)).await.0.map(drop)
    }

    /// Asks for the metadata. Does not wait, but on a network file system.
    ///
    /// # Errors
    ///
    /// As statx(2).
    pub async fn metadata(&self) -> io::Result<Stat> {
        let (result, statx) = self.run(Statx::of(self.fd()), None).await;
        result?;
        statx.and_then(|statx| statx.stat()).ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Cuts the file to that length, or lengthens it with zeros.
    ///
    /// # Errors
    ///
    /// As ftruncate(2).
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.run(Truncate::new(self.fd(), len), None).await.0.map(drop)
    }

    /// Makes sure that the range can be written without running out of space. The file grows if the range
    /// ends beyond it. See [`Fallocate`].
    ///
    /// # Errors
    ///
    /// As fallocate(2).
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.run(Fallocate::new(self.fd(), offset, len), None).await.0.map(drop)
    }

    async fn run<O: Into<Op> + TryFrom<Op>>(
        &self,
        op: O,
        deadline: Option<Instant>,
    ) -> (io::Result<u64>, Option<O>) {
        let Finished { result, op, .. } = self.engine.finish(op.into(), deadline).await;
        (result, op)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.fd).finish()
    }
}
