//! The page cache: what it holds (cachestat(2), reads that do not wait), and what it is to hold.
//!
//! # Safety
//!
//! The calls below pass a descriptor that is borrowed, so open, and memory of their own; the kernel
//! keeps none of it past the call.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::operation::Errno;
use crate::sys::{file, once};

/// The same number on every architecture that Rust knows Linux on (they are shared since 424).
const SYS_CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct CachestatRange {
    offset: u64,
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many pages of the `length` bytes from `offset` are in the page cache. A page whose read has
/// been started counts, though its data may not be there yet.
///
/// Linux 6.5. ENOSYS before; EOPNOTSUPP for hugetlbfs; EPERM since 6.14 for a file that the caller
/// neither owns nor may write; EBADF for what is no file.
pub(crate) fn cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<u64, Errno> {
    let range = CachestatRange { offset, length };
    let mut stat = Cachestat::default();
    // SAFETY: both structures have the layout of the kernel's, and outlive the call. A raw call,
    // because libc has no wrapper.
    once(|| unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0_u32)
    })?;
    Ok(stat.cached)
}

/// Whether all of the `length` bytes from `offset` are in the page cache, or on their way. Errors as
/// those of [`cached_pages`].
pub(crate) fn holds_all(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<bool, Errno> {
    // SAFETY: takes a number only, and makes no system call.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // Some machines have pages of 16 or 64 KiB. There is none without pages.
    let page = u64::try_from(page).unwrap_or(4096).max(1);
    Ok(cached_pages(file, offset, length)? >= pages(offset, length, page))
}

/// How many pages hold the `length` bytes from `offset`.
fn pages(offset: u64, length: u64, page: u64) -> u64 {
    if length == 0 {
        return 0;
    }
    let last = offset.saturating_add(length - 1);
    last / page - offset / page + 1
}

/// Whether the byte at `offset` could be read now; past the end of the file, it could. If it could not,
/// its read has been started.
///
/// EOPNOTSUPP from a file system that can't promise not to wait (tmpfs, procfs).
pub(crate) fn probe(file: BorrowedFd<'_>, offset: u64) -> Result<bool, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
    match file::read_now(file, &mut [MaybeUninit::uninit()], offset) {
        Ok(_) => Ok(true),
        Err(Errno(libc::EAGAIN)) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Starts reading the `length` bytes from `offset` into the page cache, and does not wait for them:
/// nothing is copied, and whoever wants to know when they are there asks for the last of them.
///
/// The kernel may read less.
pub(crate) fn read_ahead(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
    let length = i64::try_from(length).map_err(|_| Errno(libc::EINVAL))?;
    file::advise(file, offset, length, libc::POSIX_FADV_WILLNEED).map(|_| ())
}

/// The size of the file as far as it is known here: a network file system is not asked again.
pub(crate) fn size(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut stat = file::blank_statx();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    file::statx(Some(file), c"", flags, libc::STATX_SIZE, &mut stat)?;
    Ok(stat.stx_size)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_are_those_that_the_bytes_touch(
            offset in 0..100_000_u64,
            length in 0..100_000_u64,
            page in prop::sample::select(vec![4096, 16_384, 65_536_u64]),
        ) {
            let touched: BTreeSet<u64> = (offset..offset + length)
                .step_by(512)
                .chain((length > 0).then(|| offset + length - 1))
                .map(|at| at / page)
                .collect();
            prop_assert_eq!(pages(offset, length, page), touched.len() as u64);
        }
    }

    #[test]
    fn end_of_the_address_range_does_not_overflow() {
        assert_eq!(pages(u64::MAX - 1, u64::MAX, 4096), 1);
    }
}
