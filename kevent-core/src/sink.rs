//! The write-only end of the ring, as a source sees it.

use std::fmt;
use std::time::Instant;

use crate::flow::{Gate, Overflow};
use crate::ring::Ring;
use crate::token::Token;

/// Where a source puts what it has. It can push and nothing else.
pub trait Sink<T> {
    /// Puts `item`, which belongs to the registration `token`, into the ring.
    ///
    /// # Errors
    ///
    /// [`Full`] with the item when the ring has no room. The source then keeps it and stops: it is
    /// asked again once the user has taken events out.
    fn push(&mut self, token: Token, item: T) -> Result<(), Full<T>>;

    /// How many items still fit.
    fn room(&self) -> usize;

    /// What happened after that time has to wait for the next turn: under
    /// [`Order::Strict`](crate::Order::Strict), to a source that knows [when things
    /// happened](crate::Source::oldest).
    fn until(&self) -> Option<Instant> {
        None
    }
}

/// The ring had no room; here is the item back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("full: take events out and try again")
    }
}

impl<T> std::error::Error for Full<T> {}

/// The sink of one source for one turn: it knows the source's terms and how to wrap its items.
pub(crate) struct RingSink<'q, E, W> {
    ring: &'q mut Ring<E>,
    gate: &'q mut Gate<E>,
    wrap: &'q mut W,
    /// How many more the source may push in this turn.
    left: usize,
    /// How many of these find room without being asked for it one by one, and how many did in the
    /// beginning. Those that were pushed since are accounted for all at once.
    free: usize,
    counted: usize,
    until: Option<Instant>,
    /// A push was refused, so the source has more.
    refused: bool,
}

impl<'q, E, W> RingSink<'q, E, W> {
    pub(crate) fn new(
        ring: &'q mut Ring<E>,
        gate: &'q mut Gate<E>,
        wrap: &'q mut W,
        quota: usize,
        until: Option<Instant>,
    ) -> Self {
        let free = match gate.flow.overflow {
            Overflow::Keep | Overflow::Count => quota.min(ring.room()).min(gate.room()),
            // Where each of them lies has to be known.
            Overflow::Coalesce(_) => 0,
        };
        RingSink { ring, gate, wrap, left: quota, free, counted: free, until, refused: false }
    }

    /// Whether the source may have been left with something: it was refused, or it stopped where there
    /// was no more room.
    pub(crate) fn may_have_more<T>(&self) -> bool
    where
        W: FnMut(T) -> E,
    {
        self.refused || Sink::<T>::room(self) == 0
    }

    /// There is no room for `item`.
    fn overflow<T>(&mut self, token: Token, item: T) -> Result<(), Full<T>>
    where
        W: FnMut(T) -> E,
    {
        match &mut self.gate.flow.overflow {
            Overflow::Keep => {}
            Overflow::Coalesce(merge) => {
                let newest = self.gate.newest.get(&token).copied();
                if let Some(lying) = newest.and_then(|position| self.ring.get_mut(position)) {
                    merge(lying, (self.wrap)(item));
                    self.gate.stats.coalesced += 1;
                    self.gate.settled.push(token);
                    self.left -= 1;
                    return Ok(());
                }
            }
            Overflow::Count => {
                self.gate.stats.dropped += 1;
                self.gate.settled.push(token);
                self.left -= 1;
                return Ok(());
            }
        }
        self.refuse(item)
    }

    fn refuse<T>(&mut self, item: T) -> Result<(), Full<T>> {
        self.refused = true;
        let stats = &mut self.gate.stats;
        *(if self.ring.room() == 0 { &mut stats.refused } else { &mut stats.held_back }) += 1;
        Err(Full(item))
    }
}

impl<E, W> RingSink<'_, E, W> {
    /// Accounts for what was pushed since.
    fn count(&mut self) {
        let pushed = self.counted - self.free;
        self.counted = self.free;
        self.left -= pushed;
        self.gate.entered(pushed);
    }

    /// Whether there is room is not known.
    #[cold]
    fn push_if_room<T>(&mut self, token: Token, item: T) -> Result<(), Full<T>>
    where
        W: FnMut(T) -> E,
    {
        self.count();
        if self.left == 0 {
            return self.refuse(item);
        }
        // Before the item is wrapped: wrapping consumes it, and it is given back as it was.
        if self.ring.room() == 0 || self.gate.at_high_water() {
            return self.overflow(token, item);
        }
        let event = (self.wrap)(item);
        self.left -= 1;
        if matches!(self.gate.flow.overflow, Overflow::Coalesce(_)) {
            self.gate.lies_at(token, self.ring.next_position(), self.ring.first_position());
        }
        self.ring.push(token, event);
        self.gate.entered(1);
        Ok(())
    }
}

impl<E, W> Drop for RingSink<'_, E, W> {
    fn drop(&mut self) {
        self.count();
    }
}

impl<T, E, W: FnMut(T) -> E> Sink<T> for RingSink<'_, E, W> {
    #[inline]
    fn push(&mut self, token: Token, item: T) -> Result<(), Full<T>> {
        if self.free == 0 {
            return self.push_if_room(token, item);
        }
        let event = (self.wrap)(item);
        self.free -= 1;
        self.ring.push(token, event);
        Ok(())
    }

    fn until(&self) -> Option<Instant> {
        self.until
    }

    fn room(&self) -> usize {
        match self.gate.flow.overflow {
            Overflow::Keep => self.free,
            Overflow::Coalesce(_) | Overflow::Count => self.left - (self.counted - self.free),
        }
    }
}
