//! What a queue counts.

use std::fmt;

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
    /// the events of the first. One look of sixteen is measured, and counts for all of them. (Not of a queue whose descriptor was taken, or that threads share: there
    /// somebody else sleeps between two turns.)
    pub handling: Histogram,
    /// The time between two looks at the kernel, in nanoseconds, without that in the kernel: so long
    /// nobody saw what happened there. Measured as `handling`. It is what the loop adds to the latency of everything.
    pub lag: Histogram,
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

/// A [`Queue`](crate::Queue) at one moment, in numbers.
///
/// ```
/// use kevent_core::{Queue, Timers, UserEvents};
///
/// let mut queue = Queue::new()?;
/// queue.attach(Timers::new(), |event| event.key)?;
/// let (users, _poster) = UserEvents::new();
/// queue.attach(users, |n| n)?;
/// print!("{}", queue.snapshot());
/// assert_eq!(queue.snapshot().sources.len(), 2);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many events of sources the ring holds at most.
    pub capacity: usize,
    /// How many events are in it.
    pub len: usize,
    /// What the queue counted.
    pub stats: Stats,
    /// What each source counted, by its type, in the order of attachment.
    pub sources: Vec<(&'static str, SourceStats)>,
}

/// A few lines of text: one for the queue, one for its times, one for each source.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Snapshot { capacity, len, stats, .. } = self;
        let Stats { delivered, stale, polls, interrupts, strays, handling, lag, .. } = stats;
        writeln!(
            f,
            "{len} of {capacity} in the ring, {delivered} delivered, {stale} stale, {polls} looks, \
             {interrupts} interrupts, {strays} strays"
        )?;
        writeln!(f, "  handling {handling:?} ns, lag {lag:?} ns")?;
        for (name, source) in &self.sources {
            let SourceStats { delivered, stale, in_ring, most_in_ring, .. } = source;
            let SourceStats { refused, held_back, dropped, coalesced, batches, .. } = source;
            writeln!(
                f,
                "  {name}: {delivered} delivered, {stale} stale, {in_ring} in the ring (most \
                 {most_in_ring}), {refused} refused, {held_back} held back, {dropped} dropped, \
                 {coalesced} coalesced, batches {batches:?}"
            )?;
        }
        Ok(())
    }
}
