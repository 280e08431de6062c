//! What every source promises, over the modes in which an event comes once.

#![allow(clippy::unwrap_used)] // Helpers of tests.

use std::io::Write;
use std::os::unix::net::UnixStream;

use kevent_core::Token;
use kevent_core::testing::Contract;
use kevent_net::{Interest, Mode, Readiness};

/// Each event is a socket pair of its own, registered and written to.
fn check(mode: Mode) {
    type Pairs = Vec<(Token, UnixStream, UnixStream)>;
    Contract::new(|| (Readiness::new(), Pairs::new()))
        .provoke(move |source, pairs, count| {
            for _ in 0..count {
                let (here, mut there) = UnixStream::pair().unwrap();
                let key = pairs.len() as u64;
                let token = source.register(&here, Interest::READABLE, mode, key).unwrap();
                there.write_all(b"x").unwrap();
                pairs.push((token, here, there));
            }
        })
        .remove(|source, pairs| {
            for (token, ..) in pairs.iter() {
                assert!(source.unregister(*token));
            }
        })
        .check();
}

#[test]
fn edge_keeps_the_contract() {
    check(Mode::Edge);
}

#[test]
fn one_shot_keeps_the_contract() {
    check(Mode::OneShot);
}

#[test]
fn dispatch_keeps_the_contract() {
    check(Mode::Dispatch);
}
