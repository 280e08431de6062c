//! A queue in executors that are not tokio's, and in `block_on`.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::executor::{self, LocalPool};
use futures::future::{self, Either};
use futures::stream::{FusedStream, StreamExt};
use futures::task::LocalSpawnExt;
use kevent_core::{
    EventStream, PollEvents, Poster, Queue, SourceId, TimerEvent, Timers, UserEvents, block_on,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, PartialEq)]
enum Event {
    Tick(u64),
    Post(u64),
}

struct Bench {
    queue: Queue<Event>,
    timers: SourceId<Timers>,
    poster: Poster<u64>,
}

fn bench() -> Bench {
    let mut queue = Queue::new().unwrap();
    let tick = |event: TimerEvent| Event::Tick(event.key);
    let timers = queue.attach(Timers::new(), tick).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, Event::Post).unwrap();
    Bench { queue, timers, poster }
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

type Main = Box<dyn FnOnce(EventStream<Event>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Both ways of sleeping on the queue: a helper's, and the thread's own.
fn on_both_threads<F: Future<Output = ()> + 'static>(
    test: impl Fn(EventStream<Event>, SourceId<Timers>, Poster<u64>) -> F + Copy + Send + 'static,
) {
    let main = move |bench: &Bench| -> Main {
        let (timers, poster) = (bench.timers, bench.poster.clone());
        Box::new(move |events| Box::pin(test(events, timers, poster)))
    };
    in_time(move || {
        let bench = bench();
        let main = main(&bench);
        executor::block_on(main(EventStream::new(bench.queue).unwrap()));
    });
    in_time(move || {
        let bench = bench();
        let main = main(&bench);
        block_on(bench.queue, main).unwrap();
    });
}

/// Lets the other futures of the task run once.
fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn timers_and_posts_are_awaited() {
    on_both_threads(|mut events, timers, poster| async move {
        events[timers].after(MS, 1);
        assert_eq!(events.next().await.unwrap(), Event::Tick(1));
        thread::spawn(move || poster.post(2).unwrap());
        assert_eq!(events.next().await.unwrap(), Event::Post(2));
        events[timers].after(20 * MS, 4);
        events[timers].after(2 * MS, 3);
        assert_eq!(events.next().await.unwrap(), Event::Tick(3));
        assert_eq!(events.next().await.unwrap(), Event::Tick(4));
    });
}

#[test]
fn combinators_take_it_as_a_stream_that_does_not_end() {
    on_both_threads(|mut events, _, poster| async move {
        (0..100).for_each(|n| poster.post(n).unwrap());
        let even = events.by_ref().filter_map(|event| {
            let n = if let Ok(Event::Post(n)) = event { Some(n) } else { None };
            future::ready(n.filter(|n| n % 2 == 0))
        });
        let taken: Vec<_> = even.take(50).collect().await;
        assert_eq!(taken, (0..100).step_by(2).collect::<Vec<_>>());
        assert!(!events.is_terminated());
    });
}

#[test]
fn stamps_come_with_the_events() {
    on_both_threads(|mut events, timers, poster| async move {
        poster.post(1).unwrap();
        assert_eq!(events.next_stamped().await.unwrap().sequence, 0);
        let token = events[timers].after(MS, 2);
        let stamped = events.next_stamped().await.unwrap();
        assert_eq!((stamped.sequence, stamped.source), (1, timers.token()));
        assert_eq!(stamped.token, token);
    });
}

/// Each post wakes the task that is about to fall asleep: a lost wake-up hangs.
#[test]
fn no_wake_up_is_lost_between_the_look_and_the_sleep() {
    on_both_threads(|mut events, _, poster| async move {
        let (ask, asked) = mpsc::channel();
        let posting = thread::spawn(move || {
            for n in asked {
                // Now before the task has looked, now after it, now when it sleeps.
                (0..n % 64 * 20).for_each(|_| std::hint::spin_loop());
                poster.post(n).unwrap();
            }
        });
        for n in 0..5_000 {
            ask.send(n).unwrap();
            assert_eq!(events.next().await.unwrap(), Event::Post(n));
        }
        drop(ask);
        posting.join().unwrap();
    });
}

#[test]
fn next_that_is_dropped_loses_no_event() {
    on_both_threads(|mut events, timers, poster| async move {
        events[timers].every(Duration::from_micros(300), 0);
        let posting = thread::spawn(move || {
            for n in 0..500 {
                poster.post(n).unwrap();
                thread::yield_now();
            }
        });
        let mut expected = 0;
        while expected < 500 {
            let next = std::pin::pin!(events.next());
            let other = std::pin::pin!(yield_now());
            if let Either::Left((Ok(Event::Post(n)), _)) = future::select(next, other).await {
                assert_eq!(n, expected, "an event was lost");
                expected += 1;
            }
        }
        posting.join().unwrap();
    });
}

