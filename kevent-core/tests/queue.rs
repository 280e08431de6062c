//! What the queue itself promises, whatever its sources.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io::{self, ErrorKind, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use kevent_core::{
    Due, Interest, PollKey, PollSet, PostError, Poster, Queue, Ready, Sink, Source, SourceError,
    SourceId, Timers, Token, Trigger, UserEvents, Wait,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const MS: Duration = Duration::from_millis(1);

fn queue_of(capacity: usize) -> (Queue<u64>, Poster<u64>) {
    let mut queue = Queue::with_capacity(NonZeroUsize::new(capacity).unwrap()).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    (queue, poster)
}

fn take_all<E: 'static>(queue: &mut Queue<E>) -> Vec<E> {
    std::iter::from_fn(|| queue.next()).collect()
}

/// Bytes that come out of a socket, each an event: a source with a descriptor.
struct Bytes {
    socket: UnixStream,
    /// Read, and refused by the ring.
    kept: Option<u8>,
}

impl Bytes {
    fn pair() -> (Bytes, UnixStream) {
        let (socket, other) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        (Bytes { socket, kept: None }, other)
    }

    fn next(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.kept.take().or_else(|| (self.socket.read(&mut byte).ok()? == 1).then_some(byte[0]))
    }
}

impl Source for Bytes {
    type Item = u8;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        let key = PollKey::default();
        poll_set.add(self.socket.as_fd(), key, Interest::READABLE, Trigger::Level)
    }

    fn drain(&mut self, sink: &mut impl Sink<u8>) -> io::Result<()> {
        while let Some(byte) = self.next() {
            if sink.push(Token::SOLE, byte).is_err() {
                self.kept = Some(byte);
                break;
            }
        }
        Ok(())
    }
}

/// Always has something, one event a turn.
struct Talker;

impl Source for Talker {
    type Item = u8;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(Due::Now)
    }

    fn drain(&mut self, sink: &mut impl Sink<u8>) -> io::Result<()> {
        let _ = sink.push(Token::SOLE, 0);
        Ok(())
    }
}

/// Fails as often as it says, at every look.
struct Broken(u32);

impl Source for Broken {
    type Item = u8;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        if self.0 == 0 {
            return Ok(Due::OnWake);
        }
        self.0 -= 1;
        Err(io::Error::new(ErrorKind::BrokenPipe, "the other side is gone"))
    }

    fn drain(&mut self, _: &mut impl Sink<u8>) -> io::Result<()> {
        Ok(())
    }
}

/// Says that a descriptor, of another queue here, is readable.
struct Readable {
    fd: OwnedFd,
    seen: bool,
}

impl Source for Readable {
    type Item = ();

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        poll_set.add(self.fd.as_fd(), PollKey::default(), Interest::READABLE, Trigger::Level)
    }

    fn ready(&mut self, _: PollKey, ready: Ready) {
        self.seen = ready.is_readable();
    }

    fn drain(&mut self, sink: &mut impl Sink<()>) -> io::Result<()> {
        if self.seen && sink.push(Token::SOLE, ()).is_ok() {
            self.seen = false;
        }
        Ok(())
    }
}

#[test]
fn queue_moves_between_threads_and_posters_are_shared() {
    fn is_send<T: Send>(_: &T) {}
    fn is_shared<T: Clone + Send + Sync>(_: &T) {}
    let (queue, poster) = queue_of(1);
    is_send(&queue);
    is_shared(&poster);
}

#[test]
#[should_panic(expected = "still attached")]
fn index_of_a_detached_source_panics() {
    let mut queue = Queue::<()>::new().unwrap();
    let timers = queue.attach(Timers::new(), |_| ()).unwrap();
    queue.detach(timers);
    let _ = &queue[timers];
}

#[test]
fn capacity_is_what_was_asked() {
    for capacity in [1, 7, 1000] {
        let (queue, _) = queue_of(capacity);
        assert_eq!(queue.capacity(), capacity);
    }
    assert_eq!(Queue::<()>::new().unwrap().capacity(), 1024);
}

