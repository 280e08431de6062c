//! One queue, harvested by many threads.
//!
//! The queue is under a lock that is held for a turn, never for a sleep: the threads sleep side by side
//! in the queue's one epoll set, and the kernel wakes one of them for each thing that happens. So there
//! is no leader whose loss would be noticed too late, and no thread that is woken to wake another.
//!
//! Three rules see to it that no event lies while a thread sleeps:
//!
//! - *Who leaves something behind wakes the next* ([`Turn`]'s drop), one thread for each event that
//!   is left: an event costs one wake-up, and none if the threads are busy anyway. The rule holds
//!   however the turn ends, by an error or a panic, too.
//! - *The doorbell stays armed while anybody sleeps.* Who rings it takes it down, and one thread wakes;
//!   that one puts it up again before it looks at the sources. So does one that looks without having
//!   slept. See `waker` for why none is missed.
//! - *Deadlines of sources are a timerfd in the set*, so that one thread wakes for them, and not all.
//!   That one sets it to the next of them before it leaves with its event.
//!
//! To call all is another thing than to wake one, because the kernel wakes one for each event, the last
//! to fall asleep first. So a second eventfd, level-triggered, sounds until the last of those who slept
//! has come back.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::thread;

use crate::queue::Queue;
use crate::stamped::Stamped;
use crate::sync::{Arc, Gong, Mutex, MutexGuard};
use crate::wait::Wait;
use crate::waiter::Sleeper;

/// A queue that several threads harvest: each has a clone.
///
/// Each event comes out at exactly one of them. One queue for each thread is the faster way, where the
/// work can be told apart beforehand; this is for where it can't.
///
/// A level-triggered descriptor wakes several threads for nothing, and one that is handled at length
/// is told again to another thread meanwhile: let threads that share a queue register theirs in
/// kevent-net's dispatch mode, in which a descriptor is told to one thread until that enables it again.
///
/// ```
/// use kevent_core::{Queue, SharedQueue, UserEvents, Wait};
///
/// let mut queue = Queue::new()?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, |n: u64| n)?;
/// let shared = SharedQueue::new(queue)?;
///
/// let workers: Vec<_> = (0..3)
///     .map(|_| {
///         let mut shared = shared.clone();
///         std::thread::spawn(move || {
///             let mut sum = 0;
///             while let Some(n) = shared.next(None)? {
///                 sum += n;
///             }
///             std::io::Result::Ok(sum)
///         })
///     })
///     .collect();
/// (1..=100).for_each(|n| poster.post(n).unwrap());
///
/// // Once all is taken, everybody may go home.
/// while shared.lock().stats().delivered < 100 {
///     std::thread::yield_now();
/// }
/// shared.close();
/// let sums = workers.into_iter().map(|worker| worker.join().unwrap());
/// assert_eq!(sums.sum::<std::io::Result<u64>>()?, 5050);
/// # std::io::Result::Ok(())
/// ```
pub struct SharedQueue<E> {
    shared: Arc<Mutex<Shared<E>>>,
    sleeper: Sleeper,
}

struct Shared<E> {
    queue: Queue<E>,
    /// Threads that sleep, or are on their way back from it.
    sleepers: usize,
    /// Those of them that were called back, and have not come yet.
    called: usize,
    /// How often all were called.
    calls: u64,
    /// Sounds while some are called.
    gong: Gong,
    closed: bool,
}

