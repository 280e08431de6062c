//! Descriptors that are closed before they are unregistered.
//!
//! These tests count on who gets which number, so they take turns.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Bench, sys};
use kevent_core::{Interest, PollKey, PollSet, Ready, Sink, Source, Token, Trigger};
use kevent_net::Mode;

static TURN: Mutex<()> = Mutex::new(());

fn my_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor under the number that `old` leaves free.
fn reuse(old: OwnedFd, new: UnixStream) -> UnixStream {
    let number = old.as_raw_fd();
    drop(old);
    let new = UnixStream::from(sys::duplicate_as(&new, number));
    assert_eq!(new.as_raw_fd(), number);
    new
}

#[test]
fn closed_descriptor_falls_silent_and_is_unregistered_later() {
    let _turn = my_turn();
    for mode in [Mode::Level, Mode::Edge, Mode::OneShot, Mode::Dispatch] {
        let mut bench = Bench::new();
        let (here, there) = UnixStream::pair().unwrap();
        let token = bench.reads(&here, mode, 1);
        drop(here);
        drop(there);
        bench.sleeps();
        assert_eq!(bench.source().len(), 1);
        let modified = bench.source().modify(token, Interest::READABLE, mode);
        assert_eq!(modified.unwrap_err().kind(), ErrorKind::NotFound);
        bench.source().disable(token).unwrap();
        let enabled = bench.source().enable(token);
        assert_eq!(enabled.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(bench.source().unregister(token));
        assert!(!bench.source().unregister(token));
        assert_eq!(bench.source().strays(), 0);
    }
}

#[test]
fn event_in_the_ring_of_a_closed_descriptor_still_comes() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.reads(&here, Mode::Level, 1);
    there.write_all(b"x").unwrap();
    assert_eq!(bench.fill_ring(), 1);
    bench.fill_ring();
    drop(here);
    assert_eq!(bench.event().key, 1);
    bench.sleeps();
}

#[test]
fn old_token_does_not_reach_the_new_descriptor_of_its_number() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (old, _old_peer) = UnixStream::pair().unwrap();
    let (new, mut new_peer) = UnixStream::pair().unwrap();
    let old_token = bench.reads(&old, Mode::Level, 1);
    let new = reuse(old.into(), new);
    let new_token = bench.reads(&new, Mode::Level, 2);

    assert!(bench.source().disable(old_token).is_ok(), "what is closed is silent");
    let enabled = bench.source().enable(old_token);
    assert_eq!(enabled.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(bench.source().unregister(old_token));

    new_peer.write_all(b"x").unwrap();
    let event = bench.event();
    assert_eq!((event.token, event.key), (new_token, 2));
}

#[test]
fn reused_number_that_is_not_registered_is_left_alone() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (old, _old_peer) = UnixStream::pair().unwrap();
    let (new, mut new_peer) = UnixStream::pair().unwrap();
    let token = bench.reads(&old, Mode::Dispatch, 1);
    bench.source().disable(token).unwrap();
    let _new = reuse(old.into(), new);
    new_peer.write_all(b"x").unwrap();
    let enabled = bench.source().enable(token);
    assert_eq!(enabled.unwrap_err().kind(), ErrorKind::NotFound);
    bench.sleeps();
}

/// Another source of the same queue, with one descriptor of its own.
struct Other(UnixStream);

impl Source for Other {
    type Item = kevent_net::ReadyEvent;

    fn attach(&mut self, poll_set: &PollSet) -> std::io::Result<()> {
        let fd = std::os::fd::AsFd::as_fd(&self.0);
        poll_set.add(fd, PollKey::default(), Interest::READABLE, Trigger::Edge)
    }

    fn drain(&mut self, sink: &mut impl Sink<Self::Item>) -> std::io::Result<()> {
        let mut buffer = [0];
        self.0.set_nonblocking(true)?;
        if std::io::Read::read(&mut self.0, &mut buffer).is_ok() {
            let event = kevent_net::ReadyEvent {
                token: Token::SOLE,
                key: buffer[0].into(),
                ready: Ready::default(),
            };
            assert!(sink.push(Token::SOLE, event).is_ok(), "the ring has room");
        }
        Ok(())
    }
}

#[test]
fn old_token_does_not_reach_another_source_of_the_queue() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (old, _old_peer) = UnixStream::pair().unwrap();
    let (new, mut new_peer) = UnixStream::pair().unwrap();
    let token = bench.reads(&old, Mode::Level, 1);
    let other = Other(reuse(old.into(), new));
    bench.queue.attach(other, |event| event).unwrap();
    assert!(bench.source().unregister(token));
    bench.nothing();
    new_peer.write_all(&[77]).unwrap();
    assert_eq!(bench.event().key, 77);
}

#[test]
fn duplicate_keeps_the_registration_alive() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.reads(&here, Mode::Level, 1);
    let _duplicate = here.try_clone().unwrap();
    drop(here);
    there.write_all(b"x").unwrap();
    assert_eq!(bench.event().key, 1);
}

