//! Many tasks on one queue.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::executor::LocalPool;
use futures::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};
use kevent_core::{
    EventStream, Poster, Queue, Router, Routes, SourceId, Stamped, TimerEvent, Timers, UserEvents,
    block_on,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Tick(u64),
    Post(u64),
}

type Events = EventStream<Event>;

/// A router that is polled by hand.
struct Bench {
    router: Router<Events>,
    routes: Routes<Events>,
    timers: SourceId<Timers>,
    users: SourceId<UserEvents<u64>>,
    poster: Poster<u64>,
}

fn queue() -> (Queue<Event>, SourceId<Timers>, SourceId<UserEvents<u64>>, Poster<u64>) {
    let mut queue = Queue::new().unwrap();
    let tick = |event: TimerEvent| Event::Tick(event.key);
    let timers = queue.attach(Timers::new(), tick).unwrap();
    let (users, poster) = UserEvents::new();
    let users = queue.attach(users, Event::Post).unwrap();
    (queue, timers, users, poster)
}

/// Posts have the key of their last digit.
fn bench() -> Bench {
    let (queue, timers, users, poster) = queue();
    let router = Router::new(EventStream::new(queue).unwrap()).key_by(last_digit);
    Bench { routes: router.routes(), router, timers, users, poster }
}

fn last_digit(stamped: &Stamped<Event>) -> Option<u64> {
    if let Event::Post(n) = stamped.event { Some(n % 10) } else { None }
}

/// A task that is polled by hand: counts how often it is woken, and says so.
struct Task {
    count: AtomicUsize,
    say: Mutex<mpsc::Sender<()>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        let _ = self.say.lock().unwrap().send(());
    }
}

struct Hand {
    task: Arc<Task>,
    waker: Waker,
    woken: mpsc::Receiver<()>,
}

fn hand() -> Hand {
    let (say, woken) = mpsc::channel();
    let task = Arc::new(Task { count: AtomicUsize::new(0), say: Mutex::new(say) });
    Hand { waker: Waker::from(Arc::clone(&task)), task, woken }
}

impl Hand {
    fn poll<S: Stream + Unpin>(&self, stream: &mut S) -> Poll<Option<S::Item>> {
        Pin::new(stream).poll_next(&mut Context::from_waker(&self.waker))
    }

    fn wakes(&self) -> usize {
        self.task.count.load(Ordering::SeqCst)
    }

    fn await_wake(&self, why: &str) {
        self.woken.recv_timeout(PATIENCE).expect(why);
    }

    /// Polls until nothing more comes.
    fn all<T>(&self, stream: &mut (impl Stream<Item = T> + Unpin)) -> Vec<T> {
        let mut all = Vec::new();
        while let Poll::Ready(Some(event)) = self.poll(stream) {
            all.push(event);
        }
        all
    }

    /// What comes out of the router.
    fn drive(&self, router: &mut Router<Events>) -> Vec<Event> {
        self.all(router).into_iter().map(|event| event.unwrap().event).collect()
    }
}

fn events(stamped: Vec<Stamped<Event>>) -> Vec<Event> {
    stamped.into_iter().map(|stamped| stamped.event).collect()
}

/// Fails, instead of hanging, when a wake-up was lost.
fn in_time<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = test();
        done.send(()).unwrap();
        result
    });
    if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs");
    }
    thread.join().unwrap()
}

/// The second future to its end, with the first beside it.
async fn beside<T>(driver: impl Future<Output = io::Error>, main: impl Future<Output = T>) -> T {
    let (mut driver, mut main) = (std::pin::pin!(driver), std::pin::pin!(main));
    poll_fn(|cx| {
        assert!(driver.as_mut().poll(cx).is_pending(), "a source failed");
        main.as_mut().poll(cx)
    })
    .await
}

/// Drives, and expects that nothing is nobody's.
async fn drive<Q: kevent_core::PollEvents<Event = Event>>(mut router: Router<Q>) -> io::Error {
    match router.next().await {
        Ok(stamped) => panic!("{:?} came to nobody", stamped.event),
        Err(error) => error,
    }
}

const TASKS: u64 = 1_000;

/// One of a thousand: three timers, one after the other, by token.
async fn three_ticks<Q: kevent_core::PollEvents<Event = Event>>(
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
        assert_eq!(ticks.next().await.unwrap().event, Event::Tick(key));
    }
}

