//! How events get from the sources into the ring: the turns of a queue, and its sleep.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::attached::{Attached, Turn};
use crate::interrupt::Interrupts;
use crate::mask::SignalMask;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::registry::Registry;
use crate::ring::{Ring, UNDATED};
use crate::source::Due;
use crate::spin::Spin;
use crate::token::Token;
use crate::trace;
use crate::wait::Wait;
use crate::waiter::{Sleeper, Waiter};

/// The ring, the sources, and the one place to sleep.
pub(crate) struct Harvest<E> {
    pub(crate) ring: Ring<E>,
    pub(crate) sources: Registry<E>,
    pub(crate) waiter: Waiter,
    sleeper: Sleeper,
    pub(crate) pace: Pace,
    pub(crate) spin: Spin,
    pub(crate) interrupts: Interrupts,
    pub(crate) meter: Meter,
    /// Somebody asks for the times of events.
    pub(crate) stamps: bool,
    /// The last wait had to sleep.
    slept: bool,
    /// Who might sleep on the queue's descriptor is here.
    attended: bool,
    /// Tells the queue from others.
    pub(crate) number: u64,
}

/// Where the events of this turn go.
fn turn<'q, E>(ring: &'q mut Ring<E>, waiter: &'q Waiter, stamps: bool) -> Turn<'q, E> {
    let clock = waiter.clock();
    Turn { ring, clock, seen: if stamps { clock.turn_nanos() } else { UNDATED }, until: None }
}

