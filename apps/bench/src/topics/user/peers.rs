//! The peers. Those that have only a wake-up of their own get a lock-free queue beside it, which is
//! emptied after each turn of the loop, as in a program that has other events, too.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::{BOUND, Inbox};
use crate::group::Result;
use crate::sys;

pub(super) struct Crossbeam(crossbeam_channel::Receiver<u64>);

impl Inbox for Crossbeam {
    type Post = crossbeam_channel::Sender<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let (post, inbox) = crossbeam_channel::unbounded();
        Ok((Crossbeam(inbox), post))
    }

    fn post(post: &Self::Post, event: u64) {
        let _ = post.send(event);
    }

    fn next(&mut self) -> Result<u64> {
        Ok(self.0.recv()?)
    }
}

pub(super) struct CrossbeamBounded(crossbeam_channel::Receiver<u64>);

impl Inbox for CrossbeamBounded {
    type Post = crossbeam_channel::Sender<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let (post, inbox) = crossbeam_channel::bounded(BOUND);
        Ok((CrossbeamBounded(inbox), post))
    }

    fn post(post: &Self::Post, event: u64) {
        let _ = post.send(event);
    }

    fn next(&mut self) -> Result<u64> {
        Ok(self.0.recv()?)
    }
}

pub(super) struct Flume(flume::Receiver<u64>);

impl Inbox for Flume {
    type Post = flume::Sender<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let (post, inbox) = flume::unbounded();
        Ok((Flume(inbox), post))
    }

    fn post(post: &Self::Post, event: u64) {
        let _ = post.send(event);
    }

    fn next(&mut self) -> Result<u64> {
        Ok(self.0.recv()?)
    }
}

pub(super) struct Tokio(tokio::sync::mpsc::UnboundedReceiver<u64>);

impl Inbox for Tokio {
    type Post = tokio::sync::mpsc::UnboundedSender<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let (post, inbox) = tokio::sync::mpsc::unbounded_channel();
        Ok((Tokio(inbox), post))
    }

    fn post(post: &Self::Post, event: u64) {
        let _ = post.send(event);
    }

    fn next(&mut self) -> Result<u64> {
        match self.0.try_recv() {
            Ok(event) => Ok(event),
            Err(_) => Ok(self.0.blocking_recv().ok_or("closed")?),
        }
    }
}

type Mail = Arc<SegQueue<u64>>;

/// What the last turn of a loop took out of its mail.
#[derive(Default)]
struct Batch(VecDeque<u64>);

impl Batch {
    fn take(&mut self, mail: &SegQueue<u64>) {
        self.0.extend(std::iter::from_fn(|| mail.pop()));
    }
}

pub(super) struct Mio {
    poll: mio::Poll,
    events: mio::Events,
    mail: Mail,
    batch: Batch,
}

impl Inbox for Mio {
    type Post = (Mail, Arc<mio::Waker>);

    fn open() -> Result<(Self, Self::Post)> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0))?);
        let mail = Mail::default();
        let inbox = Mio {
            poll,
            events: mio::Events::with_capacity(64),
            mail: Arc::clone(&mail),
            batch: Batch::default(),
        };
        Ok((inbox, (mail, waker)))
    }

    fn post((mail, waker): &Self::Post, event: u64) {
        mail.push(event);
        let _ = waker.wake();
    }

    fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(event) = self.batch.0.pop_front() {
                return Ok(event);
            }
            self.poll.poll(&mut self.events, None)?;
            self.batch.take(&self.mail);
        }
    }
}

pub(super) struct Polling {
    poller: Arc<polling::Poller>,
    events: polling::Events,
    mail: Mail,
    batch: Batch,
}

impl Inbox for Polling {
    type Post = (Mail, Arc<polling::Poller>);

    fn open() -> Result<(Self, Self::Post)> {
        let poller = Arc::new(polling::Poller::new()?);
        let mail = Mail::default();
        let post = (Arc::clone(&mail), Arc::clone(&poller));
        Ok((
            Polling { poller, events: polling::Events::new(), mail, batch: Batch::default() },
            post,
        ))
    }

