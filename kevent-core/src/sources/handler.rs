//! Events posted from signal handlers.
//!
//! A handler may have interrupted anything: malloc(3) with its lock held, another post, the queue's
//! own thread in the middle of taking one out. So here nobody ever waits for somebody else to
//! finish, and nothing is allocated: the mailbox is a fixed ring in which each slot says whose turn
//! it is (D. Vyukov's bounded queue).
//!
//! - A post claims a position by compare-and-swap, writes its value, and then publishes the slot.
//!   One that is interrupted in between has its slot. The interrupting post claims the next.
//! - The reader takes published slots in order and stops at one that is claimed only. Whoever
//!   claimed it wakes the queue after publishing, so what lies behind it is not forgotten either.
//!
//! Order that loses no wake-up: see [`Waker`]. A post that finds no waker, because the source is
//! about to be attached, is found by the first turn. The two fences see to that.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crate::mailbox::PostError;
use crate::poll::PollSet;
use crate::sink::Sink;
use crate::source::{Due, Source};
use crate::token::Token;
use crate::waker::Waker;

/// Posts that [`HandlerEvents::new`] holds until the queue takes them.
const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A source of numbers that signal handlers post, and anybody else may.
///
/// For a program that has a handler of its own: a sampling profiler, a library's, one for a signal
/// that can't wait. To be told of signals and nothing more, [`Signals`](crate::Signals) is the
/// source.
///
/// ```
/// use std::sync::OnceLock;
/// use kevent_core::{HandlerEvents, HandlerPoster, Queue};
///
/// static POSTER: OnceLock<HandlerPoster> = OnceLock::new();
///
/// extern "C" fn on_signal(signal: i32) {
///     if let Some(poster) = POSTER.get() {
///         let _ = poster.post(signal as u64); // What is refused is counted.
///     }
/// }
///
/// let mut queue = Queue::new()?;
/// let (events, poster) = HandlerEvents::new();
/// let _ = POSTER.set(poster);
/// queue.attach(events, |number| number)?;
///
/// // SAFETY: the handler does only what a handler may.
/// unsafe { libc::signal(libc::SIGUSR1, on_signal as *const () as usize) };
/// # // SAFETY: passes a number.
/// # unsafe { libc::raise(libc::SIGUSR1) };
/// queue.wait(None)?; // … and somebody sends SIGUSR1
/// assert_eq!(queue.next(), Some(libc::SIGUSR1 as u64));
/// # std::io::Result::Ok(())
/// ```
///
/// A handler that does not return, by siglongjmp(3), may have interrupted a post that is then never
/// finished: what is posted after it never comes out.
///
/// It takes no descriptor and works on every kernel.
///
/// Source: signal-safety(7).
pub struct HandlerEvents {
    mailbox: Arc<Mailbox>,
    /// The position of the next value to take.
    head: usize,
}

/// Posts numbers to a [`HandlerEvents`] source, from signal handlers and from any thread. Clones
/// post to the same.
///
/// Make it, clone it and drop it outside of handlers: a static has it for them.
#[derive(Clone)]
pub struct HandlerPoster(Arc<Mailbox>);

struct Mailbox {
    /// A power of two of them, two at least.
    slots: Box<[Slot]>,
    /// The position of the next post.
    tail: AtomicUsize,
    refused: AtomicU64,
    closed: AtomicBool,
    /// Set once the source is attached.
    waker: OnceLock<Waker>,
}

/// Serves one position after the other, each a round of the ring further.
struct Slot {
    /// Equal to the position that it is free for; one more when that position's value is in it.
    turn: AtomicUsize,
    value: AtomicU64,
}

impl HandlerEvents {
    /// A source and its first poster, with room for 4,096 posts that the queue has not taken yet.
    #[must_use]
    pub fn new() -> (HandlerEvents, HandlerPoster) {
        HandlerEvents::with_capacity(DEFAULT_CAPACITY)
    }

    /// A source and its first poster, with room for `capacity` posts, or up to twice as many: the
    /// next power of two.
    ///
    /// # Panics
    ///
    /// When there is not that much memory, all of which is taken here.
    #[must_use]
    pub fn with_capacity(capacity: NonZeroUsize) -> (HandlerEvents, HandlerPoster) {
        // A ring of one could not tell a slot that is full from one that is free for the next
        // round.
        let capacity = capacity.get().next_power_of_two().max(2);
        let slot = |n| Slot { turn: AtomicUsize::new(n), value: AtomicU64::new(0) };
        let mailbox = Arc::new(Mailbox {
            slots: (0..capacity).map(slot).collect(),
            tail: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            waker: OnceLock::new(),
        });
        (HandlerEvents { mailbox: Arc::clone(&mailbox), head: 0 }, HandlerPoster(mailbox))
    }

    /// How many posts found the mailbox full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.mailbox.refused.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    /// The slot that serves `position`, among others. There always is one.
    fn slot(&self, position: usize) -> Option<&Slot> {
        self.slots.get(position & (self.slots.len().wrapping_sub(1)))
    }