#[test]
fn full_ring_keeps_the_events_and_counts_the_refusal() {
    let (mut queue, poster) = queue_of(4);
    (0..10).for_each(|n| poster.post(n).unwrap());
    assert_eq!(queue.wait(None).unwrap(), 4);
    assert_eq!((queue.len(), queue.stats().refused), (4, 1));
    let mut taken = take_all(&mut queue);
    while taken.len() < 10 {
        queue.wait(PATIENCE).unwrap();
        taken.extend(take_all(&mut queue));
    }
    assert_eq!(taken, (0..10).collect::<Vec<_>>());
    assert_eq!((queue.stats().delivered, queue.stats().refused), (10, 2));
}

#[test]
fn full_mailbox_and_gone_source_give_the_event_back() {
    let (users, poster) = UserEvents::with_capacity(NonZeroUsize::new(2).unwrap());
    poster.post("a").unwrap();
    poster.post("b").unwrap();
    assert_eq!(poster.post("c"), Err(PostError::Full("c")));
    drop(users);
    assert_eq!(poster.post("d"), Err(PostError::Closed("d")));
}

#[test]
fn mailbox_without_a_limit_takes_no_memory_for_it() {
    let (_users, poster) = UserEvents::with_capacity(NonZeroUsize::MAX);
    (0..1000).for_each(|n| poster.post(n).unwrap());
}

#[test]
fn posts_made_before_attaching_come_out() {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    poster.post(1).unwrap();
    queue.attach(users, |n| n).unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
    assert_eq!(queue.next(), Some(1));
}

#[test]
fn at_most_hands_out_that_many_and_keeps_the_rest() {
    let (mut queue, poster) = queue_of(64);
    (0..5).for_each(|n| poster.post(n).unwrap());
    assert_eq!(queue.wait(Wait::forever().at_most(2)).unwrap(), 2);
    assert_eq!(take_all(&mut queue), [0, 1]);
    assert_eq!(queue.len(), 3);
    assert_eq!(queue.wait(Wait::forever().at_most(0)).unwrap(), 0);
    assert_eq!(queue.next(), None);
    assert_eq!(queue.wait(None).unwrap(), 3);
    assert_eq!(take_all(&mut queue), [2, 3, 4]);
}

#[test]
fn at_least_waits_for_that_many() {
    let (mut queue, poster) = queue_of(64);
    let posting = thread::spawn(move || {
        for n in 0..5 {
            poster.post(n).unwrap();
            thread::yield_now();
        }
    });
    assert_eq!(queue.wait(Wait::timeout(PATIENCE).at_least(5)).unwrap(), 5);
    posting.join().unwrap();
}

#[test]
fn at_least_comes_back_with_what_there_is_when_the_time_has_passed() {
    let (mut queue, poster) = queue_of(64);
    poster.post(1).unwrap();
    let began = Instant::now();
    assert_eq!(queue.wait(Wait::timeout(5 * MS).at_least(2)).unwrap(), 1);
    assert!(began.elapsed() >= 5 * MS);
}

#[test]
fn at_least_more_than_the_ring_holds_is_a_full_ring() {
    let (mut queue, poster) = queue_of(2);
    (0..3).for_each(|n| poster.post(n).unwrap());
    assert_eq!(queue.wait(Wait::timeout(PATIENCE).at_least(100)).unwrap(), 2);
}

#[test]
fn at_least_none_looks_and_does_not_wait() {
    let mut queue = Queue::new().unwrap();
    let (bytes, mut other) = Bytes::pair();
    queue.attach(bytes, |byte| byte).unwrap();
    assert_eq!(queue.wait(Wait::forever().at_least(0)).unwrap(), 0);
    other.write_all(b"x").unwrap();
    assert_eq!(queue.wait(Wait::forever().at_least(0)).unwrap(), 1);
}

#[test]
fn timeout_is_relative_absolute_or_none_and_never_early() {
    let (mut queue, _poster) = queue_of(4);
    let began = Instant::now();
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 0);
    assert_eq!(queue.wait(3 * MS).unwrap(), 0);
    assert!(began.elapsed() >= 3 * MS);
    let deadline = Instant::now() + 3 * MS;
    assert_eq!(queue.wait(deadline).unwrap(), 0);
    assert!(Instant::now() >= deadline);
    assert_eq!(queue.wait(Wait::until(began)).unwrap(), 0, "a deadline in the past only looks");
}

