//! kevent: one queue, and a source of readiness or one that receives.

use std::num::NonZero;
use std::rc::Rc;

use kevent_core::Queue;
use kevent_net::{Interest, Mode, Readiness, ReadyEvent, ReceiveEvent, Received, Receiver};

use super::{Pipes, Watch};
use crate::group::Result;

pub(super) struct Level(Kevent);
pub(super) struct Edge(Kevent);

impl Watch for Level {
    fn open(pipes: Pipes) -> Result<Self> {
        Ok(Level(Kevent::open(pipes, Mode::Level)?))
    }

    fn turn(&mut self) -> Result<usize> {
        self.0.turn()
    }
}

impl Watch for Edge {
    fn open(pipes: Pipes) -> Result<Self> {
        Ok(Edge(Kevent::open(pipes, Mode::Edge)?))
    }

    fn turn(&mut self) -> Result<usize> {
        self.0.turn()
    }
}

struct Kevent {
    queue: Queue<ReadyEvent>,
    pipes: Pipes,
}

impl Kevent {
    fn open(pipes: Pipes, mode: Mode) -> Result<Kevent> {
        let mut queue = Queue::new()?;
        let id = queue.attach(Readiness::new(), |event| event)?;
        for (key, pipe) in pipes.iter().enumerate() {
            queue[id].register(pipe, Interest::READABLE, mode, key as u64)?;
        }
        Ok(Kevent { queue, pipes: Rc::clone(&pipes) })
    }

    fn turn(&mut self) -> Result<usize> {
        self.queue.wait(None)?;
        let mut count = 0;
        while let Some(event) = self.queue.next() {
            self.pipes[event.key as usize].read()?;
            count += 1;
        }
        Ok(count)
    }
}

/// Receive by themselves, on io_uring.
pub(super) struct Ring(Receiving);
pub(super) struct RingOfOneThread(Receiving);

impl Watch for Ring {
    fn open(pipes: Pipes) -> Result<Self> {
        Ok(Ring(Receiving::open(&pipes, Receiver::with_buffers(BUFFERS, SIZE)?)?))
    }

    fn turn(&mut self) -> Result<usize> {
        self.0.turn()
    }
}

impl Watch for RingOfOneThread {
    fn open(pipes: Pipes) -> Result<Self> {
        Ok(RingOfOneThread(Receiving::open(&pipes, Receiver::for_one_thread(BUFFERS, SIZE)?)?))
    }

    fn turn(&mut self) -> Result<usize> {
        self.0.turn()
    }
}

/// A buffer for each pipe, as large as what is written.
const BUFFERS: NonZero<usize> = NonZero::new(1024).unwrap();
const SIZE: NonZero<usize> = NonZero::new(64).unwrap();

struct Receiving(Queue<ReceiveEvent>);

impl Receiving {
    fn open(pipes: &Pipes, receiver: Receiver) -> Result<Receiving> {
        let mut queue = Queue::new()?;
        let id = queue.attach(receiver, |event| event)?;
        for (key, pipe) in pipes.iter().enumerate() {
            queue[id].register(&pipe.read, key as u64)?;
        }
        Ok(Receiving(queue))
    }

    fn turn(&mut self) -> Result<usize> {
        self.0.wait(None)?;
        let mut count = 0;
        while let Some(event) = self.0.next() {
            match event.received {
                Received::Data(_) => count += 1,
                other => return Err(format!("received {other:?}").into()),
            }
        }
        Ok(count)
    }
}
