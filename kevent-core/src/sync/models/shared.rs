//! Several threads harvest one queue: all of it is the code that runs, but for the kernel's part of a
//! sleep (see [`kernel`](crate::sync::kernel)).
//!
//! A thread that sleeps while an event lies there, and nobody comes to take it, is a deadlock.

use std::io;
use std::mem;
use std::num::NonZeroUsize;

use loom::thread::{self, JoinHandle};

use super::{model_with, others_may_go_first};
use crate::sync::kernel;
use crate::{Due, PollSet, Poster, Queue, SharedQueue, Sink, Source, Token, UserEvents, Wait};

/// Enough to find what mutations of the code break; three take an hour.
const PREEMPTIONS: usize = 2;

fn four() -> NonZeroUsize {
    NonZeroUsize::new(4).unwrap()
}

fn queue() -> (Queue<u64>, Poster<u64>) {
    let mut queue = Queue::with_capacity(four()).unwrap();
    let (users, poster) = UserEvents::with_capacity(four());
    queue.attach(users, |n| n).unwrap();
    (queue, poster)
}

fn shared() -> (SharedQueue<u64>, Poster<u64>) {
    let (queue, poster) = queue();
    (SharedQueue::new(queue).unwrap(), poster)
}

/// A thread that takes one event, or is told that there is none.
fn taker(shared: &SharedQueue<u64>, wait: Wait) -> JoinHandle<io::Result<Option<u64>>> {
    let mut shared = shared.clone();
    thread::spawn(move || shared.next(wait))
}

fn taken(taker: JoinHandle<io::Result<Option<u64>>>) -> Option<u64> {
    taker.join().unwrap().unwrap()
}

/// What is left when the threads are gone.
fn rest(shared: &mut SharedQueue<u64>) -> Vec<u64> {
    std::iter::from_fn(|| shared.next(Wait::poll()).unwrap()).collect()
}

/// Each of `expected` came out once, here or there.
fn assert_all(came: impl IntoIterator<Item = Option<u64>>, rest: Vec<u64>, expected: &[u64]) {
    let mut all: Vec<_> = came.into_iter().flatten().chain(rest).collect();
    all.sort_unstable();
    assert_eq!(all, expected);
}

#[test]
fn each_event_comes_out_at_one_thread_and_none_is_slept_over() {
    model_with(PREEMPTIONS, || {
        let (mut shared, poster) = shared();
        let takers = [(); 2].map(|()| taker(&shared, Wait::forever()));
        poster.post(1).unwrap();
        poster.post(2).unwrap();
        let came = takers.map(taken);
        assert!(came.iter().all(Option::is_some), "nobody was called");
        assert_all(came, rest(&mut shared), &[1, 2]);
    });
}

#[test]
fn events_of_two_posters_wake_two_threads() {
    // Four threads.
    model_with(1, || {
        let (mut shared, poster) = shared();
        let other = poster.clone();
        let takers = [(); 2].map(|()| taker(&shared, Wait::forever()));
        let posting = thread::spawn(move || other.post(1).unwrap());
        poster.post(2).unwrap();
        posting.join().unwrap();
        assert_all(takers.map(taken), rest(&mut shared), &[1, 2]);
    });
}

#[test]
fn one_event_wakes_one_thread_and_closing_all() {
    model_with(PREEMPTIONS, || {
        let (mut shared, poster) = shared();
        let takers = [(); 2].map(|()| taker(&shared, Wait::forever()));
        poster.post(1).unwrap();
        others_may_go_first();
        shared.close();
        assert_all(takers.map(taken), rest(&mut shared), &[1]);
        let set = kernel::set();
        assert!(set.wake_ups <= 1, "one event woke {} threads", set.wake_ups);
        assert!(!set.sounds, "all have come, and the call goes on");
    });
}

