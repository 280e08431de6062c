//! One queue, from its first event to its last.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{
    ChildQueue, HandlerEvents, HandlerPoster, Order, PostError, Poster, Queue, SharedQueue,
    UserEvents, Wait,
};

use crate::dice::Dice;
use crate::ledger::{AskedAt, Removals, Tally};
use crate::loads::posts::{Posts, Way};
use crate::loads::{Event, Loads};

/// How long events may take to come once nothing is provoked any more, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is done under one lock.
const ACTS_AT_A_TIME: usize = 16;

const POSTERS: u64 = 2;

/// What a round is like.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) seed: u64,
    /// How many events, about.
    pub(crate) events: u64,
    /// How many threads harvest; one has the queue for itself.
    pub(crate) threads: usize,
    pub(crate) capacity: NonZeroUsize,
    pub(crate) order: Order,
}

/// Plays a round. Says what became of the events of each kind.
///
/// # Panics
///
/// When an event is lost, comes twice, or after its registration was removed.
pub(crate) fn play(terms: &Terms) -> Vec<(&'static str, Tally)> {
    let mut queue = Queue::with_capacity(terms.capacity).expect("a queue");
    queue.set_order(terms.order);
    let (world, posters) = World::new(&mut queue, terms);
    thread::scope(|scope| {
        for n in 0..POSTERS {
            let (world, posters, seed) = (&world, posters.clone(), terms.seed ^ n);
            scope.spawn(move || posters.post_all(&world.posts, &mut Dice::new(seed)));
        }
        if terms.threads == 1 {
            alone(&world, queue, terms);
        } else {
            together(&world, queue, terms);
        }
    });
    let tallies = world.tallies();
    for (name, tally) in &tallies {
        assert_eq!(tally.outstanding(), 0, "of {name}");
    }
    tallies
}

/// All that is known of what was provoked.
struct World {
    posts: [Posts; 4],
    loads: Mutex<Loads>,
    removals: Removals,
    /// All was told: the threads may go.
    over: AtomicBool,
}

#[derive(Clone)]
struct Posters {
    user: Poster<u64>,
    handler: HandlerPoster,
    nested: Poster<u64>,
}

impl World {
    fn new(queue: &mut Queue<Event>, terms: &Terms) -> (World, Posters) {
        let (users, user) = UserEvents::new();
        queue.attach(users, |n| Event::Post(Way::User, n)).expect("user events attach");
        let (handlers, handler) = HandlerEvents::new();
        queue.attach(handlers, |n| Event::Post(Way::Handler, n)).expect("handler events attach");
        let mut inner = Queue::with_capacity(terms.capacity).expect("a queue in the queue");
        let (users, nested) = UserEvents::new();
        inner.attach(users, |n| Event::Post(Way::Nested, n)).expect("user events attach");
        queue.attach(ChildQueue::new(inner), |event| event).expect("a queue attaches");
        let loads = Mutex::new(Loads::new(queue, Dice::new(!terms.seed)));
        // By what an event costs: most of them by the cheapest way.
        let posts = [60, 15, 10, 5].map(|percent| Posts::new(terms.events * percent / 100));
        let (removals, over) = (Removals::default(), AtomicBool::new(false));
        (World { posts, loads, removals, over }, Posters { user, handler, nested })
    }

    fn loads(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, way: Way) -> &Posts {
        &self.posts[way as usize]
    }

    /// Does something, and posts something, by the thread that has the queue.
    fn act(&self, queue: &mut Queue<Event>, unposted: &mut Option<u64>, acts: usize) {
        let mut loads = self.loads();
        for _ in 0..acts {
            loads.act(queue, &self.removals);
        }
        let own = self.of(Way::Own);
        while let Some(number) = unposted.take().or_else(|| own.next()) {
            if queue.post(Event::Post(Way::Own, number)).is_err() {
                *unposted = Some(number);
                break;
            }
            own.posted();
            if number % 32 == 0 {
                break;
            }
        }
    }

    fn told(&self, queue: &mut Queue<Event>, event: Event, asked: AskedAt) {
        match event {
            Event::Post(way, number) => self.of(way).told(number),
            event => self.loads().told(queue, event, asked, &self.removals),
        }
    }

    fn posts_are_told(&self) -> bool {
        self.posts.iter().all(Posts::all_told)
    }

    /// Lets what was provoked come, and says whether it has.
    fn is_settled(&self, queue: &mut Queue<Event>) -> bool {
        self.loads().settle(queue, &self.removals);
        self.posts_are_told() && self.tallies().iter().all(|(_, tally)| tally.outstanding() == 0)
    }

    fn tallies(&self) -> Vec<(&'static str, Tally)> {
        let names = ["posts", "posts of handlers", "posts to itself", "posts to a queue in it"];
        let posts = names.into_iter().zip(&self.posts).map(|(name, posts)| (name, posts.tally()));
        posts.chain(self.loads().tallies()).collect()
    }
}

