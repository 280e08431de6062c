//! Which of several tasks drives a queue.
//!
//! The queue is polled with one waker, whoever polls it: this. It wakes one of the tasks that stand by,
//! and the rule of `shared` holds: *who leaves something behind wakes the next*. "Something" is
//! whatever may have come since the queue last said that it has nothing; and to leave is to return to
//! one's task with an event in hand, to panic, or to be dropped, also after having been woken and before
//! having come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The tasks that drive one queue, or stand by.
#[derive(Debug, Default)]
pub(crate) struct Drivers(Mutex<Shift>);

#[derive(Debug, Default)]
struct Shift {
    state: State,
    /// Those that stand by. The last to have come goes first: what it needs is in the caches yet.
    standing_by: Vec<(u64, Waker)>,
    /// How many there are, whatever they do.
    count: usize,
    last_id: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The queue may have something: it has said so, or nobody has asked it yet.
    #[default]
    Calls,
    /// A driver is asking it, or was and did not come to an end.
    Asked,
    /// It had nothing when it was last asked, and has not called since.
    Silent,
}

impl Drivers {
    /// One more. Says its id.
    pub(crate) fn join(&self) -> u64 {
        let mut shift = self.lock();
        shift.count += 1;
        shift.last_id += 1;
        shift.last_id
    }

    /// One less. Says whether it was the last.
    pub(crate) fn leave(&self, id: u64) -> bool {
        let mut shift = self.lock();
        let own = shift.take(id);
        shift.count -= 1;
        let last = shift.count == 0;
        // It may be the one that was woken, or that was asking.
        let next = (shift.state != State::Silent).then(|| shift.next()).flatten();
        drop(shift);
        wake(next);
        drop(own);
        last
    }

    /// A driver begins to ask the queue. Its old waker comes back, to be dropped outside of all locks: it
    /// may be the last of another task.
    pub(crate) fn begin(&self, id: u64) -> Option<Waker> {
        let mut shift = self.lock();
        shift.state = State::Asked;
        shift.take(id)
    }

    /// The queue has nothing, and the driver stands by. Says who is to be woken, if the queue has called
    /// meanwhile.
    pub(crate) fn stand_by(&self, id: u64, waker: Waker) -> Option<Waker> {
        let mut shift = self.lock();
        shift.standing_by.push((id, waker));
        if shift.state == State::Asked {
            shift.state = State::Silent;
            return None;
        }
        shift.next()
    }

    /// There may be something: wakes one of those that stand by.
    pub(crate) fn call(&self) {
        let mut shift = self.lock();
        shift.state = State::Calls;
        let next = shift.next();
        drop(shift);
        wake(next);
    }

    fn lock(&self) -> MutexGuard<'_, Shift> {
        // Nothing here panics with the lock held, but for want of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shift {
    fn next(&mut self) -> Option<Waker> {
        self.standing_by.pop().map(|(_, waker)| waker)
    }

    fn take(&mut self, id: u64) -> Option<Waker> {
        let place = self.standing_by.iter().position(|(other, _)| *other == id)?;
        Some(self.standing_by.remove(place).1)
    }
}

/// Never with a lock held: a waker may do anything.
fn wake(waker: Option<Waker>) {
    waker.into_iter().for_each(Waker::wake);
}

impl Wake for Drivers {
    fn wake(self: Arc<Drivers>) {
        self.call();
    }

    fn wake_by_ref(self: &Arc<Drivers>) {
        self.call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A driver that stands by, and how often it was woken.
    fn stand_by(drivers: &Drivers) -> (u64, Arc<Count>) {
        let (id, count) = (drivers.join(), Arc::new(Count::default()));
        drivers.begin(id);
        wake(drivers.stand_by(id, Waker::from(Arc::clone(&count))));
        (id, count)
    }

    fn woken(of: &[&Arc<Count>]) -> Vec<usize> {
        of.iter().map(|count| count.0.swap(0, Ordering::Relaxed)).collect()
    }

    #[test]
    fn one_call_wakes_one() {
        let drivers = Drivers::default();
        let ((_, a), (_, b)) = (stand_by(&drivers), stand_by(&drivers));
        drivers.call();
        assert_eq!(woken(&[&a, &b]), [0, 1]);
        drivers.call();
        assert_eq!(woken(&[&a, &b]), [1, 0]);
        drivers.call();
        assert_eq!(woken(&[&a, &b]), [0, 0], "both are on their way");
    }

    #[test]
    fn one_that_leaves_before_it_has_come_wakes_the_next() {
        let drivers = Drivers::default();
        let ((_, a), (id, b)) = (stand_by(&drivers), stand_by(&drivers));
        drivers.call();
        assert_eq!(woken(&[&a, &b]), [0, 1]);
        assert!(!drivers.leave(id));
        assert_eq!(woken(&[&a, &b]), [1, 0]);
    }

    #[test]
    fn one_that_leaves_while_it_asks_wakes_the_next() {
        let drivers = Drivers::default();
        let ((_, a), (id, b)) = (stand_by(&drivers), stand_by(&drivers));
        drivers.begin(id);
        assert!(!drivers.leave(id));
        assert_eq!(woken(&[&a, &b]), [1, 0]);
    }

    #[test]
    fn one_that_leaves_when_all_is_silent_wakes_nobody() {
        let drivers = Drivers::default();
        let ((a_id, a), (b_id, b)) = (stand_by(&drivers), stand_by(&drivers));
        assert!(!drivers.leave(b_id));
        assert_eq!(woken(&[&a, &b]), [0, 0]);
        assert!(drivers.leave(a_id), "the last");
    }

    #[test]
    fn call_while_a_driver_asks_is_not_lost() {
        let drivers = Drivers::default();
        let (id, count) = (drivers.join(), Arc::new(Count::default()));
        drivers.begin(id);
        drivers.call();
        wake(drivers.stand_by(id, Waker::from(Arc::clone(&count))));
        assert_eq!(woken(&[&count]), [1]);
    }
}
