//! How events are accounted for.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use kevent_core::Token;

use crate::dice::Dice;

/// What became of the events of one kind. In the end all that were provoked were told or taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) provoked: u64,
    pub(crate) told: u64,
    /// Their registration was removed before they were told.
    pub(crate) taken_back: u64,
}

impl Tally {
    /// How many are still to come.
    pub(crate) fn outstanding(&self) -> u64 {
        let accounted = self.told + self.taken_back;
        self.provoked.checked_sub(accounted).expect("no more is told than was provoked")
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.provoked += other.provoked;
        self.told += other.told;
        self.taken_back += other.taken_back;
    }
}

/// Counts removals, so that it can be said of each event whether its thread has asked for it before its
/// registration was removed or after that.
///
/// A thread may have an event in its hands while another removes the registration: that event was
/// delivered before. One that asked for an event only after the removal must not get it.
#[derive(Debug, Default)]
pub(crate) struct Removals(AtomicU64);

impl Removals {
    /// Something was just removed, under the lock of the queue.
    pub(crate) fn removed(&self) -> RemovedAt {
        RemovedAt(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// A thread is about to ask for an event.
    pub(crate) fn asks(&self) -> AskedAt {
        AskedAt(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RemovedAt(u64);

#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedAt(u64);

impl RemovedAt {
    /// An event of what was removed then was told to a thread that had asked for it at `asked`.
    pub(crate) fn permits(self, asked: AskedAt) -> bool {
        asked.0 < self.0
    }
}

/// Registrations with exactly one event each, by the key that the event brings back.
///
/// A place that is used again gives another key: so an event that comes twice, or after it was taken
/// back, finds nobody.
#[derive(Debug)]
pub(crate) struct Once<T> {
    places: Vec<Option<(u64, T)>>,
    rounds: u64,
}

impl<T> Once<T> {
    pub(crate) fn new(places: usize) -> Once<T> {
        Once { places: (0..places).map(|_| None).collect(), rounds: 0 }
    }

    /// A place at random.
    pub(crate) fn pick(&self, dice: &mut Dice) -> usize {
        dice.below(self.places.len())
    }

    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.places[place].as_ref().map(|(_, what)| what)
    }

    /// Fills a place with what `register` makes of the key.
    pub(crate) fn fill(&mut self, place: usize, register: impl FnOnce(u64) -> T) {
        self.rounds += 1;
        let key = self.rounds * self.places.len() as u64 + place as u64;
        let before = self.places[place].replace((key, register(key)));
        assert!(before.is_none(), "the place was free");
    }

    /// The event of `key` has come, or was taken back.
    pub(crate) fn take(&mut self, key: u64) -> Option<T> {
        let place = (key % self.places.len() as u64) as usize;
        self.places[place].take_if(|(tenant, _)| *tenant == key).map(|(_, what)| what)
    }

    /// As [`take`](Once::take), by place.
    pub(crate) fn empty(&mut self, place: usize) -> Option<T> {
        self.places[place].take().map(|(_, what)| what)
    }
}

/// Registrations whose events bring amounts, of which exactly what was added is to come out.
#[derive(Debug, Default)]
pub(crate) struct Amounts {
    accounts: HashMap<Token, Account>,
    pub(crate) tally: Tally,
}

#[derive(Debug, Default)]
struct Account {
    left: u64,
    removed: Option<RemovedAt>,
}

impl Amounts {
    pub(crate) fn add(&mut self, token: Token, amount: u64) {
        self.accounts.entry(token).or_default().left += amount;
        self.tally.provoked += amount;
    }

    /// What is left comes no more, but for what is in the hands of a thread.
    pub(crate) fn remove(&mut self, token: Token, at: RemovedAt) {
        let account = self.accounts.entry(token).or_default();
        account.removed = Some(at);
        self.tally.taken_back += account.left;
    }

    pub(crate) fn told(&mut self, token: Token, amount: u64, asked: AskedAt) {
        let account = self.accounts.get_mut(&token).expect("a registration that was made");
        account.left = account.left.checked_sub(amount).expect("no more is told than was added");
        self.tally.told += amount;
        if let Some(at) = account.removed {
            assert!(at.permits(asked), "an event after its registration was removed");
            self.tally.taken_back -= amount;
        }
    }
}
