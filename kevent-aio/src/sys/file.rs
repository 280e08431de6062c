//! The calls on files, as the pool makes them.
//!
//! # Safety
//!
//! Every call below passes descriptors that are borrowed, so open, and memory that is borrowed for as
//! long as the call takes.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::buffer::Iovecs;
use crate::operation::{Errno, Outcome};
use crate::sys::{once, retry};

/// The offset that means "wherever the file stands": the only one that pipes and sockets take.
pub(crate) const STREAM: i64 = -1;

/// preadv2(2) with RWF_NOWAIT: reads what is in memory. EAGAIN when nothing is, EOPNOTSUPP when the
/// file system can't tell.
pub(crate) fn read_now(fd: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>], offset: i64) -> Outcome {
    let iovec = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: one entry, which names `room`.
    retry(|| unsafe {
        libc::preadv2(fd.as_raw_fd(), &raw const iovec, 1, offset, libc::RWF_NOWAIT) as i64
    })
}

/// Whether a read or write at an offset can be told not to wait: [`read_now`] is refused otherwise. `true` of
/// what has no offsets. Reads nothing, and takes as long as the emptiest system call, or two.
///
/// io_uring takes a file that can't be told, but can be polled, for one that is ready when poll(2) says
/// so. FUSE says so always: its reads would be made, and waited for, by the thread that submits. Worse,
/// where such a read falls short io_uring goes on with it, and FUSE, which did not move the request's
/// position, gives the first bytes again. Its writes are made by the submitting thread if the file is open
/// with O_DIRECT; else by a thread of the kernel, one at a time for all files that share one of 64 places,
/// so that one which is stuck stops those to files of the disk.
///
/// A file that is open for writing only can't be asked like that without writing. Those of the disk say
/// how O_DIRECT has to be aligned (since Linux 6.1; before it the pool gets them all), FUSE does not.
pub(crate) fn takes_nowait(fd: BorrowedFd<'_>) -> bool {
    let beyond_every_end = i64::MAX - 1;
    match read_now(fd, &mut [MaybeUninit::uninit()], beyond_every_end) {
        Err(Errno(libc::EOPNOTSUPP)) => false,
        Err(Errno(libc::EBADF)) => {
            known(fd.as_raw_fd(), libc::STATX_DIOALIGN).is_some_and(|stat| {
                let is_file = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG;
                !is_file || stat.stx_mask & libc::STATX_DIOALIGN != 0
            })
        }
        _ => true,
    }
}

/// What is known of an open file without asking its server, so that nothing waits.
fn known(fd: RawFd, mask: u32) -> Option<libc::statx> {
    let mut stat = blank_statx();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path ends in zero and `stat` has room for the answer. A number that is not open is an error.
    once(|| unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut stat).into() }).ok()?;
    Some(stat)
}

/// pread(2), or read(2) at [`STREAM`].
pub(crate) fn read(fd: BorrowedFd<'_>, room: &mut [MaybeUninit<u8>], offset: i64) -> Outcome {
    let (fd, pointer, len) = (fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len());
    retry(|| match offset {
        // SAFETY: `room` is writable for its length.
        STREAM => unsafe { libc::read(fd, pointer, len) as i64 },
        // SAFETY: as above.
        _ => unsafe { libc::pread(fd, pointer, len, offset) as i64 },
    })
}

/// pwrite(2), or write(2) at [`STREAM`].
pub(crate) fn write(fd: BorrowedFd<'_>, data: &[u8], offset: i64) -> Outcome {
    let (fd, pointer, len) = (fd.as_raw_fd(), data.as_ptr().cast(), data.len());
    retry(|| match offset {
        // SAFETY: `data` is readable for its length.
        STREAM => unsafe { libc::write(fd, pointer, len) as i64 },
        // SAFETY: as above.
        _ => unsafe { libc::pwrite(fd, pointer, len, offset) as i64 },
    })
}

/// preadv(2), or readv(2) at [`STREAM`], into what `iovecs` names.
pub(crate) fn read_vectored(fd: BorrowedFd<'_>, iovecs: &Iovecs<'_>, offset: i64) -> Outcome {
    let (fd, (pointer, count)) = (fd.as_raw_fd(), iovecs.parts());
    retry(|| match offset {
        // SAFETY: `Iovecs` borrows what it names.
        STREAM => unsafe { libc::readv(fd, pointer, count as i32) as i64 },
        // SAFETY: as above.
        _ => unsafe { libc::preadv(fd, pointer, count as i32, offset) as i64 },
    })
}

/// pwritev(2), or writev(2) at [`STREAM`], of what `iovecs` names.
pub(crate) fn write_vectored(fd: BorrowedFd<'_>, iovecs: &Iovecs<'_>, offset: i64) -> Outcome {
    let (fd, (pointer, count)) = (fd.as_raw_fd(), iovecs.parts());
    retry(|| match offset {
        // SAFETY: `Iovecs` borrows what it names.
        STREAM => unsafe { libc::writev(fd, pointer, count as i32) as i64 },
        // SAFETY: as above.
        _ => unsafe { libc::pwritev(fd, pointer, count as i32, offset) as i64 },
    })
}

/// fsync(2).
pub(crate) fn fsync(fd: BorrowedFd<'_>) -> Outcome {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fsync(fd.as_raw_fd()).into() })
}