impl<E: 'static> Harvest<E> {
    pub(crate) fn new(ring: Ring<E>, waiter: Waiter, number: u64) -> Harvest<E> {
        Harvest {
            ring,
            sources: Registry::new(),
            sleeper: waiter.sleeper(),
            waiter,
            pace: Pace::new(),
            spin: Spin::default(),
            interrupts: Interrupts::default(),
            meter: Meter::default(),
            stamps: false,
            slept: false,
            attended: false,
            number,
        }
    }

    /// Gathers events until there are enough of them or the time has passed.
    pub(crate) fn gather(&mut self, mut wait: Wait) -> io::Result<()> {
        let wait = &mut wait;
        let _span = trace::wait();
        self.begin_turn();
        let mut outcome = Ok(());
        // A thread that slept last time will do so again, and is going to ask the sources then.
        let mut asked = !self.slept || self.enough(wait) == 0;
        if asked {
            outcome = self.collect();
        }
        // A source that fails at every turn must not keep the others from being looked at.
        if outcome.is_err() || self.pace.wants_a_look() || self.enough(wait) == 0 {
            outcome = outcome.and(self.look(Some(Duration::ZERO), None).map(|_| ()));
        }
        self.slept = false;
        while outcome.is_ok()
            && self.ring.len() < self.enough(wait)
            && !(asked && self.interrupts.pending())
        {
            asked = true;
            let interrupted;
            (interrupted, outcome) = match self.sleep(wait) {
                Ok(interrupted) => (interrupted, Ok(())),
                Err(error) => (false, Err(error)),
            };
            let here = self.ring.len() >= self.enough(wait);
            if here || interrupted && wait.mask().is_some() || wait.is_over(self.waiter.clock()) {
                break;
            }
        }
        self.tell_interrupts();
        self.pace.turned(|| self.waiter.clock().turn());
        if self.waiter.waker().is_exported() && !self.attended {
            outcome = outcome.and(self.leave_for_others());
        }
        outcome
    }

    /// Nobody is to ring before [`leave`](Harvest::leave), which looks at what has come since.
    pub(crate) fn attend(&mut self) {
        self.attended = true;
        self.waiter.waker().wake_up();
    }

    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.attended = false;
        if self.waiter.waker().is_exported() { self.leave_for_others() } else { Ok(()) }
    }

    /// Time has passed since the last turn: in the hands of the user, or of whoever slept for the queue.
    pub(crate) fn begin_turn(&mut self) {
        let clock = self.waiter.clock();
        if !self.ring.is_empty() {
            self.ring.date(clock.turn_nanos());
        }
        let before = clock.last_turn_nanos();
        clock.begin_turn();
        if !self.waiter.waker().is_exported() {
            self.meter.handled(clock, before);
        }
    }

    /// How many events would end this wait now. One, if a source may not push what it has before the
    /// user takes some out.
    #[inline]
    fn enough(&self, wait: &mut Wait) -> usize {
        // Nearly always: it depends on no clock and no source then.
        if wait.minimum() <= 1 { wait.minimum() } else { self.enough_of_many(wait) }
    }

    fn enough_of_many(&self, wait: &mut Wait) -> usize {
        let enough = wait.enough(self.waiter.clock()).min(self.ring.capacity());
        let held = enough > 1 && self.sources.any_held();
        if held { 1 } else { enough }
    }

    /// Sleeps until something is there, and fetches it. Says whether a signal ended it.
    fn sleep(&mut self, wait: &mut Wait) -> io::Result<bool> {
        let due = match self.fall_asleep() {
            Ok(due) => due,
            // A source that fails at every turn must not keep the others from being looked at.
            Err(error) => return self.look(Some(Duration::ZERO), None).and(Err(error)),
        };
        if self.ring.len() >= self.enough(wait) {
            self.waiter.waker().wake_up();
            return Ok(false);
        }
        let idle = due != Due::Now && self.sources.may_idle(&self.ring);
        let mut timeout = match due {
            // It is idle only if the kernel has nothing either.
            _ if idle => Some(Duration::ZERO),
            Due::Now | Due::WhenIdle => Some(Duration::ZERO),
            Due::At(instant) => wait.sleep(Some(instant), self.waiter.clock()),
            Due::OnWake => wait.sleep(None, self.waiter.clock()),
        };
        if timeout != Some(Duration::ZERO) {
            let real = self.waiter.script().is_none();
            if real && self.spin.is_woken(self.waiter.waker(), &mut timeout) {
                self.waiter.clock().begin_turn();
                return self.collect().map(|()| false);
            }
            if let Some(deadline) = wait.wall() {
                self.waiter.set_wall(deadline)?;
            }
        }
        self.slept = true;
        let interrupted = self.look(timeout, wait.mask())?;
        // Whoever rang is none of which the kernel spoke; those with a deadline are not, either. They
        // may come now or in the next turn, so in a simulation they do both.
        if self.ring.len() < self.enough(wait) || self.waiter.script().is_some() {
            self.collect()?;
        }
        if idle && self.sources.may_idle(&self.ring) && !wait.is_over(self.waiter.clock()) {
            self.sources.idle_turn(&mut turn(&mut self.ring, &self.waiter, self.stamps))?;
        }
        Ok(interrupted)
    }

    /// From here on others ring who have something for this thread. Says when there will be something:
    /// now, if something came meanwhile.
    fn fall_asleep(&mut self) -> io::Result<Due> {
        // The sources are looked at only once it is known that others would ring: see `waker`.
        self.waiter.waker().fall_asleep();
        let before = self.ring.len();
        let due = self.collect_due()?;
        let here = self.ring.len() > before || self.interrupts.pending();
        Ok(if here { Due::Now } else { due })
    }

    /// One look at the kernel, then one at those sources of which it spoke. The thread is awake after
    /// it. Says whether a signal ended it.
    fn look(&mut self, timeout: Option<Duration>, mask: Option<SignalMask>) -> io::Result<bool> {
        let span = trace::look();
        self.is_about_to_look();
        let slept = self.sleeper.sleep(timeout, mask);
        self.waiter.waker().wake_up();
        let interrupted = slept?;
        self.has_looked();
        span.end();
        self.sources.hear(self.sleeper.found(), self.waiter.clock());
        self.sources.turn_of_heard(&mut turn(&mut self.ring, &self.waiter, self.stamps))?;
        Ok(interrupted)
    }

    fn is_about_to_look(&mut self) {
        let clock = self.waiter.clock();
        if !self.ring.is_empty() {
            self.ring.date(clock.turn_nanos());
        }
        self.pace.looks(|| clock.turn());
        self.meter.is_about_to_look(clock);
    }

    /// Time has passed, in the kernel.
    fn has_looked(&mut self) {
        let clock = self.waiter.clock();
        clock.begin_turn();
        self.meter.has_looked(clock);
    }

    fn collect(&mut self) -> io::Result<()> {
        self.collect_due().map(|_| ())
    }

    /// Asks every source what it has, moves it into the ring, and says when there will be more.
    fn collect_due(&mut self) -> io::Result<Due> {
        if let Some(script) = self.waiter.script() {
            self.sources.simulate(script, self.number);
        }
        self.sources.turn(&mut turn(&mut self.ring, &self.waiter, self.stamps))
    }

    /// Leaves the descriptor as those expect it who may sleep on it now: it rings from here on,
    /// it is readable if events are left, and it will be at the next deadline.
    fn leave_for_others(&mut self) -> io::Result<()> {
        self.waiter.waker().fall_asleep();
        let due = self.collect_due();
        // After a failure the deadlines are not known: let the queue look again. An interrupt may have
        // come since the wait was told of those before, when nobody slept yet.
        let more = matches!(due, Ok(Due::Now) | Err(_)) || self.interrupts.pending();
        if more || !self.ring.is_empty() {
            self.waiter.waker().ring();
        }
        self.waiter.set_alarm(match due? {
            Due::At(instant) => Some(instant),
            Due::Now | Due::WhenIdle | Due::OnWake => None,
        })
    }

    /// Whether a source has something, now that an event of it was delivered: it may have been held
    /// back until then, or waited for that to go on. Asked where no turn follows by itself. (A failure
    /// is news, and told in the turn that follows.)
    pub(crate) fn has_news(&mut self, source: Token) -> bool {
        let asked = self.sources.get_mut(source).map(Attached::ask);
        matches!(asked, Some(Ok(None) | Err(_)))
    }

    /// A wait comes back. Says how many interrupts it is told of.
    fn tell_interrupts(&mut self) -> u64 {
        let told = self.interrupts.tell();
        self.meter.interrupts += told;
        told
    }
}

