//! Which signals a thread blocks.

use std::fmt;
use std::io;

use crate::sources::signal::Signal;
use crate::sys;

/// A set of signals that are blocked, for [`Wait::with_mask`](crate::Wait::with_mask).
///
/// ```
/// use kevent_core::{Signal, SignalMask};
///
/// let mask = SignalMask::of_thread().unwrap().without(Signal::USR1);
/// assert!(!mask.blocks(Signal::USR1));
/// assert!(SignalMask::none().with(Signal::TERM).blocks(Signal::TERM));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignalMask(u64);

impl SignalMask {
    /// Nothing is blocked.
    #[must_use]
    pub const fn none() -> SignalMask {
        SignalMask(0)
    }

    /// Everything is blocked that can be.
    #[must_use]
    pub const fn all() -> SignalMask {
        SignalMask(u64::MAX)
    }

    /// What the calling thread blocks.
    ///
    /// # Errors
    ///
    /// None that is known; the kernel could refuse the call.
    ///
    /// Source: pthread_sigmask(3).
    pub fn of_thread() -> io::Result<SignalMask> {
        sys::signal::thread_mask().map(SignalMask)
    }

    /// Blocks `signal`, too.
    #[must_use]
    pub const fn with(self, signal: Signal) -> SignalMask {
        SignalMask(self.0 | bit(signal))
    }

    /// Lets `signal` through.
    #[must_use]
    pub const fn without(self, signal: Signal) -> SignalMask {
        SignalMask(self.0 & !bit(signal))
    }

    /// Whether `signal` is blocked.
    #[must_use]
    pub const fn blocks(self, signal: Signal) -> bool {
        self.0 & bit(signal) != 0
    }

    /// As the kernel takes it: the lowest bit is signal 1.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

/// None for what is no signal.
const fn bit(signal: Signal) -> u64 {
    match signal.as_raw() {
        number @ 1..=64 => 1 << (number - 1),
        _ => 0,
    }
}

impl fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignalMask({:#x})", self.0)
    }
}
