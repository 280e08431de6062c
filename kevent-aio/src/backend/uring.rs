//! io_uring(7).
//!
//! Any of its three system calls may be refused, at the start or any time later (a container's seccomp
//! filter, a sysctl, a limit). The ring then says so, once, and gives back what the kernel has not taken;
//! the engine goes on with the pool. What the kernel has taken still comes in: that needs no call.
//!
//! # Safety
//!
//! The kernel works on memory that operations own. From the moment in which the entry of an operation
//! is pushed until its completion was seen the ring owns the operation, boxed, in `held`, and touches
//! it no more. If the ring goes away before, it leaks the operation. What an entry points to lives
//! inside its operation, on the heap or in the box: the contract of `Operation::encode`.
//!
//! The entry of a multishot points to nothing; so its operation is asked about each completion while the ring owns
//! it. The buffers that it receives into are in `provided`, which is leaked with what the kernel does not let go of.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, cqueue, opcode};
use kevent_core::Token;

use crate::backend::{Done, Job};
use crate::buffers::Buffers;
use crate::fixed::Fixed;
use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::Op;
use crate::provided::Provided;
use crate::report::{Call, Refusal};
use crate::sys::epoll::wait_readable;
use crate::sys::thread::spawn_quiet;

/// Entries that are handed over with one system call, at most.
const BATCH: u32 = 256;

/// Threads that the kernel may use for calls on files that block, as many as a disk's queue makes use of.
/// Left to itself it takes four for each processor: so few calls that are stuck (a file server that
/// does not answer) would keep every write and fsync waiting.
const WORKERS: u32 = 32;

/// How long the kernel may say "try again" to everything before it is believed that it always will.
const PATIENCE: Duration = Duration::from_millis(100);

/// Places for completions that operations leave to cancellations: those must get through when the
/// ring is full of operations that wait for ever.
const RESERVE: usize = 16;

/// How long a ring that goes away waits for the kernel to let go of what it holds.
const FAREWELL: Duration = Duration::from_secs(1);

/// No limit, to poll(2).
const FOR_EVER: i32 = -1;

/// Files that may be registered at a time.
const FILES: u32 = 64;

/// What only the completions of multishots say: that there will be more (IORING_CQE_F_MORE), that they have taken a
/// buffer (IORING_CQE_F_BUFFER). One test for both.
const OF_MULTISHOT: u32 = 0b11;

/// The name of entries that are no operation's. Slots of tokens are never that high.
const NOBODY: u64 = u64::MAX;

/// An io_uring and the operations that are on it.
pub(crate) struct Uring {
    ring: IoUring,
    probe: Probe,
    fixed: Fixed,
    provided: Provided,
    /// The operations that are on the ring, by their slot.
    held: Vec<Option<Held>>,
    /// The names of the entries that were pushed and that the kernel has not taken, in order.
    pushed: VecDeque<u64>,
    /// Operations to cancel, for which there was no room yet.
    cancels: VecDeque<Token>,
    /// Entries whose last completion is still to come. Never more than the completion queue holds: so only
    /// what a multishot brings besides makes it overflow.
    expected: usize,
    /// When the first was pushed of those that are handed over next: the clock is asked once for all.
    batch_since: Option<Instant>,
    /// Since when the kernel has taken nothing but said "try again".
    refused_since: Option<Instant>,
    /// Places for files were made.
    has_places: bool,
    /// Nothing is handed over any more.
    broken: bool,
    /// The process that made it.
    process: u32,
}

/// An operation on the ring.
struct Held {
    job: Job,
    opcode: u8,
    /// Its cancellation was asked for, so that "cancelled" is an answer.
    cancelling: bool,
    /// When the batch was begun of which it is.
    since: Instant,
}

/// What became of a job that was to be put on the ring.
pub(crate) enum Pushed {
    /// It is on the ring.
    Yes,
    /// There is no room now.
    Full(Job),
    /// The ring can't do this one.
    Unable(Job),
}

