//! Transforms of bytes as steps: checksums, hashes, compression.
//!
//! They are worked out on the pool, because a processor that hashes is as busy as one that waits; small
//! pieces at once, because the way to the pool would take longer.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use io_uring::squeue::Entry;

use crate::operation::{Operation, Outcome, Step};

/// Up to so many bytes are transformed on the waiting thread: a few microseconds.
const SMALL: usize = 4096;

/// Makes other bytes of bytes, piece by piece: a compressor, or a checksum, which gives nothing before
/// its end.
///
/// Behind the feature `transforms` are [`Crc32c`](crate::Crc32c), [`Blake3`](crate::Blake3) and
/// [`Gzip`](crate::Gzip). A transform that panics fails its step, and all that come to it later.
///
/// ```
/// use std::io;
/// use kevent_aio::Transform;
///
/// /// Counts lines.
/// #[derive(Default)]
/// struct Lines(u64);
///
/// impl Transform for Lines {
///     fn feed(&mut self, input: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
///         self.0 += input.iter().filter(|byte| **byte == b'\n').count() as u64;
///         Ok(())
///     }
///
///     fn finish(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
///         output.extend(std::mem::take(&mut self.0).to_string().bytes());
///         Ok(())
///     }
/// }
/// ```
///
/// A thread of the pool runs it. Should it panic, that is EIO of the step, and of nothing else.
pub trait Transform: Send {
    /// Takes the next bytes, and adds to `output` what comes of them, if anything does yet.
    ///
    /// # Errors
    ///
    /// Whatever makes the bytes unfit. It fails the step.
    fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<()>;

    /// Adds to `output` what remains. Bytes that are fed after this are the first of another stream.
    ///
    /// # Errors
    ///
    /// As [`feed`](Transform::feed).
    fn finish(&mut self, output: &mut Vec<u8>) -> io::Result<()>;
}

/// A transform, and how much it was given since it began.
pub(super) struct Stream {
    /// Never locked: so one that only one thread may look at can be in what several may.
    transform: Mutex<Box<dyn Transform>>,
    fed: usize,
    /// It has panicked, and what it would say from then on is nothing to go by.
    broken: bool,
}

impl Stream {
    pub(super) fn new(transform: Box<dyn Transform>) -> Stream {
        Stream { transform: Mutex::new(transform), fed: 0, broken: false }
    }

    /// Whether what it is fed next is the first of a stream.
    pub(super) fn is_at_its_beginning(&self) -> bool {
        self.fed == 0
    }
}

/// Bytes that a step has given, and that it is to get back.
pub(super) struct Lent {
    pub(super) step: usize,
    pub(super) bytes: Vec<u8>,
}

/// One use of a transform.
pub(super) struct Transforming {
    pub(super) stream: Stream,
    /// The piece; `None` for the end.
    pub(super) input: Option<Lent>,
    pub(super) output: Vec<u8>,
    failure: Option<io::Error>,
}

impl Transforming {
    /// Of a piece, or of the end. `output` is a buffer whose content is forgotten.
    pub(super) fn new(stream: Stream, input: Option<Lent>, mut output: Vec<u8>) -> Transforming {
        output.clear();
        Transforming { stream, input, output, failure: None }
    }

    fn work(&mut self) -> io::Result<()> {
        let Stream { transform, fed, broken } = &mut self.stream;
        if *broken {
            return Err(io::Error::other("the transform has panicked before"));
        }
        let transform = transform.get_mut().unwrap_or_else(PoisonError::into_inner);
        match &self.input {
            Some(Lent { bytes, .. }) => {
                *fed = fed.saturating_add(bytes.len());
                transform.feed(bytes, &mut self.output)
            }
            None => {
                *fed = 0;
                transform.finish(&mut self.output)
            }
        }
    }
}

impl Operation for Transforming {
    fn advance(&mut self) -> Step {
        let size = self.input.as_ref().map_or(self.stream.fed, |lent| lent.bytes.len());
        if size > SMALL {
            return Step::Run;
        }
        let outcome = self.run();
        self.complete(outcome)
    }

    fn encode(&mut self) -> Option<Entry> {
        None
    }

    fn run(&mut self) -> Outcome {
        // A thread of the pool that dies of a panic would take the chain with it.
        let done = catch_unwind(AssertUnwindSafe(|| self.work()));
        self.stream.broken |= done.is_err();
        let result = done.unwrap_or_else(|_| Err(io::Error::other("the transform has panicked")));
        self.failure = result.err();
        Ok(0)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        let result = outcome.map_err(io::Error::from);
        let result = result.and_then(|_| self.failure.take().map_or(Ok(()), Err));
        Step::Done(result.map(|()| self.output.len() as u64))
    }
}
