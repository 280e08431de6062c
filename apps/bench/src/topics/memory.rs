//! Memory: of the ring, and of what is registered.

use std::num::NonZero;

use kevent_core::Queue;

use super::readiness;
use crate::group::{Bound, Goal, Group, Metric, Peer, Result, Sample, Setting, Topic};
use crate::sys;

pub(crate) const TOPIC: Topic = Topic { name: "memory", title: "Memory", groups, helper: None };

fn groups() -> Vec<Group> {
    let goal = |limit| vec![Goal { metric: 0, who: "kevent", bound: Bound::AtMost(limit) }];
    vec![
        Group {
            name: "memory/slot".into(),
            title: "A slot for an event of 8 bytes".into(),
            about: "Heap that a queue of 65,536 events takes beyond that of a queue of one.",
            metrics: &[Metric { name: "per slot", unit: "B" }],
            peers: vec![
                Peer { name: "kevent", run: slot },
                Peer { name: "crossbeam, bounded", run: crossbeam_slot },
                Peer { name: "VecDeque", run: deque_slot },
            ],
            size: 65_536,
            goals: goal(40.0),
        },
        Group {
            name: "memory/registered".into(),
            title: "A registered descriptor".into(),
            about: "Heap that 8,192 registered pipes take: tables that double are full then; one more \
                    entry, and they take up to twice as much. Pages of rings and the kernel's part \
                    are not in it.",
            metrics: &[Metric { name: "per descriptor", unit: "B" }],
            peers: readiness::memory_peers(),
            size: 8_192,
            goals: goal(184.0),
        },
    ]
}

/// Heap that what `make` makes takes for each of `count`.
pub(super) fn heap_of<T>(count: usize, make: impl FnOnce() -> Result<T>) -> Result<Sample> {
    sys::count_bytes();
    let before = sys::counted_bytes();
    let made = make()?;
    let bytes = sys::counted_bytes() - before;
    drop(made);
    Ok(vec![Some(bytes as f64 / count as f64)])
}

fn capacity(events: usize) -> Result<NonZero<usize>> {
    NonZero::new(events).ok_or("no events".into())
}

fn slot(setting: &Setting) -> Result<Sample> {
    let queue = |events| Ok(Queue::<u64>::with_capacity(capacity(events)?)?);
    let one = heap_of(setting.size, || queue(1))?;
    let all = heap_of(setting.size, || queue(setting.size))?;
    Ok(all.into_iter().zip(one).map(|(all, one)| Some(all? - one?)).collect())
}

fn crossbeam_slot(setting: &Setting) -> Result<Sample> {
    heap_of(setting.size, || Ok(crossbeam_channel::bounded::<u64>(setting.size)))
}

fn deque_slot(setting: &Setting) -> Result<Sample> {
    heap_of(setting.size, || Ok(std::collections::VecDeque::<u64>::with_capacity(setting.size)))
}
