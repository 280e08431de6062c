//! The peers, each with one loop on one thread.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::epoll;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::{Kind, Pipe, Pipes, Watch};
use crate::group::Result;
use crate::sys;

/// How many events one turn of a loop takes at most.
const EVENTS: usize = 1024;

/// One of the pipes, for those who own what they wait for.
struct Nth(Pipes, usize);

impl AsFd for Nth {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0[self.1].as_fd()
    }
}

impl AsRawFd for Nth {
    fn as_raw_fd(&self) -> RawFd {
        self.0[self.1].as_raw_fd()
    }
}

struct Epoll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    pipes: Pipes,
}

impl Epoll {
    fn open(pipes: Pipes, flags: epoll::EventFlags) -> Result<Epoll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (key, pipe) in pipes.iter().enumerate() {
            epoll::add(&epoll, pipe, epoll::EventData::new_u64(key as u64), flags)?;
        }
        Ok(Epoll { epoll, events: Vec::with_capacity(EVENTS), pipes })
    }

    fn turn(&mut self) -> Result<usize> {
        self.events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), None)?;
        for event in &self.events {
            self.pipes[event.data.u64() as usize].read()?;
        }
        Ok(self.events.len())
    }
}

pub(super) struct EpollLevel(Epoll);
pub(super) struct EpollEdge(Epoll);

impl Watch for EpollLevel {
    fn open(pipes: Pipes) -> Result<Self> {
        Ok(EpollLevel(Epoll::open(pipes, epoll::EventFlags::IN)?))
    }

    fn turn(&mut self) -> Result<usize> {
        self.0.turn()
    }
}

impl Watch for EpollEdge {
    fn open(pipes: Pipes) -> Result<Self> {
        Ok(EpollEdge(Epoll::open(pipes, epoll::EventFlags::IN | epoll::EventFlags::ET)?))
    }

    fn turn(&mut self) -> Result<usize> {
        self.0.turn()
    }
}

pub(super) struct UringPoll {
    ring: sys::Uring,
    pipes: Pipes,
}

impl Watch for UringPoll {
    fn open(pipes: Pipes) -> Result<Self> {
        let mut ring = sys::Uring::new(0)?;
        for (key, pipe) in pipes.iter().enumerate() {
            ring.poll_multishot(pipe.as_raw_fd(), key as u64)?;
        }
        Ok(UringPoll { ring, pipes })
    }

    fn turn(&mut self) -> Result<usize> {
        self.ring.wait(1)?;
        let mut count = 0;
        while let Some(completion) = self.ring.next() {
            let pipe = &self.pipes[completion.key as usize];
            pipe.read()?;
            if !completion.more {
                self.ring.poll_multishot(pipe.as_raw_fd(), completion.key)?;
            }
            count += 1;
        }
        Ok(count)
    }
}

fn receive(ring: &mut sys::Uring, pipe: &Pipe, key: u64) -> std::io::Result<()> {
    match pipe.kind {
        Kind::Pipe => ring.read_multishot(pipe.as_raw_fd(), key),
        Kind::Socket => ring.receive_multishot(pipe.as_raw_fd(), key),
    }
}

pub(super) struct UringRead {
    ring: sys::Uring,
    pipes: Pipes,
}

impl Watch for UringRead {
    fn open(pipes: Pipes) -> Result<Self> {
        // A buffer for each pipe: none runs dry.
        let mut ring = sys::Uring::new(1024)?;
        for (key, pipe) in pipes.iter().enumerate() {
            receive(&mut ring, pipe, key as u64)?;
        }
        Ok(UringRead { ring, pipes })
    }

    fn turn(&mut self) -> Result<usize> {
        self.ring.wait(1)?;
        let mut count = 0;
        while let Some(completion) = self.ring.next() {
            if let Some(buffer) = completion.buffer {
                self.ring.give_back(buffer);
                count += 1;
            }
            if !completion.more {
                receive(&mut self.ring, &self.pipes[completion.key as usize], completion.key)?;
            }
        }
        Ok(count)
    }
}

