//! The buffers that the kernel fills, and which come back to it when they are dropped.
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
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_uring::types::BufRingEntry;
use kevent_core::Waker;

/// Where the ring of buffers begins: at a page, of whatever size.
const ALIGN: usize = 65_536;

/// What a processor caches at a time, mostly.
const LINE: usize = 64;

/// Buffers, and the ring in which those lie that the kernel may fill.
pub(super) struct Pool {
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
    /// `count` buffers, a power of two up to 32,768, of `size` bytes, all of which the kernel may fill.
    pub(super) fn new(count: u16, size: u32) -> io::Result<Pool> {
        let ring = usize::from(count) * size_of::<BufRingEntry>();
        let stride = ((size as usize).div_ceil(LINE) | 1) * LINE;
        let bytes = stride.checked_mul(count.into()).and_then(|n| n.checked_add(ring));
        let layout = bytes.and_then(|bytes| Layout::from_size_align(bytes, ALIGN).ok());
        let layout = layout.ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout is not empty: neither `count` nor `size` is zero, says the caller.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) });
        let block = block.ok_or(io::ErrorKind::OutOfMemory)?;
        let published = Mutex::new(Published { tail: 0, times: 0, awaited: false, waker: None });
        let pool = Pool { block, layout, count, size, stride, published };
        (0..count).for_each(|id| pool.publish(id));
        Ok(pool)
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        // No caller panics while it holds the lock.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the ring of entries is, on a page, and how many they are.
    pub(super) fn entries(&self) -> (u64, u16) {
        (self.ring() as u64, self.count)
    }

    /// Who is woken when a buffer comes back that is waited for.
    pub(super) fn set_waker(&self, waker: Option<Waker>) {
        self.lock().waker = waker;
    }

    /// For how many of `wanted` requests there is a buffer, when the kernel has filled one `filled` times.
    /// If that is not all of them, the waker is called when one comes back.
    pub(super) fn ration(&self, wanted: usize, filled: usize) -> usize {
        let mut published = self.lock();
        let free = published.times.wrapping_sub(filled);
        published.awaited = free < wanted;
        free.min(wanted)
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

impl Buffer {
    /// The buffer that the kernel says it has filled with `len` bytes, if it says so of any.
    pub(super) fn filled(pool: &Arc<Pool>, id: Option<u16>, len: u32) -> Buffer {
        let id = id.filter(|id| *id < pool.count);
        Buffer { pool: Arc::clone(pool), id, len: len.min(pool.size) }
    }

    /// Whether it is one of the pool's.
    pub(super) fn is_taken(&self) -> bool {
        self.id.is_some()
    }
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
