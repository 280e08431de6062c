//! The thread of an `EventStream`: when there is one, and what it does.
//!
//! In a binary of its own, one after the other: the threads of a process are counted.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{EventStream, PollEvents, Poster, Queue, Timers, UserEvents, block_on};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One case at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bench() -> (Queue<u64>, Poster<u64>) {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    (queue, poster)
}

/// The threads of this process that are a stream's, as folders of /proc.
fn helpers() -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let paths = threads.map(|thread| thread.unwrap().path());
    let is_helper = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "kevent-stream")
    };
    paths.filter(is_helper).collect()
}

/// Waits for a new thread to give itself its name.
fn the_helper() -> PathBuf {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let [helper] = &helpers()[..] {
            return helper.clone();
        }
        assert!(Instant::now() < deadline, "{:?}", helpers());
        thread::yield_now();
    }
}

/// How often the thread fell asleep, once it does so.
fn sleeps(helper: &Path) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = fs::read_to_string(helper.join("status")).unwrap();
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        if field("State:").starts_with('S') {
            return field("voluntary_ctxt_switches:").parse().unwrap();
        }
        assert!(Instant::now() < deadline, "the helper does not sleep");
        thread::yield_now();
    }
}

/// Lets time pass: that nothing happens can only be seen by waiting for it.
fn let_pass(time: Duration) {
    thread::sleep(time);
}

fn poll(events: &mut EventStream<u64>) -> Option<u64> {
    match events.poll_stamped(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(event) => Some(event.unwrap().event),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn thread_starts_with_the_first_wait_and_ends_with_the_stream() {
    let _alone = alone();
    let (queue, poster) = bench();
    let mut events = EventStream::new(queue).unwrap();
    poster.post(1).unwrap();
    assert_eq!(poll(&mut events), Some(1));
    assert_eq!(helpers().len(), 0, "nothing had to be waited for");
    for _ in 0..10 {
        assert_eq!(poll(&mut events), None);
    }
    the_helper();
    drop(events);
    assert_eq!(helpers().len(), 0, "it is joined");
}

#[test]
fn thread_of_an_idle_stream_sleeps_also_when_events_lie_there() {
    let _alone = alone();
    let (queue, poster) = bench();
    let mut events = EventStream::new(queue).unwrap();
    assert_eq!(poll(&mut events), None);
    let helper = the_helper();
    let before = sleeps(&helper);
    // The task is woken for the first, and does not come.
    (0..10).for_each(|n| poster.post(n).unwrap());
    let_pass(Duration::from_millis(100));
    let woken = sleeps(&helper) - before;
    assert!(woken <= 3, "the thread woke {woken} times for one event that the task leaves there");
}

#[test]
fn block_on_needs_no_thread() {
    let _alone = alone();
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |timer| timer.key).unwrap();
    // Not there at the first look, so it has to be waited for.
    queue[timers].after(Duration::from_millis(5), 1);
    let threads = block_on(queue, |mut events| async move {
        assert_eq!(events.next().await.unwrap(), 1);
        helpers().len()
    });
    assert_eq!(threads.unwrap(), 0);
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn stream_takes_five_descriptors_and_gives_them_back() {
    let _alone = alone();
    let before = open_descriptors();
    let (queue, poster) = bench();
    let of_the_queue = open_descriptors() - before;
    let mut events = EventStream::new(queue).unwrap();
    assert_eq!(poll(&mut events), None);
    assert_eq!(open_descriptors() - before - of_the_queue, 5);
    drop((events, poster));
    assert_eq!(open_descriptors(), before);
}