#[test]
fn timeout_has_nanoseconds_and_not_milliseconds() {
    let (mut queue, _poster) = queue_of(4);
    let soonest = (0..50).map(|_| {
        let began = Instant::now();
        queue.wait(Duration::from_micros(200)).unwrap();
        began.elapsed()
    });
    let soonest = soonest.min().unwrap();
    assert!(soonest >= Duration::from_micros(200));
    assert!(soonest < Duration::from_micros(700), "the best of 50 took {soonest:?}");
}

#[test]
fn post_from_another_thread_ends_the_wait() {
    let (mut queue, poster) = queue_of(4);
    for n in 0..100 {
        let poster = poster.clone();
        let posting = thread::spawn(move || poster.post(n));
        assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
        assert_eq!(queue.next(), Some(n));
        posting.join().unwrap().unwrap();
    }
}

#[test]
fn million_posts_from_four_threads_all_come_each_thread_in_its_order() {
    const THREADS: u64 = 4;
    const EACH: u64 = 250_000;
    let (mut queue, poster) = queue_of(1024);
    let posting: Vec<_> = (0..THREADS)
        .map(|thread| {
            let poster = poster.clone();
            thread::spawn(move || {
                (0..EACH).for_each(|n| post_when_there_is_room(&poster, thread << 32 | n))
            })
        })
        .collect();
    let mut expected = [0; THREADS as usize];
    for _ in 0..THREADS * EACH {
        let event = loop {
            if let Some(event) = queue.next() {
                break event;
            }
            assert_ne!(queue.wait(PATIENCE).unwrap(), 0, "lost: {expected:?} had come");
        };
        let (thread, n) = ((event >> 32) as usize, event & u64::from(u32::MAX));
        assert_eq!(n, expected[thread], "out of order");
        expected[thread] += 1;
    }
    posting.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 0, "one came twice");
}

fn post_when_there_is_room(poster: &Poster<u64>, event: u64) {
    let mut event = event;
    while let Err(PostError::Full(back)) = poster.post(event) {
        event = back;
        thread::yield_now();
    }
}

#[test]
fn two_threads_that_wake_each_other_never_miss_a_wake_up() {
    wake_each_other(Duration::ZERO);
}

#[test]
fn two_threads_that_spin_for_each_other_never_miss_a_wake_up() {
    // So short that many spins end just when the wake-up comes.
    wake_each_other(Duration::from_micros(2));
}

fn wake_each_other(spin: Duration) {
    let (mut here, to_here) = queue_of(4);
    let (mut there, to_there) = queue_of(4);
    here.set_spin(spin);
    there.set_spin(spin);
    const ROUNDS: u64 = 20_000;
    let echo = thread::spawn(move || {
        for _ in 0..ROUNDS {
            there.wait(PATIENCE).unwrap();
            to_here.post(there.next().expect("a wake-up was missed")).unwrap();
        }
    });
    for n in 0..ROUNDS {
        to_there.post(n).unwrap();
        here.wait(PATIENCE).unwrap();
        assert_eq!(here.next(), Some(n), "a wake-up was missed");
    }
    echo.join().unwrap();
}

#[test]
fn events_that_are_there_are_taken_without_a_system_call() {
    let (mut queue, poster) = queue_of(64);
    for n in 0..10 {
        poster.post(n).unwrap();
        assert_eq!(queue.wait(None).unwrap(), 1);
        assert_eq!(queue.next(), Some(n));
    }
    (0..64).for_each(|n| poster.post(n).unwrap());
    for n in 0..64 {
        queue.wait(Wait::forever().at_most(1)).unwrap();
        assert_eq!(queue.next(), Some(n));
    }
    assert_eq!(queue.stats().polls, 0);
}

#[test]
fn source_that_always_has_something_does_not_starve_one_with_a_descriptor() {
    let mut queue = Queue::new().unwrap();
    queue.attach(Talker, |byte| byte).unwrap();
    let (bytes, mut other) = Bytes::pair();
    queue.attach(bytes, |byte| byte).unwrap();
    for _ in 0..3 {
        other.write_all(b"x").unwrap();
        let turns = (1..).find(|_| {
            queue.wait(None).unwrap();
            take_all(&mut queue).contains(&b'x')
        });
        assert!(turns <= Some(513), "it waited {turns:?} turns");
    }
}

