//! What a queue says of itself.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{Queue, Timers, Token, UserEvents, Wait};

#[test]
fn stalled_loop_names_the_event_it_is_in() {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n: u64| n).unwrap();
    let mut monitor = queue.stall_monitor();
    // Attached after the monitor came: its name is known, too.
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let stuck = queue[timers].after(Duration::ZERO, 1);
    poster.post(0).unwrap();

    let threshold = Duration::from_millis(5);
    let (go_on, wait_for) = mpsc::channel::<()>();
    let (say, said) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            while queue.stats().delivered < 2 {
                queue.wait(None).unwrap();
                while let Some(event) = queue.next() {
                    if event == 1 {
                        let _ = wait_for.recv();
                    }
                }
            }
            queue.wait(Duration::ZERO).unwrap();
            say.send(()).unwrap();
        });
        let began = Instant::now();
        let stall = loop {
            if let Some(stall) = monitor.check(threshold) {
                break stall;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "no stall was seen");
        };
        assert_eq!((stall.source, stall.token), (timers.token(), stuck));
        assert!(stall.source_name.ends_with("Timers"), "{stall}");
        assert!((threshold..began.elapsed()).contains(&stall.lasted), "{stall}");
        drop(go_on);
        said.recv().unwrap();
        assert_eq!(monitor.check(Duration::ZERO), None, "the loop is back in the queue");
    });
}

#[test]
fn watched_loop_keeps_to_its_budget() {
    let mut queue = Queue::new().unwrap();
    let mut monitor = queue.stall_monitor();
    (0..5).for_each(|n| queue.post(n).unwrap());
    assert_eq!(queue.wait(Wait::poll().at_most(2)).unwrap(), 2);
    assert_eq!((queue.next(), queue.next(), queue.next()), (Some(0), Some(1), None));
    monitor.check(Duration::ZERO);
    let stall = monitor.check(Duration::ZERO).unwrap();
    assert_eq!((stall.sequence, stall.source), (1, Token::SOLE));
    assert_eq!(queue.wait(None).unwrap(), 3);
    assert_eq!(std::iter::from_fn(|| queue.next()).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn snapshot_tells_what_each_source_did() {
    let mut queue = Queue::with_capacity(8.try_into().unwrap()).unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    (0..6).for_each(|n| poster.post(n).unwrap());
    let cancelled = queue[timers].after(Duration::ZERO, 10);
    queue[timers].after(Duration::ZERO, 11);
    queue.wait(None).unwrap();
    queue[timers].cancel(cancelled);
    while queue.next().is_some() {}
    queue.wait(None).unwrap();

    let snapshot = queue.snapshot();
    assert_eq!((snapshot.capacity, snapshot.len), (8, 2));
    let [(name, of_timers), (_, of_users)] = &snapshot.sources[..] else { panic!("two sources") };
    assert!(name.ends_with("Timers"));
    assert_eq!((of_timers.delivered, of_timers.stale, of_timers.batches.max()), (1, 1, 2));
    assert_eq!((of_users.delivered, of_users.in_ring, of_users.most_in_ring), (4, 2, 4));
    assert_eq!((of_users.held_back, of_users.batches.count()), (1, 2));
    assert_eq!((snapshot.stats.delivered, snapshot.stats.stale), (5, 1));
    let text = snapshot.to_string();
    assert!(text.contains("2 of 8 in the ring, 5 delivered, 1 stale"), "{text}");
    assert_eq!(text.lines().count(), 4);
}

#[test]
fn time_in_the_hands_of_the_user_is_told() {
    let mut queue: Queue<u32> = Queue::new().unwrap();
    let pause = Duration::from_millis(1);
    let sleep = Duration::from_millis(500);
    queue.wait(Duration::ZERO).unwrap();
    // One of sixteen is measured.
    for _ in 0..32 {
        let handling = Instant::now();
        while handling.elapsed() < pause {}
        queue.wait(Duration::ZERO).unwrap();
    }
    // Asleep, nobody waits for anybody.
    queue.wait(sleep).unwrap();
    (0..32).for_each(|_| assert_eq!(queue.wait(Duration::ZERO).unwrap(), 0));
    let stats = queue.stats();
    for times in [stats.handling, stats.lag] {
        let max = u128::from(times.max());
        assert!((pause.as_nanos()..sleep.as_nanos()).contains(&max), "{stats:?}");
        assert!((32..=66).contains(&times.count()), "each stands for sixteen: {stats:?}");
    }
}
