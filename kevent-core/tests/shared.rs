//! What a queue promises that many threads harvest.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use kevent_core::{
    Counters, Due, PollSet, Poster, Queue, SharedQueue, Sink, Source, SourceId, Timers, Token,
    UserEvents, Wait,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const THREADS: usize = 4;

fn shared_queue() -> (SharedQueue<u64>, Poster<u64>, SourceId<Timers>) {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    (SharedQueue::new(queue).unwrap(), poster, timers)
}

/// Waits until that many more sleeps were begun: then so many threads sleep that never slept before.
fn await_sleeps(shared: &SharedQueue<u64>, before: u64, sleeps: usize) {
    let deadline = Instant::now() + PATIENCE;
    while shared.lock().stats().polls < before + sleeps as u64 {
        assert!(Instant::now() < deadline, "the threads do not sleep");
        thread::yield_now();
    }
}

/// Lets the threads of a test go home, also when it fails.
struct Closing(SharedQueue<u64>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Threads that sleep for one event each, say which, and are gone.
fn takers<'s>(
    scope: &'s Scope<'s, '_>,
    shared: &SharedQueue<u64>,
    count: usize,
) -> (mpsc::Receiver<Option<u64>>, Closing) {
    let before = shared.lock().stats().polls;
    let (say, said) = mpsc::channel();
    for _ in 0..count {
        let (mut shared, say) = (shared.clone(), say.clone());
        scope.spawn(move || {
            let taken = catch_unwind(AssertUnwindSafe(|| shared.next(None).unwrap()));
            let _ = say.send(taken.ok().flatten());
        });
    }
    let closing = Closing(shared.clone());
    await_sleeps(shared, before, count);
    (said, closing)
}

#[test]
fn each_event_comes_out_at_exactly_one_thread() {
    const EACH: u64 = 20_000;
    let (shared, poster, timers) = shared_queue();
    let all = 2 * EACH + 200;
    let (say, said) = mpsc::channel();
    let taken = thread::scope(|scope| {
        let _closing = Closing(shared.clone());
        for _ in 0..THREADS {
            let (mut shared, say) = (shared.clone(), say.clone());
            scope.spawn(move || {
                while let Some(n) = shared.next(None).unwrap() {
                    say.send(n).unwrap();
                }
            });
        }
        for p in 0..2 {
            let poster = poster.clone();
            scope.spawn(move || (0..EACH).for_each(|n| poster.post(p * EACH + n).unwrap()));
        }
        for n in 0..200 {
            shared.lock()[timers].after(Duration::from_micros(n * 50), 2 * EACH + n);
        }
        (0..all).map(|_| said.recv_timeout(PATIENCE).unwrap()).collect::<Vec<_>>()
    });
    // Whatever came beyond those.
    drop(say);
    let taken: Vec<u64> = taken.into_iter().chain(said).collect();
    let different: HashSet<_> = taken.iter().collect();
    assert_eq!((taken.len() as u64, different.len() as u64), (all, all));
}

#[test]
fn one_event_wakes_one_thread() {
    let (shared, poster, _) = shared_queue();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, THREADS);
        let sleeps = shared.lock().stats().polls;
        for n in 0..THREADS as u64 {
            poster.post(n).unwrap();
            assert_eq!(said.recv_timeout(PATIENCE), Ok(Some(n)));
            assert_eq!(shared.lock().stats().polls, sleeps, "somebody woke for nothing");
        }
    });
}

#[test]
fn events_that_come_together_wake_a_thread_each() {
    let (shared, poster, _) = shared_queue();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, THREADS);
        (0..THREADS as u64).for_each(|n| poster.post(n).unwrap());
        let all: HashSet<_> =
            (0..THREADS).map(|_| said.recv_timeout(PATIENCE).unwrap().unwrap()).collect();
        assert_eq!(all.len(), THREADS);
    });
}

#[test]
fn timer_wakes_one_thread_also_when_it_was_armed_after_all_fell_asleep() {
    let (shared, _poster, timers) = shared_queue();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, THREADS);
        for n in 0..THREADS as u64 {
            let sleeps = shared.lock().stats().polls;
            shared.lock()[timers].after(Duration::from_millis(5), n);
            assert_eq!(said.recv_timeout(PATIENCE), Ok(Some(n)));
            // One woke to hear of the new deadline and slept again.
            let woken = shared.lock().stats().polls - sleeps;
            assert!(woken <= 1, "a timer woke {woken} threads and the one that took it");
        }
    });
}

