//! What a registered descriptor costs in memory, all tables together. The allocator that counts is the
//! process's, so this is a test binary of its own, with one test.

#![allow(clippy::unwrap_used)] // Helpers of tests.
#![allow(unsafe_code)] // An allocator is nothing else.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicIsize, Ordering};

use common::{Bench, sys};
use kevent_net::Mode;

const COUNT: usize = 10_000;

/// The goal, without what the kernel keeps for itself.
const MOST: usize = 184;

/// The system's allocator, which counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: usize, sign: isize) {
    IN_USE.fetch_add(sign * isize::try_from(bytes).unwrap(), Ordering::Relaxed);
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn registered_descriptor_costs_less_than_the_goal_and_gives_it_back() {
    if sys::raise_descriptor_limit() < COUNT as u64 + 50 {
        println!("skipped: the process may not open {COUNT} descriptors");
        return;
    }
    let file = sys::eventfd();
    let mut descriptors: Vec<OwnedFd> = Vec::with_capacity(COUNT);
    descriptors.extend((0..COUNT).map(|_| file.try_clone().unwrap()));
    let mut tokens = Vec::with_capacity(COUNT);
    let mut bench = Bench::new();

    let before = IN_USE.load(Ordering::Relaxed);
    for (fd, key) in descriptors.iter().zip(0..) {
        tokens.push(bench.reads(fd, Mode::Edge, key));
    }
    let taken = usize::try_from(IN_USE.load(Ordering::Relaxed) - before).unwrap();
    println!("{} bytes for each of {COUNT} registrations", taken / COUNT);
    assert!(taken / COUNT <= MOST, "{} bytes for each registration", taken / COUNT);

    // Who comes later gets the places of those who went.
    for token in tokens.drain(..) {
        assert!(bench.source().unregister(token));
    }
    for (fd, key) in descriptors.iter().zip(0..) {
        tokens.push(bench.reads(fd, Mode::Level, key));
    }
    let again = usize::try_from(IN_USE.load(Ordering::Relaxed) - before).unwrap();
    assert!(
        again < taken + COUNT,
        "{taken}, then {again} bytes: it grows as descriptors come and go"
    );
}
