//! sigaction(2): a handler that writes what it is told into a pipe.
//!
//! What a signal does is a property of the whole process, so this file holds what the rest of the
//! crate does without: statics, one slot for each signal. A slot points at the [`Target`] of the
//! [`Claim`] that has the signal, if one has.
//!
//! A handler may run at any time, on any thread, in the middle of anything; also on one thread while
//! another gives the signal back. So:
//!
//! - The handler calls getpid(2) and write(2) and nothing else, and leaves `errno` as it was. It
//!   takes no lock and no memory.
//! - The handler counts itself into its slot *before* it looks at the slot's target. A claim that
//!   ends clears the target *before* it looks at the count. All four are sequentially consistent, so
//!   either the handler finds no target, or the claim finds the handler and waits until it has left.
//!   Only then may the target be dropped and the pipe closed: a number that is written to is
//!   never one that was closed, and perhaps opened again as something else.
//! - A child after fork(2) has the handler, the slots and the pipe, which is its parent's. The target
//!   remembers the process it was made in, and in any other the handler is silent.
//!
//! # Safety
//!
//! The pointer in a slot comes from an `Arc` that its claim keeps until no handler can hold the
//! pointer any more, by the order above. The calls pass memory that they own.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::token::Token;

/// One more than the highest signal that can be claimed.
const SLOTS_LEN: usize = 65;

/// How long the end of a claim waits for handlers that still run. They take microseconds, unless a
/// debugger holds their thread, or it was lost in a fork; then their target is never freed.
const PATIENCE: Duration = Duration::from_secs(1);

static SLOTS: [Slot; SLOTS_LEN] = [const { Slot::new() }; SLOTS_LEN];

struct Slot {
    /// Whether a claim has the signal. Not the same as having a target: a claim that ends keeps the
    /// slot until its last handler has left.
    claimed: AtomicBool,
    target: AtomicPtr<Target>,
    /// Handlers that may have seen the target.
    handlers: AtomicUsize,
}

/// Where the handler puts what it is told, and in whose name. Does not change, but for the count.
#[derive(Debug)]
struct Target {
    pipe: Arc<Pipe>,
    token: Token,
    process: libc::pid_t,
    /// Deliveries that found the pipe full.
    missed: AtomicUsize,
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            claimed: AtomicBool::new(false),
            target: AtomicPtr::new(ptr::null_mut()),
            handlers: AtomicUsize::new(0),
        }
    }

    /// Runs in the handler.
    fn handle(&self, info: &libc::siginfo_t) {
        self.handlers.fetch_add(1, Ordering::SeqCst);
        // SAFETY: null, or alive for as long as this handler is counted: see the head of the file.
        if let Some(target) = unsafe { self.target.load(Ordering::SeqCst).as_ref() } {
            target.handle(info);
        }
        self.handlers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits until no handler can hold the target that was cleared. `false` if that takes too long.
    fn handlers_left(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.handlers.load(Ordering::SeqCst) != 0 {
            if Instant::now() > deadline {
                return false;
            }
            // Sleeps, because a yield would not let a thread of lower priority run.
            thread::sleep(Duration::from_micros(50));
        }
        true
    }
}

impl Target {
    /// Runs in the handler.
    fn handle(&self, info: &libc::siginfo_t) {
        if !self.is_inherited() && !self.pipe.write(&Record::new(self.token, info)) {
            self.count_missed();
        }
    }

    /// Runs in the handler, after a write that found the pipe full.
    fn count_missed(&self) {
        self.missed.fetch_add(1, Ordering::SeqCst);
        // The pipe may have been emptied, and the count looked at, since then. If it has room now,
        // this makes it readable; if not, then whoever reads what fills it finds the count.
        self.pipe.write(&Record::NUDGE);
    }

