//! The strict order over all sources.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{
    Counters, Flow, Interest, Order, PollKey, PollSet, Poster, Queue, Ready, Sink, Source, Timers,
    Token, Trigger, UserEvents, Wait,
};
use proptest::prelude::*;

fn some(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn strict<E: 'static>(capacity: usize) -> Queue<E> {
    let mut queue = Queue::with_capacity(some(capacity)).unwrap();
    queue.set_order(Order::Strict);
    queue
}

fn users(queue: &mut Queue<u64>, count: usize) -> Vec<Poster<u64>> {
    let mut attach = || {
        let (users, poster) = UserEvents::new();
        queue.attach(users, |n| n).unwrap();
        poster
    };
    (0..count).map(|_| attach()).collect()
}

#[test]
fn queue_that_was_strict_hears_descriptors_as_any_other() {
    let mut queue = strict(8);
    let counters = queue.attach(Counters::new(), |event| event.value).unwrap();
    let (_, adder) = queue[counters].sum(0).unwrap();
    adder.add(1).unwrap();
    queue.wait(None).unwrap();
    assert_eq!(queue.next(), Some(1));
    queue.set_order(Order::BySource);
    adder.add(2).unwrap();
    // One look, and no other turn after it.
    assert_eq!(queue.wait(Wait::poll().at_least(0)).unwrap(), 1);
}

#[test]
fn quotas_do_not_count() {
    let mut queue = strict(8);
    let posters = [some(1), some(4)].map(|quota| {
        let (users, poster) = UserEvents::new();
        let users = queue.attach(users, |n| n).unwrap();
        queue.set_flow(users, Flow::new().quota(quota));
        poster
    });
    (0..8).for_each(|n: u64| posters[n as usize % 2].post(n).unwrap());
    queue.wait(None).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
    assert_eq!(taken, (0..8).collect::<Vec<_>>());
}

proptest! {
    /// Whatever is posted to whichever source, and however small the ring: it comes out in the order of
    /// the posts.
    #[test]
    fn posts_to_several_sources_come_out_in_the_order_in_which_they_were_made(
        capacity in 1_usize..20,
        posts in prop::collection::vec((0_usize..4, any::<bool>()), 0..100),
    ) {
        let mut queue = strict(capacity);
        let posters = users(&mut queue, 4);
        let mut taken = Vec::new();
        for (n, (poster, look)) in posts.iter().enumerate() {
            posters[*poster].post(n as u64).unwrap();
            if *look {
                queue.wait(Wait::poll()).unwrap();
                taken.extend(queue.next());
            }
        }
        while taken.len() < posts.len() {
            queue.wait(Wait::timeout(Duration::from_secs(20))).unwrap();
            taken.extend(queue.next());
        }
        prop_assert_eq!(taken, (0..posts.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn order_by_source_is_another_one() {
    let mut queue = Queue::new().unwrap();
    let posters = users(&mut queue, 2);
    for n in 0..4 {
        posters[1 - n as usize % 2].post(n).unwrap();
    }
    queue.wait(None).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
    assert_ne!(taken, [0, 1, 2, 3], "else the tests here would show nothing");
}

#[test]
fn timers_and_posts_come_out_by_their_times() {
    let mut queue = strict(1);
    let poster = users(&mut queue, 1).remove(0);
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let now = Instant::now();
    poster.post(1).unwrap();
    // Due before the post, though armed after it.
    queue[timers].at(now, 0);
    let between = Instant::now();
    poster.post(3).unwrap();
    queue[timers].at(between, 2);
    for n in 0..4 {
        queue.wait(None).unwrap();
        assert_eq!(queue.next(), Some(n));
    }
}

/// Two threads hand a baton to and fro, and post when they have it, each to a source of its own: what one
/// posted was over before the other began.
#[test]
fn what_was_over_before_something_began_comes_out_before_it() {
    const ROUNDS: u64 = 20_000;
    let mut queue = strict(8);
    let posters = users(&mut queue, 2);
    let (to_second, second) = mpsc::sync_channel(1);
    let (to_first, first) = mpsc::sync_channel(1);
    to_first.send(0_u64).unwrap();
    thread::scope(|scope| {
        for (poster, baton, pass) in
            [(&posters[0], first, to_second), (&posters[1], second, to_first)]
        {
            scope.spawn(move || {
                while let Ok(n) = baton.recv() {
                    if n == ROUNDS {
                        break;
                    }
                    poster.post(n).unwrap();
                    let _ = pass.send(n + 1);
                }
            });
        }
        for expected in 0..ROUNDS {
            let n = loop {
                if let Some(n) = queue.next() {
                    break n;
                }
                queue.wait(Duration::from_secs(20)).unwrap();
            };
            assert_eq!(n, expected);
        }
        drop(queue);
    });
}

/// Sockets, each event is the key of one that can be read.
struct Sockets {
    sockets: Vec<std::os::unix::net::UnixStream>,
    told: Vec<(Instant, u64)>,
    poll_set: Option<PollSet>,
}

impl Source for Sockets {
    type Item = u64;

    fn attach(&mut self, poll_set: &PollSet) -> std::io::Result<()> {
        use std::os::fd::AsFd;
        for (n, socket) in self.sockets.iter().enumerate() {
            let key = PollKey::from(Token::from_bits(n as u64));
            poll_set.add(socket.as_fd(), key, Interest::READABLE, Trigger::Edge)?;
        }
        self.poll_set = Some(poll_set.clone());
        Ok(())
    }

    fn ready(&mut self, key: PollKey, _: Ready) {
        let n = (0..).find(|n| PollKey::from(Token::from_bits(*n)) == key).unwrap();
        self.told.push((self.poll_set.as_ref().unwrap().clock().turn(), n));
    }

    fn drain(&mut self, sink: &mut impl Sink<u64>) -> std::io::Result<()> {
        while let Some((_, n)) = self.told.first() {
            if sink.push(Token::SOLE, *n).is_err() {
                break;
            }
            self.told.remove(0);
        }
        Ok(())
    }

    fn oldest(&mut self) -> Option<Instant> {
        self.told.first().map(|(told, _)| *told)
    }
}

#[test]
fn descriptors_of_several_sources_come_out_as_the_kernel_told_them() {
    let mut queue = strict(1);
    let mut others = Vec::new();
    for source in 0..2 {
        let pairs = (0..3).map(|_| std::os::unix::net::UnixStream::pair().unwrap());
        let (sockets, peers): (Vec<_>, Vec<_>) = pairs.unzip();
        others.push(peers);
        let sockets = Sockets { sockets, told: Vec::new(), poll_set: None };
        queue.attach(sockets, move |n| (source, n)).unwrap();
    }
    let order = [(1, 2), (0, 0), (1, 0), (1, 1), (0, 2), (0, 1)];
    for (source, n) in order {
        others[source][n as usize].write_all(b"x").unwrap();
    }
    let taken = order.map(|_| {
        queue.wait(Duration::from_secs(20)).unwrap();
        queue.next().unwrap()
    });
    assert_eq!(taken, order);
}
