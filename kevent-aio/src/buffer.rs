//! Memory of the user that the kernel reads and writes.
//!
//! # Safety
//!
//! A [`Filling`] and an [`Iovecs`] hand out pointers into the heap of vectors, or into a buffer of a pool, which
//! do not move when those do. A vector is said to be longer only by as many bytes as the kernel says that it
//! wrote from where the vector ended, and never beyond what was offered.

#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use crate::buffers::{Buffer, Buffers};

/// The most that one call moves, as the kernel itself clamps it (`MAX_RW_COUNT`). io_uring counts in 32
/// bits and would take 2³² + 10 for 10.
pub(crate) const MOST: usize = 0x7fff_f000;

/// Memory that an operation reads into or writes from: a vector, or a buffer of a pool.
#[derive(Debug)]
pub enum Memory {
    /// A vector.
    Vec(Vec<u8>),
    /// A buffer of a pool: aligned, and perhaps known to the kernel.
    Buffer(Buffer),
}

impl Memory {
    /// The bytes that count.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Memory::Vec(vec) => vec,
            Memory::Buffer(buffer) => buffer,
        }
    }

    /// The bytes that count: the vector itself, or a copy of what is in the buffer of a pool.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Memory::Vec(vec) => vec,
            Memory::Buffer(buffer) => buffer.to_vec(),
        }
    }

    /// The buffer, if it is one of a pool.
    #[must_use]
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Memory::Vec(_) => None,
            Memory::Buffer(buffer) => Some(buffer),
        }
    }

    /// Which of the buffers of `pool` it is, if it is one.
    pub(crate) fn number_in(&self, pool: &Buffers) -> Option<u16> {
        match self {
            Memory::Vec(_) => None,
            Memory::Buffer(buffer) => buffer.number_in(pool),
        }
    }
}

impl From<Vec<u8>> for Memory {
    fn from(vec: Vec<u8>) -> Memory {
        Memory::Vec(vec)
    }
}

impl From<Buffer> for Memory {
    fn from(buffer: Buffer) -> Memory {
        Memory::Buffer(buffer)
    }
}

