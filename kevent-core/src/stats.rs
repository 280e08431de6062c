//! What a queue counts.

use crate::flow::SourceStats;
use crate::histogram::Histogram;

/// Counters of a [`Queue`](crate::Queue), since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events handed to the user.
    pub delivered: u64,
    /// Events thrown away on the way out, because their registration had been removed.
    pub stale: u64,
    /// Times that a source found the ring full, and kept what it had.
    pub refused: u64,
    /// Times that a source had more than its quota or its high-water mark allowed, and kept it.
    pub held_back: u64,
    /// Events dropped under [`Overflow::Count`](crate::Overflow::Count).
    pub dropped: u64,
    /// Events merged into others under [`Overflow::Coalesce`](crate::Overflow::Coalesce).
    pub coalesced: u64,
    /// Looks at the kernel, each one system call.
    pub polls: u64,
    /// Calls of [`Interrupter::interrupt`](crate::Interrupter::interrupt) that waits were told of.
    pub interrupts: u64,
    /// How often the kernel spoke of a descriptor of a source that is detached.
    ///
    /// That takes one that was closed while it was in the queue's set and a duplicate of it is open
    /// somewhere: nobody can take it out any more, until the duplicate is closed. If it is
    /// level-triggered and stays ready, every wait looks again at once: a number that grows all the
    /// time explains a busy processor.
    pub strays: u64,
    /// The time between two turns that asked the sources, in nanoseconds: what the user took to handle
    /// the events of the first. No source was looked at meanwhile, so this is the lag that the loop
    /// adds to whatever happens.
    pub handling: Histogram,
}

impl Stats {
    /// Takes in what one source counted.
    pub(crate) fn add(&mut self, source: &SourceStats) {
        self.delivered += source.delivered;
        self.stale += source.stale;
        self.refused += source.refused;
        self.held_back += source.held_back;
        self.dropped += source.dropped;
        self.coalesced += source.coalesced;
    }
}