    fn is_inherited(&self) -> bool {
        this_process() != self.process
    }
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: always points to this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    // SAFETY: the kernel passes a siginfo to a handler installed with SA_SIGINFO, for this call.
    let info = unsafe { info.as_ref() };
    let slot = usize::try_from(signal).ok().and_then(|signal| SLOTS.get(signal));
    if let (Some(slot), Some(info)) = (slot, info) {
        slot.handle(info);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// The handling of one signal, until it is dropped: then it is as it was before.
pub(crate) struct Claim {
    signal: i32,
    previous: libc::sigaction,
    target: Arc<Target>,
}

impl Claim {
    /// Lets `signal` write records of `token` into `pipe`.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` when another claim has the signal; what sigaction(2) says otherwise.
    pub(crate) fn new(signal: i32, token: Token, pipe: &Arc<Pipe>) -> io::Result<Claim> {
        let slot = slot(signal).ok_or(io::ErrorKind::InvalidInput)?;
        if slot.claimed.swap(true, Ordering::Acquire) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let target = Arc::new(Target {
            pipe: Arc::clone(pipe),
            token,
            process: this_process(),
            missed: AtomicUsize::new(0),
        });
        // The target first: the handler may run before `install` returns.
        slot.target.store(Arc::as_ptr(&target).cast_mut(), Ordering::SeqCst);
        match install(signal) {
            Ok(previous) => Ok(Claim { signal, previous, target }),
            Err(error) => {
                // Not installed, so no handler of this claim ever ran. One of the claim before, that
                // set out late, may just do.
                release(slot, target);
                Err(error)
            }
        }
    }

    /// How many deliveries found the pipe full since this was last asked.
    pub(crate) fn take_missed(&self) -> usize {
        self.target.missed.swap(0, Ordering::SeqCst)
    }

    /// Gives back what [`take_missed`](Claim::take_missed) took.
    pub(crate) fn give_back_missed(&self, count: usize) {
        self.target.missed.fetch_add(count, Ordering::SeqCst);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        restore(self.signal, &self.previous);
        if let Some(slot) = slot(self.signal) {
            release(slot, Arc::clone(&self.target));
        }
    }
}

/// Ends what `slot` does for `target`, and frees it: or leaves it to the handlers that are not known
/// to have left. In a forked child that is never known. The handlers that were counted stayed in the
/// parent.
fn release(slot: &Slot, target: Arc<Target>) {
    slot.target.store(ptr::null_mut(), Ordering::SeqCst);
    if target.is_inherited() || !slot.handlers_left() {
        std::mem::forget(target);
    }
    slot.claimed.store(false, Ordering::Release);
}

fn slot(signal: i32) -> Option<&'static Slot> {
    usize::try_from(signal).ok().and_then(|signal| SLOTS.get(signal))
}

/// Installs the handler and returns what was there.
///
/// SA_RESTART, so that no call in the program that never heard of signals fails with EINTR;
/// SA_ONSTACK, for threads whose own stack is small, such as those of Go.
fn install(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = blank();
    action.sa_sigaction = handler_address();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    let mut previous = blank();
    // SAFETY: both live through the call; the handler does what a handler may.
    let done = unsafe { libc::sigaction(signal, &raw const action, &raw mut previous) };
    if done == 0 { Ok(previous) } else { Err(io::Error::last_os_error()) }
}

/// Puts `previous` back, unless somebody has put his own handler in place of ours since: that one
/// stays.
fn restore(signal: i32, previous: &libc::sigaction) {
    let mut current = blank();
    // SAFETY: `current` lives through the call; nothing is changed.
    let done = unsafe { libc::sigaction(signal, ptr::null(), &raw mut current) };
    if done == 0 && current.sa_sigaction == handler_address() {
        // SAFETY: `previous` was given by the kernel for this signal.
        unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
    }
}

/// No handler, no flags, and no signal in the mask.
fn blank() -> libc::sigaction {
    // SAFETY: zero is a value of each of its fields, and the empty set of signals on Linux.
    unsafe { std::mem::zeroed() }
}

fn handler_address() -> libc::sighandler_t {
    handler as *const () as libc::sighandler_t
}

fn this_process() -> libc::pid_t {
    // SAFETY: takes nothing and can't fail. A system call: glibc has cached it no more since 2.25.
    unsafe { libc::getpid() }
}

/// The first and the last realtime signal that the C library leaves to programs.
pub(crate) fn realtime_range() -> (i32, i32) {
    (libc::SIGRTMIN(), libc::SIGRTMAX())
}

/// What the handler was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) token: Token,
    /// `si_value`, which is a C union of an int and a pointer: its bytes.
    pub(crate) value: u64,
    pub(crate) code: i32,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

impl Record {
    /// The size of a record in the pipe. Divides a page, so none is lost to rounding.
    pub(crate) const LEN: usize = 32;

    /// Belongs to no registration, so it says nothing but "look".
    const NUDGE: Record = Record { token: Token::SOLE, value: 0, code: 0, pid: 0, uid: 0 };

    fn new(token: Token, info: &libc::siginfo_t) -> Record {
        // SAFETY: the kernel fills the whole of a siginfo. Which of its members mean something is
        // for the reader to say, from `code`.
        let pid = unsafe { info.si_pid() };
        // SAFETY: as above.
        let uid = unsafe { info.si_uid() };
        // SAFETY: as above.
        let value = unsafe { info.si_value() };
        let value = value.sival_ptr as usize as u64;
        Record { token, value, code: info.si_code, pid: pid as u32, uid }
    }

    fn to_bytes(self) -> [u8; Record::LEN] {
        let mut bytes = [0; Record::LEN];
        bytes[0..8].copy_from_slice(&self.token.to_bits().to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.value.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.code.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.uid.to_ne_bytes());
        bytes
    }

    /// The record at the beginning of `bytes`; what is missing there is zero.
    fn from_bytes(bytes: &[u8]) -> Record {
        fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
        }
        Record {
            token: Token::from_bits(u64::from_ne_bytes(part(bytes, 0))),
            value: u64::from_ne_bytes(part(bytes, 8)),
            code: i32::from_ne_bytes(part(bytes, 16)),
            pid: u32::from_ne_bytes(part(bytes, 20)),
            uid: u32::from_ne_bytes(part(bytes, 24)),
        }
    }
}

