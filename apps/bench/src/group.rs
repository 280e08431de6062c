//! What is measured: groups of peers that do the same, and the goals that kevent has among them.

use std::error::Error;

/// Whatever went wrong, in words.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What one round of one peer brings: a number for each metric of its group, in their order. `None`
/// is one that this peer has no answer to.
pub(crate) type Sample = Vec<Option<f64>>;

/// The work of a topic's helper process, from its arguments.
pub(crate) type Helper = fn(&[String]) -> Result<()>;

/// A part of the bench: groups that belong together.
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) groups: fn() -> Vec<Group>,
    /// What the topic's helper processes do: a server to be loaded, a program that writes files.
    pub(crate) helper: Option<Helper>,
}

/// Peers that do the same work, to be compared with each other.
pub(crate) struct Group {
    /// `topic/name`.
    pub(crate) name: String,
    pub(crate) title: String,
    /// How it is measured, in a sentence or two.
    pub(crate) about: &'static str,
    pub(crate) metrics: &'static [Metric],
    pub(crate) peers: Vec<Peer>,
    /// What the peers get as [`Setting::size`].
    pub(crate) size: usize,
    pub(crate) goals: Vec<Goal>,
}

/// A number that is measured. Less is better, always.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// One way to do the work of a group.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Setting) -> Result<Sample>,
}

/// What a peer is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Its own name.
    pub(crate) peer: &'static str,
    /// How many of what the group is about: timers, connections, events at a time.
    pub(crate) size: usize,
    /// Only see whether it works.
    pub(crate) quick: bool,
}

impl Setting {
    /// `full`, or `quick` if the run is to be short.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// What a peer, mostly kevent, is to reach.
pub(crate) struct Goal {
    pub(crate) metric: usize,
    pub(crate) who: &'static str,
    pub(crate) bound: Bound,
}

/// How good is good enough.
pub(crate) enum Bound {
    /// At most so much, in the metric's unit.
    AtMost(f64),
    /// At most so many times the best of the others in the same round.
    Times(f64, &'static [&'static str]),
    /// At most so many times the best of the others, the best round of each counting; the last
    /// number is the least difference that can be told apart, as a part of the whole.
    TimesOfBest(f64, &'static [&'static str], f64),
}
