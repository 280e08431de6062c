//! Many tasks on one queue, on both runtimes of tokio.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use kevent_core::{
    AsyncQueue, EventStream, PollEvents, PostError, Poster, Queue, Router, Routes, SourceId,
    Timers, UserEvents,
};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn queue() -> (Queue<u64>, SourceId<Timers>, Poster<u64>) {
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |tick| tick.key).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    (queue, timers, poster)
}

fn on_both_runtimes<F: Future<Output = ()> + Send + 'static>(test: impl Fn() -> F) {
    let in_time = |test| async { timeout(PATIENCE, test).await.expect("it hangs") };
    Builder::new_current_thread().enable_all().build().unwrap().block_on(in_time(test()));
    let threads = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let task = threads.spawn(in_time(test()));
    threads.block_on(task).unwrap();
}

/// Three timers, one after the other, each awaited by its token.
async fn three_ticks<Q: PollEvents<Event = u64>>(
    routes: Routes<Q>,
    timers: SourceId<Timers>,
    key: u64,
) {
    for round in 0..3 {
        let mut ticks = {
            let mut queue = routes.lock();
            let delay = Duration::from_micros((key * 7 + round * 311) % 3_000);
            let token = queue[timers].after(delay, key);
            routes.subscribe(timers, token).unwrap()
        };
        assert_eq!(ticks.next().await.unwrap().event, key);
    }
}

async fn thousand_tasks<Q>(mut router: Router<Q>, timers: SourceId<Timers>)
where
    Q: PollEvents<Event = u64> + Send + 'static,
{
    const TASKS: u64 = 1_000;
    let routes = router.routes();
    let mut tasks = JoinSet::new();
    for key in 0..TASKS {
        tasks.spawn(three_ticks(routes.clone(), timers, key));
    }
    tokio::select! {
        rest = router.next() => panic!("{rest:?} is nobody's"),
        done = tasks.join_all() => assert_eq!(done.len() as u64, TASKS),
    }
    let stats = routes.stats();
    assert_eq!((stats.routed, stats.subscriptions), (3 * TASKS, 0));
}

#[test]
fn thousand_tasks_each_get_their_own() {
    on_both_runtimes(|| async {
        let (queue, timers, _) = queue();
        thousand_tasks(Router::new(AsyncQueue::new(queue).unwrap()), timers).await;
    });
}

#[test]
fn thousand_tasks_each_get_their_own_from_an_event_stream() {
    on_both_runtimes(|| async {
        let (queue, timers, _) = queue();
        thousand_tasks(Router::new(EventStream::new(queue).unwrap()), timers).await;
    });
}

#[test]
fn flood_for_one_task_starves_no_other() {
    on_both_runtimes(|| async {
        let (queue, timers, poster) = queue();
        let mut router = Router::new(AsyncQueue::new(queue).unwrap()).key_by(|s| Some(s.event));
        let routes = router.routes();
        let done = Arc::new(AtomicBool::new(false));
        let mut flood = routes.subscribe_key(7_777).unwrap();
        let over = Arc::clone(&done);
        let taking = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                // As many as it takes out come in: there is always one.
                for _ in 0..4 {
                    let _ = poster.post(7_777);
                }
                flood.next().await.unwrap();
            }
        });
        let ticking = tokio::spawn(async move {
            for key in 0..10 {
                three_ticks(routes.clone(), timers, key).await;
            }
        });
        let driving = tokio::spawn(async move { while router.next().await.is_ok() {} });
        ticking.await.unwrap();
        done.store(true, Ordering::Relaxed);
        taking.await.unwrap();
        driving.abort();
    });
}

/// Which events came out, and how many.
struct Tally {
    seen: Vec<AtomicU8>,
    count: AtomicU64,
}

impl Tally {
    fn saw(&self, event: u64) {
        let before = self.seen[event as usize].fetch_add(1, Ordering::Relaxed);
        assert_eq!(before, 0, "{event} came twice");
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) == self.seen.len() as u64
    }
}

const KEYS: u64 = 32;

fn roll(sides: u64) -> u64 {
    RandomState::new().build_hasher().finish() % sides
}

/// A time after which a future is dropped, wherever it is.
fn moment() -> Duration {
    Duration::from_micros(roll(300))
}

/// Subscribes to `key` again and again, takes some, and is dropped in the middle.
async fn take_some<Q: PollEvents<Event = u64>>(routes: Routes<Q>, key: u64, tally: Arc<Tally>) {
    while !tally.is_full() {
        let mut own = routes.subscribe_key(key).unwrap();
        let mut sequence = 0;
        for _ in 0..roll(200) {
            if let Ok(event) = timeout(moment(), own.next()).await {
                let event = event.expect("a router is left");
                assert!(event.sequence >= sequence, "it came too late");
                sequence = event.sequence;
                tally.saw(event.event);
            }
            if tally.is_full() {
                return;
            }
        }
        drop(own);
        // Some come while nobody has this key.
        yield_now().await;
    }
}

/// Drives for a moment, as a driver that stands by and goes again.
async fn drive_some<Q: PollEvents<Event = u64>>(source: Router<Q>, tally: Arc<Tally>) {
    while !tally.is_full() {
        let mut router = source.clone();
        for _ in 0..roll(50) {
            if let Ok(event) = timeout(moment(), router.next()).await {
                tally.saw(event.unwrap().event);
            }
        }
    }
}

async fn post_all(poster: Poster<u64>, events: std::ops::Range<u64>) {
    for n in events {
        let mut event = n;
        while let Err(PostError::Full(back)) = poster.post(event) {
            event = back;
            yield_now().await;
        }
        if n % 32 == 0 {
            yield_now().await;
        }
    }
}

async fn random_drops<Q>(events: Q, poster: Poster<u64>)
where
    Q: PollEvents<Event = u64> + Send + 'static,
{
    const EVENTS: u64 = 50_000;
    // Small inboxes, so that some are full.
    let router = Router::new(events)
        .key_by(|stamped| Some(stamped.event % KEYS))
        .inboxes(16.try_into().unwrap());
    let tally = Arc::new(Tally {
        seen: (0..EVENTS).map(|_| AtomicU8::new(0)).collect(),
        count: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for key in 0..KEYS {
        tasks.spawn(take_some(router.routes(), key, Arc::clone(&tally)));
    }
    for _ in 0..3 {
        tasks.spawn(drive_some(router.clone(), Arc::clone(&tally)));
    }
    for half in [0..EVENTS / 2, EVENTS / 2..EVENTS] {
        tasks.spawn(post_all(poster.clone(), half));
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let stats = router.routes().stats();
    assert_eq!(stats.routed + stats.unclaimed + stats.diverted, EVENTS);
    assert!(tally.seen.iter().all(|times| times.load(Ordering::Relaxed) == 1));
}

#[test]
fn each_event_comes_out_once_whatever_is_dropped() {
    on_both_runtimes(|| async {
        let (queue, _, poster) = queue();
        random_drops(AsyncQueue::new(queue).unwrap(), poster).await;
    });
}

#[test]
fn each_event_of_an_event_stream_comes_out_once_whatever_is_dropped() {
    on_both_runtimes(|| async {
        let (queue, _, poster) = queue();
        random_drops(EventStream::new(queue).unwrap(), poster).await;
    });
}
