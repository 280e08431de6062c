//! What timers promise, through a queue.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use kevent_core::{Queue, SourceId, TimerChange, TimerEvent, TimerKind, Timers, Wait};

const MS: Duration = Duration::from_millis(1);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn queue_of(capacity: usize) -> (Queue<TimerEvent>, SourceId<Timers>) {
    let mut queue = Queue::with_capacity(capacity.try_into().unwrap()).unwrap();
    let timers = queue.attach(Timers::new(), |event| event).unwrap();
    (queue, timers)
}

fn next(queue: &mut Queue<TimerEvent>) -> TimerEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = queue.next() {
            return event;
        }
        assert!(Instant::now() < deadline, "no event came");
        queue.wait(deadline).unwrap();
    }
}

/// Lets time pass without the queue: here time itself is what is waited for.
fn let_pass(time: Duration) {
    thread::sleep(time);
}

#[test]
fn timer_never_fires_early() {
    let (mut queue, timers) = queue_of(64);
    for micros in [0, 1, 10, 65, 66, 100, 500, 1000, 4200, 9000] {
        let delay = Duration::from_micros(micros);
        let armed = Instant::now();
        let token = queue[timers].after(delay, micros);
        let event = next(&mut queue);
        assert!(armed.elapsed() >= delay, "{micros} us fired after {:?}", armed.elapsed());
        assert_eq!((event.token, event.key, event.missed), (token, micros, 0));
        assert_eq!(event.kind, TimerKind::Fired);
        assert!(event.deadline >= armed + delay && event.deadline <= Instant::now());
    }
    assert!(queue[timers].is_empty());
}

#[test]
fn timer_has_no_millisecond_grain() {
    let (mut queue, timers) = queue_of(8);
    let delay = Duration::from_micros(200);
    let soonest = (0..50).map(|_| {
        let armed = Instant::now();
        queue[timers].after(delay, 0);
        next(&mut queue);
        armed.elapsed()
    });
    let soonest = soonest.min().unwrap();
    assert!(soonest < Duration::from_micros(700), "the best of 50 took {soonest:?}");
}

#[test]
fn absolute_deadline_is_kept_and_a_past_one_fires_at_once() {
    let (mut queue, timers) = queue_of(8);
    let now = Instant::now();
    queue[timers].at(now + 3 * MS, 3);
    queue[timers].at(now - MS, 1);
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 1, "the one in the past needs no waiting");
    assert_eq!(next(&mut queue).key, 1);
    let event = next(&mut queue);
    assert_eq!((event.key, event.deadline), (3, now + 3 * MS));
    assert!(Instant::now() >= now + 3 * MS);
}