#[test]
fn call_reaches_all_who_sleep_and_then_ends() {
    model_with(PREEMPTIONS, || {
        let (shared, _poster) = shared();
        let takers = [(); 2].map(|()| taker(&shared, Wait::forever()));
        others_may_go_first();
        shared.wake_all();
        others_may_go_first();
        // For those that had not slept yet.
        shared.close();
        assert_eq!(takers.map(taken), [None, None]);
        assert!(!kernel::set().sounds, "all have come, and the call goes on");
    });
}

#[test]
fn thread_that_leaves_between_wake_up_and_harvest_loses_nothing() {
    model_with(PREEMPTIONS, || {
        let (mut shared, poster) = shared();
        let stays = taker(&shared, Wait::forever());
        let leaves = taker(&shared, Wait::poll());
        poster.post(1).unwrap();
        poster.post(2).unwrap();
        let came = [taken(stays), taken(leaves)];
        assert!(came[0].is_some(), "nobody was called");
        assert_all(came, rest(&mut shared), &[1, 2]);
    });
}

/// Fails once, when it is asked for the last of so many times.
struct Broken(u32);

impl Source for Broken {
    type Item = u64;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 1 { Err(io::Error::other("it broke")) } else { Ok(Due::OnWake) }
    }

    fn drain(&mut self, _: &mut impl Sink<u64>) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that is told of the error leaves. The other gets the event: it takes the last of the
/// threads to lose one.
#[test]
fn thread_whose_turn_fails_leaves_the_event_to_the_other() {
    for turns in 1..=4 {
        model_with(PREEMPTIONS, move || {
            let (shared, poster) = shared();
            shared.lock().attach(Broken(turns + 1), |n| n).unwrap();
            let takers = [(); 2].map(|()| taker(&shared, Wait::forever()));
            poster.post(1).unwrap();
            let came = takers.map(|taker| taker.join().unwrap());
            let (failed, took) = match &came {
                [Err(_), Ok(event)] | [Ok(event), Err(_)] => (true, *event),
                _ => (false, None),
            };
            assert!(failed && took == Some(1), "{came:?}");
        });
    }
}

#[test]
fn interrupt_brings_one_thread_back_and_an_event_the_other() {
    model_with(PREEMPTIONS, || {
        let (shared, poster) = shared();
        let interrupter = shared.lock().interrupter();
        let takers = [(); 2].map(|()| taker(&shared, Wait::forever()));
        interrupter.interrupt();
        poster.post(1).unwrap();
        let mut came = takers.map(taken);
        came.sort_unstable();
        assert_eq!(came, [None, Some(1)]);
    });
}

/// Two registrations with one event each, which they are good for until it is delivered.
struct Registrations {
    standing: [bool; 2],
    pushed: bool,
}

impl Registrations {
    /// Says whether its event was not delivered, and now never will be.
    fn remove(&mut self, slot: usize) -> bool {
        mem::take(&mut self.standing[slot])
    }
}

impl Source for Registrations {
    type Item = u64;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.pushed { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<u64>) -> io::Result<()> {
        if !mem::replace(&mut self.pushed, true) {
            sink.push(Token::new(0, 1), 1).unwrap();
            sink.push(Token::new(1, 1), 2).unwrap();
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        self.remove(token.slot() as usize)
    }
}

#[test]
fn what_another_thread_removes_is_not_delivered_afterwards() {
    model_with(PREEMPTIONS, || {
        let mut queue = Queue::with_capacity(four()).unwrap();
        let source = Registrations { standing: [true; 2], pushed: false };
        let id = queue.attach(source, |n| n).unwrap();
        let mut shared = SharedQueue::new(queue).unwrap();
        let takers = [(); 2].map(|()| taker(&shared, Wait::poll()));
        others_may_go_first();
        let removed = shared.lock()[id].remove(0);
        let came = takers.map(taken);
        // Removed in time, or else delivered before.
        let expected: &[u64] = if removed { &[2] } else { &[1, 2] };
        assert_all(came, rest(&mut shared), expected);
    });
}
