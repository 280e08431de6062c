//! kevent: one queue, one source of readiness.

use std::rc::Rc;

use kevent_core::Queue;
use kevent_net::{Interest, Mode, Readiness, ReadyEvent};

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