#[test]
fn sources_that_fill_the_ring_take_turns() {
    let mut queue = Queue::with_capacity(NonZeroUsize::MIN).unwrap();
    let posters: Vec<_> = (0..3)
        .map(|source| {
            let (users, poster) = UserEvents::new();
            queue.attach(users, move |()| source).unwrap();
            (0..10).for_each(|_| poster.post(()).unwrap());
            poster
        })
        .collect();
    let mut seen = [0; 3];
    for _ in 0..9 {
        queue.wait(PATIENCE).unwrap();
        seen[queue.next().unwrap()] += 1;
    }
    assert!(seen.iter().all(|count| *count >= 2), "one had to wait: {seen:?}");
    drop(posters);
}

#[test]
fn error_of_a_source_names_it_and_does_not_stop_the_others() {
    let mut queue = Queue::new().unwrap();
    let broken = queue.attach(Broken(u32::MAX), |byte| byte).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |byte| byte).unwrap();
    let (bytes, mut other) = Bytes::pair();
    queue.attach(bytes, |byte| byte).unwrap();
    // The first turn asks every source; from then on the descriptor has to speak up.
    queue.wait(PATIENCE).unwrap_err();

    poster.post(1).unwrap();
    other.write_all(&[2]).unwrap();
    let error = queue.wait(PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let named = error.get_ref().unwrap().downcast_ref::<SourceError>().unwrap();
    assert!(named.source_name.ends_with("Broken"), "{error}");
    assert!(error.to_string().contains("the other side is gone"), "{error}");
    let mut taken = take_all(&mut queue);
    taken.sort_unstable();
    assert_eq!(taken, [1, 2], "what the others had, by mail and by descriptor, has come");

    assert!(queue.detach(broken).is_some());
    poster.post(3).unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
}

#[test]
fn error_is_told_also_in_a_turn_that_looks_at_the_kernel_in_passing() {
    let mut queue = Queue::new().unwrap();
    queue.attach(Talker, |byte| byte).unwrap();
    let broken = queue.attach(Broken(0), |byte| byte).unwrap();
    // So often that the looks which keep descriptors from starving come into it.
    for turn in 0..200 {
        queue[broken].0 = 1;
        assert!(queue.wait(None).is_err(), "the error of turn {turn} was lost");
        take_all(&mut queue);
        assert!(queue.wait(None).is_ok(), "one error was told twice");
        take_all(&mut queue);
    }
}

#[test]
fn detached_source_comes_back_and_its_events_do_not_come_out() {
    let mut queue = Queue::new().unwrap();
    let (first, one) = UserEvents::new();
    let first = queue.attach(first, |n: u32| n).unwrap();
    one.post(1).unwrap();
    assert_eq!(queue.wait(None).unwrap(), 1);
    assert!(queue.detach(first).is_some());
    assert!(queue.detach(first).is_none());
    // The successor gets the slot; neither the event nor the id of the first is taken for its.
    let (second, two) = UserEvents::new();
    let second = queue.attach(second, |n: u32| n + 100).unwrap();
    two.post(2).unwrap();
    queue.wait(Wait::poll().at_least(2)).unwrap();
    assert_eq!(take_all(&mut queue), [102]);
    assert_eq!(queue.stats().stale, 1);
    assert!(queue.get(first).is_none());
    assert!(queue.get(second).is_some());
}

/// Has one descriptor, and leaves it in the set: open, or closed while a duplicate is open.
struct Leaver {
    socket: Option<UnixStream>,
    closes: bool,
    heard: usize,
}

impl Leaver {
    fn pair(closes: bool) -> (Leaver, UnixStream) {
        let (socket, other) = UnixStream::pair().unwrap();
        (Leaver { socket: Some(socket), closes, heard: 0 }, other)
    }
}

impl Source for Leaver {
    type Item = u64;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        poll_set.add(socket.as_fd(), PollKey::default(), Interest::READABLE, Trigger::Level)
    }

    fn ready(&mut self, _: PollKey, _: Ready) {
        self.heard += 1;
    }

    fn drain(&mut self, _: &mut impl Sink<u64>) -> io::Result<()> {
        Ok(())
    }

    fn detach(&mut self) {
        if self.closes {
            self.socket = None;
        }
    }
}

#[test]
fn descriptor_that_a_detached_source_left_in_the_set_is_taken_out() {
    let (mut queue, _poster) = queue_of(4);
    let (leaver, mut other) = Leaver::pair(false);
    let id = queue.attach(leaver, |n| n).unwrap();
    other.write_all(b"x").unwrap();
    let _kept = queue.detach(id).unwrap();
    assert_eq!(queue.wait(5 * MS).unwrap(), 0);
    assert!(queue.stats().polls < 5, "it keeps the queue awake: {:?}", queue.stats());
    assert_eq!(queue.stats().strays, 0);
}

