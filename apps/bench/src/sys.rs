//! What can't be done without unsafe code, for all topics.
//!
//! # Safety
//!
//! * [`cpu_time_of`] calls two functions of libc that fill in what they are given.
//! * [`keep_memory`] sets two options of the allocator, whatever it holds.
//! * [`echo_epoll_serve`] calls a C function of this crate, which takes and keeps a number.
//! * [`add_level`] registers descriptors with an epoll set that outlives them or not, as it may.
//! * [`async_fd`] hands an owner of a descriptor to tokio, which keeps it.
//! * [`Counting`] hands every call to the system's allocator, unchanged.
//! * [`Uring`] owns whatever the kernel reads or writes for its entries: the pool of buffers and the
//!   times. They live as long as the ring does, and the ring is dropped first. Whoever lends it a
//!   descriptor by number and closes that gets an error in a completion, nothing worse.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use io_uring::types::{BufRingEntry, Fd, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use tokio::io::unix::AsyncFd;

/// Processor time in nanoseconds that another process has used so far.
pub(crate) fn cpu_time_of(process: u32) -> io::Result<f64> {
    let process = libc::pid_t::try_from(process).map_err(io::Error::other)?;
    let mut clock = 0;
    // SAFETY: `clock` is where the answer goes.
    let error = unsafe { libc::clock_getcpuclockid(process, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is where the answer goes.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as f64 * 1e9 + time.tv_nsec as f64)
}

/// Lets the allocator keep what is freed, and give it out again: mapped and warm. To fetch pages from the kernel
/// once more for each pass costs some peers more than their work, and none when it runs for long.
pub(crate) fn keep_memory() {
    for (option, value) in [(libc::M_TRIM_THRESHOLD, -1), (libc::M_MMAP_MAX, 0)] {
        // SAFETY: numbers that the next calls of malloc(3) and free(3) go by. They are refused or taken.
        unsafe { libc::mallopt(option, value) };
    }
}

/// The echo server in C. Comes back only when it fails.
pub(crate) fn echo_epoll_serve(listener: TcpListener) -> io::Error {
    unsafe extern "C" {
        fn echo_epoll_serve(listener: libc::c_int) -> libc::c_int;
    }
    // SAFETY: it takes a descriptor by number, which is its own from here on.
    io::Error::from_raw_os_error(unsafe { echo_epoll_serve(listener.into_raw_fd()) })
}

/// Registers a descriptor with `polling`, level-triggered.
pub(crate) fn add_level(poller: &polling::Poller, fd: &impl AsRawFd, key: usize) -> io::Result<()> {
    let (event, mode) = (polling::Event::readable(key), polling::PollMode::Level);
    // SAFETY: it asks that the descriptor is taken out before it is closed. A poller that is not
    // used any more, or has an epoll set beneath it, which forgets what is closed, does not mind.
    unsafe { poller.add_with_mode(fd.as_raw_fd(), event, mode) }
}

/// Registers a descriptor with tokio.
pub(crate) fn async_fd<T: AsFd + AsRawFd + 'static>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what is registered owns its descriptor and is kept, so that is open until it is taken
    // out.
    unsafe { AsyncFd::register(owner) }.map_err(io::Error::from)
}

/// The system's allocator, that can count the bytes that are in use.
#[derive(Debug)]
pub(crate) struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);

/// Begins to count. Until then counting costs one load per allocation, which all peers pay alike.
pub(crate) fn count_bytes() {
    COUNTS.store(true, Ordering::Relaxed);
}

/// Bytes that were taken since [`count_bytes`], less those that were given back.
pub(crate) fn counted_bytes() -> i64 {
    BYTES.load(Ordering::Relaxed)
}

fn count(bytes: usize, sign: i64) {
    if COUNTS.load(Ordering::Relaxed) {
        BYTES.fetch_add(sign * bytes as i64, Ordering::Relaxed);
    }
}

// SAFETY: all that the trait asks for, the system's allocator does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps what the trait asks of him.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Entries of a ring's submission queue.
const ENTRIES: u32 = 256;
/// Completions that may wait: a turn of the echo server with ten thousand connections brings as many.
const COMPLETIONS: u32 = 32_768;
/// Bytes of one buffer of the pool.
const BUFFER: usize = 64;
/// The name of the only pool of buffers.
const POOL: u16 = 0;

/// io_uring by hand: one thread, completions are worked on when it waits.
pub(crate) struct Uring {
    // Dropped before what the kernel may still write to.
    ring: IoUring,
    pool: Pool,
    /// The times of the entries that are not submitted yet; the kernel copies them then.
    times: Box<[Timespec]>,
}

/// What the kernel says about one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) key: u64,
    pub(crate) result: i32,
    /// The buffer of the pool that was filled. It is the user's until it is given back.
    pub(crate) buffer: Option<u16>,
    /// The entry stands: there will be more completions of it.
    pub(crate) more: bool,
}