impl Posters {
    /// Posts all numbers that there are.
    fn post_all(self, posts: &[Posts; 4], dice: &mut Dice) {
        let mut ways = vec![Way::User, Way::Handler, Way::Nested];
        while !ways.is_empty() {
            let index = dice.below(ways.len());
            let (way, posts) = (ways[index], &posts[ways[index] as usize]);
            for _ in 0..dice.below(100) {
                match posts.next() {
                    Some(number) => {
                        self.post(way, number);
                        posts.posted();
                    }
                    None => {
                        ways.swap_remove(index);
                        break;
                    }
                }
            }
        }
    }

    fn post(&self, way: Way, number: u64) {
        loop {
            let posted = match way {
                Way::User => self.user.post(number),
                Way::Handler => self.handler.post(number),
                Way::Nested | Way::Own => self.nested.post(number),
            };
            match posted {
                Ok(()) => return,
                Err(PostError::Full(_)) => thread::yield_now(),
                Err(PostError::Closed(_)) => panic!("the queue is there until all is told"),
            }
        }
    }
}

/// How many things are done in a round besides posting.
fn acts(terms: &Terms) -> u64 {
    terms.events / 8
}

/// One thread has the queue.
fn alone(world: &World, mut queue: Queue<Event>, terms: &Terms) {
    let mut dice = Dice::new(terms.seed);
    let (mut done, mut unposted) = (0, None);
    while done < acts(terms) || !world.posts_are_told() {
        let some = if done < acts(terms) { dice.below(ACTS_AT_A_TIME) } else { 0 };
        world.act(&mut queue, &mut unposted, some);
        done += some as u64;
        let wait = match dice.below(8) {
            0 => Wait::timeout(Duration::from_micros(dice.roll() % 300)),
            1 => Wait::poll().at_most(1 + dice.below(16)),
            2 => Wait::timeout(Duration::from_micros(100)).at_least(dice.below(16)),
            _ => Wait::poll(),
        };
        take(world, &mut queue, wait, usize::MAX);
    }
    let deadline = Instant::now() + PATIENCE;
    while !world.is_settled(&mut queue) {
        assert!(Instant::now() < deadline, "something is lost: {:#?}", world.tallies());
        take(world, &mut queue, Wait::timeout(Duration::from_millis(1)), usize::MAX);
    }
    // What comes now came twice.
    take(world, &mut queue, Wait::timeout(Duration::from_millis(1)), usize::MAX);
}

/// Several threads harvest, and this one acts.
fn together(world: &World, queue: Queue<Event>, terms: &Terms) {
    let shared = SharedQueue::new(queue).expect("the queue can be shared");
    thread::scope(|scope| {
        for n in 0..terms.threads as u64 {
            let (shared, dice) = (shared.clone(), Dice::new(terms.seed + n));
            scope.spawn(move || harvest(world, shared, dice));
        }
        let mut dice = Dice::new(terms.seed);
        let (mut done, mut unposted) = (0, None);
        while done < acts(terms) || !world.posts_are_told() {
            let some = if done < acts(terms) { dice.below(ACTS_AT_A_TIME) } else { 0 };
            world.act(&mut shared.lock(), &mut unposted, some);
            done += some as u64;
            match dice.below(64) {
                0 => shared.wake_all(),
                1 => thread::sleep(Duration::from_micros(dice.roll() % 300)),
                _ => thread::yield_now(),
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !world.is_settled(&mut shared.lock()) {
            assert!(Instant::now() < deadline, "something is lost: {:#?}", world.tallies());
            thread::sleep(Duration::from_millis(1));
        }
        world.over.store(true, Ordering::SeqCst);
        shared.close();
    });
}

/// Takes events out until the queue is closed and empty.
fn harvest(world: &World, mut shared: SharedQueue<Event>, mut dice: Dice) {
    loop {
        if dice.once_in(16) {
            let mut queue = shared.lock();
            take(world, &mut queue, Wait::poll(), 4);
        }
        let asked = world.removals.asks();
        let limit = dice.once_in(8).then(|| Duration::from_micros(dice.roll() % 300));
        match shared.next(limit).expect("no source breaks") {
            Some(Event::Post(way, number)) => world.of(way).told(number),
            Some(event) => world.told(&mut shared.lock(), event, asked),
            None if world.over.load(Ordering::SeqCst) => return,
            None => {}
        }
    }
}

/// Waits, and takes so many events out at most.
fn take(world: &World, queue: &mut Queue<Event>, wait: Wait, most: usize) {
    queue.wait(wait).expect("no source breaks");
    for _ in 0..most {
        let asked = world.removals.asks();
        let Some(event) = queue.next() else { break };
        world.told(queue, event, asked);
    }
}
