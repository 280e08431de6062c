//! Timers by deadline: a hierarchical timing wheel, sorted for the present.
//!
//! Time is a number of nanoseconds that only grows. Eight levels of 128 slots; a slot of level 0
//! spans 2¹⁶ ns (65 us), one of the next level 64 times that, and the last level reaches to the end
//! of 64 bits. An armed timer has an entry in the lowest level that reaches its deadline. Entries lie
//! side by side in their slot and hold all that is asked on the way, so that a timer itself, which lies
//! anywhere in memory, is touched when it is armed and when it comes out, and not in between.
//!
//! For the same reason cancelling leaves the entry behind. It is dropped when it comes up, or by a
//! sweep that goes round the slots, a few entries for each timer that is cancelled, as long as one
//! entry in three is of a cancelled one.
//!
//! A slot says only roughly when its timers are due. A slot of level 0 whose time has come is
//! therefore opened: its timers are sorted, by deadline and then by the order of arming, and those that
//! are armed from then on go into a heap: what comes out is exact to the nanosecond and in order.
//! Slots are opened one after the other, as their timers are taken, so 65 us of timers are sorted at
//! a time also when a program comes late.
//!
//! Opening a far slot moves all of its timers down. With a million timers that would be a stall of
//! milliseconds, so it is done ahead, a few timers at a time: a level has twice as many slots as one
//! slot of the level above spans, so the slot *next* to the current one can be moved down at leisure
//! while time passes through the current one. A timer moves at most once through each level.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::table::Table;
use crate::token::Token;

const LEVELS: usize = 8;

/// A level's slots, one for each bit of its map.
const SLOTS: u64 = u128::BITS as u64;

/// How many bits of a deadline a slot of level 0 leaves open.
const GRAIN_BITS: u32 = 16;

/// A slot spans 2⁶ slots of the level below: half of [`SLOTS`].
const SPAN_BITS: u32 = 6;

/// For how many slots memory is kept: as many as one slot moves down to.
const SPARE: usize = 1 << SPAN_BITS;

/// How many timers are looked at, or moved ahead of time, in one go.
const STEP: usize = 64;

/// How many are moved ahead of time for each whose slot is opened, and how many are looked at for each
/// that is cancelled: enough for the cancelled ones to become fewer while a third of all are.
const STEP_PER_TIMER: usize = 4;

/// Timers with a `T` each.
pub(crate) struct Wheel<T> {
    timers: Table<Timer<T>>,
    levels: Box<[Level]>,
    /// Those whose slot of level 0 is opened: the last comes out first.
    near: Vec<Entry>,
    /// Those that were armed when their slot was opened already.
    late: BinaryHeap<Entry>,
    /// Memory for slots that get their first entry.
    spare: Vec<Vec<Entry>>,
    /// How many entries are in the slots.
    listed: usize,
    /// How many of these are of cancelled timers, and how many of those in `near` and `late`.
    cancelled: usize,
    cancelled_near: usize,
    /// Where the sweep goes on: a slot, counted through all levels, and an entry in it.
    sweep: (usize, usize),
    /// What time it is.
    now: u64,
    /// How far the slots are opened, not beyond `now`. In every level, the slot in which this lies
    /// and those before it are empty.
    opened: u64,
    /// What [`next`](Wheel::next) said last, or earlier by what was armed since. No timer is due
    /// before.
    bound: u64,
    armed: usize,
    armings: u64,
}

struct Timer<T> {
    /// The last it had, if it is not armed.
    deadline: u64,
    is_armed: bool,
    value: T,
}

/// A timer that was armed, and maybe removed since: then its token finds nothing.
#[derive(PartialEq, Eq)]
struct Entry {
    deadline: u64,
    /// The number of this arming: orders equal deadlines.
    arming: u64,
    token: Token,
}

impl Entry {
    fn is_live<T>(&self, timers: &Table<Timer<T>>) -> bool {
        timers.get(self.token).is_some()
    }
}

/// The greatest is the one that comes out first.
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.deadline, other.arming).cmp(&(self.deadline, self.arming))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Level {
    /// Which slots have entries.
    occupied: u128,
    slots: [Vec<Entry>; SLOTS as usize],
}

