//! A process that may open no more descriptors. The limit is the process's, so this has its own
//! binary.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.
#![allow(unsafe_code)] // Setting the limit is a raw call.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use kevent_core::{
    ChildQueue, Counters, Mounts, Pressure, PressureLimit, Queue, Resource, Source, Stalled, Timers,
};

/// The limit until it is dropped: no number above those that are in use.
struct NoMore(libc::rlimit);

impl NoMore {
    fn descriptors() -> NoMore {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `before` lives through the call.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) }, 0);
        // The lowest number that is free. So all below it are in use.
        let next = File::open("/dev/null").unwrap().as_raw_fd();
        set(libc::rlimit { rlim_cur: next as libc::rlim_t, ..before });
        assert!(File::open("/dev/null").is_err(), "there is no more");
        NoMore(before)
    }
}

impl Drop for NoMore {
    fn drop(&mut self) {
        set(self.0);
    }
}

fn set(limit: libc::rlimit) {
    // SAFETY: `limit` lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// The shortage as it is, and not taken for anything else.
fn assert_short<T: Debug>(result: io::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
}

fn limit() -> PressureLimit {
    let window = Duration::from_secs(2);
    PressureLimit { resource: Resource::Io, stall: Stalled::Some, threshold: window, window }
}

#[test]
fn shortage_of_descriptors_is_told_and_survived() {
    let mut queue = Queue::new().unwrap();
    let counters = queue.attach(Counters::new(), |event| event.key).unwrap();
    let pressure = queue.attach(Pressure::new(), |event| event.key).unwrap();
    let mut child = Queue::new().unwrap();
    let timers = child.attach(Timers::new(), |timer| timer.key).unwrap();
    let child = queue.attach(ChildQueue::new(child), |key| key).unwrap();
    let (_, adder) = queue[counters].sum(1).unwrap();
    while queue.wait(Duration::ZERO).unwrap() > 0 {}

    let has_pressure = Pressure::probe().map_err(|error| println!("skipped: {error}")).is_ok();
    let none = NoMore::descriptors();
    assert_short(Queue::<()>::new());
    assert_short(Mounts::new());
    assert_short(Mounts::probe());
    assert_short(Counters::probe());
    assert_short(queue[counters].sum(2));
    assert_short(queue[counters].semaphore(2));
    assert_short(queue[counters].adopt(&adder, 2));
    assert_eq!(queue[counters].len(), 1);
    if has_pressure {
        assert_short(queue[pressure].watch(limit(), 3));
        assert!(queue[pressure].is_empty());
    }

    // A child's first deadline takes a descriptor, too. The others go on.
    queue[child][timers].after(Duration::from_millis(1), 4);
    let error = queue.wait(None).unwrap_err();
    assert!(error.to_string().contains("ChildQueue"), "{error}");
    adder.add(1).unwrap();
    let _ = queue.wait(Duration::ZERO);
    assert_eq!(queue.next(), Some(1));

    drop(none);
    while queue.wait(None).unwrap() == 0 {}
    assert_eq!(queue.next(), Some(4), "the deadline is kept once there is a descriptor");
    queue[counters].sum(2).unwrap();
}
