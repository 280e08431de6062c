//! How long operations take, by what they are and by who does them.

use std::time::{Duration, Instant};

use kevent_core::Histogram;

use crate::ops::Op;

/// What kind of work an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Syncs.
    Sync,
    /// What is asked of a file system, and of directories.
    Metadata,
    /// Transfers of files to sockets.
    Transfer,
    /// Everything else on sockets.
    Network,
    /// Chains, each step for itself.
    Chain,
}

/// How many there are.
const CLASSES: usize = 7;

impl Class {
    /// All of them.
    pub const ALL: [Class; CLASSES] = [
        Class::Read,
        Class::Write,
        Class::Sync,
        Class::Metadata,
        Class::Transfer,
        Class::Network,
        Class::Chain,
    ];

    pub(crate) fn of(op: &Op) -> Class {
        match op {
            Op::Read(_) | Op::ReadVectored(_) => Class::Read,
            Op::Write(_) | Op::WriteVectored(_) => Class::Write,
            Op::Fsync(_) | Op::Fdatasync(_) => Class::Sync,
            Op::Sendfile(_) => Class::Transfer,
            Op::Accept(_)
            | Op::AcceptMany(_)
            | Op::Connect(_)
            | Op::Recv(_)
            | Op::RecvFrom(_)
            | Op::RecvMany(_)
            | Op::Send(_)
            | Op::SendTo(_)
            | Op::Shutdown(_) => Class::Network,
            Op::Chain(_) => Class::Chain,
            _ => Class::Metadata,
        }
    }
}

/// How long steps took that were not done at once, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// From when the ring was handed one until its completion was seen.
    pub on_ring: Histogram,
    /// How long one worked for a thread of the pool.
    pub on_pool: Histogram,
}

/// What is measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    by_class: [Latencies; CLASSES],
    pub(crate) waits: Histogram,
    /// The time at which completions are looked at: asked once for all of a turn.
    now: Option<Instant>,
    /// Since when the last one was on the ring, and for how long: those of a batch have that in common.
    last: Option<(Instant, u64)>,
}

impl Meter {
    /// Time has passed.
    pub(crate) fn turn(&mut self) {
        self.now = None;
        self.last = None;
    }

    pub(crate) fn by_ring(&mut self, class: Class, handed: Instant) {
        let took = match self.last {
            Some((since, took)) if since == handed => took,
            _ => {
                let now = *self.now.get_or_insert_with(Instant::now);
                nanos(now.saturating_duration_since(handed))
            }
        };
        self.last = Some((handed, took));
        self.by_class[class as usize].on_ring.record(took);
    }

    pub(crate) fn by_pool(&mut self, class: Class, waited: Duration, took: Duration) {
        self.waits.record(nanos(waited));
        self.by_class[class as usize].on_pool.record(nanos(took));
    }

    pub(crate) fn latencies(&self) -> [(Class, Latencies); CLASSES] {
        Class::ALL.map(|class| (class, self.by_class[class as usize]))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
