//! Descriptors of a queue that lies in another.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kevent_core::{ChildQueue, Interest, Queue, Wait};
use kevent_net::{Mode, Readiness, ReadyEvent};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gets ready, is looked at again while its event lies in the outer ring, and is told once more after it.
fn is_told_again(mode: Mode) {
    let mut inner: Queue<ReadyEvent> = Queue::new().unwrap();
    let sockets = inner.attach(Readiness::new(), |event| event).unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    inner[sockets].register(&socket, Interest::READABLE, mode, 7).unwrap();
    let mut queue = Queue::new().unwrap();
    queue.attach(ChildQueue::new(inner), |event| event).unwrap();

    peer.write_all(b"1").unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
    peer.write_all(b"2").unwrap();
    for _ in 0..3 {
        queue.wait(Wait::poll().at_least(0)).unwrap();
    }
    assert_eq!(queue.next().unwrap().key, 7);
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1, "what came while it lay in the ring stays away");
}

#[test]
fn edge_that_comes_while_an_event_lies_in_the_outer_ring_is_told_after_it() {
    is_told_again(Mode::Edge);
}

#[test]
fn level_is_told_again_once_its_event_is_taken_from_the_outer_ring() {
    is_told_again(Mode::Level);
}
