//! Starting a thread that no signal of the program is delivered to.
//!
//! # Safety
//!
//! Every call below passes memory that it owns.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::thread::Builder;

/// Starts a thread with every signal blocked.
///
/// They are blocked here, before the thread exists, since it inherits the mask: there is no moment
/// in which a handler of the program could run on it. A SIGPIPE that a write on it raises stays
/// pending there, and the write says EPIPE.
pub(crate) fn spawn_quiet(
    builder: Builder,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set that it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` is filled, `before` has room for the old mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let spawned = builder.spawn(body);
    // SAFETY: the call above, which can't fail with these arguments, has filled `before`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    spawned.map(drop)
}

/// Sets how urgent the calling thread is to the disk: ioprio_set(2). If the kernel refuses, it stays as it was.
pub(crate) fn set_ioprio(ioprio: u16) {
    /// `IOPRIO_WHO_PROCESS`, which is a thread; number 0 is the caller.
    const THREAD: libc::c_long = 1;
    // SAFETY: takes numbers only.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, 0, libc::c_long::from(ioprio)) };
}