/// A pipe of records. A record is far smaller than `PIPE_BUF`, so each is in the pipe as a whole or
/// not at all, and those of several threads do not mix: pipe(7).
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: File,
    /// Lives as long as the reading end, so that a write never raises SIGPIPE.
    writer: OwnedFd,
}

/// How many records one read takes.
const BATCH: usize = 64;

impl Pipe {
    pub(crate) fn new() -> io::Result<Pipe> {
        let mut ends = [-1; 2];
        // SAFETY: `ends` is room for two descriptors.
        let done = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it and nobody else knows it.
        let reader = unsafe { File::from_raw_fd(ends[0]) };
        // SAFETY: as above.
        let writer = unsafe { OwnedFd::from_raw_fd(ends[1]) };
        Ok(Pipe { reader, writer })
    }

    /// Runs in the handler. `false` when the pipe is full.
    fn write(&self, record: &Record) -> bool {
        let bytes = record.to_bytes();
        // SAFETY: `bytes` lives through the call.
        let done =
            unsafe { libc::write(self.writer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        done >= 0
    }

    /// Takes up to `most` records out, and says whether there may be more of them.
    pub(crate) fn read(&self, most: usize, mut take: impl FnMut(Record)) -> io::Result<bool> {
        let mut bytes = [0; BATCH * Record::LEN];
        let most = most.min(BATCH) * Record::LEN;
        let got = match (&self.reader).read(&mut bytes[..most]) {
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(e),
        };
        bytes[..got].chunks_exact(Record::LEN).map(Record::from_bytes).for_each(&mut take);
        Ok(got == most)
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// The signals that the calling thread blocks: the lowest bit is signal 1.
pub(crate) fn thread_mask() -> io::Result<u64> {
    let mut mask = 0_u64;
    // SAFETY: no new mask is given; `mask` has the eight bytes that the size says. A raw call, because
    // the C library's set is larger than the kernel's and hides its shape.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            ptr::null::<u64>(),
            &raw mut mask,
            size_of::<u64>(),
        )
    };
    if done == 0 { Ok(mask) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: u64) -> Record {
        Record { token: Token::from_bits(u64::MAX - 6), value, code: -1, pid: 7, uid: u32::MAX }
    }

    #[test]
    fn record_survives_the_pipe() {
        let pipe = Pipe::new().unwrap();
        assert!(pipe.write(&record(u64::MAX - 1)));
        let mut got = Vec::new();
        assert!(!pipe.read(2, |r| got.push(r)).unwrap(), "one record is not two");
        assert_eq!(got, [record(u64::MAX - 1)]);
    }

    #[test]
    fn full_pipe_says_so_and_keeps_whole_records() {
        let pipe = Pipe::new().unwrap();
        let written = (0..1 << 20).take_while(|n| pipe.write(&record(*n))).count();
        let mut read = 0;
        while pipe
            .read(usize::MAX, |r| {
                assert_eq!(r, record(read));
                read += 1;
            })
            .unwrap()
        {}
        assert_eq!(read, written as u64);
    }

    #[test]
    fn delivery_counted_after_the_pipe_was_emptied_makes_it_readable() {
        let pipe = Arc::new(Pipe::new().unwrap());
        let missed = AtomicUsize::new(0);
        let target = Target { pipe, token: Token::SOLE, process: this_process(), missed };
        while target.pipe.write(&record(0)) {}
        // Here a handler has just been refused. Before it goes on, the queue reads everything, finds
        // no count, and goes to sleep.
        while target.pipe.read(usize::MAX, |_| ()).unwrap() {}
        target.count_missed();
        let mut records = 0;
        target.pipe.read(usize::MAX, |_| records += 1).unwrap();
        assert_eq!(records, 1, "nothing wakes the queue for the count");
    }

    /// A slot with so many handlers under way, and what they may hold on to.
    fn slot_in_use(handlers: usize, process: libc::pid_t) -> (Slot, Arc<Target>) {
        let slot = Slot::new();
        slot.handlers.store(handlers, Ordering::SeqCst);
        let (pipe, missed) = (Arc::new(Pipe::new().unwrap()), AtomicUsize::new(0));
        (slot, Arc::new(Target { pipe, token: Token::SOLE, process, missed }))
    }

    #[test]
    fn target_is_freed_once_no_handler_can_hold_it() {
        let (slot, target) = slot_in_use(0, this_process());
        let weak = Arc::downgrade(&target);
        release(&slot, target);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn target_that_a_handler_does_not_let_go_is_left_to_it() {
        let (slot, target) = slot_in_use(1, this_process());
        let weak = Arc::downgrade(&target);
        release(&slot, target);
        assert!(weak.upgrade().is_some());
    }

    #[test]
    fn forked_child_does_not_wait_for_the_handlers_of_its_parent() {
        let (slot, target) = slot_in_use(1, this_process() + 1);
        let (weak, began) = (Arc::downgrade(&target), Instant::now());
        release(&slot, target);
        assert!(began.elapsed() < PATIENCE);
        assert!(weak.upgrade().is_some(), "and one may be copied in the middle of its use");
    }
}
