//! A source in its queue: of any type, with its items made into events.

use std::any::Any;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Instant;

use crate::clock::Clock;
use crate::flow::{Flow, Gate};
use crate::poll::{PollKey, PollSet, Ready};
use crate::ring::Ring;
use crate::script::Injection;
use crate::sink::{Full, RingSink, Sink};
use crate::source::{Due, Source};
use crate::token::Token;
use crate::trace;

/// A source, the terms on which it has the ring, and whether it may have something.
pub(crate) struct Attached<E> {
    pub(crate) source: Box<dyn AnySource<E>>,
    /// Its number in the poll set.
    pub(crate) number: u16,
    pub(crate) pending: bool,
    /// The kernel spoke of it in this look.
    pub(crate) heard: bool,
    /// When the kernel first spoke of it since it was empty, if the order is strict.
    pub(crate) told_at: Option<Instant>,
    pub(crate) gate: Gate<E>,
    /// What a simulation has for it.
    injected: VecDeque<Injection>,
}

/// Where the events of a turn go, and when they are seen.
pub(crate) struct Turn<'q, E> {
    pub(crate) ring: &'q mut Ring<E>,
    pub(crate) clock: &'q Clock,
    pub(crate) seen: u64,
    /// What happened later is not of this turn, if the order is strict.
    pub(crate) until: Option<Instant>,
}

/// In place of a registration: the event is of none, and the source does not know of it. No table gives
/// this token.
pub(crate) const UNREGISTERED: Token = Token::new(u32::MAX, 0);

impl<E: 'static> Attached<E> {
    pub(crate) fn new<S: Source>(
        source: S,
        wrap: impl FnMut(S::Item) -> E + Send + 'static,
        number: u16,
    ) -> Attached<E> {
        let source = Box::new(Wrapped { source, wrap });
        let (gate, injected) = (Gate::new(Flow::new()), VecDeque::new());
        Attached { source, number, pending: true, heard: false, told_at: None, gate, injected }
    }
}

impl<E> Attached<E> {
    /// Has the source tell something in its next turn.
    pub(crate) fn inject(&mut self, injection: Injection) {
        self.injected.push_back(injection);
        self.pending = true;
    }

    /// Asks the source when it will have something; `None` if it has something that it may push.
    pub(crate) fn ask(&mut self) -> io::Result<Option<Due>> {
        let due = self.source.flush()?;
        if due == Due::WhenIdle {
            // Its turn is another one, also when it is new.
            self.pending = false;
        }
        if due != Due::Now && !self.pending {
            return Ok(Some(due));
        }
        // Also what came just now: the thread that has the queue may leave it to others, and sees by this
        // that one of them has to be woken.
        self.pending = true;
        // A source that may push nothing is asked again when it may, and that takes the user: until then
        // it is as if it had nothing.
        Ok(self.gate.is_shut().then_some(Due::OnWake))
    }

    /// How many events it may push in a turn: `share`, unless its terms say otherwise.
    pub(crate) fn quota(&self, share: usize) -> usize {
        self.gate.flow.quota.map_or(share, |quota| quota.get())
    }

    /// Moves up to `quota` of what the source has into the ring.
    pub(crate) fn push(
        &mut self,
        to: &mut Turn<'_, E>,
        token: Token,
        quota: usize,
    ) -> io::Result<()> {
        let lying = self.gate.stats.in_ring;
        let _span = trace::drain(|| self.source.name());
        to.ring.begin(token, to.seen);
        let drained = self.source.drain(&mut self.injected, to, &mut self.gate, quota);
        // A source that fails may have pushed before.
        self.account(lying);
        self.pending = drained?;
        Ok(())
    }

    /// A turn is over that began with `lying` events of the source in the ring.
    fn account(&mut self, lying: usize) {
        let batch = self.gate.stats.in_ring - lying;
        if batch > 0 {
            self.gate.stats.batches.record(batch as u64);
        }
        self.gate.shut_at_high_water();
        if !self.gate.settled.is_empty() {
            for token in std::mem::take(&mut self.gate.settled) {
                self.is_wanted(token);
            }
        }
    }