#[test]
fn timer_wakes_the_next_thread_while_one_is_busy_with_the_timer_before() {
    let (shared, _poster, timers) = shared_queue();
    thread::scope(|scope| {
        // They take one event each, and do not come back.
        let (said, _closing) = takers(scope, &shared, THREADS);
        let (now, mut queue) = (Instant::now(), shared.lock());
        for n in 0..THREADS as u64 {
            queue[timers].at(now + Duration::from_millis(20 * (n + 1)), n);
        }
        drop(queue);
        for n in 0..THREADS as u64 {
            assert_eq!(said.recv_timeout(PATIENCE), Ok(Some(n)));
        }
    });
}

/// Has as many events as are given to it, and wakes nobody for them.
struct Silent(Arc<AtomicU64>);

impl Source for Silent {
    type Item = u64;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.0.load(Ordering::SeqCst) > 0 { Due::Now } else { Due::OnWake })
    }

    fn drain(&mut self, sink: &mut impl Sink<u64>) -> io::Result<()> {
        while self.0.load(Ordering::SeqCst) > 0 && sink.push(Token::SOLE, 0).is_ok() {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[test]
fn look_of_a_thread_that_is_awake_takes_no_wake_up_from_those_who_sleep() {
    let (mut shared, poster, _) = shared_queue();
    let given = Arc::new(AtomicU64::new(0));
    shared.lock().attach(Silent(Arc::clone(&given)), |n| n).unwrap();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, 1);
        let asleep = shared.lock().stats().polls;
        // This thread is busy, until its queue looks at the kernel on the way.
        while shared.lock().stats().polls == asleep {
            given.fetch_add(1, Ordering::SeqCst);
            assert_eq!(shared.next(None).unwrap(), Some(0));
        }
        poster.post(7).unwrap();
        assert_eq!(said.recv_timeout(PATIENCE), Ok(Some(7)));
    });
}

/// Has one event at a time: the next once the last was delivered.
struct Chain {
    left: u64,
    delivered: bool,
}

impl Source for Chain {
    type Item = u64;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.delivered && self.left > 0 { Due::Now } else { Due::OnWake })
    }

    fn drain(&mut self, sink: &mut impl Sink<u64>) -> io::Result<()> {
        if self.delivered && self.left > 0 && sink.push(Token::SOLE, self.left).is_ok() {
            (self.left, self.delivered) = (self.left - 1, false);
        }
        Ok(())
    }

    fn deliver(&mut self, _: Token) -> bool {
        self.delivered = true;
        true
    }
}

#[test]
fn what_follows_from_a_delivery_wakes_the_next_thread() {
    let (shared, _poster, _) = shared_queue();
    thread::scope(|scope| {
        // They take one event each, and do not come back.
        let (said, _closing) = takers(scope, &shared, THREADS);
        let chain = Chain { left: THREADS as u64, delivered: true };
        shared.lock().attach(chain, |n| n).unwrap();
        // Which thread says so first is not the queue's business.
        let all: HashSet<_> = (0..THREADS).map(|_| said.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(all, (1..=THREADS as u64).map(Some).collect());
    });
}

#[test]
fn thread_that_dies_in_its_turn_leaves_the_others_awake() {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue
        .attach(users, |n: u64| {
            assert!(n != 13, "that one can't be wrapped");
            n
        })
        .unwrap();
    let shared = SharedQueue::new(queue).unwrap();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, 2);
        // In the ring at one time: the first dies before it takes the second out.
        poster.post(13).unwrap();
        poster.post(14).unwrap();
        let said: Vec<_> = (0..2).map(|_| said.recv_timeout(PATIENCE).unwrap()).collect();
        assert!(said.contains(&None) && said.contains(&Some(14)), "{said:?}");
    });
}

