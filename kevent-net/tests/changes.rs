//! Changes of several registrations in one call, with the wait.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use kevent_core::{Queue, Token, Wait};
use kevent_net::{Interest, Mode, Readiness, ReadinessChange as Change};

#[test]
fn each_change_has_its_answer_and_one_that_fails_keeps_no_other_from_being_made() {
    let (first, mut peer) = UnixStream::pair().unwrap();
    let (second, _other) = UnixStream::pair().unwrap();
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let mut queue = Queue::new().unwrap();
    let readiness = queue.attach(Readiness::new(), |event| event.key).unwrap();
    peer.write_all(b"x").unwrap();

    let done = queue.change_and_wait(
        readiness,
        [
            Change::Register(second.as_fd(), Interest::WRITABLE, Mode::Dispatch, 2),
            Change::Register(file.as_fd(), Interest::READABLE, Mode::Level, 0),
            Change::Register(first.as_fd(), Interest::READABLE, Mode::Level, 1),
        ],
        Wait::forever().at_least(2),
    );
    assert_eq!(done.waited.unwrap(), 2);
    assert_eq!(done.changes[1].as_ref().unwrap_err().kind(), ErrorKind::Unsupported);
    let (one, two) = (*done.changes[2].as_ref().unwrap(), *done.changes[0].as_ref().unwrap());

    // While their events are in the ring.
    let gone = Token::from_bits(u64::MAX);
    let done = queue.change_and_wait(
        readiness,
        [Change::Disable(one), Change::Unregister(two), Change::Unregister(gone)],
        Wait::poll(),
    );
    let ok: Vec<_> = done.changes.iter().map(|change| change.as_ref().ok().copied()).collect();
    assert_eq!(ok, [Some(one), Some(two), None]);
    assert_eq!(queue.next(), None);

    let done = queue.change_and_wait(
        readiness,
        [Change::Enable(one), Change::Modify(one, Interest::READABLE, Mode::OneShot)],
        None,
    );
    assert!(done.changes.iter().all(Result::is_ok));
    assert_eq!((queue.next(), queue.next()), (Some(1), None));
    assert!(queue[readiness].is_empty(), "the one-shot one has ended, the other was unregistered");
}
