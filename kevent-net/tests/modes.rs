//! How often a registration tells, on every kind of descriptor.

mod common;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Bench, channels, unix};
use kevent_core::Wait;
use kevent_net::{Interest, Mode};

#[test]
fn level_repeats_until_it_is_read() {
    for mut channel in channels() {
        let mut bench = Bench::new();
        bench.reads(&channel, Mode::Level, 1);
        bench.nothing();
        channel.write();
        for _ in 0..3 {
            let event = bench.event();
            assert_eq!(event.key, 1, "{}", channel.kind);
            assert!(event.ready.is_readable());
        }
        channel.read();
        bench.nothing();
    }
}

#[test]
fn edge_tells_what_is_new() {
    for mut channel in channels() {
        let mut bench = Bench::new();
        bench.reads(&channel, Mode::Edge, 2);
        for _ in 0..3 {
            channel.write();
            assert_eq!(bench.event().key, 2, "{}", channel.kind);
            bench.nothing();
        }
    }
}

#[test]
fn edge_tells_what_was_there_before() {
    for mut channel in channels() {
        let mut bench = Bench::new();
        channel.write();
        bench.reads(&channel, Mode::Edge, 3);
        assert_eq!(bench.event().key, 3, "{}", channel.kind);
    }
}

#[test]
fn modify_with_the_same_terms_asks_again() {
    for mut channel in channels() {
        let mut bench = Bench::new();
        let token = bench.reads(&channel, Mode::Edge, 4);
        channel.write();
        bench.event();
        bench.nothing();
        bench.source().modify(token, Interest::READABLE, Mode::Edge).unwrap();
        assert_eq!(bench.event().token, token, "{}", channel.kind);
        bench.nothing();
    }
}

#[test]
fn one_shot_ends_at_its_delivery() {
    for mut channel in channels() {
        let mut bench = Bench::new();
        let token = bench.reads(&channel, Mode::OneShot, 5);
        channel.write();
        assert_eq!(bench.fill_ring(), 1, "{}", channel.kind);
        assert_eq!(bench.source().len(), 1, "it stands while its event is on the way");
        assert_eq!(bench.event().token, token);
        assert!(bench.source().is_empty());
        channel.write();
        bench.nothing();
        assert!(!bench.source().unregister(token));
        let again = bench.reads(&channel, Mode::OneShot, 6);
        assert_eq!(bench.event().token, again);
    }
}

#[test]
fn dispatch_is_silent_until_it_is_enabled() {
    for mut channel in channels() {
        let mut bench = Bench::new();
        let token = bench.reads(&channel, Mode::Dispatch, 7);
        for _ in 0..3 {
            channel.write();
            assert_eq!(bench.event().key, 7, "{}", channel.kind);
            bench.sleeps();
            bench.source().enable(token).unwrap();
            assert_eq!(bench.event().key, 7, "{}: it is still there", channel.kind);
            channel.read();
            bench.source().enable(token).unwrap();
            bench.nothing();
        }
    }
}

#[test]
fn undelivered_level_event_is_not_doubled_and_does_not_spin() {
    for mut channel in channels() {
        let mut bench = Bench::new();
        bench.reads(&channel, Mode::Level, 8);
        channel.write();
        bench.sleeps_until(Wait::timeout(Duration::from_millis(20)).at_least(2));
        assert_eq!(bench.queue.len(), 1, "{}", channel.kind);
        // Delivered, it repeats again.
        for _ in 0..3 {
            assert_eq!(bench.event().key, 8);
        }
        channel.read();
        bench.nothing();
    }
}

#[test]
fn undelivered_level_event_does_not_hide_the_others() {
    let mut bench = Bench::new();
    let (mut one, mut other) = (unix(), unix());
    bench.reads(&one, Mode::Level, 1);
    bench.reads(&other, Mode::Level, 2);
    one.write();
    bench.sleeps_until(Wait::timeout(Duration::from_millis(5)).at_least(2));
    other.write();
    assert_eq!(bench.fill_ring(), 2);
    assert_eq!([bench.event().key, bench.event().key], [1, 2]);
}

#[test]
fn muted_level_tells_what_comes_after_its_delivery() {
    let mut bench = Bench::new();
    let mut channel = unix();
    bench.reads(&channel, Mode::Level, 1);
    channel.write();
    bench.sleeps_until(Wait::timeout(Duration::from_millis(5)).at_least(2));
    bench.event();
    channel.read();
    bench.nothing();
    channel.write();
    bench.event();
}

#[test]
fn edge_news_that_finds_its_event_undelivered_follows_it() {
    let mut bench = Bench::new();
    let mut channel = unix();
    bench.reads(&channel, Mode::Edge, 1);
    channel.write();
    assert_eq!(bench.fill_ring(), 1);
    drop(channel.writer);
    assert_eq!(bench.fill_ring(), 1, "one registration has one event in the ring");
    assert!(!bench.event().ready.is_hung_up());
    assert!(bench.event().ready.is_hung_up());
    bench.nothing();
}

