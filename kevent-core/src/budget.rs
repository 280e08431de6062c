//! Letting other tasks run now and then.

use std::task::{Context, Poll};

/// So many events in a row go to a task before others get their turn. As many as tokio allows.
const EVENTS: u32 = 128;

/// What a stream may hand out until it lets its executor run other tasks.
///
/// A task that always finds an event would otherwise never come back to its executor, and those that
/// share the thread with it would starve.
#[derive(Debug)]
pub(crate) struct Budget(u32);

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget(EVENTS)
    }

    /// Before an event is handed out. `Pending` when others are to run first; the task is woken already.
    #[inline]
    pub(crate) fn take(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            self.refill();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.0 -= 1;
        Poll::Ready(())
    }

    /// The task waits, so others run anyway.
    #[inline]
    pub(crate) fn refill(&mut self) {
        self.0 = EVENTS;
    }
}
