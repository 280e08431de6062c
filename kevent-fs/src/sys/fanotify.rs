//! fanotify(7), and the handles by which it names directories.
//!
//! # Safety
//!
//! Each function makes one system call. Descriptors are borrowed, so they are open during the call;
//! what the kernel reads or writes is a local value of the size that it is told.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Bytes of a handle, without its head.
const MAX_HANDLE: usize = 128;

/// A file handle as the kernel has it in memory: length, type, bytes.
#[repr(C)]
struct RawHandle {
    length: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE],
}

/// Names a file of a file system for ever: another one never has the same. As the kernel reports it:
/// length, type and bytes.
pub(crate) type Handle = Box<[u8]>;

/// A group of marks, which is read without blocking.
///
/// Source: fanotify_init(2).
pub(crate) fn group(flags: libc::c_uint) -> io::Result<OwnedFd> {
    let flags = flags | libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: two numbers.
    let fd = check(unsafe { libc::fanotify_init(flags, 0) })?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds to, or removes from, the mark of the file system that `object` is on.
///
/// Source: fanotify_mark(2).
pub(crate) fn mark(
    group: BorrowedFd<'_>,
    action: libc::c_uint,
    mask: u64,
    object: BorrowedFd<'_>,
) -> io::Result<()> {
    let (group, object) = (group.as_raw_fd(), object.as_raw_fd());
    let flags = action | libc::FAN_MARK_FILESYSTEM;
    // SAFETY: without a path the object itself is meant.
    check(unsafe { libc::fanotify_mark(group, flags, mask, object, ptr::null()) }).map(|_| ())
}

/// The handle of an entry of `directory`, not following a symbolic link, or of itself for an empty
/// `name`.
///
/// Source: name_to_handle_at(2).
pub(crate) fn handle_of(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Handle> {
    let mut raw = RawHandle { length: MAX_HANDLE as u32, kind: 0, bytes: [0; MAX_HANDLE] };
    let mut mount = 0;
    let fd = directory.as_raw_fd();
    let handle = ptr::from_mut(&mut raw).cast();
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the name ends with a zero; `raw` has room for as many bytes as it says.
    check(unsafe { libc::name_to_handle_at(fd, name.as_ptr(), handle, &mut mount, flags) })?;
    let bytes = raw.bytes.get(..raw.length as usize).unwrap_or(&raw.bytes);
    Ok([&raw.length.to_ne_bytes(), &raw.kind.to_ne_bytes(), bytes].concat().into())
}

/// Opens what a handle names, on the file system of `mount`: good for looking at it, not for reading.
///
/// Source: open_by_handle_at(2).
pub(crate) fn open(mount: BorrowedFd<'_>, handle: &[u8]) -> io::Result<OwnedFd> {
    let mut raw = parse(handle).ok_or(io::ErrorKind::InvalidInput)?;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let pointer = ptr::from_mut(&mut raw).cast();
    // SAFETY: `raw` holds as many bytes as it says.
    let fd = check(unsafe { libc::open_by_handle_at(mount.as_raw_fd(), pointer, flags) })?;
    // SAFETY: the kernel has just opened it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn parse(handle: &[u8]) -> Option<RawHandle> {
    let (length, rest) = handle.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let (length, kind) = (u32::from_ne_bytes(*length), i32::from_ne_bytes(*kind));
    let mut bytes = [0; MAX_HANDLE];
    bytes.get_mut(..length as usize)?.copy_from_slice(rest.get(..length as usize)?);
    Some(RawHandle { length, kind, bytes })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn handle_leads_to_what_it_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let made = File::create(dir.path().join("file")).unwrap();
        let directory = File::open(dir.path()).unwrap();
        let handle = match handle_of(directory.as_fd(), c"file") {
            Ok(handle) => handle,
            Err(error) => return println!("skipped: {error}"),
        };
        assert_eq!(handle_of(made.as_fd(), c"").unwrap(), handle);
        assert_ne!(handle_of(directory.as_fd(), c"").unwrap(), handle);
        let opened = match open(directory.as_fd(), &handle) {
            Ok(opened) => opened,
            Err(error) => return println!("skipped: {error}"),
        };
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(opened.as_fd()), inode(made.as_fd()));
    }

    #[test]
    fn bytes_that_are_no_handle_are_refused() {
        let file = tempfile::tempfile().unwrap();
        for bytes in [&[][..], &[1; 7], &[9, 0, 0, 0, 0, 0, 0, 0, 1], &[255; 200]] {
            assert_eq!(open(file.as_fd(), bytes).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