impl From<&[u8]> for Memory {
    fn from(bytes: &[u8]) -> Memory {
        Memory::Vec(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Memory {
    fn from(bytes: &[u8; N]) -> Memory {
        Memory::Vec(bytes.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Memory {
    fn from(bytes: [u8; N]) -> Memory {
        Memory::Vec(bytes.to_vec())
    }
}

impl From<&str> for Memory {
    fn from(text: &str) -> Memory {
        text.as_bytes().into()
    }
}

impl From<String> for Memory {
    fn from(text: String) -> Memory {
        text.into_bytes().into()
    }
}

/// Memory that is being filled up to a length.
pub(crate) struct Filling {
    memory: Memory,
    /// How much it may come to hold; never more than its capacity.
    want: usize,
}

impl Filling {
    /// Empties it, to fill it up to its capacity.
    pub(crate) fn new(memory: impl Into<Memory>) -> Filling {
        let mut memory = memory.into();
        let want = match &mut memory {
            Memory::Vec(vec) => {
                vec.clear();
                vec.capacity()
            }
            Memory::Buffer(buffer) => {
                buffer.clear();
                buffer.capacity()
            }
        };
        Filling { memory, want }
    }

    /// What has been filled already.
    pub(crate) fn full(memory: Memory) -> Filling {
        let want = memory.as_slice().len();
        Filling { memory, want }
    }

    /// Goes on behind what `vec` holds, up to its capacity.
    #[cfg(feature = "tokio")]
    pub(crate) fn behind(vec: Vec<u8>) -> Filling {
        let want = vec.capacity();
        Filling { memory: Memory::Vec(vec), want }
    }

    /// Fills it up to `len` only. A vector gets as much memory as that takes; a buffer of a pool ends where it
    /// ends.
    pub(crate) fn up_to(&mut self, len: usize) {
        self.want = match &mut self.memory {
            Memory::Vec(vec) => {
                vec.reserve_exact(len.saturating_sub(vec.len()));
                len
            }
            Memory::Buffer(buffer) => len.min(buffer.capacity()),
        };
    }

    /// How long it may get.
    pub(crate) fn want(&self) -> usize {
        self.want
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        let left = (self.want - self.as_slice().len()).min(MOST);
        match &mut self.memory {
            Memory::Vec(vec) => &mut vec.spare_capacity_mut()[..left],
            Memory::Buffer(buffer) => &mut buffer.room()[..left],
        }
    }

    /// Zeroes what the next bytes go over, for a call that may count bytes which it does not write.
    pub(crate) fn blank(&mut self) {
        self.room().fill(MaybeUninit::new(0));
    }

    /// The kernel has written `count` bytes to where [`room`](Filling::room) began.
    pub(crate) fn filled(&mut self, count: usize) {
        let count = count.min(self.room().len());
        match &mut self.memory {
            Memory::Vec(vec) => {
                let len = vec.len() + count;
                // SAFETY: the kernel has written up to `len`, which is within the capacity since `room` is.
                unsafe { vec.set_len(len) };
            }
            Memory::Buffer(buffer) => buffer.grow(count),
        }
    }

    /// What it holds.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.memory.as_slice()
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn into_memory(self) -> Memory {
        self.memory
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.memory.into_vec()
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling")
            .field("len", &self.as_slice().len())
            .field("want", &self.want)
            .finish()
    }
}

/// Several pieces of memory, borrowed, as the vectored calls want them. The kernel takes 1,024.
pub(crate) struct Iovecs<'a> {
    list: Vec<libc::iovec>,
    pieces: PhantomData<&'a mut [u8]>,
}

impl<'a> Iovecs<'a> {
    /// Where the next bytes of each go.
    pub(crate) fn of_rooms(buffers: &'a mut [Filling]) -> Iovecs<'a> {
        let rooms = buffers.iter_mut().map(Filling::room);
        let list = rooms
            .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() })
            .collect();
        Iovecs { list, pieces: PhantomData }
    }

    /// What each holds, to be read only.
    pub(crate) fn of_data(buffers: &'a [Vec<u8>]) -> Iovecs<'a> {
        let list = buffers
            .iter()
            .map(|b| libc::iovec { iov_base: b.as_ptr().cast_mut().cast(), iov_len: b.len() })
            .collect();
        Iovecs { list, pieces: PhantomData }
    }

    /// The list and its length.
    pub(crate) fn parts(&self) -> (*const libc::iovec, usize) {
        (self.list.as_ptr(), self.list.len())
    }

    /// The same without the borrow, for the operation that owns the memory and keeps the list beside it
    /// while the ring works on it. Nothing but [`PinnedIovecs::parts`] looks at it.
    pub(crate) fn pinned(self) -> PinnedIovecs {
        PinnedIovecs(self.list)
    }
}

/// See [`Iovecs::pinned`].
#[derive(Default)]
pub(crate) struct PinnedIovecs(Vec<libc::iovec>);

impl PinnedIovecs {
    /// The list and its length, for an entry of the ring.
    pub(crate) fn parts(&self) -> (*const libc::iovec, u32) {
        (self.0.as_ptr(), u32::try_from(self.0.len()).unwrap_or(u32::MAX))
    }
}

// SAFETY: addresses and lengths that are handed to the kernel and never followed by this program.
unsafe impl Send for PinnedIovecs {}
// SAFETY: the same.
unsafe impl Sync for PinnedIovecs {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_grows_by_what_was_written_and_never_beyond_its_room() {
        let mut buffer = Filling::new(Vec::with_capacity(8));
        buffer.up_to(4);
        for room in buffer.room() {
            room.write(7);
        }
        buffer.filled(3);
        assert_eq!(buffer.as_slice(), [7, 7, 7]);
        buffer.filled(99);
        assert_eq!(buffer.as_slice(), [7, 7, 7, 7]);
        assert!(buffer.room().is_empty());
    }

    #[test]
    fn one_call_is_offered_no_more_than_it_takes() {
        let mut vec = Vec::new();
        // Addresses only: nothing touches them.
        if vec.try_reserve_exact(MOST + 10).is_err() {
            println!("skipped: no address space for two GiB");
            return;
        }
        assert_eq!(Filling::new(vec).room().len(), MOST);
    }

    #[test]
    fn filling_forgets_what_the_vector_held() {
        let buffer = Filling::new(vec![1, 2, 3]);
        assert!(buffer.as_slice().is_empty());
        assert_eq!(buffer.want, 3);
    }
}
