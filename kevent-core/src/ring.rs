//! The bounded ring between the sources and the user.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use crate::token::Token;

/// A bounded first-in, first-out ring of events.
///
/// The thread that has the queue is its only writer and its only reader, so it needs no atomics. It
/// never overwrites: who finds no room keeps what he has.
///
/// It has room for `capacity` events of sources, and for as many that the user posts himself. The two
/// do not take each other's room, or a program that posts whenever it takes an event out would never
/// let a source in. All stand in one order.
///
/// What is the same for all events of a batch (which source, when it was seen) is kept once for each
/// batch. An event's sequence number is kept nowhere: it is the number of those before it.
#[derive(Debug)]
pub(crate) struct Ring<E> {
    slots: VecDeque<Slot<E>>,
    /// In the order of their events. If one has none, it is the only one.
    batches: VecDeque<Batch>,
    capacity: usize,
    /// How many of the user's own posts ever went in, and came out.
    own_pushed: u64,
    own_taken: u64,
    /// The sequence number of the oldest event.
    taken: u64,
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
    /// In nanoseconds of the queue's clock.
    seen: u64,
    len: usize,
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

/// In place of a source: the user himself. No source of a table has this token.
pub(crate) const OWN: Token = Token::SOLE;

impl<E> Ring<E> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Ring<E> {
        Ring {
            slots: VecDeque::with_capacity(capacity.get()),
            batches: VecDeque::new(),
            capacity: capacity.get(),
            own_pushed: 0,
            own_taken: 0,
            taken: 0,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many of the user's own posts are in it.
    #[inline]
    pub(crate) fn own(&self) -> usize {
        (self.own_pushed - self.own_taken) as usize
    }

    /// How many of the user's own posts came out.
    pub(crate) fn own_taken(&self) -> u64 {
        self.own_taken
    }

    /// How many more events of sources it takes.
    pub(crate) fn room(&self) -> usize {
        self.capacity - (self.len() - self.own())
    }

    /// How many more of the user's own posts it takes.
    pub(crate) fn own_room(&self) -> usize {
        self.capacity - self.own()
    }

    /// The sequence number that the next event gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.taken + self.slots.len() as u64
    }

    /// The sequence number of the event that comes out next.
    pub(crate) fn oldest_sequence(&self) -> u64 {
        self.taken
    }

    /// What is pushed from here on comes from `source`, and was seen at that time.
    #[inline]
    pub(crate) fn begin(&mut self, source: Token, seen: u64) {
        match self.batches.back_mut() {
            Some(batch) if batch.len == 0 => *batch = Batch { source, seen, len: 0 },
            Some(batch) if batch.source == source && batch.seen == seen => {}
            _ => self.batches.push_back(Batch { source, seen, len: 0 }),
        }
    }

    /// Appends an event to the batch that was begun. The caller has looked for room.
    #[inline]
    pub(crate) fn push(&mut self, token: Token, event: E) {
        if let Some(batch) = self.batches.back_mut() {
            batch.len += 1;
            self.own_pushed += u64::from(batch.source == OWN);
            self.slots.push_back(Slot { token, event });
        }
    }

    /// Takes the oldest event out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Taken<E>> {
        let Slot { token, event } = self.slots.pop_front()?;
        let batch = self.batches.front_mut()?;
        let Batch { source, seen, .. } = *batch;
        batch.len -= 1;
        // The newest stays, for the next to take its place.
        if batch.len == 0 && self.batches.len() > 1 {
            self.batches.pop_front();
        }
        let sequence = self.taken;
        self.taken += 1;
        self.own_taken += u64::from(source == OWN);
        Some(Taken { source, token, event, seen, sequence })
    }

    /// The event with that sequence number, while it is in the ring.
    pub(crate) fn get_mut(&mut self, sequence: u64) -> Option<&mut E> {
        let index = usize::try_from(sequence.checked_sub(self.taken)?).ok()?;
        self.slots.get_mut(index).map(|slot| &mut slot.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// From source 0 (the user) to 3, seen at that time; so many events.
        Push(u32, u64, usize),
        Pop(usize),
        Change(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u32..4, 0_u64..3, 0_usize..5).prop_map(|(s, t, n)| Step::Push(s, t, n)),
            (0_usize..6).prop_map(Step::Pop),
            any::<prop::sample::Index>().prop_map(Step::Change),
        ]
    }

    proptest! {
        /// Against a list: whatever the order of pushes and pops, the ring holds what a queue of
        /// that bound holds, in its order, numbered without a gap, and each event is of the source
        /// and the time of its batch.
        #[test]
        fn ring_is_a_bounded_queue(
            capacity in 1_usize..9,
            steps in prop::collection::vec(step(), 0..100),
        ) {
            let mut ring = Ring::new(NonZeroUsize::new(capacity).unwrap());
            let mut model = VecDeque::new();
            let mut sequence = 0;
            for step in steps {
                match step {
                    Step::Push(source, seen, count) => {
                        let source = if source == 0 { OWN } else { Token::new(7, source) };
                        let room = if source == OWN { ring.own_room() } else { ring.room() };
                        ring.begin(source, seen);
                        for _ in 0..count.min(room) {
                            prop_assert_eq!(ring.next_sequence(), sequence);
                            ring.push(Token::new(1, 1), sequence);
                            model.push_back((source, seen, sequence, sequence));
                            sequence += 1;
                        }
                    }
                    Step::Pop(count) => for _ in 0..count {
                        let taken = ring.pop().map(|t| (t.source, t.seen, t.sequence, t.event));
                        prop_assert_eq!(taken, model.pop_front());
                    },
                    Step::Change(which) => {
                        let sequence = which.index(sequence as usize + 1) as u64;
                        let entry = model.iter_mut().find(|entry| entry.2 == sequence);
                        prop_assert_eq!(ring.get_mut(sequence).map(|e| { *e += 1000; *e }),
                            entry.map(|e| { e.3 += 1000; e.3 }));
                    }
                }
                let own = model.iter().filter(|entry| entry.0 == OWN).count();
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.own_room(), capacity - own);
                prop_assert_eq!(ring.room(), capacity - (model.len() - own));
            }
        }
    }

    #[test]
    fn slot_of_an_event_of_32_bytes_takes_forty() {
        assert_eq!(size_of::<Slot<[u64; 4]>>(), 40);
    }
}
