//! What can't be done without unsafe code, for this topic: io_uring and the kernel's older AIO by hand, and
//! asking what is in the page cache.
//!
//! # Safety
//!
//! * [`cached_pages`] makes a call that fills in what it is given.
//! * [`Ring`] and [`Libaio`] own the file and the memory that the kernel reads into, and show a block only
//!   while no read into it is in flight ([`Blocks`]). A ring that goes away earlier leaves the memory to
//!   the kernel; the older AIO waits for what is in flight when its context is destroyed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode};

use crate::sys::Page;

/// cachestat(2), Linux 6.5. libc has no name for it on all machines; the number is the same on all.
const SYS_CACHESTAT: libc::c_long = 451;

/// How many of the first `length` bytes' pages are in the page cache.
pub(super) fn cached_pages(file: &File, length: u64) -> io::Result<u64> {
    let range: [u64; 2] = [0, length];
    // Cached, dirty, being written, evicted, evicted a short while ago.
    let mut counts = [0_u64; 5];
    let (fd, range, answer) = (file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr());
    // SAFETY: `range` and `counts` are laid out as the kernel's structures, which are of such numbers.
    let done = unsafe { libc::syscall(SYS_CACHESTAT, fd, range, answer, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(counts[0]) }
}

/// Blocks that are read into.
struct Blocks {
    pages: Box<[Page]>,
    busy: Box<[bool]>,
}

impl Blocks {
    fn new(count: usize) -> Blocks {
        Blocks { pages: vec![Page([0; 4096]); count].into(), busy: vec![false; count].into() }
    }

    /// Where the next read into that block goes to. From now on the block is the kernel's.
    fn lend(&mut self, slot: usize) -> io::Result<*mut u8> {
        let busy = self.busy.get_mut(slot).filter(|busy| !**busy);
        *busy.ok_or_else(|| io::Error::other("the block is being read into"))? = true;
        Ok(self.pages[slot].0.as_mut_ptr())
    }

    /// The kernel is done with the block. Says what it holds.
    fn take_back(&mut self, slot: usize, result: i64) -> io::Result<&[u8]> {
        self.busy[slot] = false;
        match usize::try_from(result) {
            Ok(count) => Ok(&self.pages[slot].0[..count.min(4096)]),
            Err(_) => Err(io::Error::from_raw_os_error(-result as i32)),
        }
    }

    fn are_idle(&self) -> bool {
        !self.busy.contains(&true)
    }
}

/// Who reads blocks of one file by hand, several at a time.
pub(super) trait ByHand {
    /// Asks for the block at that place to be read into the memory of that slot.
    fn start(&mut self, slot: usize, at: u64) -> io::Result<()>;

    /// Hands over what was asked for, and waits until at least one is done.
    fn wait(&mut self) -> io::Result<()>;

    /// A slot that is done, if there is one, and what was read.
    fn next(&mut self) -> Option<(usize, io::Result<&[u8]>)>;
}

/// io_uring.
pub(super) struct Ring {
    ring: IoUring,
    blocks: Blocks,
    file: File,
    registered: bool,
}

impl Ring {
    /// No flags, nothing registered.
    pub(super) fn plain(file: File, depth: usize) -> io::Result<Ring> {
        let ring = IoUring::new(entries(depth))?;
        Ok(Ring { ring, blocks: Blocks::new(depth), file, registered: false })
    }

    /// With everything that makes it cheaper: the file and the memory are registered, one thread
    /// submits, and completions are worked on when it waits.
    pub(super) fn registered(file: File, depth: usize) -> io::Result<Ring> {
        let ring =
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries(depth))?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let mut blocks = Blocks::new(depth);
        let pieces = blocks.pages.iter_mut();
        let pieces: Vec<_> = pieces
            .map(|page| libc::iovec { iov_base: page.0.as_mut_ptr().cast(), iov_len: 4096 })
            .collect();
        // SAFETY: the memory lives as long as the ring does: see `drop`.
        unsafe { ring.submitter().register_buffers(&pieces) }?;
        Ok(Ring { ring, blocks, file, registered: true })
    }
}

/// Places in the queues of the kernel.
fn entries(depth: usize) -> u32 {
    u32::try_from(depth.next_power_of_two()).unwrap_or(u32::MAX)
}

