//! The end of a chain whose engine goes away: nobody goes on with it, and it cleans up behind itself.

use std::io;

use super::Chain;
use super::state::Live;
use super::steps::Work;
use crate::operation::{Operation, Step};

impl Drop for Chain {
    /// Does what was deferred and was not done, by calls on this thread. A chain that is over, or was never
    /// begun, has nothing of that.
    fn drop(&mut self) {
        let live = self.run.live.take().filter(|live| live.cleanup);
        // Files are closed by being dropped. And a forked child, which may drop the engine of its parent, leaves to
        // that what is to be done once.
        if !self.defers(live.as_ref()) || self.run.process != std::process::id() {
            return;
        }
        if !self.run.ending {
            self.run.failure = Some(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        let mut next = live.or_else(|| self.next_cleanup());
        while let Some(live) = next {
            finish(live);
            next = self.next_cleanup();
        }
    }
}

impl Chain {
    /// Whether something that was deferred is left to be done.
    fn defers(&self, live: Option<&Live>) -> bool {
        let steps = self.run.pending.iter().copied().chain(live.map(|live| live.step));
        let mut works = steps.filter_map(|step| self.steps.get(step));
        works.any(|step| matches!(step.work, Work::Defer { .. }))
    }
}

/// Does a clean-up by blocking calls. None of them waits for a socket: see `check`.
fn finish(Live { mut doing, .. }: Live) {
    let mut step = doing.advance();
    loop {
        step = match step {
            Step::Run => {
                let outcome = doing.run();
                doing.complete(outcome)
            }
            Step::Again => doing.advance(),
            Step::Done(_) | Step::Writable | Step::Piece | Step::Rest => return,
        }
    }
}