    /// `false` when there is no room. Runs in signal handlers.
    fn put(&self, value: u64) -> bool {
        let mut position = self.tail.load(Ordering::Relaxed);
        while let Some(slot) = self.slot(position) {
            let turn = slot.turn.load(Ordering::Acquire);
            if turn == position {
                let next = position.wrapping_add(1);
                let claim = self.tail.compare_exchange_weak(
                    position,
                    next,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                match claim {
                    Ok(_) => {
                        slot.value.store(value, Ordering::Relaxed);
                        slot.turn.store(next, Ordering::Release);
                        return true;
                    }
                    Err(tail) => position = tail,
                }
            } else if (turn.wrapping_sub(position) as isize) < 0 {
                // It has the value of the round before.
                return false;
            } else {
                // Others were faster.
                position = self.tail.load(Ordering::Relaxed);
            }
        }
        false
    }

    /// The value at `position`, if it is published.
    fn peek(&self, position: usize) -> Option<u64> {
        let slot = self.slot(position)?;
        let published = slot.turn.load(Ordering::Acquire) == position.wrapping_add(1);
        published.then(|| slot.value.load(Ordering::Relaxed))
    }

    /// Frees the slot of `position`, whose value was taken, for the next round.
    fn free(&self, position: usize) {
        if let Some(slot) = self.slot(position) {
            slot.turn.store(position.wrapping_add(self.slots.len()), Ordering::Release);
        }
    }
}

impl HandlerPoster {
    /// Posts a number. It comes out after all that this thread, or the handler, posted before.
    ///
    /// Async-signal-safe: takes no lock, allocates nothing, does not panic, and leaves `errno`
    /// alone. Makes a system call, one write(2), only when the queue sleeps, and then only the
    /// first of those who post. It may interrupt another post, or the queue, anywhere.
    ///
    /// What is posted in a child of fork(2) does not reach the parent's queue: at most it wakes it
    /// for nothing.
    ///
    /// # Errors
    ///
    /// The number, when the mailbox is full (which is counted: [`HandlerEvents::refused`]) or the
    /// source is gone: [`PostError`] says which.
    pub fn post(&self, number: u64) -> Result<(), PostError<u64>> {
        let mailbox = &*self.0;
        if mailbox.closed.load(Ordering::Relaxed) {
            return Err(PostError::Closed(number));
        }
        if !mailbox.put(number) {
            mailbox.refused.fetch_add(1, Ordering::Relaxed);
            return Err(PostError::Full(number));
        }
        // Either this sees the waker, or the first turn of the source sees the post.
        fence(Ordering::SeqCst);
        if let Some(waker) = mailbox.waker.get() {
            waker.wake();
        }
        Ok(())
    }
}

impl Source for HandlerEvents {
    type Item = u64;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        // A handler looks at the waker at any time, so it is set once.
        self.mailbox.waker.set(poll_set.waker().clone()).map_err(|_| {
            let text = "a source of posts from handlers serves one queue; make a new one";
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        })?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.mailbox.peek(self.head).is_some() { Due::Now } else { Due::OnWake })
    }

    fn drain(&mut self, sink: &mut impl Sink<u64>) -> io::Result<()> {
        while let Some(number) = self.mailbox.peek(self.head) {
            if sink.push(Token::SOLE, number).is_err() {
                break;
            }
            self.mailbox.free(self.head);
            self.head = self.head.wrapping_add(1);
        }
        Ok(())
    }
}

impl Drop for HandlerEvents {
    fn drop(&mut self) {
        self.mailbox.closed.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for HandlerEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerEvents").field("refused", &self.refused()).finish_non_exhaustive()
    }
}

impl fmt::Debug for HandlerPoster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerPoster").field("room", &self.0.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn mailbox(capacity: usize) -> (HandlerEvents, HandlerPoster) {
        HandlerEvents::with_capacity(NonZeroUsize::new(capacity).unwrap())
    }

    fn take(source: &mut HandlerEvents) -> Option<u64> {
        let value = source.mailbox.peek(source.head)?;
        source.mailbox.free(source.head);
        source.head = source.head.wrapping_add(1);
        Some(value)
    }

    /// As if the ring had been used so many times.
    fn begin_at(source: &mut HandlerEvents, position: usize) {
        let position = position & !(source.mailbox.slots.len() - 1);
        source.head = position;
        source.mailbox.tail.store(position, Ordering::Relaxed);
        for (n, slot) in source.mailbox.slots.iter().enumerate() {
            slot.turn.store(position.wrapping_add(n), Ordering::Relaxed);
        }
    }

    proptest! {
        /// Against a model, also where positions wrap around.
        #[test]
        fn mailbox_is_a_bounded_queue(
            capacity in 1_usize..9,
            begin in prop_oneof![Just(0), Just(usize::MAX - 7), any::<usize>()],
            steps in prop::collection::vec(any::<Option<u64>>(), 0..200),
        ) {
            let (mut source, poster) = mailbox(capacity);
            begin_at(&mut source, begin);
            let room = capacity.next_power_of_two().max(2);
            let (mut model, mut refused) = (VecDeque::new(), 0);
            for step in steps {
                match step {
                    Some(number) if model.len() == room => {
                        refused += 1;
                        prop_assert_eq!(poster.post(number), Err(PostError::Full(number)));
                    }
                    Some(number) => {
                        model.push_back(number);
                        prop_assert_eq!(poster.post(number), Ok(()));
                    }
                    None => prop_assert_eq!(take(&mut source), model.pop_front()),
                }
                prop_assert_eq!(source.refused(), refused);
            }
        }
    }

    #[test]
    fn post_that_interrupts_another_has_the_next_slot_and_comes_after_it() {
        let (mut source, poster) = mailbox(4);
        // The first post, up to where its slot is claimed.
        source.mailbox.tail.store(1, Ordering::Relaxed);
        poster.post(2).unwrap();
        assert_eq!(take(&mut source), None, "nothing is taken past a slot that is only claimed");
        // And the rest of it.
        let slot = source.mailbox.slot(0).unwrap();
        slot.value.store(1, Ordering::Relaxed);
        slot.turn.store(1, Ordering::Release);
        assert_eq!((take(&mut source), take(&mut source)), (Some(1), Some(2)));
    }

    #[test]
    fn source_that_is_gone_is_told() {
        let (source, poster) = mailbox(4);
        drop(source);
        assert_eq!(poster.post(7), Err(PostError::Closed(7)));
    }
}
