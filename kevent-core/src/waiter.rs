//! The one place where a queue sleeps.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use polling::Poller;

use crate::clock::Clock;
use crate::mask::SignalMask;
use crate::poll::{Interest, Owners, PollKey, PollSet, Ready, Trigger, unpack};
use crate::script::Script;
use crate::sync;
use crate::sys::epoll::Events;
use crate::sys::thread;
use crate::sys::timerfd::TimerFd;
use crate::waker::Waker;

/// How many ready descriptors one system call may bring. Those beyond it come with the next.
const EVENTS_PER_WAIT: usize = 256;

/// The number under which the queue's own descriptors are in its set.
const OWN: u16 = u16::MAX;

/// The queue's epoll set and what else ends a sleep on it.
pub(crate) struct Waiter {
    poller: Arc<Poller>,
    owners: Owners,
    waker: Waker,
    clock: Clock,
    /// Makes the queue's descriptor readable at the next deadline, for those who sleep on that.
    alarm: Alarm,
    /// Ends a sleep when the wall clock gets there, or is set.
    wall: Option<TimerFd>,
    /// Of a simulated queue.
    script: Option<Script>,
}

#[derive(Default)]
struct Alarm {
    /// Made when first needed, unless the queue is simulated.
    timer: Option<TimerFd>,
    set_to: Option<Instant>,
}

impl Waiter {
    /// A set; one of a queue that is simulated, if there is a script for it.
    pub(crate) fn new(script: Option<Script>) -> io::Result<Waiter> {
        let clock = script.as_ref().map_or_else(Clock::real, |script| script.clock().clone());
        let waiter = Waiter {
            poller: Arc::new(Poller::new()?),
            owners: Owners::default(),
            waker: Waker::new(clock.clone())?,
            clock,
            alarm: Alarm::default(),
            wall: None,
            script,
        };
        waiter.add_own(waiter.waker.as_fd())?;
        Ok(waiter)
    }

    /// Edge-triggered, so that neither eventfd nor timerfd is ever read.
    fn add_own(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poll_set(OWN).add(fd, PollKey::default(), Interest::READABLE, Trigger::Edge)
    }

    /// As long as it is readable, nobody sleeps.
    pub(crate) fn add_gong(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poll_set(OWN).add(fd, PollKey::default(), Interest::READABLE, Trigger::Level)
    }

    /// The share of source number `source`.
    pub(crate) fn poll_set(&self, source: u16) -> PollSet {
        let (owners, waker) = (self.owners.clone(), self.waker.clone());
        PollSet::new(Arc::clone(&self.poller), owners, waker, self.clock.clone(), source)
    }

    #[inline]
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    #[inline]
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A place for one thread to sleep on the set.
    pub(crate) fn sleeper(&self) -> Sleeper {
        Sleeper::on(&self.poller, self.script.clone())
    }

    /// What happens while a simulated queue sleeps.
    #[inline]
    pub(crate) fn script(&self) -> Option<&Script> {
        self.script.as_ref()
    }

    /// Lets the next sleep end when the wall clock shows `deadline`, or is set.
    pub(crate) fn set_wall(&mut self, deadline: SystemTime) -> io::Result<()> {
        if let Some(script) = &self.script {
            script.set_wall(deadline);
            return Ok(());
        }
        if self.wall.is_none() {
            let timer = TimerFd::wall_clock()?;
            self.add_own(timer.as_fd())?;
            self.wall = Some(timer);
        }
        let since_epoch = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match &self.wall {
            // Set also when it says that the clock was set meanwhile: then it counts from there.
            Some(timer) => timer.set_wall(since_epoch).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Makes the queue's descriptor readable at `deadline`.
    pub(crate) fn set_alarm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.alarm.set_to == deadline {
            return Ok(());
        }
        match (&self.script, deadline) {
            (None, _) => self.set_alarm_timer(deadline)?,
            (Some(script), Some(deadline)) => {
                let waker = self.waker.clone();
                script.add_at(deadline, Box::new(move |_| waker.ring()));
            }
            (Some(_), None) => {}
        }
        self.alarm.set_to = deadline;
        Ok(())
    }

    fn set_alarm_timer(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.alarm.timer.is_none() {
            let timer = TimerFd::monotonic()?;
            self.add_own(timer.as_fd())?;
            self.alarm.timer = Some(timer);
        }
        let delay = deadline.map(|d| d.saturating_duration_since(self.clock.now()));
        self.alarm.timer.as_ref().map_or(Ok(()), |timer| timer.set_relative(delay))
    }
}

/// Where one thread sleeps, and what it found when it woke.
pub(crate) struct Sleeper {
    poller: Arc<Poller>,
    events: Events,
    slack: Duration,
    script: Option<Script>,
}

impl Sleeper {
    /// A place for another thread on the same set.
    pub(crate) fn another(&self) -> Sleeper {
        Sleeper::on(&self.poller, self.script.clone())
    }

