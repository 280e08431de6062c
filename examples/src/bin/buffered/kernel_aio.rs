//! The kernel's own asynchronous I/O, as libaio calls it.
//!
//! # Safety
//!
//! The kernel writes into the pages of a [`KernelAio`] while a read is in flight. They lie on the heap,
//! and are freed only after `io_destroy`, which waits for all that is in flight.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use crate::PAGE;

const PREAD: u16 = 0;

/// A request, as io_submit(2) takes it.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: u64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

/// An answer, as io_getevents(2) gives it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Answer {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}

/// A context, and a page for each read that may be in flight.
pub(crate) struct KernelAio {
    context: libc::c_ulong,
    pages: Vec<Vec<u8>>,
    /// The pages that no read has.
    free: Vec<usize>,
}

impl KernelAio {
    pub(crate) fn new(depth: usize) -> io::Result<KernelAio> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: `context` outlives the call.
        check(unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) })?;
        let pages = vec![vec![0; PAGE]; depth];
        Ok(KernelAio { context, pages, free: (0..depth).collect() })
    }

    /// Whether another read may be submitted.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Begins to read the page at `offset`.
    pub(crate) fn submit(&mut self, file: &File, offset: u64) -> io::Result<()> {
        let Some(slot) = self.free.pop() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let mut request = Request {
            data: slot as u64,
            opcode: PREAD,
            file: file.as_raw_fd() as u32,
            buffer: self.pages[slot].as_mut_ptr() as u64,
            length: PAGE as u64,
            offset,
            ..Request::default()
        };
        let list = [&raw mut request];
        // SAFETY: one request, which the call copies. What it names is `self`'s, and in use by no other.
        check(unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1, list.as_ptr()) })
            .map(drop)
    }

    /// Waits until at least one read is done; says how many are.
    pub(crate) fn reap(&mut self) -> io::Result<u64> {
        let mut answers = [Answer::default(); 32];
        let (list, most) = (answers.as_mut_ptr(), answers.len());
        let (context, no_end) = (self.context, ptr::null::<libc::timespec>());
        // SAFETY: `answers` has room for so many and outlives the call.
        let call = unsafe { libc::syscall(libc::SYS_io_getevents, context, 1, most, list, no_end) };
        let count = check(call)?;
        for answer in &answers[..count as usize] {
            if answer.result != PAGE as i64 {
                return Err(io::Error::from_raw_os_error(-answer.result as i32));
            }
            self.free.push(answer.data as usize);
        }
        Ok(count as u64)
    }
}

impl Drop for KernelAio {
    fn drop(&mut self) {
        // SAFETY: the context is this one's; nobody uses it from here on.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

fn check(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
