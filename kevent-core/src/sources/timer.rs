//! Timers: relative, absolute, periodic, and by the wall clock.
//!
//! Any number of them cost no descriptor and no system call: they stand in a [`Wheel`], and the
//! queue sleeps until the first is due. Only the wall clock, which can be set, is the kernel's to
//! watch: one [`WallTimer`] stands for all wall timers, armed to the first. When the wall clock gets there
//! the timer goes into the wheel as due, so that all timers come out of one place in one order.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use crate::changes::Changes;
use crate::poll::{Interest, PollKey, PollSet, Ready, Trigger};
use crate::sink::Sink;
use crate::source::{Due, Source};
use crate::sys::timerfd::Expiry;
use crate::token::Token;
use crate::wall::{WallTimer, since_epoch};
use crate::wheel::Wheel;

/// A source of timers.
///
/// A timer never fires early, and late by no more than the kernel's timer slack and the program's
/// own business. Timers come out in the order of their deadlines, those of one deadline in the order
/// in which they were armed. Arming and cancelling take constant time, also with a million of them.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Queue, Timers};
///
/// let mut queue = Queue::new()?;
/// let timers = queue.attach(Timers::new(), |event| event)?;
/// let first = queue[timers].after(Duration::from_millis(1), 1);
/// queue[timers].after(Duration::from_millis(2), 2);
/// assert!(queue[timers].cancel(first));
///
/// queue.wait(None)?;
/// assert_eq!(queue.next().map(|event| event.key), Some(2));
/// # std::io::Result::Ok(())
/// ```
///
/// When the source is detached and attached to another queue, its timers go on there. One whose event
/// was in the ring of the first queue fires in the second.
pub struct Timers {
    wheel: Wheel<Timer>,
    /// The wheel's time zero.
    start: Instant,
    was_attached: bool,
    wall: WallClock,
    poll_set: Option<PollSet>,
}

/// A timer has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimerEvent {
    /// Which timer.
    pub token: Token,
    /// The number that it was armed with, the user's own.
    pub key: u64,
    /// What happened.
    pub kind: TimerKind,
    /// When it was due. Of a periodic timer, the first tick that this event stands for; of a clock
    /// step, when it was seen.
    pub deadline: Instant,
    /// How many more ticks of a periodic timer had passed when this event was made; 0 for others.
    pub missed: u64,
}

impl TimerEvent {
    /// One that no timer told, for tests: see [`testing::Sim::inject`](crate::testing::Sim::inject). It
    /// fired, and missed nothing.
    #[must_use]
    pub fn for_test(key: u64, deadline: Instant) -> TimerEvent {
        TimerEvent { token: Token::SOLE, key, kind: TimerKind::Fired, deadline, missed: 0 }
    }
}

/// What a [`TimerEvent`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimerKind {
    /// The time has come. A timer that is not periodic is gone with this.
    Fired,
    /// The wall clock was set, or the machine slept, while this [wall timer](Timers::at_wall)
    /// stood. It stands on, and fires when the clock as it is now gets there.
    ClockStepped,
}

/// A change to [`Timers`], for [`Queue::change`](crate::Queue::change).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimerChange {
    /// [`Timers::after`].
    After(Duration, u64),
    /// [`Timers::at`].
    At(Instant, u64),
    /// [`Timers::every`].
    Every(Duration, u64),
    /// [`Timers::at_wall`].
    AtWall(SystemTime, u64),
    /// [`Timers::cancel`]. `NotFound` if there is none of that token.
    Cancel(Token),
}

/// Each change gives back the token of the timer.
impl Changes for Timers {
    type Change<'c> = TimerChange;
    type Done = Token;

    fn change(&mut self, change: TimerChange) -> io::Result<Token> {
        Ok(match change {
            TimerChange::After(delay, key) => self.after(delay, key),
            TimerChange::At(deadline, key) => self.at(deadline, key),
            TimerChange::Every(period, key) => self.every(period, key),
            TimerChange::AtWall(time, key) => self.at_wall(time, key)?,
            TimerChange::Cancel(token) if self.cancel(token) => token,
            TimerChange::Cancel(_) => {
                let text = "no such timer: it has fired and was taken, or was cancelled before";
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
        })
    }
}

#[derive(Clone, Copy)]
struct Timer {
    key: u64,
    schedule: Schedule,
}

#[derive(Clone, Copy)]
enum Schedule {
    Once,
    /// Nanoseconds between two ticks, and the tick after those that the last event stands for.
    Every {
        period: u64,
        next: u64,
    },
    /// A time since the epoch, and whether what comes next is that the clock was set.
    Wall {
        at: Duration,
        stepped: bool,
    },
}

/// The timers that wait for the wall clock, and the kernel's timer for the first of them.
#[derive(Default)]
struct WallClock {
    waiting: BTreeSet<(Duration, Token)>,
    /// Made when first needed.
    timer: Option<WallTimer>,
    set_to: Option<Duration>,
    /// The poll set says that `timer` has something to tell.
    ready: bool,
}

impl Timers {
    /// A source without timers. It takes no descriptor until a [wall timer](Timers::at_wall) is
    /// armed.
    #[must_use]
    pub fn new() -> Timers {
        Timers {
            wheel: Wheel::new(),
            start: Instant::now(),
            was_attached: false,
            wall: WallClock::default(),
            poll_set: None,
        }
    }

