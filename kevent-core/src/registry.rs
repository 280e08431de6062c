//! The sources of a queue, and their turns.

use std::io;
use std::time::Instant;

use crate::attached::{Attached, Turn};
use crate::clock::Clock;
use crate::flow::SourceStats;
use crate::numbers::Numbers;
use crate::poll::{PollKey, Ready};
use crate::ring::Ring;
use crate::script::Script;
use crate::source::{Due, Source};
use crate::stats::Stats;
use crate::table::Table;
use crate::token::Token;

/// In which order events of several sources come out: see
/// [`Queue::set_order`](crate::Queue::set_order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By source, in turns that begin at each in its turn. Of each source in the order of that source. The
    /// fastest, and fair.
    #[default]
    BySource,
    /// As it happened, whatever the source.
    Strict,
}

/// The sources that are attached, by token, by number and in the order of their turns.
pub(crate) struct Registry<E> {
    sources: Table<Attached<E>>,
    numbers: Numbers,
    /// The sources in the order of attachment; turns begin at each in its turn.
    order: Vec<Token>,
    first: usize,
    /// The order of turns in a simulation.
    shuffled: Vec<Token>,
    pub(crate) in_what_order: Order,
    /// Those of which the kernel spoke in this look.
    heard: Vec<Token>,
    /// A source said [`Due::WhenIdle`] when all were asked last.
    idle_wanted: bool,
    /// The number that the next event had when those sources had their turn last.
    idle_before: Option<u64>,
    /// Of the sources that are gone, and of no source.
    rest: Stats,
}

impl<E: 'static> Registry<E> {
    /// Takes a source in, before it is connected. Says its number.
    ///
    /// # Errors
    ///
    /// When there are as many as the poll set has numbers for.
    pub(crate) fn insert<S: Source>(
        &mut self,
        source: S,
        wrap: impl FnMut(S::Item) -> E + Send + 'static,
    ) -> io::Result<(Token, u16)> {
        let mut given = 0;
        let token = self.sources.try_insert_with(|token| {
            given = self.numbers.give(token).ok_or_else(too_many_sources)?;
            Ok::<_, io::Error>(Attached::new(source, wrap, given))
        })?;
        self.order.push(token);
        Ok((token, given))
    }
}

impl<E> Registry<E> {
    pub(crate) fn new() -> Registry<E> {
        Registry {
            sources: Table::new(),
            numbers: Numbers::default(),
            order: Vec::new(),
            first: 0,
            shuffled: Vec::new(),
            in_what_order: Order::BySource,
            heard: Vec::new(),
            idle_wanted: false,
            idle_before: None,
            rest: Stats::default(),
        }
    }

    /// Takes a source out.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Attached<E>> {
        let attached = self.sources.remove(token)?;
        self.rest.add(&attached.gate.stats);
        self.numbers.take_back(attached.number);
        self.order.retain(|other| *other != token);
        Some(attached)
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Attached<E>> {
        self.sources.get(token)
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Attached<E>> {
        self.sources.get_mut(token)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Attached<E>> {
        self.sources.iter().map(|(_, attached)| attached)
    }

    /// The types of the sources, in the order of attachment.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Token, &'static str)> {
        self.order
            .iter()
            .filter_map(|token| Some((*token, self.sources.get(*token)?.source.name())))
    }

    /// What each source counted, in the order of attachment.
    pub(crate) fn snapshot(&self) -> Vec<(&'static str, SourceStats)> {
        let of = |token: &Token| self.sources.get(*token);
        let sources = self.order.iter().filter_map(of);
        sources.map(|attached| (attached.source.name(), attached.gate.stats)).collect()
    }

    /// What was counted of all sources.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.rest;
        self.iter().for_each(|attached| stats.add(&attached.gate.stats));
        stats
    }

    /// Whether one has something and may push it.
    pub(crate) fn any_ready(&self) -> bool {
        self.iter().any(Attached::is_ready)
    }

