//! Counters as events.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::forbid;
use kevent_core::{Adder, CounterEvent, Counters, Flow, Overflow, Queue, Source, SourceId, Wait};

const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(20);

fn queue_of(capacity: usize) -> (Queue<CounterEvent>, SourceId<Counters>) {
    let mut queue = Queue::with_capacity(NonZeroUsize::new(capacity).unwrap()).unwrap();
    let id = queue.attach(Counters::new(), |event| event).unwrap();
    (queue, id)
}

/// Takes events until their values add up to `sum`.
fn take(queue: &mut Queue<CounterEvent>, sum: u64) -> Vec<CounterEvent> {
    let deadline = Instant::now() + PATIENCE;
    let (mut events, mut got) = (Vec::new(), 0);
    while got < sum {
        assert!(Instant::now() < deadline, "{got} of {sum} came");
        queue.wait(deadline).unwrap();
        while let Some(event) = queue.next() {
            got += event.value;
            events.push(event);
        }
    }
    assert_eq!(got, sum, "more came than was added");
    events
}

fn assert_silent<E: 'static>(queue: &mut Queue<E>) {
    let polls = queue.stats().polls;
    queue.wait(SILENCE).unwrap();
    assert!(queue.next().is_none(), "an event came");
    assert!(queue.stats().polls - polls < 5, "the wait did not sleep");
}

#[test]
fn additions_between_two_looks_are_one_event() {
    let (mut queue, id) = queue_of(8);
    let (token, adder) = queue[id].sum(5).unwrap();
    (1..=10).for_each(|n| adder.add(n).unwrap());
    adder.add(0).unwrap();
    let events = take(&mut queue, 55);
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].token, events[0].key), (token, 5));
    assert_silent(&mut queue);
    adder.add(0).unwrap();
    assert_silent(&mut queue);
}

#[test]
fn semaphore_has_an_event_for_each_unit_through_a_small_ring() {
    let (mut queue, id) = queue_of(3);
    let (_, adder) = queue[id].semaphore(1).unwrap();
    adder.add(20).unwrap();
    let events = take(&mut queue, 20);
    assert_eq!(events.len(), 20);
    assert_silent(&mut queue);
}

#[test]
fn semaphore_with_many_units_does_not_starve_another_counter() {
    let (mut queue, id) = queue_of(4);
    let (_, flood) = queue[id].semaphore(1).unwrap();
    let (_, adder) = queue[id].sum(2).unwrap();
    flood.add(1_000_000).unwrap();
    adder.add(1).unwrap();
    for _ in 0..3 {
        queue.wait(PATIENCE).unwrap();
        if std::iter::from_fn(|| queue.next()).any(|event| event.key == 2) {
            return;
        }
    }
    panic!("the second counter waits for a million units of the first");
}

#[test]
fn nothing_is_lost_while_threads_add_and_the_queue_reads() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let (mut queue, id) = queue_of(2);
    let (_, sum) = queue[id].sum(1).unwrap();
    let (_, semaphore) = queue[id].semaphore(2).unwrap();
    let adding = |adder: Adder| move || (0..EACH).for_each(|_| adder.add(1).unwrap());
    let threads: Vec<_> = (0..THREADS)
        .flat_map(|_| {
            [thread::spawn(adding(sum.clone())), thread::spawn(adding(semaphore.clone()))]
        })
        .collect();
    let events = take(&mut queue, 2 * THREADS * EACH);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let units = events.iter().filter(|event| event.key == 2);
    assert_eq!(units.clone().count() as u64, THREADS * EACH);
    assert!(units.into_iter().all(|event| event.value == 1));
    assert_silent(&mut queue);
}

#[test]
fn child_process_adds() {
    let (mut queue, id) = queue_of(4);
    let (_, adder) = queue[id].sum(1).unwrap();
    let bytes: String = 258_u64.to_ne_bytes().iter().map(|byte| format!("\\{byte:03o}")).collect();
    let stream = Stdio::from(adder.as_fd().try_clone_to_owned().unwrap());
    let status = Command::new("printf").arg(bytes).stdout(stream).status().unwrap();
    assert!(status.success());
    take(&mut queue, 258);
}

#[test]
fn counter_of_somebody_else_is_adopted_with_what_it_has() {
    let (mut queue, id) = queue_of(4);
    let (_, theirs) = Counters::new().sum(0).unwrap();
    theirs.add(4).unwrap();
    queue[id].adopt(&theirs, 9).unwrap();
    assert_eq!(take(&mut queue, 4)[0].key, 9);
    Adder::adopt(&theirs).unwrap().add(3).unwrap();
    assert_eq!(take(&mut queue, 3).len(), 1);
}