#[test]
fn task_that_always_has_an_event_lets_others_run() {
    let mut bench = bench();
    bench.queue.attach(Endless, Event::Post).unwrap();
    let mut events = EventStream::new(bench.queue).unwrap();
    let has_run = AtomicBool::new(false);
    let mut pool = LocalPool::new();
    let others = async { has_run.store(true, Ordering::Relaxed) };
    let greedy = async {
        for _ in 0..10_000 {
            events.next().await.unwrap();
            if has_run.load(Ordering::Relaxed) {
                return;
            }
        }
        panic!("the other task starves");
    };
    pool.run_until(future::join(greedy, others));
}

/// A source that has an event whenever it is asked.
struct Endless;

impl kevent_core::Source for Endless {
    type Item = u64;

    fn attach(&mut self, _: &kevent_core::PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<kevent_core::Due> {
        Ok(kevent_core::Due::Now)
    }

    fn drain(&mut self, sink: &mut impl kevent_core::Sink<u64>) -> io::Result<()> {
        while sink.push(kevent_core::Token::SOLE, 0).is_ok() {}
        Ok(())
    }
}

/// Counts how often it is woken, and says so.
struct Counting(AtomicUsize, Mutex<mpsc::Sender<()>>);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let _ = self.1.lock().unwrap().send(());
    }
}

fn counting() -> (Arc<Counting>, Waker, mpsc::Receiver<()>) {
    let (say, woken) = mpsc::channel();
    let counting = Arc::new(Counting(AtomicUsize::new(0), Mutex::new(say)));
    (Arc::clone(&counting), Waker::from(counting), woken)
}

#[test]
fn task_is_woken_once_however_many_events_come_until_it_has_looked() {
    let bench = bench();
    let mut events = EventStream::new(bench.queue).unwrap();
    let (count, waker, woken) = counting();
    let mut cx = Context::from_waker(&waker);
    for round in 1..=50 {
        while events.poll_stamped(&mut cx).is_ready() {}
        (0..10).for_each(|n| bench.poster.post(n).unwrap());
        woken.recv_timeout(PATIENCE).expect("nobody woke the task");
        assert_eq!(count.0.load(Ordering::SeqCst), round, "woken for nothing");
        let mut taken = 0;
        while taken < 10 {
            taken += usize::from(events.poll_stamped(&mut cx).is_ready());
        }
        assert_eq!(count.0.load(Ordering::SeqCst), round, "woken while it was awake");
    }
}

#[test]
fn last_waker_is_the_one_that_is_woken() {
    let bench = bench();
    let mut events = EventStream::new(bench.queue).unwrap();
    let (first, second) = (counting(), counting());
    assert!(events.poll_stamped(&mut Context::from_waker(&first.1)).is_pending());
    assert!(events.poll_stamped(&mut Context::from_waker(&second.1)).is_pending());
    bench.poster.post(1).unwrap();
    second.2.recv_timeout(PATIENCE).expect("the second task waits in vain");
    assert_eq!(first.0.0.load(Ordering::SeqCst), 0);
}

/// Drops what it holds when it is woken, as executors do with tasks that they can't run any more.
struct Dropping(Mutex<Option<EventStream<Event>>>, Mutex<mpsc::Sender<()>>);

impl Wake for Dropping {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
        let _ = self.1.lock().unwrap().send(());
    }
}

#[test]
fn stream_may_be_dropped_by_its_own_waker() {
    let bench = bench();
    let mut events = EventStream::new(bench.queue).unwrap();
    let (say, dropped) = mpsc::channel();
    let holder = Arc::new(Dropping(Mutex::new(None), Mutex::new(say)));
    let waker = Waker::from(Arc::clone(&holder));
    let mut slot = holder.0.lock().unwrap();
    assert!(events.poll_stamped(&mut Context::from_waker(&waker)).is_pending());
    *slot = Some(events);
    drop(slot);
    bench.poster.post(1).unwrap();
    dropped.recv_timeout(PATIENCE).expect("the helper waits for itself");
    assert!(bench.poster.post(2).is_err(), "the queue is gone");
}

struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        // Without the trace of a panic, which a sanitizer takes longer to print than patience lasts.
        std::panic::resume_unwind(Box::new("an executor that is broken"));
    }
}

#[test]
fn waker_that_panics_does_not_leave_the_stream_without_a_thread() {
    in_time(|| {
        let bench = bench();
        let mut events = EventStream::new(bench.queue).unwrap();
        let waker = Waker::from(Arc::new(Panicking));
        assert!(events.poll_stamped(&mut Context::from_waker(&waker)).is_pending());
        for n in 0..10 {
            bench.poster.post(n).unwrap();
            assert_eq!(executor::block_on(events.next()).unwrap(), Event::Post(n));
        }
    });
}

#[test]
fn queue_comes_back_out_of_the_stream() {
    in_time(|| {
        let bench = bench();
        let mut events = EventStream::new(bench.queue).unwrap();
        bench.poster.post(1).unwrap();
        assert_eq!(executor::block_on(events.next()).unwrap(), Event::Post(1));
        bench.poster.post(2).unwrap();
        let mut queue = events.into_inner();
        assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
        assert_eq!(queue.next(), Some(Event::Post(2)));
    });
}

