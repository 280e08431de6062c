//! The eventfd of an io_uring whose own descriptor does not wake epoll, and the word that keeps it quiet.
//!
//! To ring costs the kernel a third of what it does for each thing that comes in: it wakes whoever waits for the
//! eventfd, which is an epoll set. A queue that is awake does not need that, because it looks at the ring
//! in every turn. So the bell is muted, by a word that is shared with the kernel, from the second of two such
//! turns on: a queue that sleeps between any two things that come in never mutes it.
//!
//! The order that loses no ring. The kernel adds to its list of work, by a read-modify-write that is a full
//! barrier, and then reads the word. The thread that is going to sleep writes the word, fence, and then has
//! the kernel look at its list. One of them sees what the other one did.
//!
//! # Safety
//!
//! The word lies in the part of the ring's memory that is mapped here, and only this file writes to it.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use io_uring::IoUring;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io_uring::{IORING_OFF_CQ_RING, IoringCqFlags, io_uring_params, io_uring_setup};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Rings when there is something that the kernel is to be asked for.
pub(super) struct Bell {
    eventfd: OwnedFd,
    /// What mutes it; nothing where the kernel does not give that away.
    word: Option<Word>,
    muted: bool,
    /// It was not needed the last time.
    idle: bool,
}

impl Bell {
    pub(super) fn new(ring: &mut IoUring) -> io::Result<Bell> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let registered = ring.submitter().register_eventfd(eventfd.as_raw_fd());
        registered.map_err(|e| super::refused("io_uring_register", &e))?;
        Ok(Bell { eventfd, word: Word::of(ring).ok(), muted: false, idle: false })
    }

    /// Nobody sleeps on it.
    pub(super) fn is_not_needed(&mut self) {
        if self.idle && !self.muted {
            self.mute(true);
        }
        self.idle = true;
    }

    /// Somebody is going to sleep on it. Says whether there may be something for which it has not rung: then
    /// the kernel is to be asked once.
    pub(super) fn is_needed(&mut self) -> bool {
        self.idle = false;
        let muted = self.muted;
        if muted {
            self.mute(false);
        }
        muted
    }

    fn mute(&mut self, muted: bool) {
        let Some(word) = &self.word else { return };
        word.write(if muted { IoringCqFlags::EVENTFD_DISABLED } else { IoringCqFlags::empty() });
        self.muted = muted;
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// The flags of a completion queue, by which its user tells the kernel what he wants.
struct Word {
    mapped: NonNull<u8>,
    offset: usize,
}

// SAFETY: the memory is owned, and atomic for all who have it.
unsafe impl Send for Word {}

impl Word {
    /// The word of `ring`, which it leaves empty.
    fn of(ring: &mut IoUring) -> io::Result<Word> {
        // The binding to io_uring keeps the offset to itself. It is that of a field of a structure of the
        // kernel's, and so the same in all rings.
        let mut params = io_uring_params::default();
        // SAFETY: it makes an io_uring that nobody uses, and writes to `params`, which is borrowed.
        drop(unsafe { io_uring_setup(1, &mut params) }?);
        let offset = params.cq_off.flags as usize;
        // SAFETY: the kernel chooses the address, where nothing else is.
        let mapped = unsafe {
            let (all, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
            mmap(ptr::null_mut(), offset + 4, all, shared, &*ring, IORING_OFF_CQ_RING)
        }?;
        let mapped = NonNull::new(mapped).ok_or(io::ErrorKind::OutOfMemory)?;
        let word = Word { mapped: mapped.cast(), offset };
        word.write(IoringCqFlags::EVENTFD_DISABLED);
        let found = ring.completion().eventfd_disabled();
        word.write(IoringCqFlags::empty());
        if found { Ok(word) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn write(&self, flags: IoringCqFlags) {
        // SAFETY: it is within what is mapped.
        let word = unsafe { self.mapped.as_ptr().add(self.offset) };
        // SAFETY: the kernel aligns its words; it stays mapped; and all who have it use it as an atomic.
        let word = unsafe { AtomicU32::from_ptr(word.cast()) };
        word.store(flags.bits(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // SAFETY: it was mapped, with that length, and nobody has a reference to it.
        let unmapped = unsafe { munmap(self.mapped.as_ptr().cast(), self.offset + 4) };
        debug_assert!(unmapped.is_ok());
    }
}
