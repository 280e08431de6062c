//! A queue in a queue.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{
    ChildQueue, Due, Flow, Overflow, PollSet, Poster, Queue, Sink, Source, SourceId, Timers,
    UserEvents, Wait,
};

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(20);

fn capacity(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// A child of which one source is user events and the other timers, with its own name for each.
fn child(room: usize) -> (ChildQueue<u64>, Poster<u64>, SourceId<Timers>) {
    let mut queue = Queue::with_capacity(capacity(room)).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    let timers = queue.attach(Timers::new(), |timer| timer.key).unwrap();
    (ChildQueue::new(queue), poster, timers)
}

fn take_all(queue: &mut Queue<u64>) -> Vec<u64> {
    std::iter::from_fn(|| queue.next()).collect()
}

fn assert_silent(queue: &mut Queue<u64>) {
    let polls = queue.stats().polls;
    queue.wait(SILENCE).unwrap();
    assert_eq!(take_all(queue), []);
    assert!(queue.stats().polls - polls < 10, "the wait did not sleep");
}

#[test]
fn removed_registration_takes_back_its_event_from_the_outer_ring() {
    let (child, _poster, timers) = child(8);
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(child, |n| n).unwrap();
    let tokens: Vec<_> = (0..3).map(|key| queue[id][timers].after(Duration::ZERO, key)).collect();
    queue.wait(kevent_core::Wait::forever().at_least(3)).unwrap();
    assert_eq!((queue.len(), queue[id].queue().len()), (3, 0), "all are in the outer ring");
    assert!(queue[id][timers].cancel(tokens[1]), "it was not delivered, so it can be cancelled");
    assert_eq!(take_all(&mut queue), [0, 2]);
    assert_eq!(queue.stats().stale, 1);
    assert_eq!((queue[id].queue().stats().delivered, queue[id].queue().stats().stale), (2, 1));
}

#[test]
fn source_detached_from_the_child_takes_back_its_events_from_the_outer_ring() {
    let (child, poster, timers) = child(8);
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(child, |n| n).unwrap();
    queue[id][timers].after(Duration::ZERO, 1);
    poster.post(2).unwrap();
    queue.wait(kevent_core::Wait::forever().at_least(2)).unwrap();
    assert!(queue[id].queue_mut().detach(timers).is_some());
    assert_eq!(take_all(&mut queue), [2]);
}

#[test]
fn deadline_of_the_child_ends_the_sleep_of_the_outer_queue_in_time() {
    let (child, _poster, timers) = child(8);
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(child, |n| n).unwrap();
    assert_silent(&mut queue);
    let (began, delay) = (Instant::now(), Duration::from_millis(5));
    queue[id][timers].after(delay, 9);
    let polls = queue.stats().polls;
    while queue.wait(None).unwrap() == 0 {}
    assert_eq!(take_all(&mut queue), [9]);
    assert!(began.elapsed() >= delay);
    assert!(queue.stats().polls - polls < 10, "the wait did not sleep");
    assert_silent(&mut queue);
}

#[test]
fn post_to_the_child_wakes_the_outer_queue() {
    let (child, poster, _) = child(8);
    let mut queue = Queue::new().unwrap();
    queue.attach(child, |n| n).unwrap();
    for n in 0..100 {
        thread::scope(|scope| {
            scope.spawn(|| poster.post(n).unwrap());
            while queue.wait(Duration::from_secs(10)).unwrap() == 0 {}
        });
        assert_eq!(take_all(&mut queue), [n]);
    }
}

#[test]
fn source_attached_to_a_child_that_is_attached_works() {
    let (child, _poster, _) = child(8);
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(child, |n| n).unwrap();
    assert_silent(&mut queue);
    let (users, poster) = UserEvents::new();
    poster.post(5).unwrap();
    queue[id].queue_mut().attach(users, |n| n).unwrap();
    while queue.wait(None).unwrap() == 0 {}
    assert_eq!(take_all(&mut queue), [5]);
}

#[test]
fn flooding_child_has_its_ring_for_a_share_and_starves_nobody() {
    let mut queue = Queue::with_capacity(capacity(64)).unwrap();
    let (flooding, flood, _) = child(4);
    queue.attach(flooding, |n| n).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n: u64| 1_000_000 + n).unwrap();
    (0..1000).for_each(|n| flood.post(n).unwrap());
    poster.post(0).unwrap();
    queue.wait(None).unwrap();
    let first = take_all(&mut queue);
    assert!(first.contains(&1_000_000), "{first:?}");
    assert_eq!(first.len(), 1 + 4, "a turn brings what the child's ring holds: {first:?}");
}

#[test]
fn child_fills_its_own_ring_while_the_outer_one_is_full() {
    let mut queue = Queue::with_capacity(capacity(1)).unwrap();
    let (child, poster, _) = child(4);
    let id = queue.attach(child, |n| n).unwrap();
    (0..20).for_each(|n| poster.post(n).unwrap());
    queue.wait(None).unwrap();
    assert_eq!(queue.len(), 1);
    assert!(queue[id].queue().len() >= 3, "the child has only {} events", queue[id].queue().len());
    let mut taken = Vec::new();
    while taken.len() < 20 {
        queue.wait(None).unwrap();
        taken.extend(queue.next());
    }
    assert_eq!(taken, (0..20).collect::<Vec<_>>());
    assert_silent(&mut queue);
}

