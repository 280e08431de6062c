//! What every source promises, as a suite that any source can run.
//!
//! ```
//! use kevent_core::testing::Contract;
//! use kevent_core::UserEvents;
//!
//! Contract::new(|| UserEvents::with_capacity(64.try_into().unwrap()))
//!     .provoke(|_source, poster, count| (0..count).for_each(|n| poster.post(n).unwrap()))
//!     .check();
//! ```

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use polling::{Events, PollMode, Poller};

use crate::queue::Queue;
use crate::source::Source;
use crate::source_id::SourceId;
use crate::sources::counter::Counters;
use crate::sources::user::UserEvents;
use crate::sys::epoll;
use crate::wait::Wait;

mod sim;

pub use crate::dice::Dice;
pub use sim::Sim;

/// How long an event may take on a busy machine before the suite says that it is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a source is watched for saying something when it has nothing.
const SILENCE: Duration = Duration::from_millis(20);

/// The contract of [`Source`], checked on one kind of source.
///
/// `D` is whatever makes the source have something: a poster, the other ends of sockets, a folder.
pub struct Contract<S, D> {
    make: Box<dyn Fn() -> (S, D)>,
    provoke: Act<S, D>,
    remove: Option<Act<S, D>>,
    loaded: bool,
}

/// Something done to a source and its driver, that many times.
type Act<S, D> = Box<dyn Fn(&mut S, &mut D, usize)>;

impl<S: Source, D> Contract<S, D> {
    /// A contract for the sources that `make` makes.
    pub fn new(make: impl Fn() -> (S, D) + 'static) -> Contract<S, D> {
        let provoke = Box::new(|_: &mut S, _: &mut D, _| ());
        Contract { make: Box::new(make), provoke, remove: None, loaded: false }
    }

    /// How to make the source have exactly that many events, now or soon. It is called on an attached
    /// source, several times on some.
    #[must_use]
    pub fn provoke(self, provoke: impl Fn(&mut S, &mut D, usize) + 'static) -> Contract<S, D> {
        Contract { provoke: Box::new(provoke), ..self }
    }

    /// How to remove every registration that `provoke` made.
    #[must_use]
    pub fn remove(self, remove: impl Fn(&mut S, &mut D) + 'static) -> Contract<S, D> {
        Contract { remove: Some(Box::new(move |s, d, _| remove(s, d))), ..self }
    }

    /// Lets other threads post to other sources of the same queue during the checks. Whether the queue
    /// sleeps can't be seen then, so check without, too.
    ///
    /// ```
    /// use kevent_core::testing::Contract;
    /// use kevent_core::UserEvents;
    ///
    /// let contract = Contract::new(UserEvents::new)
    ///     .provoke(|_, poster, count| (0..count).for_each(|n| poster.post(n).unwrap()));
    /// contract.check();
    /// contract.under_load().check();
    /// ```
    #[must_use]
    pub fn under_load(self) -> Contract<S, D> {
        Contract { loaded: true, ..self }
    }

    /// Checks every promise.
    ///
    /// # Panics
    ///
    /// With the promise that is broken.
    pub fn check(&self) {
        self.source_with_nothing_is_silent();
        self.every_event_comes_once();
        self.full_ring_keeps_the_event();
        self.readable_descriptor_says_that_something_is_there();
        self.detached_source_is_silent_and_comes_back();
        if let Some(remove) = &self.remove {
            self.removed_registration_is_silent(remove);
        }
    }

    fn source_with_nothing_is_silent(&self) {
        let mut bench = self.bench(64);
        bench.take(0);
        bench.stays_silent("a new source");
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 3);
        bench.take(3);
        bench.stays_silent("a source whose events were all taken");
    }

    fn every_event_comes_once(&self) {
        let mut bench = self.bench(64);
        for count in [1, 5, 2] {
            (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, count);
            bench.take(count);
        }
        bench.stays_silent("after eight events in three rounds");
    }

    fn full_ring_keeps_the_event(&self) {
        let mut bench = self.bench(1);
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 5);
        bench.take(5);
        bench.stays_silent("after five events through a ring of one");
    }

    fn readable_descriptor_says_that_something_is_there(&self) {
        let mut bench = self.bench(2);
        let outer = Outer::around(&bench.queue);
        // The first look, and whatever it brings, is allowed to be for nothing.
        bench.take_what_is_there();
        bench.take_what_is_there();
        let readable = bench.load.is_none() && outer.is_readable(SILENCE);
        assert!(!readable, "the descriptor is readable for nothing");
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 5);
        let mut taken = 0;
        while taken < 5 {
            assert!(
                outer.is_readable(PATIENCE),
                "{taken} of 5 events were taken and the descriptor is not readable"
            );
            // One at a time: what is left behind has to keep it readable.
            bench.wait(Wait::poll().at_most(1));
            taken += bench.empty_the_ring();
        }
    }

    fn detached_source_is_silent_and_comes_back(&self) {
        let mut bench = self.bench(64);
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 3);
        bench.fill_the_ring(3);
        let source = bench.queue.detach(bench.id);
        assert!(source.is_some(), "detach gives the source back");
        assert!(bench.queue.detach(bench.id).is_none(), "and only once");
        assert_eq!(bench.empty_the_ring(), 0, "an event of a detached source came out");
        // It stands, with its descriptors: only taken out of the set are they silent here.
        bench.stays_silent("a queue whose only source is detached");
        drop(source);
        bench.stays_silent("a queue whose only source is gone");
        assert_eq!(bench.queue.stats().strays, 0, "a descriptor was left behind in the set");
    }

    fn removed_registration_is_silent(&self, remove: &Act<S, D>) {
        let mut bench = self.bench(64);
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 3);
        remove(&mut bench.queue[bench.id], &mut bench.driver, 3);
        bench.stays_silent("registrations that were removed before their events were seen");
        let mut bench = self.bench(64);
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 3);
        bench.fill_the_ring(3);
        remove(&mut bench.queue[bench.id], &mut bench.driver, 3);
        assert_eq!(
            bench.empty_the_ring(),
            0,
            "an event came out of the ring after its registration was removed"
        );
    }

    fn bench(&self, capacity: usize) -> Bench<S, D> {
        let capacity = NonZeroUsize::new(capacity).expect("not zero");
        let mut queue = Queue::with_capacity(capacity).expect("a queue");
        let load = self.loaded.then(|| Load::on(&mut queue));
        let (source, driver) = (self.make)();
        let pushed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pushed);
        let wrap = move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Said::Source
        };
        let id = queue.attach(source, wrap).expect("the source attaches");
        Bench { queue, id, driver, pushed, load }
    }
}