    fn post((mail, poller): &Self::Post, event: u64) {
        mail.push(event);
        let _ = poller.notify();
    }

    fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(event) = self.batch.0.pop_front() {
                return Ok(event);
            }
            self.events.clear();
            self.poller.wait(&mut self.events, None)?;
            self.batch.take(&self.mail);
        }
    }
}

pub(super) struct Calloop {
    event_loop: calloop::EventLoop<'static, VecDeque<u64>>,
    inbox: VecDeque<u64>,
}

impl Inbox for Calloop {
    type Post = calloop::channel::Sender<u64>;

    fn open() -> Result<(Self, Self::Post)> {
        let event_loop = calloop::EventLoop::try_new()?;
        let (post, channel) = calloop::channel::channel();
        let handle = event_loop.handle();
        handle
            .insert_source(channel, |event, (), inbox: &mut VecDeque<u64>| {
                if let calloop::channel::Event::Msg(event) = event {
                    inbox.push_back(event);
                }
            })
            .map_err(|error| error.to_string())?;
        Ok((Calloop { event_loop, inbox: VecDeque::new() }, post))
    }

    fn post(post: &Self::Post, event: u64) {
        let _ = post.send(event);
    }

    fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(event) = self.inbox.pop_front() {
                return Ok(event);
            }
            self.event_loop.dispatch(None::<Duration>, &mut self.inbox)?;
        }
    }
}

/// By hand: an eventfd in an epoll set, written at every post.
pub(super) struct Epoll {
    epoll: OwnedFd,
    doorbell: Arc<OwnedFd>,
    mail: Mail,
    batch: Batch,
}

fn ring_doorbell((mail, doorbell): &(Mail, Arc<OwnedFd>), event: u64) {
    mail.push(event);
    let _ = rustix::io::write(doorbell, &1_u64.to_ne_bytes());
}

impl Inbox for Epoll {
    type Post = (Mail, Arc<OwnedFd>);

    fn open() -> Result<(Self, Self::Post)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let doorbell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &doorbell, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        let mail = Mail::default();
        let post = (Arc::clone(&mail), Arc::clone(&doorbell));
        Ok((Epoll { epoll, doorbell, mail, batch: Batch::default() }, post))
    }

    fn post(post: &Self::Post, event: u64) {
        ring_doorbell(post, event);
    }

    fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(event) = self.batch.0.pop_front() {
                return Ok(event);
            }
            let mut event = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }];
            epoll::wait(&self.epoll, &mut event, None)?;
            rustix::io::read(&self.doorbell, &mut [0; 8])?;
            self.batch.take(&self.mail);
        }
    }
}

/// By hand: a multishot read of an eventfd in a ring.
pub(super) struct Uring {
    ring: sys::Uring,
    doorbell: Arc<OwnedFd>,
    mail: Mail,
    reads: bool,
    batch: Batch,
}

impl Inbox for Uring {
    type Post = (Mail, Arc<OwnedFd>);

    fn open() -> Result<(Self, Self::Post)> {
        let doorbell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let mail = Mail::default();
        let post = (Arc::clone(&mail), Arc::clone(&doorbell));
        let ring = sys::Uring::new(64)?;
        Ok((Uring { ring, doorbell, mail, reads: false, batch: Batch::default() }, post))
    }

    fn post(post: &Self::Post, event: u64) {
        ring_doorbell(post, event);
    }

    fn next(&mut self) -> Result<u64> {
        loop {
            if let Some(event) = self.batch.0.pop_front() {
                return Ok(event);
            }
            if !self.reads {
                self.ring.read_multishot(self.doorbell.as_raw_fd(), 0)?;
                self.reads = true;
            }
            self.ring.wait(1)?;
            while let Some(completion) = self.ring.next() {
                completion.buffer.into_iter().for_each(|buffer| self.ring.give_back(buffer));
                self.reads = completion.more;
            }
            self.batch.take(&self.mail);
        }
    }
}
