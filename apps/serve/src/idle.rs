//! Connections that wait for a request, in the order in which they began to.

use kevent_core::Token;
use slab::Slab;

/// A line of idle connections. Each joins at the end and may leave from anywhere, at a cost that does
/// not grow with their number: every request has its connection leave and join again.
#[derive(Debug, Default)]
pub struct IdleLine {
    places: Slab<Place>,
    first: Option<usize>,
    last: Option<usize>,
}

/// One of the line, and its neighbours.
#[derive(Debug)]
struct Place {
    connection: Token,
    before: Option<usize>,
    behind: Option<usize>,
}

impl IdleLine {
    /// Puts `connection` at the end. The number is what to leave with.
    pub fn join(&mut self, connection: Token) -> usize {
        let place = self.places.insert(Place { connection, before: self.last, behind: None });
        self.set_behind(self.last, Some(place));
        self.last = Some(place);
        place
    }

    /// Takes the one at `place` out. Its number may be given to another from now on.
    pub fn leave(&mut self, place: usize) {
        let Some(Place { before, behind, .. }) = self.places.try_remove(place) else { return };
        self.set_behind(before, behind);
        match behind.and_then(|behind| self.places.get_mut(behind)) {
            Some(next) => next.before = before,
            None => self.last = before,
        }
    }

    /// The one that has stood there longest.
    pub fn longest(&self) -> Option<Token> {
        self.first.and_then(|first| self.places.get(first)).map(|place| place.connection)
    }

    fn set_behind(&mut self, place: Option<usize>, behind: Option<usize>) {
        match place.and_then(|place| self.places.get_mut(place)) {
            Some(place) => place.behind = behind,
            None => self.first = behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn longest_is_the_first_that_came_and_has_not_left(
            steps in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 0..100)
        ) {
            let mut line = IdleLine::default();
            let mut model = Vec::new();
            for (number, step) in (1..).zip(steps) {
                match step {
                    Some(index) if !model.is_empty() => {
                        let (place, _) = model.remove(index.index(model.len()));
                        line.leave(place);
                    }
                    _ => {
                        let token = Token::from_bits(number);
                        model.push((line.join(token), token));
                    }
                }
                prop_assert_eq!(line.longest(), model.first().map(|(_, token)| *token));
                prop_assert_eq!(line.places.len(), model.len());
            }
            for (place, token) in model {
                prop_assert_eq!(line.longest(), Some(token));
                line.leave(place);
            }
            prop_assert_eq!(line.longest(), None);
        }
    }
}