    /// Arms a timer that fires once, `delay` from now. Its event carries `key`.
    ///
    /// A delay beyond the clock's range (584 years) never passes.
    pub fn after(&mut self, delay: Duration, key: u64) -> Token {
        let deadline = self.now().saturating_add(nanoseconds(delay));
        self.arm_new(deadline, Timer { key, schedule: Schedule::Once })
    }

    /// Arms a timer that fires once, at `deadline`; at once if that has passed.
    pub fn at(&mut self, deadline: Instant, key: u64) -> Token {
        let deadline = self.since_start(deadline);
        self.arm_new(deadline, Timer { key, schedule: Schedule::Once })
    }

    /// Arms a timer that fires every `period`, first one `period` from now, until it is cancelled.
    ///
    /// Every tick is a multiple of `period` after this call, however late one of them is served. At
    /// most one event of it is on its way at a time: ticks that pass meanwhile are counted in
    /// [`TimerEvent::missed`], and each tick is counted in exactly one event. A `period` of zero
    /// counts as one nanosecond.
    pub fn every(&mut self, period: Duration, key: u64) -> Token {
        let period = nanoseconds(period).max(1);
        let next = self.now().saturating_add(period);
        self.arm_new(next, Timer { key, schedule: Schedule::Every { period, next } })
    }

    /// Arms a timer that fires once, when the wall clock shows `time`; at once if it is past that.
    ///
    /// The timer follows the clock: when the clock is set, the timer fires when the clock as it is
    /// then shows `time`. Each such step is told to each standing wall timer, by an event of the
    /// kind [`TimerKind::ClockStepped`]; a timer counts on once that event was taken.
    ///
    /// # Errors
    ///
    /// When the process may open no more descriptors: the first wall timer of an attached source
    /// takes one.
    ///
    /// Source: `TFD_TIMER_CANCEL_ON_SET` in timerfd_create(2).
    pub fn at_wall(&mut self, time: SystemTime, key: u64) -> io::Result<Token> {
        self.watch_wall_clock()?;
        let at = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let token =
            self.wheel.insert(Timer { key, schedule: Schedule::Wall { at, stepped: false } });
        self.wait_for_wall_clock(at, token);
        Ok(token)
    }

    /// Cancels a timer. `false` when there is none of that token: it has fired and its event was
    /// taken, or it was cancelled before.
    ///
    /// No event of it comes out any more, not even one that is in the queue's ring.
    pub fn cancel(&mut self, token: Token) -> bool {
        let Some(timer) = self.wheel.remove(token) else { return false };
        if let Schedule::Wall { at, .. } = timer.schedule {
            self.wall.waiting.remove(&(at, token));
        }
        true
    }

    /// How many timers stand: armed, or fired and their event not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether no timer stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Not the time of the queue's turn: that may have begun long ago.
    fn now(&self) -> u64 {
        let now = self.poll_set.as_ref().map_or_else(Instant::now, |set| set.clock().now());
        self.since_start(now)
    }

    fn since_start(&self, instant: Instant) -> u64 {
        nanoseconds(instant.saturating_duration_since(self.start))
    }

    fn instant(&self, time: u64) -> Instant {
        self.start + Duration::from_nanos(time)
    }

    #[inline]
    fn arm_new(&mut self, deadline: u64, timer: Timer) -> Token {
        let (token, is_earlier) = self.wheel.insert_armed(timer, deadline);
        if is_earlier {
            self.tell_queue();
        }
        token
    }

    fn arm(&mut self, token: Token, deadline: u64) {
        if self.wheel.arm(token, deadline) {
            self.tell_queue();
        }
    }

    /// Lets the queue ask again when something is due.
    fn tell_queue(&self) {
        if let Some(poll_set) = &self.poll_set {
            poll_set.waker().changed();
        }
    }

    fn schedule_mut(&mut self, token: Token) -> Option<&mut Schedule> {
        self.wheel.get_mut(token).map(|timer| &mut timer.schedule)
    }