#[test]
fn sources_that_stay_keep_their_descriptors_when_another_goes() {
    let mut queue = Queue::new().unwrap();
    let (bytes, mut other) = Bytes::pair();
    queue.attach(bytes, |byte| byte).unwrap();
    let (leaver, _peer) = Leaver::pair(false);
    let leaver = queue.attach(leaver, |_| 0).unwrap();
    queue.wait(Wait::poll()).unwrap();
    assert!(queue.detach(leaver).is_some());
    other.write_all(b"x").unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
    assert_eq!(queue.next(), Some(b'x'));
}

#[test]
fn sources_may_come_and_go_more_often_than_can_stand_at_once() {
    let mut queue = Queue::<()>::new().unwrap();
    for _ in 0..66_000 {
        let id = queue.attach(Leaver { socket: None, closes: false, heard: 0 }, |_| ()).unwrap();
        assert!(queue.detach(id).is_some());
    }
}

#[test]
fn timer_armed_while_somebody_sleeps_on_the_queue_wakes_him() {
    let (mut queue, _poster) = queue_of(4);
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let mut outer = outer_of(&queue);
    while is_readable(&mut outer, MS) {
        queue.wait(Wait::poll()).unwrap();
    }
    // Nobody looks into the queue in between: only its descriptor can tell.
    queue[timers].after(2 * MS, 1);
    let mut fired = false;
    while !fired {
        assert!(is_readable(&mut outer, PATIENCE), "the deadline is not known");
        queue.wait(Wait::poll()).unwrap();
        fired = queue.next() == Some(1);
    }
}

#[test]
fn descriptor_out_of_reach_is_counted_and_does_not_speak_for_the_next_source() {
    let (mut queue, poster) = queue_of(4);
    let (leaver, mut other) = Leaver::pair(true);
    let duplicate = leaver.socket.as_ref().unwrap().try_clone().unwrap();
    let first = queue.attach(leaver, |n| n).unwrap();
    drop(queue.detach(first));
    let (next, _silent) = Leaver::pair(false);
    let next = queue.attach(next, |n| n).unwrap();
    other.write_all(b"x").unwrap();
    queue.wait(Wait::poll()).unwrap();
    assert_eq!(queue[next].heard, 0, "it heard of its predecessor's descriptor");
    assert!(queue.stats().strays > 0);
    // What is there comes all the same, and with the duplicate it ends.
    poster.post(1).unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
    assert_eq!(queue.next(), Some(1));
    drop(duplicate);
    let polls = queue.stats().polls;
    assert_eq!(queue.wait(5 * MS).unwrap(), 0);
    assert!(queue.stats().polls - polls < 5, "it keeps the queue awake after its end");
}

#[test]
fn id_of_another_queue_names_nothing_here() {
    let mut here = Queue::<()>::new().unwrap();
    let mut there = Queue::<()>::new().unwrap();
    let id: SourceId<Timers> = there.attach(Timers::new(), |_| ()).unwrap();
    assert!(here.get(id).is_none(), "here is nothing");
    here.attach(Timers::new(), |_| ()).unwrap();
    assert!(here.get(id).is_none(), "here is a source of the same type in the same place");
    assert!(here.get_mut(id).is_none());
    assert!(here.detach(id).is_none());
    assert!(there.detach(id).is_some());
}

/// A queue around the descriptor of `inner`.
fn outer_of<E: 'static>(inner: &Queue<E>) -> Queue<()> {
    let mut outer = Queue::new().unwrap();
    let fd = inner.as_fd().try_clone_to_owned().unwrap();
    outer.attach(Readable { fd, seen: false }, |()| ()).unwrap();
    outer
}

fn is_readable(outer: &mut Queue<()>, patience: Duration) -> bool {
    outer.wait(patience).unwrap();
    !take_all(outer).is_empty()
}

