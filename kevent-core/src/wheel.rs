//! Timers by deadline: a hierarchical timing wheel with a heap for the present.
//!
//! Time is a number of nanoseconds that only grows. Eight levels of 128 slots; a slot of level 0
//! spans 2¹⁶ ns (65 us), one of the next level 64 times that, and the last level reaches to the end
//! of 64 bits. A timer stands in the lowest level that reaches its deadline, in a list through the
//! slab, so arming and cancelling touch a few words wherever the deadline lies.
//!
//! A slot says only roughly when its timers are due. A slot of level 0 whose time has come is
//! therefore opened: its timers go into a heap, by deadline and then by the order of arming:
//! what comes out is exact to the nanosecond and in order. Slots are opened one after the other, as
//! their timers are taken, so the heap holds 65 us of timers also when a program comes late.
//!
//! Opening a far slot moves all of its timers down. With a million timers that would be a stall of
//! milliseconds, so it is done ahead, a few timers at a time: a level has twice as many slots as one
//! slot of the level above spans, so the slot *next* to the current one can be moved down at leisure
//! while time passes through the current one. A timer moves at most once through each level.

use std::cmp::Reverse;
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

/// How many timers are looked at, or moved ahead of time, in one go.
const STEP: usize = 64;

/// How many are moved ahead of time for each timer that comes out.
const STEP_PER_TIMER: usize = 4;

/// The end of a list.
const NIL: u32 = u32::MAX;

/// Timers with a `T` each.
pub(crate) struct Wheel<T> {
    timers: Table<Timer<T>>,
    levels: [Level; LEVELS],
    /// The armed timers whose slot of level 0 is opened. Cancelled ones stay in it until
    /// they come up or are the majority.
    near: BinaryHeap<Reverse<Near>>,
    cancelled_near: usize,
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
    deadline: u64,
    /// The number of this arming: orders equal deadlines, and tells a timer from a cancelled one.
    arming: u64,
    place: Place,
    previous: u32,
    next: u32,
    value: T,
}

/// Where a timer stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not armed.
    Out,
    Near,
    Slot {
        level: u8,
        slot: u8,
    },
}

/// The order of the fields is the order in which timers come out.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Near {
    deadline: u64,
    arming: u64,
    token: Token,
}

struct Level {
    /// Which slots hold timers.
    occupied: u128,
    slots: [Slot; SLOTS as usize],
}

/// A list of timers.
#[derive(Clone, Copy)]
struct Slot {
    first: u32,
    count: u32,
}

impl Slot {
    const EMPTY: Slot = Slot { first: NIL, count: 0 };

    /// Too many to be looked through, or moved, in one go.
    fn is_crowded(self) -> bool {
        self.count as usize > STEP
    }
}

impl Level {
    /// How many slots after `position` the next one with timers lies.
    fn distance_from(&self, position: u64) -> Option<u64> {
        let turned = self.occupied.rotate_right((position % SLOTS) as u32);
        (turned != 0).then(|| turned.trailing_zeros().into())
    }
}

/// The number of the slot of `level` in which `time` lies, counted from time zero.
fn position(time: u64, level: usize) -> u64 {
    time >> (GRAIN_BITS + SPAN_BITS * level as u32)
}

/// The time at which the slot number `position` of `level` begins.
fn begin(position: u64, level: usize) -> u64 {
    position << (GRAIN_BITS + SPAN_BITS * level as u32)
}

/// Where a timer belongs when slots are opened up to `opened`: the lowest level that reaches it.
fn place_for(deadline: u64, opened: u64) -> Place {
    if position(deadline, 0) <= position(opened, 0) {
        return Place::Near;
    }
    let reaches = |level| position(deadline, level) - position(opened, level) < SLOTS;
    // The last level reaches everything: it has 64 positions in all.
    let level = (0..LEVELS - 1).find(|level| reaches(*level)).unwrap_or(LEVELS - 1);
    Place::Slot { level: level as u8, slot: (position(deadline, level) % SLOTS) as u8 }
}

impl<T: Copy> Wheel<T> {
    pub(crate) fn new() -> Wheel<T> {
        Wheel {
            timers: Table::new(),
            levels: std::array::from_fn(|_| Level {
                occupied: 0,
                slots: [Slot::EMPTY; SLOTS as usize],
            }),
            near: BinaryHeap::new(),
            cancelled_near: 0,
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
        let (deadline, arming) = (0, 0);
        self.timers.insert(Timer {
            deadline,
            arming,
            place: Place::Out,
            previous: NIL,
            next: NIL,
            value,
        })
    }

    /// Every timer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.timers.iter().map(|(token, timer)| (token, &timer.value))
    }

    /// The timers that are not armed, each with the deadline that it had last.
    pub(crate) fn unarmed(&self) -> impl Iterator<Item = (Token, u64, &T)> {
        let unarmed = self.timers.iter().filter(|(_, timer)| timer.place == Place::Out);
        unarmed.map(|(token, timer)| (token, timer.deadline, &timer.value))
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.timers.get_mut(token).map(|timer| &mut timer.value)
    }

    /// Arms a timer that is not armed. Says whether [`next`](Wheel::next) may be earlier for it.
    pub(crate) fn arm(&mut self, token: Token, deadline: u64) -> bool {
        let Some(timer) = self.timers.get_mut(token) else { return false };
        debug_assert!(timer.place == Place::Out, "armed twice");
        timer.deadline = deadline;
        timer.arming = self.armings;
        self.armings += 1;
        if self.armed == 0 {
            self.bound = u64::MAX;
        }
        self.armed += 1;
        let before = self.bound;
        self.bound = self.bound.min(deadline);
        self.put(token);
        self.bound < before
    }