impl<S, D> fmt::Debug for Contract<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract")
            .field("removes", &self.remove.is_some())
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

/// Whose event it is.
enum Said {
    Source,
    Load,
}

/// One source in one queue.
struct Bench<S, D> {
    queue: Queue<Said>,
    id: SourceId<S>,
    driver: D,
    /// How many events of the source ever went into the ring.
    pushed: Arc<AtomicUsize>,
    load: Option<Load>,
}

impl<S: Source, D> Bench<S, D> {
    fn wait(&mut self, wait: Wait) {
        self.queue.wait(wait).expect("waiting works");
    }

    /// Takes exactly `count` events.
    fn take(&mut self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut taken = 0;
        while taken < count {
            self.wait(Wait::until(deadline));
            taken += self.empty_the_ring();
            assert!(Instant::now() < deadline, "{taken} of {count} events came");
        }
        assert_eq!(taken, count, "more events came than were provoked");
    }

    fn take_what_is_there(&mut self) {
        self.wait(Wait::poll());
        self.empty_the_ring();
    }

    /// Has `count` events of the source in the ring, of which none was taken yet.
    fn fill_the_ring(&mut self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.pushed.load(Ordering::Relaxed) < count && Instant::now() < deadline {
            self.wait(Wait::until(deadline).at_least(self.queue.len() + 1));
        }
        let pushed = self.pushed.load(Ordering::Relaxed);
        assert_eq!(pushed, count, "so many events are in the ring");
    }

    /// Takes out what is in the ring, and says how many events were the source's.
    fn empty_the_ring(&mut self) -> usize {
        let mut taken = 0;
        while let Some(said) = self.queue.next() {
            match (said, &self.load) {
                (Said::Load, Some(load)) => load.taken(),
                _ => taken += 1,
            }
        }
        taken
    }

    /// Nothing comes, and the wait for it sleeps.
    fn stays_silent(&mut self, who: &str) {
        let (polls, end) = (self.queue.stats().polls, Instant::now() + SILENCE);
        while Instant::now() < end {
            self.wait(Wait::until(end));
            assert_eq!(self.empty_the_ring(), 0, "an event came from {who}");
        }
        let polls = self.queue.stats().polls - polls;
        let slept = polls < 10 || self.load.is_some();
        assert!(slept, "the wait did not sleep but looked {polls} times: {who}");
    }
}

/// So many events of the load are on their way at most. The ring of 64 that some checks fill has room
/// for them and for what is checked.
const LOAD: usize = 32;

/// Threads that post to other sources of the queue, one through memory and one through the kernel, until
/// this is dropped.
struct Load {
    on_the_way: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(queue: &mut Queue<Said>) -> Load {
        let (users, poster) = UserEvents::new();
        queue.attach(users, |()| Said::Load).expect("the load attaches");
        let mut counters = Counters::new();
        let (_, adder) = counters.semaphore(0).expect("a counter");
        queue.attach(counters, |_| Said::Load).expect("the load attaches");
        let (on_the_way, over) = (Arc::default(), Arc::default());
        let threads = vec![
            Load::post(&on_the_way, &over, move || poster.post(()).is_ok()),
            Load::post(&on_the_way, &over, move || adder.add(1).is_ok()),
        ];
        Load { on_the_way, over, threads }
    }

    fn post(
        on_the_way: &Arc<AtomicUsize>,
        over: &Arc<AtomicBool>,
        post: impl Fn() -> bool + Send + 'static,
    ) -> JoinHandle<()> {
        let (on_the_way, over) = (Arc::clone(on_the_way), Arc::clone(over));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if on_the_way.fetch_add(1, Ordering::Relaxed) < LOAD && post() {
                    continue;
                }
                on_the_way.fetch_sub(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(50));
            }
        })
    }

    fn taken(&self) {
        self.on_the_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Another loop, which sleeps on the queue's descriptor.
struct Outer(Poller);

impl Outer {
    fn around<E>(queue: &Queue<E>) -> Outer {
        let poller = Poller::new().expect("a poller");
        epoll::add(&poller, queue.as_fd(), polling::Event::readable(0), PollMode::Level)
            .expect("a queue can be polled");
        Outer(poller)
    }

    fn is_readable(&self, patience: Duration) -> bool {
        let found = self.0.wait(&mut Events::new(), Some(patience));
        found.map_err(|e: io::Error| e.kind()) == Ok(1)
    }
}
