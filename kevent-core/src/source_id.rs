//! How a user names a source.

use std::fmt;
use std::marker::PhantomData;

use crate::token::Token;

/// Names a source of a queue, and its type.
pub struct SourceId<S> {
    queue: u64,
    token: Token,
    source: PhantomData<fn() -> S>,
}

impl<S> SourceId<S> {
    pub(crate) fn new(queue: u64, token: Token) -> SourceId<S> {
        SourceId { queue, token, source: PhantomData }
    }

    /// Tells the source from the others of its queue: see [`Stamped::source`](crate::Stamped::source).
    #[must_use]
    pub fn token(self) -> Token {
        self.token
    }

    /// Of which queue it is.
    pub(crate) fn queue(self) -> u64 {
        self.queue
    }
}

impl<S> Clone for SourceId<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for SourceId<S> {}

impl<S> fmt::Debug for SourceId<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceId<{}>({:?})", std::any::type_name::<S>(), self.token)
    }
}
