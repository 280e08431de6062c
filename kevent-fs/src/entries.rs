//! What a directory holds, by name.
//!
//! A directory may hold very many files, each of which is remembered when it is created. So the names lie
//! one after the other in one piece of memory, and none has an allocation of its own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Names that were removed may take so much room, and as much as those that are there.
const WASTE: usize = 4096;

/// A map from names to what is known of them.
#[derive(Debug)]
pub(crate) struct Entries<T> {
    table: HashTable<Slot<T>>,
    /// All names, and some that were removed.
    names: Vec<u8>,
    /// How much of `names` those are.
    removed: usize,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot<T> {
    /// Where the name begins in `names`, and, in [`LENGTH_BITS`], its length.
    place: u64,
    entry: T,
}

/// No name is longer than a path may be (`PATH_MAX`, 4,096 bytes). The other bits are enough for 280
/// terabytes of names.
const LENGTH_BITS: u32 = 16;
const LENGTH_MAX: usize = (1 << LENGTH_BITS) - 1;

impl<T> Slot<T> {
    fn new(start: usize, length: usize, entry: T) -> Slot<T> {
        Slot { place: place(start, length), entry }
    }

    fn length(&self) -> usize {
        self.place as usize & LENGTH_MAX
    }

    fn name<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        let start = (self.place >> LENGTH_BITS) as usize;
        &names[start..start + self.length()]
    }
}

impl<T> Entries<T> {
    pub(crate) fn get(&self, name: &OsStr) -> Option<&T> {
        let name = key(name);
        let slot = self.table.find(self.hash(name), |slot| slot.name(&self.names) == name);
        slot.map(|slot| &slot.entry)
    }

    pub(crate) fn get_mut(&mut self, name: &OsStr) -> Option<&mut T> {
        let name = key(name);
        let hash = self.hash(name);
        let slot = self.table.find_mut(hash, |slot| slot.name(&self.names) == name);
        slot.map(|slot| &mut slot.entry)
    }

    /// Takes an entry in, or gives it back when that name is taken.
    pub(crate) fn insert(&mut self, name: &OsStr, entry: T) -> Result<(), T> {
        let name = key(name);
        let hash = self.hash(name);
        if self.table.find(hash, |slot| slot.name(&self.names) == name).is_some() {
            return Err(entry);
        }
        let slot = Slot::new(self.names.len(), name.len(), entry);
        self.names.extend_from_slice(name);
        let (names, hasher) = (&self.names, &self.hasher);
        self.table.insert_unique(hash, slot, |slot| hasher.hash_one(slot.name(names)));
        Ok(())
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, name: &OsStr) -> Option<T> {
        let name = key(name);
        let hash = self.hash(name);
        let found = self.table.find_entry(hash, |slot| slot.name(&self.names) == name);
        let (slot, _) = found.ok()?.remove();
        self.removed += slot.length();
        if self.removed > WASTE + self.names.len() / 2 {
            self.tidy();
        }
        Some(slot.entry)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.table.iter().map(|slot| OsStr::from_bytes(slot.name(&self.names)))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.table.iter().map(|slot| &slot.entry)
    }

    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Moves the names that are left together.
    fn tidy(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.removed);
        for slot in &mut self.table {
            let start = names.len();
            names.extend_from_slice(slot.name(&self.names));
            slot.place = place(start, slot.length());
        }
        (self.names, self.removed) = (names, 0);
    }
}

fn place(start: usize, length: usize) -> u64 {
    (start as u64) << LENGTH_BITS | length as u64
}

fn key(name: &OsStr) -> &[u8] {
    let name = name.as_bytes();
    &name[..name.len().min(LENGTH_MAX)]
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        let (table, hasher) = (HashTable::new(), RandomState::default());
        Entries { table, names: Vec::new(), removed: 0, hasher }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map, with names that are alike, and enough removed ones to be tidied away among those
        /// that stay.
        #[test]
        fn entries_are_a_map_by_name(
            steps in prop::collection::vec((0_u8..3, 0_usize..12), 0..400),
        ) {
            let mut entries = Entries::default();
            let mut model = BTreeMap::new();
            for (number, (what, name)) in steps.into_iter().enumerate() {
                let name = "n".repeat(name * 100);
                let name = OsStr::new(&name);
                match what {
                    0 => {
                        let known = model.contains_key(name);
                        prop_assert_eq!(entries.insert(name, number), if known { Err(number) } else { Ok(()) });
                        model.entry(name.to_owned()).or_insert(number);
                    }
                    1 => prop_assert_eq!(entries.remove(name), model.remove(name)),
                    _ => {
                        prop_assert_eq!(entries.get(name), model.get(name));
                        prop_assert_eq!(entries.get_mut(name), model.get_mut(name));
                    }
                }
            }
            let names: BTreeMap<_, _> = entries.names().map(|n| (n.to_owned(), *entries.get(n).unwrap())).collect();
            prop_assert_eq!(&names, &model);
            prop_assert_eq!(entries.values().count(), model.len());
        }
    }

    #[test]
    fn names_that_were_removed_do_not_pile_up() {
        let mut entries = Entries::default();
        for number in 0..100_000 {
            let name = format!("temporary-{number}");
            entries.insert(OsStr::new(&name), number).unwrap();
            assert_eq!(entries.remove(OsStr::new(&name)), Some(number));
        }
        assert!(entries.names.len() < 4 * WASTE, "{} bytes for no name", entries.names.len());
    }
}
