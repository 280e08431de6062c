//! A pool of aligned buffers, which an engine can make known to the kernel once and for all.
//!
//! # Safety
//!
//! All buffers are one block of memory, zeroed when it is made, that stands as long as there is a [`Buffers`] or
//! a [`Buffer`] of it. A number is either on the list of those that are free or in one `Buffer`, so no two
//! have the same memory. An operation that the kernel works on owns its `Buffer`.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kevent_core::Waker;

/// What O_DIRECT asks of addresses and lengths on all file systems: a page, as most machines have it.
const ALIGN: usize = 4096;

/// A fixed number of buffers of one size: aligned for O_DIRECT, and bounded.
///
/// Clones are of the same pool. A [`Buffer`] that is dropped is free again, on whatever thread. See
/// [`Builder::buffers`](crate::Builder::buffers) for buffers that the kernel knows already.
///
/// ```
/// use std::num::NonZero;
/// use kevent_aio::Buffers;
///
/// let buffers = Buffers::new(NonZero::new(2).unwrap(), NonZero::new(5000).unwrap())?;
/// assert_eq!(buffers.size(), 8192);
/// let (one, two) = (buffers.take().unwrap(), buffers.take().unwrap());
/// assert!(buffers.take().is_none());
/// drop(one);
/// assert_eq!(buffers.free(), 1);
/// # drop(two);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Buffers(Arc<Block>);

struct Block {
    start: NonNull<u8>,
    layout: Layout,
    count: usize,
    size: usize,
    free: Mutex<Free>,
    /// How many the kernel has, to receive into.
    lent: AtomicUsize,
}

struct Free {
    /// The numbers of those that are free. The last one to have come goes first: it is in the caches.
    numbers: Vec<u16>,
    /// Whom to wake when there is one.
    awaited: Option<Waker>,
}

// SAFETY: the block is owned, and each part of it is used by whoever has its number.
unsafe impl Send for Block {}
// SAFETY: as above; the list has a lock.
unsafe impl Sync for Block {}

impl Buffers {
    /// `count` buffers, 65,535 at most, of `size` bytes each, which is rounded up to whole pages of 4 KiB.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for more buffers than that; `OutOfMemory`.
    pub fn new(count: NonZero<usize>, size: NonZero<usize>) -> io::Result<Buffers> {
        let Ok(last) = u16::try_from(count.get()) else {
            let text = format!("{count} buffers are more than the 65,535 that a pool has at most");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let size = size.get().checked_next_multiple_of(ALIGN);
        let bytes = size.and_then(|size| size.checked_mul(count.get()));
        let layout = bytes.and_then(|bytes| Layout::from_size_align(bytes, ALIGN).ok());
        let (Some(size), Some(layout)) = (size, layout) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        // SAFETY: the layout is not empty, as neither number is zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let start = start.ok_or(io::ErrorKind::OutOfMemory)?;
        let free = Free { numbers: (0..last).rev().collect(), awaited: None };
        let (free, lent) = (Mutex::new(free), AtomicUsize::new(0));
        Ok(Buffers(Arc::new(Block { start, layout, count: count.get(), size, free, lent })))
    }

    /// One that is free, if there is one: empty.
    #[must_use]
    pub fn take(&self) -> Option<Buffer> {
        let number = self.0.free().numbers.pop()?;
        Some(Buffer { block: Arc::clone(&self.0), number, len: 0 })
    }

    /// The bytes of each.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// How many of them are free. Those that [`RecvMany`](crate::RecvMany) has lent to the kernel are not.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.free().numbers.len()
    }

    /// How many of them are free. If none is, `waker` is called when there is one; of several, the last that was
    /// given.
    pub(crate) fn free_or_wake(&self, waker: Option<&Waker>) -> usize {
        let mut free = self.0.free();
        if free.numbers.is_empty() {
            free.awaited = waker.cloned();
        }
        free.numbers.len()
    }

    /// How many of them the kernel has, to receive into.
    pub(crate) fn lent(&self) -> usize {
        self.0.lent.load(Ordering::Relaxed)
    }

    /// The kernel has so many now.
    pub(crate) fn set_lent(&self, count: usize) {
        self.0.lent.store(count, Ordering::Relaxed);
    }

    pub(crate) fn is_same(&self, other: &Buffers) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where each of them is.
    pub(crate) fn places(&self) -> Vec<libc::iovec> {
        let place =
            |number| libc::iovec { iov_base: self.0.place(number).cast(), iov_len: self.0.size };
        (0..self.0.count).map(place).collect()
    }
}

