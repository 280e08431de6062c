//! The contract suite over the sources of this crate, alone and under load.
//!
//! Those that need a place of their own run it there: `signals.rs` and `process_wide.rs` because
//! what they do is the whole process's, `mounts.rs` in a mount namespace, `pressure.rs` on cgroups.
//! [`Idle`] says something when nobody else does, which is no event that could be provoked:
//! `idle.rs` has its promises.
//!
//! [`Idle`]: kevent_core::Idle

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::num::NonZeroUsize;
use std::time::Duration;

use kevent_core::testing::Contract;
use kevent_core::{
    Adder, ChildQueue, Counters, HandlerEvents, Poster, Queue, Source, SourceId, Timers, Token,
    UserEvents,
};

fn check<S: Source, D>(contract: Contract<S, D>) {
    contract.check();
    contract.under_load().check();
}

/// A queue as a source, whose own ring is small.
fn child() -> (ChildQueue<u64>, Poster<u64>, SourceId<Timers>) {
    let mut queue = Queue::with_capacity(NonZeroUsize::new(4).unwrap()).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n| n).unwrap();
    let timers = queue.attach(Timers::new(), |timer| timer.key).unwrap();
    (ChildQueue::new(queue), poster, timers)
}

#[test]
fn timers_keep_the_contract() {
    let contract = Contract::new(|| (Timers::new(), Vec::<Token>::new()))
        .provoke(|timers, armed, count| {
            for key in 0..count as u64 {
                armed.push(timers.after(Duration::from_micros(50 * key), key));
            }
        })
        .remove(|timers, armed| armed.drain(..).for_each(|token| assert!(timers.cancel(token))));
    check(contract);
}

#[test]
fn user_events_keep_the_contract() {
    let contract = Contract::new(UserEvents::new)
        .provoke(|_, poster, count| (0..count).for_each(|n| poster.post(n).unwrap()));
    check(contract);
}

#[test]
fn handler_events_keep_the_contract() {
    let contract = Contract::new(HandlerEvents::new)
        .provoke(|_, poster, count| (0..count).for_each(|n| poster.post(n as u64).unwrap()));
    check(contract);
}

#[test]
fn sums_keep_the_contract() {
    let contract = Contract::new(|| (Counters::new(), Vec::<(Token, Adder)>::new()))
        .provoke(|counters, made, count| {
            for key in 0..count {
                let (token, adder) = counters.sum(key as u64).unwrap();
                adder.add(3).unwrap();
                made.push((token, adder));
            }
        })
        .remove(|counters, made| {
            // The adders stay, and with them the descriptors.
            made.iter().for_each(|(token, _)| assert!(counters.remove(*token)));
        });
    check(contract);
}

#[test]
fn semaphores_keep_the_contract() {
    let contract = Contract::new(|| {
        let mut counters = Counters::new();
        let (token, adder) = counters.semaphore(0).unwrap();
        (counters, (token, adder))
    })
    .provoke(|_, (_, adder), count| adder.add(count as u64).unwrap())
    .remove(|counters, (token, _)| assert!(counters.remove(*token)));
    check(contract);
}

#[test]
fn child_queue_keeps_the_contract_with_posts() {
    let contract = Contract::new(|| {
        let (child, poster, _) = child();
        (child, poster)
    })
    .provoke(|_, poster, count| (0..count).for_each(|n| poster.post(n as u64).unwrap()));
    check(contract);
}

#[test]
fn child_queue_keeps_the_contract_with_timers() {
    let contract = Contract::new(|| {
        let (child, _, timers) = child();
        (child, (timers, Vec::<Token>::new()))
    })
    .provoke(|child, (timers, armed), count| {
        for key in 0..count as u64 {
            armed.push(child[*timers].after(Duration::from_micros(50 * key), key));
        }
    })
    .remove(|child, (timers, armed)| {
        armed.drain(..).for_each(|token| assert!(child[*timers].cancel(token)));
    });
    check(contract);
}

#[test]
fn child_in_a_child_keeps_the_contract() {
    let contract = Contract::new(|| {
        let (inner, poster, _) = child();
        let mut outer = Queue::with_capacity(NonZeroUsize::new(2).unwrap()).unwrap();
        outer.attach(inner, |n| n).unwrap();
        (ChildQueue::new(outer), poster)
    })
    .provoke(|_, poster, count| (0..count).for_each(|n| poster.post(n as u64).unwrap()));
    check(contract);
}
