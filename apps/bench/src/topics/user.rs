//! Events that a program posts to itself: on one thread, across threads, and to a thread that sleeps.

mod kevent;
mod peers;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::group::{Bound, Goal, Group, Metric, Peer, Result, Sample, Setting, Topic};
use crate::measure;
use kevent::{Bounded, Kevent, OwnPosts, Plain, Spinning};

pub(crate) const TOPIC: Topic =
    Topic { name: "user", title: "Events that the program posts", groups, helper: None };

/// Who has posted events to give. Every peer's part is this, so all do the same work.
trait Inbox: Sized + 'static {
    /// What posts to it, from any thread.
    type Post: Clone + Send + 'static;

    fn open() -> Result<(Self, Self::Post)>;

    /// Posts, and wakes whoever waits.
    fn post(post: &Self::Post, event: u64);

    /// Posts from the thread that also waits.
    fn post_here(&mut self, post: &Self::Post, event: u64) {
        Self::post(post, event);
    }

    /// The next event, waiting for it if there is none.
    fn next(&mut self) -> Result<u64>;
}

/// Posts that may wait where there is a bound: the default of kevent.
const BOUND: usize = 65_536;

/// What is to be done with an inbox.
#[derive(Clone, Copy)]
enum Shape {
    SameThread,
    Producers,
    RoundTrip,
}

fn peer<I: Inbox>(name: &'static str, shape: Shape) -> Peer {
    let run = match shape {
        Shape::SameThread => same_thread::<I>,
        Shape::Producers => producers::<I>,
        Shape::RoundTrip => round_trip::<I>,
    };
    Peer { name, run }
}

/// On one thread, kevent is what a queue posts to itself; a poster might be anywhere.
fn on_one_thread() -> Vec<Peer> {
    let mut all = vec![
        peer::<Kevent<OwnPosts>>("kevent", Shape::SameThread),
        peer::<Kevent<Plain>>("kevent, by Poster", Shape::SameThread),
        Peer { name: "VecDeque (no threads)", run: floor },
    ];
    all.extend(others(Shape::SameThread));
    all
}

fn with_producers() -> Vec<Peer> {
    let mut all = vec![
        peer::<Kevent<Plain>>("kevent", Shape::Producers),
        peer::<Kevent<Bounded>>("kevent, bounded", Shape::Producers),
    ];
    all.extend(others(Shape::Producers));
    all
}

fn back_and_forth() -> Vec<Peer> {
    let mut all = vec![
        peer::<Kevent<Plain>>("kevent", Shape::RoundTrip),
        peer::<Kevent<Spinning>>("kevent, spinning", Shape::RoundTrip),
    ];
    all.extend(others(Shape::RoundTrip));
    all
}

fn others(shape: Shape) -> [Peer; 9] {
    [
        peer::<peers::Crossbeam>("crossbeam-channel", shape),
        peer::<peers::CrossbeamBounded>("crossbeam, bounded", shape),
        peer::<peers::Flume>("flume", shape),
        peer::<peers::Tokio>("tokio mpsc", shape),
        peer::<peers::Mio>("mio", shape),
        peer::<peers::Polling>("polling", shape),
        peer::<peers::Calloop>("calloop", shape),
        peer::<peers::Epoll>("epoll + eventfd", shape),
        peer::<peers::Uring>("io_uring + eventfd", shape),
    ]
}

const CHANNELS: &[&str] = &["crossbeam-channel", "crossbeam, bounded", "flume", "tokio mpsc"];

const PER_EVENT: &[Metric] = &[Metric { name: "CPU per event", unit: "ns" }];
const PER_TRIP: &[Metric] = &[
    Metric { name: "round trip, p50", unit: "us" },
    Metric { name: "CPU per round trip", unit: "us" },
];

fn groups() -> Vec<Group> {
    let goal = |metric, bound| Goal { metric, who: "kevent", bound };
    let mut groups = Vec::new();
    for (name, title, size) in [
        ("user/same-1", "Posted and harvested on one thread, one at a time", 1),
        ("user/same-64", "Posted and harvested on one thread, 64 at a time", 64),
    ] {
        groups.push(Group {
            name: name.into(),
            title: title.into(),
            about: "One thread posts that many events of 8 bytes and takes them out again. A VecDeque \
                    is the floor: it can wake nobody.",
            metrics: PER_EVENT,
            peers: on_one_thread(),
            size,
            goals: vec![goal(0, Bound::AtMost(12.0))],
        });
    }
    for (name, title, size) in [
        ("user/1to1", "One producer, one consumer, a processor each", 1),
        ("user/4to1", "Four producers on one processor, the consumer on another", 4),
    ] {
        groups.push(Group {
            name: name.into(),
            title: title.into(),
            about: "Producers post as fast as they can. Where a bound is named, 65,536 posts may wait, and \
                    who finds no room yields and tries again. CPU time of all threads.",
            metrics: PER_EVENT,
            peers: with_producers(),
            size,
            goals: vec![
                goal(0, Bound::Times(1.0, CHANNELS)),
                goal(0, Bound::Times(0.05, &["mio"])),
            ],
        });
    }
    for (name, title, size) in [
        ("user/wake-1cpu", "Wake-up and back, both threads on one processor", 1),
        ("user/wake-2cpu", "Wake-up and back, a processor each", 2),
    ] {
        let spinning = |metric, bound| Goal { metric, who: "kevent, spinning", bound };
        let mut goals = vec![goal(0, Bound::Times(1.0, &["epoll + eventfd"]))];
        // Where the other thread needs this processor, to spin is to be in its way.
        goals.push(match size {
            1 => spinning(0, Bound::Times(1.1, &["kevent"])),
            _ => spinning(0, Bound::AtMost(1.0)),
        });
        groups.push(Group {
            name: name.into(),
            title: title.into(),
            about: "Two threads post to each other in turn, and wait for the other's post.",
            metrics: PER_TRIP,
            peers: back_and_forth(),
            size,
            goals,
        });
    }
    groups
}