#[test]
fn thousand_tasks_each_get_their_own_on_block_on() {
    in_time(|| {
        let (queue, timers, ..) = queue();
        block_on(queue, |events| async move {
            let router = Router::new(events);
            let routes = router.routes();
            let tasks: FuturesUnordered<_> =
                (0..TASKS).map(|key| three_ticks(routes.clone(), timers, key)).collect();
            beside(drive(router), tasks.collect::<()>()).await;
            assert_eq!((routes.stats().routed, routes.stats().subscriptions), (3 * TASKS, 0));
        })
        .unwrap();
    });
}

#[test]
fn thousand_tasks_each_get_their_own_in_a_pool_of_futures() {
    in_time(|| {
        let (queue, timers, ..) = queue();
        let router = Router::new(EventStream::new(queue).unwrap());
        let routes = router.routes();
        let tasks: FuturesUnordered<_> =
            (0..TASKS).map(|key| three_ticks(routes.clone(), timers, key)).collect();
        LocalPool::new().run_until(beside(drive(router), tasks.collect::<()>()));
        assert_eq!(routes.stats().routed, 3 * TASKS);
    });
}

#[test]
fn event_that_nobody_subscribed_to_comes_out_of_the_router() {
    let mut bench = bench();
    let hand = hand();
    let mut own = bench.routes.subscribe_key(1).unwrap();
    [1, 2, 11, 12].into_iter().for_each(|n| bench.poster.post(n).unwrap());
    assert_eq!(hand.drive(&mut bench.router), [Event::Post(2), Event::Post(12)]);
    assert_eq!(events(hand.all(&mut own)), [Event::Post(1), Event::Post(11)]);
    let stats = bench.routes.stats();
    assert_eq!((stats.routed, stats.unclaimed), (2, 2));
    assert!(!bench.router.is_terminated());
}

#[test]
fn key_goes_before_registration_and_that_before_source() {
    let mut bench = bench();
    let hand = hand();
    let mut queue = bench.routes.lock();
    // Due at once: whoever subscribes with the queue locked misses nothing.
    let first = queue[bench.timers].after(Duration::ZERO, 1);
    queue[bench.timers].after(Duration::ZERO, 2);
    let mut first = bench.routes.subscribe(bench.timers, first).unwrap();
    let mut ticks = bench.routes.subscribe_source(bench.timers).unwrap();
    drop(queue);
    let mut posts = bench.routes.subscribe_source(bench.users).unwrap();
    let mut sevens = bench.routes.subscribe_key(7).unwrap();
    [6, 7, 8].into_iter().for_each(|n| bench.poster.post(n).unwrap());
    let mut taken = 0;
    while taken < 5 {
        assert_eq!(hand.drive(&mut bench.router), []);
        taken = first.len() + ticks.len() + posts.len() + sevens.len();
    }
    assert_eq!(events(hand.all(&mut first)), [Event::Tick(1)]);
    assert_eq!(events(hand.all(&mut ticks)), [Event::Tick(2)]);
    assert_eq!(events(hand.all(&mut posts)), [Event::Post(6), Event::Post(8)]);
    assert_eq!(events(hand.all(&mut sevens)), [Event::Post(7)]);
}

#[test]
fn second_subscription_to_the_same_is_refused_until_the_first_is_gone() {
    let bench = bench();
    let first = bench.routes.subscribe_key(1).unwrap();
    let second = bench.routes.subscribe_key(1).unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
    drop(first);
    bench.routes.subscribe_key(1).unwrap();
}

