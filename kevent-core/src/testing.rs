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
use std::time::{Duration, Instant};

use polling::{Events, PollMode, Poller};

use crate::queue::{Queue, SourceId};
use crate::source::Source;
use crate::sys::epoll;
use crate::wait::Wait;

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
}

/// Something done to a source and its driver, that many times.
type Act<S, D> = Box<dyn Fn(&mut S, &mut D, usize)>;

impl<S: Source, D> Contract<S, D> {
    /// A contract for the sources that `make` makes.
    pub fn new(make: impl Fn() -> (S, D) + 'static) -> Contract<S, D> {
        Contract { make: Box::new(make), provoke: Box::new(|_, _, _| ()), remove: None }
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
        assert!(!outer.is_readable(SILENCE), "the descriptor is readable for nothing");
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 5);
        let mut taken = 0;
        while taken < 5 {
            assert!(
                outer.is_readable(PATIENCE),
                "{taken} of 5 events were taken and the descriptor is not readable"
            );
            // One at a time: what is left behind has to keep it readable.
            bench.wait(Wait::poll().at_most(1));
            taken += usize::from(bench.queue.next().is_some());
        }
    }

    fn detached_source_is_silent_and_comes_back(&self) {
        let mut bench = self.bench(64);
        (self.provoke)(&mut bench.queue[bench.id], &mut bench.driver, 3);
        bench.wait(Wait::timeout(PATIENCE).at_least(3));
        assert_eq!(bench.queue.len(), 3, "three events are in the ring");
        let source = bench.queue.detach(bench.id);
        assert!(source.is_some(), "detach gives the source back");
        assert!(bench.queue.detach(bench.id).is_none(), "and only once");
        assert!(bench.queue.next().is_none(), "an event of a detached source came out");
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
        bench.wait(Wait::timeout(PATIENCE).at_least(3));
        assert_eq!(bench.queue.len(), 3, "three events are in the ring");
        remove(&mut bench.queue[bench.id], &mut bench.driver, 3);
        assert!(
            bench.queue.next().is_none(),
            "an event came out of the ring after its registration was removed"
        );
    }

    fn bench(&self, capacity: usize) -> Bench<S, D> {
        let capacity = NonZeroUsize::new(capacity).expect("not zero");
        let mut queue = Queue::with_capacity(capacity).expect("a queue");
        let (source, driver) = (self.make)();
        let id = queue.attach(source, |_| ()).expect("the source attaches");
        Bench { queue, id, driver }
    }
}

impl<S, D> fmt::Debug for Contract<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract").field("removes", &self.remove.is_some()).finish_non_exhaustive()
    }
}

/// One source in one queue.
struct Bench<S, D> {
    queue: Queue<()>,
    id: SourceId<S>,
    driver: D,
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

    fn empty_the_ring(&mut self) -> usize {
        std::iter::from_fn(|| self.queue.next()).count()
    }

    /// Nothing comes, and the wait for it sleeps.
    fn stays_silent(&mut self, who: &str) {
        let polls = self.queue.stats().polls;
        self.wait(Wait::timeout(SILENCE));
        assert_eq!(self.empty_the_ring(), 0, "an event came from {who}");
        let polls = self.queue.stats().polls - polls;
        assert!(polls < 10, "the wait did not sleep but looked {polls} times: {who}");
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
