//! A queue that is simulated: made-up time, a script, and chance from a seed.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use crate::attached::UNREGISTERED;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::queue::{DEFAULT_CAPACITY, Queue};
use crate::script::{Injection, Script};
use crate::source::Source;
use crate::source_id::SourceId;
use crate::token::Token;

/// What the wall clock of a simulation shows in the beginning, in seconds since 1970: some moment of
/// the year 2001.
const WALL: u64 = 1_000_000_000;

/// A world in which a queue never sleeps: time is made up, and what happens is written in a script.
///
/// A program's event loop runs in it unchanged, as long as it is given its [`Queue`], and takes the time
/// from [`Queue::clock`]. When such a queue would sleep, it looks at the kernel without waiting. If
/// nothing is there, the next step of the script happens whose time has come; or else time passes, at
/// once, until the first deadline: of the wait, of a source, or of the script. An hour of a program that
/// mostly waits takes milliseconds.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
/// use kevent_core::testing::Sim;
/// use kevent_core::{Queue, Timers};
///
/// /// The program: has an hour to hear something.
/// fn patient(queue: &mut Queue<&'static str>) -> std::io::Result<Option<&'static str>> {
///     queue.wait(Duration::from_secs(3600))?;
///     Ok(queue.next())
/// }
///
/// let sim = Sim::new(7);
/// let mut queue = sim.queue()?;
/// let timers = queue.attach(Timers::new(), |_| "it is time")?;
/// assert_eq!(patient(&mut queue)?, None);
/// assert_eq!(sim.elapsed(), Duration::from_secs(3600));
///
/// queue[timers].after(Duration::from_secs(1800), 0);
/// assert_eq!(patient(&mut queue)?, Some("it is time"));
/// assert_eq!(sim.elapsed(), Duration::from_secs(5400));
///
/// // With nothing to wait for, the wait says so.
/// let error = queue.wait(None).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::Deadlock);
/// # std::io::Result::Ok(())
/// ```
///
/// # What happens
///
/// [Steps](Sim::at) do whatever a test wants to happen at a time: write into the other end of a socket
/// pair, post, interrupt, [set the wall clock](Sim::set_wall_clock), add further steps. By
/// [`inject`](Sim::inject) a step makes a source tell something that did not happen: a signal, the end of
/// a process, an overflow, a completion with an error. It goes through the source's place in the queue, by
/// the terms of its [`Flow`](crate::Flow).
///
/// # Chance
///
/// The contract of a queue leaves open in which order sources have their turns, which of several ready
/// descriptors is told first, and which of two things is first that happen at one time. In a simulation
/// the seed decides. Two runs with one seed are the same, event for event; of a hundred seeds some find
/// the order that a program did not expect.
///
/// # What is real
///
/// Descriptors are: what the kernel does at once (socket pairs, pipes, eventfds) happens in the same
/// way each time. Where threads are at work, or a network stack, however local, time would pass before
/// they have done anything: see [`set_patience`](Sim::set_patience), and expect no run to be like
/// another. Sources that stand on the kernel's own time, or that wait for real processes, are not
/// simulated: inject what they would tell.
///
/// Several queues of one simulation share its time: it passes for all when one of them sleeps. One may lie
/// in another, whose descriptor gets readable at its deadlines; a loop that is not simulated would wait for
/// those in vain.
#[derive(Clone)]
pub struct Sim(Script);

impl Sim {
    /// A simulation that begins now, at a quarter to two on a September night of the year 2001.
    #[must_use]
    pub fn new(seed: u64) -> Sim {
        Sim(Script::new(seed, SystemTime::UNIX_EPOCH + Duration::from_secs(WALL)))
    }

    /// A queue in this simulation, with room for 1,024 events.
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    pub fn queue<E: 'static>(&self) -> io::Result<Queue<E>> {
        self.queue_with_capacity(DEFAULT_CAPACITY)
    }

    /// A queue in this simulation, with room for that many events.
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    pub fn queue_with_capacity<E: 'static>(&self, capacity: NonZeroUsize) -> io::Result<Queue<E>> {
        Queue::assemble(capacity, Some(self.0.clone()))
    }

    /// Has something happen, that long after the simulation began; at once, if that is past.
    ///
    /// Steps of one time happen in an order that the seed decides.
    pub fn at(&self, time: Duration, step: impl FnOnce(&Sim) + Send + 'static) {
        self.0.add(time, Box::new(|script| step(&Sim(script.clone()))));
    }

    /// Has something happen that long from now.
    pub fn after(&self, delay: Duration, step: impl FnOnce(&Sim) + Send + 'static) {
        self.at(self.elapsed().saturating_add(delay), step);
    }

    /// Has something happen again and again, first one `period` from now, until it breaks off.
    ///
    /// As long as it goes on, no wait is without hope. A `period` of zero counts as one nanosecond.
    pub fn every(
        &self,
        period: Duration,
        mut step: impl FnMut(&Sim) -> ControlFlow<()> + Send + 'static,
    ) {
        let period = period.max(Duration::from_nanos(1));
        self.after(period, move |sim| {
            if step(sim).is_continue() {
                sim.every(period, step);
            }
        });
    }

    /// Makes a source tell `item`, in its next turn, before what it has itself.
    ///
    /// With a `registration` the event is of that one in every respect: the source is asked on the way out
    /// whether it still stands, so none comes of one that was removed meanwhile, and a one-shot
    /// registration ends with it. Without, nobody is asked.
    ///
    /// Nothing happens when the source is detached by then, or of a queue that is not simulated.
    pub fn inject<S: Source>(&self, id: SourceId<S>, registration: Option<Token>, item: S::Item)
    where
        S::Item: Send,
    {
        self.0.inject(Injection {
            queue: id.queue(),
            source: id.token(),
            registration: registration.unwrap_or(UNREGISTERED),
            item: Box::new(Some(item)),
        });
    }

    /// Lets time pass, as if the program, or a step, had been busy for so long. What should have happened
    /// meanwhile happens at the next look.
    pub fn advance(&self, time: Duration) {
        if let Some(then) = self.now().checked_add(time) {
            self.clock().advance_to(then);
        }
    }

    /// Sets the wall clock, as settimeofday(2) does. Wall timers are told of it.
    pub fn set_wall_clock(&self, time: SystemTime) {
        self.clock().set_wall(time);
    }

    /// The clock of all queues of this simulation.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.0.clock()
    }

    /// The time on the monotonic clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock().now()
    }

    /// How much time has passed since the simulation began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Dice for whoever writes a script. Each call gives others; all come from the seed.
    #[must_use]
    pub fn dice(&self) -> Dice {
        self.0.dice()
    }

    /// Before time passes, a queue waits that long for the kernel, in real time. Not at all unless said
    /// otherwise.
    ///
    /// For programs with threads, or with sockets of a network, which need a moment for what takes none
    /// in made-up time. It costs a moment for each step, and the promise that two runs are the same.
    pub fn set_patience(&self, patience: Duration) {
        self.0.set_patience(patience);
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sim").field(&self.0).finish()
    }
}