impl Level {
    /// How many slots after `position` the next one with timers lies.
    fn distance_from(&self, position: u64) -> Option<u64> {
        let turned = self.occupied.rotate_right((position % SLOTS) as u32);
        (turned != 0).then(|| turned.trailing_zeros().into())
    }

    /// Takes all entries out of a slot, with their memory: the next to be as full may be any other.
    fn take_all(&mut self, slot: usize) -> Vec<Entry> {
        self.occupied &= !(1 << slot);
        std::mem::take(&mut self.slots[slot])
    }
}

/// Too many to be looked through, or moved, in one go.
fn is_crowded(slot: &[Entry]) -> bool {
    slot.len() > STEP
}

/// The number of the slot of `level` in which `time` lies, counted from time zero.
fn position(time: u64, level: usize) -> u64 {
    time >> (GRAIN_BITS + SPAN_BITS * level as u32)
}

/// The time at which the slot number `position` of `level` begins.
fn begin(position: u64, level: usize) -> u64 {
    position << (GRAIN_BITS + SPAN_BITS * level as u32)
}

/// The lowest level that reaches a deadline when slots are opened up to `opened`.
fn level_for(deadline: u64, opened: u64) -> usize {
    let reaches = |level| position(deadline, level) - position(opened, level) < SLOTS;
    // The last level reaches everything: it has 64 positions in all.
    (0..LEVELS - 1).find(|level| reaches(*level)).unwrap_or(LEVELS - 1)
}

impl<T: Copy> Wheel<T> {
    pub(crate) fn new() -> Wheel<T> {
        let level = |_| Level { occupied: 0, slots: [const { Vec::new() }; SLOTS as usize] };
        Wheel {
            timers: Table::new(),
            levels: (0..LEVELS).map(level).collect(),
            near: Vec::new(),
            late: BinaryHeap::new(),
            spare: Vec::new(),
            listed: 0,
            cancelled: 0,
            cancelled_near: 0,
            sweep: (0, 0),
            now: 0,
            opened: 0,
            bound: u64::MAX,
            armed: 0,
            armings: 0,
        }
    }

    /// How many timers stand, armed or not.
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    /// How far time has come.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Takes in a timer that is not armed yet.
    pub(crate) fn insert(&mut self, value: T) -> Token {
        self.timers.insert(Timer { deadline: 0, is_armed: false, value })
    }

    /// Takes in a timer and arms it. As [`insert`](Wheel::insert) and [`arm`](Wheel::arm), but looks for
    /// nothing that it has just written, and so need not wait for memory.
    #[inline]
    pub(crate) fn insert_armed(&mut self, value: T, deadline: u64) -> (Token, bool) {
        let token = self.timers.insert(Timer { deadline, is_armed: true, value });
        (token, self.list(token, deadline))
    }

