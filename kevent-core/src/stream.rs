//! A queue in any executor.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::thread::{self, JoinHandle};

use futures_core::stream::{FusedStream, Stream};

use crate::budget::Budget;
use crate::queue::Queue;
use crate::stamped::Stamped;
use crate::wait::Wait;
use crate::watch::{Watch, Watching};

/// A queue whose events a task can wait for: [`EventStream`], and inside tokio
/// `AsyncQueue`.
///
/// The queue's own methods, and its sources by index, are reached through it.
pub trait PollEvents: DerefMut<Target = Queue<Self::Event>> {
    /// The events of the queue.
    type Event: 'static;

    /// The next event, with what the queue knows of it. If there is none, the task of `cx` is woken once
    /// there may be one.
    ///
    /// # Errors
    ///
    /// As [`Queue::wait`].
    fn poll_stamped(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stamped<Self::Event>>>;
}

/// A queue whose events are awaited in a task, on any executor.
///
/// Executors know nothing of descriptors, so somebody has to sleep on the queue's: a thread, which the
/// stream starts when it first has to wait, and which does nothing but wake the task. It sleeps until
/// there is something, and ends with the stream. There are two ways to do without:
/// [`block_on`](crate::block_on), in which the calling thread itself sleeps on the queue, and inside
/// tokio `AsyncQueue`, for which tokio's own thread does it.
///
/// As a [`Stream`] it never ends. An error concerns one source, and the stream goes on: see
/// [`Queue::wait`]. Dropping a future of it, or not polling the stream any more, loses no event. A
/// task that takes one event after the other lets others run now and then, also when there is always
/// one.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{EventStream, Queue, Timers, UserEvents};
///
/// # futures::executor::block_on(async {
/// let mut queue = Queue::new()?;
/// let timers = queue.attach(Timers::new(), |tick| tick.key)?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, |n: u64| n)?;
///
/// let mut events = EventStream::new(queue)?;
/// events[timers].after(Duration::from_millis(1), 42);
/// assert_eq!(events.next().await?, 42);
/// std::thread::spawn(move || poster.post(7));
/// assert_eq!(events.next().await?, 7);
/// # std::io::Result::Ok(())
/// # })?;
/// # std::io::Result::Ok(())
/// ```
pub struct EventStream<E> {
    queue: Queue<E>,
    watched: Watched,
    budget: Budget,
}

impl<E: 'static> EventStream<E> {
    /// Lets the events of `queue` be awaited.
    ///
    /// # Errors
    ///
    /// When the process may open no more descriptors: it takes five. (Later, when the thread can't be
    /// started, that is an error of the stream.)
    pub fn new(queue: Queue<E>) -> io::Result<EventStream<E>> {
        EventStream::watched(queue).map(|(stream, _)| stream)
    }

    /// With the role of watching: the stream starts a thread only if it has to wait after that is
    /// dropped.
    pub(crate) fn watched(queue: Queue<E>) -> io::Result<(EventStream<E>, Watching)> {
        let (watch, watching) = Watch::new(queue.as_fd())?;
        let watched = Watched { watch, helper: None };
        let stream = EventStream { queue, watched, budget: Budget::new() };
        Ok((stream, watching))
    }

    /// The next event, when there is one. Cancel safe: an event that is not returned stays in the
    /// queue.
    ///
    /// # Errors
    ///
    /// As [`Queue::wait`].
    pub async fn next(&mut self) -> io::Result<E> {
        self.next_stamped().await.map(|stamped| stamped.event)
    }

    /// As [`next`](EventStream::next), with what the queue knows of the event.
    ///
    /// # Errors
    ///
    /// As [`next`](EventStream::next).
    pub async fn next_stamped(&mut self) -> io::Result<Stamped<E>> {
        poll_fn(|cx| self.poll_stamped(cx)).await
    }

    /// Takes the queue out. The thread, if there was one, has ended.
    pub fn into_inner(self) -> Queue<E> {
        self.queue
    }
}

impl<E: 'static> PollEvents for EventStream<E> {
    type Event = E;

    fn poll_stamped(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stamped<E>>> {
        ready!(self.budget.take(cx));
        if let Some(event) = self.queue.next_stamped() {
            return Poll::Ready(Ok(event));
        }
        self.queue.wait(Wait::poll())?;
        if let Some(event) = self.queue.next_stamped() {
            return Poll::Ready(Ok(event));
        }
        self.budget.refill();
        self.watched.wake_when_readable(cx.waker())?;
        Poll::Pending
    }
}

impl<E: 'static> Stream for EventStream<E> {
    type Item = io::Result<E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<E>>> {
        let stamped = ready!(self.poll_stamped(cx));
        Poll::Ready(Some(stamped.map(|stamped| stamped.event)))
    }
}

impl<E: 'static> FusedStream for EventStream<E> {
    fn is_terminated(&self) -> bool {
        false
    }
}

/// Events are never borrowed in place.
impl<E> Unpin for EventStream<E> {}

impl<E> Deref for EventStream<E> {
    type Target = Queue<E>;

    fn deref(&self) -> &Queue<E> {
        &self.queue
    }
}

impl<E> DerefMut for EventStream<E> {
    fn deref_mut(&mut self) -> &mut Queue<E> {
        &mut self.queue
    }
}

impl<E> fmt::Debug for EventStream<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventStream").field(&self.queue).finish()
    }
}

/// A queue's descriptor with somebody who sleeps on it.
struct Watched {
    watch: Arc<Watch>,
    /// Unless it is the thread that is in `block_on`.
    helper: Option<JoinHandle<()>>,
}

impl Watched {
    fn wake_when_readable(&mut self, waker: &Waker) -> io::Result<()> {
        self.watch.arm(waker)?;
        if let Some(watching) = self.watch.begin() {
            // If there was a helper before, a waker panicked in it, and it has ended.
            let helper = thread::Builder::new().name("kevent-stream".to_owned());
            self.helper = Some(helper.spawn(|| watching.stay())?);
        }
        Ok(())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.end();
        // A waker may drop the task that it can't wake any more, and the stream with it: on the helper
        // itself, which then ends as soon as the waker returns.
        let other = self.helper.take().filter(|h| h.thread().id() != thread::current().id());
        // A panic of a waker is the executor's, and was printed.
        let _ = other.map(JoinHandle::join);
    }
}
