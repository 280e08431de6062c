//! What is known of one registered descriptor, and how that changes. Nothing here enters the kernel.

use std::os::fd::RawFd;

use kevent_core::{Interest, Ready, Trigger};

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

/// One registered descriptor.
///
/// It has at most one event that is not delivered, which is in one of two places: with the source
/// (`told`), or in the ring. What the kernel tells meanwhile is kept in `told` and follows.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) fd: RawFd,
    pub(crate) key: u64,
    pub(crate) interest: Interest,
    pub(crate) mode: Mode,
    pub(crate) exclusive: bool,
    pub(crate) watch: Watch,
    /// What the kernel told and the ring has not got.
    told: Ready,
    /// The source's list has the token.
    listed: bool,
    in_ring: bool,
    /// Events that were taken back while they were in the ring. They are older than any other event
    /// of this registration there, so they come out first.
    withdrawn: usize,
}

/// What the kernel does for a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// It tells.
    On,
    /// Silent while a level-triggered event lies undelivered: else it would end every wait at once.
    Muted,
    /// Silent until the user enables it.
    Off,
    /// As `Off`, but its descriptor was closed, so the kernel could not be told: should a duplicate
    /// be open, it speaks on.
    OutOfReach,
    /// A one-shot registration that was told: it is out of the set.
    Over,
}

/// What follows from something that the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is noted, or of no interest.
    Noted,
    /// The kernel should be silent, and can't be told.
    Unwanted,
    /// A level-triggered descriptor repeats what waits to be delivered: mute it.
    Repeated,
    /// That was all: take it out of the set.
    Finished,
}

/// What follows when an event comes out of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It was taken back and is not handed out.
    Withheld,
    /// It is handed out.
    Handed,
    /// It is handed out, and there is more to push.
    HandedWithMore,
    /// It is handed out, and the kernel may speak again.
    HandedAndUnmute,
    /// It is handed out, and the registration has ended.
    HandedLast,
}

impl Registration {
    pub(crate) fn new(fd: RawFd, key: u64, interest: Interest, mode: Mode) -> Registration {
        Registration {
            fd,
            key,
            interest,
            mode,
            exclusive: false,
            watch: Watch::On,
            told: Ready::default(),
            listed: false,
            in_ring: false,
            withdrawn: 0,
        }
    }

    /// The kernel tells `ready`.
    pub(crate) fn hear(&mut self, ready: Ready) -> Heard {
        if self.watch == Watch::OutOfReach {
            return Heard::Unwanted;
        }
        if self.watch != Watch::On {
            // A hang-up can't be masked, so it is told once more after muting. Whoever is to know
            // of it is told again when the registration is watched again.
            return Heard::Noted;
        }
        let repeated = self.mode == Mode::Level && (self.in_ring || !self.told.is_empty());
        if repeated {
            self.watch = Watch::Muted;
            return Heard::Repeated;
        }
        self.told |= ready;
        if self.mode == Mode::OneShot {
            self.watch = Watch::Over;
            return Heard::Finished;
        }
        Heard::Noted
    }

    /// Whether the source is to put the token on its list now.
    pub(crate) fn enlist(&mut self) -> bool {
        let enlist = !self.listed && !self.in_ring && !self.told.is_empty();
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
        self.told = Ready::default();
        self.in_ring = true;
    }

    /// The oldest event in the ring is about to be handed to the user.
    pub(crate) fn deliver(&mut self) -> Delivery {
        if self.withdrawn > 0 {
            self.withdrawn -= 1;
            return Delivery::Withheld;
        }
        self.in_ring = false;
        match self.mode {
            Mode::Level if self.watch == Watch::Muted => Delivery::HandedAndUnmute,
            Mode::Level => Delivery::Handed,
            Mode::Edge if self.told.is_empty() => Delivery::Handed,
            Mode::Edge => Delivery::HandedWithMore,
            Mode::OneShot => Delivery::HandedLast,
            Mode::Dispatch => {
                self.watch = Watch::Off;
                Delivery::Handed
            }
        }
    }

    /// Whether it is muted for an event that was delivered since.
    pub(crate) fn may_unmute(&self) -> bool {
        self.watch == Watch::Muted && !self.in_ring && self.told.is_empty()
    }

    /// Takes back what is not delivered.
    pub(crate) fn withdraw(&mut self) {
        self.told = Ready::default();
        self.withdrawn += usize::from(self.in_ring);
        self.in_ring = false;
    }
}
