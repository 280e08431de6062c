//! How much of the ring one source may take, and what becomes of the rest.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;

use crate::histogram::Histogram;
use crate::token::Token;

/// The terms on which a source puts events into the ring: see
/// [`Queue::set_flow`](crate::Queue::set_flow).
///
/// ```
/// use kevent_core::{Flow, Overflow, Queue, UserEvents};
///
/// let mut queue = Queue::new()?;
/// let (samples, poster) = UserEvents::new();
/// let samples = queue.attach(samples, |n: u64| n)?;
/// // Two at most lie in the ring; what comes then is added to what lies there.
/// let add = Overflow::coalesce(|sum: &mut u64, n| *sum += n);
/// queue.set_flow(samples, Flow::new().high_water(2.try_into().unwrap()).overflow(add));
///
/// (1..=4).for_each(|n| poster.post(n).unwrap());
/// queue.wait(None)?;
/// assert_eq!((queue.next(), queue.next(), queue.next()), (Some(1), Some(2 + 3 + 4), None));
/// # std::io::Result::Ok(())
/// ```
pub struct Flow<E> {
    pub(crate) quota: Option<NonZeroUsize>,
    pub(crate) high_water: usize,
    pub(crate) overflow: Overflow<E>,
}

impl<E> Flow<E> {
    /// What a source has if nothing is said: an equal part of the ring in each turn, no high-water
    /// mark, and what does not fit is kept at the source.
    #[must_use]
    pub fn new() -> Flow<E> {
        Flow { quota: None, high_water: usize::MAX, overflow: Overflow::Keep }
    }

    /// How many events it may put into the ring in one turn; the rest comes in the next turn, after
    /// those of the other sources. Unless said otherwise, the capacity of the ring divided by the
    /// number of sources.
    #[must_use]
    pub fn quota(self, quota: NonZeroUsize) -> Flow<E> {
        Flow { quota: Some(quota), ..self }
    }

    /// With so many of its events in the ring, the source is not asked for more until half of them
    /// were taken out. It keeps what it has meanwhile, and so does the kernel.
    #[must_use]
    pub fn high_water(self, mark: NonZeroUsize) -> Flow<E> {
        Flow { high_water: mark.get(), ..self }
    }

    /// What happens to an event that finds the ring full, or the source's mark reached.
    #[must_use]
    pub fn overflow(self, overflow: Overflow<E>) -> Flow<E> {
        Flow { overflow, ..self }
    }
}

impl<E> Default for Flow<E> {
    fn default() -> Flow<E> {
        Flow::new()
    }
}

impl<E> fmt::Debug for Flow<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("quota", &self.quota)
            .field("high_water", &self.high_water)
            .field("overflow", &self.overflow)
            .finish()
    }
}

/// What happens to an event that does not fit.
#[non_exhaustive]
pub enum Overflow<E> {
    /// Its source keeps it, and is asked again once there is room. Nothing is lost.
    Keep,
    /// It is merged into the event of the same registration that lies in the ring. If there is none,
    /// it is kept. (Of a source without registrations, such as
    /// [`UserEvents`](crate::UserEvents), any of its events is of the same.) The registration goes on as if
    /// each had been handed out.
    Coalesce(Merge<E>),
    /// It is dropped, and counted: [`SourceStats::dropped`]. Its registration goes on as if it had been
    /// handed out.
    Count,
}

/// Puts the second event into the first.
pub type Merge<E> = Box<dyn FnMut(&mut E, E) + Send>;

impl<E> Overflow<E> {
    /// [`Coalesce`](Overflow::Coalesce) by that function.
    pub fn coalesce(merge: impl FnMut(&mut E, E) + Send + 'static) -> Overflow<E> {
        Overflow::Coalesce(Box::new(merge))
    }
}

impl<E> fmt::Debug for Overflow<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overflow::Keep => "Keep",
            Overflow::Coalesce(_) => "Coalesce(..)",
            Overflow::Count => "Count",
        })
    }
}

/// What one source did, since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStats {
    /// Its events that were handed to the user.
    pub delivered: u64,
    /// Its events that were thrown away on the way out, because their registration had been removed.
    pub stale: u64,
    /// Its events that lie in the ring.
    pub in_ring: usize,
    /// The most that ever lay there.
    pub most_in_ring: usize,
    /// Times that it found the ring full, and kept what it had.
    pub refused: u64,
    /// Times that it had more than its quota or its high-water mark allowed, and kept it.
    pub held_back: u64,
    /// Events that were dropped under [`Overflow::Count`].
    pub dropped: u64,
    /// Events that were merged into others under [`Overflow::Coalesce`].
    pub coalesced: u64,
    /// How many events it had at a time, when it had any.
    pub batches: Histogram,
}

/// Where a source stands with respect to its terms.
pub(crate) struct Gate<E> {
    pub(crate) flow: Flow<E>,
    pub(crate) stats: SourceStats,
    /// It reached its high-water mark and is not asked until half of that is left.
    shut: bool,
    /// Under `Coalesce`: the position of the newest event of each registration.
    pub(crate) newest: HashMap<Token, u64>,
    /// Registrations of which an event was dropped, or merged into another, and that are still to be told
    /// that it was delivered.
    pub(crate) settled: Vec<Token>,
}

impl<E> Gate<E> {
    pub(crate) fn new(flow: Flow<E>) -> Gate<E> {
        Gate {
            flow,
            stats: SourceStats::default(),
            shut: false,
            newest: HashMap::new(),
            settled: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, flow: Flow<E>) {
        self.flow = flow;
        self.newest.clear();
        self.shut = false;
        self.shut_at_high_water();
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether what the source has may have to stay there: also under `Coalesce`, if nothing of the same
    /// registration is there to merge it with.
    pub(crate) fn may_hold(&self) -> bool {
        let drops = matches!(self.flow.overflow, Overflow::Count);
        self.shut || self.at_high_water() && !drops
    }

    pub(crate) fn at_high_water(&self) -> bool {
        self.stats.in_ring >= self.flow.high_water
    }

    /// How many more events may go into the ring before the mark is reached.
    pub(crate) fn room(&self) -> usize {
        self.flow.high_water.saturating_sub(self.stats.in_ring)
    }

    /// Under `Coalesce`: the newest event of a registration goes to that position.
    pub(crate) fn lies_at(&mut self, token: Token, position: u64, first: u64) {
        // What is known of events that were taken out is of no use.
        if self.newest.len() > 2 * self.stats.in_ring + 64 {
            self.newest.retain(|_, lies| *lies >= first);
        }
        self.newest.insert(token, position);
    }

    /// So many events of the source went into the ring.
    pub(crate) fn entered(&mut self, count: usize) {
        self.stats.in_ring += count;
        self.stats.most_in_ring = self.stats.most_in_ring.max(self.stats.in_ring);
    }

    /// After each turn: a source that drops or merges is asked on, whatever it has.
    pub(crate) fn shut_at_high_water(&mut self) {
        self.shut |= self.at_high_water() && matches!(self.flow.overflow, Overflow::Keep);
    }

    /// An event of the source came out of the ring.
    pub(crate) fn left(&mut self) {
        self.stats.in_ring -= 1;
        if self.shut && self.stats.in_ring <= self.flow.high_water / 2 {
            self.shut = false;
        }
    }
}
