//! A kernel that has no epoll_pwait2(2), before Linux 5.11. The queue finds that out once for the
//! whole process, so this has its own binary.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::time::{Duration, Instant};

use common::forbid;
use kevent_core::{Queue, Timers, UserEvents, Wait};

#[test]
fn without_nanoseconds_waits_are_late_rather_than_early_and_do_not_spin() {
    if let Err(error) = forbid(libc::SYS_epoll_pwait2) {
        println!("skipped: no seccomp filter can be set here: {error}");
        return;
    }
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();

    let began = Instant::now();
    let timeout = Duration::from_micros(2_300);
    assert_eq!(queue.wait(timeout).unwrap(), 0);
    assert!(began.elapsed() >= timeout);
    assert!(queue.stats().polls < 5, "{:?}", queue.stats());

    queue[timers].after(Duration::from_micros(1_500), 1);
    assert_eq!(queue.wait(None).unwrap(), 1);
    assert_eq!(queue.next(), Some(1));
    assert!(queue.stats().polls < 10, "{:?}", queue.stats());

    let posting = std::thread::spawn(move || poster.post(2));
    assert_eq!(queue.wait(Duration::from_secs(20)).unwrap(), 1);
    assert_eq!(queue.next(), Some(2));
    posting.join().unwrap().unwrap();
    // More milliseconds than the call can be told is no error and no short wait.
    queue[timers].after(Duration::from_millis(2), 3);
    assert_eq!(queue.wait(Wait::timeout(Duration::from_secs(u64::MAX / 4))).unwrap(), 1);
}