#[test]
fn stray_is_counted_and_goes_to_nobody() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (old, mut old_peer) = UnixStream::pair().unwrap();
    let (new, mut new_peer) = UnixStream::pair().unwrap();
    let old_token = bench.reads(&old, Mode::Level, 1);
    let mut duplicate = old.try_clone().unwrap();
    let new = reuse(old.into(), new);
    assert!(bench.source().unregister(old_token));
    // In the slot of the old one and under its number.
    let new_token = bench.reads(&new, Mode::Level, 2);
    assert_eq!(new_token.slot(), old_token.slot());

    old_peer.write_all(b"x").unwrap();
    bench.nothing();
    assert!(bench.source().strays() > 0);
    new_peer.write_all(b"x").unwrap();
    assert_eq!(bench.event().key, 2);

    // It ends when the file is no longer ready, or closed.
    std::io::Read::read_exact(&mut duplicate, &mut [0]).unwrap();
    std::io::Read::read_exact(&mut &new, &mut [0]).unwrap();
    bench.sleeps();
    old_peer.write_all(b"x").unwrap();
    drop(duplicate);
    bench.sleeps();
}

#[test]
fn unregistered_before_it_is_closed_leaves_no_stray() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (here, mut there) = UnixStream::pair().unwrap();
    let token = bench.reads(&here, Mode::Level, 1);
    let _duplicate = here.try_clone().unwrap();
    assert!(bench.source().unregister(token));
    drop(here);
    there.write_all(b"x").unwrap();
    bench.sleeps();
    assert_eq!(bench.source().strays(), 0);
}

#[test]
fn duplicate_that_repeats_what_is_undelivered_goes_on_to_tell() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.reads(&here, Mode::Level, 1);
    let mut duplicate = here.try_clone().unwrap();
    drop(here);
    for _ in 0..3 {
        there.write_all(b"x").unwrap();
        // Looked at again and again while its event lies in the ring: it can't be muted.
        assert_eq!(bench.fill_ring(), 1);
        assert_eq!(bench.fill_ring(), 1);
        assert_eq!(bench.event().key, 1);
        assert_eq!(bench.event().key, 1, "it is still readable");
        std::io::Read::read_exact(&mut duplicate, &mut [0]).unwrap();
        bench.queue.wait(kevent_core::Wait::poll()).unwrap();
        while bench.queue.next().is_some() {}
        bench.sleeps();
    }
}

#[test]
fn disabled_registration_that_can_not_be_silenced_is_counted() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (here, mut there) = UnixStream::pair().unwrap();
    let token = bench.reads(&here, Mode::Level, 1);
    let _duplicate = here.try_clone().unwrap();
    drop(here);
    bench.source().disable(token).unwrap();
    there.write_all(b"x").unwrap();
    bench.nothing();
    assert!(bench.source().strays() > 0, "nobody learns why the queue does not sleep");
    let enabled = bench.source().enable(token);
    assert_eq!(enabled.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn shared_registrations_of_a_closed_descriptor_are_not_told_of_the_next_file() {
    let _turn = my_turn();
    for mode in [Mode::Level, Mode::Dispatch] {
        let mut bench = Bench::new();
        let (old, mut old_peer) = UnixStream::pair().unwrap();
        let (new, mut new_peer) = UnixStream::pair().unwrap();
        let tokens = [1, 2].map(|key| bench.reads(&old, mode, key));
        old_peer.write_all(b"x").unwrap();
        assert_eq!(bench.fill_ring(), 2);
        let _new = reuse(old.into(), new);
        new_peer.write_all(b"x").unwrap();
        // What was in the ring comes, and leads to another look at the number.
        assert_eq!([bench.event().key, bench.event().key], [1, 2]);
        bench.sleeps();
        if mode == Mode::Dispatch {
            let enabled = bench.source().enable(tokens[0]);
            assert_eq!(enabled.unwrap_err().kind(), ErrorKind::NotFound);
        }
        let modified = bench.source().modify(tokens[1], Interest::READABLE, mode);
        assert_eq!(modified.unwrap_err().kind(), ErrorKind::NotFound);
        bench.sleeps();
        assert!(tokens.into_iter().all(|token| bench.source().unregister(token)));
    }
}

#[test]
fn unregistered_in_part_leaves_the_next_file_of_the_number_alone() {
    let _turn = my_turn();
    let mut bench = Bench::new();
    let (old, _old_peer) = UnixStream::pair().unwrap();
    let (new, mut new_peer) = UnixStream::pair().unwrap();
    let old_tokens = [1, 2].map(|key| bench.reads(&old, Mode::Level, key));
    let new = reuse(old.into(), new);
    let new_tokens = [3, 4].map(|key| bench.reads(&new, Mode::Edge, key));
    assert!(old_tokens.into_iter().all(|token| bench.source().unregister(token)));
    new_peer.write_all(b"x").unwrap();
    assert_eq!([bench.event().token, bench.event().token], new_tokens);
}
