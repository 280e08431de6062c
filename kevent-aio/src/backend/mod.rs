//! What does the work that would block: the ring or a pool of threads.
//!
//! Both take an operation in, own it while somebody works on it, and give it back with an outcome. Who
//! owns an operation may look at it; so nobody does while the kernel or a worker is at it.

pub(crate) mod in_place;
pub(crate) mod pool;
pub(crate) mod uring;

use kevent_core::Token;

use crate::operation::Outcome;
use crate::ops::Op;

/// An operation that asked to be run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) token: Token,
    /// Boxed, since the kernel may hold pointers into it.
    pub(crate) op: Box<Op>,
}

/// A job that was done, or tried.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) job: Job,
    pub(crate) outcome: Outcome,
}