#[test]
fn source_of_another_queue_is_refused() {
    let (bench, other) = (bench(), bench());
    let token = other.routes.lock()[other.timers].after(Duration::ZERO, 1);
    let refused = bench.routes.subscribe(other.timers, token).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    let refused = bench.routes.subscribe_source(other.timers).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn task_that_takes_nothing_holds_up_nobody_and_loses_nothing() {
    let Bench { router, routes, poster, .. } = bench();
    let mut router = router.inboxes(NonZeroUsize::new(4).unwrap());
    let hand = hand();
    let mut lazy = routes.subscribe_key(1).unwrap();
    let mut busy = routes.subscribe_key(2).unwrap();
    let mut rest = Vec::new();
    for n in 0..100 {
        poster.post(n * 10 + 1).unwrap();
        poster.post(n * 10 + 2).unwrap();
        rest.extend(hand.drive(&mut router));
        assert_eq!(events(hand.all(&mut busy)), [Event::Post(n * 10 + 2)]);
    }
    let late = (4..100).map(|n| Event::Post(n * 10 + 1)).collect::<Vec<_>>();
    assert_eq!(rest, late);
    assert_eq!((lazy.diverted(), busy.diverted(), routes.stats().diverted), (96, 0, 96));
    let early = (0..4).map(|n| Event::Post(n * 10 + 1)).collect::<Vec<_>>();
    assert_eq!(events(hand.all(&mut lazy)), early);
    // It has caught up.
    poster.post(1).unwrap();
    assert_eq!(hand.drive(&mut router), []);
    assert_eq!(lazy.len(), 1);
}

#[test]
fn what_a_dropped_subscription_has_not_handed_out_comes_out_of_the_router() {
    let mut bench = bench();
    let (driver, task) = (hand(), hand());
    let mut subscription = bench.routes.subscribe_key(1).unwrap();
    (0..5).for_each(|n| bench.poster.post(n * 10 + 1).unwrap());
    assert_eq!(driver.drive(&mut bench.router), []);
    assert_eq!(driver.wakes(), 0);
    assert!(task.poll(&mut subscription).is_ready());
    drop(subscription);
    assert_eq!(driver.wakes(), 1, "the driver is told");
    bench.poster.post(51).unwrap();
    let rest: Vec<_> = (1..6).map(|n| Event::Post(n * 10 + 1)).collect();
    assert_eq!(driver.drive(&mut bench.router), rest);
    assert_eq!(bench.routes.stats().left, 4);
}

#[test]
fn batch_wakes_the_driver_once_and_each_task_once() {
    let mut bench = bench();
    let driver = hand();
    assert_eq!(driver.drive(&mut bench.router), []);
    let mut tasks: Vec<_> =
        (0..10).map(|key| (hand(), bench.routes.subscribe_key(key).unwrap())).collect();
    for (hand, subscription) in &mut tasks {
        assert!(hand.poll(subscription).is_pending());
    }
    (0..100).for_each(|n| bench.poster.post(n).unwrap());
    driver.await_wake("nobody woke the driver");
    assert_eq!(driver.drive(&mut bench.router), []);
    assert_eq!(driver.wakes(), 1);
    for (hand, subscription) in &mut tasks {
        assert_eq!(hand.wakes(), 1);
        assert_eq!(hand.all(subscription).len(), 10);
        assert_eq!(hand.wakes(), 1);
    }
}

#[test]
fn task_that_always_has_an_event_lets_others_run() {
    let mut bench = bench();
    let (driver, task) = (hand(), hand());
    let mut own = bench.routes.subscribe_key(1).unwrap();
    (0..500).for_each(|n| bench.poster.post(n * 10 + 1).unwrap());
    while own.len() < 500 {
        assert_eq!(driver.drive(&mut bench.router), [], "a driver, too");
    }
    assert!(driver.wakes() > 0);
    let taken = task.all(&mut own).len();
    assert!((1..500).contains(&taken), "{taken} in a row");
    assert_eq!(task.wakes(), 1, "it goes on after the others");
}

#[test]
fn one_driver_wakes_however_many_stand_by() {
    let bench = bench();
    let mut drivers: Vec<_> = (0..4).map(|_| (hand(), bench.router.clone())).collect();
    let (task, mut own) = (hand(), bench.routes.subscribe_key(1).unwrap());
    for (hand, router) in &mut drivers {
        assert_eq!(hand.drive(router), []);
    }
    for n in 0..20 {
        bench.poster.post(n * 10 + 1).unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        let woken = loop {
            if let Some(woken) = drivers.iter().position(|(hand, _)| hand.woken.try_recv().is_ok())
            {
                break woken;
            }
            assert!(std::time::Instant::now() < deadline, "no driver wakes");
            thread::yield_now();
        };
        let (hand, router) = &mut drivers[woken];
        assert_eq!(hand.drive(router), []);
        assert_eq!(task.all(&mut own).len(), 1);
        let wakes: usize = drivers.iter().map(|(hand, _)| hand.wakes()).sum();
        assert_eq!(wakes, n as usize + 1, "somebody woke for nothing");
    }
}

#[test]
fn driver_that_is_dropped_after_it_was_woken_passes_its_role_on() {
    let mut bench = bench();
    let mut other = bench.router.clone();
    let (first, second) = (hand(), hand());
    assert_eq!(first.drive(&mut bench.router), []);
    assert_eq!(second.drive(&mut other), []);
    bench.poster.post(1).unwrap();
    second.await_wake("the last to have come was not woken");
    assert_eq!(first.wakes(), 0);
    drop(other);
    first.await_wake("the role was dropped with the driver");
    assert_eq!(first.drive(&mut bench.router), [Event::Post(1)]);
}

#[test]
fn driver_that_goes_away_with_an_event_leaves_the_others_to_the_next() {
    let mut bench = bench();
    let mut other = bench.router.clone();
    let (first, second) = (hand(), hand());
    assert_eq!(first.drive(&mut bench.router), []);
    assert_eq!(second.drive(&mut other), []);
    (0..3).for_each(|n| bench.poster.post(n).unwrap());
    second.await_wake("the last to have come was not woken");
    assert!(second.poll(&mut other).is_ready(), "it takes one and does not come back");
    first.await_wake("nobody drives");
    assert_eq!(first.drive(&mut bench.router), [Event::Post(1), Event::Post(2)]);
}

#[test]
fn driver_that_panics_leaves_the_others_to_the_next() {
    let Bench { router, routes, poster, .. } = bench();
    let mut router = router.key_by(|stamped| {
        assert!(stamped.event != Event::Post(13), "that one can't be told");
        last_digit(stamped)
    });
    let mut other = router.clone();
    let (first, second, task) = (hand(), hand(), hand());
    let mut own = routes.subscribe_key(2).unwrap();
    assert!(task.poll(&mut own).is_pending());
    assert_eq!(first.drive(&mut router), []);
    [12, 13, 14].into_iter().for_each(|n| poster.post(n).unwrap());
    let died = catch_unwind(AssertUnwindSafe(|| second.poll(&mut other).is_ready()));
    assert!(died.is_err());
    task.await_wake("its event lies in its inbox, and it sleeps");
    assert_eq!(events(task.all(&mut own)), [Event::Post(12)]);
    drop(other);
    first.await_wake("nobody drives");
    assert_eq!(first.drive(&mut router), [Event::Post(14)]);
}

#[test]
fn subscriptions_end_with_the_last_router_and_not_before() {
    let Bench { mut router, routes, poster, .. } = bench();
    let mut other = router.clone();
    let (driver, task) = (hand(), hand());
    let mut empty = routes.subscribe_key(2).unwrap();
    let mut own = routes.subscribe_key(1).unwrap();
    assert!(task.poll(&mut empty).is_pending());
    drop(router.clone());
    poster.post(1).unwrap();
    assert_eq!(driver.drive(&mut router), []);
    drop(router);
    assert_eq!(task.wakes(), 0, "a router is left");
    poster.post(11).unwrap();
    assert_eq!(driver.drive(&mut other), []);
    drop(other);
    task.await_wake("it waits for ever");
    assert!(matches!(task.poll(&mut empty), Poll::Ready(None)));
    assert!(empty.is_terminated());
    assert_eq!(events(task.all(&mut own)), [Event::Post(1), Event::Post(11)]);
    let refused = routes.subscribe_key(3).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotConnected);
    assert!(routes.lock().is_empty(), "the queue is there as long as anybody has it");
}

