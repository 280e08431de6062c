//! Signals during a wait. Their handlers belong to the whole process, so this has its own binary.

// Raw calls to install a handler and to send a signal to one thread.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{Queue, UserEvents};

static HANDLED: AtomicU32 = AtomicU32::new(0);

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

#[test]
fn signal_does_not_end_a_wait_nor_prolong_it() {
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
