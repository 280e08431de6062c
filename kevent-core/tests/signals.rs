//! Signals as events, in a process that has other threads: the test harness alone sees to that.
//!
//! Signals belong to the process, so the cases take turns ([`alone`]), and those that end a process
//! or need a quiet one run in a child: this binary again, with a case named in the environment.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.
#![allow(unsafe_code)] // Sending signals, and looking at what they are set to, is raw system calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::testing::Contract;
use kevent_core::{Flow, Overflow, Queue, Signal, SignalEvent, Signals, SourceId, Token, Wait};

const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(30);

/// One case at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rt(n: u8) -> Signal {
    Signal::realtime(n).unwrap()
}

fn union_of(value: i32) -> libc::sigval {
    libc::sigval { sival_ptr: value as usize as *mut libc::c_void }
}

/// sigqueue(3) to this process: any thread may take it.
fn queue_to_process(signal: Signal, value: i32) {
    let us = std::process::id() as i32;
    // SAFETY: passes numbers.
    let done = unsafe { libc::sigqueue(us, signal.as_raw(), union_of(value)) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// The same to this thread, which takes it before the call returns.
fn queue_to_thread(signal: Signal, value: i32) {
    // SAFETY: takes nothing.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: passes numbers, and a thread that runs.
    let done = unsafe { libc::pthread_sigqueue(this, signal.as_raw(), union_of(value)) };
    assert_eq!(done, 0);
}

fn set_disposition(signal: Signal, action: libc::sighandler_t) {
    // SAFETY: the actions passed are SIG_IGN, SIG_DFL and a handler that adds to an atomic.
    let before = unsafe { libc::signal(signal.as_raw(), action) };
    assert_ne!(before, libc::SIG_ERR);
}

fn disposition(signal: Signal) -> libc::sighandler_t {
    // SAFETY: zero is a value of each field.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is changed and `action` is written.
    let done = unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), &raw mut action) };
    assert_eq!(done, 0);
    action.sa_sigaction
}

fn queue_of(
    capacity: usize,
    signals: impl IntoIterator<Item = Signal>,
) -> (Queue<SignalEvent>, SourceId<Signals>) {
    let mut queue = Queue::with_capacity(NonZeroUsize::new(capacity).unwrap()).unwrap();
    let id = queue.attach(Signals::new(signals).unwrap(), |event| event).unwrap();
    (queue, id)
}

/// Takes events until they stand for `count` deliveries.
fn take(queue: &mut Queue<SignalEvent>, count: usize) -> Vec<SignalEvent> {
    let deadline = Instant::now() + PATIENCE;
    let mut events: Vec<SignalEvent> = Vec::new();
    let mut deliveries = 0;
    while deliveries < count {
        assert!(Instant::now() < deadline, "{deliveries} of {count} deliveries came");
        queue.wait(deadline).unwrap();
        while let Some(event) = queue.next() {
            deliveries += event.count;
            events.push(event);
        }
    }
    assert_eq!(deliveries, count, "more came than were sent");
    events
}

fn is_silent(queue: &mut Queue<SignalEvent>) -> bool {
    queue.wait(SILENCE).unwrap();
    queue.next().is_none()
}

fn values(events: &[SignalEvent]) -> Vec<i32> {
    events.iter().map(|event| event.value.unwrap().int()).collect()
}

/// Threads that compute, and so take signals, until the guard is dropped.
struct BusyThreads(Arc<AtomicBool>, Vec<thread::JoinHandle<()>>);

impl BusyThreads {
    fn new(count: usize) -> BusyThreads {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |stop: Arc<AtomicBool>| {
            move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        };
        let threads = (0..count).map(|_| thread::spawn(run(Arc::clone(&stop)))).collect();
        BusyThreads(stop, threads)
    }
}

