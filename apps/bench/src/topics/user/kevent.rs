//! kevent: a queue with one source of user events, and posts of its own where one thread is all there
//! is.

use kevent_core::{PostError, Poster, Queue, UserEvents};

use super::Inbox;
use crate::group::Result;

pub(super) struct Kevent(Queue<u64>);

impl Inbox for Kevent {
    type Post = Poster<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let mut queue = Queue::new()?;
        let (users, poster) = UserEvents::new();
        queue.attach(users, |event| event)?;
        Ok((Kevent(queue), poster))
    }

    fn post(post: &Self::Post, mut event: u64) {
        while let Err(PostError::Full(back)) = post.post(event) {
            event = back;
            std::thread::yield_now();
        }
    }

    fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(event) = self.0.next() {
                return Ok(event);
            }
            self.0.wait(None)?;
        }
    }
}

/// The queue's own posts, for who needs no other thread.
pub(super) struct OwnPosts(Kevent);

impl Inbox for OwnPosts {
    type Post = Poster<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let (kevent, poster) = Kevent::open()?;
        Ok((OwnPosts(kevent), poster))
    }

    fn post(post: &Self::Post, event: u64) {
        Kevent::post(post, event);
    }

    fn post_here(&mut self, _: &Self::Post, event: u64) {
        // 64 of them fit.
        let _ = self.0.0.post(event);
    }

    fn next(&mut self) -> Result<u64> {
        self.0.next()
    }
}
