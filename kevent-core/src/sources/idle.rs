//! An event instead of the queue's sleep.

use std::io;

use crate::poll::PollSet;
use crate::sink::Sink;
use crate::source::{Due, Source};
use crate::token::Token;

/// A source of one event whenever the queue runs out of work: for what is to be done, but never
/// before anything else, such as giving memory back or writing out a log.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Idle, Queue, UserEvents};
///
/// let mut queue = Queue::new()?;
/// queue.attach(Idle::new(), |idle| format!("idle {}", idle.count))?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, |text: &str| text.to_owned())?;
///
/// poster.post("first").unwrap();
/// queue.wait(None)?;
/// assert_eq!(queue.next().unwrap(), "first");
/// queue.wait(None)?; // This one would have slept.
/// assert_eq!(queue.next().unwrap(), "idle 1");
/// queue.wait(Duration::from_millis(1))?; // This one sleeps: nothing was done since.
/// assert_eq!(queue.next(), None);
/// # std::io::Result::Ok(())
/// ```
///
/// The event comes when the sources and the kernel were asked and none had anything, the ring is
/// empty, and the time of the wait is not over; so never from a [`Wait::poll`](crate::Wait::poll).
/// After it the queue does sleep, until an event of another source was delivered.
///
/// What is to be done in pieces is begun at this event and gone on with by posting the next piece
/// to oneself ([`Poster`](crate::Poster)): whatever else has come then takes its turn in between.
///
/// It takes no descriptor and works on every kernel. In a queue whose descriptor is waited for
/// elsewhere (another queue, a runtime) there is no such event: that queue only polls, and whether
/// the thread is about to sleep is known outside.
#[derive(Debug, Default)]
pub struct Idle {
    /// How many events there were.
    count: u64,
}

impl Idle {
    /// A source of idleness. One in a queue is enough; several get an event each.
    #[must_use]
    pub fn new() -> Idle {
        Idle::default()
    }
}

impl Source for Idle {
    type Item = IdleEvent;

    fn attach(&mut self, _: &PollSet) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(Due::WhenIdle)
    }

    /// Called only when the queue is idle, as it says in [`Due::WhenIdle`].
    fn drain(&mut self, sink: &mut impl Sink<IdleEvent>) -> io::Result<()> {
        let count = self.count.wrapping_add(1);
        if sink.push(Token::SOLE, IdleEvent { count }).is_ok() {
            self.count = count;
        }
        Ok(())
    }
}

/// The queue has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdleEvent {
    /// How often that was so, this time included.
    pub count: u64,
}

impl IdleEvent {
    /// One of no queue, for tests: see [`testing::Sim::inject`](crate::testing::Sim::inject).
    #[must_use]
    pub fn for_test(count: u64) -> IdleEvent {
        IdleEvent { count }
    }
}
