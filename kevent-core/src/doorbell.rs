//! Who rings when the queue sleeps: the protocol, without the bell.
//!
//! One word says what the waiting thread does. It is awake, or asleep in the kernel, or it spins: it
//! has looked everywhere, and waits a moment for this word to change before it goes to sleep.
//!
//! The order that loses no wake-up. The waiting thread: write [`ASLEEP`], fence, look into every
//! source, then sleep. A waking thread: give the source what there is, fence, read the word, and
//! change it to [`AWAKE`] unless it is. One of the two fences comes first in the total order of
//! sequentially consistent fences. Is it the waiting thread's, then the waking one reads [`ASLEEP`]
//! (or what came after it); is it the waking thread's, then the waiting one sees what there is.
//!
//! Whoever changes the word away from [`ASLEEP`] rings, and nobody else: one ring for each sleep,
//! however many wake it. Between [`ASLEEP`] and [`SPINNING`] the waiting thread changes the word by
//! read-modify-write alone, so it never writes over a wake-up, and needs no second look at the
//! sources: those who came before the change are in the word, those who come after it find it.

use crate::sync::{AtomicU8, Ordering, fence};

const AWAKE: u8 = 0;
const SPINNING: u8 = 1;
const ASLEEP: u8 = 2;

/// Whether the waiting thread of a queue is to be woken, and how.
///
/// It is written in every sleep, so it shares no cache line with what posters read in every post.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Doorbell(AtomicU8);

/// What the waiting thread did when it was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Was {
    /// It was awake, or somebody else has woken it.
    Awake,
    /// It spun, and sees the wake-up by itself.
    Spinning,
    /// It is in the kernel, or on the way there.
    Asleep,
}

impl Doorbell {
    pub(crate) fn new() -> Doorbell {
        Doorbell(AtomicU8::new(AWAKE))
    }

    /// The waiting thread is going to look at the sources, and then to sleep.
    pub(crate) fn fall_asleep(&self) {
        self.0.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The waiting thread looks at the sources anyway: it need not be told.
    pub(crate) fn wake_up(&self) {
        self.0.store(AWAKE, Ordering::Relaxed);
    }

    /// Whether nobody has woken the waiting thread since it [fell asleep](Doorbell::fall_asleep).
    #[inline]
    pub(crate) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::Relaxed) != AWAKE
    }

    /// The waiting thread will watch the word for a while. `false` when it was woken already.
    pub(crate) fn start_spinning(&self) -> bool {
        self.turn(ASLEEP, SPINNING)
    }

    /// Whether the spinning thread was woken. What it was woken for is visible to it then.
    pub(crate) fn spin_is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == AWAKE
    }

    /// The waiting thread goes to sleep after all. `false` when it was woken on the way: nobody has
    /// rung then.
    pub(crate) fn stop_spinning(&self) -> bool {
        self.turn(SPINNING, ASLEEP)
    }

    /// Wakes the waiting thread and says what it did. Of one that was asleep, the caller has to ring.
    ///
    /// What the thread is woken for must be in its place before.
    #[must_use]
    pub(crate) fn wake(&self) -> Was {
        fence(Ordering::SeqCst);
        // The load keeps the cache line shared while the queue is awake.
        if !self.is_asleep() {
            return Was::Awake;
        }
        match self.0.swap(AWAKE, Ordering::AcqRel) {
            ASLEEP => Was::Asleep,
            SPINNING => Was::Spinning,
            _ => Was::Awake,
        }
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
