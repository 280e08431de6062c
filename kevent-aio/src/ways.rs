//! Whether to look first if what an operation wants is in memory, or to leave that to the ring at once.
//!
//! A look is the read itself, if the data is there, for a tenth more than a plain read. If it is not, the
//! look has started the read, which costs as much as starting it on the ring; so it is left out where it has
//! failed before. And several reads that are handed over together cost less than a look at each.
//!
//! Of each file it is remembered besides whether it can be read without waiting at all. What can't (tmpfs, FUSE) is
//! not for the ring: see [`file::takes_nowait`]. And whether it is open with O_DIRECT: a look there is a read that waits
//! for the disk, for it is told only not to wait for room in the disk's queue.
//!
//! (CPU per cached read of 4 KiB, measured: plain 1.0, looked at 1.1, alone on the ring 1.3, one of 32 there
//! 0.9. A look in vain: 10 us.)

use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::{Arc, Weak};

use crate::operation::Fd;
use crate::reading::Reading;
use crate::sys::file;

/// So many operations in a turn, at most, are looked at one by one.
const FEW: u32 = 2;

/// The most looks that are left out before there is another.
const LONGEST: u16 = 256;

/// How many files are remembered; a power of two.
const FILES: usize = 64;

/// What the last operations have met.
pub(crate) struct Ways {
    /// Operations that could look, since the last turn and in the turn before that had any.
    fresh: u32,
    last: u32,
    /// Each in the place that the last digits of its number give, until another one comes there.
    files: [Option<Past>; FILES],
}

/// What is known of a file.
struct Past {
    /// Keeps the file's place in memory, and not the file: so no other one can be taken for it.
    file: Weak<dyn AsFd + Send + Sync>,
    nowait: Option<bool>,
    /// It was open with O_DIRECT when it was seen first.
    direct: bool,
    /// How many looks the last one that failed has made unwanted, and how many of them are left.
    length: u16,
    left: u16,
}

impl Ways {
    pub(crate) fn new() -> Ways {
        Ways { fresh: 0, last: 0, files: [const { None }; FILES] }
    }

    /// Whether an operation is to look first. There may be a ring, which takes many at once; one that does not look
    /// knows then whether that is for its file.
    #[inline]
    pub(crate) fn wants_look(&mut self, reading: &mut Reading, ring: bool) -> bool {
        if !reading.cold {
            self.fresh = self.fresh.saturating_add(1);
        }
        let is_one_of_many = ring && self.fresh.max(self.last) > FEW;
        let past = self.past(&reading.file);
        if !reading.cold && !is_one_of_many {
            let wanted = past.left == 0 && past.nowait != Some(false) && !past.direct;
            past.left = past.left.saturating_sub(1);
            if wanted {
                return true;
            }
        }
        reading.nowait = past.nowait;
        past.nowait = Some(reading.takes_nowait());
        false
    }

    /// An operation has looked, and was done with it or not; and it knows now whether its file can be read without
    /// waiting, or does not.
    #[inline]
    pub(crate) fn looked(&mut self, reading: &Reading, found: bool) {
        let past = self.past(&reading.file);
        past.nowait = past.nowait.or(reading.nowait);
        past.length = if found { 0 } else { (2 * past.length).clamp(1, LONGEST) };
        past.left = past.length;
    }

