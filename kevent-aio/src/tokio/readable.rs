//! Waiting in a tokio task until a descriptor is readable.
//!
//! # Safety
//!
//! One unsafe call: tokio asks whoever registers a descriptor to keep it open.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

/// A descriptor in the set of the runtime whose task made this.
#[derive(Debug)]
pub(super) struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// # Errors
    ///
    /// When the runtime's own set can't take one more descriptor.
    ///
    /// # Panics
    ///
    /// In a runtime that was built without I/O.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Readable> {
        // SAFETY: `fd` is open, and is owned by the `AsyncFd`, which nobody else gets hold of.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Readable(fd))
    }

    /// Ready once for each time that the descriptor became readable, or several of them.
    ///
    /// # Errors
    ///
    /// When the runtime is shutting down.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
