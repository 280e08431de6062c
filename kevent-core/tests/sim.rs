//! The simulated queue: no time but made-up time, and the same run from the same seed.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use kevent_core::testing::Sim;
use kevent_core::{
    ChildQueue, Flow, Idle, Order, Overflow, ProcessEvent, Processes, Queue, SharedQueue, Signal,
    SignalEvent, Signals, TimerEvent, TimerKind, Timers, UserEvents, Wait,
};
use proptest::prelude::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Takes out all that is there.
fn taken<E: 'static>(queue: &mut Queue<E>) -> Vec<E> {
    std::iter::from_fn(|| queue.next()).collect()
}

#[test]
fn days_of_timers_and_timeouts_take_no_time() {
    let begun = Instant::now();
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    queue[timers].every(s(3600), 1);
    for hour in 1..=72 {
        assert_eq!(queue.wait(None).unwrap(), 1);
        assert_eq!(taken(&mut queue), [1]);
        assert_eq!(sim.elapsed(), s(hour * 3600), "to the nanosecond");
        assert_eq!(queue.wait(s(3599)).unwrap(), 0);
        assert_eq!(sim.elapsed(), s(hour * 3600 + 3599));
    }
    assert!(begun.elapsed() < s(5), "{:?}", begun.elapsed());
}

#[test]
fn wait_that_nothing_will_ever_end_says_so() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    queue[timers].after(s(90), 1);
    queue.wait(None).unwrap();
    assert_eq!(queue.next(), Some(1));
    let error = queue.wait(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    assert!(error.to_string().contains("90s"), "{error}");
    // It is an answer and no end: the queue goes on.
    queue[timers].after(s(1), 2);
    assert_eq!(queue.wait(None).unwrap(), 1);
}

#[test]
fn loop_that_waits_for_time_and_never_lets_it_pass_is_told() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    queue[timers].after(s(1), 1);
    let error = loop {
        match queue.wait(Wait::poll()) {
            Ok(found) => assert_eq!(found, 0),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("livelock"), "{error}");
    sim.advance(s(1));
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 1);
}

#[test]
fn steps_happen_at_their_times_and_post_interrupt_and_add_others() {
    let sim = Sim::new(3);
    let mut queue = sim.queue().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    let later = poster.clone();
    sim.at(s(10), move |sim| {
        poster.post(sim.elapsed()).unwrap();
        sim.after(s(5), move |sim| later.post(sim.elapsed()).unwrap());
    });
    let interrupter = queue.interrupter();
    sim.at(s(12), move |_| interrupter.interrupt());
    for (time, events) in [(10, vec![s(10)]), (12, vec![]), (15, vec![s(15)])] {
        queue.wait(None).unwrap();
        assert_eq!((sim.elapsed(), taken(&mut queue)), (s(time), events));
    }
    assert_eq!(queue.stats().interrupts, 1);
}

#[test]
fn repeated_step_ends_when_it_says_so() {
    let sim = Sim::new(3);
    let mut queue = sim.queue().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    let mut left = 3;
    sim.every(s(60), move |sim| {
        poster.post(sim.elapsed().as_secs()).unwrap();
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut times = Vec::new();
    while queue.wait(None).is_ok() {
        times.extend(taken(&mut queue));
    }
    assert_eq!(times, [60, 120, 180]);
}

#[test]
fn what_is_waited_for_comes_within_its_time() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    for n in [1, 2, 9] {
        let poster = poster.clone();
        sim.at(s(n), move |_| poster.post(n).unwrap());
    }
    // Five are wanted, for three seconds; then those that are there will do.
    assert_eq!(queue.wait(Wait::forever().at_least(5).within(s(3))).unwrap(), 2);
    assert_eq!((sim.elapsed(), taken(&mut queue)), (s(3), vec![1, 2]));
    // None is there after three seconds; then the first will do.
    assert_eq!(queue.wait(Wait::forever().at_least(5).within(s(3))).unwrap(), 1);
    assert_eq!(sim.elapsed(), s(9));
    let deadline = sim.now() + s(4);
    taken(&mut queue);
    assert_eq!(queue.wait(Wait::until(deadline)).unwrap(), 0);
    assert_eq!(sim.now(), deadline);
}

#[test]
fn wall_timers_follow_the_scripts_wall_clock() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| event).unwrap();
    let noon = sim.clock().wall() + s(1000);
    queue[timers].at_wall(noon, 7).unwrap();
    // After 100 s the clock is put back by 500 s, and a minute later forward beyond noon.
    sim.at(s(100), move |sim| sim.set_wall_clock(noon - s(1400)));
    sim.at(s(160), move |sim| sim.set_wall_clock(noon + s(1)));
    let mut told = Vec::new();
    for _ in 0..3 {
        queue.wait(None).unwrap();
        told.extend(taken(&mut queue).into_iter().map(|event| (event.kind, sim.elapsed())));
    }
    let stepped = TimerKind::ClockStepped;
    assert_eq!(told, [(stepped, s(100)), (stepped, s(160)), (TimerKind::Fired, s(160))]);
    assert_eq!(queue.wait(None).unwrap_err().kind(), ErrorKind::Deadlock);
}

