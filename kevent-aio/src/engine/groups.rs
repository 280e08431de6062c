//! Operations that have one completion together: how they are begun, and what becomes of them.

use std::time::Instant;

use kevent_core::Token;

use super::Aio;
use crate::flight::{Flight, Reason, Stage};
use crate::ops::Op;

impl Aio {
    /// Begins the members of a group.
    pub(super) fn take_apart(
        &mut self,
        mut op: Box<Op>,
        key: u64,
        deadline: Option<Instant>,
    ) -> Token {
        let members = if let Op::Group(group) = &mut *op { group.begin() } else { Vec::new() };
        let token = self.insert(Flight::new(key, deadline));
        self.put(token, Stage::Together(op));
        // One may be done, and the group with it, before the next is begun; which comes on its own then.
        for (op, key) in members {
            self.take_in(Box::new(op), key, None, Some(token));
        }
        self.finish_group(token, None);
        token
    }

    /// A member of a group is done. The group may have been before.
    pub(super) fn settle(&mut self, member: Token, token: Token) {
        let Some(flight) = self.flights.get_mut(member) else { return };
        let succeeded = matches!(flight.stage, Stage::Done(_, Ok(_)));
        let abandoned = flight.abandoned;
        let flight = self.flights.get_mut(token);
        let Some(group) = flight.and_then(Flight::group_mut) else { return self.tell(member) };
        group.settle(succeeded);
        if abandoned || group.tells_each() {
            self.tell(member);
        } else if let Some(mut flight) = self.flights.remove(member) {
            let group = self.flights.get_mut(token).and_then(Flight::group_mut);
            if let (Some(group), Some(done)) = (group, flight.take_completion(member)) {
                group.keep(done);
            }
        }
        self.finish_group(token, None);
    }

    /// A group is done when enough of its members are, or when it is to end early.
    pub(super) fn finish_group(&mut self, token: Token, reason: Option<Reason>) {
        let Some(flight) = self.flights.get_mut(token) else { return };
        let Some(group) = flight.group_mut() else { return };
        let result = match (group.result(), reason) {
            (_, Some(reason)) => Err(reason.error()),
            (Some(result), None) => Ok(result),
            (None, None) => return,
        };
        flight.ended = reason;
        let Some(mut op) = flight.take_together() else { return };
        if let Op::Group(group) = op.as_mut() {
            let at_work =
                |flight: &Flight| !matches!(flight.stage, Stage::Done(..) | Stage::Handed);
            let members = self.members(token).into_iter();
            group.leave(members.filter(|t| self.flights.get(*t).is_some_and(at_work)).collect());
        }
        self.finish(token, op, result);
    }

    /// The members of a group that are not done.
    pub(super) fn members(&self, group: Token) -> Vec<Token> {
        let members = self.flights.iter().filter(|(_, flight)| flight.group == Some(group));
        members.map(|(token, _)| token).collect()
    }
}
