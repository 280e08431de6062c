//! An io_uring that receives: requests that stay (multishot), and the buffers that the kernel fills for
//! them, which come back to it when they are dropped.
//!
//! There are two kinds. One for [`Threads::Any`] receives whenever something comes in, by interrupting the
//! thread that made the request. (Not with `COOP_TASKRUN`: nothing would arrive while that thread
//! computes, though another one waits for the queue meanwhile.) One for [`Threads::One`] receives when
//! the thread that owns it asks for all that came in: `DEFER_TASKRUN`. Its own
//! descriptor does not wake epoll, but an eventfd that is registered with it does.
//!
//! # Safety
//!
//! The kernel writes to a buffer from the moment at which it is published in the buffer ring until a
//! completion names it. All buffers and the ring of them are one block of memory, [`Pool`], that stands
//! as long as there is a [`Buffer`] of it or the io_uring: and that one is dropped only when the last
//! request has completed, or the block is leaked. A buffer is either published or stands behind one
//! `Buffer`, so nobody writes to what is read.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use kevent_core::Waker;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// How many requests one call hands over.
const BATCH: u32 = 256;

/// The kernel's name for the ring of buffers. An io_uring of ours has one.
const GROUP: u16 = 0;

/// Where the ring of buffers begins: at a page, of whatever size.
const ALIGN: usize = 65_536;

/// What a processor caches at a time, mostly.
const LINE: usize = 64;

/// How long a ring that is dropped waits for the kernel to let go of the buffers.
const FAREWELL: Duration = Duration::from_secs(1);

/// The name of requests that are no registration's. Tokens are never that high.
const NOBODY: u64 = u64::MAX;

/// Buffers, and the ring in which those lie that the kernel may fill.
struct Pool {
    block: NonNull<u8>,
    layout: Layout,
    /// How many; a power of two.
    count: u16,
    size: u32,
    /// How far apart they are: an odd number of cache lines, so that their beginnings, which are what is
    /// used of them mostly, do not all compete for the same few places in the cache.
    stride: usize,
    published: Mutex<Published>,
}

/// What of the pool the kernel may fill.
struct Published {
    /// Where the next buffer goes in the ring, modulo its size. The kernel reads on up to here.
    tail: u16,
    /// How often a buffer was published.
    times: usize,
    /// Somebody waits for a buffer, behind this queue.
    awaited: bool,
    waker: Option<Waker>,
}

// SAFETY: the block is owned, and written to under the lock, or by the kernel.
unsafe impl Send for Pool {}
// SAFETY: as above; and a buffer is read through the one `Buffer` that stands for it.
unsafe impl Sync for Pool {}

impl Pool {
    fn new(count: u16, size: u32) -> io::Result<Pool> {
        let ring = usize::from(count) * size_of::<BufRingEntry>();
        let stride = ((size as usize).div_ceil(LINE) | 1) * LINE;
        let bytes = stride.checked_mul(count.into()).and_then(|n| n.checked_add(ring));
        let layout = bytes.and_then(|bytes| Layout::from_size_align(bytes, ALIGN).ok());
        let layout = layout.ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout is not empty: neither `count` nor `size` is zero, says the caller.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) });
        let block = block.ok_or(io::ErrorKind::OutOfMemory)?;
        let published = Mutex::new(Published { tail: 0, times: 0, awaited: false, waker: None });
        Ok(Pool { block, layout, count, size, stride, published })
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        // No caller panics while it holds the lock.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> *mut BufRingEntry {
        self.block.as_ptr().cast()
    }

    fn data(&self, id: u16) -> *mut u8 {
        let ring = usize::from(self.count) * size_of::<BufRingEntry>();
        let offset = ring + usize::from(id) * self.stride;
        // SAFETY: `id` is below `count`, as whoever has one knows, so this is within the block.
        unsafe { self.block.as_ptr().add(offset) }
    }

    /// Gives buffer `id` to the kernel.
    fn publish(&self, id: u16) {
        let mut published = self.lock();
        let at = usize::from(published.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, so this is within the ring.
        let entry = unsafe { self.ring().add(at) };
        // SAFETY: the kernel reads an entry only after the tail has passed it, and there are as many
        // entries as buffers: so it is done with this one. Zeroes are an entry, too.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.data(id) as u64);
        entry.set_len(self.size);
        entry.set_bid(id);
        published.tail = published.tail.wrapping_add(1);
        // SAFETY: the ring begins with an entry.
        let tail = unsafe { BufRingEntry::tail(self.ring()) };
        // SAFETY: the tail is two aligned bytes of the block, which the kernel reads, and only these
        // lines write. It lies in the part of the first entry that is nobody else's.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(published.tail, Ordering::Release);
        published.times = published.times.wrapping_add(1);
        let awaited = std::mem::take(&mut published.awaited);
        let waker = if awaited { published.waker.clone() } else { None };
        drop(published);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody has it any more: see the top.
        unsafe { dealloc(self.block.as_ptr(), self.layout) };
    }
}

