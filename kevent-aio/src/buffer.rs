//! Memory of the user that the kernel reads and writes.
//!
//! # Safety
//!
//! A [`Filling`] and an [`Iovecs`] hand out pointers into the heap of vectors, which does not move when
//! the vectors do. A vector is said to be longer only by as many bytes as the kernel says that it wrote
//! from where the vector ended, and never beyond what was offered.

#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// The most that one call moves, as the kernel itself clamps it (`MAX_RW_COUNT`). io_uring counts in 32
/// bits and would take 2³² + 10 for 10.
pub(crate) const MOST: usize = 0x7fff_f000;

/// A vector that is being filled up to a length.
pub(crate) struct Filling {
    vec: Vec<u8>,
    /// How long the vector may get; never more than its capacity.
    want: usize,
}

impl Filling {
    /// Empties `vec`, to fill it up to its capacity.
    pub(crate) fn new(mut vec: Vec<u8>) -> Filling {
        vec.clear();
        let want = vec.capacity();
        Filling { vec, want }
    }

    /// Goes on behind what `vec` holds, up to its capacity.
    #[cfg(feature = "tokio")]
    pub(crate) fn behind(vec: Vec<u8>) -> Filling {
        let want = vec.capacity();
        Filling { vec, want }
    }

    /// Fills it up to `len` only, or gets as much memory as that takes.
    pub(crate) fn up_to(&mut self, len: usize) {
        self.vec.reserve_exact(len.saturating_sub(self.vec.len()));
        self.want = len;
    }

    /// How long it may get.
    pub(crate) fn want(&self) -> usize {
        self.want
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        let left = (self.want - self.vec.len()).min(MOST);
        &mut self.vec.spare_capacity_mut()[..left]
    }

    /// The kernel has written `count` bytes to where [`room`](Filling::room) began.
    pub(crate) fn filled(&mut self, count: usize) {
        let len = self.vec.len() + count.min(self.room().len());
        // SAFETY: the kernel has written up to `len`, which is within the capacity since `room` is.
        unsafe { self.vec.set_len(len) };
    }

    /// What it holds.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.vec
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.vec
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling").field("len", &self.vec.len()).field("want", &self.want).finish()
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
