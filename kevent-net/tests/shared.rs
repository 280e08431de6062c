//! Several registrations of one descriptor, each as if it were alone.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;

use common::{Bench, channels, unix};
use kevent_core::testing::Contract;
use kevent_core::{Token, Wait};
use kevent_net::{Interest, Mode, Readiness};

#[test]
fn reading_and_writing_are_told_under_keys_of_their_own() {
    let mut bench = Bench::new();
    let mut channel = unix();
    bench.reads(&channel, Mode::Edge, 1);
    bench.source().register(&channel, Interest::WRITABLE, Mode::OneShot, 2).unwrap();
    let event = bench.event();
    assert_eq!(event.key, 2);
    assert!(event.ready.is_writable() && !event.ready.is_readable());
    bench.nothing();
    channel.write();
    let event = bench.event();
    assert_eq!(event.key, 1);
    assert!(event.ready.is_readable() && !event.ready.is_writable());
    bench.nothing();
}

#[test]
fn level_repeats_beside_any_other_and_disturbs_none() {
    for other in [Mode::Edge, Mode::OneShot, Mode::Dispatch] {
        for mut channel in channels() {
            let mut bench = Bench::new();
            bench.reads(&channel, Mode::Level, 1);
            bench.reads(&channel, other, 2);
            channel.write();
            let mut keys: Vec<_> = (0..6).map(|_| bench.event().key).collect();
            keys.sort_unstable();
            assert_eq!(keys, [1, 1, 1, 1, 1, 2], "{other:?} {}", channel.kind);
            channel.read();
            // Perhaps one that lay in the ring when it was read.
            bench.queue.wait(Wait::poll()).unwrap();
            while let Some(event) = bench.queue.next() {
                assert_eq!(event.key, 1);
            }
            bench.sleeps();
        }
    }
}

#[test]
fn undelivered_level_event_does_not_spin() {
    let mut bench = Bench::new();
    let mut channel = unix();
    bench.reads(&channel, Mode::Level, 1);
    bench.reads(&channel, Mode::Dispatch, 2);
    channel.write();
    let wait = Wait::timeout(std::time::Duration::from_millis(20)).at_least(3);
    bench.sleeps_until(wait);
    assert_eq!(bench.queue.len(), 2);
}

#[test]
fn edge_is_not_told_when_another_is_enabled_or_gets_the_terms_that_it_has() {
    let mut bench = Bench::new();
    let mut channel = unix();
    bench.reads(&channel, Mode::Edge, 1);
    let other = bench.reads(&channel, Mode::Dispatch, 2);
    channel.write();
    let mut keys = [bench.event().key, bench.event().key];
    keys.sort_unstable();
    assert_eq!(keys, [1, 2]);
    for _ in 0..3 {
        bench.source().enable(other).unwrap();
        assert_eq!(bench.event().key, 2);
        bench.source().modify(other, Interest::READABLE, Mode::Dispatch).unwrap();
        assert_eq!(bench.event().key, 2);
        bench.source().disable(other).unwrap();
        bench.nothing();
    }
    channel.write();
    assert_eq!(bench.event().key, 1, "and is told what is new");
    bench.nothing();
}

#[test]
fn each_is_disabled_and_enabled_apart() {
    let mut bench = Bench::new();
    let mut channel = unix();
    let tokens = [1, 2, 3].map(|key| bench.reads(&channel, Mode::Level, key));
    for (token, key) in tokens.into_iter().zip(1..) {
        bench.source().disable(token).unwrap();
        channel.write();
        let mut keys: Vec<_> = (0..8).map(|_| bench.event().key).collect();
        keys.sort_unstable();
        keys.dedup();
        let others: Vec<_> = [1, 2, 3].into_iter().filter(|other| *other != key).collect();
        assert_eq!(keys, others);
        channel.read();
        bench.source().enable(token).unwrap();
        while bench.queue.next().is_some() {}
        bench.queue.wait(Wait::poll()).unwrap();
        while bench.queue.next().is_some() {}
    }
    bench.sleeps();
}

