//! What the engine answers: that an operation is done, that it was cancelled, that it was not taken.

use std::error::Error;
use std::fmt;
use std::io;

use kevent_core::Token;

use crate::ops::Op;
use crate::report::Way;

/// An operation is done.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion {
    /// Which one.
    pub token: Token,
    /// What the user gave with it.
    pub key: u64,
    /// The count, or whatever else the operation has for a result.
    pub result: io::Result<u64>,
    /// The operation, with its buffers and descriptors.
    pub op: Box<Op>,
    /// How it was done; of an operation of several steps, how the last was that took a backend.
    pub way: Way,
    pub(crate) cancelled: bool,
    pub(crate) more: bool,
}

impl Completion {
    /// One of an operation that nobody submitted, for tests: see
    /// [`Sim::inject`](kevent_core::testing::Sim::inject).
    #[must_use]
    pub fn for_test(key: u64, op: impl Into<Op>, result: io::Result<u64>) -> Completion {
        let (token, op) = (Token::SOLE, Box::new(op.into()));
        Completion { token, key, result, op, way: Way::Inline, cancelled: false, more: false }
    }

    /// Whether [`Aio::cancel`](crate::Aio::cancel) ended it. If that came too late, `result` is what the
    /// operation has done.
    #[must_use]
    pub fn was_cancelled(&self) -> bool {
        self.cancelled
    }

    /// Whether this is not the last completion of its operation: one that brings
    /// [many](crate::AcceptMany) goes on. `op` is then what it has brought, and the last completion gives the
    /// operation itself back.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }
}

/// The answer to [`Aio::start`](crate::Aio::start).
#[derive(Debug)]
pub enum Started {
    /// It is done already, and nothing of it comes out of the queue.
    Done {
        /// The operation, with its buffers and descriptors.
        op: Op,
        /// As that of a [`Completion`].
        result: io::Result<u64>,
    },
    /// It is in flight: its completion comes out of the queue.
    InFlight(Token),
}

/// The answer to [`Aio::cancel`](crate::Aio::cancel).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// One completion comes, and says how it ended.
    Requested,
    /// There is no such operation: its completion was taken out of the queue before.
    NotFound,
}

/// An operation that did not come to an end: see [`Aio::drain`](crate::Aio::drain).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// Which one.
    pub token: Token,
    /// What the user gave with it.
    pub key: u64,
}

/// An operation could not be submitted; here it is back.
///
/// `?` makes an [`io::Error`] of it, or a boxed error of any kind.
///
/// ```
/// use std::error::Error;
/// use kevent_aio::{Aio, Open};
///
/// fn submit(aio: &mut Aio) -> Result<(), Box<dyn Error + Send + Sync>> {
///     aio.submit(Open::new("no\0path"), 1)?;
///     Ok(())
/// }
/// let mut aio = Aio::new()?;
/// assert!(submit(&mut aio).unwrap_err().to_string().contains("zero byte"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct SubmitError {
    /// Why.
    pub error: io::Error,
    /// The operation.
    pub op: Op,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for SubmitError {}

impl From<SubmitError> for io::Error {
    fn from(refused: SubmitError) -> io::Error {
        refused.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_gives_goes_to_any_thread() {
        fn goes_anywhere<T: Send + Sync>() {}
        goes_anywhere::<(SubmitError, Completion, Started, Op)>();
    }
}
