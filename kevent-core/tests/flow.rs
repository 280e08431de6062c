//! What the terms of a source promise: nobody starves, marks hold, and what does not fit is kept,
//! merged or counted, as was asked.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kevent_core::{
    Due, Flow, Overflow, PollSet, Poster, Queue, Sink, Source, SourceId, Timers, Token, UserEvents,
    Wait,
};
use proptest::prelude::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

type Tagged = (usize, u64);

type Users = (SourceId<UserEvents<u64>>, Poster<u64>);

/// A queue of user events, each tagged with the number of its source.
fn queue_of(capacity: usize, sources: usize) -> (Queue<Tagged>, Vec<Users>) {
    let mut queue = Queue::with_capacity(some(capacity)).unwrap();
    let attach = |tag| {
        let (users, poster) = UserEvents::new();
        (queue.attach(users, move |n| (tag, n)).unwrap(), poster)
    };
    let posters = (0..sources).map(attach).collect();
    (queue, posters)
}

fn some(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn take_all<E: 'static>(queue: &mut Queue<E>) -> Vec<E> {
    std::iter::from_fn(|| queue.next()).collect()
}

fn post(poster: &Poster<u64>, numbers: std::ops::Range<u64>) {
    numbers.for_each(|n| poster.post(n).unwrap());
}

#[test]
fn source_puts_no_more_than_its_quota_into_the_ring_in_one_turn() {
    let (mut queue, sources) = queue_of(64, 2);
    let (first, poster) = &sources[0];
    assert!(queue.set_flow(*first, Flow::new().quota(some(3))));
    post(poster, 0..10);
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < 10 {
        queue.wait(Wait::poll()).unwrap();
        turns.push(take_all(&mut queue).len());
    }
    assert_eq!(turns, [3, 3, 3, 1]);
    assert_eq!(queue.source_stats(*first).unwrap().held_back, 3);
}

#[test]
fn ring_is_shared_out_evenly_unless_said_otherwise() {
    let (mut queue, sources) = queue_of(12, 3);
    sources.iter().for_each(|(_, poster)| post(poster, 0..100));
    queue.wait(Wait::poll()).unwrap();
    let taken = take_all(&mut queue);
    for tag in 0..3 {
        assert_eq!(taken.iter().filter(|(t, _)| *t == tag).count(), 4, "{taken:?}");
    }
}

proptest! {
    /// The bound that `set_flow` states. Whoever floods, and whenever an event comes: it comes out
    /// after at most two ringfuls of others, if the user takes out what there is.
    #[test]
    fn event_comes_out_after_two_ringfuls_of_others_at_most(
        capacity in 1_usize..40,
        sources in 1_usize..6,
        quotas in prop::collection::vec(prop::option::of(1_usize..60), 6),
        victim in any::<prop::sample::Index>(),
        lying in 0_usize..60,
    ) {
        let sources = sources.min(capacity);
        let (mut queue, posters) = queue_of(capacity, sources);
        let victim = victim.index(sources);
        for (tag, (id, poster)) in posters.iter().enumerate() {
            if tag != victim {
                // A quota can be generous; never so that all together exceed the ring.
                let quota = quotas[tag].map(|quota| some(quota.min((capacity / sources).max(1))));
                queue.set_flow(*id, quota.map_or(Flow::new(), |quota| Flow::new().quota(quota)));
                post(poster, 0..1000);
            }
        }
        queue.wait(Wait::poll().at_most(lying)).unwrap();
        posters[victim].1.post(0).unwrap();
        let mut before = 0;
        loop {
            match queue.next() {
                Some((tag, _)) if tag == victim => break,
                Some(_) => before += 1,
                None => { queue.wait(Wait::poll()).unwrap(); }
            }
        }
        prop_assert!(before <= 2 * capacity, "{before} others came first, the ring holds {capacity}");
    }
}