#[test]
fn modified_interest_of_one_is_not_the_others() {
    let mut bench = Bench::new();
    let mut channel = unix();
    bench.reads(&channel, Mode::Level, 1);
    let other = bench.reads(&channel, Mode::OneShot, 2);
    bench.nothing();
    bench.source().modify(other, Interest::WRITABLE, Mode::OneShot).unwrap();
    assert_eq!(bench.event().key, 2);
    bench.nothing();
    channel.write();
    assert_eq!(bench.event().key, 1);
}

#[test]
fn whoever_leaves_the_others_hear_on() {
    // The entry in the set bears the name of one of them.
    for leaving in 0..3_usize {
        for mode in [Mode::Level, Mode::Edge, Mode::Dispatch] {
            let mut bench = Bench::new();
            let mut channel = unix();
            let tokens = [0, 1, 2].map(|key| bench.reads(&channel, mode, key));
            assert!(bench.source().unregister(tokens[leaving]));
            channel.write();
            let mut told = [bench.event().token, bench.event().token];
            told.sort_unstable();
            let mut others: Vec<_> = tokens.to_vec();
            others.remove(leaving);
            assert_eq!(told[..], others, "{mode:?}");
            assert!(bench.source().unregister(others[0]));
            channel.read();
            while bench.queue.next().is_some() {}
            if mode == Mode::Dispatch {
                bench.source().enable(others[1]).unwrap();
            }
            channel.write();
            assert_eq!(bench.event().token, others[1], "{mode:?}");
            assert!(bench.source().unregister(others[1]));
            bench.sleeps();
            assert_eq!(bench.source().strays(), 0);
        }
    }
}

#[test]
fn hang_up_is_told_to_each() {
    let mut bench = Bench::new();
    let channel = unix();
    let modes = [Mode::Edge, Mode::OneShot, Mode::Dispatch];
    for (mode, key) in modes.into_iter().zip(1..) {
        let interest = if key == 2 { Interest::WRITABLE } else { Interest::READABLE };
        bench.source().register(&channel, interest, mode, key).unwrap();
    }
    assert_eq!(bench.event().key, 2);
    bench.source().register(&channel, Interest::NONE, Mode::OneShot, 4).unwrap();
    drop(channel.writer);
    let mut keys = std::collections::BTreeSet::new();
    while keys.len() < 3 {
        let event = bench.event();
        assert!(event.ready.is_hung_up());
        keys.insert(event.key);
    }
    assert!(keys.into_iter().eq([1, 3, 4]));
    // The edge-triggered one once more, perhaps: the others have left it alone.
    bench.queue.wait(Wait::poll()).unwrap();
    while bench.queue.next().is_some() {}
    bench.sleeps();
}

#[test]
fn one_that_waits_in_the_ring_is_taken_back_alone() {
    let mut bench = Bench::new();
    let mut channel = unix();
    let tokens = [1, 2].map(|key| bench.reads(&channel, Mode::Edge, key));
    channel.write();
    assert_eq!(bench.fill_ring(), 2);
    assert!(bench.source().unregister(tokens[0]));
    assert_eq!(bench.event().key, 2);
    // The kernel tells the one that is left anew.
    assert_eq!(bench.event().key, 2);
    bench.nothing();
}

/// Each event is one registration of a socket that has another, which never says anything.
fn check(mode: Mode) {
    type Pairs = Vec<(Token, UnixStream, UnixStream)>;
    Contract::new(|| (Readiness::new(), Pairs::new()))
        .provoke(move |source, pairs, count| {
            for _ in 0..count {
                let (here, mut there) = UnixStream::pair().unwrap();
                let key = pairs.len() as u64;
                source.register(&here, Interest::PRIORITY, Mode::Level, key).unwrap();
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
fn shared_registrations_keep_the_contract() {
    [Mode::Edge, Mode::OneShot, Mode::Dispatch].into_iter().for_each(check);
}
