//! Timers: each fires once, not too early, or is cancelled; of periodic ones no period is told twice.

use std::time::{Duration, Instant, SystemTime};

use kevent_core::{Queue, SourceId, TimerEvent, TimerKind, Timers, Token};

use crate::dice::Dice;
use crate::ledger::{AskedAt, Once, Removals, Tally};
use crate::loads::Event;

pub(crate) struct TimerLoad {
    id: SourceId<Timers>,
    once: Once<Token>,
    periodic: Option<Periodic>,
    /// Periodic ones that were cancelled.
    cancelled: std::collections::HashMap<Token, crate::ledger::RemovedAt>,
    pub(crate) tally: Tally,
}

struct Periodic {
    token: Token,
    since: Instant,
    told: u64,
}

/// The key of periodic timers.
const PERIODIC: u64 = u64::MAX;

const PERIOD: Duration = Duration::from_micros(500);

impl TimerLoad {
    pub(crate) fn new(queue: &mut Queue<Event>) -> TimerLoad {
        let id = queue.attach(Timers::new(), Event::Timer).expect("timers attach");
        let tally = Tally::default();
        TimerLoad { id, once: Once::new(512), periodic: None, cancelled: Default::default(), tally }
    }

    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, dice: &mut Dice, removals: &Removals) {
        if dice.once_in(500) {
            return self.change_the_periodic_one(queue, removals);
        }
        let place = self.once.pick(dice);
        let timers = &mut queue[self.id];
        if let Some(token) = self.once.get(place) {
            // `false`: its event is in the hands of a thread.
            if timers.cancel(*token) {
                self.once.empty(place);
                self.tally.taken_back += 1;
            }
            return;
        }
        let delay = Duration::from_micros(dice.roll() % (1 << dice.below(12)));
        self.once.fill(place, |key| match dice.below(16) {
            0 => timers.at_wall(SystemTime::now() + delay, key).expect("a timer of the wall clock"),
            1..4 => timers.at(Instant::now() + delay, key),
            _ => timers.after(delay, key),
        });
        self.tally.provoked += 1;
    }

    fn change_the_periodic_one(&mut self, queue: &mut Queue<Event>, removals: &Removals) {
        let timers = &mut queue[self.id];
        match self.periodic.take() {
            None => {
                let token = timers.every(PERIOD, PERIODIC);
                self.periodic = Some(Periodic { token, since: Instant::now(), told: 0 });
            }
            Some(periodic) => {
                assert!(timers.cancel(periodic.token), "a periodic timer stays");
                self.cancelled.insert(periodic.token, removals.removed());
            }
        }
    }

    /// Nothing new comes from here on.
    pub(crate) fn settle(&mut self, queue: &mut Queue<Event>, removals: &Removals) {
        if self.periodic.is_some() {
            self.change_the_periodic_one(queue, removals);
        }
    }

    pub(crate) fn told(&mut self, event: &TimerEvent, asked: AskedAt) {
        assert!(event.deadline <= Instant::now(), "{event:?} came too early");
        if event.key == PERIODIC {
            return self.period_told(event, asked);
        }
        if event.kind == TimerKind::Fired {
            let token = self.once.take(event.key);
            assert_eq!(token, Some(event.token), "{event:?} came twice, or after it was cancelled");
            self.tally.told += 1;
        }
    }

    fn period_told(&mut self, event: &TimerEvent, asked: AskedAt) {
        self.tally.provoked += 1;
        self.tally.told += 1;
        if let Some(at) = self.cancelled.get(&event.token) {
            assert!(at.permits(asked), "{event:?} came after it was cancelled");
            return;
        }
        let periodic = self.periodic.as_mut().expect("a periodic timer stands");
        periodic.told += 1 + event.missed;
        let passed = periodic.since.elapsed().as_nanos() / PERIOD.as_nanos();
        // It was armed a moment before the clock was read here.
        assert!(u128::from(periodic.told) <= passed + 1, "more periods were told than have passed");
    }
}