#[test]
fn queue_in_a_queue_is_readable_when_it_has_something_and_only_then() {
    let (mut queue, poster) = queue_of(4);
    let timers = queue.attach(Timers::new(), |event| event.key).unwrap();
    let mut outer = outer_of(&queue);
    assert!(is_readable(&mut outer, PATIENCE), "the first look may be for nothing");
    queue.wait(Wait::poll()).unwrap();
    assert!(!is_readable(&mut outer, 5 * MS), "readable for nothing");

    let posting = thread::spawn(move || poster.post(1));
    assert!(is_readable(&mut outer, PATIENCE), "a post makes it readable");
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 1);
    assert_eq!(queue.next(), Some(1));
    posting.join().unwrap().unwrap();

    queue[timers].after(5 * MS, 2);
    queue[timers].every(2 * MS, 3);
    let mut ticks = 0;
    let mut fired = false;
    while ticks < 5 || !fired {
        assert!(is_readable(&mut outer, PATIENCE), "a deadline makes it readable");
        queue.wait(Wait::poll()).unwrap();
        for key in take_all(&mut queue) {
            ticks += u32::from(key == 3);
            fired |= key == 2;
        }
    }
}

#[test]
fn queue_in_a_queue_stays_readable_while_events_are_left() {
    let (mut queue, poster) = queue_of(2);
    let mut outer = outer_of(&queue);
    (0..5).for_each(|n| poster.post(n).unwrap());
    for n in 0..5 {
        assert!(is_readable(&mut outer, PATIENCE), "{} events are left", 5 - n);
        queue.wait(Wait::poll().at_most(1)).unwrap();
        assert_eq!(queue.next(), Some(n));
    }
}

#[test]
fn attended_queue_rings_for_nothing_and_tells_what_is_left_when_it_is_left() {
    let (mut queue, poster) = queue_of(4);
    let mut outer = outer_of(&queue);
    let turn = |queue: &mut Queue<u64>| {
        queue.wait(Wait::poll()).unwrap();
        take_all(queue)
    };
    assert!(is_readable(&mut outer, PATIENCE), "the first look may be for nothing");
    for _ in 0..3 {
        queue.attend();
        poster.post(1).unwrap();
        assert_eq!(turn(&mut queue), [1]);
        // It may have been readable once too often until it has looked.
        assert_eq!(turn(&mut queue), []);
        poster.post(2).unwrap();
        assert!(!is_readable(&mut outer, 5 * MS), "somebody is here, and need not be told");
        queue.leave().unwrap();
        assert!(is_readable(&mut outer, PATIENCE), "what came too late for the turn is told");
        queue.attend();
        assert_eq!(turn(&mut queue), [2]);
        queue.leave().unwrap();
        poster.post(3).unwrap();
        assert!(is_readable(&mut outer, PATIENCE), "nobody is here any more");
        assert_eq!(turn(&mut queue), [3]);
    }
}

#[test]
fn queue_in_a_queue_is_readable_for_a_source_that_has_more_than_it_gave() {
    /// Says that it has something, and gives it at every seventh drain.
    struct Late(u32);
    impl Source for Late {
        type Item = ();
        fn attach(&mut self, _: &PollSet) -> io::Result<()> {
            Ok(())
        }
        fn flush(&mut self) -> io::Result<Due> {
            Ok(Due::Now)
        }
        fn drain(&mut self, sink: &mut impl Sink<()>) -> io::Result<()> {
            self.0 += 1;
            if self.0 % 7 == 0 {
                return sink.push(Token::SOLE, ()).or(Ok(()));
            }
            Ok(())
        }
    }
    let mut queue = Queue::new().unwrap();
    queue.attach(Late(0), |()| ()).unwrap();
    let mut outer = outer_of(&queue);
    for _ in 0..20 {
        assert!(is_readable(&mut outer, PATIENCE), "the queue has more and does not say so");
        queue.wait(Wait::poll().at_least(0)).unwrap();
        take_all(&mut queue);
    }
}

#[test]
fn queue_in_a_queue_is_readable_though_one_of_its_sources_fails() {
    let (mut queue, poster) = queue_of(1);
    queue.attach(Broken(u32::MAX), |byte| byte.into()).unwrap();
    let mut outer = outer_of(&queue);
    (0..3).for_each(|n| poster.post(n).unwrap());
    for n in 0..3 {
        assert!(is_readable(&mut outer, PATIENCE), "{} events are left", 3 - n);
        queue.wait(Wait::poll()).unwrap_err();
        assert_eq!(queue.next(), Some(n));
    }
}