impl Drop for BusyThreads {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn signals_keep_the_contract() {
    let _alone = alone();
    let contract = Contract::new(|| (Signals::new([]).unwrap(), Vec::<Token>::new()))
        .provoke(|source, tokens, count| {
            if tokens.is_empty() {
                tokens.push(source.add(rt(1)).unwrap());
            }
            (0..count).for_each(|n| queue_to_thread(rt(1), n as i32));
        })
        .remove(|source, tokens| tokens.drain(..).for_each(|token| assert!(source.remove(token))));
    contract.check();
    contract.under_load().check();
}

#[test]
fn signal_to_a_process_with_busy_threads_arrives() {
    let _alone = alone();
    let _busy = BusyThreads::new(4);
    let (mut queue, _) = queue_of(64, [Signal::USR1]);
    let us = std::process::id().to_string();
    // From elsewhere, so that no thread of ours is the obvious one to take it.
    assert!(Command::new("sh").args(["-c", "kill -USR1 $0", &us]).status().unwrap().success());
    let events = take(&mut queue, 1);
    assert_eq!((events[0].signal, events[0].count), (Signal::USR1, 1));
    assert_eq!(events[0].code, Some(libc::SI_USER));
    assert!(events[0].pid.is_some_and(|pid| pid.to_string() != us), "the sender is the shell");
    // SAFETY: takes nothing.
    assert_eq!(events[0].uid, Some(unsafe { libc::getuid() }));
    assert_eq!(events[0].value, None);
    assert!(is_silent(&mut queue));
}

#[test]
fn queued_signals_come_in_order_through_a_small_ring() {
    let _alone = alone();
    let (mut queue, _) = queue_of(3, [rt(0)]);
    (0..1000).for_each(|n| queue_to_thread(rt(0), n));
    let events = take(&mut queue, 1000);
    assert_eq!(values(&events), (0..1000).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event.count == 1 && event.pid == Some(std::process::id())));
}

#[test]
fn queued_signals_all_come_whichever_threads_take_them() {
    let _alone = alone();
    let _busy = BusyThreads::new(4);
    let (mut queue, _) = queue_of(7, [rt(0)]);
    (0..1000).for_each(|n| queue_to_process(rt(0), n));
    let events = take(&mut queue, 1000);
    let distinct: BTreeSet<i32> = values(&events).into_iter().collect();
    assert_eq!(distinct, (0..1000).collect(), "each value once");
}

#[test]
fn deliveries_beyond_the_pipe_are_counted() {
    let _alone = alone();
    const SENT: usize = 5000; // Of 32 bytes: more than the pipe's 64 KiB, whatever the page size.
    let (mut queue, _) = queue_of(16, [rt(2), rt(3)]);
    (0..SENT).for_each(|n| queue_to_thread(rt(2), n as i32));
    queue_to_thread(rt(3), 7);
    let events = take(&mut queue, SENT + 1);
    let (missed, single): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.code.is_none());
    assert_eq!(values(&single), (0..single.len() as i32).collect::<Vec<_>>(), "what fitted");
    let lumped = |signal| missed.iter().filter(move |e| e.signal == signal).map(|e| e.count).sum();
    let (two, three): (usize, usize) = (lumped(rt(2)), lumped(rt(3)));
    assert_eq!((two, three), (SENT - single.len(), 1));
    assert!(missed.iter().all(|e| e.pid.is_none() && e.uid.is_none() && e.value.is_none()));
    queue_to_thread(rt(2), -9);
    assert_eq!(values(&take(&mut queue, 1)), [-9], "and then as before");
}

#[test]
fn nothing_is_lost_while_senders_and_reader_race_over_a_full_pipe() {
    let _alone = alone();
    const SENDERS: usize = 3;
    const EACH: usize = 20_000;
    let (mut queue, _) = queue_of(64, [rt(4)]);
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| thread::spawn(|| (0..EACH).for_each(|n| queue_to_thread(rt(4), n as i32))))
        .collect();
    take(&mut queue, SENDERS * EACH);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert!(is_silent(&mut queue));
}

#[test]
fn blocked_read_is_restarted() {
    let _alone = alone();
    let (mut queue, _) = queue_of(4, [Signal::USR2]);
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (say, said) = mpsc::channel();
    let reader = thread::spawn(move || {
        // SAFETY: takes nothing.
        say.send(unsafe { libc::pthread_self() }).unwrap();
        let mut byte = [0_u8];
        // The raw call, because std repeats an interrupted read itself in places.
        // SAFETY: room for one byte.
        let got = unsafe {
            libc::read(std::os::fd::AsRawFd::as_raw_fd(&theirs), byte.as_mut_ptr().cast(), 1)
        };
        (got, io::Error::last_os_error())
    });
    let thread = said.recv().unwrap();
    for _ in 0..20 {
        // SAFETY: the thread is not joined yet.
        assert_eq!(unsafe { libc::pthread_kill(thread, Signal::USR2.as_raw()) }, 0);
        take(&mut queue, 1);
    }
    ours.write_all(b"x").unwrap();
    let (got, error) = reader.join().unwrap();
    assert_eq!(got, 1, "the read failed: {error}");
}

#[test]
fn handler_leaves_errno_alone() {
    let _alone = alone();
    let (mut queue, _) = queue_of(4, [rt(0)]);
    // Full, so that the handler's own writes fail with EAGAIN.
    (0..5000).for_each(|n| queue_to_thread(rt(0), n));
    // SAFETY: points to this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *errno = 1234 };
    // SAFETY: passes numbers. Delivered before it returns.
    unsafe { libc::raise(rt(0).as_raw()) };
    // SAFETY: as above.
    assert_eq!(unsafe { *errno }, 1234);
    take(&mut queue, 5001);
}

