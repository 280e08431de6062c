//! Events that the program itself posts.
//!
//! The mailbox is a queue under a lock that is held for a push, or for a swap with an empty one. A
//! look into an empty one takes no lock. The kernel is entered only when the waiting thread sleeps:
//! see [`Waker`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::poll::PollSet;
use crate::sink::{Full, Sink};
use crate::source::{Due, Source};
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
    mailbox: Arc<Mailbox<T>>,
    /// Taken out of the mailbox in one go, on its way into the ring.
    taken: VecDeque<T>,
}

/// Posts events to a [`UserEvents`] source, from any thread. Clones post to the same.
pub struct Poster<T>(Arc<Mailbox<T>>);

struct Mailbox<T> {
    mail: Mutex<Mail<T>>,
    capacity: usize,
    /// There is mail. Written under the lock and read without it: the waiting thread reads it after
    /// it has said that it falls asleep, and whoever posts writes it before he looks whether the
    /// thread sleeps. The two fences of [`Waker`] order these, so neither misses the other.
    has_mail: AtomicBool,
    /// Set once the source is attached. What is posted before is found by its first turn.
    waker: OnceLock<Waker>,
}

struct Mail<T> {
    posts: VecDeque<T>,
    /// The source is gone: nobody will ever look.
    closed: bool,
}

impl<T: Send + 'static> UserEvents<T> {
    /// A source and its first poster, with room for 65,536 posts that the queue has not taken yet.
    #[must_use]
    pub fn new() -> (UserEvents<T>, Poster<T>) {
        UserEvents::with_capacity(DEFAULT_CAPACITY)
    }

    /// A source and its first poster, with room for `capacity` posts.
    #[must_use]
    pub fn with_capacity(capacity: NonZeroUsize) -> (UserEvents<T>, Poster<T>) {
        let mailbox = Arc::new(Mailbox {
            mail: Mutex::new(Mail { posts: VecDeque::new(), closed: false }),
            capacity: capacity.get(),
            has_mail: AtomicBool::new(false),
            waker: OnceLock::new(),
        });
        let source = UserEvents { mailbox: Arc::clone(&mailbox), taken: VecDeque::new() };
        (source, Poster(mailbox))
    }

    /// Another poster to this source.
    #[must_use]
    pub fn poster(&self) -> Poster<T> {
        Poster(Arc::clone(&self.mailbox))
    }
}

impl<T> Mailbox<T> {
    /// A panic elsewhere can't leave the mail half changed: pushing and swapping do not panic.
    fn lock(&self) -> MutexGuard<'_, Mail<T>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub fn post(&self, event: T) -> Result<(), PostError<T>> {
        let mut mail = self.0.lock();
        if mail.closed {
            return Err(PostError::Closed(event));
        }
        if mail.posts.len() >= self.0.capacity {
            return Err(PostError::Full(event));
        }
        mail.posts.push_back(event);
        self.0.has_mail.store(true, Ordering::Relaxed);
        drop(mail);
        if let Some(waker) = self.0.waker.get() {
            waker.wake();
        }
        Ok(())
    }
}

impl<T: Send + 'static> Source for UserEvents<T> {
    type Item = T;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        // A poster looks at the waker without a lock, so it is set once.
        self.mailbox.waker.set(poll_set.waker().clone()).map_err(|_| {
            let text = "a source of user events serves one queue; make a new one";
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        })?;
        // Whoever posts after this sees the waker; of whoever came before, the first turn sees the
        // mail.
        drop(self.mailbox.lock());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        if self.taken.is_empty() && self.mailbox.has_mail.load(Ordering::Relaxed) {
            let mut mail = self.mailbox.lock();
            self.mailbox.has_mail.store(false, Ordering::Relaxed);
            std::mem::swap(&mut self.taken, &mut mail.posts);
        }
        Ok(if self.taken.is_empty() { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<T>) -> io::Result<()> {
        while let Some(event) = self.taken.pop_front() {
            if let Err(Full(event)) = sink.push(Token::SOLE, event) {
                self.taken.push_front(event);
                break;
            }
        }
        Ok(())
    }
}

impl<T> Drop for UserEvents<T> {
    fn drop(&mut self) {
        let mut mail = self.mailbox.lock();
        mail.closed = true;
        // Dropped after the lock: dropping a post may run anything, a post to this mailbox included.
        let posts = std::mem::take(&mut mail.posts);
        drop(mail);
        drop(posts);
    }
}

/// Why an event could not be posted, with the event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PostError<T> {
    /// As many posts wait as the mailbox holds: the queue's thread does not keep up.
    Full(T),
    /// The source, or its queue, is gone.
    Closed(T),
}

impl<T> PostError<T> {
    /// The event that was not posted.
    pub fn into_inner(self) -> T {
        match self {
            PostError::Full(event) | PostError::Closed(event) => event,
        }
    }
}

impl<T> fmt::Debug for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Full(_) => "Full(..)",
            PostError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Full(_) => "the mailbox is full",
            PostError::Closed(_) => "the source of user events is gone",
        })
    }
}

impl<T> std::error::Error for PostError<T> {}

impl<T> Clone for Poster<T> {
    fn clone(&self) -> Self {
        Poster(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Poster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster").field("waiting", &self.0.lock().posts.len()).finish()
    }
}

impl<T> fmt::Debug for UserEvents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserEvents").field("waiting", &self.taken.len()).finish_non_exhaustive()
    }
}