    /// It has something and may push it.
    pub(crate) fn is_ready(&self) -> bool {
        self.pending && !self.gate.is_shut()
    }

    /// It has something that it may not push until the user takes something out, for all that is known.
    pub(crate) fn is_held(&self) -> bool {
        self.pending && self.gate.may_hold()
    }

    /// An event of it came out of the ring. `false` when nobody wants it any more.
    pub(crate) fn deliver(&mut self, token: Token) -> bool {
        self.gate.left();
        let wanted = self.is_wanted(token);
        let stats = &mut self.gate.stats;
        *(if wanted { &mut stats.delivered } else { &mut stats.stale }) += 1;
        wanted
    }

    fn is_wanted(&mut self, token: Token) -> bool {
        token == UNREGISTERED || self.source.deliver(token)
    }
}

/// A source can no longer work.
#[derive(Debug)]
pub struct SourceError {
    /// The type of the source.
    pub source_name: &'static str,
    /// What happened to it.
    pub error: io::Error,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source_name, self.error)
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// A source of any type. One dynamic call for each batch.
pub(crate) trait AnySource<E>: Send {
    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()>;
    fn ready(&mut self, key: PollKey, ready: Ready);
    fn flush(&mut self) -> io::Result<Due>;
    /// Pushes what was injected, then what the source has. Says whether it may have more.
    fn drain(
        &mut self,
        injected: &mut VecDeque<Injection>,
        to: &mut Turn<'_, E>,
        gate: &mut Gate<E>,
        quota: usize,
    ) -> io::Result<bool>;
    fn oldest(&mut self) -> Option<Instant>;
    fn deliver(&mut self, token: Token) -> bool;
    fn name(&self) -> &'static str;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Pushes as much as the sink takes; the rest keeps its order.
fn push_injected<T: 'static>(injected: &mut VecDeque<Injection>, sink: &mut impl Sink<T>) {
    while let Some(injection) = injected.front_mut() {
        // It is of that type: whoever injected it named the source by its type.
        if let Some(place) = injection.item.downcast_mut::<Option<T>>() {
            if let Some(item) = place.take() {
                if let Err(Full(item)) = sink.push(injection.registration, item) {
                    *place = Some(item);
                    return;
                }
            }
        }
        injected.pop_front();
    }
}

struct Wrapped<S, W> {
    source: S,
    wrap: W,
}

impl<S, W> Wrapped<S, W> {
    fn in_context(error: io::Error) -> io::Error {
        let source_name = std::any::type_name::<S>();
        io::Error::new(error.kind(), SourceError { source_name, error })
    }
}

impl<E, S: Source, W: FnMut(S::Item) -> E + Send + 'static> AnySource<E> for Wrapped<S, W> {
    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.source.attach(poll_set).map_err(Self::in_context)
    }

    fn ready(&mut self, key: PollKey, ready: Ready) {
        self.source.ready(key, ready);
    }

    fn flush(&mut self) -> io::Result<Due> {
        self.source.flush().map_err(Self::in_context)
    }

    fn drain(
        &mut self,
        injected: &mut VecDeque<Injection>,
        to: &mut Turn<'_, E>,
        gate: &mut Gate<E>,
        quota: usize,
    ) -> io::Result<bool> {
        let mut sink = RingSink::new(to.ring, gate, &mut self.wrap, quota, to.until);
        if !injected.is_empty() {
            push_injected::<S::Item>(injected, &mut sink);
        }
        self.source.drain(&mut sink).map_err(Self::in_context)?;
        Ok(sink.may_have_more::<S::Item>())
    }

    fn oldest(&mut self) -> Option<Instant> {
        self.source.oldest()
    }

    fn deliver(&mut self, token: Token) -> bool {
        self.source.deliver(token)
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<S>()
    }

    fn as_any(&self) -> &dyn Any {
        &self.source
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        &mut self.source
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.source)
    }
}
