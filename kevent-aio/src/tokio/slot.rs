//! The place where a future and the driver meet: one for each operation that is not done at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::ops::Op;
use crate::report::Way;

/// What became of an operation.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: io::Result<u64>,
    /// `None` when the engine was shut down while somebody was still at work on it.
    pub(super) op: Option<Op>,
    pub(super) way: Way,
}

impl Answer {
    /// The operation was not begun.
    pub(super) fn refused(error: io::Error, op: Op) -> Answer {
        Answer { result: Err(error), op: Some(op), way: Way::Inline }
    }
}

/// Where the driver leaves an answer, and the future finds it.
#[derive(Debug)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// The operation goes on when the future is gone.
    lasting: AtomicBool,
}

#[derive(Debug)]
enum State {
    /// The future waits, and was polled by the task of that waker last.
    Waiting(Option<Waker>),
    Given(Answer),
    /// The future is gone, or has its answer.
    Left,
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot { state: Mutex::new(State::Waiting(None)), lasting: AtomicBool::new(false) }
    }

    /// Leaves the answer, and gives whom to wake, outside of all locks.
    ///
    /// # Errors
    ///
    /// The answer, when nobody wants it. It is to be dropped, outside of all locks too: what the operation
    /// has opened is closed with it.
    pub(super) fn give(&self, answer: Answer) -> Result<Option<Waker>, Box<Answer>> {
        let mut state = self.lock();
        match &mut *state {
            State::Waiting(waker) => {
                let waker = waker.take();
                *state = State::Given(answer);
                Ok(waker)
            }
            State::Given(_) | State::Left => Err(Box::new(answer)),
        }
    }

    /// The answer, once; before that the task of `cx` is woken when it is there.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Answer> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Left) {
            State::Given(answer) => Poll::Ready(answer),
            State::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => {
                *state = State::Waiting(Some(waker));
                Poll::Pending
            }
            State::Waiting(old) => {
                *state = State::Waiting(Some(cx.waker().clone()));
                drop(state);
                // Outside of the lock: it may be the last of another task.
                drop(old);
                Poll::Pending
            }
            State::Left => Poll::Pending,
        }
    }

    /// Nobody wants the answer any more. Says whether the operation is to be stopped.
    pub(super) fn leave(&self) -> bool {
        // Outside of the lock goes what was left here: an answer, or the last waker of a task.
        let left = std::mem::replace(&mut *self.lock(), State::Left);
        matches!(left, State::Waiting(_)) && !self.lasting.load(Ordering::Relaxed)
    }

    /// The operation is to be done, whether somebody waits for it or not.
    pub(super) fn make_lasting(&self) {
        self.lasting.store(true, Ordering::Relaxed);
    }

    /// Whether the operation need not begin.
    pub(super) fn is_left(&self) -> bool {
        matches!(*self.lock(), State::Left) && !self.lasting.load(Ordering::Relaxed)
    }

    /// Whom to wake so that the future looks again, though there is no answer yet.
    pub(super) fn nudge(&self) -> Option<Waker> {
        match &mut *self.lock() {
            State::Waiting(waker) => waker.take(),
            State::Given(_) | State::Left => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here panics with the lock held but for a waker's own clone, which changes nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