#[test]
fn source_at_its_mark_is_asked_again_when_half_of_it_was_taken() {
    let (mut queue, sources) = queue_of(64, 2);
    let ((id, poster), (_, other)) = (&sources[0], &sources[1]);
    queue.set_flow(*id, Flow::new().high_water(some(4)));
    post(poster, 0..10);
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 4);
    for (taken, n) in [(1, 100), (2, 101)] {
        queue.next().unwrap();
        other.post(n).unwrap();
        queue.wait(Wait::poll().at_least(64)).unwrap();
        let stats = queue.source_stats(*id).unwrap();
        let lying = if taken == 1 { 3 } else { 4 };
        assert_eq!((stats.in_ring, stats.most_in_ring), (lying, 4));
    }
    let mut taken = Vec::new();
    while taken.len() < 10 {
        queue.wait(Wait::poll()).unwrap();
        taken.extend(take_all(&mut queue));
    }
    let own: Vec<_> = taken.iter().filter(|(tag, _)| *tag == 0).map(|(_, n)| *n).collect();
    assert_eq!(own, (2..10).collect::<Vec<_>>(), "nothing is lost, and all in order");
}

#[test]
fn wait_for_more_than_the_mark_allows_comes_back_with_what_there_is() {
    let (mut queue, sources) = queue_of(64, 1);
    queue.set_flow(sources[0].0, Flow::new().high_water(some(4)));
    post(&sources[0].1, 0..10);
    let patience = Duration::from_secs(20);
    assert_eq!(queue.wait(Wait::timeout(patience).at_least(10)).unwrap(), 4);
    assert_eq!(take_all(&mut queue).len(), 4);
}

#[test]
fn overflow_is_merged_into_the_newest_event_of_the_registration() {
    let (mut queue, sources) = queue_of(4, 1);
    let sum = Overflow::coalesce(|old: &mut Tagged, new: Tagged| old.1 += new.1);
    queue.set_flow(sources[0].0, Flow::new().overflow(sum).quota(some(100)));
    post(&sources[0].1, 1..11);
    queue.wait(None).unwrap();
    let numbers: Vec<_> = take_all(&mut queue).into_iter().map(|(_, n)| n).collect();
    assert_eq!(numbers, [1, 2, 3, (4..11).sum()]);
    let stats = queue.stats();
    assert_eq!((stats.delivered, stats.coalesced, stats.dropped, stats.refused), (4, 6, 0, 0));
    // What lay there is gone: nothing is merged into it any more.
    post(&sources[0].1, 1..3);
    queue.wait(None).unwrap();
    assert_eq!(take_all(&mut queue), [(0, 1), (0, 2)]);
}

#[test]
fn overflow_of_other_registrations_is_kept() {
    let mut queue = Queue::with_capacity(some(1)).unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let refuse = Overflow::coalesce(|_: &mut u64, _| panic!("they are of two registrations"));
    queue.set_flow(timers, Flow::new().overflow(refuse));
    for key in 0..3 {
        queue[timers].after(Duration::ZERO, key);
    }
    for key in 0..3 {
        queue.wait(None).unwrap();
        assert_eq!(queue.next(), Some(key));
    }
}

/// Has so many events, and counts those that were pushed and not delivered.
struct Counting {
    left: u64,
    undelivered: u64,
}

impl Source for Counting {
    type Item = u64;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.left > 0 { Due::Now } else { Due::OnWake })
    }

    fn drain(&mut self, sink: &mut impl Sink<u64>) -> io::Result<()> {
        while self.left > 0 && sink.push(Token::SOLE, 1).is_ok() {
            (self.left, self.undelivered) = (self.left - 1, self.undelivered + 1);
        }
        Ok(())
    }

    fn deliver(&mut self, _: Token) -> bool {
        self.undelivered -= 1;
        true
    }
}