    /// Whether one has something and may not push it until the user takes something out.
    pub(crate) fn any_held(&self) -> bool {
        self.iter().any(Attached::is_held)
    }

    /// Has sources tell what a simulation put there, and take their turns in the order that it chooses.
    pub(crate) fn simulate(&mut self, script: &Script, queue: u64) {
        for injection in script.take_injected(queue) {
            // A source that is gone has nothing to tell.
            if let Some(attached) = self.sources.get_mut(injection.source) {
                attached.inject(injection);
            }
        }
        self.shuffled.clone_from(&self.order);
        script.shuffle(&mut self.shuffled);
    }

    /// Tells the sources what the kernel said of their descriptors.
    pub(crate) fn hear(
        &mut self,
        found: impl Iterator<Item = (u16, PollKey, Ready)>,
        clock: &Clock,
    ) {
        for (number, key, ready) in found {
            if self.in_what_order == Order::Strict {
                clock.tick();
            }
            let source = self.numbers.source(number);
            let attached = source.and_then(|token| Some((token, self.sources.get_mut(token)?)));
            let Some((token, attached)) = attached else {
                self.rest.strays += 1;
                continue;
            };
            attached.source.ready(key, ready);
            attached.pending = true;
            if self.in_what_order == Order::Strict {
                attached.told_at.get_or_insert_with(|| clock.turn());
            }
            if !attached.heard {
                attached.heard = true;
                self.heard.push(token);
            }
        }
    }

    /// The turn of those of which the kernel spoke.
    pub(crate) fn turn_of_heard(&mut self, to: &mut Turn<'_, E>) -> io::Result<()> {
        if self.in_what_order == Order::Strict {
            for token in self.heard.drain(..) {
                if let Some(attached) = self.sources.get_mut(token) {
                    attached.heard = false;
                }
            }
            return self.turn_in_order(to).map(|_| ());
        }
        let share = self.share(to.ring);
        let mut failure = Ok(());
        for token in self.heard.drain(..) {
            let Some(attached) = self.sources.get_mut(token) else { continue };
            attached.heard = false;
            // What it has after that is asked before the queue sleeps.
            let pushed = match attached.ask() {
                Ok(None) => attached.push(to, token, attached.quota(share)),
                asked => asked.map(|_| ()),
            };
            failure = failure.and(pushed);
        }
        failure
    }

    /// Asks every source what it has, moves it into the ring, and says when there will be more: now, if
    /// one may push what it has left. A source that fails does not keep the others from their turn.
    pub(crate) fn turn(&mut self, to: &mut Turn<'_, E>) -> io::Result<Due> {
        self.idle_wanted = false;
        match self.in_what_order {
            Order::BySource => self.turn_by_source(to),
            Order::Strict => self.turn_in_order(to),
        }
    }

    /// An equal part of the ring for each, at least one event: then none has to wait for another longer
    /// than for one ringful.
    fn share(&self, ring: &Ring<E>) -> usize {
        (ring.capacity() / self.order.len().max(1)).max(1)
    }