#[test]
fn ignored_signal_is_ignored_again() {
    let _alone = alone();
    set_disposition(Signal::HUP, libc::SIG_IGN);
    let (mut queue, id) = queue_of(4, []);
    let token = queue[id].add(Signal::HUP).unwrap();
    assert_ne!(disposition(Signal::HUP), libc::SIG_IGN);
    queue[id].remove(token);
    assert_eq!(disposition(Signal::HUP), libc::SIG_IGN);
    queue[id].add(Signal::HUP).unwrap();
    drop(queue);
    assert_eq!(disposition(Signal::HUP), libc::SIG_IGN);
    set_disposition(Signal::HUP, libc::SIG_DFL);
}

static CALLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_call(_: libc::c_int) {
    CALLED.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn handler_from_before_is_called_afterwards_and_not_meanwhile() {
    let _alone = alone();
    set_disposition(rt(5), count_call as extern "C" fn(libc::c_int) as usize);
    let (mut queue, _) = queue_of(4, [rt(5)]);
    queue_to_thread(rt(5), 1);
    take(&mut queue, 1);
    assert_eq!(CALLED.load(Ordering::SeqCst), 0, "called while the source had the signal");
    drop(queue);
    queue_to_thread(rt(5), 2);
    assert_eq!(CALLED.load(Ordering::SeqCst), 1);
    set_disposition(rt(5), libc::SIG_DFL);
}

#[test]
fn handler_that_came_after_ours_stays() {
    let _alone = alone();
    let (queue, _) = queue_of(4, [rt(6)]);
    let theirs = count_call as extern "C" fn(libc::c_int) as usize;
    set_disposition(rt(6), theirs);
    drop(queue);
    assert_eq!(disposition(rt(6)), theirs);
    set_disposition(rt(6), libc::SIG_DFL);
}

#[test]
fn signal_of_another_source_is_refused_until_that_gives_it_back() {
    let _alone = alone();
    let mut one = Signals::new([Signal::USR1]).unwrap();
    let error = one.add(Signal::USR1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("SIGUSR1"), "{error}");
    let error = Signals::new([Signal::USR2, Signal::USR1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    one.add(Signal::USR2).expect("the refused source gave back what it had taken");
    drop(one);
    Signals::new([Signal::USR1, Signal::USR2]).unwrap();
}

#[test]
fn what_can_not_be_an_event_is_refused_with_the_reason() {
    let _alone = alone();
    let mut source = Signals::new([]).unwrap();
    let refused = [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE];
    let senseless = [libc::SIGILL, 0, -1, 65, i32::MAX, i32::MIN, 32, 33];
    for number in refused.into_iter().chain(senseless) {
        let signal = Signal::from_raw(number);
        let error = source.add(signal).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{signal}");
        assert!(error.to_string().starts_with(&format!("{signal} can't be an event: ")), "{error}");
    }
}

#[test]
fn events_of_a_removed_registration_do_not_come_for_its_successor() {
    let _alone = alone();
    let (mut queue, id) = queue_of(4, []);
    let first = queue[id].add(rt(7)).unwrap();
    (0..10).for_each(|n| queue_to_thread(rt(7), n)); // Four for the ring, the others in the pipe.
    queue.wait(Wait::poll().at_least(4)).unwrap();
    assert!(queue[id].remove(first));
    assert!(!queue[id].remove(first), "only once");
    let second = queue[id].add(rt(7)).unwrap();
    queue_to_thread(rt(7), 99);
    let events = take(&mut queue, 1);
    assert_eq!((values(&events), events[0].token), (vec![99], second));
    assert!(is_silent(&mut queue));
}

#[test]
fn pipe_is_not_closed_under_a_handler() {
    let _alone = alone();
    // Ignored in between: the signals go on while the source comes and goes.
    set_disposition(rt(8), libc::SIG_IGN);
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    queue_to_thread(rt(8), 1);
                }
            })
        })
        .collect();
    for _ in 0..300 {
        let source = Signals::new([rt(8)]).unwrap();
        thread::yield_now();
        drop(source);
        // Takes the numbers that the source's pipe had. A late handler would write here.
        let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let also_writer = reader.try_clone().unwrap();
        thread::yield_now();
        drop((writer, also_writer));
        let mut strangers = Vec::new();
        reader.read_to_end(&mut strangers).unwrap();
        assert_eq!(strangers.len(), 0, "a handler wrote into a file that is not its own");
    }
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    set_disposition(rt(8), libc::SIG_DFL);
}

