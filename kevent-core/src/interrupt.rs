//! Ending a wait from elsewhere, without an event.

use std::fmt;

use crate::sync::{Arc, AtomicU64, Ordering};
use crate::waker::Waker;

/// Makes a queue's wait come back, from any thread: see
/// [`Queue::interrupter`](crate::Queue::interrupter). Clones interrupt the same queue.
#[derive(Clone)]
pub struct Interrupter {
    count: Arc<AtomicU64>,
    waker: Waker,
}

impl Interrupter {
    /// Makes the wait that sleeps come back, or else the next one that would sleep, with what is
    /// there, which may be nothing. None is lost; several before the wait comes back are one, and are
    /// counted: [`Stats::interrupts`](crate::Stats::interrupts).
    ///
    /// Calls nothing but write(2), and that only when the queue sleeps. It may be called from a signal
    /// handler; `errno` is left as it was.
    pub fn interrupt(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.waker.wake();
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupter").field("count", &self.count).finish_non_exhaustive()
    }
}

/// The queue's side.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    count: Arc<AtomicU64>,
    /// Of which a wait was told.
    told: u64,
}

impl Interrupts {
    pub(crate) fn interrupter(&self, waker: &Waker) -> Interrupter {
        Interrupter { count: Arc::clone(&self.count), waker: waker.clone() }
    }

    /// Whether there are some that no wait was told of. Looked at after the queue has said that it
    /// falls asleep, none is missed: see [`Waker`].
    #[inline]
    pub(crate) fn pending(&self) -> bool {
        self.count.load(Ordering::SeqCst) != self.told
    }

    /// A wait comes back. How many it is told of.
    #[inline]
    pub(crate) fn tell(&mut self) -> u64 {
        let count = self.count.load(Ordering::SeqCst);
        let news = count.wrapping_sub(self.told);
        self.told = count;
        news
    }
}