#[test]
fn what_was_done_to_the_queue_meanwhile_wakes_the_task() {
    in_time(|| {
        let bench = bench();
        let mut events = EventStream::new(bench.queue).unwrap();
        let (_, waker, woken) = counting();
        assert!(events.poll_stamped(&mut Context::from_waker(&waker)).is_pending());
        events[bench.timers].after(MS, 1);
        // First to hear of the deadline, then for the deadline.
        while events.poll_stamped(&mut Context::from_waker(&waker)).is_pending() {
            woken.recv_timeout(PATIENCE).expect("the deadline passed unheard");
        }
    });
}

#[test]
fn wakers_of_other_threads_end_the_sleep_of_block_on() {
    in_time(|| {
        let bench = bench();
        block_on(bench.queue, |mut events| async move {
            for n in 0..1_000_u64 {
                let (answer, answered) = oneshot::channel();
                thread::spawn(move || answer.send(n).unwrap());
                // Two things at a time: the queue stays silent.
                match future::select(answered, std::pin::pin!(events.next())).await {
                    Either::Left((answer, _)) => assert_eq!(answer.unwrap(), n),
                    Either::Right((event, _)) => panic!("nobody posted {event:?}"),
                }
            }
        })
        .unwrap();
    });
}

#[test]
fn task_that_never_sleeps_does_not_keep_the_queue_from_being_heard() {
    in_time(|| {
        let bench = bench();
        let poster = bench.poster;
        block_on(bench.queue, |mut events| async move {
            let heard = AtomicBool::new(false);
            let listen = async {
                assert_eq!(events.next().await.unwrap(), Event::Post(1));
                heard.store(true, Ordering::Relaxed);
            };
            let busy = async {
                yield_now().await;
                thread::spawn(move || poster.post(1).unwrap());
                let deadline = Instant::now() + PATIENCE;
                while !heard.load(Ordering::Relaxed) {
                    assert!(Instant::now() < deadline, "the queue is not heard");
                    yield_now().await;
                }
            };
            // Each is polled only when it was woken itself.
            let mut tasks =
                futures::stream::FuturesUnordered::<Pin<Box<dyn Future<Output = ()> + '_>>>::new();
            tasks.push(Box::pin(listen));
            tasks.push(Box::pin(busy));
            while tasks.next().await.is_some() {}
        })
        .unwrap();
    });
}

#[test]
fn stream_that_outlives_block_on_finds_another_thread() {
    in_time(|| {
        let bench = bench();
        let (timers, poster) = (bench.timers, bench.poster.clone());
        let mut events = block_on(bench.queue, |mut events| async move {
            events[timers].after(MS, 1);
            assert_eq!(events.next().await.unwrap(), Event::Tick(1));
            events
        })
        .unwrap();
        thread::spawn(move || poster.post(2).unwrap());
        assert_eq!(executor::block_on(events.next()).unwrap(), Event::Post(2));
    });
}

/// The task waits when the thread that watched for it goes.
#[test]
fn task_whose_block_on_ends_while_it_waits_is_told() {
    in_time(|| {
        let bench = bench();
        let poster = bench.poster.clone();
        let (hand_over, handed_over) = mpsc::channel();
        let (started, waits) = oneshot::channel();
        let other = thread::spawn(move || {
            let mut events: EventStream<Event> = handed_over.recv().unwrap();
            let mut started = Some(started);
            let mut next = Box::pin(async move { events.next().await.unwrap() });
            let event = executor::block_on(poll_fn(|cx| {
                let polled = next.as_mut().poll(cx);
                let _ = started.take().map(|started| started.send(()));
                polled
            }));
            assert_eq!(event, Event::Post(3));
        });
        block_on(bench.queue, |events| async move {
            hand_over.send(events).unwrap();
            waits.await.unwrap();
        })
        .unwrap();
        poster.post(3).unwrap();
        other.join().unwrap();
    });
}

#[test]
fn many_streams_in_one_pool() {
    in_time(|| {
        let mut pool = LocalPool::new();
        let mut posters = Vec::new();
        let sum = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let Bench { queue, poster, .. } = bench();
            posters.push(poster);
            let mut events = EventStream::new(queue).unwrap();
            let sum = Arc::clone(&sum);
            let task = async move {
                for _ in 0..100 {
                    let Event::Post(n) = events.next().await.unwrap() else { panic!("no timer") };
                    sum.fetch_add(n as usize, Ordering::Relaxed);
                }
            };
            pool.spawner().spawn_local(task).unwrap();
        }
        let posting = thread::spawn(move || {
            (0..100).for_each(|n| posters.iter().for_each(|poster| poster.post(n).unwrap()));
        });
        pool.run();
        posting.join().unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 10 * 4950);
    });
}
