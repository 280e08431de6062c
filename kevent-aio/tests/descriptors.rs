//! Descriptors that operations open and nobody takes are closed. A process of its own, since it counts
//! all of them; and one test, since others would open some meanwhile.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Bench, honest};
use kevent_aio::Open;

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Other descriptors may be closed a little later: by threads of the pool that end, by the kernel.
fn becomes(wanted: usize, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while open_descriptors() != wanted {
        assert!(Instant::now() < deadline, "{what}: {} open, not {wanted}", open_descriptors());
        std::thread::yield_now();
    }
}

#[test]
fn files_that_nobody_takes_are_closed() {
    for (name, builder) in honest() {
        let nothing = open_descriptors();
        let mut bench = Bench::new(builder);
        let engine = open_descriptors();
        for key in 0..50 {
            bench.submit(Open::new("/dev/null"), key);
        }
        let completions: Vec<_> = (0..50).map(|_| bench.next()).collect();
        assert_eq!(open_descriptors(), engine + 50, "{name}: the completions hold them");
        drop(completions);
        becomes(engine, "dropped completions");

        let tokens: Vec<_> = (0..50).map(|key| bench.submit(Open::new("/dev/null"), key)).collect();
        for token in tokens {
            bench.aio().abandon(token);
        }
        while bench.aio().in_flight() > 0 {
            bench.is_silent();
        }
        becomes(engine, "abandoned opens");

        for key in 0..50 {
            bench.submit(Open::new("/dev/null"), key);
        }
        bench.turn();
        drop(bench);
        becomes(nothing, "an engine that was dropped");
    }
    for (_, builder) in honest() {
        let nothing = open_descriptors();
        let mut bench = Bench::new(builder);
        for key in 0..50 {
            bench.submit(Open::new("/dev/null"), key);
        }
        drop(bench);
        becomes(nothing, "an engine that was dropped before it handed them over");
    }
}
