//! A queue in tokio, on both kinds of runtime.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{FusedStream, StreamExt};
use kevent_core::{AsyncQueue, PostError, Poster, Queue, SourceId, TimerEvent, Timers, UserEvents};
use tokio::runtime::Builder;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, PartialEq)]
enum Event {
    Tick(u64),
    Post(u64),
}

struct Bench {
    queue: AsyncQueue<Event>,
    timers: SourceId<Timers>,
    poster: Poster<u64>,
}

/// To be called on a runtime.
fn bench() -> Bench {
    let mut queue = Queue::new().unwrap();
    let tick = |event: TimerEvent| Event::Tick(event.key);
    let timers = queue.attach(Timers::new(), tick).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, Event::Post).unwrap();
    Bench { queue: AsyncQueue::new(queue).unwrap(), timers, poster }
}

impl Bench {
    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.queue.next()).await.expect("no event came").unwrap()
    }
}

fn on_both_runtimes<F: Future<Output = ()> + Send + 'static>(test: impl Fn() -> F) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    let threads = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let task = threads.spawn(test());
    threads.block_on(task).unwrap();
}

#[test]
fn timers_and_posts_are_awaited() {
    on_both_runtimes(|| async {
        let mut bench = bench();
        let timers = bench.timers;
        bench.queue[timers].after(MS, 1);
        assert_eq!(bench.next().await, Event::Tick(1));
        let poster = bench.poster.clone();
        tokio::spawn(async move { poster.post(2).unwrap() });
        assert_eq!(bench.next().await, Event::Post(2));
        // Armed after the queue was left asleep, and one earlier than the first.
        bench.queue[timers].after(20 * MS, 4);
        bench.queue[timers].after(2 * MS, 3);
        assert_eq!(bench.next().await, Event::Tick(3));
        assert_eq!(bench.next().await, Event::Tick(4));
    });
}

#[test]
fn periodic_timer_goes_on() {
    on_both_runtimes(|| async {
        let mut bench = bench();
        let timers = bench.timers;
        let token = bench.queue[timers].every(MS, 7);
        for _ in 0..20 {
            assert_eq!(bench.next().await, Event::Tick(7));
        }
        assert!(bench.queue[timers].cancel(token));
        assert!(timeout(10 * MS, bench.queue.next()).await.is_err(), "cancelled is silent");
    });
}

#[test]
fn ten_thousand_posts_from_tasks_arrive() {
    on_both_runtimes(|| async {
        let mut bench = bench();
        for task in 0..10 {
            let poster = bench.poster.clone();
            tokio::spawn(async move {
                for n in 0..1000 {
                    post_when_there_is_room(&poster, task * 1000 + n).await;
                    if n % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        let mut seen = vec![false; 10_000];
        for _ in 0..10_000 {
            let Event::Post(n) = bench.next().await else { panic!("no timer is armed") };
            assert!(!std::mem::replace(&mut seen[n as usize], true), "{n} came twice");
        }
        assert!(timeout(5 * MS, bench.queue.next()).await.is_err());
    });
}

async fn post_when_there_is_room(poster: &Poster<u64>, event: u64) {
    let mut event = event;
    while let Err(PostError::Full(back)) = poster.post(event) {
        event = back;
        tokio::task::yield_now().await;
    }
}

#[test]
fn next_that_is_dropped_loses_no_event() {
    on_both_runtimes(|| async {
        let mut bench = bench();
        let timers = bench.timers;
        bench.queue[timers].every(Duration::from_micros(300), 0);
        let poster = bench.poster.clone();
        tokio::spawn(async move {
            for n in 0..500 {
                poster.post(n).unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut expected = 0;
        while expected < 500 {
            // Dropped in the middle, by a timeout and by the other branch of a select.
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                event = timeout(Duration::from_micros(100), bench.queue.next()) => {
                    if let Ok(Ok(Event::Post(n))) = event {
                        assert_eq!(n, expected, "an event was lost");
                        expected += 1;
                    }
                }
            }
        }
    });
}

#[test]
fn queue_comes_back_out_of_the_runtime() {
    on_both_runtimes(|| async {
        let mut bench = bench();
        bench.poster.post(1).unwrap();
        assert_eq!(bench.next().await, Event::Post(1));
        bench.poster.post(2).unwrap();
        let mut queue = bench.queue.into_inner();
        assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
        assert_eq!(queue.next(), Some(Event::Post(2)));
    });
}

#[test]
fn task_that_always_has_an_event_lets_others_run() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bench = bench();
        let has_run = Arc::new(AtomicBool::new(false));
        let ran = Arc::clone(&has_run);
        tokio::spawn(async move { ran.store(true, Ordering::Relaxed) });
        for n in 0..10_000 {
            bench.poster.post(n).unwrap();
            assert_eq!(bench.queue.next().await.unwrap(), Event::Post(n));
            if has_run.load(Ordering::Relaxed) {
                return;
            }
        }
        panic!("the other task starves");
    });
}

#[test]
fn queue_is_a_stream_that_does_not_end() {
    on_both_runtimes(|| async {
        let mut bench = bench();
        let timers = bench.timers;
        let poster = bench.poster.clone();
        (0..10).for_each(|n| poster.post(n).unwrap());
        let posts: Vec<_> = bench.queue.by_ref().take(10).map(Result::unwrap).collect().await;
        assert_eq!(posts, (0..10).map(Event::Post).collect::<Vec<_>>());
        bench.queue[timers].after(MS, 7);
        let tick = timeout(PATIENCE, StreamExt::next(&mut bench.queue)).await.unwrap();
        assert_eq!(tick.unwrap().unwrap(), Event::Tick(7));
        assert!(!bench.queue.is_terminated());
    });
}

#[test]
fn stamps_come_with_the_events() {
    on_both_runtimes(|| async {
        let mut bench = bench();
        let timers = bench.timers;
        let token = bench.queue[timers].after(MS, 7);
        let stamped = timeout(PATIENCE, bench.queue.next_stamped()).await.unwrap().unwrap();
        assert_eq!((stamped.sequence, stamped.source), (0, timers.token()));
        assert_eq!((stamped.token, stamped.event), (token, Event::Tick(7)));
    });
}
