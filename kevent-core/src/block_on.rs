//! A thread that runs a future and sleeps in a queue.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Context, Poll, Wake};
use std::time::Instant;

use crate::pace::Pace;
use crate::queue::Queue;
use crate::stream::EventStream;
use crate::watch::Bell;

/// Runs a future to its end on this thread, which sleeps on the queue whenever the future waits.
///
/// No other thread is needed, neither a runtime's nor a helper's. The future gets the queue as an
/// [`EventStream`], and may give it to a [`Router`](crate::Router) for many tasks in one. Wakers work
/// from every thread, so it may wait for other things as well, such as channels.
///
/// Should the stream outlive the call, it finds itself another thread.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Queue, Timers, block_on};
///
/// let mut queue = Queue::new()?;
/// let timers = queue.attach(Timers::new(), |tick| tick.key)?;
/// queue[timers].every(Duration::from_millis(1), 20);
///
/// let sum = block_on(queue, |mut events| async move {
///     let first = events.next().await?;
///     let second = events.next().await?;
///     std::io::Result::Ok(first + second)
/// })??;
/// assert_eq!(sum, 40);
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
///
/// As [`EventStream::new`]. The errors of the queue's sources are the stream's.
pub fn block_on<E: 'static, F: Future>(
    queue: Queue<E>,
    main: impl FnOnce(EventStream<E>) -> F,
) -> io::Result<F::Output> {
    let (stream, mut watching) = EventStream::watched(queue)?;
    let root = Arc::new(Root { woken: AtomicBool::new(true), bell: Arc::clone(watching.bell()) });
    let waker = task::Waker::from(Arc::clone(&root));
    let mut pace = Pace::new();
    let mut main = pin!(main(stream));
    loop {
        if root.woken.swap(false, Ordering::SeqCst) {
            if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(output);
            }
        }
        // A future that is always woken must not keep those of its tasks waiting that wait for the queue.
        let is_woken = || root.woken.load(Ordering::SeqCst);
        if pace.turned(Instant::now) || !is_woken() {
            pace.looks(Instant::now);
            watching.sleep_unless(is_woken)?;
        }
    }
}

/// What the wakers of the future wake.
struct Root {
    woken: AtomicBool,
    bell: Arc<Bell>,
}

impl Wake for Root {
    fn wake(self: Arc<Root>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Root>) {
        self.woken.store(true, Ordering::SeqCst);
        self.bell.ring();
    }
}
