//! kevent: one queue, one source of timers.

use std::time::Instant;

use kevent_core::{Queue, SourceId, TimerEvent, Token};

use super::Timers;
use crate::group::Result;

pub(super) struct Kevent {
    queue: Queue<TimerEvent>,
    timers: SourceId<kevent_core::Timers>,
}

impl Timers for Kevent {
    type Id = Token;

    fn open() -> Result<Self> {
        let mut queue = Queue::new()?;
        let timers = queue.attach(kevent_core::Timers::new(), |event| event)?;
        Ok(Kevent { queue, timers })
    }

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<Token> {
        Ok(self.queue[self.timers].at(deadline, key))
    }

    fn cancel(&mut self, id: Token) -> Result<()> {
        if self.queue[self.timers].cancel(id) { Ok(()) } else { Err("no such timer".into()) }
    }

    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()> {
        self.queue.wait(None)?;
        while let Some(event) = self.queue.next() {
            fired(event.key);
        }
        Ok(())
    }
}