/// What was received, in one of the source's buffers. It goes back to the source when it is dropped,
/// on whatever thread: so drop it, or copy from it, rather than keeping it.
///
/// ```
/// # fn shout(buffer: &kevent_net::Buffer) -> Vec<u8> {
/// buffer.to_ascii_uppercase() // It is a slice.
/// # }
/// ```
pub struct Buffer {
    pool: Arc<Pool>,
    /// Which of the pool's; none if there was nothing to receive but that there is nothing.
    id: Option<u16>,
    len: u32,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(id) = self.id else { return &[] };
        // SAFETY: the buffer is this one's, of which the kernel has filled `len` bytes, and it is not
        // published before this is dropped.
        unsafe { std::slice::from_raw_parts(self.pool.data(id), self.len as usize) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.pool.publish(id);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What the kernel says of a request.
pub(crate) struct Answer {
    pub(crate) name: u64,
    /// How many bytes were received, or an error number.
    pub(crate) result: Result<u32, i32>,
    pub(crate) buffer: Buffer,
    /// The request stands, and will say more.
    pub(crate) more: bool,
}

/// Who uses a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Whatever thread has the source.
    Any,
    /// The thread that is the first to hand something over, and no other.
    One,
}

/// By which call something is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// recv(2), from a socket.
    Receive,
    /// read(2), from a pipe.
    Read,
}

/// An io_uring for requests that receive.
pub(crate) struct Uring {
    ring: IoUring,
    /// Rings when there is something to ask for, if the ring's own descriptor does not.
    bell: Option<OwnedFd>,
    /// Nothing was handed over yet, so that no thread owns it.
    unowned: bool,
    pool: Arc<Pool>,
    /// How often the kernel has filled a buffer, so far as it was heard of here.
    filled: usize,
    /// Requests of which more will be said.
    standing: usize,
    /// The process that made it.
    process: u32,
}

impl Uring {
    /// A ring with `count` buffers, a power of two up to 32,768, of `size` bytes.
    pub(crate) fn new(threads: Threads, count: u16, size: u32) -> io::Result<Uring> {
        let completions = 2 * u32::from(count).max(BATCH);
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(completions);
        if threads == Threads::One {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            // It belongs to the thread that enables it.
            builder.setup_r_disabled();
        }
        let ring = builder.build(BATCH).map_err(|e| refused("io_uring_setup", &e))?;
        let bell = match threads {
            Threads::Any => None,
            Threads::One => Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
        };
        if let Some(bell) = &bell {
            let registered = ring.submitter().register_eventfd(bell.as_raw_fd());
            registered.map_err(|e| refused("io_uring_register", &e))?;
        }
        let pool = Arc::new(Pool::new(count, size)?);
        // SAFETY: the address is that of `count` entries, on a page, and they stand as long as the
        // ring: see the top.
        let registered = unsafe {
            let submitter = ring.submitter();
            submitter.register_buf_ring_with_flags(pool.ring() as u64, count, GROUP, 0)
        };
        registered.map_err(|e| refused("io_uring_register", &e))?;
        (0..count).for_each(|id| pool.publish(id));
        let (unowned, process) = (threads == Threads::One, std::process::id());
        Ok(Uring { ring, bell, unowned, pool, filled: 0, standing: 0, process })
    }

    /// Whether the kernel can do that at all.
    pub(crate) fn can(&self, how: How) -> bool {
        let code = match how {
            How::Receive => opcode::RecvMulti::CODE,
            How::Read => opcode::ReadMulti::CODE,
        };
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(code)
    }

    /// Who is woken when a buffer comes back that is waited for.
    pub(crate) fn set_waker(&self, waker: Option<Waker>) {
        self.pool.lock().waker = waker;
    }

    /// For how many of `wanted` requests there is a buffer. If that is not all of them, the queue is
    /// woken when one comes back.
    pub(crate) fn ration(&self, wanted: usize) -> usize {
        let mut published = self.pool.lock();
        let free = published.times.wrapping_sub(self.filled);
        published.awaited = free < wanted;
        free.min(wanted)
    }

    /// Puts a request down that receives from `fd` until it is cancelled. `false` when the batch is full.
    pub(crate) fn push_receive(&mut self, name: u64, fd: BorrowedFd<'_>, how: How) -> bool {
        let fd = Fd(fd.as_raw_fd());
        let entry = match how {
            How::Receive => opcode::RecvMulti::new(fd, GROUP).build(),
            // The length is the buffer's.
            How::Read => opcode::ReadMulti::new(fd, 0, GROUP).build(),
        };
        let pushed = self.push(&entry.user_data(name));
        self.standing += usize::from(pushed);
        pushed
    }

