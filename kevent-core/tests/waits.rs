//! What a wait can be asked for.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use kevent_core::{Poster, Queue, Timers, UserEvents, Wait};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const MS: Duration = Duration::from_millis(1);

fn queue() -> (Queue<u64>, Poster<u64>) {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    (queue, poster)
}

#[test]
fn interrupted_wait_after_one_that_slept_brings_what_is_there() {
    let (mut queue, poster) = queue();
    queue.wait(MS).unwrap();
    queue.interrupter().interrupt();
    poster.post(1).unwrap();
    assert_eq!(queue.wait(None).unwrap(), 1);
}

#[test]
fn interrupt_ends_the_wait_that_sleeps() {
    let (mut queue, _poster) = queue();
    let interrupter = queue.interrupter();
    thread::scope(|scope| {
        scope.spawn(|| interrupter.interrupt());
        assert_eq!(queue.wait(PATIENCE).unwrap(), 0);
    });
    assert_eq!(queue.stats().interrupts, 1);
}

#[test]
fn interrupt_ends_the_next_wait_if_none_sleeps_and_each_is_counted() {
    let (mut queue, poster) = queue();
    let began = Instant::now();
    (0..3).for_each(|_| queue.interrupter().interrupt());
    assert_eq!(queue.wait(PATIENCE).unwrap(), 0);
    assert_eq!(queue.stats().interrupts, 3);
    // What is there comes with it; and an interrupt ends one wait.
    poster.post(7).unwrap();
    queue.interrupter().interrupt();
    assert_eq!(queue.wait(Wait::timeout(PATIENCE).at_least(5)).unwrap(), 1);
    assert_eq!(queue.stats().interrupts, 4);
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(queue.wait(Wait::timeout(5 * MS).at_least(5)).unwrap(), 1);
    assert_eq!(queue.stats().interrupts, 4);
}

#[test]
fn no_interrupt_is_lost_between_two_threads() {
    const ROUNDS: u64 = 2000;
    let (mut here, _) = queue();
    let (mut there, _) = queue();
    let (wake_here, wake_there) = (here.interrupter(), there.interrupter());
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                there.wait(PATIENCE).unwrap();
                wake_here.interrupt();
            }
            assert_eq!(there.stats().interrupts, ROUNDS);
        });
        for _ in 0..ROUNDS {
            wake_there.interrupt();
            here.wait(PATIENCE).unwrap();
        }
    });
    assert_eq!(here.stats().interrupts, ROUNDS);
}

#[test]
fn batch_is_waited_for_no_longer_than_was_said() {
    let (mut queue, poster) = queue();
    poster.post(1).unwrap();
    let began = Instant::now();
    let batch = Wait::timeout(PATIENCE).at_least(2).within(20 * MS);
    assert_eq!(queue.wait(batch).unwrap(), 1);
    assert!((20 * MS..PATIENCE).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[test]
fn full_batch_does_not_wait_for_the_time() {
    let (mut queue, poster) = queue();
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| (0..2).for_each(|n| poster.post(n).unwrap()));
        assert_eq!(queue.wait(Wait::forever().at_least(2).within(PATIENCE)).unwrap(), 2);
    });
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn first_event_after_the_time_for_a_batch_ends_the_wait() {
    let (mut queue, _poster) = queue();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    queue[timers].after(20 * MS, 5);
    let batch = Wait::timeout(PATIENCE).at_least(2).within(MS);
    assert_eq!(queue.wait(batch).unwrap(), 1);
    assert_eq!(queue.next(), Some(5));
}

#[test]
fn wait_ends_when_the_wall_clock_gets_there() {
    let (mut queue, poster) = queue();
    for _ in 0..2 {
        let deadline = SystemTime::now() + 20 * MS;
        assert_eq!(queue.wait(deadline).unwrap(), 0);
        assert!(SystemTime::now() >= deadline);
    }
    assert_eq!(queue.wait(SystemTime::now() - PATIENCE).unwrap(), 0, "it has passed");
    poster.post(1).unwrap();
    assert_eq!(queue.wait(SystemTime::now() + PATIENCE).unwrap(), 1);
    assert!(queue.stats().polls < 12, "{} looks", queue.stats().polls);
}