    /// Every timer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.timers.iter().map(|(token, timer)| (token, &timer.value))
    }

    /// The timers that are not armed, each with the deadline that it had last.
    pub(crate) fn unarmed(&self) -> impl Iterator<Item = (Token, u64, &T)> {
        let unarmed = self.timers.iter().filter(|(_, timer)| !timer.is_armed);
        unarmed.map(|(token, timer)| (token, timer.deadline, &timer.value))
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.timers.get_mut(token).map(|timer| &mut timer.value)
    }

    /// Arms a timer that is not armed. Says whether [`next`](Wheel::next) may be earlier for it.
    pub(crate) fn arm(&mut self, token: Token, deadline: u64) -> bool {
        let Some(timer) = self.timers.get_mut(token) else { return false };
        debug_assert!(!timer.is_armed, "armed twice");
        (timer.deadline, timer.is_armed) = (deadline, true);
        self.list(token, deadline)
    }

    /// Makes the entry of a timer that was armed. Says whether [`next`](Wheel::next) may be earlier.
    fn list(&mut self, token: Token, deadline: u64) -> bool {
        if self.armed == 0 {
            self.bound = u64::MAX;
        }
        let entry = Entry { deadline, arming: self.armings, token };
        self.armings += 1;
        self.armed += 1;
        let before = self.bound;
        self.bound = self.bound.min(deadline);
        if self.is_near(deadline) {
            self.late.push(entry);
        } else {
            self.listed += 1;
            self.put(entry);
        }
        self.bound < before
    }

    /// Removes a timer, wherever it stands.
    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        let timer = self.timers.remove(token)?;
        if timer.is_armed {
            self.armed -= 1;
            if self.is_near(timer.deadline) {
                self.cancelled_near += 1;
                self.sweep_near();
            } else {
                self.cancelled += 1;
                self.sweep();
            }
        }
        Some(timer.value)
    }

    /// Time has come to `now`: from now on [`due`](Wheel::due) has what is due by then. Also moves
    /// some timers down ahead of time.
    pub(crate) fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.move_ahead(STEP);
    }

    /// The first of the timers that are due.
    pub(crate) fn due(&mut self) -> Option<(Token, u64, T)> {
        loop {
            if let Some(first) = self.first_near() {
                return (first.1 <= self.now).then_some(first);
            }
            if self.opened == self.now {
                return None;
            }
            self.open_to(self.next_begin().min(self.now));
        }
    }

    /// Disarms the timer that [`due`](Wheel::due) named. It still stands.
    pub(crate) fn take_due(&mut self) {
        let Some(entry) = self.pop_near() else { return };
        if let Some(timer) = self.timers.get_mut(entry.token) {
            timer.is_armed = false;
            self.armed -= 1;
        }
    }

    /// When to look again if nothing is [`due`](Wheel::due), `None` for never: at the first deadline,
    /// or earlier where a crowded slot is to be moved down before that.
    pub(crate) fn next(&mut self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        if let Some((_, deadline, _)) = self.first_near() {
            // What is near comes before all that is in slots.
            self.bound = deadline;
        } else if self.bound <= self.now {
            self.bound = (0..LEVELS).fold(u64::MAX, |soonest, level| self.soonest(level, soonest));
        }
        Some(self.bound)
    }

    /// The earliest deadline in `level`, or the time to move its next slot down if that is crowded;
    /// `before` if that is earlier.
    fn soonest(&self, level: usize, before: u64) -> u64 {
        let here = position(self.opened, level);
        let Some(distance) = self.levels[level].distance_from(here) else { return before };
        let there = here + distance;
        let slot = &self.levels[level].slots[(there % SLOTS) as usize];
        if is_crowded(slot) {
            return before.min(self.time_to_open(level, there));
        }
        // The deadline of a cancelled one is not before the slot's time, which is good enough.
        slot.iter().fold(before, |soonest, entry| soonest.min(entry.deadline))
    }

    /// When to begin with moving down the crowded slot number `there` of `level`: as soon as it is
    /// the next one, so now if it is. A slot of level 0 is opened when it is reached.
    fn time_to_open(&self, level: usize, there: u64) -> u64 {
        if level == 0 { begin(there, level) } else { begin(there - 1, level).max(self.now) }
    }

    /// When the next slot with timers begins, of whatever level.
    fn next_begin(&self) -> u64 {
        let begins = self.levels.iter().enumerate().filter_map(|(number, level)| {
            let here = position(self.opened, number);
            Some(begin(here + level.distance_from(here)?, number))
        });
        begins.min().unwrap_or(u64::MAX)
    }

    /// Opens the slots in which `time` lies and those before.
    fn open_to(&mut self, time: u64) {
        let opened = std::mem::replace(&mut self.opened, time);
        // From below: what comes down from a level finds those under it swept already.
        for level in 0..LEVELS {
            let (from, to) = (position(opened, level), position(time, level));
            if from == to {
                break;
            }
            self.open_slots(level, from, to);
        }
        self.near.sort_unstable();
        self.move_ahead(STEP_PER_TIMER * self.near.len());
    }

    /// Empties the slots of `level` after number `from`, up to and with number `to`.
    fn open_slots(&mut self, level: usize, from: u64, to: u64) {
        while let Some(distance) = self.levels[level].distance_from(from) {
            if distance > to - from {
                break;
            }
            let mut entries = self.levels[level].take_all(((from + distance) % SLOTS) as usize);
            // All of them now, so that the memory of many timers is fetched at a time; it is there when
            // they come out.
            let before = entries.len();
            entries.retain(|entry| entry.is_live(&self.timers));
            self.cancelled -= before - entries.len();
            self.listed -= before;
            if level == 0 && self.near.is_empty() {
                // All of them are near, and none is in their way.
                std::mem::swap(&mut self.near, &mut entries);
            }
            for entry in entries.drain(..) {
                if self.is_near(entry.deadline) {
                    self.near.push(entry);
                } else {
                    self.listed += 1;
                    self.put(entry);
                }
            }
            self.keep_memory(entries);
        }
    }

    /// Moves up to `count` timers down from the slots that come next, the soonest first.
    fn move_ahead(&mut self, mut count: usize) {
        for number in 1..LEVELS {
            let slot = ((position(self.opened, number) + 1) % SLOTS) as usize;
            let mut entries = self.levels[number].take_all(slot);
            let left = entries.len().saturating_sub(count);
            count -= entries.len() - left;
            // They go to lower levels: those reach all of this slot.
            entries.drain(left..).for_each(|entry| self.put(entry));
            if left == 0 {
                self.keep_memory(entries);
            } else {
                let level = &mut self.levels[number];
                (level.slots[slot], level.occupied) = (entries, level.occupied | 1 << slot);
                return;
            }
        }
    }

    /// Keeps the memory of an emptied slot for one that gets its first timer, if it is of a usual size.
    fn keep_memory(&mut self, slot: Vec<Entry>) {
        if slot.capacity() <= 2 * STEP && self.spare.len() < SPARE {
            self.spare.push(slot);
        }
    }

    /// Whether the slot for `deadline` is opened, so that it is not in a slot.
    fn is_near(&self, deadline: u64) -> bool {
        position(deadline, 0) <= position(self.opened, 0)
    }

    /// Puts an entry that is not near into the slot where it belongs by now.
    #[inline]
    fn put(&mut self, entry: Entry) {
        let level = level_for(entry.deadline, self.opened);
        let there = position(entry.deadline, level);
        let slot = &mut self.levels[level].slots[(there % SLOTS) as usize];
        if slot.capacity() == 0 {
            *slot = self.spare.pop().unwrap_or_default();
        }
        slot.push(entry);
        let crowded = is_crowded(slot);
        self.levels[level].occupied |= 1 << (there % SLOTS);
        if crowded {
            self.bound = self.bound.min(self.time_to_open(level, there));
        }
    }

    /// The first of those near; drops what was cancelled before it.
    fn first_near(&mut self) -> Option<(Token, u64, T)> {
        loop {
            let Entry { deadline, token, .. } = *self.peek_near()?;
            if let Some(timer) = self.timers.get(token) {
                return Some((token, deadline, timer.value));
            }
            self.pop_near();
            self.cancelled_near -= 1;
        }
    }

    fn peek_near(&self) -> Option<&Entry> {
        if self.is_late_first() { self.late.peek() } else { self.near.last() }
    }

    fn pop_near(&mut self) -> Option<Entry> {
        if self.is_late_first() { self.late.pop() } else { self.near.pop() }
    }

    /// Whether the next to come out was armed late. Few are.
    fn is_late_first(&self) -> bool {
        !self.late.is_empty() && self.late.peek() > self.near.last()
    }

    /// Drops the cancelled ones of those near when they are the majority. Each such sweep is paid for by
    /// the cancellations since the last.
    fn sweep_near(&mut self) {
        if self.cancelled_near > STEP + (self.near.len() + self.late.len()) / 2 {
            let timers = &self.timers;
            self.near.retain(|entry| entry.is_live(timers));
            self.late.retain(|entry| entry.is_live(timers));
            self.cancelled_near = 0;
        }
    }

    /// Goes on through the slots, and drops the cancelled ones it finds, while there are many.
    fn sweep(&mut self) {
        for _ in 0..STEP_PER_TIMER {
            if self.cancelled <= STEP + self.listed / 3 {
                break;
            }
            let (slot, index) = self.sweep;
            let (level, slot) = (&mut self.levels[slot / SLOTS as usize], slot % SLOTS as usize);
            match level.slots[slot].get(index) {
                Some(entry) if entry.is_live(&self.timers) => self.sweep.1 += 1,
                Some(_) => {
                    let entries = &mut level.slots[slot];
                    entries.swap_remove(index);
                    if entries.is_empty() {
                        level.take_all(slot);
                    } else if entries.len() < entries.capacity() / 4 {
                        entries.shrink_to(2 * entries.len());
                    }
                    self.listed -= 1;
                    self.cancelled -= 1;
                }
                None => self.sweep = ((self.sweep.0 + 1) % (LEVELS * SLOTS as usize), 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u64),
        /// That many timers at about the same time: a crowd.
        Crowd(u64, u16),
        Cancel(prop::sample::Index),
        Advance(u64),
        /// To where the wheel itself wants to be looked at.
        AdvanceToNext,
        Take(u8),
    }

    /// Gaps of every magnitude, from nanoseconds to centuries.
    fn gap() -> impl Strategy<Value = u64> {
        (0_u32..64, any::<u64>()).prop_map(|(bits, n)| n >> bits)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => gap().prop_map(Step::Arm),
            1 => (gap(), 1_u16..300).prop_map(|(gap, count)| Step::Crowd(gap, count)),
            3 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            2 => (0_u32..40).prop_map(|bits| Step::Advance(1 << bits)),
            1 => gap().prop_map(Step::Advance),
            4 => Just(Step::AdvanceToNext),
            4 => any::<u8>().prop_map(Step::Take),
        ]
    }

    /// The wheel next to what it should be: a map in the order in which timers come out.
    struct Pair {
        wheel: Wheel<u64>,
        model: BTreeMap<(u64, u64), Token>,
        count: u64,
        now: u64,
    }

    impl Pair {
        fn new() -> Pair {
            Pair { wheel: Wheel::new(), model: BTreeMap::new(), count: 0, now: 0 }
        }

        fn arm(&mut self, deadline: u64) {
            let token = self.wheel.insert(self.count);
            self.wheel.arm(token, deadline);
            self.model.insert((deadline, self.count), token);
            self.count += 1;
        }

        fn advance(&mut self, now: u64) {
            self.now = self.now.max(now);
            self.wheel.advance(self.now);
        }

        fn cancel(&mut self, which: &prop::sample::Index) {
            if self.model.is_empty() {
                return;
            }
            let (deadline, number) = *self.model.keys().nth(which.index(self.model.len())).unwrap();
            let token = self.model.remove(&(deadline, number)).unwrap();
            assert_eq!(self.wheel.remove(token), Some(number));
            assert_eq!(self.wheel.remove(token), None, "cancelled twice");
        }

        /// Takes one timer out of both, if one is due.
        fn take(&mut self) -> bool {
            let due = self.wheel.due();
            let expected = self.model.first_key_value().map(|(k, token)| (*k, *token));
            match expected.filter(|((deadline, _), _)| *deadline <= self.now) {
                Some(((deadline, number), token)) => {
                    assert_eq!(due, Some((token, deadline, number)));
                    self.wheel.take_due();
                    assert_eq!(self.wheel.remove(token), Some(number));
                    self.model.pop_first();
                    true
                }
                None => {
                    assert_eq!(due, None, "fired early");
                    false
                }
            }
        }

        fn check(&mut self) {
            assert_eq!(self.wheel.armed, self.model.len());
            assert_eq!(self.wheel.len(), self.model.len());
            let slots = self.wheel.levels.iter().flat_map(|level| &level.slots);
            let near = self.wheel.near.len() + self.wheel.late.len();
            assert_eq!(self.wheel.listed, slots.map(Vec::len).sum());
            let cancelled = self.wheel.cancelled + self.wheel.cancelled_near;
            assert_eq!(self.wheel.listed + near - cancelled, self.wheel.armed);
            let due = self.wheel.due().is_some();
            let next = self.wheel.next();
            match self.model.first_key_value() {
                None => assert_eq!((due, next), (false, None)),
                Some(((deadline, _), _)) => {
                    assert_eq!(due, *deadline <= self.now);
                    assert!(due || next.unwrap() <= *deadline, "looks again too late");
                }
            }
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Arm(gap) => self.arm(self.now.saturating_add(*gap)),
                Step::Crowd(gap, count) => {
                    let around = self.now.saturating_add(*gap);
                    (0..u64::from(*count)).for_each(|n| self.arm(around.saturating_add(n / 2)));
                }
                Step::Cancel(which) => self.cancel(which),
                Step::Advance(gap) => self.advance(self.now.saturating_add(*gap)),
                Step::AdvanceToNext => {
                    let next = self.wheel.next();
                    self.advance(next.unwrap_or(self.now));
                }
                Step::Take(count) => {
                    let _ = (0..*count).all(|_| self.take());
                }
            }
            self.check();
        }
    }

    proptest! {
        /// Against the model: each timer comes out once, in order of deadline and then of arming,
        /// never before its time and never when cancelled; the wheel asks to be looked at in time.
        #[test]
        fn wheel_is_an_ordered_map(steps in prop::collection::vec(step(), 0..120)) {
            let mut pair = Pair::new();
            steps.iter().for_each(|step| pair.step(step));
            pair.advance(u64::MAX);
            while pair.take() {}
            pair.check();
            prop_assert_eq!(pair.model.len(), 0);
        }
    }

    #[test]
    fn lone_timer_is_known_to_the_nanosecond_however_far() {
        for bits in 0..64 {
            let deadline = 1_u64 << bits | 1;
            let mut wheel = Wheel::new();
            let token = wheel.insert(());
            wheel.arm(token, deadline);
            assert_eq!(wheel.next(), Some(deadline));
            wheel.advance(deadline - 1);
            assert!(wheel.due().is_none());
            wheel.advance(deadline);
            assert!(wheel.due().is_some());
        }
    }

    #[test]
    fn crowded_slot_is_moved_down_before_its_time() {
        const SECOND: u64 = 1_000_000_000;
        let mut wheel = Wheel::new();
        for n in 0..50_000 {
            let token = wheel.insert(());
            wheel.arm(token, 10 * SECOND + n * 10_000);
        }
        let mut looks = 0;
        while let Some(next) = wheel.next().filter(|next| *next < 10 * SECOND) {
            wheel.advance(next);
            assert!(wheel.due().is_none());
            looks += 1;
        }
        assert!(looks > 40_000 / STEP, "moved down in {looks} looks");
        assert!(looks < 2 * 50_000 / STEP, "{looks} looks for nothing");
        for level in 1..LEVELS {
            let next = (position(wheel.opened, level) + 1) % SLOTS;
            assert!(!is_crowded(&wheel.levels[level].slots[next as usize]), "level {level}");
        }
    }

    #[test]
    fn cancelled_near_timers_do_not_pile_up() {
        let mut wheel = Wheel::new();
        for _ in 0..100_000 {
            let token = wheel.insert(());
            wheel.arm(token, 1);
            wheel.remove(token);
        }
        let kept = wheel.near.len() + wheel.late.len();
        assert!(kept < 1000, "{kept} cancelled timers are kept");
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn cancelled_timers_in_slots_do_not_pile_up() {
        let mut wheel = Wheel::new();
        let arm = |wheel: &mut Wheel<()>, n: u64| {
            wheel.insert_armed((), (1 << 40) + n * 1_000_003 % (1 << 36)).0
        };
        let mut standing: Vec<_> = (0..1000).map(|n| arm(&mut wheel, n)).collect();
        for n in 0..100_000 {
            let place = n as usize % standing.len();
            let cancelled = std::mem::replace(&mut standing[place], arm(&mut wheel, n));
            wheel.remove(cancelled);
            assert!(wheel.listed < 3000, "{} entries for 1000 timers", wheel.listed);
        }
        let slots = wheel.levels.iter().flat_map(|level| &level.slots);
        let memory: usize = slots.map(Vec::capacity).sum();
        assert!(memory < 12_000, "room for {memory} entries");
    }
}
