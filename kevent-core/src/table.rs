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

    /// Whatever stands in `slot`, with its token.
    pub(crate) fn in_slot(&self, slot: u32) -> Option<(Token, &T)> {
        let (generation, entry) = self.slots.get(slot as usize)?;
        Some((Token::new(slot, *generation), entry))
    }

    /// Whatever stands in `slot`, to change it.
    pub(crate) fn in_slot_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize).map(|(_, entry)| entry)
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
