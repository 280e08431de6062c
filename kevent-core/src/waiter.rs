//! The one place where a queue sleeps.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polling::Poller;

use crate::poll::{Interest, Owners, PollKey, PollSet, Ready, Trigger, unpack};
use crate::sys::epoll::{self, Events};
use crate::sys::timerfd::TimerFd;
use crate::waker::Waker;

/// How many ready descriptors one system call may bring. Those beyond it come with the next.
const EVENTS_PER_WAIT: usize = 256;

/// The number under which the queue's own descriptors are in its set.
const OWN: u16 = u16::MAX;

/// The queue's epoll set, the eventfd that wakes it, and waiting on both.
pub(crate) struct Waiter {
    poller: Arc<Poller>,
    owners: Owners,
    waker: Waker,
    events: Events,
    /// Makes the queue's descriptor readable at the next deadline, for those who sleep on that.
    alarm: Option<Alarm>,
}

struct Alarm {
    timer: TimerFd,
    set_to: Option<Instant>,
}

impl Waiter {
    pub(crate) fn new() -> io::Result<Waiter> {
        let waiter = Waiter {
            poller: Arc::new(Poller::new()?),
            owners: Owners::default(),
            waker: Waker::new()?,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            alarm: None,
        };
        waiter.add_own(waiter.waker.as_fd())?;
        Ok(waiter)
    }

    /// Edge-triggered, so that neither eventfd nor timerfd is ever read.
    fn add_own(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poll_set(OWN).add(fd, PollKey::default(), Interest::READABLE, Trigger::Edge)
    }

    /// The share of source number `source`.
    pub(crate) fn poll_set(&self, source: u16) -> PollSet {
        PollSet::new(Arc::clone(&self.poller), self.owners.clone(), self.waker.clone(), source)
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until something is ready, the queue is woken, or the time has passed; for ever without
    /// a `timeout`. A signal ends it too: the caller looks at its clock anyway.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match epoll::wait(&self.poller, &mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            done => done,
        }
    }

    /// What the last wait found: the source's number, the source's name for it, and the flags.
    pub(crate) fn found(&self) -> impl Iterator<Item = (u16, PollKey, Ready)> {
        self.events.iter().filter_map(|(flags, data)| {
            let (source, key) = unpack(data);
            (source != OWN).then(|| (source, key, Ready::new(flags)))
        })
    }

    /// Makes the queue's descriptor readable at `deadline`.
    pub(crate) fn set_alarm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.alarm.is_none() && deadline.is_some() {
            let timer = TimerFd::monotonic()?;
            self.add_own(timer.as_fd())?;
            self.alarm = Some(Alarm { timer, set_to: None });
        }
        match &mut self.alarm {
            Some(alarm) if alarm.set_to != deadline => {
                let delay = deadline.map(|d| d.saturating_duration_since(Instant::now()));
                alarm.timer.set_relative(delay)?;
                alarm.set_to = deadline;
                Ok(())
            }
            _ => Ok(()),
        }
    }
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
