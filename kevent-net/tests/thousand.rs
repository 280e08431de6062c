//! Many descriptors at once. The limit is the process's, so this is a test binary of its own.

mod common;

use common::{Bench, sys, unix};
use kevent_net::Mode;

const COUNT: u64 = 1000;

#[test]
fn each_of_a_thousand_sockets_is_told_once() {
    let limit = sys::raise_descriptor_limit();
    if limit < 2 * COUNT + 50 {
        println!("skipped: the process may open {limit} descriptors only");
        return;
    }
    // A ring that does not hold them all.
    let mut bench = Bench::with_ring(64);
    let mut channels: Vec<_> = (0..COUNT).map(|_| unix()).collect();
    let mut tokens = Vec::new();
    for (channel, key) in channels.iter().zip(0..) {
        tokens.push(bench.reads(channel, Mode::Edge, key));
    }
    for round in 0..3 {
        for channel in &mut channels {
            channel.write();
        }
        let mut keys: Vec<_> = (0..COUNT).map(|_| bench.event().key).collect();
        bench.nothing();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..COUNT), "round {round}");
    }
    for token in tokens {
        assert!(bench.source().unregister(token));
    }
    bench.nothing();
}
