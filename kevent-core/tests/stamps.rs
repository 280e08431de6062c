//! What the queue knows of an event: its number, its time, where it came from.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::time::{Duration, Instant};

use kevent_core::{Queue, Timers, Token, UserEvents, Wait};

#[test]
fn events_are_numbered_in_the_order_of_the_ring_and_a_gap_is_one_that_was_withheld() {
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let tokens: Vec<Token> = (0..4).map(|n| queue[timers].after(Duration::ZERO, n)).collect();
    assert_eq!(queue.wait(None).unwrap(), 4);
    queue[timers].cancel(tokens[2]);
    let mut numbers = Vec::new();
    while let Some(stamped) = queue.next_stamped() {
        assert_eq!(stamped.source, timers.token());
        assert_eq!(stamped.token, tokens[stamped.event as usize]);
        numbers.push((stamped.event, stamped.sequence));
    }
    assert_eq!(numbers, [(0, 0), (1, 1), (3, 3)]);
    queue.post(9).unwrap();
    assert_eq!(queue.next_stamped().map(|stamped| stamped.sequence), Some(4));
}

#[test]
fn event_is_stamped_with_the_turn_in_which_it_was_seen() {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    // From here on it reads its clock.
    assert!(queue.next_stamped().is_none());
    let before = Instant::now();
    poster.post(1).unwrap();
    poster.post(2).unwrap();
    queue.wait(None).unwrap();
    let after = Instant::now();
    let first = queue.next_stamped().unwrap();
    poster.post(3).unwrap();
    let second = queue.next_stamped().unwrap();
    queue.wait(None).unwrap();
    let third = queue.next_stamped().unwrap();
    assert!((before..=after).contains(&first.seen));
    assert_eq!(first.seen, second.seen, "both were seen in one turn");
    assert!(third.seen >= after, "seen in another turn, though it is the same source");
}

#[test]
fn events_that_came_before_anybody_asked_for_times_are_dated_when_the_next_turn_begins() {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    (0..3).for_each(|n| poster.post(n).unwrap());
    queue.wait(None).unwrap();
    assert_eq!(queue.next(), Some(0));
    queue.wait(Wait::poll().at_least(3)).unwrap();
    let between = Instant::now();
    poster.post(3).unwrap();
    queue.wait(Wait::poll().at_least(3)).unwrap();
    let seen = std::iter::from_fn(|| queue.next_stamped()).map(|stamped| stamped.seen);
    let seen: Vec<_> = seen.collect();
    assert!(seen[0] <= between && seen[1] == seen[0], "the next turn dated them");
    assert!(seen[2] >= between, "dated in its own turn, or when it was asked for");
}

#[test]
fn own_post_comes_out_in_order_and_needs_no_source() {
    let mut queue = Queue::with_capacity(2.try_into().unwrap()).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    (10..12).for_each(|n| poster.post(n).unwrap());
    queue.post(1).unwrap();
    assert_eq!(queue.wait(Wait::poll().at_least(3)).unwrap(), 3, "sources have their own room");
    queue.post(2).unwrap();
    assert_eq!(queue.post(3).unwrap_err().0, 3, "it comes back");
    let taken: Vec<_> = std::iter::from_fn(|| queue.next_stamped()).collect();
    assert_eq!(taken.iter().map(|t| t.event).collect::<Vec<_>>(), [1, 10, 11, 2]);
    assert_eq!(taken[0].source, Token::SOLE);
    assert_eq!((queue.stats().delivered, queue.stats().refused), (4, 1));
}

#[test]
fn program_that_posts_to_itself_does_not_starve_its_sources() {
    let mut queue = Queue::with_capacity(1.try_into().unwrap()).unwrap();
    let timers = queue.attach(Timers::new(), |_| true).unwrap();
    queue[timers].after(Duration::from_millis(2), 0);
    queue.post(false).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        queue.wait(None).unwrap();
        match queue.next() {
            Some(true) => break,
            _ => queue.post(false).unwrap(),
        }
        assert!(Instant::now() < deadline, "the timer never came");
    }
}