fn same_thread<I: Inbox>(setting: &Setting) -> Result<Sample> {
    let (mut inbox, post) = I::open()?;
    let count = setting.size as u64;
    let cost = measure::cpu_per_operation(setting, setting.size, || {
        for event in 0..count {
            inbox.post_here(&post, event);
        }
        for expected in 0..count {
            expect(expected, inbox.next()?)?;
        }
        Ok(())
    })?;
    Ok(vec![Some(cost)])
}

/// A queue that can wake nobody.
fn floor(setting: &Setting) -> Result<Sample> {
    let mut queue = std::collections::VecDeque::new();
    let count = setting.size as u64;
    let cost = measure::cpu_per_operation(setting, setting.size, || {
        for event in 0..count {
            queue.push_back(std::hint::black_box(event));
        }
        for expected in 0..count {
            expect(expected, queue.pop_front().ok_or("empty")?)?;
        }
        Ok(())
    })?;
    Ok(vec![Some(cost)])
}

fn expect(expected: u64, found: u64) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("event {found} where {expected} was due").into())
    }
}

fn producers<I: Inbox>(setting: &Setting) -> Result<Sample> {
    let [here, there] = measure::two_cpus()?;
    measure::pin(here)?;
    let (mut inbox, post) = I::open()?;
    // The first pass is warm-up, and says how many events the second one can have.
    let began = Instant::now();
    let each = setting.pick(40_000, 400) / setting.size as u64;
    produce(&mut inbox, &post, there, setting.size, each)?;
    let passes = setting.pick(150.0, 2.0) / 1e3 / began.elapsed().as_secs_f64();
    let each = each * (passes as u64).clamp(1, 50);
    let cost = produce(&mut inbox, &post, there, setting.size, each)?;
    Ok(vec![Some(cost / (each * setting.size as u64) as f64)])
}

/// Lets every producer post `each` events, and takes them out. Says what that cost.
fn produce<I: Inbox>(
    inbox: &mut I,
    post: &I::Post,
    cpu: usize,
    producers: usize,
    each: u64,
) -> Result<f64> {
    let produce = move |post: I::Post| {
        measure::pin(cpu)?;
        (1..=each).for_each(|event| I::post(&post, event));
        Result::Ok(())
    };
    let (cost, sum) = measure::cpu_of(|| {
        let threads: Vec<_> = (0..producers)
            .map(|_| {
                let post = post.clone();
                thread::spawn(move || produce(post))
            })
            .collect();
        let mut sum = 0;
        for _ in 0..each * producers as u64 {
            sum += inbox.next()?;
        }
        for thread in threads {
            thread.join().map_err(|_| "a producer panicked")??;
        }
        Ok(sum)
    })?;
    expect(producers as u64 * each * (each + 1) / 2, sum)?;
    Ok(cost)
}

/// Tells the other side to stop.
const STOP: u64 = u64::MAX;

fn round_trip<I: Inbox>(setting: &Setting) -> Result<Sample> {
    let cpus = if setting.size == 2 { measure::two_cpus()? } else { [measure::cpus()?[0]; 2] };
    let (to_other, from_here) = mpsc::channel();
    let (to_here, from_other) = mpsc::channel();
    // An inbox is opened by the thread that waits on it: some of the peers can't be moved.
    let other = thread::spawn(move || {
        measure::pin(cpus[1])?;
        let (mut inbox, post) = I::open()?;
        to_here.send(post).map_err(|_| "nobody there")?;
        let answer: I::Post = from_here.recv()?;
        loop {
            match inbox.next()? {
                STOP => return Result::Ok(()),
                event => I::post(&answer, event),
            }
        }
    });
    measure::pin(cpus[0])?;
    let (mut inbox, post) = I::open()?;
    to_other.send(post).map_err(|_| "nobody there")?;
    let ping: I::Post = from_other.recv()?;
    let mut trips = Vec::new();
    let mut cost = 0.0;
    let time = setting.pick(Duration::from_millis(150), Duration::from_millis(3));
    for time in [time / 10, time] {
        trips.clear();
        let began = Instant::now();
        (cost, ()) = measure::cpu_of(|| {
            while began.elapsed() < time {
                let sent = Instant::now();
                I::post(&ping, 7);
                expect(7, inbox.next()?)?;
                trips.push(sent.elapsed().as_nanos() as f64 / 1e3);
            }
            Ok(())
        })?;
    }
    I::post(&ping, STOP);
    other.join().map_err(|_| "the other thread panicked")??;
    let count = trips.len() as f64;
    Ok(vec![measure::quantile(&mut trips, 0.5), Some(cost / count / 1e3)])
}