impl Uring {
    /// A ring with a pool of `buffers` buffers of 64 bytes, a power of two, or none.
    pub(crate) fn new(buffers: u16) -> io::Result<Uring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        let pool = Pool::new(buffers);
        if buffers > 0 {
            let entries = pool.entries.as_ptr() as u64;
            let submitter = ring.submitter();
            // SAFETY: the entries of the pool live as long as the ring, see the order of the fields.
            unsafe { submitter.register_buf_ring_with_flags(entries, buffers, POOL, 0) }?;
        }
        Ok(Uring { ring, pool, times: vec![Timespec::new(); ENTRIES as usize].into() })
    }

    fn push(&mut self, entry: squeue::Entry, key: u64) -> io::Result<()> {
        let entry = entry.user_data(key);
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: what an entry points to is in `pool` or `times`, which outlive the ring.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }

    /// Says when `fd` is readable, again and again.
    pub(crate) fn poll_multishot(&mut self, fd: RawFd, key: u64) -> io::Result<()> {
        self.push(opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build(), key)
    }

    /// Reads whenever there is something, each time into a buffer of the pool.
    pub(crate) fn read_multishot(&mut self, fd: RawFd, key: u64) -> io::Result<()> {
        self.push(opcode::ReadMulti::new(Fd(fd), 0, POOL).offset(u64::MAX).build(), key)
    }

    /// As [`read_multishot`](Uring::read_multishot), for sockets.
    pub(crate) fn receive_multishot(&mut self, fd: RawFd, key: u64) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(Fd(fd), POOL).build(), key)
    }

    /// Accepts one connection after another.
    pub(crate) fn accept_multishot(&mut self, fd: RawFd, key: u64) -> io::Result<()> {
        self.push(opcode::AcceptMulti::new(Fd(fd)).build(), key)
    }

    /// Sends the first `length` bytes of a buffer of the pool.
    pub(crate) fn send(&mut self, fd: RawFd, buffer: u16, length: u32, key: u64) -> io::Result<()> {
        let length = length.min(BUFFER as u32);
        let start = self.pool.address(buffer);
        self.push(opcode::Send::new(Fd(fd), start, length).build(), key)
    }

    /// Closes a descriptor.
    pub(crate) fn close(&mut self, fd: RawFd, key: u64) -> io::Result<()> {
        self.push(opcode::Close::new(Fd(fd)).build(), key)
    }

    /// Completes at a time of the monotonic clock.
    pub(crate) fn timeout_at(&mut self, seconds: u64, nanos: u32, key: u64) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // As many entries can be unsubmitted as there are times: this one's is free.
        let slot = self.ring.submission().len();
        self.times[slot] = Timespec::new().sec(seconds).nsec(nanos);
        let entry = opcode::Timeout::new(&self.times[slot]).flags(TimeoutFlags::ABS).build();
        self.push(entry, key)
    }

    /// Ends the timeout `key`, which completes with `ECANCELED`; this entry completes as `own`.
    pub(crate) fn cancel_timeout(&mut self, key: u64, own: u64) -> io::Result<()> {
        self.push(opcode::TimeoutRemove::new(key).build(), own)
    }

    /// Submits what was pushed and waits for `count` completions.
    pub(crate) fn wait(&mut self, count: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(count) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// The next completion that has come in.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        self.ring.completion().next().map(|entry| Completion {
            key: entry.user_data(),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        })
    }

    /// Gives a buffer back to the pool.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        self.pool.put(buffer);
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").finish_non_exhaustive()
    }
}

/// Buffers that the kernel takes from as data comes in, by a ring that both sides see.
struct Pool {
    entries: Box<[Page]>,
    bytes: Box<[u8]>,
    count: u16,
    tail: u16,
}

/// Memory that begins with a page, as the kernel wants some of it to.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4096))]
pub(crate) struct Page(pub(crate) [u8; 4096]);

impl Pool {
    fn new(count: u16) -> Pool {
        let pages = (usize::from(count) * size_of::<BufRingEntry>()).div_ceil(4096);
        let entries = vec![Page([0; 4096]); pages].into();
        let bytes = vec![0; usize::from(count) * BUFFER].into();
        let mut pool = Pool { entries, bytes, count, tail: 0 };
        (0..count).for_each(|buffer| pool.put(buffer));
        pool
    }

    fn address(&self, buffer: u16) -> *const u8 {
        self.bytes[usize::from(buffer) * BUFFER..].as_ptr()
    }

    fn put(&mut self, buffer: u16) {
        let start = self.address(buffer) as u64;
        let base: *mut BufRingEntry = self.entries.as_mut_ptr().cast();
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below the number of entries that the pages were made for.
        let place = unsafe { base.add(slot) };
        // SAFETY: the kernel reads no entry at or after the tail, so this one is ours; it is
        // initialized (zeros, or what was put before).
        let entry = unsafe { &mut *place };
        entry.set_addr(start);
        entry.set_len(BUFFER as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the ring's first entry, and the tail is in it.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: it is aligned, lives as long as the pages, and is written by this side only.
        let tail = unsafe { std::sync::atomic::AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
