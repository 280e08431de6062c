//! The bounded ring between the sources and the user.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use crate::token::Token;

/// A bounded first-in, first-out ring of events.
///
/// The thread that has the queue is its only writer and its only reader, so it needs no atomics. It
/// never overwrites: who finds no room keeps what he has.
///
/// It has room for `capacity` events of sources, and, in a lane of their own, for as many that the user
/// posts himself. The two do not take each other's room, or a program that posts whenever it takes an
/// event out would never let a source in. They come out in one order.
///
/// What is the same for all events of a batch (which source, when it was seen, the number of the first)
/// is kept once for each batch, and what can be reckoned from the position of an event is not kept at
/// all: so an event goes in and comes out in a few instructions.
#[derive(Debug)]
pub(crate) struct Ring<E> {
    slots: VecDeque<Slot<E>>,
    /// In the order of their events. The first is that of the event that comes out next; the last may
    /// have none yet.
    batches: VecDeque<Batch>,
    own: VecDeque<Own<E>>,
    capacity: usize,
    /// How many events came out of `slots`: the position of the first of them that is left.
    position: u64,
    /// How many posts of the user's own there have been.
    posted: u64,
}

#[derive(Debug)]
struct Slot<E> {
    token: Token,
    event: E,
}

/// Events that came from one source in one go.
#[derive(Clone, Copy, Debug)]
struct Batch {
    source: Token,
    /// In nanoseconds of the queue's clock, or [`UNDATED`].
    seen: u64,
    /// The position of its first event, and the number of that. The others follow.
    first: u64,
    sequence: u64,
}

/// A post of the user's own.
#[derive(Debug)]
struct Own<E> {
    sequence: u64,
    seen: u64,
    event: E,
}

/// An event that came out of the ring.
#[derive(Debug)]
pub(crate) struct Taken<E> {
    pub(crate) source: Token,
    pub(crate) token: Token,
    pub(crate) event: E,
    pub(crate) seen: u64,
    pub(crate) sequence: u64,
}

/// In place of a time: that of this turn, which nobody has asked for yet.
pub(crate) const UNDATED: u64 = u64::MAX;

/// In place of a source: the user himself. No source of a table has this token.
pub(crate) const OWN: Token = Token::SOLE;

impl<E> Ring<E> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Ring<E> {
        Ring {
            slots: VecDeque::with_capacity(capacity.get()),
            batches: VecDeque::new(),
            own: VecDeque::new(),
            capacity: capacity.get(),
            position: 0,
            posted: 0,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() + self.own.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.own.is_empty()
    }

    /// How many of the user's own posts are in it.
    #[inline]
    pub(crate) fn own(&self) -> usize {
        self.own.len()
    }

    /// How many of the user's own posts came out.
    pub(crate) fn own_taken(&self) -> u64 {
        self.posted - self.own.len() as u64
    }

    /// The number that the next event gets, in either lane: every event has one, in the order of their
    /// coming.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_position() + self.posted
    }

    /// How many more events of sources it takes.
    pub(crate) fn room(&self) -> usize {
        self.capacity - self.slots.len()
    }

    /// The position that the next event of a source gets, among those of sources.
    pub(crate) fn next_position(&self) -> u64 {
        self.position + self.slots.len() as u64
    }

    /// The position of the event of a source that comes out next.
    pub(crate) fn first_position(&self) -> u64 {
        self.position
    }

    /// What is pushed from here on comes from `source`, and was seen at that time.
    pub(crate) fn begin(&mut self, source: Token, seen: u64) {
        let (first, sequence) = (self.next_position(), self.next_sequence());
        let batch = Batch { source, seen, first, sequence };
        match self.batches.back_mut() {
            Some(last) if last.first == first || self.slots.is_empty() => *last = batch,
            Some(last) if last.continues(&batch) => {}
            _ => self.batches.push_back(batch),
        }
    }

    /// Appends an event to the batch that was begun. The caller has looked for room, and posted nothing
    /// since.
    #[inline]
    pub(crate) fn push(&mut self, token: Token, event: E) {
        self.slots.push_back(Slot { token, event });
    }

    /// Appends a post of the user's own, or gives it back when there are as many as the ring has
    /// capacity.
    #[inline]
    pub(crate) fn post(&mut self, event: E, seen: u64) -> Result<(), E> {
        if self.own.len() >= self.capacity {
            return Err(event);
        }
        self.own.push_back(Own { sequence: self.next_sequence(), seen, event });
        self.posted += 1;
        Ok(())
    }

    /// Takes the oldest event out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Taken<E>> {
        if !self.own.is_empty() && self.own_is_older() {
            let Own { sequence, seen, event } = self.own.pop_front()?;
            return Some(Taken { source: OWN, token: Token::SOLE, event, seen, sequence });
        }
        let Slot { token, event } = self.slots.pop_front()?;
        let batch = self.batches.front()?;
        let Batch { source, seen, .. } = *batch;
        let sequence = batch.number(self.position);
        self.position += 1;
        if self.batches.get(1).is_some_and(|next| next.first == self.position) {
            self.batches.pop_front();
        }
        Some(Taken { source, token, event, seen, sequence })
    }

    /// Puts back what was taken out last, where it was.
    pub(crate) fn put_back(&mut self, taken: Taken<E>) {
        let Taken { source, token, event, seen, sequence } = taken;
        if source == OWN {
            self.own.push_front(Own { sequence, seen, event });
            return;
        }
        if let Some(batch) = self.batches.front_mut() {
            // It begins after that event, whether it was of this batch or of the one before.
            (batch.sequence, batch.first) = (batch.number(self.position), self.position);
        }
        self.slots.push_front(Slot { token, event });
        self.position -= 1;
        self.batches.push_front(Batch { source, seen, first: self.position, sequence });
    }

    /// Whether the oldest post is older than the oldest event of a source.
    #[inline]
    fn own_is_older(&self) -> bool {
        let (own, batch) = (self.own.front(), self.batches.front());
        let own = own.map_or(u64::MAX, |own| own.sequence);
        self.slots.is_empty() || batch.is_none_or(|batch| own < batch.number(self.position))
    }

    /// Gives what is undated that time.
    pub(crate) fn date(&mut self, seen: u64) {
        let end = self.next_position();
        let batches = self.batches.iter_mut().rev().filter(|batch| batch.first < end);
        let batches = batches.map(|batch| &mut batch.seen);
        batches.take_while(|seen| **seen == UNDATED).for_each(|undated| *undated = seen);
        let own = self.own.iter_mut().rev().map(|own| &mut own.seen);
        own.take_while(|seen| **seen == UNDATED).for_each(|undated| *undated = seen);
    }

    /// The event of a source at that position, while it is in the ring.
    pub(crate) fn get_mut(&mut self, position: u64) -> Option<&mut E> {
        let index = usize::try_from(position.checked_sub(self.position)?).ok()?;
        self.slots.get_mut(index).map(|slot| &mut slot.event)
    }
}