#[test]
fn unit_of_a_shared_semaphore_goes_to_one_queue() {
    let (mut one, id) = queue_of(4);
    let (_, adder) = one[id].semaphore(0).unwrap();
    let (mut two, id) = queue_of(4);
    two[id].adopt(&adder, 0).unwrap();
    adder.add(100).unwrap();
    let mut taken = 0;
    while taken < 100 {
        for queue in [&mut one, &mut two] {
            queue.wait(Duration::from_millis(1)).unwrap();
            taken += std::iter::from_fn(|| queue.next()).count();
        }
    }
    assert_eq!(taken, 100);
    assert_silent(&mut one);
    assert_silent(&mut two);
}

#[test]
fn queue_takes_no_unit_for_which_it_has_no_room() {
    let (mut full, id) = queue_of(1);
    let (_, adder) = full[id].semaphore(0).unwrap();
    adder.add(3).unwrap();
    full.wait(PATIENCE).unwrap();
    let (mut other, id) = queue_of(4);
    other[id].adopt(&adder, 0).unwrap();
    take(&mut other, 2);
    assert!(full.next().is_some());
    assert_silent(&mut full);
}

#[test]
fn what_is_no_counter_is_refused_with_a_reason() {
    let mut counters = Counters::new();
    let null = File::open("/dev/null").unwrap();
    let error = counters.adopt(&null, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("eventfd"), "{error}");
    assert!(Adder::adopt(&null).is_err());
    let (_, adder) = Counters::new().sum(0).unwrap();
    // ioctl(FIONBIO), which any descriptor understands.
    UnixStream::from(adder.as_fd().try_clone_to_owned().unwrap()).set_nonblocking(false).unwrap();
    let error = counters.adopt(&adder, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("EFD_NONBLOCK"), "{error}");
    assert!(counters.is_empty());
}

#[test]
fn sum_that_would_not_fit_is_refused_and_loses_nothing() {
    let (mut queue, id) = queue_of(4);
    let (_, adder) = queue[id].sum(0).unwrap();
    assert_eq!(adder.add(u64::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    adder.add(u64::MAX - 1).unwrap();
    assert_eq!(adder.add(1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    take(&mut queue, u64::MAX - 1);
    adder.add(1).unwrap();
    take(&mut queue, 1);
}

#[test]
fn counter_moves_with_its_source_to_another_queue() {
    let (mut queue, id) = queue_of(4);
    let (token, adder) = queue[id].sum(6).unwrap();
    adder.add(1).unwrap();
    let source = queue.detach(id).unwrap();
    let (mut other, _) = queue_of(4);
    let id = other.attach(source, |event| event).unwrap();
    assert_eq!(take(&mut other, 1)[0].token, token);
    adder.add(2).unwrap();
    take(&mut other, 2);
    assert_silent(&mut queue);
    assert!(other[id].remove(token));
    assert!(!other[id].remove(token));
    adder.add(1).unwrap();
    assert_silent(&mut other);
}

#[test]
fn counter_that_is_removed_wakes_nobody_when_it_is_added_to() {
    const ROUNDS: u64 = 20;
    let (mut queue, id) = queue_of(4);
    let (token, adder) = queue[id].sum(6).unwrap();
    assert!(queue[id].remove(token));
    queue.wait(Duration::ZERO).unwrap();
    let polls = queue.stats().polls;
    for _ in 0..ROUNDS {
        adder.add(1).unwrap();
        assert_eq!(queue.wait(Duration::from_millis(1)).unwrap(), 0);
    }
    // One look each, which sleeps, and not another one that is for nothing.
    assert!(queue.stats().polls - polls < ROUNDS * 3 / 2, "{:?}", queue.stats());
}

#[test]
fn kernel_without_eventfds_is_unsupported() {
    Counters::probe().unwrap();
    let on_a_thread_of_its_own = || {
        if let Err(error) = forbid(libc::SYS_eventfd2) {
            println!("skipped: no seccomp filter can be set here: {error}");
            return;
        }
        let error = Counters::probe().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("eventfd(2)"), "{error}");
        assert_eq!(Counters::new().sum(0).unwrap_err().kind(), io::ErrorKind::Unsupported);
    };
    thread::spawn(on_a_thread_of_its_own).join().unwrap();
}

#[test]
fn what_is_added_while_a_sum_finds_no_room_comes_after_it() {
    let (mut queue, id) = queue_of(8);
    // A sink that merges has room, for all that is known, until it finds nothing to merge with.
    let merge = Overflow::coalesce(|sum: &mut CounterEvent, event| sum.value += event.value);
    queue.set_flow(id, Flow::new().high_water(NonZeroUsize::MIN).overflow(merge));
    let (_, first) = queue[id].sum(1).unwrap();
    let (_, second) = queue[id].sum(2).unwrap();
    first.add(1).unwrap();
    queue.wait(PATIENCE).unwrap();
    for value in [2, 4] {
        second.add(value).unwrap();
        // A look, and no more.
        queue.wait(Wait::poll().at_least(0)).unwrap();
    }
    take(&mut queue, 1 + 2 + 4);
}