    /// The event of a timer that is due.
    fn event(&self, token: Token, deadline: u64, timer: Timer) -> TimerEvent {
        let (kind, missed) = match timer.schedule {
            Schedule::Wall { stepped: true, .. } => (TimerKind::ClockStepped, 0),
            Schedule::Every { period, .. } => {
                (TimerKind::Fired, ticks_since(deadline, period, self.wheel.now()))
            }
            Schedule::Once | Schedule::Wall { .. } => (TimerKind::Fired, 0),
        };
        TimerEvent { token, key: timer.key, kind, deadline: self.instant(deadline), missed }
    }
}

/// The wall clock's part.
impl Timers {
    /// Makes the kernel's timer, if there is none yet and a queue to wait for it.
    fn watch_wall_clock(&mut self) -> io::Result<()> {
        if let (None, Some(poll_set)) = (&self.wall.timer, &self.poll_set) {
            let timer = WallTimer::new(poll_set.clock())?;
            if let Some(fd) = timer.fd() {
                poll_set.add(fd, PollKey::default(), Interest::READABLE, Trigger::Edge)?;
            }
            self.wall.timer = Some(timer);
        }
        Ok(())
    }

    fn wait_for_wall_clock(&mut self, at: Duration, token: Token) {
        self.wall.waiting.insert((at, token));
        // The kernel's timer is set in `flush`.
        self.tell_queue();
    }

    /// Hears what the kernel's timer has to tell, and sets it to the first of those that wait.
    fn ask_wall_clock(&mut self, now: u64) -> io::Result<()> {
        let Some(timer) = &mut self.wall.timer else { return Ok(()) };
        if std::mem::take(&mut self.wall.ready) || timer.fd().is_none() {
            match timer.read()? {
                Expiry::Pending => {}
                Expiry::Expired => self.wall_clock_reached(now),
                Expiry::ClockStepped => self.wall_clock_stepped(now),
            }
        }
        self.set_wall_clock(now)
    }

    fn set_wall_clock(&mut self, now: u64) -> io::Result<()> {
        let first = self.wall.waiting.first().map(|(at, _)| *at);
        let Some(timer) = self.wall.timer.as_mut().filter(|_| self.wall.set_to != first) else {
            return Ok(());
        };
        self.wall.set_to = first;
        match timer.set(first)? {
            Expiry::ClockStepped => {
                self.wall_clock_stepped(now);
                self.set_wall_clock(now)
            }
            Expiry::Pending | Expiry::Expired => Ok(()),
        }
    }

    /// Makes those due whose time the wall clock shows, each as late as it is.
    fn wall_clock_reached(&mut self, now: u64) {
        self.wall.set_to = None;
        let shown = self.poll_set.as_ref().map_or(Duration::ZERO, |set| since_epoch(set.clock()));
        while let Some((at, token)) = self.wall.waiting.first().copied() {
            let Some(late) = shown.checked_sub(at) else { break };
            self.wall.waiting.pop_first();
            self.arm(token, now.saturating_sub(nanoseconds(late)));
        }
    }

    /// Tells everyone who waits for the wall clock. They wait again once they have heard it.
    fn wall_clock_stepped(&mut self, now: u64) {
        self.wall.set_to = None;
        for (_, token) in std::mem::take(&mut self.wall.waiting) {
            if let Some(Schedule::Wall { stepped, .. }) = self.schedule_mut(token) {
                *stepped = true;
            }
            self.arm(token, now);
        }
    }
}

impl Source for Timers {
    type Item = TimerEvent;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        if !std::mem::replace(&mut self.was_attached, true) && poll_set.clock().is_simulated() {
            // What was armed before counts from here: no time has passed in that one's eyes.
            self.start = poll_set.clock().now();
        }
        self.poll_set = Some(poll_set.clone());
        // One that heard of a clock step waits for the clock only once that is delivered.
        let is_wall = |timer: &Timer| matches!(timer.schedule, Schedule::Wall { .. });
        if self.wheel.iter().any(|(_, timer)| is_wall(timer)) {
            self.watch_wall_clock()?;
        }
        Ok(())
    }

    fn ready(&mut self, _: PollKey, _: Ready) {
        self.wall.ready = true;
    }

    fn flush(&mut self) -> io::Result<Due> {
        if self.is_empty() && self.wall.set_to.is_none() && !self.wall.ready {
            return Ok(Due::OnWake);
        }
        let Some(poll_set) = &self.poll_set else { return Ok(Due::OnWake) };
        let now = self.since_start(poll_set.clock().turn());
        self.ask_wall_clock(now)?;
        self.wheel.advance(now);
        if self.wheel.due().is_some() {
            return Ok(Due::Now);
        }
        let next = self.wheel.next().map(|time| self.instant(time));
        let wall = self.wall.timer.as_ref().and_then(WallTimer::due);
        Ok(next.into_iter().chain(wall).min().map_or(Due::OnWake, Due::At))
    }