#[test]
fn nothing_of_what_was_removed_comes_out_at_another_thread() {
    let (shared, _poster, timers) = shared_queue();
    let mut guard = shared.lock();
    let tokens: Vec<_> = (0..3).map(|n| guard[timers].after(Duration::ZERO, n)).collect();
    assert_eq!(guard.wait(Wait::poll().at_least(3)).unwrap(), 3, "they are in the ring");
    drop(guard);
    thread::scope(|scope| {
        scope.spawn(|| shared.lock()[timers].cancel(tokens[1])).join().unwrap();
        let mut other = shared.clone();
        let taken = scope.spawn(move || {
            std::iter::from_fn(|| other.next(Wait::poll()).unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(taken.join().unwrap(), [0, 2]);
    });
}

#[test]
fn all_come_back_when_they_are_called_and_sleep_again_afterwards() {
    let (shared, poster, _) = shared_queue();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, THREADS);
        shared.wake_all();
        for _ in 0..THREADS {
            assert_eq!(said.recv_timeout(PATIENCE), Ok(None));
        }
        // Nobody was there to be called: who comes later sleeps.
        shared.wake_all();
        let (said, _closing) = takers(scope, &shared, 1);
        let sleeps = shared.lock().stats().polls;
        assert_eq!(shared.clone().next(Duration::from_millis(5)).unwrap(), None);
        poster.post(5).unwrap();
        assert_eq!(said.recv_timeout(PATIENCE), Ok(Some(5)));
        let sleeps = shared.lock().stats().polls - sleeps;
        assert!(sleeps < 4, "the call went on sounding: {sleeps} sleeps instead of one");
    });
}

#[test]
fn closed_queue_is_emptied_and_lets_nobody_sleep() {
    let (mut shared, poster, _) = shared_queue();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, THREADS);
        shared.close();
        (0..THREADS).for_each(|_| assert_eq!(said.recv_timeout(PATIENCE), Ok(None)));
    });
    poster.post(1).unwrap();
    assert_eq!(shared.next(None).unwrap(), Some(1));
    assert_eq!(shared.next(None).unwrap(), None);
}

#[test]
fn closed_queue_gives_out_what_the_kernel_has() {
    let mut queue = Queue::new().unwrap();
    let counters = queue.attach(Counters::new(), |event| event.value).unwrap();
    let (_, adder) = queue[counters].sum(0).unwrap();
    let mut shared = SharedQueue::new(queue).unwrap();
    adder.add(5).unwrap();
    shared.close();
    assert_eq!(shared.next(None).unwrap(), Some(5));
    assert_eq!(shared.next(None).unwrap(), None);
}

#[test]
fn interrupt_brings_one_thread_back() {
    let (shared, poster, _) = shared_queue();
    let interrupter = shared.lock().interrupter();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, THREADS);
        interrupter.interrupt();
        assert_eq!(said.recv_timeout(PATIENCE), Ok(None));
        assert_eq!(shared.lock().stats().interrupts, 1);
        (1..THREADS as u64).for_each(|n| poster.post(n).unwrap());
        let rest: HashSet<_> =
            (1..THREADS).map(|_| said.recv_timeout(PATIENCE).unwrap().unwrap()).collect();
        assert_eq!(rest.len(), THREADS - 1);
    });
}

#[test]
fn thread_whose_time_has_passed_comes_back_alone() {
    let (mut shared, poster, _) = shared_queue();
    thread::scope(|scope| {
        let (said, _closing) = takers(scope, &shared, THREADS);
        let began = Instant::now();
        assert_eq!(shared.next(Duration::from_millis(10)).unwrap(), None);
        assert!(began.elapsed() >= Duration::from_millis(10));
        (0..THREADS as u64).for_each(|n| poster.post(n).unwrap());
        (0..THREADS).for_each(|_| assert!(said.recv_timeout(PATIENCE).unwrap().is_some()));
    });
}

#[test]
fn error_of_a_source_is_told_to_one_thread_and_the_others_go_on() {
    use kevent_core::{Due, PollSet, Sink, Source};
    struct Broken(bool);
    impl Source for Broken {
        type Item = u64;
        fn attach(&mut self, _: &PollSet) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&mut self) -> std::io::Result<Due> {
            if std::mem::take(&mut self.0) {
                return Err(std::io::Error::other("it broke"));
            }
            Ok(Due::OnWake)
        }
        fn drain(&mut self, _: &mut impl Sink<u64>) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (mut shared, poster, _) = shared_queue();
    let broken = shared.lock().attach(Broken(false), |n| n).unwrap();
    poster.post(3).unwrap();
    shared.lock()[broken].0 = true;
    assert!(shared.next(Wait::poll()).unwrap_err().to_string().contains("it broke"));
    assert_eq!(shared.next(PATIENCE).unwrap(), Some(3));
}

#[test]
fn wall_clock_is_refused_with_advice() {
    let (mut shared, ..) = shared_queue();
    let error = shared.next(std::time::SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("at_wall"), "{error}");
}
