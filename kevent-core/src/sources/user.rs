//! Events that the program itself posts.
//!
//! A post is a few writes into a [`Mailbox`] and wakes nobody. Only when the waiting thread falls
//! asleep does it await a post, and then the one poster who fills just that slot wakes it.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::Instant;

use crate::linger::{self, Linger};
use crate::mailbox::{Inbox, Mailbox, PostError, Posted};
use crate::poll::PollSet;
use crate::sink::{Full, Sink};
use crate::source::{Due, Source};
use crate::sync::Arc;
use crate::token::Token;
use crate::waker::Waker;

/// Posts that [`UserEvents::new`] holds until the queue takes them.
const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// A source of events that any thread may post, with a payload.
///
/// ```
/// use kevent_core::{Queue, UserEvents};
///
/// let mut queue = Queue::new()?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, |text: String| text)?;
///
/// let other = poster.clone();
/// std::thread::spawn(move || other.post("from a thread".to_owned()));
///
/// queue.wait(None)?;
/// assert_eq!(queue.next().as_deref(), Some("from a thread"));
/// # std::io::Result::Ok(())
/// ```
pub struct UserEvents<T> {
    inbox: Inbox<T>,
    poster: Poster<T>,
    linger: Linger,
}

/// Posts events to a [`UserEvents`] source, from any thread. Clones post to the same.
pub struct Poster<T> {
    mailbox: Arc<Mailbox<T>>,
    /// Set once the source is attached. Posts made before are found by its first turn.
    waker: Arc<OnceLock<Waker>>,
}

impl<T: Send + 'static> UserEvents<T> {
    /// A source and its first poster, with room for 65,536 posts that the queue has not taken yet.
    #[must_use]
    pub fn new() -> (UserEvents<T>, Poster<T>) {
        UserEvents::with_capacity(DEFAULT_CAPACITY)
    }

    /// A source and its first poster, with room for `capacity` posts, or for 16,777,216 if that is
    /// more. The room is taken as it is needed, 64 posts at a time.
    #[must_use]
    pub fn with_capacity(capacity: NonZeroUsize) -> (UserEvents<T>, Poster<T>) {
        let (mailbox, inbox) = Mailbox::new(capacity);
        let poster = Poster { mailbox, waker: Arc::new(OnceLock::new()) };
        (UserEvents { inbox, poster: poster.clone(), linger: Linger::new() }, poster)
    }

    /// Another poster to this source.
    #[must_use]
    pub fn poster(&self) -> Poster<T> {
        self.poster.clone()
    }
}

impl<T: Send + 'static> UserEvents<T> {
    /// Moves up to `count` posts into the ring. Says how many those were.
    fn take(&mut self, count: usize, sink: &mut impl Sink<T>) -> usize {
        let mut left = count;
        self.inbox.take_while(|event| {
            if left == 0 {
                return Err(event);
            }
            sink.push(Token::SOLE, event).map_err(|Full(event)| event)?;
            left -= 1;
            Ok(())
        });
        count - left
    }
}

impl<T> Poster<T> {
    /// Posts an event. It comes out after all that were posted before it.
    ///
    /// Never blocks. Makes a system call only when the queue sleeps, and then only the first of those
    /// who post.
    ///
    /// # Errors
    ///
    /// The event, when the mailbox is full or the source is gone: [`PostError`] says which.
    #[inline]
    pub fn post(&self, event: T) -> Result<(), PostError<T>> {
        let posted = match self.waker.get().and_then(Waker::stamp) {
            None => self.mailbox.post(event),
            Some(now) => self.mailbox.post_stamped(event, now),
        };
        if posted? == Posted::Awaited {
            self.wake();
        }
        Ok(())
    }

    #[cold]
    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

impl<T: Send + 'static> Source for UserEvents<T> {
    type Item = T;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        // A poster looks at the waker without a lock, so it is set once.
        self.poster.waker.set(poll_set.waker().clone()).map_err(|_| {
            let text = "a source of user events serves one queue; make a new one";
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        })
    }

    fn flush(&mut self) -> io::Result<Due> {
        if self.inbox.has_mail() {
            return Ok(Due::Now);
        }
        // While the queue is awake it comes by again, and posters need not know.
        let sleepy = self.poster.waker.get().is_some_and(Waker::is_asleep);
        Ok(if sleepy && !self.inbox.await_mail() { Due::Now } else { Due::OnWake })
    }

    fn drain(&mut self, sink: &mut impl Sink<T>) -> io::Result<()> {
        // In strict order it is one at a time: that after it may have come later than another source's.
        if let Some(until) = sink.until() {
            // What comes only now is of the next turn: whether it is that late is known once it is here.
            let here = self.inbox.has_mail();
            if here && self.oldest().is_none_or(|posted| posted <= until) {
                self.take(1, sink);
            }
            return Ok(());
        }
        let taken = self.take(usize::MAX, sink);
        // Others that sleep on the queue, or wait for their turn with it, are not to wait for this.
        let alone = self.poster.waker.get().is_some_and(|waker| !waker.is_exported());
        let short = (1..linger::ENOUGH).contains(&taken) && sink.room() > 0;
        if short && alone && self.linger.lingers() {
            let came = self.take(usize::MAX, sink);
            self.linger.came(came);
        }
        Ok(())
    }

    fn oldest(&mut self) -> Option<Instant> {
        let posted = self.inbox.stamp()?;
        self.poster.waker.get().map(|waker| waker.clock().instant(posted))
    }
}

impl<T> Clone for Poster<T> {
    fn clone(&self) -> Self {
        Poster { mailbox: Arc::clone(&self.mailbox), waker: Arc::clone(&self.waker) }
    }
}

impl<T> fmt::Debug for Poster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster").field("waiting", &self.mailbox.len()).finish()
    }
}

impl<T> fmt::Debug for UserEvents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserEvents").field("waiting", &self.inbox.len()).finish_non_exhaustive()
    }
}
