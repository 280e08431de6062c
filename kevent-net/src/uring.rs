//! An io_uring that receives: requests that stay (multishot), and the buffers that the kernel fills for
//! them, which come back to it when they are dropped.
//!
//! There are two kinds. One for [`Threads::Any`] receives whenever something comes in, by interrupting the
//! thread that made the request. (Not with `COOP_TASKRUN`: nothing would arrive while that thread
//! computes, though another one waits for the queue meanwhile.) One for [`Threads::One`] receives when
//! the thread that owns it asks for all that came in: `DEFER_TASKRUN`. Its own
//! descriptor does not wake epoll, but an eventfd that is registered with it does.
//!
//! # Safety
//!
//! What the kernel writes to is the pool of [buffers], which stands until the last request has completed,
//! or is leaked.

#![allow(unsafe_code)]

mod bell;
mod buffers;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use kevent_core::Waker;
use rustix::event::{PollFd, PollFlags, poll};

use bell::Bell;
pub use buffers::Buffer;
use buffers::Pool;

/// How many requests one call hands over.
const BATCH: u32 = 256;

/// The kernel's name for the ring of buffers. An io_uring of ours has one.
const GROUP: u16 = 0;

/// How long a ring that is dropped waits for the kernel to let go of the buffers.
const FAREWELL: Duration = Duration::from_secs(1);

/// The name of requests that are no registration's. Tokens are never that high.
const NOBODY: u64 = u64::MAX;

/// What the kernel says of a request.
pub(crate) struct Answer {
    pub(crate) name: u64,
    /// How many bytes were received, or an error number.
    pub(crate) result: Result<u32, i32>,
    pub(crate) buffer: Buffer,
    /// The request stands, and will say more.
    pub(crate) more: bool,
}

/// Who uses a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Whatever thread has the source.
    Any,
    /// The thread that is the first to hand something over, and no other.
    One,
}

/// By which call something is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// recv(2), from a socket.
    Receive,
    /// read(2), from a pipe.
    Read,
}

/// An io_uring for requests that receive.
pub(crate) struct Uring {
    ring: IoUring,
    /// Rings when there is something to ask for, if the ring's own descriptor does not.
    bell: Option<Bell>,
    /// Nothing was handed over yet, so that no thread owns it.
    unowned: bool,
    pool: Arc<Pool>,
    /// How often the kernel has filled a buffer, so far as it was heard of here.
    filled: usize,
    /// Requests of which more will be said.
    standing: usize,
    /// The process that made it.
    process: u32,
}

impl Uring {
    /// A ring with `count` buffers, a power of two up to 32,768, of `size` bytes.
    pub(crate) fn new(threads: Threads, count: u16, size: u32) -> io::Result<Uring> {
        let completions = 2 * u32::from(count).max(BATCH);
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(completions);
        if threads == Threads::One {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            // It belongs to the thread that enables it.
            builder.setup_r_disabled();
        }
        let mut ring = builder.build(BATCH).map_err(|e| refused("io_uring_setup", &e))?;
        let bell = match threads {
            Threads::Any => None,
            Threads::One => Some(Bell::new(&mut ring)?),
        };
        let pool = Arc::new(Pool::new(count, size)?);
        let (entries, count) = pool.entries();
        // SAFETY: the address is that of `count` entries, on a page, and they stand as long as the
        // ring: see the top.
        let registered =
            unsafe { ring.submitter().register_buf_ring_with_flags(entries, count, GROUP, 0) };
        registered.map_err(|e| refused("io_uring_register", &e))?;
        let (unowned, process) = (threads == Threads::One, std::process::id());
        Ok(Uring { ring, bell, unowned, pool, filled: 0, standing: 0, process })
    }

    /// Whether the kernel can do that at all.
    pub(crate) fn can(&self, how: How) -> bool {
        let code = match how {
            How::Receive => opcode::RecvMulti::CODE,
            How::Read => opcode::ReadMulti::CODE,
        };
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(code)
    }

    /// Who is woken when a buffer comes back that is waited for.
    pub(crate) fn set_waker(&self, waker: Option<Waker>) {
        self.pool.set_waker(waker);
    }

    /// For how many of `wanted` requests there is a buffer. If that is not all of them, the queue is
    /// woken when one comes back.
    pub(crate) fn ration(&self, wanted: usize) -> usize {
        self.pool.ration(wanted, self.filled)
    }