impl Block {
    fn free(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is locked.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the buffer of that number is.
    fn place(&self, number: usize) -> *mut u8 {
        // SAFETY: the number is below `count`, so this is within the block.
        unsafe { self.start.as_ptr().add(number * self.size) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody has a part of it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A buffer of a pool, to read into or to write from: a slice of the bytes that count, which can be made longer
/// and shorter within the buffer. It is free again when it is dropped.
///
/// ```
/// # use std::num::NonZero;
/// use kevent_aio::Buffers;
///
/// let buffers = Buffers::new(NonZero::new(1).unwrap(), NonZero::new(4096).unwrap())?;
/// let mut buffer = buffers.take().unwrap();
/// buffer.resize(5)?;
/// buffer.copy_from_slice(b"hello");
/// assert_eq!(*buffer, *b"hello");
/// # std::io::Result::Ok(())
/// ```
pub struct Buffer {
    block: Arc<Block>,
    number: u16,
    len: usize,
}

impl Buffer {
    /// Says how many bytes count. Those that are new are whatever was there before.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for more than the [capacity](Buffer::capacity).
    pub fn resize(&mut self, len: usize) -> io::Result<()> {
        if len > self.block.size {
            let text = format!("a buffer of {} bytes can't hold {len}", self.block.size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.len = len;
        Ok(())
    }

    /// How many bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.block.size
    }

    /// Nothing in it counts any more.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Where the bytes go that are to count next.
    pub(crate) fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        let len = self.len;
        let room = &mut self.whole()[len..];
        // SAFETY: the same bytes. Those who write there are the kernel, which makes none of them uninitialized.
        unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), room.len()) }
    }

    /// As many bytes more count.
    pub(crate) fn grow(&mut self, count: usize) {
        self.len = self.len.saturating_add(count).min(self.block.size);
    }

    /// All of it, whether it counts or not.
    fn whole(&mut self) -> &mut [u8] {
        let start = self.block.place(self.number.into());
        // SAFETY: `size` bytes from there are this buffer's alone, and were zeroed at least.
        unsafe { std::slice::from_raw_parts_mut(start, self.block.size) }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Its number, if it is one of `pool`.
    pub(crate) fn number_in(&self, pool: &Buffers) -> Option<u16> {
        Arc::ptr_eq(&self.block, &pool.0).then_some(self.number)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.block.place(self.number.into());
        // SAFETY: `len` is not above `size`, and as many bytes from there are this buffer's alone.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.whole()[..len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.block.free();
        free.numbers.push(self.number);
        let awaited = free.awaited.take();
        drop(free);
        if let Some(waker) = awaited {
            waker.wake();
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers")
            .field("count", &self.count())
            .field("size", &self.size())
            .field("free", &self.free())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: usize, size: usize) -> Buffers {
        Buffers::new(NonZero::new(count).unwrap(), NonZero::new(size).unwrap()).unwrap()
    }

    #[test]
    fn buffers_are_aligned_and_apart() {
        let pool = pool(3, 5000);
        let mut all: Vec<_> = (0..3).map(|_| pool.take().unwrap()).collect();
        for (buffer, byte) in all.iter_mut().zip(1..) {
            assert_eq!(buffer.whole().as_ptr() as usize % ALIGN, 0);
            buffer.whole().fill(byte);
        }
        for (buffer, byte) in all.iter_mut().zip(1..) {
            assert!(buffer.whole().iter().all(|b| *b == byte));
        }
        assert!(pool.take().is_none());
    }

    #[test]
    fn buffer_outlives_its_pool_and_is_free_again_when_dropped() {
        let pool = pool(1, 1);
        let mut buffer = pool.take().unwrap();
        let other = pool.clone();
        drop(pool);
        buffer.resize(4096).unwrap();
        buffer.fill(7);
        drop(other);
        assert_eq!(buffer[4095], 7);
        let again = Buffers(Arc::clone(&buffer.block));
        assert_eq!(again.free(), 0);
        std::thread::spawn(move || drop(buffer)).join().unwrap();
        assert_eq!(again.take().unwrap().len(), 0, "empty");
    }

    #[test]
    fn nonsense_is_refused() {
        let error =
            |count, size| Buffers::new(NonZero::new(count).unwrap(), NonZero::new(size).unwrap());
        assert_eq!(error(65_536, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error(1, usize::MAX).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(
            error(65_535, usize::MAX / 4096).unwrap_err().kind(),
            io::ErrorKind::OutOfMemory
        );
        let mut buffer = pool(1, 1).take().unwrap();
        assert_eq!(buffer.resize(4097).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
