//! What tasks tell the drivers.
//!
//! A task never touches the engine: that would be to wait for whoever submits a batch just then. It
//! leaves its wish here and wakes the driver of its own runtime, which takes all that have gathered.
//!
//! The rule by which nothing is forgotten: *who waits has a driver in the runtime that polled it last,
//! and that driver either has a waker here or looks here before it sleeps.* So a runtime that nobody
//! drives any more (its `block_on` has returned) holds up nobody elsewhere.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ::tokio::runtime;

use crate::ops::Op;
use crate::tokio::slot::Slot;

/// An operation for the engine.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) number: u64,
    pub(super) op: Op,
    pub(super) deadline: Option<Instant>,
    pub(super) slot: Arc<Slot>,
}

/// What a task wants.
#[derive(Debug)]
pub(super) enum Wish {
    Submit(Submission),
    /// That the operation of this number ends early.
    Cancel(u64),
    /// That all of them do, and none begins any more.
    End,
}

impl Wish {
    fn nudge(&self) -> Option<Waker> {
        match self {
            Wish::Submit(submission) => submission.slot.nudge(),
            Wish::Cancel(_) | Wish::End => None,
        }
    }
}

/// The wishes, and who is to be woken for them.
#[derive(Debug, Default)]
pub(super) struct Hub {
    board: Mutex<Board>,
    /// As on the board, to be seen without its lock.
    closed: AtomicBool,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Board {
    wishes: Vec<Wish>,
    seats: Vec<Seat>,
    /// Nothing is taken any more.
    closed: bool,
}

/// The driver of one runtime.
#[derive(Debug)]
struct Seat {
    runtime: runtime::Id,
    /// Here while it sleeps.
    waker: Option<Waker>,
    /// It is to look, though there are no wishes.
    called: bool,
}

impl Hub {
    /// The number of the next submission: they go in the order of their numbers.
    pub(super) fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a seat for a driver of that runtime. `false` when it has one.
    pub(super) fn reserve(&self, runtime: runtime::Id) -> bool {
        let mut board = self.lock();
        let free = !board.has(runtime);
        if free {
            board.seats.push(Seat { runtime, waker: None, called: false });
        }
        free
    }

    /// Whether that runtime has a driver.
    pub(super) fn has(&self, runtime: runtime::Id) -> bool {
        self.lock().has(runtime)
    }

    /// The driver of that runtime is gone. Gives whom to wake, to see to it that there is another: those
    /// whose wishes it has not taken.
    pub(super) fn vacate(&self, runtime: runtime::Id) -> Vec<Waker> {
        let mut board = self.lock();
        board.seats.retain(|seat| seat.runtime != runtime);
        board.wishes.iter().filter_map(Wish::nudge).collect()
    }

    /// Leaves a submission for the driver of that runtime.
    ///
    /// # Errors
    ///
    /// The submission, when nothing is taken any more.
    pub(super) fn submit(&self, s: Submission, by: runtime::Id) -> Result<(), Box<Submission>> {
        let mut board = self.lock();
        if board.closed {
            return Err(Box::new(s));
        }
        board.wishes.push(Wish::Submit(s));
        let waker = board.driver(by);
        drop(board);
        wake(waker);
        Ok(())
    }

    /// Leaves word that an operation is not wanted any more: for the driver of that runtime, or without
    /// one for whichever comes first.
    pub(super) fn cancel(&self, number: u64, by: Option<runtime::Id>) {
        let mut board = self.lock();
        board.wishes.push(Wish::Cancel(number));
        let wakers = match by.filter(|id| board.has(*id)) {
            Some(id) => Vec::from_iter(board.driver(id)),
            None => board.drivers(),
        };
        drop(board);
        wake(wakers);
    }

    /// Sees to it that the wishes are looked at by the driver of that runtime, where somebody waits.
    pub(super) fn remind(&self, runtime: runtime::Id) {
        let mut board = self.lock();
        let waker = if board.wishes.is_empty() { None } else { board.driver(runtime) };
        drop(board);
        wake(waker);
    }

    /// All wishes, in the order in which they came.
    pub(super) fn take(&self) -> Vec<Wish> {
        std::mem::take(&mut self.lock().wishes)
    }

    /// For the driver of that runtime: ready when there are wishes, and once when nothing is taken any
    /// more. It is woken then.
    pub(super) fn poll_wishes(&self, runtime: runtime::Id, cx: &Context<'_>) -> Poll<()> {
        let mut board = self.lock();
        let here = !board.wishes.is_empty();
        let seat = board.seats.iter_mut().find(|seat| seat.runtime == runtime);
        let Some(seat) = seat else { return Poll::Pending };
        if std::mem::take(&mut seat.called) || here {
            return Poll::Ready(());
        }
        let old = seat.waker.replace(cx.waker().clone());
        drop(board);
        drop(old);
        Poll::Pending
    }

    /// Takes nothing after this last wish, and wakes all drivers: they end once nothing is in flight.
    pub(super) fn close(&self, last: Option<Wish>) {
        let mut board = self.lock();
        let again = std::mem::replace(&mut board.closed, true);
        if again && last.is_none() {
            return;
        }
        board.wishes.extend(last);
        self.closed.store(true, Ordering::Relaxed);
        board.seats.iter_mut().for_each(|seat| seat.called = true);
        let wakers = board.drivers();
        drop(board);
        wake(wakers);
    }

    /// Whether nothing is taken any more, and all that was taken was fetched.
    pub(super) fn is_over(&self) -> bool {
        let board = self.lock();
        board.closed && board.wishes.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // Nothing here panics with the lock held but for want of memory.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn has(&self, runtime: runtime::Id) -> bool {
        self.seats.iter().any(|seat| seat.runtime == runtime)
    }

    fn driver(&mut self, runtime: runtime::Id) -> Option<Waker> {
        self.seats.iter_mut().find(|seat| seat.runtime == runtime)?.waker.take()
    }

    fn drivers(&mut self) -> Vec<Waker> {
        self.seats.iter_mut().filter_map(|seat| seat.waker.take()).collect()
    }
}

/// Never with a lock held: a waker may do anything.
pub(super) fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// What those are told who come too late.
pub(super) fn shut_down() -> io::Error {
    io::Error::other("the engine was shut down: make another for what is to follow")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Open;

    #[test]
    fn hub_with_a_last_wish_is_not_over() {
        let runtime = ::tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (hub, id) = (Hub::default(), runtime.handle().id());
        assert!(!hub.is_over(), "it is open");
        let (op, slot) = (Open::new("/").into(), Arc::new(Slot::new()));
        hub.submit(Submission { number: hub.number(), op, deadline: None, slot }, id).unwrap();
        hub.close(None);
        assert!(!hub.is_over(), "somebody has just left it");
        assert_eq!(hub.take().len(), 1);
        assert!(hub.is_over());
    }
}
