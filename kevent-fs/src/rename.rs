//! Pairs the two halves of a rename by their cookie.
//!
//! The kernel queues `IN_MOVED_FROM` and `IN_MOVED_TO` one after the other, but not in one step: a
//! reader may find the first half as the last thing there is. So a first half waits a moment for its
//! second, and what came behind it waits too, which keeps the order of things. A second half that
//! comes is put to the place of the first: at that time the rename had been done already, and
//! whatever came in between happened after it.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::intake::{Event, Mask, Wd};

/// How long a first half waits for its second. The kernel queues them within microseconds.
pub(crate) const HOLD: Duration = Duration::from_millis(2);

/// Behind so many events a first half waits no longer, so that memory stays bounded.
pub(crate) const MAX_HELD: usize = 8192;

/// An entry of a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) wd: Wd,
    pub(crate) name: OsString,
}

/// What happened, as the kernel tells it, with renames made whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    /// Anything that is not a rename. The name is that of an entry of the directory; without one it
    /// is the watched file or directory itself.
    Event { wd: Wd, name: Option<OsString>, mask: Mask },
    /// A rename: both halves, or the one that we watch.
    Rename { from: Option<Spot>, to: Option<Spot>, is_dir: bool },
}

/// What was read and not yet looked at.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: VecDeque<Held>,
    /// First halves without a second, by cookie: the serial number of their place in the queue.
    halves: HashMap<u32, u64>,
    /// The serial number of the first of the queue.
    first: u64,
}

#[derive(Debug)]
struct Held {
    incident: Incident,
    /// A first half waits until then, and for this cookie.
    waits: Option<(u32, Instant)>,
}

impl Inbox {
    /// Takes an event in; a first half waits until `deadline`.
    pub(crate) fn push_event(&mut self, event: &Event<'_>, deadline: impl FnOnce() -> Instant) {
        let Event { wd, mask, cookie, name } = *event;
        let is_dir = mask.contains(Mask::ISDIR);
        match name.map(OsStr::to_owned) {
            Some(name) if mask.contains(Mask::MOVED_FROM) => {
                self.push_from(Spot { wd, name }, is_dir, cookie, deadline());
            }
            Some(name) if mask.contains(Mask::MOVED_TO) => {
                self.push_to(Spot { wd, name }, is_dir, cookie);
            }
            name => self.push(Incident::Event { wd, name, mask }),
        }
    }

    fn push(&mut self, incident: Incident) {
        self.queue.push_back(Held { incident, waits: None });
    }

    /// Takes a first half in, which waits until `deadline`.
    fn push_from(&mut self, from: Spot, is_dir: bool, cookie: u32, deadline: Instant) {
        self.halves.insert(cookie, self.first + self.queue.len() as u64);
        let incident = Incident::Rename { from: Some(from), to: None, is_dir };
        self.queue.push_back(Held { incident, waits: Some((cookie, deadline)) });
    }

    /// Takes a second half in. It completes its first half, or it came from elsewhere.
    fn push_to(&mut self, spot: Spot, is_dir: bool, cookie: u32) {
        let place = self.halves.remove(&cookie).map(|serial| serial.wrapping_sub(self.first));
        let held = place.and_then(|place| self.queue.get_mut(usize::try_from(place).ok()?));
        if let Some(Held { incident: Incident::Rename { to, .. }, waits }) = held {
            *to = Some(spot);
            *waits = None;
        } else {
            self.push(Incident::Rename { from: None, to: Some(spot), is_dir });
        }
    }

    /// Whether the first of the queue is a half that can be made whole.
    pub(crate) fn lacks_a_half(&self) -> bool {
        self.queue.len() < MAX_HELD && self.queue.front().is_some_and(|held| held.waits.is_some())
    }

    /// Whether the first of the queue has to wait, and until when. `now` is asked only if it matters.
    pub(crate) fn waits_until(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        let (_, deadline) = self.queue.front()?.waits?;
        (self.queue.len() < MAX_HELD && now() < deadline).then_some(deadline)
    }

