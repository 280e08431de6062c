//! sched_getcpu(3): on which processor the calling thread runs.
//!
//! # Safety
//!
//! The one call takes no arguments.

#![allow(unsafe_code)]

/// The number of the processor; true of a moment ago. A few nanoseconds, and no system call where
/// glibc has registered its `rseq` area (2.35) or the vDSO has getcpu(2).
pub(crate) fn current() -> Option<u32> {
    // SAFETY: takes no arguments.
    let number = unsafe { libc::sched_getcpu() };
    // Negative where the kernel refuses: nothing to go by then.
    u32::try_from(number).ok()
}
