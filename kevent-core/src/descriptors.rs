//! A table by descriptor number.

use std::os::fd::RawFd;

/// How many numbers a page holds. The kernel gives the lowest that is free, so the pages of a process
/// are full from the first on, mostly.
const PAGE: usize = 512;

/// Stands for nothing. No caller stores it.
const VACANT: u64 = u64::MAX;

/// A 64-bit word for each of some descriptors.
///
/// Eight bytes for each number, in pages that come with the first number in them and stay: so it
/// grows with the highest number at most, which the limit of open files bounds.
#[derive(Debug, Default)]
pub(crate) struct ByDescriptor {
    pages: Vec<Option<Box<[u64; PAGE]>>>,
}

impl ByDescriptor {
    /// The word of `fd`.
    pub(crate) fn get(&self, fd: RawFd) -> Option<u64> {
        let (page, at) = place(fd)?;
        let word = *self.pages.get(page)?.as_ref()?.get(at)?;
        (word != VACANT).then_some(word)
    }

    /// Stores `word` for `fd`, which is not negative.
    pub(crate) fn insert(&mut self, fd: RawFd, word: u64) {
        debug_assert_ne!(word, VACANT);
        let Some((page, at)) = place(fd) else { return };
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([VACANT; PAGE]));
        page[at] = word;
    }

    /// Forgets the word of `fd`.
    pub(crate) fn remove(&mut self, fd: RawFd) {
        let Some((page, at)) = place(fd) else { return };
        if let Some(Some(page)) = self.pages.get_mut(page) {
            page[at] = VACANT;
        }
    }

    /// Every number that has a word, with it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RawFd, u64)> {
        let pages = self.pages.iter().enumerate();
        let pages = pages.filter_map(|(n, page)| Some((n * PAGE, page.as_ref()?)));
        let words = pages.flat_map(|(first, page)| (first..).zip(page.iter().copied()));
        let taken = words.filter(|(_, word)| *word != VACANT);
        // What came in as a descriptor goes out as one.
        taken.map(|(fd, word)| (fd as RawFd, word))
    }
}

fn place(fd: RawFd) -> Option<(usize, usize)> {
    let fd = usize::try_from(fd).ok()?;
    Some((fd / PAGE, fd % PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn number() -> impl Strategy<Value = RawFd> {
        prop_oneof![4 => 0..8_i32, 2 => 508..516_i32, 1 => 0..2_000_000_i32, 1 => Just(-1)]
    }

    proptest! {
        #[test]
        fn words_are_those_of_a_map(
            steps in prop::collection::vec((number(), any::<Option<u32>>()), 0..60),
        ) {
            let (mut table, mut model) = (ByDescriptor::default(), BTreeMap::new());
            for (fd, word) in steps {
                match word {
                    Some(word) if fd >= 0 => {
                        table.insert(fd, word.into());
                        model.insert(fd, u64::from(word));
                    }
                    _ => {
                        table.remove(fd);
                        model.remove(&fd);
                    }
                }
                prop_assert_eq!(table.get(fd), model.get(&fd).copied());
            }
            prop_assert_eq!(table.iter().collect::<BTreeMap<_, _>>(), model);
        }
    }
}