/// A completion of the ring.
pub(crate) enum Reaped {
    /// Done, or failed for good; and since when it was on the ring.
    Done(Done, Instant),
    /// The ring did not do it: it lacks the opcode, or the thread that submitted it has ended.
    Undone(Job),
    /// Something of an operation that stays on the ring.
    More(Token, Option<Box<Op>>),
}

impl Uring {
    /// A ring for `capacity` operations that works: every kind of call was tried.
    pub(crate) fn new(capacity: usize) -> Result<Uring, Refusal> {
        let ring = set_up(capacity).map_err(|e| Refusal::new(Call::Setup, &e))?;
        let mut probe = Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(|e| Refusal::new(Call::Register, &e))?;
        // Before 5.15 there is no such thing to set. Zero leaves the other kind as it is.
        let _ = ring.submitter().register_iowq_max_workers(&mut [WORKERS, 0]);
        let mut uring = Uring {
            ring,
            probe,
            fixed: Fixed::default(),
            provided: Provided::default(),
            held: Vec::new(),
            pushed: VecDeque::new(),
            cancels: VecDeque::new(),
            expected: 0,
            batch_since: None,
            refused_since: None,
            has_places: false,
            broken: false,
            process: std::process::id(),
        };
        uring.push_entry(&opcode::Nop::new().build().user_data(NOBODY));
        loop {
            uring.submit()?;
            if uring.pushed.is_empty() {
                return Ok(uring);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Makes `buffers` known to the kernel, which keeps their pages in memory: that counts against the limit of
    /// locked memory, and may be refused for it. Once, before anything is put on the ring.
    pub(crate) fn register_buffers(&mut self, buffers: &Buffers) -> io::Result<()> {
        let places = buffers.places();
        // SAFETY: the kernel holds the pages by itself. What is read into them is read by operations that own
        // their buffer.
        unsafe { self.ring.submitter().register_buffers(&places) }?;
        self.fixed.knows(buffers.clone());
        Ok(())
    }

    pub(crate) fn knows_buffers(&self) -> bool {
        self.fixed.knows_buffers()
    }

    /// Makes `file` known to the kernel, and keeps it open. Says whether it is known now: there are places for
    /// 64.
    pub(crate) fn register_file(&mut self, file: &Fd) -> io::Result<bool> {
        if self.fixed.file(file.as_fd()).is_some() {
            return Ok(true);
        }
        if !self.has_places {
            self.ring.submitter().register_files_sparse(FILES)?;
            self.has_places = true;
            self.fixed.has_places(FILES);
        }
        let Some(place) = self.fixed.free_place() else { return Ok(false) };
        self.ring.submitter().register_files_update(place, &[file.as_fd().as_raw_fd()])?;
        self.fixed.insert(place, file);
        Ok(true)
    }

    /// Has the kernel forget `file`, when what is at work on it is done.
    pub(crate) fn unregister_file(&mut self, file: &Fd) -> bool {
        let Some(place) = self.fixed.remove(file.as_fd()) else { return false };
        // If that fails the place goes on naming the file until another one is put there.
        let _ = self.ring.submitter().register_files_update(place, &[-1]);
        true
    }

    /// Puts `job` on the ring. It is handed over by the next [`submit`](Uring::submit), or at once if
    /// the batch is full.
    pub(crate) fn push(&mut self, mut job: Job) -> Result<Pushed, (Job, Refusal)> {
        if self.broken {
            return Ok(Pushed::Unable(job));
        }
        if self.is_full() {
            return Ok(Pushed::Full(job));
        }
        if self.ring.submission().is_full() {
            if let Err(refusal) = self.submit() {
                return Err((job, refusal));
            }
            if self.ring.submission().is_full() {
                return Ok(Pushed::Full(job));
            }
        }
        let known = if self.fixed.is_empty() { None } else { job.op.encode_fixed(&self.fixed) };
        let Some(entry) = known.or_else(|| job.op.encode()) else {
            return Ok(Pushed::Unable(job));
        };
        let opcode = entry.get_opcode() as u8;
        if !self.probe.is_supported(opcode) {
            return Ok(Pushed::Unable(job));
        }
        let since = *self.batch_since.get_or_insert_with(Instant::now);
        let token = job.token;
        let slot = token.slot() as usize;
        if self.held.len() <= slot {
            self.held.resize_with(slot + 1, || None);
        }
        self.held[slot] = Some(Held { job, opcode, cancelling: false, since });
        // There is room: asked above.
        self.push_entry(&entry.user_data(token.to_bits()));
        Ok(Pushed::Yes)
    }

    fn push_entry(&mut self, entry: &Entry) -> bool {
        // SAFETY: the operation that the entry points into is in `held`, boxed, until its completion
        // was seen; entries that are no operation's point to nothing.
        let pushed = unsafe { self.ring.submission().push(entry) };
        if pushed.is_ok() {
            self.pushed.push_back(entry.get_user_data());
            self.expected += 1;
        }
        pushed.is_ok()
    }

    /// As many completions as the kernel has room for.
    fn capacity(&self) -> usize {
        self.ring.params().cq_entries() as usize
    }

    /// Asks the kernel to end an operation that is on the ring. Its completion comes in any case.
    pub(crate) fn cancel(&mut self, token: Token) {
        if let Some(held) = self.held_mut(token) {
            held.cancelling = true;
            self.cancels.push_back(token);
        }
    }

    /// Takes a multishot off the ring, to be put there again later, unless it is to go already.
    pub(crate) fn pause(&mut self, token: Token) {
        if self.held_mut(token).is_some_and(|held| !held.cancelling) {
            self.cancel(token);
        }
    }

    /// The operation, if it is on the ring: one into which the kernel has no pointer.
    pub(crate) fn multishot(&self, token: Token) -> Option<&Op> {
        let held = self.held.get(token.slot() as usize)?.as_ref()?;
        (held.job.token == token && held.job.op.is_endless()).then_some(&*held.job.op)
    }

    /// Hands over what was pushed, in one call, or none if that is nothing. What the kernel does not
    /// take now is handed over with the next.
    ///
    /// # Errors
    ///
    /// When the kernel takes nothing any more. [`take_back`](Uring::take_back) then gives what it has
    /// not taken.
    pub(crate) fn submit(&mut self) -> Result<(), Refusal> {
        loop {
            self.push_cancels();
            if self.broken || self.pushed.is_empty() {
                return Ok(());
            }
            self.batch_since = None;
            let answer = self.ring.submit();
            let left = self.ring.submission().len();
            let taken = self.pushed.len().saturating_sub(left);
            self.pushed.drain(..taken);
            if taken > 0 {
                self.refused_since = None;
                continue;
            }
            let Err(error) = answer else { return self.refused(Errno(libc::EAGAIN)) };
            return self.refused(Errno::from(error));
        }
    }

    /// The kernel took nothing: later, or never?
    fn refused(&mut self, errno: Errno) -> Result<(), Refusal> {
        let later = matches!(errno.0, libc::EAGAIN | libc::EBUSY | libc::EINTR);
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        if later && since.elapsed() < PATIENCE {
            return Ok(());
        }
        self.broken = true;
        Err(Refusal::new(Call::Enter, &io::Error::from(errno)))
    }

    fn push_cancels(&mut self) {
        while self.expected < self.capacity() {
            let Some(&token) = self.cancels.front() else { return };
            let entry = opcode::AsyncCancel::new(token.to_bits()).build().user_data(NOBODY);
            if self.held_mut(token).is_some() && !self.push_entry(&entry) {
                return;
            }
            self.cancels.pop_front();
        }
    }

    /// Whether there is something to hand over.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        let cancels = !self.cancels.is_empty() && self.expected < self.capacity();
        !self.broken && (cancels || !self.pushed.is_empty())
    }

    /// Whether it has no room for another operation now.
    pub(crate) fn is_full(&self) -> bool {
        self.expected + RESERVE >= self.capacity()
    }

    /// Whether it still takes operations.
    pub(crate) fn works(&self) -> bool {
        !self.broken
    }

    /// Once the ring is broken: the operations that the kernel has not taken, and now never will.
    pub(crate) fn take_back(&mut self) -> Vec<Job> {
        let names = std::mem::take(&mut self.pushed);
        self.expected -= names.len();
        self.cancels.clear();
        names.into_iter().filter_map(|name| self.release(name)).map(|held| held.job).collect()
    }

    /// The next completion, if there is one. Makes no system call.
    pub(crate) fn reap(&mut self) -> Option<Reaped> {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                if self.fetch_overflow() {
                    continue;
                }
                return None;
            };
            if entry.flags() & OF_MULTISHOT != 0 {
                self.fill(&entry);
                if cqueue::more(entry.flags()) {
                    return Some(self.more(entry.user_data(), entry.result()));
                }
            }
            self.expected = self.expected.saturating_sub(1);
            let Some(held) = self.release(entry.user_data()) else { continue };
            return Some(held.answer(entry.result()));
        }
    }

