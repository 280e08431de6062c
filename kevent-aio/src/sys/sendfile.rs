//! Data to sockets without waiting, and file pages into the page cache.
//!
//! # Safety
//!
//! Every call below passes descriptors that are borrowed, so open, and memory that it owns or
//! borrows. Only `Scratch::populate_entry` hands out addresses that outlive it: those of heap memory
//! which their owner neither changes nor drops until the kernel has answered, as
//! `Operation::encode` promises.

#![allow(unsafe_code)]

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{opcode, squeue, types};

use crate::operation::{Errno, Outcome};
use crate::sys::retry;

/// Sends the parts, in their order, as far as the socket takes them. `more` says that the next part
/// follows at once, so that a last short segment may wait for it.
///
/// Never waits, whatever mode the socket is in, and raises no SIGPIPE.
pub(crate) fn send(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], more: bool) -> Outcome {
    let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if more {
        flags |= libc::MSG_MORE;
    }
    // SAFETY: zero is a valid value of every field of `msghdr`: no address, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` is an `iovec` by its documentation. sendmsg(2) does not write through it.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    // SAFETY: `message` names `parts`, which outlive the call.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) as i64 })
}

/// Sends up to `count` bytes of `file` from `offset`. 0 is the end of the file.
///
/// Does not wait for room in the socket when that is non-blocking, but for the disk when the bytes are
/// not in the page cache.
pub(crate) fn sendfile(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> Outcome {
    let mut offset = libc::off_t::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
    let (socket, file) = (socket.as_raw_fd(), file.as_raw_fd());
    // SAFETY: `offset` outlives the call.
    retry(|| unsafe { libc::sendfile(socket, file, &raw mut offset, count) as i64 })
}

/// Sends what earlier calls have held back because more was to follow. A socket that is not TCP holds
/// nothing back, and refuses.
pub(crate) fn uncork(socket: BorrowedFd<'_>) {
    let off: libc::c_int = 0;
    let (value, length) = ((&raw const off).cast(), size_of_val(&off) as libc::socklen_t);
    let fd = socket.as_raw_fd();
    // SAFETY: `off` outlives the call, and is as long as it says.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CORK, value, length) };
}

/// A place for reads whose data nobody wants: they are made for what they leave in the page cache.
///
/// One small buffer, named many times, so that a long read stays within the processor's cache.
pub(crate) struct Scratch {
    /// Addresses within `buffer`; written before each read.
    vectors: Vec<libc::iovec>,
    buffer: Vec<u8>,
}

// SAFETY: the addresses are those of memory that the same value owns.
unsafe impl Send for Scratch {}
// SAFETY: the same.
unsafe impl Sync for Scratch {}

impl Scratch {
    const SIZE: usize = 16 * 1024;

    pub(crate) fn new() -> Scratch {
        Scratch { vectors: Vec::new(), buffer: Vec::with_capacity(Scratch::SIZE) }
    }

    fn aim(&mut self, length: usize) {
        self.vectors.clear();
        let base: *mut libc::c_void = self.buffer.as_mut_ptr().cast();
        let whole = libc::iovec { iov_base: base, iov_len: Scratch::SIZE };
        self.vectors.resize(length / Scratch::SIZE, whole);
        let rest = length % Scratch::SIZE;
        if rest > 0 {
            self.vectors.push(libc::iovec { iov_base: base, iov_len: rest });
        }
    }

    /// Has the `length` bytes from `offset` in the page cache when it returns, or fewer.
    pub(crate) fn populate(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> Outcome {
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
        self.aim(length);
        let (vectors, count) = (self.vectors.as_ptr(), self.vectors.len() as libc::c_int);
        // SAFETY: each vector names memory of `buffer`, none more than its capacity.
        retry(|| unsafe { libc::preadv(file.as_raw_fd(), vectors, count, offset) as i64 })
    }

    /// The ring's entry for the same. `self` is not to be touched until the ring has answered.
    pub(crate) fn populate_entry(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> squeue::Entry {
        self.aim(length);
        let fd = types::Fd(file.as_raw_fd());
        opcode::Readv::new(fd, self.vectors.as_ptr(), self.vectors.len() as u32)
            .offset(offset)
            .build()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}
