//! The engine in its queue, as the drivers use it: what waits for room, what is in flight, and for whom.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use kevent_core::{Queue, SourceId, Timers, Token, Wait};

use crate::completion::{Completion, SubmitError};
use crate::engine::Aio;
use crate::report::{Report, Way};
use crate::tokio::hub::{Submission, Wish, shut_down};
use crate::tokio::slot::{Answer, Slot};

/// How long what was cancelled may take to end, before those who wait for it give it up.
const GRACE: Duration = Duration::from_millis(100);

/// The number under which that time is over. No submission has it.
const THE_END: u64 = u64::MAX;

/// An engine in its queue, with those who wait for it.
#[derive(Debug)]
pub(super) struct Desk {
    queue: Queue<Event>,
    aio: SourceId<Aio>,
    timers: SourceId<Timers>,
    /// What the engine has no room for, in the order in which it came.
    waiting: BTreeMap<u64, Waiting>,
    in_flight: HashMap<u64, Flight>,
    closed: bool,
    after: Aftermath,
}

/// What is to be done once nobody holds a lock any more: a waker may do anything, and so may the drop of
/// what a user gave to an operation.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    pub(super) wakers: Vec<Waker>,
    /// Answers that nobody wants.
    unwanted: Vec<Answer>,
}

impl Aftermath {
    /// Wakes, and drops.
    pub(super) fn settle(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        drop(self.unwanted);
    }
}

#[derive(Debug)]
enum Event {
    Done(Completion),
    /// The deadline of what waits under this number.
    Late(u64),
}

#[derive(Debug)]
struct Waiting {
    submission: Submission,
    alarm: Option<Token>,
}

#[derive(Debug)]
struct Flight {
    token: Token,
    slot: Arc<Slot>,
}

impl Desk {
    pub(super) fn new(aio: Aio) -> io::Result<Desk> {
        let mut queue = Queue::new()?;
        Ok(Desk {
            aio: queue.attach(aio, Event::Done)?,
            timers: queue.attach(Timers::new(), |tick| Event::Late(tick.key))?,
            queue,
            waiting: BTreeMap::new(),
            in_flight: HashMap::new(),
            closed: false,
            after: Aftermath::default(),
        })
    }

