//! What a source of events is.

use std::io;
use std::time::Instant;

use crate::poll::{PollKey, PollSet, Ready};
use crate::sink::Sink;
use crate::token::Token;

/// A source of events: file descriptors that say "I have something", and a way to put it in the ring.
///
/// What a source offers its user (register, unregister, arm, submit) is its own business: it is
/// reached through [`Queue`](crate::Queue)'s index. This trait is what the queue needs of it. The
/// contract, which [`testing::Contract`](crate::testing::Contract) checks:
///
/// 1. A source that has nothing is silent: no descriptor of it stays readable, and
///    [`flush`](Source::flush) does not say [`Due::Now`].
/// 2. A source that has something says so, through a descriptor of its poll set, through `flush`, or
///    by [`Waker::wake`](crate::Waker::wake) from whatever thread made it so.
/// 3. [`drain`](Source::drain) pushes until it has nothing or the sink is full. What the sink gives
///    back is kept and pushed again at the next `drain`. Nothing is lost, nothing comes twice.
/// 4. Once a registration is removed, [`deliver`](Source::deliver) answers `false` for its token.
/// 5. No call blocks.
///
/// ```
/// use std::io;
/// use kevent_core::{Due, PollSet, Queue, Sink, Source, Token};
///
/// /// Counts down to nothing: the smallest source there is.
/// struct Countdown(u32);
///
/// impl Source for Countdown {
///     type Item = u32;
///
///     fn attach(&mut self, _: &PollSet) -> io::Result<()> {
///         Ok(())
///     }
///
///     fn flush(&mut self) -> io::Result<Due> {
///         Ok(if self.0 > 0 { Due::Now } else { Due::OnWake })
///     }
///
///     fn drain(&mut self, sink: &mut impl Sink<u32>) -> io::Result<()> {
///         while self.0 > 0 && sink.push(Token::SOLE, self.0).is_ok() {
///             self.0 -= 1;
///         }
///         Ok(())
///     }
/// }
///
/// let mut queue = Queue::new()?;
/// queue.attach(Countdown(3), |n| n)?;
/// let mut counted = Vec::new();
/// queue.wait(None)?;
/// while let Some(n) = queue.next() {
///     counted.push(n);
/// }
/// assert_eq!(counted, [3, 2, 1]);
/// # io::Result::Ok(())
/// ```
pub trait Source: Send + 'static {
    /// What it has to say.
    type Item;

    /// Whether such a source can work here: asks the kernel, and leaves nothing behind. A program can
    /// so choose another way before it makes one.
    ///
    /// # Errors
    ///
    /// `Unsupported` when the kernel, or a filter around the program, lacks what the source needs; the
    /// message says what that is and what to do. Anything else that would keep it from working now.
    ///
    /// ```
    /// use kevent_core::{Processes, Source};
    ///
    /// match Processes::probe() {
    ///     Ok(()) => println!("children can be watched"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// ```
    fn probe() -> io::Result<()>
    where
        Self: Sized,
    {
        Ok(())
    }

    /// Called once, before anything else: put the descriptors to wait for into `poll_set`, and keep a
    /// clone if more come later.
    ///
    /// # Errors
    ///
    /// Whatever makes it impossible to work. The source is then not attached.
    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()>;

    /// A descriptor that the source added under `key` is ready. `drain` follows, once, after all of
    /// them were told. A source that asks the operating system in `drain` needs nothing here.
    fn ready(&mut self, key: PollKey, ready: Ready) {
        let _ = (key, ready);
    }

    /// The queue is about to sleep, or at least to look around: hand over what is batched, and say
    /// when there will be something. Called on every turn, so it should cost next to nothing.
    ///
    /// # Errors
    ///
    /// When the source can no longer work; bad news about one registration is an event instead.
    fn flush(&mut self) -> io::Result<Due> {
        Ok(Due::OnWake)
    }

    /// Moves what the source has into the ring, until there is no more or the sink is full.
    ///
    /// # Errors
    ///
    /// As [`flush`](Source::flush).
    fn drain(&mut self, sink: &mut impl Sink<Self::Item>) -> io::Result<()>;

    /// When that happened which the next [`drain`](Source::drain) would push first, by the queue's
    /// [clock](crate::PollSet::clock). `None` when the source does not know: then it happened when the
    /// queue was told of it. Asked under [`Order::Strict`](crate::Order::Strict) only, of a source that
    /// has something.
    fn oldest(&mut self) -> Option<Instant> {
        None
    }

    /// An event of the registration `token` is about to be handed to the user. `false` keeps it from
    /// him: the registration is gone, or what the event says is no longer true. A one-shot
    /// registration ends here, and not when its event went into the ring, so that removing it in
    /// between still takes the event back.
    ///
    /// [`flush`](Source::flush) is called after it and before anybody sleeps. If that will now name an
    /// earlier time, tell the [waker](crate::Waker::changed).
    fn deliver(&mut self, token: Token) -> bool {
        let _ = token;
        true
    }

    /// The source leaves the queue and goes back to the user, who may keep it, and attach it
    /// elsewhere: drop the poll set. What is in the ring is lost there; a source that can, tells it
    /// again in its next queue.
    ///
    /// The queue takes the source's descriptors out of the poll set after this, so one that is to be
    /// closed now is to be deleted first: closed while a duplicate is open, it could not be taken out.
    fn detach(&mut self) {}
}

/// When a source will have something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It has something.
    Now,
    /// Instead of the queue's next sleep: when no source has anything, the ring is empty, and the
    /// time of the wait is not over. Not a second time until another event was delivered, so that it
    /// keeps no queue awake that has nothing to do. A source that says this is not drained before; one
    /// that has descriptors too says `Now` when one of them is ready.
    WhenIdle,
    /// At that time, or before, when a descriptor of it gets ready or it wakes the queue.
    At(Instant),
    /// When a descriptor of it gets ready or it wakes the queue.
    OnWake,
}

impl Due {
    /// The earlier of the two.
    #[must_use]
    #[inline]
    pub fn or_sooner(self, other: Due) -> Due {
        match (self, other) {
            (due, Due::OnWake) | (Due::OnWake, due) => due,
            (Due::Now, _) | (_, Due::Now) => Due::Now,
            (Due::WhenIdle, _) | (_, Due::WhenIdle) => Due::WhenIdle,
            (Due::At(a), Due::At(b)) => Due::At(a.min(b)),
        }
    }
}