#[test]
fn wall_timer_fires_when_the_clock_gets_there() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let begun = sim.clock().wall();
    for n in [30, 10, 20] {
        queue[timers].at_wall(begun + s(n), n).unwrap();
    }
    for n in [10, 20, 30] {
        queue.wait(None).unwrap();
        assert_eq!((taken(&mut queue), sim.elapsed()), (vec![n], s(n)));
    }
}

#[test]
fn wait_until_a_wall_clock_time_follows_the_scripts_wall_clock() {
    let sim = Sim::new(1);
    let mut queue: Queue<()> = sim.queue().unwrap();
    let deadline = sim.clock().wall() + s(100);
    sim.at(s(10), move |sim| sim.set_wall_clock(deadline - s(5)));
    queue.wait(Wait::until_wall(deadline)).unwrap();
    assert_eq!((sim.elapsed(), sim.clock().wall()), (s(15), deadline));
    assert!(SystemTime::now() > deadline, "the machine's clock is another");
}

#[test]
fn late_program_finds_all_that_happened_meanwhile() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| (event.key, event.missed)).unwrap();
    queue[timers].every(s(1), 1);
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| (n, 0)).unwrap();
    sim.at(s(2), move |_| poster.post(2).unwrap());
    sim.advance(ms(10_500));
    let mut events = Vec::new();
    while events.len() < 2 {
        queue.wait(None).unwrap();
        events.extend(taken(&mut queue));
    }
    events.sort_unstable();
    assert_eq!(events, [(1, 9), (2, 0)]);
    assert_eq!(sim.elapsed(), ms(10_500));
}

#[test]
fn injected_signals_and_child_exits_come_as_if_they_had_happened() {
    #[derive(Debug)]
    enum Event {
        Signal(SignalEvent),
        Exit(ProcessEvent),
    }
    let sim = Sim::new(5);
    let mut queue = sim.queue().unwrap();
    let signals = queue.attach(Signals::new([]).unwrap(), Event::Signal).unwrap();
    let processes = queue.attach(Processes::new(), Event::Exit).unwrap();
    sim.at(s(1), move |sim| {
        let exit = Some(ExitStatus::from_raw(3 << 8));
        sim.inject(processes, None, ProcessEvent::for_test(7, 1234, exit));
    });
    sim.at(s(2), move |sim| sim.inject(signals, None, SignalEvent::for_test(Signal::TERM)));
    queue.wait(None).unwrap();
    let Some(Event::Exit(exit)) = queue.next() else { panic!("no exit") };
    assert_eq!((exit.key, exit.pid, exit.exit.unwrap().code()), (7, 1234, Some(3)));
    assert_eq!(sim.elapsed(), s(1));
    queue.wait(None).unwrap();
    let Some(Event::Signal(signal)) = queue.next() else { panic!("no signal") };
    assert_eq!((signal.signal, signal.count), (Signal::TERM, 1));
    let stats = queue.source_stats(signals).unwrap();
    assert_eq!((stats.delivered, stats.in_ring), (1, 0), "it was counted like any other");
}

#[test]
fn injected_event_of_a_registration_is_withheld_once_that_is_removed() {
    let sim = Sim::new(5);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event: TimerEvent| event.key).unwrap();
    let [kept, removed] = [1, 2].map(|key| queue[timers].after(s(100), key));
    for (token, key) in [(Some(kept), 1), (Some(removed), 2), (None, 3)] {
        sim.inject(timers, token, TimerEvent::for_test(key, sim.now()));
    }
    assert_eq!(queue.wait(None).unwrap(), 3);
    assert!(queue[timers].cancel(removed));
    assert_eq!(taken(&mut queue), [1, 3]);
    assert!(queue[timers].is_empty(), "the timer ended with its event");
    assert_eq!(queue.wait(None).unwrap_err().kind(), ErrorKind::Deadlock);
}

