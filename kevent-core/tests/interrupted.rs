//! Signals during a wait. Their handlers belong to the whole process, so this has its own binary.

// Raw calls to install a handler and to send a signal to one thread.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{Queue, Signal, SignalMask, UserEvents, Wait};

static HANDLED: AtomicU32 = AtomicU32::new(0);

/// All tests count the same signals.
static HANDLER: Mutex<()> = Mutex::new(());

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// Installs a handler for SIGUSR1, without SA_RESTART: system calls return EINTR.
fn handle_sigusr1() {
    // SAFETY: all zeroes is a valid `sigaction`: no flags, an empty mask, the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = count;
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the handler only touches an atomic; `action` outlives the call.
    let done = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(done, 0);
}

/// Sends SIGUSR1 to the calling thread.
fn raise() {
    // SAFETY: takes nothing, and always succeeds.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the thread exists, it is this one.
    let sent = unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
    assert_eq!(sent, 0);
}

/// Lets the calling thread block SIGUSR1 from now on.
fn block_sigusr1() {
    // SAFETY: all zeroes is a valid `sigset_t`.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable.
    let added = unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR1) };
    // SAFETY: `set` outlives the call; the old one is not asked for.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    assert_eq!((added, blocked), (0, 0));
}

#[test]
fn signal_that_only_the_wait_lets_through_ends_it() {
    let _handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
    handle_sigusr1();
    block_sigusr1();
    let mut queue: Queue<u32> = Queue::new().unwrap();
    let mask = SignalMask::of_thread().unwrap();
    assert!(mask.blocks(Signal::USR1));
    let before = HANDLED.load(Ordering::SeqCst);
    let patience = Duration::from_secs(20);
    raise();
    assert_eq!(HANDLED.load(Ordering::SeqCst), before, "it is blocked");
    // Not by a wait that says nothing of signals, nor by one that blocks it, too.
    for wait in [Wait::poll(), Wait::timeout(Duration::from_millis(5)).with_mask(mask)] {
        assert_eq!(queue.wait(wait).unwrap(), 0);
        assert_eq!(HANDLED.load(Ordering::SeqCst), before);
    }
    let began = Instant::now();
    let through = Wait::timeout(patience).with_mask(mask.without(Signal::USR1));
    assert_eq!(queue.wait(through).unwrap(), 0);
    assert!(began.elapsed() < patience, "the signal did not end the wait");
    assert_eq!(HANDLED.load(Ordering::SeqCst), before + 1);
    assert_eq!(SignalMask::of_thread().unwrap(), mask, "as of old after the wait");
}

#[test]
fn signal_does_not_end_a_wait_nor_prolong_it() {
    let _handler = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
    handle_sigusr1();
    // SAFETY: takes nothing, and always succeeds.
    let waiting = unsafe { libc::pthread_self() };
    let over = AtomicBool::new(false);
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n: u32| n).unwrap();

    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                // SAFETY: the thread outlives this scope.
                let sent = unsafe { libc::pthread_kill(waiting, libc::SIGUSR1) };
                assert_eq!(sent, 0);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let timeout = Duration::from_millis(50);
        let began = Instant::now();
        let waited = queue.wait(timeout);
        let took = began.elapsed();

        let handled = HANDLED.load(Ordering::SeqCst);
        scope.spawn(move || {
            while HANDLED.load(Ordering::SeqCst) < handled + 5 {
                thread::yield_now();
            }
            poster.post(1)
        });
        let woken = queue.wait(Duration::from_secs(20));
        over.store(true, Ordering::SeqCst);

        assert!(handled > 5, "no signal came");
        assert_eq!(waited.unwrap(), 0);
        assert!(took >= timeout, "a signal ended the wait after {took:?}");
        assert!(took < 20 * timeout, "signals prolonged the wait to {took:?}");
        assert_eq!(woken.unwrap(), 1);
        assert_eq!(queue.next(), Some(1));
    });
}