    /// What is known of `file`.
    #[inline]
    fn past(&mut self, file: &Fd) -> &mut Past {
        let place = &mut self.files[file.as_fd().as_raw_fd() as usize % FILES];
        let is_same = |past: &Past| ptr::addr_eq(past.file.as_ptr(), Arc::as_ptr(file));
        if !place.as_ref().is_some_and(is_same) {
            *place = None;
        }
        place.get_or_insert_with(|| Past {
            file: Arc::downgrade(file),
            nowait: None,
            direct: file::status_flags(file.as_fd()).is_ok_and(|flags| flags & libc::O_DIRECT != 0),
            length: 0,
            left: 0,
        })
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Fd {
        Arc::new(std::fs::File::open("/dev/null").unwrap())
    }

    /// How many of so many operations in one turn look, and find nothing.
    fn looks(ways: &mut Ways, operations: u32, file: &Fd, ring: bool, found: bool) -> u32 {
        let looks = (0..operations).filter(|_| {
            let mut reading = Reading::new(file.clone());
            let wanted = ways.wants_look(&mut reading, ring);
            if wanted {
                ways.looked(&reading, found);
            }
            wanted
        });
        let count = looks.count() as u32;
        ways.turn();
        count
    }

    #[test]
    fn one_at_a_time_looks_and_many_do_not() {
        let (mut ways, file) = (Ways::new(), open());
        for _ in 0..10 {
            assert_eq!(looks(&mut ways, 2, &file, true, true), 2);
        }
        looks(&mut ways, 32, &file, true, true);
        assert_eq!(looks(&mut ways, 32, &file, true, true), 0);
        assert_eq!(looks(&mut ways, 1, &file, true, true), 0, "the turn before was one of many");
        ways.turn();
        assert_eq!(
            looks(&mut ways, 1, &file, true, true),
            1,
            "and that counts once, also after idle turns"
        );
    }

    #[test]
    fn what_goes_back_at_once_is_no_batch() {
        let (mut ways, file) = (Ways::new(), open());
        for _ in 0..100 {
            let mut reading = Reading::new(file.clone());
            assert!(ways.wants_look(&mut reading, true));
            ways.looked(&reading, true);
            ways.went_back();
        }
    }

    #[test]
    fn file_in_the_place_of_another_is_not_taken_for_it() {
        let mut ways = Ways::new();
        let file = open();
        looks(&mut ways, 2, &file, false, false);
        let number = file.as_fd().as_raw_fd();
        drop(file);
        let next = open();
        if next.as_fd().as_raw_fd() == number {
            assert_eq!(looks(&mut ways, 5, &next, false, true), 5);
        }
    }

    /// What a read of `file` is told that does not look.
    fn told(ways: &mut Ways, file: &Fd) -> Option<bool> {
        let mut reading = Reading { cold: true, ..Reading::new(file.clone()) };
        assert!(!ways.wants_look(&mut reading, true));
        reading.nowait
    }

    #[test]
    fn what_can_be_read_without_waiting_is_remembered() {
        let mut ways = Ways::new();
        let shared: Fd = Arc::new(std::fs::File::open("/proc/self/status").unwrap());
        let direct = file::takes_nowait(shared.as_fd());
        assert_eq!([told(&mut ways, &shared), told(&mut ways, &shared)], [Some(direct); 2]);
        let with = |file: &Fd, nowait| Reading { nowait, ..Reading::new(file.clone()) };
        ways.looked(&with(&shared, Some(!direct)), true);
        assert_eq!(told(&mut ways, &shared), Some(direct), "it is known already");
        let other = open();
        ways.looked(&with(&other, Some(false)), false);
        assert_eq!(told(&mut ways, &other), Some(false));
        assert_eq!(looks(&mut ways, 10, &other, false, true), 0, "and no look is wanted");
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let here: Fd = Arc::new(here);
        assert_eq!(told(&mut ways, &here), Some(true), "it has no places to read from");
    }

    #[test]
    fn file_past_the_page_cache_is_not_looked_at() {
        use std::os::unix::fs::OpenOptionsExt;
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        let mut options = std::fs::OpenOptions::new();
        let Ok(direct) = options.read(true).custom_flags(libc::O_DIRECT).open(file.path()) else {
            println!("skipped: no O_DIRECT on this file system");
            return;
        };
        assert_eq!(looks(&mut Ways::new(), 2, &(Arc::new(direct) as Fd), false, true), 0);
    }

    #[test]
    fn without_a_ring_many_look_too() {
        assert_eq!(looks(&mut Ways::new(), 32, &open(), false, true), 32);
    }

    #[test]
    fn looks_in_vain_become_rare_and_one_that_finds_brings_them_back() {
        let (mut ways, file) = (Ways::new(), open());
        let tried = looks(&mut ways, 10_000, &file, false, false);
        assert!((39..60).contains(&tried), "{tried}");
        let other = open();
        assert_eq!(looks(&mut ways, 1, &other, false, true), 1, "of another file nothing is known");
        while looks(&mut ways, 1, &file, false, true) == 0 {}
        assert_eq!(looks(&mut ways, 10, &file, false, true), 10);
    }
}
