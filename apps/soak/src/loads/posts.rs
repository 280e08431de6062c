//! What the program posts itself: each number comes out once.
//!
//! Told without a lock, so that threads that share a queue meet at the queue and nowhere else.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ledger::Tally;

/// Which way a number was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// [`kevent_core::Poster`].
    User,
    /// [`kevent_core::HandlerPoster`].
    Handler,
    /// [`kevent_core::Queue::post`].
    Own,
    /// A poster of a queue in the queue.
    Nested,
}

/// The numbers of one way.
#[derive(Debug)]
pub(crate) struct Posts {
    limit: u64,
    given: AtomicU64,
    posted: AtomicU64,
    told: AtomicU64,
    /// A bit for each number that was told.
    seen: Box<[AtomicU64]>,
}

impl Posts {
    pub(crate) fn new(limit: u64) -> Posts {
        let words = limit.div_ceil(64);
        Posts {
            limit,
            given: AtomicU64::new(0),
            posted: AtomicU64::new(0),
            told: AtomicU64::new(0),
            seen: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The next number to post; `None` when all were.
    pub(crate) fn next(&self) -> Option<u64> {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        (number < self.limit).then_some(number)
    }

    /// `next` gave a number, and it was posted.
    pub(crate) fn posted(&self) {
        self.posted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn told(&self, number: u64) {
        let bit = 1 << (number % 64);
        let before = self.seen[(number / 64) as usize].fetch_or(bit, Ordering::Relaxed);
        assert!(before & bit == 0, "post {number} came out twice");
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn all_told(&self) -> bool {
        self.told.load(Ordering::Relaxed) == self.limit
    }

    pub(crate) fn tally(&self) -> Tally {
        let told = self.told.load(Ordering::Relaxed);
        Tally { provoked: self.posted.load(Ordering::Relaxed), told, taken_back: 0 }
    }
}