    /// Puts down that the request `name` is to be cancelled, which says so itself. `false` when the
    /// batch is full.
    pub(crate) fn push_cancel(&mut self, name: u64) -> bool {
        let entry = opcode::AsyncCancel::new(name).build().user_data(NOBODY);
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS))
    }

    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the entry points to no memory. What it receives goes to the buffers: see the top.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Hands over what was put down, in one call, or none if that is nothing. What the kernel does not
    /// take now is handed over with the next.
    ///
    /// # Errors
    ///
    /// When the kernel refuses for good.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        if self.is_submitted() {
            return Ok(());
        }
        self.enter()
    }

    /// Whether the kernel has taken all that was put down.
    pub(crate) fn is_submitted(&mut self) -> bool {
        self.ring.submission().is_empty()
    }

    fn enter(&mut self) -> io::Result<()> {
        if self.unowned {
            let enabled = self.ring.submitter().register_enable_rings();
            enabled.map_err(|e| refused("io_uring_register", &e))?;
            self.unowned = false;
        }
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // Short of memory, or of room for completions: when those were taken.
                Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => Ok(()),
                _ => Err(refused("io_uring_enter", &e)),
            },
        }
    }

    /// Whether there are answers. Makes no system call, unless the kernel says that it has some which it
    /// has to be asked for: because there was no room, or because the ring belongs to one thread.
    ///
    /// # Errors
    ///
    /// As [`submit`](Uring::submit).
    pub(crate) fn has_answers(&mut self) -> io::Result<bool> {
        if !self.ring.completion().is_empty() {
            return Ok(true);
        }
        let submissions = self.ring.submission();
        if !submissions.cq_overflow() && !submissions.taskrun() {
            return Ok(false);
        }
        drop(submissions);
        self.enter()?;
        Ok(!self.ring.completion().is_empty())
    }

    /// The answers that are in memory.
    pub(crate) fn answers(&mut self) -> Answers<'_> {
        let Uring { ring, pool, filled, standing, .. } = self;
        Answers { entries: ring.completion(), pool, filled, standing }
    }

    /// The next answer, which may take a moment; none if there is nothing to come.
    ///
    /// # Errors
    ///
    /// As [`submit`](Uring::submit).
    pub(crate) fn answer(&mut self) -> io::Result<Option<Answer>> {
        let deadline = Instant::now() + FAREWELL;
        while !self.has_answers()? && self.standing > 0 && Instant::now() < deadline {
            self.pause();
        }
        Ok(self.answers().next())
    }

    /// Waits a little for an answer.
    fn pause(&self) {
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ = poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&limit));
    }

    /// Ends every request that the kernel has, and throws away what it says of them.
    fn end(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let mut asked = false;
        while self.standing > 0 && Instant::now() < deadline {
            // They say that they have ended when the thread that made them gets to it.
            if self.enter().is_err() {
                return;
            }
            self.answers().for_each(drop);
            if self.standing > 0 && !asked {
                asked = true;
                let limit = Some(Timespec::from(FAREWELL));
                let _ = self.ring.submitter().register_sync_cancel(limit, CancelBuilder::any());
            } else if self.standing > 0 {
                self.pause();
            }
        }
    }
}

/// Takes one answer after another out of the ring.
pub(crate) struct Answers<'a> {
    entries: cqueue::CompletionQueue<'a>,
    pool: &'a Arc<Pool>,
    filled: &'a mut usize,
    standing: &'a mut usize,
}

impl Iterator for Answers<'_> {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let entry = self.entries.find(|entry| entry.user_data() != NOBODY)?;
        let flags = entry.flags();
        let more = cqueue::more(flags);
        *self.standing = self.standing.saturating_sub((!more).into());
        let result = u32::try_from(entry.result()).map_err(|_| entry.result().saturating_neg());
        let id = cqueue::buffer_select(flags).filter(|id| *id < self.pool.count);
        let len = result.unwrap_or(0).min(self.pool.size);
        *self.filled = self.filled.wrapping_add(id.is_some().into());
        let buffer = Buffer { pool: Arc::clone(self.pool), id, len };
        Some(Answer { name: entry.user_data(), result, buffer, more })
    }
}

/// What gets readable when there are answers, or some to ask for: edge-triggered, and never read.
impl AsFd for Uring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if let Some(bell) = &self.bell {
            return bell.as_fd();
        }
        // SAFETY: the ring is open as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // A forked child drops its copy: the ring, and what is on it, is still its parent's. The memory
        // is the child's own.
        if std::process::id() != self.process {
            return;
        }
        self.end();
        if self.standing > 0 {
            std::mem::forget(Arc::clone(&self.pool));
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("fd", &self.as_fd())
            .field("standing", &self.standing)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

/// Says what can be done about what the kernel refused.
fn refused(call: &str, error: &io::Error) -> io::Error {
    let text = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
            return io::Error::new(error.kind(), format!("{call}: {error}"));
        }
        Some(libc::EPERM | libc::EACCES) => {
            "a seccomp filter, as containers have one, or sysctl kernel.io_uring_disabled"
        }
        Some(libc::EEXIST) => {
            let text = "this receiver belongs to the thread that waited first: let only that one wait, \
                        or make one for any thread";
            return io::Error::new(io::ErrorKind::PermissionDenied, text);
        }
        _ => "a kernel before 6.1, or a seccomp filter",
    };
    let text =
        format!("{call}: {error}; probably {text}: use `Readiness`, which needs no io_uring");
    io::Error::new(io::ErrorKind::Unsupported, text)
}