#[test]
fn injected_events_keep_to_the_terms_of_their_source_and_none_is_lost() {
    let sim = Sim::new(5);
    let three = NonZeroUsize::new(3).unwrap();
    let mut queue = sim.queue_with_capacity(three).unwrap();
    let (users, _poster) = UserEvents::new();
    let users = queue.attach(users, |n: u32| n).unwrap();
    queue.set_flow(users, Flow::new().high_water(NonZeroUsize::new(2).unwrap()));
    (0..100).for_each(|n| sim.inject(users, None, n));
    let mut all = Vec::new();
    while all.len() < 100 {
        assert!((1..=2).contains(&queue.wait(None).unwrap()));
        all.extend(taken(&mut queue));
    }
    assert!(all.into_iter().eq(0..100));
    // Those that are dropped by the terms are none of the source's business.
    queue.set_flow(users, Flow::new().overflow(Overflow::Count));
    (0..100).for_each(|n| sim.inject(users, None, n));
    let mut came = 0;
    while queue.wait(s(1)).unwrap() > 0 {
        came += taken(&mut queue).len() as u64;
    }
    assert_eq!(came + queue.source_stats(users).unwrap().dropped, 100);
}

#[test]
fn injected_event_of_a_source_that_is_gone_is_nothing() {
    let sim = Sim::new(5);
    let mut queue = sim.queue().unwrap();
    let (users, _poster) = UserEvents::new();
    let users = queue.attach(users, |n: u32| n).unwrap();
    sim.inject(users, None, 1);
    queue.detach(users);
    assert_eq!(queue.wait(s(1)).unwrap(), 0);
}

#[test]
fn two_queues_share_the_time() {
    let sim = Sim::new(5);
    let (mut one, mut other) = (sim.queue().unwrap(), sim.queue().unwrap());
    let here = one.attach(Timers::new(), |event| event.key).unwrap();
    let there = other.attach(Timers::new(), |event| event.key).unwrap();
    one[here].after(s(10), 1);
    other[there].after(s(4), 2);
    sim.inject(there, None, TimerEvent::for_test(3, sim.now()));
    one.wait(None).unwrap();
    assert_eq!((sim.elapsed(), taken(&mut one)), (s(10), vec![1]));
    other.wait(None).unwrap();
    assert_eq!((sim.elapsed(), taken(&mut other)), (s(10), vec![3, 2]));
}

#[test]
fn shared_queue_goes_by_made_up_time() {
    let sim = Sim::new(5);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    for n in [30, 10, 20] {
        queue[timers].after(s(n), n);
    }
    let mut shared = SharedQueue::new(queue).unwrap();
    for n in [10, 20, 30] {
        assert_eq!(shared.next(None).unwrap(), Some(n));
        assert_eq!(sim.elapsed(), s(n));
    }
    assert_eq!(shared.next(s(5)).unwrap(), None);
    assert_eq!(sim.elapsed(), s(35));
    assert_eq!(shared.next(None).unwrap_err().kind(), ErrorKind::Deadlock);
}

#[test]
fn child_queue_goes_by_made_up_time_and_tells_what_is_injected_into_it() {
    let sim = Sim::new(5);
    let mut child = sim.queue().unwrap();
    let timers = child.attach(Timers::new(), |event: TimerEvent| event.key).unwrap();
    child[timers].after(s(10), 1);
    child[timers].after(s(20), 2);
    let mut queue = sim.queue().unwrap();
    queue.attach(ChildQueue::new(child), |key| key).unwrap();
    sim.at(s(15), move |sim| sim.inject(timers, None, TimerEvent::for_test(3, sim.now())));
    for (time, key) in [(10, 1), (15, 3), (20, 2)] {
        queue.wait(None).unwrap();
        assert_eq!((taken(&mut queue), sim.elapsed()), (vec![key], s(time)));
    }
}

#[test]
fn idleness_comes_before_time_passes() {
    let sim = Sim::new(5);
    let mut queue = sim.queue().unwrap();
    queue.attach(Idle::new(), |idle| idle.count).unwrap();
    let timers = queue.attach(Timers::new(), |event: TimerEvent| event.key).unwrap();
    queue[timers].after(s(10), 100);
    for (time, event) in [(0, 1), (10, 100), (10, 2)] {
        queue.wait(None).unwrap();
        assert_eq!((taken(&mut queue), sim.elapsed()), (vec![event], s(time)));
    }
    assert_eq!(queue.wait(None).unwrap_err().kind(), ErrorKind::Deadlock);
}

#[test]
fn patience_waits_for_what_a_thread_does() {
    let sim = Sim::new(5);
    sim.set_patience(s(30));
    let mut queue = sim.queue().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n: u32| n).unwrap();
    let (go, gone) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        gone.recv().unwrap();
        poster.post(1).unwrap();
    });
    go.send(()).unwrap();
    assert_eq!(queue.wait(s(3600)).unwrap(), 1);
    assert_eq!(sim.elapsed(), Duration::ZERO);
    thread.join().unwrap();
}