    fn turn_by_source(&mut self, to: &mut Turn<'_, E>) -> io::Result<Due> {
        let mut due = Due::OnWake;
        let mut failure = Ok(());
        let share = self.share(to.ring);
        let order = if self.shuffled.is_empty() { &self.order } else { &self.shuffled };
        let (last, first) = order.split_at(self.first.min(order.len()));
        for token in first.iter().chain(last) {
            let Some(attached) = self.sources.get_mut(*token) else { continue };
            match turn(attached, to, *token, share) {
                Ok(Due::WhenIdle) => self.idle_wanted = true,
                Ok(next) => due = due.or_sooner(next),
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        self.first = if self.first + 1 < self.order.len() { self.first + 1 } else { 0 };
        failure.map(|()| due)
    }

    /// Whether a source waits for the queue to be idle, and something was in the ring since it last was.
    pub(crate) fn may_idle(&self, ring: &Ring<E>) -> bool {
        self.idle_wanted && ring.is_empty() && self.idle_before != Some(ring.next_sequence())
    }

    /// The turn of those that wait for the queue to be idle.
    pub(crate) fn idle_turn(&mut self, to: &mut Turn<'_, E>) -> io::Result<()> {
        for token in &self.order {
            let Some(attached) = self.sources.get_mut(*token) else { continue };
            if attached.source.flush()? == Due::WhenIdle {
                let quota = attached.quota(to.ring.capacity());
                attached.push(to, *token, quota)?;
            }
        }
        // What they have said themselves is no reason to let them speak again.
        self.idle_before = Some(to.ring.next_sequence());
        Ok(())
    }

    /// Moves one event at a time, that which happened first, as long as there is one and room for it.
    ///
    /// What happens during the turn has to wait for the next: a source that was asked already may have
    /// got something since that happened earlier.
    fn turn_in_order(&mut self, to: &mut Turn<'_, E>) -> io::Result<Due> {
        let end = to.clock.turn();
        to.until = Some(end);
        let mut due = Due::OnWake;
        let mut failure = Ok(());
        let mut waiting = Vec::with_capacity(self.order.len());
        for token in &self.order {
            let Some(attached) = self.sources.get_mut(*token) else { continue };
            match attached.ask() {
                Ok(None) => waiting.push(*token),
                Ok(Some(Due::WhenIdle)) => self.idle_wanted = true,
                Ok(Some(next)) => due = due.or_sooner(next),
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        while to.ring.room() > 0 {
            let Some((happened, index)) = self.first_of(&waiting, end) else { break };
            let Some(attached) = self.sources.get_mut(waiting[index]) else { break };
            if happened > end {
                break;
            }
            let lying = to.ring.len();
            let more = attached.push(to, waiting[index], 1).and_then(|()| attached.ask());
            match more {
                // It may have more, and is asked how old that is.
                Ok(None) if to.ring.len() > lying => continue,
                Ok(next) => due = due.or_sooner(next.unwrap_or(Due::Now)),
                Err(error) => failure = failure.and(Err(error)),
            }
            attached.told_at = None;
            waiting.remove(index);
        }
        // What is left happened too late for this turn, or found no room.
        let due = if waiting.is_empty() { due } else { Due::Now };
        failure.map(|()| due)
    }

    /// Which of them has what happened first, and when. What has no time happened when the kernel told
    /// the first of it, or else now.
    fn first_of(&mut self, waiting: &[Token], now: Instant) -> Option<(Instant, usize)> {
        let times = waiting.iter().enumerate().filter_map(|(index, token)| {
            let attached = self.sources.get_mut(*token)?;
            let happened = attached.source.oldest().or(attached.told_at);
            Some((happened.unwrap_or(now), index))
        });
        times.min()
    }

    /// Asks its source whether an event that came out of the ring is still wanted.
    pub(crate) fn deliver(&mut self, source: Token, token: Token) -> bool {
        let Some(attached) = self.sources.get_mut(source) else {
            self.rest.stale += 1;
            return false;
        };
        attached.deliver(token)
    }
}

/// The turn of one source: it moves up to `share` events into the ring, unless its terms say otherwise.
/// Says when there will be more.
fn turn<E>(
    attached: &mut Attached<E>,
    to: &mut Turn<'_, E>,
    token: Token,
    share: usize,
) -> io::Result<Due> {
    if let Some(due) = attached.ask()? {
        return Ok(due);
    }
    attached.push(to, token, attached.quota(share))?;
    // One that was left with something has it now.
    Ok(attached.ask()?.unwrap_or(Due::Now))
}

fn too_many_sources() -> io::Error {
    io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "a queue takes 65,535 sources; use a second queue inside this one",
    )
}
