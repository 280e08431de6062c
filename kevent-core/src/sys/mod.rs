//! The system calls that neither std nor a dependency makes for us, each file safe from outside.
//!
//! These files, and no others in this crate, hold unsafe code.

pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod pidfd;
pub(crate) mod signal;
pub(crate) mod timerfd;
