//! Posts from signal handlers that interrupt whatever runs.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.
#![allow(unsafe_code)] // Handlers, and signals at one thread, are raw calls.

mod common;

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::forbid;
use kevent_core::{HandlerEvents, HandlerPoster, PostError, Queue, Wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// One case at a time: a storm ends the sleeps of whatever thread it is at.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many posts are told apart in a storm.
const MOST: usize = 1 << 16;

/// What became of each post of the storm.
static FATE: [AtomicU8; MOST] = [const { AtomicU8::new(0) }; MOST];
const POSTED: u8 = 1;
const REFUSED: u8 = 2;

static NEXT: AtomicUsize = AtomicUsize::new(0);
static STORM: OnceLock<HandlerPoster> = OnceLock::new();

/// Posts the next number, in a handler or not.
fn post_next() {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (Some(fate), Some(poster)) = (FATE.get(number), STORM.get()) else { return };
    let posted = poster.post(number as u64).is_ok();
    fate.store(if posted { POSTED } else { REFUSED }, Ordering::SeqCst);
}

extern "C" fn on_signal(_: libc::c_int) {
    post_next();
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: the handlers do what a handler may.
    let before = unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
}

fn this_thread() -> libc::pthread_t {
    // SAFETY: takes nothing.
    unsafe { libc::pthread_self() }
}

fn send(thread: libc::pthread_t, signal: libc::c_int) {
    // SAFETY: every thread that is hit here is joined after the storm.
    assert_eq!(unsafe { libc::pthread_kill(thread, signal) }, 0);
}

/// Signals at the thread that takes the events, and at threads that post, so that handlers
/// interrupt posts, turns of the queue, and its sleep.
#[test]
fn every_post_of_a_storm_comes_once_or_was_refused() {
    let _alone = alone();
    let room = NonZeroUsize::new(64).unwrap();
    let (events, poster) = HandlerEvents::with_capacity(room);
    assert!(STORM.set(poster).is_ok());
    let mut queue = Queue::with_capacity(NonZeroUsize::new(16).unwrap()).unwrap();
    let id = queue.attach(events, |number| number as usize).unwrap();
    handle(libc::SIGUSR1, on_signal);
    handle(libc::SIGUSR2, on_signal);

    let over = AtomicBool::new(false);
    let consumer = this_thread();
    let mut times = vec![0_u8; MOST];
    let mut take = |queue: &mut Queue<usize>| {
        std::iter::from_fn(|| queue.next()).for_each(|number| times[number] += 1);
    };
    thread::scope(|scope| {
        let (say, said) = mpsc::channel();
        for _ in 0..2 {
            let (say, over) = (say.clone(), &over);
            scope.spawn(move || {
                say.send(this_thread()).unwrap();
                while !over.load(Ordering::SeqCst) {
                    post_next();
                    // Lets the queue fall asleep now and then, and the mailbox fill at other times.
                    (0..NEXT.load(Ordering::Relaxed) % 500).for_each(|_| std::hint::spin_loop());
                }
            });
        }
        let posters = [said.recv().unwrap(), said.recv().unwrap()];
        let over = &over;
        let storm = scope.spawn(move || {
            while NEXT.load(Ordering::SeqCst) < MOST {
                for target in [consumer, posters[0], consumer, posters[1]] {
                    send(target, libc::SIGUSR1);
                    send(target, libc::SIGUSR2);
                }
            }
            over.store(true, Ordering::SeqCst);
        });
        let deadline = Instant::now() + PATIENCE;
        while !storm.is_finished() {
            assert!(Instant::now() < deadline, "the storm takes too long");
            queue.wait(Duration::from_millis(1)).unwrap();
            take(&mut queue);
        }
    });
    // All who post have ended, and the last signals were delivered before the last call returned.
    loop {
        queue.wait(Wait::poll()).unwrap();
        if queue.is_empty() {
            break;
        }
        take(&mut queue);
    }
    let mut refused = 0;
    for (number, times) in times.iter().enumerate() {
        let fate = FATE[number].load(Ordering::SeqCst);
        assert!(fate == POSTED || fate == REFUSED, "post {number} has no result");
        assert_eq!(*times, u8::from(fate == POSTED), "post {number} came {times} times");
        refused += u64::from(fate == REFUSED);
    }
    assert_eq!(queue[id].refused(), refused);
    assert!(refused < MOST as u64);
}

static ONE: OnceLock<HandlerPoster> = OnceLock::new();

extern "C" fn post_one(signal: libc::c_int) {
    if let Some(poster) = ONE.get() {
        let _ = poster.post(signal as u64);
    }
}

/// By turns, the handler runs on the thread that sleeps in the queue, or is about to, and on
/// another.
#[test]
fn handler_wakes_the_queue_from_whatever_thread_it_runs_on() {
    let _alone = alone();
    let (events, poster) = HandlerEvents::new();
    assert!(ONE.set(poster).is_ok());
    let mut queue = Queue::new().unwrap();
    queue.attach(events, |number| number).unwrap();
    handle(libc::SIGURG, post_one);
    let consumer = this_thread();
    let (next, ready) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for target in [consumer, this_thread()].into_iter().cycle() {
                let Ok(()) = ready.recv() else { return };
                send(target, libc::SIGURG);
            }
        });
        for n in 0..2000 {
            let began = Instant::now();
            next.send(()).unwrap();
            assert_eq!(queue.wait(PATIENCE).unwrap(), 1, "signal {n} is lost");
            assert!(began.elapsed() < PATIENCE, "signal {n} did not end the wait");
            assert_eq!(queue.next(), Some(libc::SIGURG as u64));
        }
        drop(next);
    });
}

/// The kernel refuses the write that wakes the queue: the one way in which a post could touch
/// `errno`.
#[test]
fn post_leaves_errno_alone() {
    let _alone = alone();
    let on_a_thread_of_its_own = || -> io::Result<()> {
        let (events, poster) = HandlerEvents::new();
        let mut queue = Queue::new()?;
        queue.attach(events, |number| number)?;
        // With its descriptor taken, the queue counts as asleep when it is not just looking.
        let _ = queue.as_fd();
        queue.wait(Wait::poll())?;
        forbid(libc::SYS_write)?;
        // SAFETY: points to this thread's own.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { *errno = 1234 };
        let posted = poster.post(7);
        // SAFETY: as above.
        assert_eq!(unsafe { *errno }, 1234);
        assert_eq!(posted, Ok(()));
        queue.wait(Wait::poll())?;
        assert_eq!(queue.next(), Some(7), "it is found by the next look");
        Ok(())
    };
    if let Err(error) = thread::spawn(on_a_thread_of_its_own).join().unwrap() {
        println!("skipped: no seccomp filter can be set here: {error}");
    }
}

#[test]
fn post_before_the_source_is_attached_comes_and_a_full_mailbox_gives_it_back() {
    let _alone = alone();
    let (events, poster) = HandlerEvents::with_capacity(NonZeroUsize::new(3).unwrap());
    assert_eq!((0..5).map(|n| poster.post(n)).filter(Result::is_ok).count(), 4, "rounded up");
    assert_eq!(poster.post(9), Err(PostError::Full(9)));
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(events, |number| number).unwrap();
    assert_eq!(queue[id].refused(), 2);
    queue.wait(None).unwrap();
    assert_eq!(std::iter::from_fn(|| queue.next()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let source = queue.detach(id).unwrap();
    assert!(Queue::new().unwrap().attach(source, |number| number).is_err(), "it serves one queue");
    assert_eq!(poster.post(9), Err(PostError::Closed(9)));
}
