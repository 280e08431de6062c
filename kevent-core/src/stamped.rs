//! An event with what the queue knows of it.

use std::time::Instant;

use crate::token::Token;

/// An event with what the queue knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamped<E> {
    /// The event.
    pub event: E,
    /// How many events came into the ring before it. A gap in what comes out is an event that was
    /// withheld, because its registration had been removed.
    pub sequence: u64,
    /// When the queue saw it: the time of the turn in which it came into the ring.
    pub seen: Instant,
    /// Of which source it is: as [`SourceId::token`](crate::SourceId::token), or [`Token::SOLE`] if the user
    /// [posted](crate::Queue::post) it himself.
    pub source: Token,
    /// Of which registration of that source.
    pub token: Token,
}

impl<E> Stamped<E> {
    /// The same of another event.
    pub fn map<T>(self, change: impl FnOnce(E) -> T) -> Stamped<T> {
        let Stamped { event, sequence, seen, source, token } = self;
        Stamped { event: change(event), sequence, seen, source, token }
    }
}