/// fdatasync(2).
pub(crate) fn fdatasync(fd: BorrowedFd<'_>) -> Outcome {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fdatasync(fd.as_raw_fd()).into() })
}

/// What tells the file of a descriptor from all others: its file system and its number there. Not by
/// fstat(2), which would wait for a file server that does not answer.
pub(crate) fn identity(fd: RawFd) -> Option<(u32, u32, u64)> {
    let stat = known(fd, libc::STATX_INO)?;
    Some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

/// fallocate(2).
pub(crate) fn fallocate(fd: BorrowedFd<'_>, mode: i32, offset: i64, len: i64) -> Outcome {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset, len).into() })
}

/// ftruncate(2).
pub(crate) fn truncate(fd: BorrowedFd<'_>, len: i64) -> Outcome {
    // SAFETY: takes no pointers.
    retry(|| unsafe { libc::ftruncate(fd.as_raw_fd(), len).into() })
}

/// posix_fadvise(2), which answers with the error itself.
pub(crate) fn advise(fd: BorrowedFd<'_>, offset: i64, len: i64, advice: i32) -> Outcome {
    // SAFETY: takes no pointers.
    match unsafe { libc::posix_fadvise(fd.as_raw_fd(), offset, len, advice) } {
        0 => Ok(0),
        errno => Err(Errno(errno)),
    }
}

/// copy_file_range(2), with both places said. When it is interrupted, it has copied nothing. A raw call,
/// because not every libc has the wrapper.
pub(crate) fn copy_range(
    source: BorrowedFd<'_>,
    mut from: i64,
    target: BorrowedFd<'_>,
    mut to: i64,
    len: usize,
) -> Outcome {
    let (source, target) = (source.as_raw_fd(), target.as_raw_fd());
    let (from, to, flags) = (&raw mut from, &raw mut to, 0_u32);
    let call = libc::SYS_copy_file_range;
    // SAFETY: both offsets outlive the call.
    retry(|| unsafe { libc::syscall(call, source, from, target, to, len, flags) })
}

/// ioctl_ficlonerange(2): `target` has from `to` on what `source` has from `from` on, `len` bytes, or all
/// that is left if that is zero. Made again it does the same again.
pub(crate) fn clone_range(
    source: BorrowedFd<'_>,
    from: u64,
    target: BorrowedFd<'_>,
    to: u64,
    len: u64,
) -> Outcome {
    let range = libc::file_clone_range {
        src_fd: source.as_raw_fd().into(),
        src_offset: from,
        src_length: len,
        dest_offset: to,
    };
    let target = target.as_raw_fd();
    // SAFETY: the request takes such a structure, which outlives the call.
    retry(|| unsafe { libc::ioctl(target, libc::FICLONERANGE, &raw const range).into() })
}

/// The status flags that `fd` was opened with, or was given since: O_APPEND, O_NONBLOCK, O_DIRECT.
pub(crate) fn status_flags(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: this command takes no further argument.
    once(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL).into() }).map(|flags| flags as i32)
}

/// The argument of openat2(2), as the kernel reads it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct OpenHow {
    pub(crate) flags: u64,
    pub(crate) mode: u64,
    pub(crate) resolve: u64,
}

/// openat2(2), or openat(2) on a kernel that lacks it (before 5.6) when nothing needs it.
pub(crate) fn open(dir: Option<BorrowedFd<'_>>, path: &CStr, how: &OpenHow) -> Outcome {
    let dir = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    let (path, size) = (path.as_ptr(), size_of::<OpenHow>());
    // SAFETY: `path` ends in zero, `how` is as long as it says; both outlive the call.
    let opened =
        retry(|| unsafe { libc::syscall(libc::SYS_openat2, dir, path, &raw const *how, size) });
    match opened {
        Err(Errno(libc::ENOSYS)) if how.resolve == 0 => {
            // SAFETY: as above.
            retry(|| unsafe { libc::openat(dir, path, how.flags as i32, how.mode as u32).into() })
        }
        opened => opened,
    }
}

/// Owns the descriptor that a call which opens has just answered.
pub(crate) fn adopt(answer: u32) -> OwnedFd {
    // SAFETY: the kernel has made it for us, and its number has gone nowhere else.
    unsafe { OwnedFd::from_raw_fd(answer as RawFd) }
}

/// close(2). The descriptor is gone whatever the answer: Linux frees the number first, so the call is
/// never made again, not even after EINTR.
pub(crate) fn close(fd: OwnedFd) -> Outcome {
    let fd = fd.into_raw_fd();
    // SAFETY: the number was owned, and nobody uses it from here on.
    once(|| unsafe { libc::close(fd).into() })
}

/// statx(2) of `path`, or of `dir` itself when the path is empty.
pub(crate) fn statx(
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    flags: i32,
    mask: u32,
    stat: &mut libc::statx,
) -> Outcome {
    let dir = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    // SAFETY: `path` ends in zero and `stat` has room for the answer; both outlive the call.
    retry(|| unsafe { libc::statx(dir, path.as_ptr(), flags, mask, &raw mut *stat).into() })
}

/// An answer of statx(2) that nobody has written yet. All-zero bytes are one.
pub(crate) fn blank_statx() -> libc::statx {
    // SAFETY: integers, for which zero is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
