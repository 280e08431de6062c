//! What does the work, and why.

use std::fmt;
use std::io;

use kevent_core::Histogram;

use crate::meter::{Class, Latencies};

/// Which of the ways an operation was done in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// By a call that does not block, on the thread that submitted it or waits.
    Inline,
    /// By io_uring.
    Ring,
    /// By a blocking call on a thread of the pool.
    Pool,
}

/// A system call of io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// io_uring_setup(2), and mapping what it made.
    Setup,
    /// io_uring_enter(2).
    Enter,
    /// io_uring_register(2).
    Register,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Setup => "io_uring_setup",
            Call::Enter => "io_uring_enter",
            Call::Register => "io_uring_register",
        })
    }
}

/// io_uring can't be had, or can't be had any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    call: Call,
    errno: i32,
}

impl Refusal {
    pub(crate) fn new(call: Call, error: &io::Error) -> Refusal {
        Refusal { call, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }

    /// The call that was refused.
    #[must_use]
    pub fn call(&self) -> Call {
        self.call
    }

    /// The error number that it gave.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// What is probably the reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match (self.errno, switched_off()) {
            (libc::EPERM | libc::EACCES, Some(2)) => {
                "sysctl kernel.io_uring_disabled is 2: nobody may"
            }
            (libc::EPERM | libc::EACCES, Some(1)) => {
                "sysctl kernel.io_uring_disabled is 1: only members of kernel.io_uring_group may"
            }
            (libc::EPERM, _) => "a seccomp filter, as containers have one by default",
            (libc::EACCES, _) => "a seccomp filter or a security module (SELinux, AppArmor)",
            (libc::ENOSYS, _) => "a kernel before 5.1 or without io_uring, or a seccomp filter",
            (libc::ENOMEM, _) => "too little locked memory allowed (ulimit -l), or none left",
            (libc::EMFILE, _) => "the process has as many descriptors open as it may (ulimit -n)",
            (libc::ENFILE, _) => "the system has as many files open as it may",
            (libc::EINVAL | libc::EOPNOTSUPP, _) => "an old kernel, or a seccomp filter",
            _ => "a seccomp filter, or a shortage of something",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match (self.errno, switched_off()) {
            (libc::EPERM | libc::EACCES, Some(1 | 2)) => "sysctl -w kernel.io_uring_disabled=0",
            (libc::ENOMEM, _) => "raise the limit of locked memory (ulimit -l)",
            (libc::EMFILE | libc::ENFILE, _) => "raise the limit of open files (ulimit -n)",
            (libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP, _) => {
                "a kernel of 5.6 or later, or a seccomp profile that allows the io_uring calls"
            }
            _ => {
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
            }
        }
    }
}

/// What the administrator says: 1 for "not everybody", 2 for "nobody". Linux 6.6 and later.
fn switched_off() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {error}; probably {}", self.call, self.reason())
    }
}

impl std::error::Error for Refusal {}

/// What does the work of an [`Aio`](crate::Aio), why, and how much each way has done.
///
/// ```
/// let aio = kevent_aio::Aio::new()?;
/// println!("{}", aio.report());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What does that which would block: the ring or the pool.
    pub backend: Way,
    /// Why it is not the ring; `None` if it is, or if the pool was asked for.
    pub refusal: Option<Refusal>,
    /// The ring knows the buffers that were [given to it](crate::Builder::buffers).
    pub knows_buffers: bool,
    /// How much was done by which way.
    pub counters: Counters,
    /// Operations that were submitted and have not come out of the queue as completions.
    pub in_flight: usize,
    /// How long steps have waited for a thread of the pool, in nanoseconds.
    pub waits_for_pool: Histogram,
    /// How long steps took that were not done at once, by what they are.
    pub latencies: [(Class, Latencies); Class::ALL.len()],
}

impl Report {
    /// How long steps of that kind took that were not done at once.
    #[must_use]
    pub fn latency(&self, class: Class) -> Latencies {
        let found = self.latencies.iter().find(|(other, _)| *other == class);
        found.map(|(_, latencies)| *latencies).unwrap_or_default()
    }
}

/// How many steps were done by which way. An operation is one step, a chain of them several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Operations that were done before they had to leave the thread.
    pub inline: u64,
    /// Steps that the ring has done.
    pub ring: u64,
    /// Steps that the pool has done.
    pub pool: u64,
    /// Steps that the ring could not do, or had to leave undone, and the pool did instead.
    pub fallbacks: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = if self.backend == Way::Ring { "io_uring" } else { "worker pool" };
        let Counters { inline, ring, pool, fallbacks } = self.counters;
        write!(f, "backend: {backend}")?;
        if let Some(refusal) = self.refusal {
            write!(f, " ({refusal}; remedy: {})", refusal.remedy())?;
        }
        write!(f, "; done inline {inline}, by ring {ring}, by pool {pool}, fallbacks {fallbacks}")?;
        write!(f, "; in flight {}", self.in_flight)
    }
}