/// For several threads, each of which has the queue for itself meanwhile.
impl<E: 'static> Harvest<E> {
    /// A place for another thread to sleep.
    pub(crate) fn sleeper(&self) -> Sleeper {
        self.waiter.sleeper()
    }

    /// A file in the queue's set that wakes all who sleep on it, once it is readable, until it is not.
    pub(crate) fn add_gong(&self, gong: BorrowedFd<'_>) -> io::Result<()> {
        self.waiter.add_gong(gong)
    }

    /// From now on, what changes is told to those who sleep, whoever changes it.
    pub(crate) fn share(&mut self) -> io::Result<()> {
        self.waiter.waker().export();
        // That rang. Nobody sleeps yet, and the first to do so is not to wake for it.
        self.look(Some(Duration::ZERO), None).map(|_| ())
    }

    /// Asks the sources what they have, while others may sleep; and the kernel, now and then.
    pub(crate) fn gather_among(&mut self, others_sleep: bool) -> io::Result<()> {
        self.begin_turn();
        let mut outcome = self.collect();
        if self.pace.turned(|| self.waiter.clock().turn()) {
            outcome = outcome.and(self.look(Some(Duration::ZERO), None).map(|_| ()));
            outcome = outcome.and(self.watch_for(others_sleep));
        }
        outcome
    }

    /// Whether an interrupt ends this wait.
    pub(crate) fn is_interrupted(&mut self) -> bool {
        self.tell_interrupts() > 0
    }

    /// A thread is about to sleep, for as long as is said here; for ever if nothing is.
    pub(crate) fn send_to_sleep(&mut self, wait: &mut Wait) -> io::Result<Option<Duration>> {
        let due = self.fall_asleep()?;
        self.is_about_to_look();
        if due == Due::Now {
            return Ok(Some(Duration::ZERO));
        }
        // Not the time that this thread sleeps: one is to wake for it, and not all.
        self.waiter.set_alarm(match due {
            Due::At(instant) => Some(instant),
            Due::Now | Due::WhenIdle | Due::OnWake => None,
        })?;
        Ok(wait.sleep(None, self.waiter.clock()))
    }

    /// A thread has slept; others may go on sleeping.
    pub(crate) fn come_back(&mut self, sleeper: &Sleeper, others_sleep: bool) -> io::Result<()> {
        self.waiter.waker().wake_up();
        self.has_looked();
        self.sources.hear(sleeper.found(), self.waiter.clock());
        let heard =
            self.sources.turn_of_heard(&mut turn(&mut self.ring, &self.waiter, self.stamps));
        heard.and(self.watch_for(others_sleep))
    }

    /// After a look: what it found ready, the doorbell and the alarm among it, wakes none of those who
    /// sleep on. They are to be woken for what comes next, whatever this thread does meanwhile.
    fn watch_for(&mut self, others_sleep: bool) -> io::Result<()> {
        if others_sleep {
            // Before the sources are looked at: see `waker`.
            self.waiter.waker().fall_asleep();
        }
        match self.collect_due()? {
            Due::At(_) if !others_sleep => Ok(()),
            Due::At(instant) => self.waiter.set_alarm(Some(instant)),
            Due::Now | Due::WhenIdle | Due::OnWake => Ok(()),
        }
    }
}

/// For a turn that ends while the others sleep.
impl<E> Harvest<E> {
    /// Whether there is something for another thread.
    pub(crate) fn has_more(&self) -> bool {
        !self.ring.is_empty() || self.sources.any_ready() || self.interrupts.pending()
    }

    /// Wakes a thread that sleeps.
    pub(crate) fn ring(&self) {
        self.waiter.waker().ring();
    }
}