    /// Puts a request down that receives from `fd` until it is cancelled. `false` when the batch is full.
    pub(crate) fn push_receive(&mut self, name: u64, fd: BorrowedFd<'_>, how: How) -> bool {
        let fd = Fd(fd.as_raw_fd());
        let entry = match how {
            How::Receive => opcode::RecvMulti::new(fd, GROUP).build(),
            // The length is the buffer's.
            How::Read => opcode::ReadMulti::new(fd, 0, GROUP).build(),
        };
        let pushed = self.push(&entry.user_data(name));
        self.standing += usize::from(pushed);
        pushed
    }

    /// Puts down that the request `name` is to be cancelled, which says so itself. `false` when the
    /// batch is full.
    pub(crate) fn push_cancel(&mut self, name: u64) -> bool {
        let entry = opcode::AsyncCancel::new(name).build().user_data(NOBODY);
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS))
    }

    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the entry points to no memory. What it receives goes to the buffers: see the top.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Hands over what was put down, in one call, or none if that is nothing. What the kernel does not
    /// take now is handed over with the next.
    ///
    /// # Errors
    ///
    /// When the kernel refuses for good.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        if self.is_submitted() {
            return Ok(());
        }
        self.enter()
    }

    /// Whether the kernel has taken all that was put down.
    pub(crate) fn is_submitted(&mut self) -> bool {
        self.ring.submission().is_empty()
    }

    fn enter(&mut self) -> io::Result<()> {
        if self.unowned {
            let enabled = self.ring.submitter().register_enable_rings();
            enabled.map_err(|e| refused("io_uring_register", &e))?;
            self.unowned = false;
        }
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // Short of memory, or of room for completions: when those were taken.
                Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => Ok(()),
                _ => Err(refused("io_uring_enter", &e)),
            },
        }
    }

    /// The queue is going to look at this in a moment, if it is `awake`; or it sleeps until the descriptor
    /// gets ready.
    ///
    /// # Errors
    ///
    /// As [`submit`](Uring::submit).
    pub(crate) fn heed(&mut self, awake: bool) -> io::Result<()> {
        let Some(bell) = &mut self.bell else { return Ok(()) };
        if awake {
            bell.is_not_needed();
        } else if bell.is_needed() {
            self.enter()?;
        }
        Ok(())
    }

    /// Whether there are answers. Makes no system call, unless the kernel says that it has some which it
    /// has to be asked for: because there was no room, or because the ring belongs to one thread.
    ///
    /// # Errors
    ///
    /// As [`submit`](Uring::submit).
    #[inline]
    pub(crate) fn has_answers(&mut self) -> io::Result<bool> {
        if !self.ring.completion().is_empty() {
            return Ok(true);
        }
        let submissions = self.ring.submission();
        if !submissions.cq_overflow() && !submissions.taskrun() {
            return Ok(false);
        }
        drop(submissions);
        self.enter()?;
        Ok(!self.ring.completion().is_empty())
    }

    /// The answers that are in memory.
    #[inline]
    pub(crate) fn answers(&mut self) -> Answers<'_> {
        let Uring { ring, pool, filled, standing, .. } = self;
        Answers { entries: ring.completion(), pool, filled, standing }
    }

    /// The next answer, which may take a moment; none if there is nothing to come.
    ///
    /// # Errors
    ///
    /// As [`submit`](Uring::submit).
    pub(crate) fn answer(&mut self) -> io::Result<Option<Answer>> {
        let deadline = Instant::now() + FAREWELL;
        while !self.has_answers()? && self.standing > 0 && Instant::now() < deadline {
            self.pause();
        }
        Ok(self.answers().next())
    }

    /// Waits a little for an answer.
    fn pause(&self) {
        let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ = poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&limit));
    }

    /// Ends every request that the kernel has, and throws away what it says of them.
    fn end(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        if self.heed(false).is_err() {
            return;
        }
        let mut asked = false;
        while self.standing > 0 && Instant::now() < deadline {
            // They say that they have ended when the thread that made them gets to it.
            if self.enter().is_err() {
                return;
            }
            self.answers().for_each(drop);
            if self.standing > 0 && !asked {
                asked = true;
                let limit = Some(Timespec::from(FAREWELL));
                let _ = self.ring.submitter().register_sync_cancel(limit, CancelBuilder::any());
            } else if self.standing > 0 {
                self.pause();
            }
        }
    }
}