    /// Takes the first of the queue out, unless it has to wait.
    pub(crate) fn pop(&mut self, now: impl FnOnce() -> Instant) -> Option<Incident> {
        if self.waits_until(now).is_some() {
            return None;
        }
        let Held { incident, waits } = self.queue.pop_front()?;
        self.first += 1;
        if let Some((cookie, _)) = waits {
            self.halves.remove(&cookie);
        }
        Some(incident)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// How many renames are remembered: the two of an exchange come one after the other, but for those
/// that other threads make at that moment.
const MEMORY: usize = 64;

/// The last renames, to recognise an exchange (`RENAME_EXCHANGE`): the kernel tells it as a rename there
/// and one back. Of each we may have been told one end only: the other was not watched yet.
///
/// Places are kept as hashes. Two that are taken for one cost a look at the disk.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    hasher: RandomState,
    renames: VecDeque<(Option<u64>, Option<u64>)>,
}

impl Recent {
    /// Remembers a rename. Whether it may take one of the last back, of which something may be left
    /// at `from` then.
    pub(crate) fn takes_back(
        &mut self,
        from: Option<(Wd, &OsStr)>,
        to: Option<(Wd, &OsStr)>,
    ) -> bool {
        let [from, to] = [from, to].map(|place| place.map(|place| self.hasher.hash_one(place)));
        let may_be = |a: Option<u64>, b: Option<u64>| a == b || a.is_none() || b.is_none();
        let is = |a: Option<u64>, b: Option<u64>| a == b && a.is_some();
        let found = from.is_some()
            && self.renames.iter().any(|&(earlier_from, earlier_to)| {
                may_be(earlier_from, to)
                    && may_be(earlier_to, from)
                    && (is(earlier_from, to) || is(earlier_to, from))
            });
        if self.renames.len() >= MEMORY {
            self.renames.pop_front();
        }
        self.renames.push_back((from, to));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spot(name: u32) -> Spot {
        Spot { wd: 1, name: name.to_string().into() }
    }

    fn event(name: u32) -> Incident {
        Incident::Event { wd: 1, name: Some(name.to_string().into()), mask: Mask::CREATE }
    }

    #[test]
    fn second_half_goes_to_the_place_of_the_first() {
        let now = Instant::now();
        let mut inbox = Inbox::default();
        inbox.push_from(spot(1), false, 7, now + HOLD);
        inbox.push(event(3));
        assert_eq!(inbox.pop(|| now), None, "the first half waits");
        inbox.push_to(spot(2), false, 7);
        let whole = Incident::Rename { from: Some(spot(1)), to: Some(spot(2)), is_dir: false };
        assert_eq!(inbox.pop(|| now), Some(whole));
        assert_eq!(inbox.pop(|| now), Some(event(3)));
    }

    #[test]
    fn half_without_a_partner_waits_no_longer_than_its_deadline() {
        let now = Instant::now();
        let mut inbox = Inbox::default();
        inbox.push_from(spot(1), true, 7, now + HOLD);
        assert_eq!(inbox.waits_until(|| now), Some(now + HOLD));
        let alone = Incident::Rename { from: Some(spot(1)), to: None, is_dir: true };
        assert_eq!(inbox.pop(|| now + HOLD), Some(alone));
        inbox.push_to(spot(2), true, 7);
        let late = Incident::Rename { from: None, to: Some(spot(2)), is_dir: true };
        assert_eq!(inbox.pop(|| now), Some(late), "its partner comes alone as well");
    }

    #[test]
    fn half_does_not_hold_up_more_than_the_bound() {
        let now = Instant::now();
        let mut inbox = Inbox::default();
        inbox.push_from(spot(0), false, 1, now + HOLD);
        (1..MAX_HELD as u32).for_each(|n| inbox.push(event(n)));
        assert!(inbox.pop(|| now).is_some());
    }

    #[test]
    fn rename_that_takes_back_one_of_the_last_is_recognised() {
        let mut recent = Recent::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Some((1, OsStr::new(name))));
        assert!(!recent.takes_back(a, b));
        assert!(!recent.takes_back(b, c));
        assert!(!recent.takes_back(b, Some((2, OsStr::new("a")))), "another directory");
        assert!(recent.takes_back(b, a));
        assert!(!recent.takes_back(None, d));
        assert!(recent.takes_back(d, c), "it may have come from there");
        assert!(recent.takes_back(d, None), "it may have gone back there");
        assert!(recent.takes_back(a, d), "it may have gone there");
        assert!(!recent.takes_back(None, a), "it leaves nothing behind here");
        for n in 0..MEMORY as i32 {
            assert!(
                !recent.takes_back(Some((n + 9, OsStr::new("x"))), Some((n + 9, OsStr::new("y"))))
            );
        }
        assert!(!recent.takes_back(a, b), "that is long ago");
    }

    proptest! {
        /// Renames that begin and end in any order are all made whole, each with its own partner,
        /// and come out in the order in which they began.
        #[test]
        fn every_half_finds_its_partner(order in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle()) {
            let now = Instant::now();
            let mut inbox = Inbox::default();
            for cookie in 0..40 {
                inbox.push_from(spot(cookie), false, cookie, now + HOLD);
            }
            for cookie in order {
                inbox.push_to(spot(cookie + 100), false, cookie);
            }
            for cookie in 0..40 {
                let whole = Incident::Rename {
                    from: Some(spot(cookie)),
                    to: Some(spot(cookie + 100)),
                    is_dir: false,
                };
                prop_assert_eq!(inbox.pop(|| now), Some(whole));
            }
            prop_assert!(inbox.is_empty());
            prop_assert!(inbox.halves.is_empty());
        }
    }
}