/// Fails at every turn.
struct Broken;

impl Source for Broken {
    type Item = u64;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Err(io::Error::other("it is broken"))
    }

    fn drain(&mut self, _: &mut impl Sink<u64>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn source_of_the_child_that_fails_is_named_and_keeps_nothing_back() {
    let (mut child, poster, _) = child(8);
    let broken = child.queue_mut().attach(Broken, |n| n).unwrap();
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(child, |n| n).unwrap();
    poster.post(3).unwrap();
    let error = queue.wait(None).unwrap_err();
    assert!(error.to_string().contains("Broken: it is broken"), "{error}");
    assert_eq!(take_all(&mut queue), [3]);
    assert!(queue[id].queue_mut().detach(broken).is_some());
    poster.post(4).unwrap();
    while queue.wait(None).unwrap() == 0 {}
    assert_eq!(take_all(&mut queue), [4]);
    assert_silent(&mut queue);
}

#[test]
fn child_that_is_detached_is_a_queue_again() {
    let (child, poster, timers) = child(2);
    let mut queue = Queue::with_capacity(capacity(1)).unwrap();
    let id = queue.attach(child, |n| n).unwrap();
    (0..5).for_each(|n| poster.post(n).unwrap());
    queue.wait(None).unwrap();
    let mut inner = queue.detach(id).unwrap().into_inner();
    assert_eq!(take_all(&mut queue), [], "what was in the outer ring is lost");
    let mut taken = Vec::new();
    while taken.len() < 4 {
        inner.wait(None).unwrap();
        taken.extend(take_all(&mut inner));
    }
    assert_eq!(taken, [1, 2, 3, 4]);
    inner[timers].after(Duration::ZERO, 9);
    inner.wait(None).unwrap();
    assert_eq!(take_all(&mut inner), [9]);
    assert_silent(&mut queue);
}

#[test]
fn queues_nest_five_deep_and_the_sixth_is_refused_with_a_reason() {
    let (mut child, poster, _) = child(8);
    let mut depth = 1;
    let refused = loop {
        let mut around = Queue::new().unwrap();
        match around.attach(child, |n| n) {
            Ok(_) if depth < 100 => child = ChildQueue::new(around),
            Ok(_) => panic!("nested a hundred deep"),
            Err(error) => break error,
        }
        depth += 1;
        poster.post(depth).unwrap();
        while child.queue_mut().wait(None).unwrap() == 0 {}
        assert_eq!(take_all(child.queue_mut()), [depth]);
    };
    assert_eq!(depth, 5);
    assert!(refused.to_string().contains("five deep"), "{refused}");
}

/// A queue with a child, of whose user events one at a time may lie in a ring.
fn held_to_one() -> (Queue<u64>, SourceId<ChildQueue<u64>>, Poster<u64>) {
    let mut inner = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    let users = inner.attach(users, |n| n).unwrap();
    inner.set_flow(users, Flow::new().high_water(capacity(1)));
    let mut queue = Queue::new().unwrap();
    let child = queue.attach(ChildQueue::new(inner), |n| n).unwrap();
    (queue, child, poster)
}

#[test]
fn source_of_a_child_that_was_held_back_goes_on_once_its_event_is_taken() {
    let (mut queue, _, poster) = held_to_one();
    (0..3).for_each(|n| poster.post(n).unwrap());
    for n in 0..3 {
        assert_eq!(queue.wait(Duration::from_secs(20)).unwrap(), 1, "event {n} stays away");
        // Looks while the child may say nothing.
        (0..3).for_each(|_| assert_eq!(queue.wait(Wait::poll().at_least(0)).unwrap(), 1));
        assert_eq!(queue.next(), Some(n));
    }
}

#[test]
fn child_that_is_detached_goes_on_where_the_outer_ring_was() {
    let (mut queue, child, poster) = held_to_one();
    (0..3).for_each(|n| poster.post(n).unwrap());
    assert_eq!(queue.wait(None).unwrap(), 1);
    let mut inner = queue.detach(child).unwrap().into_inner();
    for n in 1..3 {
        assert_eq!(inner.wait(Duration::from_secs(20)).unwrap(), 1, "event {n} stays away");
        assert_eq!(inner.next(), Some(n));
    }
}

#[test]
fn event_that_the_outer_queue_did_not_take_is_left_to_the_child() {
    let (child, poster, _) = child(8);
    let mut queue = Queue::new().unwrap();
    let child = queue.attach(child, |n| n).unwrap();
    // Each event of the child is of its own: there is nothing to merge it with.
    let merge = Overflow::coalesce(|_, _| unreachable!());
    queue.set_flow(child, Flow::new().high_water(capacity(1)).overflow(merge));
    (0..3).for_each(|n| poster.post(n).unwrap());
    queue.wait(None).unwrap();
    assert_eq!(take_all(&mut queue), [0]);
    let mut inner = queue.detach(child).unwrap().into_inner();
    inner.wait(Wait::poll()).unwrap();
    assert_eq!(take_all(&mut inner), [1, 2]);
}