    /// One completion of several. The operation may be asked while the kernel has its entry: that points to
    /// nothing of it.
    fn more(&mut self, name: u64, result: i32) -> Reaped {
        let token = Token::from_bits(name);
        // It is there: the ring lets go of nothing whose last completion it has not seen.
        let op = self.held_mut(token).map(|held| &mut held.job.op);
        let piece = op.and_then(|op| match op.complete(outcome_of(result)) {
            Step::Piece => op.take_piece(),
            _ => None,
        });
        Reaped::More(token, piece)
    }

    /// Gives an operation the buffer that a completion names.
    fn fill(&mut self, entry: &cqueue::Entry) {
        let Some(number) = cqueue::buffer_select(entry.flags()) else { return };
        let token = Token::from_bits(entry.user_data());
        let held = self.held.get_mut(token.slot() as usize).and_then(Option::as_mut);
        if let Some(held) = held.filter(|held| held.job.token == token) {
            let len = usize::try_from(entry.result()).unwrap_or(0);
            held.job.op.fill(&mut self.provided, number, len);
        }
    }

    /// Has the kernel receive into the buffers of `pool`. Gives the name by which it knows them, and keeps them as
    /// long as somebody has that; nothing where the kernel can't (before 5.19) or may not.
    pub(crate) fn provide(&mut self, pool: &Buffers) -> Option<Arc<u16>> {
        if let Some(name) = self.provided.name_of(pool) {
            return Some(name);
        }
        let submitter = self.ring.submitter();
        for name in self.provided.unused() {
            if submitter.unregister_buf_ring(name).is_ok() {
                self.provided.remove(name);
            }
        }
        self.provided.insert(pool, |address, length, name| {
            // SAFETY: the entries are there until they are unregistered, or the ring is gone.
            unsafe { submitter.register_buf_ring_with_flags(address, length, name, 0) }
        })
    }

