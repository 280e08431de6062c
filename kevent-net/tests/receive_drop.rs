//! Receivers that are dropped, with requests standing. Descriptors are counted for the whole process,
//! so this is a test binary of its own, whose tests take turns.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::receiving::{Bench, for_one_thread, receiver};
use common::sys;
use kevent_core::Wait;
use kevent_net::{Received, Receiver};

const COUNT: u64 = 200;

static TURN: Mutex<()> = Mutex::new(());

fn my_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A queue that receives from many sockets, with an event of each in the ring and more in the kernel;
/// and their peers.
fn under_load(make: fn(usize, usize) -> Option<Receiver>) -> Option<(Bench, Vec<UnixStream>)> {
    let mut bench = Bench::of(1024, make(512, 64))?;
    let mut peers = Vec::new();
    for key in 0..COUNT {
        let (here, mut there) = UnixStream::pair().unwrap();
        bench.register(&Arc::new(here), key);
        there.write_all(b"in the ring").unwrap();
        peers.push(there);
    }
    while bench.queue.len() < COUNT as usize {
        bench.queue.wait(common::PATIENCE).unwrap();
    }
    for peer in &mut peers {
        peer.write_all(b"in the kernel").unwrap();
    }
    Some((bench, peers))
}

/// The kernel closes what it held a little later than the ring.
fn settles_at(count: usize) {
    let deadline = Instant::now() + common::PATIENCE;
    while descriptors() != count {
        assert!(Instant::now() < deadline, "{} descriptors, not {count}", descriptors());
        std::thread::yield_now();
    }
}

#[test]
fn dropped_receiver_leaves_no_descriptor_open_and_lets_go_of_every_socket() {
    let _turn = my_turn();
    for make in [receiver, for_one_thread] {
        let before = descriptors();
        let Some((bench, peers)) = under_load(make) else { return };
        let begun = Instant::now();
        drop(bench);
        assert!(begun.elapsed() < Duration::from_secs(1), "the kernel let go in time");
        for peer in &peers {
            peer.set_read_timeout(Some(common::PATIENCE)).unwrap();
            // The end, or a reset, because there is something that nobody has read.
            let _ = std::io::Read::read(&mut &*peer, &mut [0]);
        }
        drop(peers);
        settles_at(before);
    }
}

#[test]
fn dropped_by_another_thread_than_made_the_requests_it_ends_as_well() {
    let _turn = my_turn();
    let before = descriptors();
    // The second leaks the memory of its buffers, and no descriptor.
    for make in [receiver, for_one_thread] {
        let Some((bench, peers)) = under_load(make) else { return };
        std::thread::spawn(move || drop(bench)).join().unwrap();
        drop(peers);
        settles_at(before);
    }
}

#[test]
fn event_outlives_the_queue_and_the_receiver() {
    let _turn = my_turn();
    let Some((mut bench, _peers)) = under_load(receiver) else { return };
    let buffers: Vec<_> = (0..COUNT).map(|_| bench.buffer()).collect();
    drop(bench);
    assert!(buffers.iter().all(|buffer| buffer.starts_with(b"in the ")));
}

#[test]
fn registrations_that_come_and_go_leave_nothing_behind() {
    let _turn = my_turn();
    let Some(mut bench) = Bench::with(64, 16, 64) else { return };
    let before = descriptors();
    for round in 0..500 {
        let (here, mut there) = UnixStream::pair().unwrap();
        let token = bench.register(&Arc::new(here), round);
        there.write_all(b"x").unwrap();
        match round % 4 {
            // Before the kernel has the request, and when it has.
            0 => {}
            1 => drop(bench.queue.wait(Wait::poll()).unwrap()),
            2 => assert_eq!(bench.data(), b"x"),
            _ => {
                drop(there);
                assert_eq!(bench.data(), b"x");
                let _ = bench.event();
                assert!(bench.source().is_empty());
            }
        }
        bench.source().unregister(token);
    }
    bench.sleeps();
    settles_at(before);
    // Every buffer is back.
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 0);
    there.write_all(&[0; 64 * 16]).unwrap();
    let held: Vec<_> = (0..16).map(|_| bench.buffer()).collect();
    assert!(held.iter().all(|buffer| buffer.len() == 64));
}

#[test]
fn answers_that_the_ring_had_no_room_for_come_later() {
    let _turn = my_turn();
    const MANY: u64 = 700;
    if sys::raise_descriptor_limit() < 2 * MANY + 100 {
        println!("skipped: the process may not open that many descriptors");
        return;
    }
    for make in [receiver, for_one_thread] {
        // Nearly all of them find no buffer, each an answer, and the ring has room for 512.
        let Some(mut bench) = Bench::of(64, make(1, 8)) else { return };
        let mut peers = Vec::new();
        for key in 0..MANY {
            let (here, mut there) = UnixStream::pair().unwrap();
            there.write_all(&key.to_ne_bytes()).unwrap();
            bench.register(&Arc::new(here), key);
            peers.push(there);
        }
        let mut keys: Vec<_> = (0..MANY)
            .map(|_| {
                let event = bench.event();
                let Received::Data(data) = &event.received else { panic!("no data") };
                assert_eq!(**data, event.key.to_ne_bytes());
                event.key
            })
            .collect();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..MANY));
        bench.sleeps();
    }
}

#[test]
fn receiver_that_was_never_attached_is_dropped_like_any_other() {
    let _turn = my_turn();
    let before = descriptors();
    let Some(mut receiver) = receiver(8, 8) else { return };
    let (here, _there) = UnixStream::pair().unwrap();
    receiver.register(&Arc::new(here), 1).unwrap();
    drop((receiver, _there));
    settles_at(before);
}