    fn on(poller: &Arc<Poller>, script: Option<Script>) -> Sleeper {
        let events = Events::with_capacity(EVENTS_PER_WAIT);
        Sleeper { poller: Arc::clone(poller), events, slack: thread::timer_slack(), script }
    }

    /// Sleeps until something is ready, the queue is woken, or the time has passed; for ever without
    /// a `timeout`. A signal ends it too, and `true` says so: the caller looks at its clock anyway.
    ///
    /// Several threads may sleep on one set. The kernel wakes one of them for each thing that happens,
    /// and what one finds no other finds, but for what is level-triggered.
    pub(crate) fn sleep(
        &mut self,
        timeout: Option<Duration>,
        mask: Option<SignalMask>,
    ) -> io::Result<bool> {
        match self.script.clone() {
            None => self.look(timeout.map(|timeout| less_slack(timeout, self.slack)), mask),
            Some(script) => self.simulate(&script, timeout, mask),
        }
    }

    /// Does not sleep: takes what is there, or else lets made-up time pass and the script go on.
    fn simulate(
        &mut self,
        script: &Script,
        timeout: Option<Duration>,
        mask: Option<SignalMask>,
    ) -> io::Result<bool> {
        let interfered = script.interferes();
        // It may have put something where no descriptor tells.
        let hurry = interfered || timeout == Some(Duration::ZERO);
        let patience = if hurry { Duration::ZERO } else { script.patience() };
        let interrupted = self.look(Some(patience), mask)?;
        if interrupted || interfered || self.events.iter().next().is_some() {
            script.found();
            script.shuffle(self.events.as_mut_slice());
            return Ok(interrupted);
        }
        script.pass(timeout).map(|()| false)
    }

    fn look(&mut self, timeout: Option<Duration>, mask: Option<SignalMask>) -> io::Result<bool> {
        match sync::wait(&self.poller, &mut self.events, timeout, mask) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            done => done.map(|()| false),
        }
    }

    /// What the last sleep found: the source's number, the source's name for it, and the flags.
    pub(crate) fn found(&self) -> impl Iterator<Item = (u16, PollKey, Ready)> {
        self.events.iter().filter_map(|(flags, data)| {
            let (source, key) = unpack(data);
            (source != OWN).then(|| (source, key, Ready::new(flags)))
        })
    }
}

/// How long to ask the kernel to sleep, so that it does not sleep longer than `timeout`.
///
/// It may sleep longer than it was asked to, to wake for several at once: by the thread's slack, or by a
/// thousandth of the time if that is more. Commonly it does, to the full, because nobody else is there to
/// be woken with. Asked for that much less it wakes in time; and now and then too early, when the rest is
/// slept as it is.
///
/// Source: `select_estimate_accuracy` in the kernel's fs/select.c; `PR_SET_TIMERSLACK` in prctl(2).
fn less_slack(timeout: Duration, slack: Duration) -> Duration {
    let slack = slack.max(timeout / 1000).min(Duration::from_millis(100));
    timeout.checked_sub(slack).filter(|less| !less.is_zero()).unwrap_or(timeout)
}

impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("epoll", &self.as_fd()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_is_asked_for_less_by_what_it_may_add() {
        let (us, slack) = (Duration::from_micros, Duration::from_micros(50));
        for (timeout, asked) in [
            (us(0), us(0)),
            (us(50), us(50)),
            (us(51), us(1)),
            (us(1_000), us(950)),
            (us(1_000_000), us(999_000)),
            (us(1_000_000_000), us(999_900_000)),
        ] {
            assert_eq!(less_slack(timeout, slack), asked);
        }
        assert_eq!(less_slack(Duration::MAX, slack), Duration::MAX - us(100_000));
    }
}
