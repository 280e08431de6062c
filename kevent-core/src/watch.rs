//! Watching a queue's descriptor for a task, where no runtime does.
//!
//! An epoll set with two entries: the descriptor of the queue, and a bell that brings the watching
//! thread back. One thread at a time has the role of watching: a helper of the stream, or the thread
//! that is in `block_on`.
//!
//! The order that loses no wake-up. The task looks into the queue and finds nothing. Then it puts down
//! its waker, and arms the entry of the queue. The entry is level-triggered and one-shot: if the queue
//! has become readable in between, arming reports it at once; and once it has been reported, the thread
//! sleeps on, however readable the queue is, until the task has looked again and found nothing. So
//! neither misses the other, and the thread never spins.
//!
//! `armed` is changed under the lock. It may still say so when the kernel has disarmed the entry and the
//! thread is on its way to the lock: the task then saves itself the call, and the thread finds the
//! waker that the task put down before.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task;
use std::time::Duration;

use polling::Poller;

use crate::doorbell::{Doorbell, Was};
use crate::sys::epoll::{self, Change, Events};
use crate::sys::eventfd::EventFd;

/// The data of the two entries.
const QUEUE: u64 = 0;
const BELL: u64 = 1;

/// What a task and the thread that watches for it share.
#[derive(Debug)]
pub(crate) struct Watch {
    set: Poller,
    /// A duplicate: it stays open whatever becomes of the queue.
    queue: OwnedFd,
    bell: Arc<Bell>,
    post: Mutex<Post>,
}

/// Brings the thread back that watches.
#[derive(Debug)]
pub(crate) struct Bell {
    doorbell: Doorbell,
    eventfd: EventFd,
}

#[derive(Debug, Default)]
struct Post {
    /// Of the task that waits for the queue.
    waker: Option<task::Waker>,
    armed: bool,
    /// A thread has the role.
    watched: bool,
    /// The task is gone: nobody will wait any more.
    ended: bool,
}

impl Watch {
    /// With the role of watching, which is the caller's until he drops it.
    pub(crate) fn new(queue: BorrowedFd<'_>) -> io::Result<(Arc<Watch>, Watching)> {
        let set = Poller::new()?;
        let bell = Arc::new(Bell { doorbell: Doorbell::new(), eventfd: EventFd::new()? });
        let queue = queue.try_clone_to_owned()?;
        epoll::control(&set, Change::Add, queue.as_raw_fd(), 0, QUEUE)?;
        // Edge-triggered, so that it is never read.
        let eventfd = bell.eventfd.as_fd().as_raw_fd();
        epoll::control(&set, Change::Add, eventfd, epoll::IN | epoll::ET, BELL)?;
        let post = Mutex::new(Post { watched: true, ..Post::default() });
        let watch = Arc::new(Watch { set, queue, bell, post });
        let watching = Watching::new(&watch);
        Ok((watch, watching))
    }

    /// The task of `waker` has looked into the queue, and waits.
    pub(crate) fn arm(&self, waker: &task::Waker) -> io::Result<()> {
        let mut post = self.lock();
        let before = post.waker.replace(waker.clone());
        let mut armed = Ok(());
        if !post.armed {
            let flags = epoll::IN | epoll::ONESHOT;
            armed = epoll::control(&self.set, Change::Modify, self.queue.as_raw_fd(), flags, QUEUE);
            post.armed = armed.is_ok();
        }
        drop(post);
        // After the lock: it may be the last waker of another task, and drop that with it.
        drop(before);
        armed
    }

    /// The role of watching, if nobody has it.
    pub(crate) fn begin(self: &Arc<Watch>) -> Option<Watching> {
        let mut post = self.lock();
        let vacant = !std::mem::replace(&mut post.watched, true);
        vacant.then(|| Watching::new(self))
    }

    /// Nobody waits for the queue any more: the thread that watches may go.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.bell.eventfd.add_one();
    }

    fn lock(&self) -> MutexGuard<'_, Post> {
        // It is changed by single assignments: a panic leaves nothing half done.
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell {
    /// Ends the sleep of the thread, or keeps it from falling asleep.
    pub(crate) fn ring(&self) {
        // It never spins, so it is asleep or awake.
        if self.doorbell.wake() == Was::Asleep {
            self.eventfd.add_one();
        }
    }
}

/// The role of the one thread that watches.
pub(crate) struct Watching {
    watch: Arc<Watch>,
    found: Events,
}

impl Watching {
    fn new(watch: &Arc<Watch>) -> Watching {
        Watching { watch: Arc::clone(watch), found: Events::with_capacity(2) }
    }

    /// For others, to bring this thread back.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.watch.bell
    }

    /// Sleeps until the task's turn has come, and wakes it.
    ///
    /// With `ready`, which says whether this thread has something else to do, it sleeps only if not, and
    /// whoever then makes it so ends the sleep by the bell.
    pub(crate) fn sleep_unless(&mut self, ready: impl Fn() -> bool) -> io::Result<()> {
        // Before the look at `ready`: see `doorbell`.
        self.watch.bell.doorbell.fall_asleep();
        let timeout = ready().then_some(Duration::ZERO);
        let slept = epoll::wait(&self.watch.set, &mut self.found, timeout, None);
        self.watch.bell.doorbell.wake_up();
        match slept {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            slept => slept?,
        }
        if self.found.iter().any(|(_, data)| data == QUEUE) {
            let mut post = self.watch.lock();
            post.armed = false;
            let waker = post.waker.take();
            drop(post);
            waker.into_iter().for_each(task::Waker::wake);
        }
        Ok(())
    }

    /// Watches until the task is gone.
    pub(crate) fn stay(mut self) {
        while !self.watch.lock().ended {
            // It has nobody to tell of a failure. The task finds that nobody watches, and says so.
            if self.sleep_unless(|| false).is_err() {
                return;
            }
        }
    }
}

/// However the role ends, the task is told, and finds somebody else.
impl Drop for Watching {
    fn drop(&mut self) {
        let mut post = self.watch.lock();
        post.watched = false;
        let waker = post.waker.take();
        drop(post);
        waker.into_iter().for_each(task::Waker::wake);
    }
}
