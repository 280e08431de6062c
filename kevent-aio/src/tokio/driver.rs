//! The task that turns the engine: one in each runtime that has used it.
//!
//! A task of its own, and not whoever of the waiting ones is polled first: that one could be dropped, or
//! wait for something else with the engine's news in its hand, and would hold up all others. In each
//! runtime, because one that nobody drives any more must not hold up another. All of them are equal:
//! each takes whatever is there, for whomever.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ::tokio::runtime::{self, Handle};
use ::tokio::task::yield_now;

use crate::tokio::desk::Desk;
use crate::tokio::hub::{Hub, wake};
use crate::tokio::readable::Readable;

/// What handles and drivers share.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) hub: Hub,
    desk: Mutex<Desk>,
}

impl Office {
    pub(super) fn new(desk: Desk) -> Office {
        Office { hub: Hub::default(), desk: Mutex::new(desk) }
    }

    /// Not for tasks: a driver has it while it submits a batch.
    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the calling task's runtime has a driver, and says which runtime that is.
    ///
    /// # Errors
    ///
    /// Outside of a runtime; in one that is shutting down; when its set can't take one more descriptor.
    pub(super) fn hire(self: &Arc<Office>) -> io::Result<runtime::Id> {
        let handle = Handle::try_current().map_err(io::Error::other)?;
        let runtime = handle.id();
        if !self.hub.reserve(runtime) {
            return Ok(runtime);
        }
        let mut driver = Driver { office: Arc::clone(self), runtime, readable: None };
        let descriptor = self.desk().descriptor();
        driver.readable = Some(Readable::new(descriptor?)?);
        handle.spawn(driver.run());
        if !self.hub.has(runtime) {
            return Err(io::Error::other("the runtime is shutting down, and takes no new task"));
        }
        Ok(runtime)
    }

    /// One turn of the engine. Says whether anything is in flight after it.
    fn turn(&self) -> bool {
        let wishes = self.hub.take();
        let mut turned = Ok(false);
        self.tell(|desk| turned = desk.turn(wishes));
        turned.unwrap_or_else(|_| {
            // It can't go on, and nobody is to wait for it.
            self.hub.close(None);
            self.tell(|desk| {
                desk.end();
                desk.give_up();
            });
            false
        })
    }

    /// Has the desk do something, and wakes those who are to hear of it.
    fn tell(&self, what: impl FnOnce(&mut Desk)) {
        let mut desk = self.desk();
        what(&mut desk);
        let after = desk.take_aftermath();
        drop(desk);
        after.settle();
    }
}

/// The driver of one runtime. It has its seat from the beginning to its drop.
struct Driver {
    office: Arc<Office>,
    runtime: runtime::Id,
    readable: Option<Readable>,
}

/// Why a driver wakes.
enum Call {
    Wishes,
    News,
}

impl Driver {
    async fn run(self) {
        let office = &self.office;
        loop {
            let busy = office.turn();
            // A last wish, left since this turn began, may have nobody who waits for it.
            if office.hub.is_over() && office.desk().is_idle() {
                return;
            }
            match poll_fn(|cx| self.poll_call(cx)).await {
                // Where one task waits others do: those that are ready to run go first, and have wishes,
                // too. One system call for all of them.
                Ok(Call::Wishes) if busy => yield_now().await,
                Ok(Call::Wishes | Call::News) => {}
                Err(_) => return,
            }
        }
    }

    fn poll_call(&self, cx: &mut Context<'_>) -> Poll<io::Result<Call>> {
        if self.office.hub.poll_wishes(self.runtime, cx).is_ready() {
            return Poll::Ready(Ok(Call::Wishes));
        }
        let Some(readable) = &self.readable else { return Poll::Pending };
        readable.poll(cx).map_ok(|()| Call::News)
    }
}

impl Drop for Driver {
    /// With its task, or with its runtime. Those who wait elsewhere than they were polled last find
    /// themselves another.
    fn drop(&mut self) {
        wake(self.office.hub.vacate(self.runtime));
        self.office.tell(Desk::nudge);
    }
}
