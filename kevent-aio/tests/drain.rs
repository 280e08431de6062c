//! The end of an engine, what goes first, and what is measured.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write as _;
use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Bench, PATIENCE, honest};
use kevent_aio::{
    Aio, Buffers, Choice, Class, Completion, Fd, Fsync, Group, Open, Priority, Read, ReadVectored,
    Recv, Write, WriteVectored,
};
use kevent_core::testing::Sim;

/// A read that ends when the other end is written to.
fn stuck() -> (Read, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    (Read::new(Arc::new(here), 0, Vec::with_capacity(1)), there)
}

#[test]
fn drain_waits_for_what_is_in_flight() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file: Fd = Arc::new(tempfile::tempfile().unwrap());
        for key in 0..40 {
            bench.submit(Write::new(file.clone(), key * 4096, vec![1; 4096]), key);
        }
        bench.submit(Fsync::new(file.clone()).after_writes(), 40);
        let mut group = Group::all();
        group.add(Open::new("/dev/null"), 0).add(Open::new("/dev/zero"), 1);
        bench.submit(group, 41);
        assert_eq!(bench.aio().drain(Instant::now() + PATIENCE), [], "{name}");
        bench.turn();
        let done: Vec<Completion> = std::iter::from_fn(|| bench.queue.next()).collect();
        assert_eq!(done.len(), 42, "{name}: all of them, without waiting");
        assert!(done.iter().all(|completion| completion.result.is_ok()));
        assert_eq!(bench.aio().in_flight(), 0);
    }
}

#[test]
fn what_has_not_ended_by_the_deadline_is_cancelled() {
    let Some((_, builder)) = honest().into_iter().find(|(name, _)| *name == "uring") else {
        return;
    };
    let mut bench = Bench::new(builder);
    let (read, _there) = stuck();
    bench.submit(read, 1);
    assert_eq!(bench.aio().drain(Instant::now() + Duration::from_millis(20)), []);
    assert!(bench.next().was_cancelled());
}

#[test]
fn deadlines_of_operations_hold_while_the_engine_is_drained() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (here, _there) = UnixStream::pair().unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        let recv = Recv::new(Arc::new(here), Vec::with_capacity(1));
        bench.aio().submit_until(recv, 1, soon).unwrap();
        let begun = Instant::now();
        assert_eq!(bench.aio().drain(begun + PATIENCE), [], "{name}");
        assert!(begun.elapsed() < PATIENCE);
        let error = bench.next().result.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{name}");
    }
}

#[test]
fn drain_goes_on_with_what_waits_for_a_socket() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (here, mut there) = UnixStream::pair().unwrap();
        bench.submit(Recv::new(Arc::new(here), Vec::with_capacity(1)), 1);
        bench.turn();
        there.write_all(b"x").unwrap();
        assert_eq!(bench.aio().drain(Instant::now() + PATIENCE), [], "{name}");
        assert_eq!(bench.next().result.unwrap(), 1, "{name}");
    }
}

#[test]
fn what_can_not_even_be_cancelled_is_named_and_keeps_its_memory() {
    let builder = Aio::builder().backend(Choice::Pool).threads(1);
    let mut bench = Bench::new(builder);
    let pool = Buffers::new(NonZero::new(1).unwrap(), NonZero::new(1).unwrap()).unwrap();
    let (here, mut there) = UnixStream::pair().unwrap();
    let token = bench.submit(Read::new(Arc::new(here), 0, pool.take().unwrap()), 7);
    bench.submit(Open::new("/dev/null"), 8);
    // It has begun when nothing but it is left that could be taken back.
    let begun = Instant::now();
    let gone = bench.aio().drain(Instant::now() + Duration::from_millis(50));
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].token, gone[0].key), (token, 7));
    assert!(bench.next().was_cancelled(), "the other one had not begun");
    bench.is_silent();
    assert_eq!(pool.free(), 0, "a thread still reads into it");
    there.write_all(b"x").unwrap();
    while pool.free() == 0 {
        bench.turn();
    }
    assert_eq!(bench.aio().in_flight(), 0);
}

#[test]
fn drain_in_a_simulation_takes_no_time() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let lying = kevent_aio::testing::lying(Aio::builder(), 3);
    let id = queue.attach(lying.build().unwrap(), |completion: Completion| completion).unwrap();
    for key in 0..10 {
        queue[id].submit(Open::new("/dev/null"), key).unwrap();
    }
    assert_eq!(queue[id].drain(Instant::now() + Duration::from_secs(3600)), []);
    queue.wait(None).unwrap();
    assert_eq!(std::iter::from_fn(|| queue.next()).count(), 10);
}

#[test]
fn threads_take_what_is_more_urgent_first() {
    let mut bench = Bench::new(Aio::builder().backend(Choice::Pool).threads(1));
    let (read, mut there) = stuck();
    bench.submit(read, 0);
    let file: Fd = Arc::new(tempfile::tempfile().unwrap());
    let read = |priority| Read::new(file.clone(), 0, Vec::new()).up_to(1).cold().priority(priority);
    let write = |priority| Write::new(file.clone(), 0, "x").priority(priority);
    bench.submit(read(Priority::Idle), 6);
    bench.submit(read(Priority::Normal), 4);
    bench.submit(read(Priority::High), 1);
    bench.submit(write(Priority::High), 2);
    bench.submit(write(Priority::Idle), 7);
    bench.submit(WriteVectored::new(file.clone(), 0, vec![]).priority(Priority::High), 3);
    bench.submit(ReadVectored::new(file.clone(), 0, vec![]).priority(Priority::Normal), 5);
    there.write_all(b"x").unwrap();
    let mut keys: Vec<_> = (0..8).map(|_| bench.next().key).collect();
    // The thread may have begun with it before the others came, or later.
    keys.retain(|key| *key != 0);
    assert_eq!(keys, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn urgency_changes_nothing_but_the_order() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file: Fd = Arc::new(tempfile::tempfile().unwrap());
        for priority in [Priority::Idle, Priority::Normal, Priority::High] {
            let written = bench.complete(Write::new(file.clone(), 0, "abc").priority(priority));
            assert_eq!(written.result.unwrap(), 3, "{name} {priority:?}");
            let read = Read::new(file.clone(), 0, Vec::with_capacity(3)).cold().priority(priority);
            assert_eq!(bench.complete(read).result.unwrap(), 3, "{name} {priority:?}");
        }
    }
}

#[test]
fn report_says_how_long_each_kind_of_work_took() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file: Fd = Arc::new(tempfile::tempfile().unwrap());
        for _ in 0..5 {
            bench.complete(Write::new(file.clone(), 0, "abc")).result.unwrap();
            bench.complete(Fsync::new(file.clone())).result.unwrap();
        }
        bench.complete(Open::new("/dev/null")).result.unwrap();
        let (read, _there) = stuck();
        bench.submit(read, 1);
        let report = bench.aio().report();
        assert_eq!(report.in_flight, 1, "{name}");
        for (class, count) in [(Class::Write, 5), (Class::Sync, 5), (Class::Metadata, 1)] {
            let latency = report.latency(class);
            let histogram = if name == "uring" { latency.on_ring } else { latency.on_pool };
            assert_eq!(histogram.count(), count, "{name} {class:?}");
            assert!(histogram.max() > 0, "{name} {class:?}");
        }
        let waits = if name == "uring" { 0 } else { 11 };
        assert_eq!(report.waits_for_pool.count(), waits, "{name}");
    }
}