#[test]
fn subscription_may_be_dropped_while_the_queue_is_locked() {
    let bench = bench();
    in_time(move || {
        let subscription = bench.routes.subscribe_key(1).unwrap();
        let queue = bench.routes.lock();
        drop(subscription);
        drop(queue);
    });
}

/// Drops what it holds when it is woken, as executors do with tasks that they can't run any more.
struct Dropping<T>(Mutex<Option<T>>);

impl<T: Send> Wake for Dropping<T> {
    fn wake(self: Arc<Self>) {
        let held = self.0.lock().unwrap().take();
        drop(held);
    }
}

#[test]
fn router_and_subscription_may_be_dropped_by_their_wakers() {
    let Bench { mut router, routes, poster, .. } = bench();
    in_time(move || {
        let mut own = routes.subscribe_key(1).unwrap();
        let mut other = router.clone();
        let task = Arc::new(Dropping(Mutex::new(None)));
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut other).poll_next(&mut cx).is_pending());
        assert!(Pin::new(&mut own).poll_next(&mut cx).is_pending());
        *task.0.lock().unwrap() = Some((other, own));
        let hand = hand();
        poster.post(1).unwrap();
        // Either the call of the queue drops them, or that of the inbox.
        let mut rest = Vec::new();
        while rest.is_empty() {
            rest = hand.drive(&mut router);
        }
        assert_eq!(rest, [Event::Post(1)]);
        assert!(task.0.lock().unwrap().is_none());
    });
}

