//! Events instead of a sleep.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{Counters, Idle, Poster, Queue, SourceId, Timers, UserEvents, Wait};

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(20);

#[derive(Debug, PartialEq)]
enum Event {
    Idle(u64),
    User(u32),
    Timer(u64),
    Counter(u64),
}

fn queue() -> (Queue<Event>, SourceId<Idle>, Poster<u32>) {
    let mut queue = Queue::new().unwrap();
    let idle = queue.attach(Idle::new(), |event| Event::Idle(event.count)).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, Event::User).unwrap();
    (queue, idle, poster)
}

fn take(queue: &mut Queue<Event>, wait: impl Into<Wait>) -> Vec<Event> {
    queue.wait(wait).unwrap();
    std::iter::from_fn(|| queue.next()).collect()
}

/// Nothing comes, and the wait for it sleeps.
fn assert_silent(queue: &mut Queue<Event>) {
    let polls = queue.stats().polls;
    assert_eq!(take(queue, SILENCE), []);
    assert!(queue.stats().polls - polls < 5, "the wait did not sleep");
}

#[test]
fn queue_is_idle_once_and_then_sleeps() {
    let (mut queue, _, _poster) = queue();
    assert_eq!(take(&mut queue, None), [Event::Idle(1)]);
    assert_silent(&mut queue);
    assert_silent(&mut queue);
}

#[test]
fn queue_is_idle_again_after_an_event_of_another_source() {
    let (mut queue, _, poster) = queue();
    for n in 1..10 {
        poster.post(n).unwrap();
        assert_eq!(take(&mut queue, None), [Event::User(n)]);
        assert_eq!(take(&mut queue, None), [Event::Idle(n.into())]);
        assert_silent(&mut queue);
    }
}

#[test]
fn wake_up_that_brings_nothing_is_no_reason_to_be_idle_again() {
    let (mut queue, _, _poster) = queue();
    assert_eq!(take(&mut queue, None), [Event::Idle(1)]);
    // A source that comes and goes wakes the queue.
    let timers = queue.attach(Timers::new(), |timer| Event::Timer(timer.key)).unwrap();
    let token = queue[timers].after(Duration::from_millis(1), 1);
    queue[timers].cancel(token);
    queue.detach(timers).unwrap();
    assert_silent(&mut queue);
}

#[test]
fn poll_is_not_idle_because_it_would_not_sleep() {
    let (mut queue, _, _poster) = queue();
    for _ in 0..3 {
        assert_eq!(take(&mut queue, Wait::poll()), []);
    }
    assert_eq!(take(&mut queue, Wait::until(Instant::now())), []);
    assert_eq!(take(&mut queue, None), [Event::Idle(1)]);
}

#[test]
fn event_that_only_the_kernel_knows_of_comes_first() {
    let (mut queue, _, _poster) = queue();
    let counters = queue.attach(Counters::new(), |event| Event::Counter(event.value)).unwrap();
    let (_, adder) = queue[counters].sum(0).unwrap();
    adder.add(3).unwrap();
    assert_eq!(take(&mut queue, None), [Event::Counter(3)]);
    assert_eq!(take(&mut queue, None), [Event::Idle(1)]);
}

#[test]
fn events_of_sources_that_are_due_come_first() {
    let (mut queue, _, poster) = queue();
    let timers = queue.attach(Timers::new(), |timer| Event::Timer(timer.key)).unwrap();
    queue[timers].after(Duration::ZERO, 7);
    poster.post(1).unwrap();
    let mut events = take(&mut queue, Wait::forever().at_least(2));
    assert_eq!(events.len(), 2);
    assert!(!events.contains(&Event::Idle(1)), "{events:?}");
    events = take(&mut queue, None);
    assert_eq!(events, [Event::Idle(1)]);
}

#[test]
fn wait_for_more_than_the_ring_has_sleeps_instead_of_being_idle() {
    let (mut queue, _, poster) = queue();
    poster.post(1).unwrap();
    let polls = queue.stats().polls;
    let events = take(&mut queue, Wait::timeout(SILENCE).at_least(2));
    assert_eq!(events, [Event::User(1)], "it has something to do");
    assert!(queue.stats().polls - polls < 5, "the wait did not sleep");
    let events = take(&mut queue, Wait::timeout(SILENCE).at_least(2));
    assert_eq!(events, [Event::Idle(1)]);
}

#[test]
fn deadlines_are_kept_after_the_queue_was_idle() {
    let (mut queue, _, _poster) = queue();
    let timers = queue.attach(Timers::new(), |timer| Event::Timer(timer.key)).unwrap();
    queue[timers].after(Duration::from_millis(5), 7);
    assert_eq!(take(&mut queue, None), [Event::Idle(1)]);
    let polls = queue.stats().polls;
    assert_eq!(take(&mut queue, None), [Event::Timer(7)]);
    assert!(queue.stats().polls - polls < 5, "the wait did not sleep");
}

#[test]
fn post_from_another_thread_wakes_a_queue_that_was_idle() {
    let (mut queue, _, poster) = queue();
    assert_eq!(take(&mut queue, None), [Event::Idle(1)]);
    let posting = thread::spawn(move || poster.post(3).map(|()| poster));
    assert_eq!(take(&mut queue, None), [Event::User(3)]);
    let _poster = posting.join().unwrap().unwrap();
    assert_eq!(take(&mut queue, None), [Event::Idle(2)]);
}

#[test]
fn event_of_a_source_that_is_detached_does_not_come() {
    let (mut queue, idle, _poster) = queue();
    assert_eq!(queue.wait(None).unwrap(), 1);
    assert!(queue.detach(idle).is_some());
    assert_eq!(queue.next(), None);
    assert_silent(&mut queue);
}

#[test]
fn every_idle_source_has_its_event() {
    let (mut queue, _, _poster) = queue();
    queue.attach(Idle::new(), |event| Event::Idle(100 + event.count)).unwrap();
    assert_eq!(take(&mut queue, None), [Event::Idle(1), Event::Idle(101)]);
    assert_silent(&mut queue);
}
