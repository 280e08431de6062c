//! Whether to look first if what an operation wants is in memory, or to leave that to the ring at once.
//!
//! A look is the read itself, if the data is there, for a tenth more than a plain read. If it is not, the
//! look has started the read, which costs as much as starting it on the ring; so it is left out where it has
//! failed before. And several reads that are handed over together cost less than a look at each.
//!
//! (CPU per cached read of 4 KiB, measured: plain 1.0, looked at 1.1, alone on the ring 1.3, one of 32 there
//! 0.9. A look in vain: 10 us.)

use std::os::fd::RawFd;

/// So many operations in a turn, at most, are looked at one by one.
const FEW: u32 = 2;

/// The most looks that are left out before there is another.
const LONGEST: u16 = 256;

/// How many files are remembered; a power of two.
const FILES: usize = 64;

/// What the last operations have met.
#[derive(Debug)]
pub(crate) struct Ways {
    /// Operations that could look, since the last turn and in the turn before that had any.
    fresh: u32,
    last: u32,
    /// By the last digits of their numbers. Who shares a place shares the experience: what that costs is a look
    /// too many or too few.
    files: [Past; FILES],
}

/// What looks at a file have met.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    /// How many looks the last one that failed has made unwanted, and how many of them are left.
    length: u16,
    left: u16,
}

impl Default for Ways {
    fn default() -> Ways {
        Ways { fresh: 0, last: 0, files: [Past::default(); FILES] }
    }
}

impl Ways {
    /// Whether an operation on `file` is to look. There may be a ring, which takes many at once.
    #[inline]
    pub(crate) fn wants_look(&mut self, file: RawFd, ring: bool) -> bool {
        self.fresh = self.fresh.saturating_add(1);
        if ring && self.fresh.max(self.last) > FEW {
            return false;
        }
        let past = self.past(file);
        let wanted = past.left == 0;
        past.left = past.left.saturating_sub(1);
        wanted
    }

    /// It has looked, and was done with it or not.
    #[inline]
    pub(crate) fn looked(&mut self, file: RawFd, found: bool) {
        let past = self.past(file);
        past.length = if found { 0 } else { (2 * past.length).clamp(1, LONGEST) };
        past.left = past.length;
    }

    /// The last that has looked was done, and went back to the user: whatever he begins next is no batch with it.
    #[inline]
    pub(crate) fn went_back(&mut self) {
        self.fresh = self.fresh.saturating_sub(1);
    }

    /// What was submitted so far was of one turn.
    #[inline]
    pub(crate) fn turn(&mut self) {
        if self.fresh > 0 {
            self.last = std::mem::take(&mut self.fresh);
        }
    }

    fn past(&mut self, file: RawFd) -> &mut Past {
        &mut self.files[file as usize % FILES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many operations in one turn look, and find nothing.
    fn looks(ways: &mut Ways, operations: u32, file: RawFd, ring: bool, found: bool) -> u32 {
        let looks = (0..operations).filter(|_| {
            let wanted = ways.wants_look(file, ring);
            if wanted {
                ways.looked(file, found);
            }
            wanted
        });
        let count = looks.count() as u32;
        ways.turn();
        count
    }

    #[test]
    fn one_at_a_time_looks_and_many_do_not() {
        let mut ways = Ways::default();
        for _ in 0..10 {
            assert_eq!(looks(&mut ways, 2, 7, true, true), 2);
        }
        looks(&mut ways, 32, 7, true, true);
        assert_eq!(looks(&mut ways, 32, 7, true, true), 0);
        assert_eq!(looks(&mut ways, 1, 7, true, true), 0, "the turn before was one of many");
        ways.turn();
        assert_eq!(
            looks(&mut ways, 1, 7, true, true),
            1,
            "and that counts once, also after idle turns"
        );
    }

    #[test]
    fn what_goes_back_at_once_is_no_batch() {
        let mut ways = Ways::default();
        for _ in 0..100 {
            assert!(ways.wants_look(7, true));
            ways.looked(7, true);
            ways.went_back();
        }
    }

    #[test]
    fn without_a_ring_many_look_too() {
        assert_eq!(looks(&mut Ways::default(), 32, 7, false, true), 32);
    }

    #[test]
    fn looks_in_vain_become_rare_and_one_that_finds_brings_them_back() {
        let mut ways = Ways::default();
        let tried = looks(&mut ways, 10_000, 7, false, false);
        assert!((39..60).contains(&tried), "{tried}");
        assert_eq!(looks(&mut ways, 1, 8, false, true), 1, "of another file nothing is known");
        while looks(&mut ways, 1, 7, false, true) == 0 {}
        assert_eq!(looks(&mut ways, 10, 7, false, true), 10);
    }
}