#[test]
fn news_that_waits_for_room_is_told_in_one_event() {
    let mut bench = Bench::with_ring(1);
    let (mut first, mut second) = (unix(), unix());
    bench.reads(&first, Mode::Edge, 1);
    bench.reads(&second, Mode::Edge, 2);
    first.write();
    assert_eq!(bench.fill_ring(), 1);
    second.write();
    // Room for nothing more: asked for nothing, the queue looks all the same.
    bench.queue.wait(Wait::poll().at_least(0)).unwrap();
    drop(second.writer);
    bench.queue.wait(Wait::poll().at_least(0)).unwrap();
    assert_eq!(bench.event().key, 1);
    let event = bench.event();
    assert_eq!(event.key, 2);
    assert!(event.ready.is_readable() && event.ready.is_hung_up());
    bench.nothing();
}

#[test]
fn disable_takes_back_what_is_in_the_ring_and_enable_tells_it_once() {
    for mode in [Mode::Level, Mode::Edge, Mode::Dispatch] {
        let mut bench = Bench::new();
        let mut channel = unix();
        let token = bench.reads(&channel, mode, 1);
        channel.write();
        assert_eq!(bench.fill_ring(), 1);
        bench.source().disable(token).unwrap();
        bench.source().enable(token).unwrap();
        assert_eq!(bench.fill_ring(), 2, "{mode:?}: the one that was taken back, and the new one");
        assert_eq!(bench.queue.next().map(|event| event.token), Some(token));
        assert_eq!(bench.queue.next(), None, "{mode:?}");
        bench.source().disable(token).unwrap();
        bench.sleeps();
    }
}

#[test]
fn disabled_registration_does_not_spin_on_a_hang_up() {
    for mode in [Mode::Level, Mode::Edge, Mode::Dispatch] {
        let mut bench = Bench::new();
        let (here, there) = UnixStream::pair().unwrap();
        let token = bench.reads(&here, mode, 1);
        bench.source().disable(token).unwrap();
        drop(there);
        bench.nothing();
        bench.sleeps();
        bench.source().enable(token).unwrap();
        assert!(bench.event().ready.is_hung_up(), "{mode:?}");
    }
}

#[test]
fn hang_up_before_the_disabling_is_silenced_too() {
    let mut bench = Bench::new();
    let (here, there) = UnixStream::pair().unwrap();
    let token = bench.reads(&here, Mode::Level, 1);
    drop(there);
    bench.event();
    bench.source().disable(token).unwrap();
    bench.nothing();
    bench.sleeps();
    bench.source().enable(token).unwrap();
    assert!(bench.event().ready.is_hung_up());
}

#[test]
fn modify_takes_back_what_no_longer_interests() {
    let mut bench = Bench::new();
    let mut channel = unix();
    let token = bench.reads(&channel, Mode::Level, 1);
    channel.write();
    assert_eq!(bench.fill_ring(), 1);
    bench.source().modify(token, Interest::WRITABLE, Mode::OneShot).unwrap();
    let event = bench.event();
    assert!(event.ready.is_writable() && !event.ready.is_readable());
    bench.nothing();
    assert!(bench.source().is_empty(), "it is one-shot now");
}

#[test]
fn modify_changes_every_mode_into_every_other() {
    let modes = [Mode::Level, Mode::Edge, Mode::Dispatch, Mode::OneShot];
    for (from, to) in modes.iter().flat_map(|from| modes.map(|to| (*from, to))) {
        let mut bench = Bench::new();
        let mut channel = unix();
        let token = bench.reads(&channel, from, 1);
        bench.source().modify(token, Interest::READABLE, to).unwrap();
        channel.write();
        bench.event();
        let repeats = bench.queue.wait(Wait::poll()).unwrap();
        assert_eq!(repeats, usize::from(to == Mode::Level), "from {from:?} to {to:?}");
        assert_eq!(bench.source().is_empty(), to == Mode::OneShot);
    }
}

#[test]
fn one_shot_whose_event_is_on_the_way_takes_it_back_when_it_is_changed() {
    let mut bench = Bench::new();
    let mut channel = unix();
    let token = bench.reads(&channel, Mode::OneShot, 1);
    channel.write();
    assert_eq!(bench.fill_ring(), 1);
    bench.source().disable(token).unwrap();
    bench.nothing();
    bench.source().enable(token).unwrap();
    assert_eq!(bench.fill_ring(), 1);
    bench.source().modify(token, Interest::READABLE, Mode::Level).unwrap();
    assert_eq!(bench.event().token, token);
    assert_eq!(bench.event().token, token, "it is level-triggered now");
    assert!(bench.source().unregister(token));
    assert_eq!(bench.queue.next(), None);
}
