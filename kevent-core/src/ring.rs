//! The bounded ring between the sources and the user.

use std::num::NonZeroUsize;

/// A bounded first-in, first-out ring.
///
/// The thread that waits is its only writer and its only reader, so it needs no atomics. Its memory
/// is taken once. A full ring refuses, counts the refusal and gives the item back: it never
/// overwrites and never grows.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    slots: Box<[Option<T>]>,
    /// Where the oldest item lies. The newest lies `len - 1` slots further, modulo the capacity.
    head: usize,
    len: usize,
    refused: u64,
}

impl<T> Ring<T> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Ring<T> {
        let slots = (0..capacity.get()).map(|_| None).collect();
        Ring { slots, head: 0, len: 0, refused: 0 }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn room(&self) -> usize {
        self.capacity() - self.len
    }

    /// How many pushes found the ring full.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Appends what `make` makes of `item`, or gives `item` back when the ring is full.
    ///
    /// Room is looked for before the item is wrapped: wrapping consumes it, and a full ring has to
    /// give it back as it was.
    pub(crate) fn push_with<I>(&mut self, item: I, make: impl FnOnce(I) -> T) -> Result<(), I> {
        if self.len == self.capacity() {
            self.refused += 1;
            return Err(item);
        }
        let tail = self.wrap(self.head + self.len);
        self.slots[tail] = Some(make(item));
        self.len += 1;
        Ok(())
    }

    /// Takes the oldest item out.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.slots[self.head].take()?;
        self.head = self.wrap(self.head + 1);
        self.len -= 1;
        Some(item)
    }

    /// `index` is below twice the capacity, so one subtraction is the modulo.
    fn wrap(&self, index: usize) -> usize {
        if index >= self.capacity() { index - self.capacity() } else { index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Against a model: whatever the order of pushes and pops, the ring holds what a queue of
        /// that bound holds, in its order, and gives back exactly what it refuses.
        #[test]
        fn ring_is_a_bounded_queue(
            capacity in 1_usize..9,
            steps in prop::collection::vec(any::<Option<u16>>(), 0..200),
        ) {
            let mut ring = Ring::new(NonZeroUsize::new(capacity).unwrap());
            let mut model = VecDeque::new();
            let mut refused = 0;
            for step in steps {
                match step {
                    Some(item) if model.len() == capacity => {
                        refused += 1;
                        prop_assert_eq!(ring.push_with(item, |i| i), Err(item));
                    }
                    Some(item) => {
                        model.push_back(item);
                        prop_assert_eq!(ring.push_with(item, |i| i), Ok(()));
                    }
                    None => prop_assert_eq!(ring.pop(), model.pop_front()),
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.room(), capacity - model.len());
                prop_assert_eq!(ring.refused(), refused);
            }
        }
    }

    #[test]
    fn full_ring_does_not_wrap_the_item_it_refuses() {
        let mut ring = Ring::new(NonZeroUsize::MIN);
        ring.push_with(1, |i| i).unwrap();
        let refused = ring.push_with(2, |_| unreachable!("wrapped an item that has no room"));
        assert_eq!(refused, Err(2));
        assert_eq!(ring.pop(), Some(1));
    }
}