impl Batch {
    /// The number of its event at that position.
    #[inline]
    fn number(&self, position: u64) -> u64 {
        self.sequence + (position - self.first)
    }

    /// Whether `next`, that has no events yet, would only go on with this one.
    fn continues(&self, next: &Batch) -> bool {
        let in_a_row = self.number(next.first) == next.sequence;
        in_a_row && self.source == next.source && self.seen == next.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// From that source, seen at that time; so many events.
        Push(u32, u64, usize),
        /// By the user himself.
        Post(u64),
        Pop(usize),
        /// One, and puts it back.
        PutBack,
        Change(prop::sample::Index),
        Date(u64),
    }

    fn seen() -> impl Strategy<Value = u64> {
        prop_oneof![Just(UNDATED), 0_u64..2]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1_u32..4, seen(), 0_usize..5).prop_map(|(s, t, n)| Step::Push(s, t, n)),
            seen().prop_map(Step::Post),
            (0_usize..6).prop_map(Step::Pop),
            Just(Step::PutBack),
            any::<prop::sample::Index>().prop_map(Step::Change),
            (3_u64..6).prop_map(Step::Date),
        ]
    }

    proptest! {
        /// Against a list: whatever the order of pushes, posts and pops, the ring holds what a queue of
        /// that bound holds, in its order, numbered without a gap, and each event is of the source
        /// and the time of its batch.
        #[test]
        fn ring_is_a_bounded_queue(
            capacity in 1_usize..9,
            steps in prop::collection::vec(step(), 0..100),
        ) {
            let mut ring = Ring::new(NonZeroUsize::new(capacity).unwrap());
            let mut model: VecDeque<(Token, u64, u64, u64)> = VecDeque::new();
            let (mut sequence, mut positions, mut posts) = (0, Vec::new(), 0);
            for step in steps {
                let own = |model: &VecDeque<(Token, u64, u64, u64)>| {
                    model.iter().filter(|entry| entry.0 == OWN).count()
                };
                match step {
                    Step::Push(source, seen, count) => {
                        let source = Token::new(7, source);
                        ring.begin(source, seen);
                        for _ in 0..count.min(ring.room()) {
                            prop_assert_eq!(ring.next_position(), positions.len() as u64);
                            prop_assert_eq!(ring.next_sequence(), sequence);
                            ring.push(Token::new(1, 1), sequence);
                            positions.push(sequence);
                            model.push_back((source, seen, sequence, sequence));
                            sequence += 1;
                        }
                    }
                    Step::Post(seen) if own(&model) < capacity => {
                        prop_assert_eq!(ring.post(sequence, seen), Ok(()));
                        model.push_back((OWN, seen, sequence, sequence));
                        sequence += 1;
                    }
                    Step::Post(seen) => prop_assert_eq!(ring.post(7, seen), Err(7)),
                    Step::Pop(count) => for _ in 0..count {
                        let taken = ring.pop().map(|t| (t.source, t.seen, t.sequence, t.event));
                        posts += u64::from(taken.is_some_and(|taken| taken.0 == OWN));
                        prop_assert_eq!(taken, model.pop_front());
                    },
                    Step::PutBack => if let Some(taken) = ring.pop() {
                        ring.put_back(taken);
                    },
                    Step::Date(time) => {
                        ring.date(time);
                        // In either lane what was pushed since the last that has a date.
                        for own_lane in [true, false] {
                            let lane = model.iter_mut().rev();
                            let lane = lane.filter(|entry| (entry.0 == OWN) == own_lane);
                            let undated = lane.take_while(|entry| entry.1 == UNDATED);
                            undated.for_each(|entry| entry.1 = time);
                        }
                    }
                    Step::Change(which) => {
                        let position = which.index(positions.len() + 1);
                        let number = positions.get(position).copied();
                        let entry = model.iter_mut().find(|entry| Some(entry.2) == number);
                        prop_assert_eq!(
                            ring.get_mut(position as u64).map(|e| { *e += 1000; *e }),
                            entry.map(|e| { e.3 += 1000; e.3 })
                        );
                    }
                }
                prop_assert_eq!((ring.len(), ring.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(ring.own(), own(&model));
                prop_assert_eq!(ring.own_taken(), posts);
                prop_assert_eq!(ring.room(), capacity - (model.len() - own(&model)));
            }
        }
    }

    #[test]
    fn slot_of_an_event_of_32_bytes_takes_forty() {
        assert_eq!(size_of::<Slot<[u64; 4]>>(), 40);
    }
}