impl ByHand for Ring {
    fn start(&mut self, slot: usize, at: u64) -> io::Result<()> {
        let memory = self.blocks.lend(slot)?;
        let entry = if self.registered {
            opcode::ReadFixed::new(Fixed(0), memory, 4096, slot as u16).offset(at).build()
        } else {
            opcode::Read::new(Fd(self.file.as_raw_fd()), memory, 4096).offset(at).build()
        };
        let entry = entry.user_data(slot as u64);
        // SAFETY: the ring owns the file and the block, and nobody looks at the block until it is done.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }

    fn wait(&mut self) -> io::Result<()> {
        self.ring.submit_and_wait(1).map(|_| ())
    }

    fn next(&mut self) -> Option<(usize, io::Result<&[u8]>)> {
        let entry = self.ring.completion().next()?;
        let slot = entry.user_data() as usize;
        Some((slot, self.blocks.take_back(slot, entry.result().into())))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.blocks.are_idle() {
            // The kernel may still write there.
            mem::forget(mem::take(&mut self.blocks.pages));
        }
    }
}

/// What the kernel calls `struct io_event`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Event {
    slot: u64,
    request: u64,
    result: i64,
    result2: i64,
}

/// The kernel's AIO of 2002, by its own calls.
pub(super) struct Libaio {
    context: libc::c_ulong,
    blocks: Blocks,
    requests: Box<[libc::iocb]>,
    /// Slots that were asked for and not handed over.
    asked: Vec<usize>,
    done: Vec<Event>,
    file: File,
}

impl Libaio {
    pub(super) fn new(file: File, depth: usize) -> io::Result<Libaio> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: `context` is where the answer goes.
        if unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a structure of numbers: all zeros is a value of it.
        let request = || unsafe { mem::zeroed::<libc::iocb>() };
        let requests = std::iter::repeat_with(request).take(depth).collect();
        let (asked, done) = (Vec::with_capacity(depth), Vec::with_capacity(depth));
        Ok(Libaio { context, blocks: Blocks::new(depth), requests, asked, done, file })
    }

    fn submit(&mut self) -> io::Result<()> {
        let requests = &mut self.requests;
        let mut list: Vec<_> = self.asked.iter().map(|slot| &raw mut requests[*slot]).collect();
        while !list.is_empty() {
            let (count, first) = (list.len(), list.as_mut_ptr());
            // SAFETY: the kernel copies the requests before it returns. They name blocks and a file that
            // live until the context is destroyed.
            let taken = unsafe { libc::syscall(libc::SYS_io_submit, self.context, count, first) };
            if taken < 0 {
                return Err(io::Error::last_os_error());
            }
            list.drain(..count.min(taken as usize));
        }
        self.asked.clear();
        Ok(())
    }
}

impl ByHand for Libaio {
    fn start(&mut self, slot: usize, at: u64) -> io::Result<()> {
        let memory = self.blocks.lend(slot)?;
        let request = &mut self.requests[slot];
        request.aio_data = slot as u64;
        request.aio_lio_opcode = 0; // IOCB_CMD_PREAD
        request.aio_fildes = self.file.as_raw_fd() as u32;
        request.aio_buf = memory as u64;
        request.aio_nbytes = 4096;
        request.aio_offset = at as i64;
        self.asked.push(slot);
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        self.submit()?;
        let mut events = [Event::default(); 128];
        let (most, first, forever) = (events.len(), events.as_mut_ptr(), 0_usize);
        // SAFETY: `events` has room for so many, each laid out as the kernel's.
        let count = unsafe {
            libc::syscall(libc::SYS_io_getevents, self.context, 1_usize, most, first, forever)
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.done.extend(&events[..count]);
        Ok(())
    }

    fn next(&mut self) -> Option<(usize, io::Result<&[u8]>)> {
        let event = self.done.pop()?;
        let slot = event.slot as usize;
        Some((slot, self.blocks.take_back(slot, event.result)))
    }
}

impl Drop for Libaio {
    fn drop(&mut self) {
        // SAFETY: a number that the kernel gave. It waits for what is in flight, so that the blocks, which
        // are freed after this, are nobody's by then.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}