#[test]
fn forked_child_is_silent_in_its_parents_queue() {
    let _alone = alone();
    let (mut queue, _) = queue_of(4, [rt(9)]);
    // SAFETY: the child makes two async-signal-safe calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes a number; delivered before it returns.
        unsafe { libc::raise(rt(9).as_raw()) };
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(7) };
    }
    let mut status = 0;
    // SAFETY: `status` is written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7, "and the signal did not end it");
    assert!(is_silent(&mut queue), "the child's signal came to the parent");
    queue_to_thread(rt(9), 3);
    assert_eq!(values(&take(&mut queue, 1)), [3]);
}

#[test]
fn forked_child_that_drops_its_copy_gets_the_default_back_and_the_parent_keeps_its_own() {
    let _alone = alone();
    let (mut queue, _) = queue_of(4, [rt(11)]);
    // SAFETY: the child drops the queue, which frees memory: glibc has malloc ready after a fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(queue);
        let code = i32::from(disposition(rt(11)) != libc::SIG_DFL);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child has the default back");
    queue_to_thread(rt(11), 4);
    assert_eq!(values(&take(&mut queue, 1)), [4]);
}

#[test]
fn detached_source_keeps_what_it_has_and_leaves_the_queue_asleep() {
    let _alone = alone();
    let (mut queue, id) = queue_of(4, [rt(10)]);
    let source = queue.detach(id).unwrap();
    queue_to_thread(rt(10), 5);
    let polls = queue.stats().polls;
    assert!(is_silent(&mut queue));
    assert!(queue.stats().polls - polls < 3, "a detached source kept the queue awake");
    queue.attach(source, |event| event).unwrap();
    assert_eq!(values(&take(&mut queue, 1)), [5]);
}

// A second Ctrl-C, and everything else that ends a process, in a child.

const ROLE: &str = "KEVENT_TEST_SIGNALS_ROLE";

/// This binary again, as the program of [`child_program`].
fn start_child(role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child_program", "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test: what [`start_child`] starts. Takes SIGINT as an event once, says so, and then hangs
/// in its shutdown.
#[test]
fn child_program() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // A shell starts what runs in the background with SIGINT ignored.
    set_disposition(Signal::INT, libc::SIG_DFL);
    let (mut queue, id) = queue_of(4, []);
    let token = queue[id].add(Signal::INT).unwrap();
    println!("ready");
    take(&mut queue, 1);
    match role.as_str() {
        "remove" => assert!(queue[id].remove(token)),
        "drop" => drop(queue),
        other => panic!("no role {other}"),
    }
    println!("shutting down");
    let _ = io::stdin().read(&mut [0]);
}

fn interrupt(child: &Child) {
    // SAFETY: a child that was not waited for, so the number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
}

fn wait_for_line(output: &mut impl Read, line: &str) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(line) {
        assert_eq!(output.read(&mut byte).unwrap(), 1, "the child ended before it said {line}");
        seen.push(byte[0]);
    }
}

#[test]
fn second_ctrl_c_ends_the_program() {
    let _alone = alone();
    for role in ["remove", "drop"] {
        let mut child = start_child(role);
        let mut output = child.stdout.take().unwrap();
        wait_for_line(&mut output, "ready\n");
        interrupt(&child);
        wait_for_line(&mut output, "shutting down\n");
        interrupt(&child);
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGINT), "{role}: {status}");
    }
}

#[test]
fn source_that_is_dropped_leaves_no_descriptor() {
    let _alone = alone();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for _ in 0..50 {
        drop(queue_of(4, [Signal::USR1, Signal::USR2]));
    }
    assert_eq!(count(), before);
}

#[test]
fn signal_that_can_not_be_merged_is_kept() {
    let _alone = alone();
    let (mut queue, id) = queue_of(8, [rt(0), rt(1)]);
    let merge = Overflow::coalesce(|before: &mut SignalEvent, event| before.count += event.count);
    queue.set_flow(id, Flow::new().high_water(NonZeroUsize::MIN).overflow(merge));
    for (signal, value) in [(rt(0), 1), (rt(0), 2), (rt(1), 3), (rt(1), 4)] {
        queue_to_thread(signal, value);
    }
    let mut counts = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while counts.values().sum::<usize>() < 4 {
        assert!(Instant::now() < deadline, "{counts:?} came");
        queue.wait(deadline).unwrap();
        while let Some(event) = queue.next() {
            *counts.entry(event.signal.as_raw()).or_default() += event.count;
        }
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2, 2]);
}