#[test]
fn due_timers_come_in_the_order_of_deadline_then_of_arming() {
    let (mut queue, timers) = queue_of(64);
    let base = Instant::now() + MS;
    for (key, micros) in [(5, 300), (1, 10), (2, 10), (6, 7000), (3, 10), (4, 299)] {
        queue[timers].at(base + Duration::from_micros(micros), key);
    }
    let_pass(10 * MS);
    assert_eq!(queue.wait(PATIENCE).unwrap(), 6);
    let keys: Vec<_> = std::iter::from_fn(|| queue.next()).map(|event| event.key).collect();
    assert_eq!(keys, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn full_ring_keeps_the_timers_and_their_order() {
    let (mut queue, timers) = queue_of(3);
    let tokens: Vec<_> = (0..10).map(|key| queue[timers].after(Duration::ZERO, key)).collect();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 3);
    assert_eq!(queue.stats().refused, 1);
    // One in the ring, and two that wait at the source.
    for key in [1, 4, 7] {
        assert!(queue[timers].cancel(tokens[key]));
    }
    let keys: Vec<_> = (0..7).map(|_| next(&mut queue).key).collect();
    assert_eq!(keys, [0, 2, 3, 5, 6, 8, 9]);
    assert!(queue[timers].is_empty());
}

#[test]
fn cancelling_takes_back_an_event_that_is_in_the_ring() {
    let (mut queue, timers) = queue_of(8);
    let cancelled = queue[timers].after(Duration::ZERO, 1);
    let periodic = queue[timers].every(MS, 2);
    let_pass(2 * MS);
    assert_eq!(queue.wait(PATIENCE).unwrap(), 2);
    assert!(queue[timers].cancel(cancelled));
    assert!(!queue[timers].cancel(cancelled), "cancelled twice");
    assert!(queue[timers].cancel(periodic));
    assert!(queue.next().is_none());
    assert_eq!(queue.stats().stale, 2);
    assert!(queue[timers].is_empty());
}

#[test]
fn token_of_a_fired_timer_does_not_hit_its_successor() {
    let (mut queue, timers) = queue_of(8);
    let first = queue[timers].after(Duration::ZERO, 1);
    assert_eq!(queue[timers].len(), 1);
    assert_eq!(next(&mut queue).key, 1);
    let second = queue[timers].after(Duration::ZERO, 2);
    assert_eq!(first.slot(), second.slot(), "the slot is used again");
    assert!(!queue[timers].cancel(first));
    assert_eq!(next(&mut queue).key, 2);
}

#[test]
fn periodic_timer_that_is_not_served_counts_what_it_missed_and_keeps_its_phase() {
    let (mut queue, timers) = queue_of(8);
    let armed = Instant::now();
    queue[timers].every(MS, 7);
    let_pass(50 * MS);
    queue.wait(PATIENCE).unwrap();
    let late = next(&mut queue);
    let passed = Instant::now().duration_since(armed).as_millis() as u64;
    assert_eq!(late.key, 7);
    assert!((49..passed).contains(&late.missed), "missed {} in {passed} ms", late.missed);
    // Every later event continues where the one before stopped.
    let mut due = late.deadline + MS * (late.missed as u32 + 1);
    for _ in 0..20 {
        let event = next(&mut queue);
        assert_eq!(event.deadline, due);
        assert!(Instant::now() >= event.deadline, "early");
        due += MS * (event.missed as u32 + 1);
    }
}

#[test]
fn periodic_timer_has_one_event_on_its_way_and_no_more() {
    let (mut queue, timers) = queue_of(8);
    queue[timers].every(Duration::from_micros(10), 0);
    for _ in 0..5 {
        let_pass(MS);
        assert_eq!(queue.wait(PATIENCE).unwrap(), 1, "the ring holds one event of it");
    }
    let in_ring = queue.next().unwrap();
    // The ticks that passed while it lay in the ring are in the next one.
    let after = next(&mut queue);
    let ticks = in_ring.missed + 1;
    assert_eq!(after.deadline, in_ring.deadline + Duration::from_micros(10) * ticks as u32);
    assert!(after.missed >= 300, "4 ms in the ring are 400 ticks, not {}", after.missed);
}

#[test]
fn zero_period_does_not_hang_the_queue() {
    let (mut queue, timers) = queue_of(8);
    let token = queue[timers].every(Duration::ZERO, 1);
    for _ in 0..3 {
        assert_eq!(next(&mut queue).key, 1);
    }
    assert!(queue[timers].cancel(token));
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 0);
}

#[test]
fn timer_beyond_the_clock_stands_and_never_fires() {
    let (mut queue, timers) = queue_of(8);
    let never = queue[timers].after(Duration::MAX, 0);
    let hardly = queue[timers].every(Duration::MAX, 1);
    let centuries = queue[timers].after(Duration::from_secs(500 * 365 * 86_400), 2);
    assert_eq!(queue.wait(3 * MS).unwrap(), 0);
    assert_eq!(queue[timers].len(), 3);
    assert!([never, hardly, centuries].into_iter().all(|token| queue[timers].cancel(token)));
}

#[test]
fn sleeping_for_a_timer_takes_two_looks_and_an_idle_source_none() {
    let (mut queue, timers) = queue_of(8);
    queue[timers].after(20 * MS, 0);
    next(&mut queue);
    // One that sleeps until the deadline, one spare for a signal or a clock that rounds down.
    assert!(queue.stats().polls <= 4, "{} looks for one timer", queue.stats().polls);
}

#[test]
fn ten_thousand_timers_come_once_each_and_in_order() {
    let (mut queue, timers) = queue_of(256);
    let base = Instant::now();
    // A permutation of 0..10_000, spread over 100 ms.
    for n in 0..10_000_u64 {
        let key = n * 7919 % 10_000;
        queue[timers].at(base + Duration::from_micros(key * 10), key);
    }
    let keys: Vec<_> = (0..10_000).map(|_| next(&mut queue).key).collect();
    assert_eq!(keys, (0..10_000).collect::<Vec<_>>());
    assert!(queue[timers].is_empty());
}

#[test]
fn wall_timer_fires_when_the_wall_clock_gets_there() {
    let (mut queue, timers) = queue_of(8);
    let due = SystemTime::now() + 20 * MS;
    let token = queue[timers].at_wall(due, 5).unwrap();
    let event = next(&mut queue);
    assert!(SystemTime::now() >= due);
    assert_eq!((event.token, event.key, event.kind), (token, 5, TimerKind::Fired));
    assert!(queue[timers].is_empty());
}