#[test]
fn flood_for_one_task_starves_neither_the_others_nor_the_driver() {
    in_time(|| {
        let (queue, timers, users, poster) = queue();
        block_on(queue, |events| async move {
            let router = Router::new(events);
            let routes = router.routes();
            let mut flood = routes.subscribe_source(users).unwrap();
            let flooded = async {
                let mut next = 0;
                loop {
                    // As many as it takes out come in: there is always one.
                    while poster.post(next).is_ok() && next % 512 != 511 {
                        next += 1;
                    }
                    next += 1;
                    flood.next().await.unwrap();
                }
            };
            let ticking: FuturesUnordered<_> =
                (0..10).map(|key| three_ticks(routes.clone(), timers, key)).collect();
            let flooding = async {
                let (mut flooded, mut ticking) =
                    (std::pin::pin!(flooded), std::pin::pin!(ticking.collect::<()>()));
                poll_fn(|cx| {
                    let _: Poll<()> = flooded.as_mut().poll(cx);
                    ticking.as_mut().poll(cx)
                })
                .await;
            };
            let mut router = router;
            let driving = async {
                loop {
                    if let Err(error) = router.next().await {
                        return error;
                    }
                }
            };
            beside(driving, flooding).await;
        })
        .unwrap();
    });
}

#[test]
fn each_event_comes_out_once_whatever_is_dropped_by_hand() {
    let mut bench = bench();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut roll = move |sides: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % sides
    };
    let hand = hand();
    let mut seen = HashSet::new();
    let mut subscriptions: Vec<_> = (0..10).map(|_| None).collect();
    let mut posted = 0;
    for _ in 0..20_000 {
        let key = roll(10) as usize;
        match roll(6) {
            0 | 1 => {
                bench.poster.post(posted).unwrap();
                posted += 1;
            }
            2 => subscriptions[key] = None,
            3 if subscriptions[key].is_none() => {
                subscriptions[key] = Some(bench.routes.subscribe_key(key as u64).unwrap());
            }
            4 => {
                let router = bench.router.clone();
                if let Poll::Ready(Some(event)) = hand.poll(&mut bench.router) {
                    assert!(seen.insert(format!("{:?}", event.unwrap().event)));
                }
                bench.router = router;
            }
            _ => {
                if let Some(subscription) = &mut subscriptions[key] {
                    for event in events(hand.all(subscription)) {
                        assert!(seen.insert(format!("{event:?}")));
                    }
                }
            }
        }
    }
    drop(subscriptions);
    let rest = hand.drive(&mut bench.router).into_iter();
    rest.for_each(|event| assert!(seen.insert(format!("{event:?}"))));
    while seen.len() < posted as usize {
        hand.await_wake("an event was lost");
        let rest = hand.drive(&mut bench.router).into_iter();
        rest.for_each(|event| assert!(seen.insert(format!("{event:?}"))));
    }
}

/// Of an executor that is broken.
struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("as it is meant to");
    }
}

#[test]
fn waker_that_panics_keeps_no_other_task_from_being_woken() {
    for ends in [false, true] {
        let Bench { mut router, routes, poster, .. } = bench();
        let broken = Waker::from(Arc::new(Panicking));
        let (driver, tasks) = (hand(), [hand(), hand()]);
        let mut subscriptions = [0, 1, 2].map(|key| routes.subscribe_key(key).unwrap());
        let [first, middle, last] = &mut subscriptions;
        assert!(Pin::new(middle).poll_next(&mut Context::from_waker(&broken)).is_pending());
        for (task, subscription) in tasks.iter().zip([first, last]) {
            assert!(task.poll(subscription).is_pending());
        }
        if ends {
            drop(router);
        } else {
            (0..=3).for_each(|n| poster.post(n).unwrap());
            assert_eq!(driver.drive(&mut router), [Event::Post(3)], "that is nobody's");
        }
        assert_eq!(tasks.map(|task| task.wakes()), [1, 1]);
    }
}