    /// Removes a timer, wherever it stands.
    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        match self.timers.get(token)?.place {
            Place::Out => {}
            Place::Near => {
                self.armed -= 1;
                self.cancelled_near += 1;
            }
            Place::Slot { level, slot } => {
                self.armed -= 1;
                self.unlink(token, level.into(), slot.into());
            }
        }
        let timer = self.timers.remove(token)?;
        // Each sweep is paid for by the cancellations since the last.
        if self.cancelled_near > STEP + self.near.len() / 2 {
            let timers = &self.timers;
            self.near.retain(|Reverse(near)| near.is_live(timers));
            self.cancelled_near = 0;
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
            self.forget_cancelled();
            if let Some(Reverse(Near { deadline, token, .. })) = self.near.peek() {
                let timer = self.timers.get(*token)?;
                return (*deadline <= self.now).then_some((*token, *deadline, timer.value));
            }
            if self.opened == self.now {
                return None;
            }
            self.open_to(self.next_begin().min(self.now));
        }
    }

    /// Disarms the timer that [`due`](Wheel::due) named. It still stands.
    pub(crate) fn take_due(&mut self) {
        let Some(Reverse(near)) = self.near.pop() else { return };
        if let Some(timer) = self.timers.get_mut(near.token) {
            timer.place = Place::Out;
            self.armed -= 1;
        }
        self.move_ahead(STEP_PER_TIMER);
    }

    /// When to look again if nothing is [`due`](Wheel::due), `None` for never: at the first deadline,
    /// or earlier where a crowded slot is to be moved down before that.
    pub(crate) fn next(&mut self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        self.forget_cancelled();
        if let Some(Reverse(near)) = self.near.peek() {
            // What is in the heap comes before all that is in slots.
            self.bound = near.deadline;
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
        let slot = self.levels[level].slots[(there % SLOTS) as usize];
        if slot.is_crowded() {
            return before.min(self.time_to_open(level, there));
        }
        let (mut soonest, mut next) = (before, slot.first);
        while let Some((_, timer)) = self.timers.in_slot(next) {
            soonest = soonest.min(timer.deadline);
            next = timer.next;
        }
        soonest
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
    }

    /// Empties the slots of `level` after number `from`, up to and with number `to`.
    fn open_slots(&mut self, level: usize, from: u64, to: u64) {
        while let Some(distance) = self.levels[level].distance_from(from) {
            if distance > to - from {
                break;
            }
            let slot = ((from + distance) % SLOTS) as usize;
            while let Some(token) = self.unlink_first(level, slot) {
                self.put(token);
            }
        }
    }

    /// Moves up to `count` timers down from the slots that come next, the soonest first.
    fn move_ahead(&mut self, mut count: usize) {
        for level in 1..LEVELS {
            let slot = ((position(self.opened, level) + 1) % SLOTS) as usize;
            while self.levels[level].occupied >> slot & 1 == 1 {
                if count == 0 {
                    return;
                }
                count -= 1;
                if let Some(token) = self.unlink_first(level, slot) {
                    self.put(token);
                }
            }
        }
    }

    /// Puts an armed timer where it belongs by now.
    fn put(&mut self, token: Token) {
        let Some(timer) = self.timers.get_mut(token) else { return };
        timer.place = place_for(timer.deadline, self.opened);
        match timer.place {
            Place::Slot { level, slot } => self.link(token, level.into(), slot.into()),
            _ => {
                let (deadline, arming) = (timer.deadline, timer.arming);
                self.near.push(Reverse(Near { deadline, arming, token }));
            }
        }
    }

    fn link(&mut self, token: Token, level: usize, index: usize) {
        let slot = &mut self.levels[level].slots[index];
        let next = std::mem::replace(&mut slot.first, token.slot());
        slot.count += 1;
        let crowded = slot.is_crowded();
        self.levels[level].occupied |= 1 << index;
        let Some(timer) = self.timers.get_mut(token) else { return };
        (timer.previous, timer.next) = (NIL, next);
        if crowded {
            let there = position(timer.deadline, level);
            self.bound = self.bound.min(self.time_to_open(level, there));
        }
        if let Some(timer) = self.timers.in_slot_mut(next) {
            timer.previous = token.slot();
        }
    }

    fn unlink_first(&mut self, level: usize, index: usize) -> Option<Token> {
        let (token, _) = self.timers.in_slot(self.levels[level].slots[index].first)?;
        self.unlink(token, level, index);
        Some(token)
    }

    fn unlink(&mut self, token: Token, level: usize, index: usize) {
        let Some(timer) = self.timers.get(token) else { return };
        let (previous, next) = (timer.previous, timer.next);
        let slot = &mut self.levels[level].slots[index];
        slot.count -= 1;
        if slot.count == 0 {
            self.levels[level].occupied &= !(1 << index);
        }
        match self.timers.in_slot_mut(previous) {
            Some(timer) => timer.next = next,
            None => self.levels[level].slots[index].first = next,
        }
        if let Some(timer) = self.timers.in_slot_mut(next) {
            timer.previous = previous;
        }
    }

    /// Drops what was cancelled from the top of the heap.
    fn forget_cancelled(&mut self) {
        while let Some(Reverse(near)) = self.near.peek() {
            if near.is_live(&self.timers) {
                break;
            }
            self.near.pop();
            self.cancelled_near = self.cancelled_near.saturating_sub(1);
        }
    }
}

impl Near {
    fn is_live<T>(&self, timers: &Table<Timer<T>>) -> bool {
        timers.get(self.token).is_some_and(|timer| timer.arming == self.arming)
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
            assert!(!wheel.levels[level].slots[next as usize].is_crowded(), "level {level}");
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
        assert!(wheel.near.len() < 1000, "{} cancelled timers are kept", wheel.near.len());
        assert_eq!(wheel.next(), None);
    }
}