pub(super) struct Mio {
    poll: mio::Poll,
    events: mio::Events,
    pipes: Pipes,
}

impl Watch for Mio {
    fn open(pipes: Pipes) -> Result<Self> {
        let poll = mio::Poll::new()?;
        for (key, pipe) in pipes.iter().enumerate() {
            let mut source = mio::unix::SourceFd(&pipe.as_raw_fd());
            poll.registry().register(&mut source, mio::Token(key), mio::Interest::READABLE)?;
        }
        Ok(Mio { poll, events: mio::Events::with_capacity(EVENTS), pipes })
    }

    fn turn(&mut self) -> Result<usize> {
        self.poll.poll(&mut self.events, None)?;
        let mut count = 0;
        for event in &self.events {
            self.pipes[event.token().0].read()?;
            count += 1;
        }
        Ok(count)
    }
}

pub(super) struct Polling {
    poller: polling::Poller,
    events: polling::Events,
    pipes: Pipes,
}

impl Watch for Polling {
    fn open(pipes: Pipes) -> Result<Self> {
        let poller = polling::Poller::new()?;
        for (key, pipe) in pipes.iter().enumerate() {
            sys::add_level(&poller, pipe, key)?;
        }
        Ok(Polling { poller, events: polling::Events::new(), pipes })
    }

    fn turn(&mut self) -> Result<usize> {
        self.events.clear();
        self.poller.wait(&mut self.events, None)?;
        let mut count = 0;
        for event in self.events.iter() {
            self.pipes[event.key].read()?;
            count += 1;
        }
        Ok(count)
    }
}

pub(super) struct Calloop(calloop::EventLoop<'static, usize>);

impl Watch for Calloop {
    fn open(pipes: Pipes) -> Result<Self> {
        use calloop::{EventLoop, Interest, Mode, PostAction, generic::Generic};
        let event_loop = EventLoop::try_new()?;
        let handle = event_loop.handle();
        for key in 0..pipes.len() {
            let source = Generic::new(Nth(Rc::clone(&pipes), key), Interest::READ, Mode::Level);
            handle
                .insert_source(source, |_, pipe, count: &mut usize| {
                    pipe.0[pipe.1].read().map_err(std::io::Error::other)?;
                    *count += 1;
                    Ok(PostAction::Continue)
                })
                .map_err(|error| error.to_string())?;
        }
        Ok(Calloop(event_loop))
    }

    fn turn(&mut self) -> Result<usize> {
        let mut count = 0;
        self.0.dispatch(None::<Duration>, &mut count)?;
        Ok(count)
    }
}

/// A task for each pipe, that reads when it is ready.
pub(super) struct Tokio {
    tasks: LocalSet,
    runtime: tokio::runtime::Runtime,
    read: Rc<Read>,
}

#[derive(Default)]
struct Read {
    count: std::cell::Cell<usize>,
    some: Notify,
}

impl Watch for Tokio {
    fn open(pipes: Pipes) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (tasks, read) = (LocalSet::new(), Rc::new(Read::default()));
        let inside = runtime.enter();
        for key in 0..pipes.len() {
            let (pipes, read) = (Rc::clone(&pipes), Rc::clone(&read));
            let ready = sys::async_fd(Nth(Rc::clone(&pipes), key))?;
            tasks.spawn_local(async move {
                while let Ok(mut guard) = ready.readable().await {
                    guard.clear_ready();
                    if pipes[key].read().is_ok() {
                        read.count.set(read.count.get() + 1);
                        read.some.notify_one();
                    }
                }
            });
        }
        drop(inside);
        Ok(Tokio { tasks, runtime, read })
    }

    fn turn(&mut self) -> Result<usize> {
        self.tasks.block_on(&self.runtime, self.read.some.notified());
        Ok(self.read.count.take())
    }
}
