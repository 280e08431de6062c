//! Registrations of a source, by token.

use slab::Slab;

use crate::poll::PollKey;
use crate::token::Token;

/// What a source knows of its registrations, by [`Token`].
///
/// A slab whose entries remember their generation: a token of a removed entry finds nothing, also
/// when its slot has a new tenant.
///
/// ```
/// use kevent_core::Table;
///
/// let mut table = Table::new();
/// let first = table.insert("first");
/// assert_eq!(table.remove(first), Some("first"));
/// let second = table.insert("second"); // in the same slot
/// assert_eq!(table.get(first), None);
/// assert_eq!(table.get(second), Some(&"second"));
/// ```
#[derive(Debug)]
pub struct Table<T> {
    slots: Slab<(u32, T)>,
    /// The generation of the next tenant of any slot. One counter serves all slots: two tenants of
    /// one slot then differ as long as fewer than 2³² came in between.
    generation: u32,
}

impl<T> Table<T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Table<T> {
        // Not zero: `Token::SOLE` names no entry of any table.
        Table { slots: Slab::new(), generation: 1 }
    }

    /// Takes `entry` in and names it.
    ///
    /// # Panics
    ///
    /// When 2³² entries stand at once, which no machine holds.
    pub fn insert(&mut self, entry: T) -> Token {
        let generation = self.generation;
        self.generation = self.generation.wrapping_add(1).max(1);
        let slot = self.slots.insert((generation, entry));
        Token::new(u32::try_from(slot).expect("fewer than 2^32 registrations"), generation)
    }

    /// Takes in what `make` makes, which is told its own token; nothing when `make` fails.
    ///
    /// # Errors
    ///
    /// Those of `make`.
    ///
    /// # Panics
    ///
    /// As [`insert`](Table::insert).
    pub fn try_insert_with<E>(
        &mut self,
        make: impl FnOnce(Token) -> Result<T, E>,
    ) -> Result<Token, E> {
        let slot = u32::try_from(self.slots.vacant_key()).expect("fewer than 2^32 registrations");
        let entry = make(Token::new(slot, self.generation))?;
        Ok(self.insert(entry))
    }

    /// The entry of `token`, while it stands.
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&T> {
        let (generation, entry) = self.slots.get(token.slot() as usize)?;
        (*generation == token.generation()).then_some(entry)
    }

    /// The entry of `token`, while it stands, to change it.
    #[must_use]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let (generation, entry) = self.slots.get_mut(token.slot() as usize)?;
        (*generation == token.generation()).then_some(entry)
    }

    /// The token under which the poll set knows `key`, while its registration stands.
    #[must_use]
    pub fn find(&self, key: PollKey) -> Option<Token> {
        let (generation, _) = self.slots.get(key.slot as usize)?;
        (*generation as u16 == key.generation).then(|| Token::new(key.slot, *generation))
    }

    /// Removes the entry of `token`, if it stands.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.get(token)?;
        Some(self.slots.remove(token.slot() as usize).1)
    }

    /// How many entries stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no entry stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Every entry with its token, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots.iter().map(|(slot, (generation, entry))| {
            // `insert` proved that the slot fits.
            (Token::new(slot as u32, *generation), entry)
        })
    }

    /// Removes every entry.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.slots.drain().map(|(_, entry)| entry)
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert,
        /// Inserting that fails: as if nothing had been.
        Fail,
        Remove(prop::sample::Index),
        Change(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Insert),
            1 => Just(Step::Fail),
            3 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => any::<prop::sample::Index>().prop_map(Step::Change),
        ]
    }

    proptest! {
        /// Against a list of all tokens that ever were: a token finds its own entry while that
        /// stands, and afterwards nothing, whoever has its slot; also where generations wrap.
        #[test]
        fn token_finds_its_own_entry_or_nothing(
            generation in prop_oneof![Just(1_u32), Just(u32::MAX - 5), any::<u32>()],
            steps in prop::collection::vec(step(), 0..100),
        ) {
            let mut table = Table::new();
            table.generation = generation.max(1);
            let mut model: Vec<(Token, Option<usize>)> = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert => {
                        let mut told = None;
                        let made = table.try_insert_with(|token| {
                            told = Some(token);
                            Ok::<_, ()>(n)
                        });
                        prop_assert_eq!(made.ok(), told, "the token that was announced");
                        model.extend(told.map(|token| (token, Some(n))));
                    }
                    Step::Fail => prop_assert_eq!(table.try_insert_with(|_| Err(n)), Err(n)),
                    Step::Remove(which) if !model.is_empty() => {
                        let at = which.index(model.len());
                        let (token, entry) = &mut model[at];
                        prop_assert_eq!(table.remove(*token), entry.take());
                    }
                    Step::Change(which) if !model.is_empty() => {
                        let at = which.index(model.len());
                        let (token, entry) = &mut model[at];
                        if let Some(value) = table.get_mut(*token) {
                            *value += 1000;
                        }
                        *entry = entry.map(|value| value + 1000);
                    }
                    Step::Remove(_) | Step::Change(_) => {}
                }
                for (token, entry) in &model {
                    prop_assert_eq!(table.get(*token), entry.as_ref());
                    prop_assert_eq!(table.find((*token).into()), entry.map(|_| *token));
                    prop_assert_ne!(token.generation(), 0, "as `Token::SOLE` has it");
                    prop_assert_eq!(Token::from_bits(token.to_bits()), *token);
                }
                prop_assert_eq!(table.len(), model.iter().filter(|(_, e)| e.is_some()).count());
                prop_assert_eq!(table.iter().count(), table.len());
            }
        }
    }
}