/// Takes one answer after another out of the ring.
pub(crate) struct Answers<'a> {
    entries: cqueue::CompletionQueue<'a>,
    pool: &'a Arc<Pool>,
    filled: &'a mut usize,
    standing: &'a mut usize,
}

impl Iterator for Answers<'_> {
    type Item = Answer;

    #[inline]
    fn next(&mut self) -> Option<Answer> {
        let entry = self.entries.find(|entry| entry.user_data() != NOBODY)?;
        let flags = entry.flags();
        let more = cqueue::more(flags);
        *self.standing = self.standing.saturating_sub((!more).into());
        let result = u32::try_from(entry.result()).map_err(|_| entry.result().saturating_neg());
        let id = cqueue::buffer_select(flags);
        let buffer = Buffer::filled(self.pool, id, result.unwrap_or(0));
        *self.filled = self.filled.wrapping_add(buffer.is_taken().into());
        Some(Answer { name: entry.user_data(), result, buffer, more })
    }
}

/// What gets readable when there are answers, or some to ask for: edge-triggered, and never read.
impl AsFd for Uring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_ref().map_or(self.ring.as_fd(), Bell::as_fd)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // A forked child drops its copy: the ring, and what is on it, is still its parent's. The memory
        // is the child's own.
        if std::process::id() != self.process {
            return;
        }
        self.end();
        if self.standing > 0 {
            std::mem::forget(Arc::clone(&self.pool));
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("fd", &self.as_fd())
            .field("standing", &self.standing)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

/// Says what can be done about what the kernel refused.
fn refused(call: &str, error: &io::Error) -> io::Error {
    let text = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
            return io::Error::new(error.kind(), format!("{call}: {error}"));
        }
        Some(libc::EPERM | libc::EACCES) => {
            "a seccomp filter, as containers have one, or sysctl kernel.io_uring_disabled"
        }
        Some(libc::EEXIST) => {
            let text = "this receiver belongs to the thread that waited first: let only that one wait, \
                        or make one for any thread";
            return io::Error::new(io::ErrorKind::PermissionDenied, text);
        }
        _ => "a kernel before 6.1, or a seccomp filter",
    };
    let text =
        format!("{call}: {error}; probably {text}: use `Readiness`, which needs no io_uring");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// A ring of one thread's that receives, and the socket's peer; nothing where there can be none.
    fn bench() -> Option<(Uring, UnixStream, UnixStream)> {
        let mut uring = match Uring::new(Threads::One, 16, 16) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                println!("skipped: {error}");
                return None;
            }
            uring => uring.unwrap(),
        };
        let (here, there) = UnixStream::pair().unwrap();
        assert!(uring.push_receive(1, here.as_fd(), How::Receive));
        uring.submit().unwrap();
        Some((uring, here, there))
    }

    /// Whether the bell was rung since it was last read.
    fn rang(uring: &Uring) -> bool {
        rustix::io::read(uring.bell.as_ref().unwrap(), &mut [0; 8]).is_ok()
    }

    fn arrives(uring: &mut Uring, there: &mut UnixStream) -> bool {
        there.write_all(b"x").unwrap();
        let rang = rang(uring);
        assert!(uring.has_answers().unwrap(), "rung or not, it is there");
        uring.answers().for_each(drop);
        // It rings for answers, too.
        self::rang(uring);
        rang
    }

    #[test]
    fn bell_is_mute_from_the_second_turn_on_of_a_queue_that_is_awake() {
        let Some((mut uring, _here, mut there)) = bench() else { return };
        uring.heed(true).unwrap();
        assert!(arrives(&mut uring, &mut there));
        uring.heed(true).unwrap();
        assert!(!arrives(&mut uring, &mut there));
        uring.heed(false).unwrap();
        assert!(arrives(&mut uring, &mut there), "somebody sleeps");
        uring.heed(true).unwrap();
        uring.heed(false).unwrap();
        uring.heed(true).unwrap();
        assert!(arrives(&mut uring, &mut there), "the turns were not in a row");
    }

    #[test]
    fn what_the_mute_bell_did_not_tell_is_there_for_who_goes_to_sleep() {
        let Some((mut uring, _here, mut there)) = bench() else { return };
        uring.heed(true).unwrap();
        uring.heed(true).unwrap();
        there.write_all(b"x").unwrap();
        assert!(!rang(&uring));
        uring.heed(false).unwrap();
        assert!(!uring.ring.completion().is_empty(), "without asking once more");
    }
}
