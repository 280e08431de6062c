//! The contract, and what watching processes does to this one: nothing.
//!
//! In a binary of its own, one after the other, because others would disturb. They open descriptors.
//! And a SIGCHLD that comes while a thread is in posix_spawn(3), where it blocks all signals, is
//! not dropped at once as one that nobody handles should be: it ends waits on other threads with
//! EINTR, and the contract counts those.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.
#![allow(unsafe_code)] // Ignoring SIGCHLD is a raw call.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kevent_core::testing::Contract;
use kevent_core::{Processes, Queue, Signal, Signals, Timers, Token};

/// One case at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The signals that this process handles, as /proc shows them.
fn handled_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn watch_and_take(count: u64) {
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Processes::new(), |event| event).unwrap();
    for key in 0..count {
        let child = Command::new("true").spawn().unwrap();
        queue[id].watch_child(child, key).unwrap();
    }
    let mut taken = 0;
    while taken < count {
        queue.wait(None).unwrap();
        taken += std::iter::from_fn(|| queue.next()).count() as u64;
    }
}

#[test]
fn processes_keep_the_contract() {
    let _alone = alone();
    let contract = Contract::new(|| (Processes::new(), Vec::<Token>::new()))
        .provoke(|source, tokens, count| {
            for key in 0..count {
                let child = Command::new("true").spawn().unwrap();
                tokens.push(source.watch_child(child, key as u64).unwrap());
            }
        })
        .remove(|source, tokens| {
            for token in tokens.drain(..) {
                let mut child = source.unwatch(token).expect("the child comes back");
                assert!(child.wait().unwrap().success());
            }
        });
    contract.check();
    contract.under_load().check();
}

#[test]
fn watching_leaves_descriptors_and_handlers_as_they_were() {
    let _alone = alone();
    watch_and_take(1);
    let (descriptors, handled) = (open_descriptors(), handled_signals());
    watch_and_take(30);
    assert_eq!(open_descriptors(), descriptors);
    assert_eq!(handled_signals(), handled);
    assert_eq!(handled & 1 << (Signal::CHLD.as_raw() - 1), 0, "SIGCHLD is handled");
}

fn set_sigchld(action: libc::sighandler_t) {
    // SAFETY: the action is SIG_IGN or SIG_DFL.
    assert_ne!(unsafe { libc::signal(libc::SIGCHLD, action) }, libc::SIG_ERR);
}

#[test]
fn child_whose_status_the_program_ignores_ends_without_it_before_and_after_the_watch() {
    let _alone = alone();
    set_sigchld(libc::SIG_IGN);
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Processes::new(), |event| event).unwrap();
    let mut child = Command::new("true").spawn().unwrap();
    assert!(child.wait().is_err(), "the kernel has waited for it");
    queue[id].watch_child(child, 0).unwrap();
    queue[id].watch_child(Command::new("true").spawn().unwrap(), 1).unwrap();
    let mut keys = Vec::new();
    while keys.len() < 2 {
        queue.wait(None).unwrap();
        while let Some(event) = queue.next() {
            assert_eq!(event.exit, None);
            keys.push(event.key);
        }
    }
    set_sigchld(libc::SIG_DFL);
    keys.sort_unstable();
    assert_eq!(keys, [0, 1]);
}

#[test]
fn queue_and_sources_take_as_many_descriptors_as_they_say() {
    let _alone = alone();
    let before = open_descriptors();
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |_| ()).unwrap();
    assert_eq!(open_descriptors() - before, 4, "a queue takes four, timers none");
    queue[timers].at_wall(std::time::SystemTime::now(), 1).unwrap();
    queue[timers].at_wall(std::time::SystemTime::now(), 2).unwrap();
    assert_eq!(open_descriptors() - before, 5, "all wall timers together take one");
    queue.attach(Signals::new([Signal::URG, Signal::PWR]).unwrap(), |_| ()).unwrap();
    assert_eq!(open_descriptors() - before, 7, "all signals of a source together take two");
    drop(queue);
    assert_eq!(open_descriptors(), before);
}
