//! One operation on its way from submission to completion.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use kevent_core::Token;

use crate::completion::Completion;
use crate::operation::{Order, Side};
use crate::ops::{Group, Op};
use crate::report::Way;

/// What the engine knows of an operation that was submitted and whose completion was not taken yet.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) key: u64,
    pub(crate) stage: Stage,
    /// The group of which it is a member.
    pub(crate) group: Option<Token>,
    pub(crate) order: Order,
    /// The side of its socket in whose line it stands.
    pub(crate) line: Option<Side>,
    /// The side of a socket for which one of its steps waits, in the line there as long as that takes.
    pub(crate) waits: Option<Side>,
    pub(crate) deadline: Option<Instant>,
    /// It is to end early, as soon as no backend has it.
    pub(crate) end: Option<Reason>,
    /// It was told to end early.
    pub(crate) ended: Option<Reason>,
    /// What it has brought, if it brings many things.
    pub(crate) pieces: Option<Box<Pieces>>,
    /// Nobody wants its completion.
    pub(crate) abandoned: bool,
    pub(crate) way: Way,
}

/// What an operation has brought that goes on.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// What waits for room in the queue: its token is in the list of what is done, once for each.
    pub(crate) waiting: VecDeque<Box<Op>>,
    /// How many are in the queue.
    pub(crate) handed: usize,
}

impl Pieces {
    /// The next one, which goes into the queue.
    fn hand(&mut self) -> Option<Box<Op>> {
        let op = self.waiting.pop_front()?;
        self.handed += 1;
        Some(op)
    }
}

/// Where an operation is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// In the hands of the engine, for a moment.
    Here,
    /// Behind others, on its socket or before a barrier; not begun.
    InLine(Box<Op>),
    /// Waiting until its socket is ready.
    Armed(Box<Op>),
    /// Waiting for room on the ring.
    Backlog(Box<Op>),
    /// On the ring, which owns it.
    OnRing,
    /// On the pool, which owns it.
    OnPool,
    /// A group, some of whose members are not done.
    Together(Box<Op>),
    /// Done with this result; the completion waits for room in the queue.
    Done(Box<Op>, io::Result<u64>),
    /// Done; the completion is in the queue.
    Handed,
}

/// Why an operation ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Cancelled,
    Late,
}

impl Reason {
    pub(crate) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Reason::Cancelled => libc::ECANCELED,
            Reason::Late => libc::ETIMEDOUT,
        })
    }
}

impl Flight {
    pub(crate) fn new(key: u64, deadline: Option<Instant>) -> Flight {
        Flight {
            key,
            stage: Stage::Here,
            group: None,
            order: Order::Free,
            line: None,
            waits: None,
            deadline,
            end: None,
            ended: None,
            pieces: None,
            abandoned: false,
            way: Way::Inline,
        }
    }

    /// The reason to end it, once.
    pub(crate) fn take_end(&mut self) -> Option<Reason> {
        let reason = self.end.take()?;
        self.ended = Some(reason);
        Some(reason)
    }

    /// The operation, if it waits with the engine.
    pub(crate) fn waiting(&self) -> Option<&Op> {
        match &self.stage {
            Stage::InLine(op) | Stage::Armed(op) | Stage::Backlog(op) | Stage::Together(op) => {
                Some(op)
            }
            Stage::Here | Stage::OnRing | Stage::OnPool | Stage::Done(..) | Stage::Handed => None,
        }
    }

    /// The group, if it is one that is not done.
    pub(crate) fn group_mut(&mut self) -> Option<&mut Group> {
        match &mut self.stage {
            Stage::Together(op) => match op.as_mut() {
                Op::Group(group) => Some(group),
                _ => None,
            },
            _ => None,
        }
    }

    /// The group, if it is one that is not done, to finish it.
    pub(crate) fn take_together(&mut self) -> Option<Box<Op>> {
        match std::mem::replace(&mut self.stage, Stage::Here) {
            Stage::Together(op) => Some(op),
            elsewhere => {
                self.stage = elsewhere;
                None
            }
        }
    }

    /// The operation, if it waits with the engine, to go on with it.
    pub(crate) fn take_waiting(&mut self) -> Option<Box<Op>> {
        match std::mem::replace(&mut self.stage, Stage::Here) {
            Stage::InLine(op) | Stage::Armed(op) | Stage::Backlog(op) => Some(op),
            elsewhere => {
                self.stage = elsewhere;
                None
            }
        }
    }

    /// Its next completion: that of a piece; or the last, if it is done.
    pub(crate) fn take_completion(&mut self, token: Token) -> Option<Completion> {
        if let Some(op) = self.pieces.as_mut().and_then(|pieces| pieces.hand()) {
            let (key, result, way) = (self.key, Ok(op.amount()), self.way);
            return Some(Completion { token, key, result, op, way, cancelled: false, more: true });
        }
        match std::mem::replace(&mut self.stage, Stage::Handed) {
            Stage::Done(op, result) => {
                let cancelled = self.ended == Some(Reason::Cancelled);
                let (key, way) = (self.key, self.way);
                Some(Completion { token, key, result, op, way, cancelled, more: false })
            }
            elsewhere => {
                self.stage = elsewhere;
                None
            }
        }
    }

    /// Its completion was not to be had yet.
    pub(crate) fn put_back(&mut self, completion: Completion) {
        match &mut self.pieces {
            Some(pieces) if completion.more => {
                pieces.handed -= 1;
                pieces.waiting.push_front(completion.op);
            }
            _ => self.stage = Stage::Done(completion.op, completion.result),
        }
    }
}
