//! prctl(2): what a thread is like.
//!
//! # Safety
//!
//! The one call below takes no pointers.

#![allow(unsafe_code)]

use std::time::Duration;

/// How much longer than asked for the calling thread may sleep: `PR_GET_TIMERSLACK`.
pub(crate) fn timer_slack() -> Duration {
    // SAFETY: takes no pointers, and changes nothing.
    let nanoseconds = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
    // Where it is refused, as by a filter, nothing is known of it.
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}
