//! The numbers under which sources are in the poll set.
//!
//! The kernel carries 64 bits for each descriptor, and 16 of them name the source. A descriptor that
//! was closed while a duplicate of it is open can't be taken out of the set any more, and may speak
//! when its source was detached long ago. So a number is not the source's slot, which the next
//! source gets at once: one that was given back rests.

use std::collections::VecDeque;

use crate::token::Token;

/// So many others are given back before a number is used again, as long as there are enough.
const REST: usize = 1024;

/// How many sources can stand at once. The last number is the queue's own.
const MAX: usize = u16::MAX as usize;

/// Which source stands under which number.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    sources: Vec<Option<Token>>,
    /// Given back, the longest ago first.
    resting: VecDeque<u16>,
}

impl Numbers {
    /// A number for `source`; `None` when all are in use.
    pub(crate) fn give(&mut self, source: Token) -> Option<u16> {
        if self.resting.len() < REST && self.sources.len() < MAX {
            let number = u16::try_from(self.sources.len()).ok()?;
            self.sources.push(Some(source));
            return Some(number);
        }
        let number = self.resting.pop_front()?;
        *self.sources.get_mut(usize::from(number))? = Some(source);
        Some(number)
    }

    /// The source of `number` is gone.
    pub(crate) fn take_back(&mut self, number: u16) {
        if let Some(source) = self.sources.get_mut(usize::from(number)) {
            *source = None;
            self.resting.push_back(number);
        }
    }

    /// The source that stands under `number`.
    pub(crate) fn source(&self, number: u16) -> Option<Token> {
        self.sources.get(usize::from(number)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: usize) -> Token {
        Token::new(n as u32, 1)
    }

    #[test]
    fn number_that_was_given_back_names_nobody_and_rests() {
        let mut numbers = Numbers::default();
        let first = numbers.give(source(0)).unwrap();
        numbers.take_back(first);
        assert_eq!(numbers.source(first), None);
        for n in 1..REST {
            let number = numbers.give(source(n)).unwrap();
            assert_ne!(number, first, "used again after {n}");
            assert_eq!(numbers.source(number), Some(source(n)));
            numbers.take_back(number);
        }
        assert_eq!(numbers.give(source(REST)), Some(first), "and not for ever");
    }

    #[test]
    fn every_number_but_the_queues_own_is_given_once() {
        let mut numbers = Numbers::default();
        for n in 0..MAX {
            assert_eq!(numbers.give(source(n)), Some(n as u16));
        }
        assert_eq!(numbers.give(source(MAX)), None);
        numbers.take_back(7);
        assert_eq!(numbers.give(source(MAX)), Some(7), "a short rest is better than none");
    }
}
