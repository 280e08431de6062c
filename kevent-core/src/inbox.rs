//! Where the events of one subscription lie until its task takes them.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::stamped::Stamped;

/// Wakes each, whatever the others do: one that panics is a fault of its executor's, and was printed.
pub(crate) fn wake_each(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        let _ = panic::catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

/// A bounded inbox with one reader, which is a task.
#[derive(Debug)]
pub(crate) struct Inbox<E> {
    mail: Mutex<Mail<E>>,
    capacity: usize,
}

#[derive(Debug)]
struct Mail<E> {
    events: VecDeque<Stamped<E>>,
    /// Of the task that waits for one.
    waker: Option<Waker>,
    /// Events that were not taken in.
    diverted: u64,
    /// No more will come.
    closed: bool,
}

impl<E> Inbox<E> {
    pub(crate) fn new(capacity: usize) -> Inbox<E> {
        let events = VecDeque::new();
        let mail = Mutex::new(Mail { events, waker: None, diverted: 0, closed: false });
        Inbox { mail, capacity }
    }

    /// Puts an event in, and says who is to be woken for it. The event comes back if there is no room.
    pub(crate) fn put(&self, event: Stamped<E>) -> Result<Option<Waker>, Stamped<E>> {
        let mut mail = self.lock();
        if mail.events.len() >= self.capacity {
            mail.diverted += 1;
            return Err(event);
        }
        mail.events.push_back(event);
        Ok(mail.waker.take())
    }

    /// The oldest event. `None` when there is none and none will come; else the task of `cx` waits.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Stamped<E>>> {
        let mut mail = self.lock();
        if let Some(event) = mail.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if mail.closed {
            return Poll::Ready(None);
        }
        let before = mail.waker.replace(cx.waker().clone());
        drop(mail);
        // After the lock: it may be the last waker of another task, and drop that with it.
        drop(before);
        Poll::Pending
    }

    /// Takes all out at once.
    pub(crate) fn empty(&self) -> VecDeque<Stamped<E>> {
        std::mem::take(&mut self.lock().events)
    }

    /// No more will come. Says who is to be told.
    pub(crate) fn close(&self) -> Option<Waker> {
        let mut mail = self.lock();
        mail.closed = true;
        mail.waker.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().events.len()
    }

    pub(crate) fn diverted(&self) -> u64 {
        self.lock().diverted
    }

    fn lock(&self) -> MutexGuard<'_, Mail<E>> {
        // A panic leaves nothing half done: pushing and taking do not panic, but for want of memory.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
