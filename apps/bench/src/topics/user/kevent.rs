//! kevent: a queue with one source of user events, in some of the ways in which it can be set up.

use std::marker::PhantomData;
use std::num::NonZero;
use std::time::Duration;

use kevent_core::{PostError, Poster, Queue, UserEvents};

use super::Inbox;
use crate::group::Result;

/// How the queue is set up.
pub(super) trait Kind: 'static {
    /// Posts that may wait. As many as any group posts: most of the peers are bounded by memory only.
    const CAPACITY: NonZero<usize> = NonZero::new(1 << 22).unwrap();
    /// How long it watches for a wake-up before it sleeps.
    const SPIN: Duration = Duration::ZERO;
    /// Whether the thread that waits posts to the ring, or as all others do.
    const OWN_POSTS: bool = false;
}

pub(super) struct Plain;
pub(super) struct Bounded;
pub(super) struct OwnPosts;
pub(super) struct Spinning;

impl Kind for Plain {}

impl Kind for Bounded {
    const CAPACITY: NonZero<usize> = NonZero::new(super::BOUND).unwrap();
}

impl Kind for OwnPosts {
    const OWN_POSTS: bool = true;
}

impl Kind for Spinning {
    const SPIN: Duration = Duration::from_micros(20);
}

pub(super) struct Kevent<K> {
    queue: Queue<u64>,
    kind: PhantomData<K>,
}

impl<K: Kind> Inbox for Kevent<K> {
    type Post = Poster<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let mut queue = Queue::new()?;
        queue.set_spin(K::SPIN);
        let (users, poster) = UserEvents::with_capacity(K::CAPACITY);
        queue.attach(users, |event| event)?;
        Ok((Kevent { queue, kind: PhantomData }, poster))
    }

    fn post(post: &Self::Post, mut event: u64) {
        while let Err(PostError::Full(back)) = post.post(event) {
            event = back;
            std::thread::yield_now();
        }
    }

    fn post_here(&mut self, post: &Self::Post, event: u64) {
        if K::OWN_POSTS {
            // As many as are posted at a time fit.
            let _ = self.queue.post(event);
        } else {
            Self::post(post, event);
        }
    }

    fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(event) = self.queue.next() {
                return Ok(event);
            }
            self.queue.wait(None)?;
        }
    }
}
