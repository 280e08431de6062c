//! What belongs to the process, and is counted: descriptors above all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::PATIENCE;

/// Who counts what the process has is alone in it.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Some are closed a little later: by threads of the pool that end, by the kernel.
pub fn becomes(what: &str, wanted: usize, count: impl Fn() -> usize) {
    let deadline = Instant::now() + PATIENCE;
    while count() != wanted {
        assert!(Instant::now() < deadline, "{what}: {}, not {wanted}", count());
        thread::yield_now();
    }
}