    /// Lends the kernel what has come back of those buffers.
    pub(crate) fn lend(&mut self) {
        self.provided.lend();
    }

    /// Has the kernel move what the completion queue had no room for, now that it is empty. Only multishots bring
    /// more than there is room for, and the kernel ends them by that.
    fn fetch_overflow(&mut self) -> bool {
        // What IORING_ENTER_GETEVENTS is in the kernel's header.
        const GETEVENTS: u32 = 1;
        if !self.ring.submission().cq_overflow() {
            return false;
        }
        // SAFETY: nothing is handed over, and there is no argument.
        let fetched = unsafe { self.ring.submitter().enter::<()>(0, 0, GETEVENTS, None) };
        fetched.is_ok() && !self.ring.completion().is_empty()
    }

    fn held_mut(&mut self, token: Token) -> Option<&mut Held> {
        let held = self.held.get_mut(token.slot() as usize)?.as_mut()?;
        (held.job.token == token).then_some(held)
    }

    fn release(&mut self, name: u64) -> Option<Held> {
        if name == NOBODY {
            return None;
        }
        let token = Token::from_bits(name);
        self.held_mut(token)?;
        self.held.get_mut(token.slot() as usize)?.take()
    }

    /// How many operations are on the ring.
    fn on_ring(&self) -> usize {
        self.held.iter().flatten().count()
    }
}

