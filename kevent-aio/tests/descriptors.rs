//! Descriptors that operations open and nobody takes are closed. A process of its own, since it counts
//! all of them; and one test, since others would open some meanwhile.

#![allow(clippy::unwrap_used)]

mod common;

use common::counted::{becomes, open_descriptors};
use common::{Bench, honest};
use kevent_aio::Open;

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
        becomes("dropped completions", engine, open_descriptors);

        let tokens: Vec<_> = (0..50).map(|key| bench.submit(Open::new("/dev/null"), key)).collect();
        for token in tokens {
            bench.aio().abandon(token);
        }
        while bench.aio().in_flight() > 0 {
            bench.is_silent();
        }
        becomes("abandoned opens", engine, open_descriptors);

        for key in 0..50 {
            bench.submit(Open::new("/dev/null"), key);
        }
        bench.turn();
        drop(bench);
        becomes("an engine that was dropped", nothing, open_descriptors);
    }
    for (_, builder) in honest() {
        let nothing = open_descriptors();
        let mut bench = Bench::new(builder);
        for key in 0..50 {
            bench.submit(Open::new("/dev/null"), key);
        }
        drop(bench);
        becomes("an engine that was dropped before it handed them over", nothing, open_descriptors);
    }
}
