//! A queue inside tokio (feature `tokio`).
//!
//! # Safety
//!
//! One unsafe call: tokio asks whoever registers a descriptor to keep it open.

#![allow(unsafe_code)]

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::stream::{FusedStream, Stream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::poll_proceed;

use crate::queue::Queue;
use crate::stamped::Stamped;
use crate::stream::PollEvents;
use crate::wait::Wait;

/// A queue whose events are awaited from a tokio task, on either kind of runtime.
///
/// It is one [`AsyncFd`] around a duplicate of the queue's descriptor. No thread is started and nothing is polled in
/// vain. The queue's own methods, and its sources by index, are reached through it. It is a
/// [`Stream`], too.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{AsyncQueue, Queue, Timers};
///
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let mut queue = Queue::new()?;
/// let timers = queue.attach(Timers::new(), |tick| tick)?;
/// let mut queue = AsyncQueue::new(queue)?;
/// queue[timers].after(Duration::from_millis(1), 42);
/// assert_eq!(queue.next().await?.key, 42);
/// # std::io::Result::Ok(())
/// # })?;
/// # std::io::Result::Ok(())
/// ```
pub struct AsyncQueue<E> {
    queue: Queue<E>,
    /// A duplicate: it stays open whatever is done to `queue`, which `deref_mut` hands out.
    fd: AsyncFd<OwnedFd>,
}

impl<E: 'static> AsyncQueue<E> {
    /// Puts `queue` under the runtime of the calling task.
    ///
    /// # Errors
    ///
    /// When the runtime's own set can't take one more descriptor.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one that was built without I/O: as [`AsyncFd::register`].
    pub fn new(queue: Queue<E>) -> io::Result<AsyncQueue<E>> {
        let fd = queue.as_fd().try_clone_to_owned()?;
        // SAFETY: `fd` is open, and is owned by the `AsyncFd`, which nobody else gets hold of.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(AsyncQueue { queue, fd })
    }

    /// The next event, when there is one. Cancel safe: an event that is not returned stays in the
    /// queue.
    ///
    /// A task that takes one event after the other lets others run now and then, also when there is
    /// always one: each takes from the task's budget (see [`tokio::task::coop`]).
    ///
    /// # Errors
    ///
    /// As [`Queue::wait`].
    pub async fn next(&mut self) -> io::Result<E> {
        self.next_stamped().await.map(|stamped| stamped.event)
    }

    /// As [`next`](AsyncQueue::next), with what the queue knows of the event.
    ///
    /// # Errors
    ///
    /// As [`next`](AsyncQueue::next).
    pub async fn next_stamped(&mut self) -> io::Result<Stamped<E>> {
        poll_fn(|cx| self.poll_stamped(cx)).await
    }

    /// Takes the queue out of the runtime.
    pub fn into_inner(self) -> Queue<E> {
        self.queue
    }
}

impl<E: 'static> PollEvents for AsyncQueue<E> {
    type Event = E;

    fn poll_stamped(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stamped<E>>> {
        let budget = ready!(poll_proceed(cx));
        loop {
            if let Some(event) = self.queue.next_stamped() {
                budget.made_progress();
                return Poll::Ready(Ok(event));
            }
            self.queue.wait(Wait::poll())?;
            if let Some(event) = self.queue.next_stamped() {
                budget.made_progress();
                return Poll::Ready(Ok(event));
            }
            // Nothing was there when the queue looked. tokio clears only the readiness that it had
            // seen before, so what has come since is not lost.
            ready!(self.fd.poll_read_ready(cx))?.clear_ready();
        }
    }
}

/// Never ends. An error concerns one source, and the stream goes on: see [`Queue::wait`].
impl<E: 'static> Stream for AsyncQueue<E> {
    type Item = io::Result<E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<E>>> {
        let stamped = ready!(self.poll_stamped(cx));
        Poll::Ready(Some(stamped.map(|stamped| stamped.event)))
    }
}

impl<E: 'static> FusedStream for AsyncQueue<E> {
    fn is_terminated(&self) -> bool {
        false
    }
}

/// Events are never borrowed in place.
impl<E> Unpin for AsyncQueue<E> {}

impl<E> Deref for AsyncQueue<E> {
    type Target = Queue<E>;

    fn deref(&self) -> &Queue<E> {
        &self.queue
    }
}

impl<E> DerefMut for AsyncQueue<E> {
    fn deref_mut(&mut self) -> &mut Queue<E> {
        &mut self.queue
    }
}

impl<E> fmt::Debug for AsyncQueue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncQueue").field(&self.queue).finish()
    }
}
