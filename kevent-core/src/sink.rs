//! The write-only end of the ring, as a source sees it.

use std::fmt;

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

/// An event in the ring, with what is needed to find out whether it is still wanted.
#[derive(Debug)]
pub(crate) struct Entry<E> {
    pub(crate) source: Token,
    pub(crate) token: Token,
    pub(crate) event: E,
}

/// The sink of one source of a queue: it knows the source's name and how to wrap its items.
pub(crate) struct RingSink<'q, E, W> {
    pub(crate) ring: &'q mut Ring<Entry<E>>,
    pub(crate) source: Token,
    pub(crate) wrap: &'q mut W,
    /// A push was refused, so the source has more.
    pub(crate) refused: bool,
}

impl<T, E, W: FnMut(T) -> E> Sink<T> for RingSink<'_, E, W> {
    fn push(&mut self, token: Token, item: T) -> Result<(), Full<T>> {
        let RingSink { ring, source, wrap, refused } = self;
        ring.push_with(item, |item| Entry { source: *source, token, event: wrap(item) }).map_err(
            |item| {
                *refused = true;
                Full(item)
            },
        )
    }

    fn room(&self) -> usize {
        self.ring.room()
    }
}
