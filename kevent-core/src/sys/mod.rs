//! The system calls that neither std nor a dependency makes for us, each file safe from outside.
//!
//! These files, the mailbox, and the registration with tokio hold all unsafe code of this crate.

pub(crate) mod cpu;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod pidfd;
pub(crate) mod poll;
pub(crate) mod signal;
pub(crate) mod thread;
pub(crate) mod timerfd;