#[test]
fn each_event_that_is_merged_or_dropped_counts_as_delivered_at_its_source() {
    let policies: [fn() -> Overflow<u64>; 2] =
        [|| Overflow::coalesce(|sum: &mut u64, n| *sum += n), || Overflow::Count];
    for policy in policies {
        let mut queue = Queue::with_capacity(some(2)).unwrap();
        let source = Counting { left: 9, undelivered: 0 };
        let counting = queue.attach(source, |n| n).unwrap();
        queue.set_flow(counting, Flow::new().quota(some(100)).overflow(policy()));
        queue.wait(None).unwrap();
        assert_eq!(queue[counting].undelivered, 2, "two lie in the ring");
        take_all(&mut queue);
        assert_eq!(queue[counting].undelivered, 0);
    }
}

#[test]
fn overflow_is_dropped_and_counted_where_that_was_asked() {
    let (mut queue, sources) = queue_of(4, 1);
    queue.set_flow(sources[0].0, Flow::new().overflow(Overflow::Count).quota(some(100)));
    post(&sources[0].1, 0..10);
    queue.wait(None).unwrap();
    assert_eq!(take_all(&mut queue).len(), 4);
    assert_eq!((queue.stats().delivered, queue.stats().dropped), (4, 6));
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 0, "what was dropped does not come");
}

#[test]
fn registration_goes_on_when_its_event_was_dropped() {
    let mut queue = Queue::with_capacity(some(1)).unwrap();
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    queue.set_flow(timers, Flow::new().overflow(Overflow::Count));
    queue[timers].after(Duration::ZERO, 0);
    queue.wait(None).unwrap();
    let ticking = queue[timers].every(Duration::from_millis(1), 1);
    queue[timers].after(Duration::ZERO, 2);
    // The ring is full of the first: both are dropped, the periodic one again and again.
    while queue.stats().dropped < 4 {
        queue.wait(Wait::timeout(Duration::from_millis(1)).at_least(2)).unwrap();
    }
    assert_eq!(queue.next(), Some(0));
    assert_eq!(queue[timers].len(), 1, "the other has fired, as if it had been handed out");
    queue.wait(None).unwrap();
    assert_eq!(queue.next(), Some(1), "it ticks on");
    assert!(queue[timers].cancel(ticking));
}

#[test]
fn terms_of_a_source_that_is_gone_are_refused() {
    let (mut queue, sources) = queue_of(4, 1);
    let (mut other, _) = queue_of(4, 1);
    assert!(!other.set_flow(sources[0].0, Flow::new()));
    assert!(other.source_stats(sources[0].0).is_none());
    queue.detach(sources[0].0).unwrap();
    assert!(!queue.set_flow(sources[0].0, Flow::new()));
}

#[test]
fn event_that_can_not_be_merged_keeps_no_wait_for_more_from_ending() {
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |timer| timer.key).unwrap();
    let merge = Overflow::coalesce(|_, _| unreachable!());
    queue.set_flow(timers, Flow::new().high_water(some(2)).overflow(merge));
    for n in 0..3 {
        queue[timers].after(Duration::ZERO, n);
    }
    let begun = Instant::now();
    assert_eq!(queue.wait(Wait::timeout(PATIENCE).at_least(3)).unwrap(), 2);
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(take_all(&mut queue), [0, 1]);
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
}

/// Pushes two events, and fails. Counts those that it is told of as handed out.
struct Failing(Arc<AtomicU64>);

impl Source for Failing {
    type Item = u64;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn drain(&mut self, sink: &mut impl Sink<u64>) -> io::Result<()> {
        (1..=2).for_each(|n| sink.push(Token::SOLE, n).unwrap());
        Err(io::Error::other("and no more"))
    }

    fn deliver(&mut self, _: Token) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

#[test]
fn source_that_fails_is_told_of_what_was_dropped_before() {
    let (mut queue, told) = (Queue::new().unwrap(), Arc::new(AtomicU64::new(0)));
    let failing = queue.attach(Failing(Arc::clone(&told)), |n| n).unwrap();
    queue.set_flow(failing, Flow::new().high_water(some(1)).overflow(Overflow::Count));
    queue.wait(None).unwrap_err();
    let dropped = queue.source_stats(failing).unwrap().dropped;
    assert_eq!((queue.len(), told.load(Ordering::Relaxed)), (1, dropped));
}
