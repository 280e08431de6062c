//! The system calls that neither std nor a dependency makes for us, each file safe from outside.
//!
//! These files, [`buffer`](crate::buffer), [`buffers`](crate::buffers),
//! [`provided`](crate::provided) and the ring's backend, and no others in this crate, hold unsafe code.

pub(crate) mod clock;
pub(crate) mod dir;
pub(crate) mod epoll;
pub(crate) mod file;
pub(crate) mod residency;
pub(crate) mod sendfile;
pub(crate) mod socket;
pub(crate) mod thread;

use std::io;

use crate::operation::{Errno, Outcome};

/// Makes a call until it is not interrupted by a signal. The call gives what libc gives: -1 and errno.
pub(crate) fn retry(mut call: impl FnMut() -> i64) -> Outcome {
    loop {
        match once(&mut call) {
            Err(Errno(libc::EINTR)) => {}
            done => return done,
        }
    }
}

/// Makes a call and takes the answer apart. No call that is made here answers more than 2³¹.
pub(crate) fn once(mut call: impl FnMut() -> i64) -> Outcome {
    let answer = call();
    u32::try_from(answer).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    Errno::from(io::Error::last_os_error())
}