impl Held {
    fn answer(self, result: i32) -> Reaped {
        let Held { job, opcode, cancelling, since } = self;
        let mut outcome = outcome_of(result);
        if opcode == opcode::Close::CODE && outcome == Err(Errno(libc::EINTR)) {
            // The descriptor is closed by then, and closing it again would hit another.
            outcome = Ok(0);
        }
        let undone = match outcome {
            Err(Errno(libc::ECANCELED | libc::EINTR)) => !cancelling,
            // Perhaps the operation's own error; then the pool will say the same. "Again" is also what the
            // ring says of a file that was opened O_NONBLOCK, and of a write that wrote nothing.
            Err(Errno(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | libc::EAGAIN)) => true,
            _ => false,
        };
        if undone { Reaped::Undone(job) } else { Reaped::Done(Done { job, outcome }, since) }
    }
}

fn outcome_of(result: i32) -> Outcome {
    u32::try_from(result).map_err(|_| Errno(result.saturating_neg()))
}

/// Makes a ring, a smaller one if memory is short.
///
/// The ring's descriptor must wake epoll. It does so with these flags, and would not with
/// `IORING_SETUP_DEFER_TASKRUN`.
fn set_up(capacity: usize) -> io::Result<IoUring> {
    let mut entries = u32::try_from(capacity).unwrap_or(BATCH).clamp(8, BATCH).next_power_of_two();
    let mut completions = u32::try_from(capacity).unwrap_or(u32::MAX).clamp(16, 1 << 15);
    let mut coop = true;
    loop {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(completions.max(entries) + RESERVE as u32);
        if coop {
            builder.setup_coop_taskrun();
        }
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            // Before 5.19.
            Err(e) if coop && e.raw_os_error() == Some(libc::EINVAL) => coop = false,
            Err(e) if entries > 8 && e.raw_os_error() == Some(libc::ENOMEM) => {
                entries /= 4;
                completions = entries * 2;
            }
            Err(e) => return Err(e),
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("fd", &self.as_fd())
            .field("on_ring", &self.on_ring())
            .field("unsubmitted", &self.pushed.len())
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl AsFd for Uring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Uring {
    /// Ends what is in flight, and waits a while until the kernel has let go of it. What it does not let go of, a
    /// call to a file server that does not answer, is left to a thread of its own: what such a call opens
    /// in the end is closed then, and its memory is given back.
    pub(crate) fn farewell(mut self) {
        self.end();
        if self.on_ring() == 0 || self.is_copy() {
            return;
        }
        let builder = Builder::new().name("kevent-aio-end".to_owned());
        // Where no thread can be had it is leaked: see `drop`.
        let _ = spawn_quiet(builder, move || {
            while self.on_ring() > 0 {
                wait_readable(self.as_fd(), FOR_EVER);
                self.drop_done();
            }
        });
    }

    /// Whether a forked child has it. The ring, and what is on it, is still its parent's.
    fn is_copy(&self) -> bool {
        std::process::id() != self.process
    }

    fn end(&mut self) {
        if self.is_copy() {
            return;
        }
        let deadline = Instant::now() + FAREWELL;
        let tokens: Vec<_> = self.held.iter().flatten().map(|held| held.job.token).collect();
        tokens.into_iter().for_each(|token| self.cancel(token));
        loop {
            if self.broken || self.submit().is_err() {
                drop(self.take_back());
            }
            self.drop_done();
            if self.on_ring() == 0 || Instant::now() >= deadline {
                break;
            }
            wait_readable(self.as_fd(), 10);
        }
    }

    /// Drops what is done by now.
    fn drop_done(&mut self) {
        while let Some(reaped) = self.reap() {
            let Reaped::Done(Done { mut job, outcome }, _) = reaped else { continue };
            if !matches!(outcome, Err(Errno(libc::ECANCELED | libc::EINTR))) {
                // What the operation has opened is closed with it.
                let _ = job.op.complete(outcome);
            }
        }
    }
}

impl Drop for Uring {
    /// Leaks what the kernel holds: it may still write there after the ring is closed.
    fn drop(&mut self) {
        if self.on_ring() > 0 {
            std::mem::forget(std::mem::take(&mut self.provided));
        }
        std::mem::take(&mut self.held).into_iter().flatten().for_each(std::mem::forget);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::ops::{Close, Fsync, Op};

    /// What the ring makes of the kernel's answer: an outcome, or nothing when it is undone.
    fn answer(op: impl Into<Op>, opcode: u8, cancelling: bool, result: i32) -> Option<Outcome> {
        let job = Job { token: Token::from_bits(1), op: Box::new(op.into()) };
        match (Held { job, opcode, cancelling, since: Instant::now() }).answer(result) {
            Reaped::Done(done, _) => Some(done.outcome),
            Reaped::Undone(_) | Reaped::More(..) => None,
        }
    }

    fn of_fsync(cancelling: bool, result: i32) -> Option<Outcome> {
        let file = std::sync::Arc::new(std::fs::File::open("/dev/null").unwrap());
        answer(Fsync::new(file), opcode::Fsync::CODE, cancelling, result)
    }

    #[test]
    fn try_again_is_not_believed_for_a_while_and_refusals_at_once() {
        let Ok(mut uring) = Uring::new(8) else {
            println!("skipped: no ring can be had here");
            return;
        };
        for errno in [libc::EAGAIN, libc::EBUSY, libc::EINTR] {
            uring.refused_since = None;
            assert!(uring.refused(Errno(errno)).is_ok() && uring.works());
        }
        uring.refused_since = Instant::now().checked_sub(PATIENCE);
        let refusal = uring.refused(Errno(libc::EBUSY)).unwrap_err();
        assert_eq!((refusal.call(), refusal.errno()), (Call::Enter, libc::EBUSY));
        assert!(!uring.works());
        let Ok(mut uring) = Uring::new(8) else { return };
        assert!(uring.refused(Errno(libc::EPERM)).is_err() && !uring.works());
    }

    #[test]
    fn cancelled_is_an_answer_only_to_who_asked_for_it() {
        for errno in [libc::ECANCELED, libc::EINTR] {
            assert_eq!(of_fsync(true, -errno), Some(Err(Errno(errno))));
            assert_eq!(of_fsync(false, -errno), None);
        }
    }

    #[test]
    fn what_the_ring_can_not_do_is_undone_and_other_errors_are_answers() {
        for errno in [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS, libc::EAGAIN] {
            assert_eq!(of_fsync(false, -errno), None);
        }
        assert_eq!(of_fsync(false, -libc::EIO), Some(Err(Errno(libc::EIO))));
        assert_eq!(of_fsync(false, 7), Some(Ok(7)));
        assert_eq!(of_fsync(false, i32::MIN), Some(Err(Errno(i32::MAX))));
    }

    #[test]
    fn interrupted_close_has_closed_also_when_it_was_to_be_cancelled() {
        for cancelling in [false, true] {
            let (near, _far) = UnixStream::pair().unwrap();
            let close = Close::new(near);
            let outcome = answer(close, opcode::Close::CODE, cancelling, -libc::EINTR);
            assert_eq!(outcome, Some(Ok(0)));
        }
    }
}