#[test]
fn wall_timers_armed_before_attaching_or_in_the_past_fire() {
    let mut source = Timers::new();
    let now = SystemTime::now();
    source.at_wall(now + 5 * MS, 3).unwrap();
    source.at_wall(now - PATIENCE, 2).unwrap();
    source.at_wall(SystemTime::UNIX_EPOCH - PATIENCE, 1).unwrap();
    let mut queue = Queue::new().unwrap();
    queue.attach(source, |event| event).unwrap();
    let keys: Vec<_> = (0..3).map(|_| next(&mut queue).key).collect();
    assert_eq!(keys, [1, 2, 3]);
}

#[test]
fn wall_timers_are_cancelled_like_others() {
    let (mut queue, timers) = queue_of(8);
    let now = SystemTime::now();
    let first = queue[timers].at_wall(now + 5 * MS, 1).unwrap();
    let past = queue[timers].at_wall(now - MS, 2).unwrap();
    queue[timers].at_wall(now + 10 * MS, 3).unwrap();
    let far = queue[timers].at_wall(now + Duration::from_secs(1 << 40), 4).unwrap();
    assert_eq!(queue.wait(Wait::timeout(MS)).unwrap(), 1);
    assert!(queue[timers].cancel(past), "its event is in the ring");
    assert!(queue[timers].cancel(first));
    assert!(!queue[timers].cancel(first));
    assert_eq!(next(&mut queue).key, 3);
    assert!(queue[timers].cancel(far));
    assert!(queue[timers].is_empty());
    let polls = queue.stats().polls;
    assert_eq!(queue.wait(3 * MS).unwrap(), 0);
    assert!(queue.stats().polls - polls <= 4, "the disarmed timerfd stays silent");
}

#[test]
fn detached_timers_can_be_attached_to_another_queue() {
    let (mut queue, timers) = queue_of(8);
    queue[timers].at_wall(SystemTime::now() + 5 * MS, 1).unwrap();
    queue[timers].after(8 * MS, 2);
    queue.wait(Wait::poll()).unwrap();
    let source = queue.detach(timers).unwrap();
    let mut other = Queue::new().unwrap();
    other.attach(source, |event| event).unwrap();
    assert_eq!(next(&mut other).key, 1);
    assert_eq!(next(&mut other).key, 2);
}

#[test]
fn event_in_the_ring_of_a_queue_that_the_timers_leave_comes_in_the_next() {
    let (mut queue, timers) = queue_of(8);
    let began = Instant::now();
    let once = queue[timers].at(began, 1);
    let wall = queue[timers].at_wall(SystemTime::now(), 2).unwrap();
    let every = queue[timers].every(MS, 3);
    let later = queue[timers].at_wall(SystemTime::now() + 20 * MS, 4).unwrap();
    queue.wait(Wait::forever().at_least(3)).unwrap();
    let source = queue.detach(timers).unwrap();
    assert_eq!(queue.next(), None);

    let mut other = Queue::new().unwrap();
    let timers = other.attach(source, |event| event).unwrap();
    let mut ticks = 0;
    let mut tokens = Vec::new();
    while !tokens.contains(&later) {
        let event = next(&mut other);
        if event.token == every {
            ticks += 1 + event.missed;
            let passed = event.deadline + u32::try_from(event.missed).unwrap() * MS;
            assert!(passed >= began + u32::try_from(ticks).unwrap() * MS, "a tick came twice");
            assert!(
                passed < began + u32::try_from(ticks + 1).unwrap() * MS + 2 * MS,
                "one is lost"
            );
        } else {
            tokens.push(event.token);
        }
    }
    tokens.sort_unstable();
    let mut expected = [once, wall, later];
    expected.sort_unstable();
    assert_eq!(tokens, expected, "each once");
    assert!(other[timers].cancel(every));
    assert!(other[timers].is_empty());
}

#[test]
fn each_of_several_changes_has_its_own_answer() {
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let gone = queue[timers].after(Duration::ZERO, 0);
    queue[timers].cancel(gone);
    let long = Duration::from_secs(1000);
    let wall = SystemTime::now() + long;
    let done = queue.change_and_wait(
        timers,
        [
            TimerChange::At(Instant::now(), 1),
            TimerChange::Cancel(gone),
            TimerChange::Every(long, 2),
            TimerChange::AtWall(wall, 3),
            TimerChange::After(long, 4),
        ],
        None,
    );
    assert_eq!((done.waited.unwrap(), queue.next()), (1, Some(1)));
    assert_eq!(done.changes[1].as_ref().unwrap_err().kind(), io::ErrorKind::NotFound);
    let tokens = [2, 3, 4].map(|n| *done.changes[n].as_ref().unwrap());
    assert_eq!(queue[timers].len(), 3);
    let cancelled = queue.change(timers, tokens.map(TimerChange::Cancel));
    assert!(cancelled.iter().zip(tokens).all(|(done, token)| *done.as_ref().unwrap() == token));
    assert!(queue[timers].is_empty());
}
