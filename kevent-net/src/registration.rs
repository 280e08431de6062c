//! What is known of one registration, and how that changes. Nothing here enters the kernel.

use std::os::fd::RawFd;

use kevent_core::{Interest, Ready, Token, Trigger};

/// How often a registration tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Again and again, as long as the descriptor is ready. The easiest to use.
    Level,
    /// When something new happened. Read or write until `WouldBlock`, or the rest is not told.
    /// The cheapest.
    Edge,
    /// Once: the registration ends when its event is delivered.
    OneShot,
    /// Once, and then again after each [`enable`](crate::Readiness::enable): the registration is
    /// disabled when its event is delivered. Of several threads that work on what one queue
    /// delivers, no two then handle one descriptor at the same time.
    Dispatch,
}

impl Mode {
    /// What to ask of the kernel. It is silent after one event where one event is all that may come,
    /// however long that lies in the ring.
    pub(crate) fn trigger(self) -> Trigger {
        match self {
            Mode::Level => Trigger::Level,
            Mode::Edge => Trigger::Edge,
            Mode::OneShot | Mode::Dispatch => Trigger::OneShot,
        }
    }
}

/// One registration of a descriptor.
///
/// It has at most one event that is not delivered, which is in one of two places: with the source
/// (`told`), or in the ring. What the kernel tells meanwhile is kept in `told` and follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) fd: RawFd,
    pub(crate) key: u64,
    pub(crate) interest: Interest,
    pub(crate) mode: Mode,
    pub(crate) exclusive: bool,
    /// Ask whether it is still true before an event is delivered.
    pub(crate) recheck: bool,
    pub(crate) watch: Watch,
    /// The next of those that share an entry of the set, in a circle: itself when it is alone.
    pub(crate) next: Token,
    /// What the kernel told and the ring has not got.
    told: Ready,
    /// What the event in the ring tells, if there is one.
    in_ring: Ready,
    /// The source's list has the token.
    listed: bool,
    /// Events that were taken back while they were in the ring. They are older than any other event
    /// of this registration there, so they come out first.
    withdrawn: u32,
}

/// Whether a registration listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// It does.
    On,
    /// Not while its event lies undelivered: in all modes but edge-triggered, that is all there is to
    /// be told until then. A level-triggered entry would end every wait at once.
    Muted,
    /// Not until the user enables it.
    Off,
    /// As `Off`, but its descriptor was closed, so the kernel could not be told: should a duplicate
    /// be open, it speaks on.
    OutOfReach,
}

/// What follows from something that the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is noted, or of no interest.
    Noted,
    /// The kernel should be silent, and can't be told.
    Unwanted,
    /// A level-triggered descriptor repeats what waits to be delivered: the kernel is to be muted.
    Repeated,
}

/// What follows when an event has come out of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Rest,
    /// There is more to push.
    Push,
    /// It is to listen again.
    Listen,
    /// The registration has ended.
    End,
}

impl Registration {
    /// A registration whose token is `token`.
    pub(crate) fn new(
        token: Token,
        fd: RawFd,
        key: u64,
        interest: Interest,
        mode: Mode,
    ) -> Registration {
        Registration {
            fd,
            key,
            interest,
            mode,
            exclusive: false,
            recheck: false,
            watch: Watch::On,
            next: token,
            told: Ready::default(),
            in_ring: Ready::default(),
            listed: false,
            withdrawn: 0,
        }
    }

    /// The descriptor is `ready`, says an entry that is this registration's own, or that several
    /// share.
    pub(crate) fn hear(&mut self, ready: Ready, shared: bool) -> Heard {
        if self.watch == Watch::OutOfReach {
            return Heard::Unwanted;
        }
        let ready = ready.wanted(self.interest);
        if self.watch != Watch::On || ready.is_empty() {
            // A hang-up can't be masked, so it is told once more after muting. Whoever is to know
            // of it is told again when the registration listens again.
            return Heard::Noted;
        }
        if self.mode == Mode::Level && self.is_undelivered() {
            return Heard::Repeated;
        }
        self.told |= ready;
        // A level-triggered entry of its own is muted only if it repeats: mostly the event is
        // delivered before the kernel is asked again.
        if self.mode != Mode::Edge && (shared || self.mode != Mode::Level) {
            self.watch = Watch::Muted;
        }
        Heard::Noted
    }

    /// From now on others share its entry, which tells nobody's event twice.
    pub(crate) fn share(&mut self) {
        match self.watch {
            Watch::On if self.mode != Mode::Edge && self.is_undelivered() => {
                self.watch = Watch::Muted;
            }
            // The entry is within reach again.
            Watch::OutOfReach => self.watch = Watch::Off,
            _ => {}
        }
    }

    fn is_undelivered(&self) -> bool {
        !self.told.is_empty() || !self.in_ring.is_empty()
    }

    /// Whether the source is to put the token on its list now.
    pub(crate) fn enlist(&mut self) -> bool {
        let enlist = !self.listed && self.in_ring.is_empty() && !self.told.is_empty();
        self.listed |= enlist;
        enlist
    }

    /// The source took the token from its list: what to push, unless that was taken back.
    pub(crate) fn unlist(&mut self) -> Option<Ready> {
        self.listed = false;
        (!self.told.is_empty()).then_some(self.told)
    }

    /// What was to push is in the ring.
    pub(crate) fn pushed(&mut self) {
        self.in_ring = std::mem::take(&mut self.told);
    }

    /// What the oldest event in the ring tells, which is about to be delivered; nothing if it was
    /// taken back.
    pub(crate) fn claim(&mut self) -> Option<Ready> {
        if self.withdrawn > 0 {
            self.withdrawn -= 1;
            return None;
        }
        Some(self.in_ring)
    }

    /// That event is delivered; or it is dropped, because it is no longer true.
    pub(crate) fn delivered(&mut self, holds: bool) -> Next {
        self.in_ring = Ready::default();
        match self.mode {
            Mode::Edge if self.told.is_empty() => Next::Rest,
            Mode::Edge => Next::Push,
            Mode::OneShot if holds => Next::End,
            Mode::Dispatch if holds => {
                self.watch = Watch::Off;
                Next::Rest
            }
            _ if self.watch == Watch::Muted => Next::Listen,
            _ => Next::Rest,
        }
    }

    /// Whether it does not listen because of an event that was delivered since.
    pub(crate) fn may_listen(&self) -> bool {
        self.watch == Watch::Muted && !self.is_undelivered()
    }

    /// Takes back what is not delivered.
    pub(crate) fn withdraw(&mut self) {
        self.told = Ready::default();
        if !self.in_ring.is_empty() {
            self.in_ring = Ready::default();
            self.withdrawn += 1;
        }
    }
}