/// A run of three sources, with steps and timers at the same times.
fn trace(seed: u64) -> Vec<(u64, u64, Duration)> {
    let sim = Sim::new(seed);
    let mut queue = sim.queue().unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let mut dice = sim.dice();
    let posters: Vec<_> = (0..2)
        .map(|_| {
            let (users, poster) = UserEvents::new();
            queue.attach(users, |n| n).unwrap();
            poster
        })
        .collect();
    for n in 0..20 {
        queue[timers].after(ms(dice.below(5)), n);
        let poster = dice.pick(&posters).unwrap().clone();
        sim.at(ms(dice.below(5)), move |_| poster.post(100 + n).unwrap());
    }
    let mut trace = Vec::new();
    while queue.wait(None).is_ok() {
        while let Some(stamped) = queue.next_stamped() {
            trace.push((stamped.event, stamped.sequence, sim.elapsed()));
        }
    }
    assert_eq!(trace.len(), 40, "each came once");
    trace
}

#[test]
fn strict_order_holds_in_made_up_time() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let mut queue = sim.queue().unwrap();
        queue.set_order(Order::Strict);
        let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
        let (users, poster) = UserEvents::new();
        queue.attach(users, |n| n).unwrap();
        let mut dice = sim.dice();
        for _ in 0..50 {
            let [at, post] = [(); 2].map(|()| dice.below(1000));
            queue[timers].after(ms(at), at);
            let poster = poster.clone();
            sim.at(ms(post), move |_| poster.post(post).unwrap());
        }
        // The program is late, and finds most of it at once.
        sim.advance(ms(600));
        let mut times: Vec<u64> = Vec::new();
        while queue.wait(None).is_ok() {
            times.extend(taken(&mut queue));
        }
        assert_eq!(times.len(), 100);
        // Steps are late as well, where the program is; timers know when they were due.
        let late = times.iter().filter(|at| **at <= 600).count();
        let (_, rest) = times.split_at(late);
        assert!(rest.is_sorted(), "seed {seed}: {times:?}");
    }
}

/// What comes of it with fifty seeds.
fn outcomes<T: Ord>(run: impl Fn(Sim) -> T) -> BTreeSet<T> {
    (0..50).map(|seed| run(Sim::new(seed))).collect()
}

#[test]
fn sources_that_both_have_something_may_be_heard_in_either_order() {
    let orders = outcomes(|sim| {
        let mut queue = sim.queue().unwrap();
        for n in [1, 2] {
            let (users, poster) = UserEvents::new();
            queue.attach(users, |n: u32| n).unwrap();
            poster.post(n).unwrap();
        }
        queue.wait(None).unwrap();
        taken(&mut queue)
    });
    assert_eq!(orders, [vec![1, 2], vec![2, 1]].into());
}

#[test]
fn steps_of_one_time_may_happen_in_either_order() {
    let orders = outcomes(|sim| {
        let mut queue = sim.queue().unwrap();
        let (users, poster) = UserEvents::new();
        queue.attach(users, |n: u32| n).unwrap();
        for n in [1, 2] {
            let poster = poster.clone();
            sim.at(s(1), move |_| poster.post(n).unwrap());
        }
        queue.wait(Wait::forever().at_least(2)).unwrap();
        taken(&mut queue)
    });
    assert_eq!(orders, [vec![1, 2], vec![2, 1]].into());
}

#[test]
fn event_at_the_very_deadline_may_be_in_time_or_too_late() {
    let counts = outcomes(|sim| {
        let mut queue = sim.queue().unwrap();
        let (users, poster) = UserEvents::new();
        queue.attach(users, |n: u32| n).unwrap();
        sim.at(s(10), move |_| poster.post(1).unwrap());
        let count = queue.wait(s(10)).unwrap();
        assert_eq!(sim.elapsed(), s(10));
        assert_eq!(count + queue.wait(Wait::poll()).unwrap(), 1 + count, "it is not lost");
        count
    });
    assert_eq!(counts, [0, 1].into());
}

#[test]
fn seed_decides_the_order_that_the_contract_leaves_open() {
    let orders: HashSet<_> = (0..20).map(trace).collect();
    assert!(orders.len() > 15, "{} orders of 20 seeds", orders.len());
}

proptest! {
    #[test]
    fn same_seed_is_the_same_run(seed: u64) {
        prop_assert_eq!(trace(seed), trace(seed));
    }
}
