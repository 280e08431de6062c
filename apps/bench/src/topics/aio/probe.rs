//! Whether a thread that waits for events is stuck in something else meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::measure;

/// Posts an event to that thread every now and then. How long one waits is how long the thread was away: one that
/// is away for long is late with all that were posted meanwhile.
pub(super) struct Probe {
    /// On which processor.
    pub(super) cpu: usize,
}

/// How often a probe posts.
const PROBE_INTERVAL: Duration = Duration::from_micros(250);

/// Posts are made until this is dropped.
pub(super) struct Probing {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    /// Has a thread call `post` with the time of the call.
    pub(super) fn start(&self, post: impl Fn(Instant) + Send + 'static) -> Probing {
        let over = Arc::new(AtomicBool::new(false));
        let (cpu, is_over) = (self.cpu, Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            // Where it can't be pinned it posts from where it is.
            let _ = measure::pin(cpu);
            while !is_over.load(Relaxed) {
                post(Instant::now());
                std::thread::sleep(PROBE_INTERVAL);
            }
        });
        Probing { over, thread: Some(thread) }
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