    /// A duplicate of the queue's descriptor: readable when there is reason for another turn.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.queue.as_fd().try_clone_to_owned()
    }

    pub(super) fn report(&self) -> Report {
        self.queue[self.aio].report()
    }

    pub(super) fn capacity(&self) -> usize {
        self.queue[self.aio].capacity()
    }

    /// Whether nothing is in flight, and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.queue[self.aio].in_flight() == 0
    }

    /// What is to be done once the lock around this is given back.
    pub(super) fn take_aftermath(&mut self) -> Aftermath {
        std::mem::take(&mut self.after)
    }

    /// Fulfils wishes, has the engine hand them over in one go, and hands out what is done. Says
    /// whether anything is in flight after it.
    ///
    /// # Errors
    ///
    /// When the engine can no longer work.
    pub(super) fn turn(&mut self, wishes: Vec<Wish>) -> io::Result<bool> {
        self.queue.attend();
        for wish in wishes {
            match wish {
                Wish::Submit(submission) => self.admit(submission),
                Wish::Cancel(number) => self.cancel(number),
                Wish::End => self.end(),
            }
        }
        let waited = self.queue.wait(Wait::poll());
        while let Some(event) = self.queue.next() {
            match event {
                Event::Done(completion) => self.finish(completion),
                Event::Late(THE_END) => self.give_up(),
                Event::Late(number) => self.expire(number),
            }
        }
        self.refill();
        // Hands over what was begun just now, and rings if that is done already.
        let left = self.queue.leave();
        waited.and(left).map(|()| !self.in_flight.is_empty())
    }

    fn admit(&mut self, submission: Submission) {
        if submission.op.is_endless() {
            let text = "an operation without an end can't be awaited: submit it to an `Aio`";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return self.give(&submission.slot, Answer::refused(error, submission.op));
        }
        if self.closed || submission.slot.is_left() {
            let answer = Answer::refused(shut_down(), submission.op);
            return self.give(&submission.slot, answer);
        }
        // Nothing waits while there is room: each turn ends in `refill`.
        if self.has_room() {
            return self.begin(submission);
        }
        let number = submission.number;
        let alarm = submission.deadline.map(|at| self.queue[self.timers].at(at, number));
        self.waiting.insert(number, Waiting { submission, alarm });
    }

    fn has_room(&self) -> bool {
        let aio = &self.queue[self.aio];
        aio.in_flight() < aio.capacity()
    }

    fn begin(&mut self, submission: Submission) {
        let Submission { number, op, deadline, slot } = submission;
        let aio = &mut self.queue[self.aio];
        let taken = match deadline {
            Some(deadline) => aio.submit_until(op, number, deadline),
            None => aio.submit(op, number),
        };
        match taken {
            Ok(token) => drop(self.in_flight.insert(number, Flight { token, slot })),
            Err(SubmitError { error, op }) => self.give(&slot, Answer::refused(error, op)),
        }
    }

    /// Begins what waits, as far as there is room, in its order.
    fn refill(&mut self) {
        while self.has_room() {
            let Some((_, waiting)) = self.waiting.pop_first() else { return };
            self.disarm(&waiting);
            self.begin(waiting.submission);
        }
    }

    fn cancel(&mut self, number: u64) {
        if let Some(waiting) = self.waiting.remove(&number) {
            self.disarm(&waiting);
            let answer = Answer::refused(shut_down(), waiting.submission.op);
            self.give(&waiting.submission.slot, answer);
        } else if let Some(flight) = self.in_flight.get(&number) {
            self.queue[self.aio].cancel(flight.token);
        }
    }

    fn expire(&mut self, number: u64) {
        let Some(Waiting { submission, .. }) = self.waiting.remove(&number) else { return };
        let error = io::Error::from_raw_os_error(libc::ETIMEDOUT);
        self.give(&submission.slot, Answer::refused(error, submission.op));
    }

    fn finish(&mut self, completion: Completion) {
        let Completion { key, result, op, way, .. } = completion;
        let answer = Answer { result, op: Some(*op), way };
        match self.in_flight.remove(&key) {
            Some(flight) => self.give(&flight.slot, answer),
            // It was given up.
            None => self.after.unwanted.push(answer),
        }
    }

    fn give(&mut self, slot: &Slot, answer: Answer) {
        match slot.give(answer) {
            Ok(waker) => self.after.wakers.extend(waker),
            Err(unwanted) => self.after.unwanted.push(*unwanted),
        }
    }

    fn disarm(&mut self, waiting: &Waiting) {
        if let Some(alarm) = waiting.alarm {
            self.queue[self.timers].cancel(alarm);
        }
    }

    /// Takes nothing any more. What has not begun comes back, what is in flight is cancelled.
    pub(super) fn end(&mut self) {
        self.closed = true;
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            self.disarm(&waiting);
            self.give(
                &waiting.submission.slot,
                Answer::refused(shut_down(), waiting.submission.op),
            );
        }
        for flight in self.in_flight.values() {
            self.queue[self.aio].cancel(flight.token);
        }
        self.queue[self.timers].after(GRACE, THE_END);
    }

    /// Leaves behind what is still in flight: nobody waits for it any more.
    pub(super) fn give_up(&mut self) {
        for flight in std::mem::take(&mut self.in_flight).into_values() {
            let answer = Answer { result: Err(shut_down()), op: None, way: Way::Inline };
            self.give(&flight.slot, answer);
        }
    }

    /// Has every future look again: a driver on which it relied is gone.
    pub(super) fn nudge(&mut self) {
        let waiting = self.waiting.values().map(|waiting| &waiting.submission.slot);
        let slots = waiting.chain(self.in_flight.values().map(|flight| &flight.slot));
        self.after.wakers.extend(slots.filter_map(|slot| slot.nudge()));
    }
}
