//! Events that are looked at once more when they are delivered.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use common::{Bench, channels, unix};
use kevent_core::Token;
use kevent_net::{Interest, Mode};

const MODES: [Mode; 4] = [Mode::Level, Mode::Edge, Mode::OneShot, Mode::Dispatch];

fn rechecked(bench: &mut Bench, channel: &common::Channel, mode: Mode) -> Token {
    let token = bench.reads(channel, mode, 1);
    bench.source().recheck(token, true).unwrap();
    token
}

#[test]
fn event_that_is_no_longer_true_is_not_delivered_and_the_next_is() {
    for (mode, mut channel) in MODES.into_iter().flat_map(|mode| channels().map(|c| (mode, c))) {
        let mut bench = Bench::new();
        rechecked(&mut bench, &channel, mode);
        for _ in 0..3 {
            channel.write();
            assert_eq!(bench.fill_ring(), 1, "{mode:?} {}", channel.kind);
            channel.read();
            assert_eq!(bench.queue.next(), None, "{mode:?} {}", channel.kind);
            bench.sleeps();
        }
        channel.write();
        assert_eq!(bench.event().key, 1, "{mode:?} {}: it stands as before", channel.kind);
        assert_eq!(bench.source().is_empty(), mode == Mode::OneShot);
    }
}

#[test]
fn event_that_is_true_again_is_delivered_once() {
    for mode in [Mode::Edge, Mode::OneShot, Mode::Dispatch] {
        let mut bench = Bench::new();
        let mut channel = unix();
        rechecked(&mut bench, &channel, mode);
        channel.write();
        assert_eq!(bench.fill_ring(), 1);
        channel.read();
        channel.write();
        assert_eq!(bench.event().key, 1, "{mode:?}");
        if mode == Mode::Edge {
            // The second write was news, too.
            assert_eq!(bench.event().key, 1);
        }
        bench.sleeps();
    }
}

#[test]
fn event_of_which_a_part_is_true_is_delivered() {
    let mut bench = Bench::new();
    let mut channel = unix();
    channel.write();
    let both = Interest::READABLE | Interest::WRITABLE;
    let token = bench.source().register(&channel, both, Mode::Edge, 1).unwrap();
    bench.source().recheck(token, true).unwrap();
    assert_eq!(bench.fill_ring(), 1);
    channel.read();
    let ready = bench.event().ready;
    assert!(ready.is_writable() && ready.is_readable(), "it is as it was");
    bench.nothing();
}

#[test]
fn hang_up_stays_true() {
    for mode in MODES {
        let mut bench = Bench::new();
        let channel = unix();
        rechecked(&mut bench, &channel, mode);
        drop(channel.writer);
        assert!(bench.event().ready.is_hung_up(), "{mode:?}");
    }
}

#[test]
fn without_the_option_what_was_true_is_delivered() {
    let mut bench = Bench::new();
    let mut channel = unix();
    let token = rechecked(&mut bench, &channel, Mode::Edge);
    bench.source().recheck(token, false).unwrap();
    channel.write();
    assert_eq!(bench.fill_ring(), 1);
    channel.read();
    assert_eq!(bench.event().key, 1);
}

#[test]
fn one_of_two_on_a_descriptor_is_rechecked() {
    let mut bench = Bench::new();
    let mut channel = unix();
    rechecked(&mut bench, &channel, Mode::Dispatch);
    bench.reads(&channel, Mode::Dispatch, 2);
    channel.write();
    assert_eq!(bench.fill_ring(), 2);
    channel.read();
    assert_eq!(bench.event().key, 2);
    bench.nothing();
    channel.write();
    assert_eq!(bench.event().key, 1, "it is still enabled, the other is not");
    bench.nothing();
}

#[test]
fn descriptor_that_was_closed_has_nothing_that_is_true() {
    let mut bench = Bench::new();
    let mut channel = unix();
    let token = rechecked(&mut bench, &channel, Mode::Level);
    channel.write();
    assert_eq!(bench.fill_ring(), 1);
    let common::Channel { reader, writer, .. } = channel;
    drop((reader, writer));
    // Unless its number was given out again, to another test of this process.
    let _ = bench.queue.next();
    bench.sleeps();
    assert!(bench.source().unregister(token));
    let gone = bench.source().recheck(token, true).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
}
