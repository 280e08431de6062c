//! Which event a loop is stuck in.
//!
//! The loop writes down what it hands out, and reads no clock for it. Whoever watches it does, from
//! another thread: an event that is in hand at two looks was in hand all the time between.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ring::OWN;
use crate::token::Token;

/// Watches a loop from another thread: see [`Queue::stall_monitor`](crate::Queue::stall_monitor).
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Queue, UserEvents};
///
/// let mut queue = Queue::new()?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, |n: u32| n)?;
/// let mut monitor = queue.stall_monitor();
///
/// poster.post(7).unwrap();
/// queue.wait(None)?;
/// let event = queue.next();
/// // Commonly from a thread of its own, every now and then:
/// assert!(monitor.check(Duration::ZERO).is_none(), "it is seen for the first time");
/// let stall = monitor.check(Duration::ZERO).expect("it is in hand still");
/// assert!(stall.source_name.contains("UserEvents"));
/// println!("{stall}");
///
/// queue.wait(Duration::ZERO)?; // The loop goes on.
/// assert!(monitor.check(Duration::ZERO).is_none());
/// # drop(event);
/// # std::io::Result::Ok(())
/// ```
pub struct StallMonitor {
    progress: Arc<Progress>,
    /// The event that was in hand at the last look, and since when that is known.
    in_hand: Option<(u64, Instant)>,
}

/// A loop has been with one event for a long time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The type of the source of which the event is.
    pub source_name: &'static str,
    /// The source, as [`SourceId::token`](crate::SourceId::token) says.
    pub source: Token,
    /// The registration.
    pub token: Token,
    /// The event's [number](crate::Stamped::sequence).
    pub sequence: u64,
    /// How long it has been in hand, at least.
    pub lasted: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stall { source_name, token, sequence, lasted, .. } = self;
        write!(f, "event {sequence} of {source_name}, {token:?}, has been in hand for {lasted:?}")
    }
}

/// What the loop writes down. It alone writes; so a number that is the same before and after the
/// rest was read belongs to what was read.
#[derive(Debug)]
pub(crate) struct Progress {
    sequence: AtomicU64,
    source: AtomicU64,
    token: AtomicU64,
    names: Mutex<HashMap<Token, &'static str>>,
}

/// In place of a number: no event is in hand, the loop is in the queue.
const NONE: u64 = u64::MAX;

impl Progress {
    pub(crate) fn new(names: impl Iterator<Item = (Token, &'static str)>) -> Progress {
        Progress {
            sequence: AtomicU64::new(NONE),
            source: AtomicU64::new(0),
            token: AtomicU64::new(0),
            names: Mutex::new(names.collect()),
        }
    }

    /// A source came, and has that name.
    pub(crate) fn name(&self, source: Token, name: &'static str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        // The tenant of its slot before is detached. So there are no more names than slots.
        names.retain(|other, _| other.slot() != source.slot());
        names.insert(source, name);
    }

    /// The loop has that event in hand from here on.
    pub(crate) fn takes(&self, sequence: u64, source: Token, token: Token) {
        // Each store is released after those before it: who reads the new source reads no old number.
        self.sequence.store(NONE, Ordering::Release);
        self.source.store(source.to_bits(), Ordering::Release);
        self.token.store(token.to_bits(), Ordering::Release);
        self.sequence.store(sequence, Ordering::Release);
    }

    /// The loop is in the queue.
    pub(crate) fn is_back(&self) {
        self.sequence.store(NONE, Ordering::Release);
    }
}

impl StallMonitor {
    pub(crate) fn new(progress: Arc<Progress>) -> StallMonitor {
        StallMonitor { progress, in_hand: None }
    }

    /// Which event the loop has had in hand for `threshold` at least; `None` if it has moved on since
    /// the last look, or waits.
    pub fn check(&mut self, threshold: Duration) -> Option<Stall> {
        let now = Instant::now();
        let sequence = self.progress.sequence.load(Ordering::Acquire);
        let source = self.progress.source.load(Ordering::Acquire);
        let token = self.progress.token.load(Ordering::Acquire);
        let moved = self.progress.sequence.load(Ordering::Acquire) != sequence;
        let known = self.in_hand.filter(|(number, _)| *number == sequence);
        let (_, since) = match known {
            Some(known) if !moved => known,
            _ => {
                self.in_hand = (sequence != NONE && !moved).then_some((sequence, now));
                return None;
            }
        };
        let source = Token::from_bits(source);
        let names = self.progress.names.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = if source == OWN { "the program's own posts" } else { "a detached source" };
        let source_name = names.get(&source).copied().unwrap_or(unknown);
        let lasted = now.saturating_duration_since(since);
        let token = Token::from_bits(token);
        (lasted >= threshold).then_some(Stall { source_name, source, token, sequence, lasted })
    }
}

impl fmt::Debug for StallMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StallMonitor").field("in_hand", &self.in_hand).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_detached_sources_do_not_pile_up() {
        let progress = Progress::new([(Token::new(0, 0), "stays")].into_iter());
        (1..100).for_each(|generation| progress.name(Token::new(1, generation), "comes and goes"));
        let names = progress.names.lock().unwrap();
        assert_eq!(names.len(), 2);
        assert_eq!(names.get(&Token::new(1, 99)), Some(&"comes and goes"));
    }
}
