//! What time it is, for a queue and its sources.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The clock of a queue: the machine's, or in a simulated queue one that stands still until the
/// simulation moves it.
///
/// A source that goes by time asks this one ([`PollSet::clock`](crate::PollSet::clock)) and no other.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Shared>);

/// Times are nanoseconds since `start`. Only the thread that has the queue changes them, so relaxed
/// accesses are enough: whoever else has it next was handed it under a lock.
#[derive(Debug)]
struct Shared {
    start: Instant,
    made_up: Option<MadeUp>,
    /// What was read last for a turn, and whether that is still this turn.
    turn: AtomicU64,
    fresh: AtomicBool,
}

/// Time that passes when it is told to.
#[derive(Debug)]
struct MadeUp {
    /// How much has passed.
    passed: AtomicU64,
    /// What the wall clock showed at `start`, going by how it is set now. It is set in tests only: a
    /// lock will do.
    wall: Mutex<SystemTime>,
    /// How often it was set.
    steps: AtomicU64,
}

impl Clock {
    /// The machine's. In the models time stands still: loom has to find the same at every try.
    pub(crate) fn real() -> Clock {
        if cfg!(kevent_loom) { Clock::stopped_at(SystemTime::UNIX_EPOCH) } else { Clock::new(None) }
    }

    /// One that begins now, with the wall clock at `wall`, and stands still.
    pub(crate) fn stopped_at(wall: SystemTime) -> Clock {
        let (passed, steps) = (AtomicU64::new(0), AtomicU64::new(0));
        Clock::new(Some(MadeUp { passed, wall: Mutex::new(wall), steps }))
    }

    fn new(made_up: Option<MadeUp>) -> Clock {
        let (turn, fresh) = (AtomicU64::new(0), AtomicBool::new(false));
        Clock(Arc::new(Shared { start: Instant::now(), made_up, turn, fresh }))
    }

    /// The time on the monotonic clock.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        match &self.0.made_up {
            None => Instant::now(),
            Some(made_up) => self.instant(made_up.passed.load(Ordering::Relaxed)),
        }
    }

    /// The time on the wall clock.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        match &self.0.made_up {
            None => SystemTime::now(),
            Some(made_up) => *made_up.wall() + made_up.passed(),
        }
    }

    /// The time of the queue's turn: what [`now`](Clock::now) said when it was first asked for since
    /// the turn began or the queue slept. So it costs a clock once for all sources. For a source's
    /// [`flush`](crate::Source::flush) and [`drain`](crate::Source::drain); a call of the user may
    /// come long after the turn.
    #[must_use]
    #[inline]
    pub fn turn(&self) -> Instant {
        self.instant(self.turn_nanos())
    }

    /// As [`turn`](Clock::turn), in nanoseconds of this clock.
    #[inline]
    pub(crate) fn turn_nanos(&self) -> u64 {
        if !self.0.fresh.load(Ordering::Relaxed) {
            self.0.turn.store(self.now_nanos(), Ordering::Relaxed);
            self.0.fresh.store(true, Ordering::Relaxed);
        }
        self.last_turn_nanos()
    }

    /// As [`now`](Clock::now), in nanoseconds of this clock.
    #[inline]
    pub(crate) fn now_nanos(&self) -> u64 {
        // 584 years fit.
        self.now().saturating_duration_since(self.0.start).as_nanos() as u64
    }

    /// The time of the last turn in which somebody asked for it, in nanoseconds of this clock.
    #[inline]
    pub(crate) fn last_turn_nanos(&self) -> u64 {
        self.0.turn.load(Ordering::Relaxed)
    }

    /// Nanoseconds of this clock as a time.
    #[inline]
    pub(crate) fn instant(&self, nanoseconds: u64) -> Instant {
        self.0.start + Duration::from_nanos(nanoseconds)
    }

    /// Whether this clock moves only when it is moved.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.0.made_up.is_some()
    }

    /// Makes what follows in this turn a nanosecond later than what came before: so that things of
    /// which only the order is known have times in that order. Made-up time passes with it.
    pub(crate) fn tick(&self) {
        let now = self.turn_nanos();
        self.0.turn.store(now + 1, Ordering::Relaxed);
        self.advance_to(self.instant(now + 1));
    }

    /// A turn begins, or time has passed in it.
    #[inline]
    pub(crate) fn begin_turn(&self) {
        self.0.fresh.store(false, Ordering::Relaxed);
    }

    /// Moves made-up time to `time`, if that lies ahead.
    pub(crate) fn advance_to(&self, time: Instant) {
        if let Some(made_up) = &self.0.made_up {
            let ahead = time.saturating_duration_since(self.0.start).as_nanos();
            made_up.passed.fetch_max(u64::try_from(ahead).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Sets the wall clock of made-up time.
    pub(crate) fn set_wall(&self, shown: SystemTime) {
        if let Some(made_up) = &self.0.made_up {
            // Before 1970 there is no time that it could show.
            let at_start = shown.checked_sub(made_up.passed()).unwrap_or(SystemTime::UNIX_EPOCH);
            *made_up.wall() = at_start;
            made_up.steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often the wall clock of made-up time was set; `None` of the machine's.
    pub(crate) fn wall_steps(&self) -> Option<u64> {
        self.0.made_up.as_ref().map(|made_up| made_up.steps.load(Ordering::Relaxed))
    }

    /// When the wall clock will show `time` if nobody sets it; now, if it is past that. `None` for never.
    pub(crate) fn shows(&self, time: SystemTime) -> Option<Instant> {
        self.now().checked_add(time.duration_since(self.wall()).unwrap_or_default())
    }
}

impl MadeUp {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::Relaxed))
    }

    fn wall(&self) -> MutexGuard<'_, SystemTime> {
        self.wall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_a_turn_is_read_once() {
        let clock = Clock::real();
        clock.begin_turn();
        let turn = clock.turn();
        assert!(clock.now() > turn || clock.now() == turn);
        while clock.now() == turn {}
        assert_eq!(clock.turn(), turn);
        clock.begin_turn();
        assert_eq!(clock.instant(clock.last_turn_nanos()), turn);
        assert!(clock.turn() > turn);
    }

    #[test]
    fn made_up_time_stands_still_until_it_is_moved() {
        let clock = Clock::stopped_at(SystemTime::UNIX_EPOCH);
        let start = clock.now();
        clock.advance_to(start + Duration::from_secs(3));
        clock.advance_to(start + Duration::from_secs(2));
        assert_eq!(clock.now(), start + Duration::from_secs(3), "time never goes back");
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
    }
    #[test]
    fn wall_clock_is_set_and_goes_on_from_there() {
        let clock = Clock::stopped_at(SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        let begun = clock.now();
        clock.advance_to(begun + Duration::from_secs(5));
        clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(50));
        clock.advance_to(begun + Duration::from_secs(6));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(51));
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        assert_eq!(clock.shows(later), Some(begun + Duration::from_secs(15)));
        assert_eq!(clock.wall_steps(), Some(1));
    }
}