    fn drain(&mut self, sink: &mut impl Sink<TimerEvent>) -> io::Result<()> {
        while let Some((token, deadline, timer)) = self.wheel.due() {
            let event = self.event(token, deadline, timer);
            if sink.push(token, event).is_err() {
                break;
            }
            self.wheel.take_due();
            if let Schedule::Every { period, .. } = timer.schedule {
                let next = following_tick(deadline, period, event.missed);
                if let Some(schedule) = self.schedule_mut(token) {
                    *schedule = Schedule::Every { period, next };
                }
            }
        }
        Ok(())
    }

    fn oldest(&mut self) -> Option<Instant> {
        let (_, deadline, _) = self.wheel.due()?;
        Some(self.instant(deadline))
    }

    fn deliver(&mut self, token: Token) -> bool {
        let Some(schedule) = self.schedule_mut(token) else { return false };
        match schedule {
            Schedule::Every { next, .. } => {
                let next = *next;
                self.arm(token, next);
            }
            Schedule::Wall { at, stepped } if *stepped => {
                *stepped = false;
                let at = *at;
                self.wait_for_wall_clock(at, token);
            }
            Schedule::Once | Schedule::Wall { .. } => {
                self.wheel.remove(token);
            }
        }
        true
    }

    fn detach(&mut self) {
        // Another queue gets another one. Deleted before it is closed: a forked child may have it.
        if let (Some(poll_set), Some(timer)) = (self.poll_set.take(), self.wall.timer.take()) {
            if let Some(fd) = timer.fd() {
                let _ = poll_set.delete(fd);
            }
        }
        self.wall.set_to = None;
        self.wall.ready = false;
        // The events in the queue's ring are lost, and their ticks with them: they are due again.
        let waits = |token, timer: &Timer| match timer.schedule {
            Schedule::Wall { at, .. } => self.wall.waiting.contains(&(at, token)),
            _ => false,
        };
        let unarmed = self.wheel.unarmed().filter(|(token, _, timer)| !waits(*token, timer));
        let in_ring: Vec<_> = unarmed.map(|(token, deadline, _)| (token, deadline)).collect();
        for (token, deadline) in in_ring {
            self.wheel.arm(token, deadline);
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Timers::new()
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("len", &self.len())
            .field("wall", &self.wall.waiting.len())
            .finish_non_exhaustive()
    }
}

/// In nanoseconds; what 64 bits can't hold is 584 years away, and never comes.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How many ticks came after the one at `tick`, up to `now`.
fn ticks_since(tick: u64, period: u64, now: u64) -> u64 {
    now.saturating_sub(tick) / period
}

/// The tick after the one at `tick` and `missed` more.
fn following_tick(tick: u64, period: u64, missed: u64) -> u64 {
    missed.saturating_add(1).saturating_mul(period).saturating_add(tick)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;
    use proptest::prelude::*;

    #[test]
    fn step_that_was_in_the_ring_at_detaching_is_told_and_the_timer_fires_in_the_next_queue() {
        let mut queue = Queue::new().unwrap();
        let id = queue.attach(Timers::new(), |event| event.kind).unwrap();
        let soon = SystemTime::now() + Duration::from_millis(5);
        queue[id].at_wall(soon, 1).unwrap();
        let now = queue[id].now();
        queue[id].wall_clock_stepped(now);
        assert_eq!(queue.wait(None).unwrap(), 1);
        let source = queue.detach(id).unwrap();
        let mut other = Queue::new().unwrap();
        other.attach(source, |event| event.kind).unwrap();
        for expected in [TimerKind::ClockStepped, TimerKind::Fired] {
            other.wait(Duration::from_secs(20)).unwrap();
            assert_eq!(other.next(), Some(expected));
        }
    }

    proptest! {
        /// Served however late and irregularly: every tick is a multiple of the period after the
        /// start, each is counted in exactly one event, and none before its time.
        #[test]
        fn periodic_timer_keeps_its_phase_and_counts_each_tick_once(
            start in 0_u64..1 << 62,
            period in 1_u64..1 << 40,
            delays in prop::collection::vec((0_u32..45, any::<u64>()), 1..50),
        ) {
            let mut tick = start + period;
            let mut told = 0;
            for (bits, delay) in delays {
                let now = tick + (delay & ((1 << bits) - 1));
                let missed = ticks_since(tick, period, now);
                told += 1 + missed;
                tick = following_tick(tick, period, missed);
                prop_assert_eq!((tick - start) % period, 0, "the phase drifted");
                prop_assert_eq!(told, (now - start) / period, "ticks told of those that passed");
                prop_assert!(now < tick && tick - now <= period, "the next tick is the next");
            }
        }

        #[test]
        fn tick_beyond_the_clock_never_comes(tick: u64, period in 1_u64.., now: u64) {
            let next = following_tick(tick, period, ticks_since(tick, period, now));
            prop_assert!(next == u64::MAX || next > now);
        }
    }
}