impl<E: 'static> SharedQueue<E> {
    /// Lets several threads harvest `queue`.
    ///
    /// # Errors
    ///
    /// When the process may open no more descriptors: sharing takes one. And those of a source.
    pub fn new(mut queue: Queue<E>) -> io::Result<SharedQueue<E>> {
        let gong = Gong::new()?;
        queue.harvest.add_gong(gong.as_fd())?;
        queue.harvest.share()?;
        let sleeper = queue.harvest.sleeper();
        let shared = Shared { queue, sleepers: 0, called: 0, calls: 0, gong, closed: false };
        Ok(SharedQueue { shared: Arc::new(Mutex::new(shared)), sleeper })
    }

    /// Takes the next event out; sleeps until there is one. `None` when the time of `wait` has passed,
    /// when this thread was [called](SharedQueue::wake_all) or [interrupted](crate::Interrupter) and
    /// there is no event, or when the queue is [closed](SharedQueue::close) and empty.
    ///
    /// Of `wait` its time and its signal mask count.
    ///
    /// # Errors
    ///
    /// As [`Queue::wait`], at one of the threads. `InvalidInput` for [`Wait::until_wall`]: use a
    /// [timer](crate::Timers::at_wall) that goes by the wall clock.
    pub fn next(&mut self, wait: impl Into<Wait>) -> io::Result<Option<E>> {
        Ok(self.next_stamped(wait)?.map(|stamped| stamped.event))
    }

    /// As [`next`](SharedQueue::next), with what the queue knows of the event.
    ///
    /// # Errors
    ///
    /// As [`next`](SharedQueue::next).
    pub fn next_stamped(&mut self, wait: impl Into<Wait>) -> io::Result<Option<Stamped<E>>> {
        let mut wait = wait.into();
        if wait.wall().is_some() {
            return Err(no_wall_clock());
        }
        let mut turn = Turn::begin(&self.shared);
        let calls = turn.calls;
        let mut looked = false;
        loop {
            if let Some(event) = turn.take_here()? {
                return Ok(Some(event));
            }
            let called = turn.calls != calls || turn.queue.harvest.is_interrupted();
            if called || looked && (turn.closed || wait.is_over(turn.queue.clock())) {
                return Ok(None);
            }
            if turn.closed {
                // Not without a look at what the kernel has.
                wait = Wait::poll();
            }
            let timeout = turn.queue.harvest.send_to_sleep(&mut wait)?;
            turn.sleepers += 1;
            drop(turn);
            let slept = self.sleeper.sleep(timeout, wait.mask());
            turn = Turn::begin(&self.shared);
            turn.come_back(calls);
            let Shared { queue, sleepers, .. } = &mut *turn;
            // Also after a failure: the doorbell is to be armed for the others.
            let came = queue.harvest.come_back(&self.sleeper, *sleepers > 0);
            looked = true;
            if slept? && wait.mask().is_some() {
                return came.and_then(|()| turn.take_here());
            }
            came?;
        }
    }

    /// The queue, to register and to remove, or to look at. No event of what is removed comes out at any
    /// thread after that, not even one that is in the ring. (One that a thread has taken is in that
    /// thread's hands.)
    ///
    /// Threads that sleep go on sleeping; those that want an event wait for the guard to be dropped. So
    /// don't wait with it.
    #[must_use]
    pub fn lock(&self) -> QueueGuard<'_, E> {
        QueueGuard(Turn::begin(&self.shared))
    }

    /// Calls back every thread that sleeps. Each comes with an event if there is one for it.
    pub fn wake_all(&self) {
        Turn::begin(&self.shared).call_all();
    }

    /// From now on nobody sleeps. The threads take out what there is, and are then told that there is no
    /// more.
    pub fn close(&self) {
        let mut turn = Turn::begin(&self.shared);
        turn.closed = true;
        turn.call_all();
    }
}

impl<E> Clone for SharedQueue<E> {
    fn clone(&self) -> Self {
        SharedQueue { shared: Arc::clone(&self.shared), sleeper: self.sleeper.another() }
    }
}

impl<E> fmt::Debug for SharedQueue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedQueue").finish_non_exhaustive()
    }
}

impl<E: 'static> Shared<E> {
    fn take_here(&mut self) -> io::Result<Option<Stamped<E>>> {
        self.queue.take_here(self.sleepers > 0)
    }
}

impl<E> Shared<E> {
    fn call_all(&mut self) {
        self.calls += 1;
        self.called = self.sleepers;
        if self.called > 0 {
            self.gong.sound();
        }
    }

    /// A thread that has seen so many calls does not sleep any more.
    fn come_back(&mut self, calls: u64) {
        self.sleepers -= 1;
        if calls != self.calls && self.called > 0 {
            self.called -= 1;
            if self.called == 0 {
                self.gong.stop();
            }
        }
    }
}

/// One thread has the queue for itself.
struct Turn<'q, E>(MutexGuard<'q, Shared<E>>);

impl<'q, E> Turn<'q, E> {
    fn begin(shared: &'q Mutex<Shared<E>>) -> Turn<'q, E> {
        // A panic in a function that makes an event of an item can lose that item, and no more.
        Turn(shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<E> Drop for Turn<'_, E> {
    fn drop(&mut self) {
        if self.sleepers > 0 && (self.queue.harvest.has_more() || thread::panicking()) {
            self.queue.harvest.ring();
        }
    }
}

impl<E> Deref for Turn<'_, E> {
    type Target = Shared<E>;

    fn deref(&self) -> &Shared<E> {
        &self.0
    }
}

impl<E> DerefMut for Turn<'_, E> {
    fn deref_mut(&mut self) -> &mut Shared<E> {
        &mut self.0
    }
}

/// A [`SharedQueue`] while one thread has it for itself.
pub struct QueueGuard<'q, E>(Turn<'q, E>);

impl<E> Deref for QueueGuard<'_, E> {
    type Target = Queue<E>;

    fn deref(&self) -> &Queue<E> {
        &self.0.queue
    }
}

impl<E> DerefMut for QueueGuard<'_, E> {
    fn deref_mut(&mut self) -> &mut Queue<E> {
        &mut self.0.queue
    }
}

impl<E> fmt::Debug for QueueGuard<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueGuard").field(&**self).finish()
    }
}

fn no_wall_clock() -> io::Error {
    let text = "threads that share a queue can't wait by the wall clock: arm a timer by `at_wall`";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
