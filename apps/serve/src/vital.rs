//! Threads without which the server is none: when one fails, the process says so and ends.
//!
//! To go on with the others would be to serve ever slower, with clients that wait for a thread that
//! is not there. Whatever started the process can start it anew.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::thread::{Builder, JoinHandle};

use crate::stderr::complain;

/// Does `work` on a thread of that name, as [`run`] does.
///
/// # Errors
///
/// When the process may start no more threads.
pub fn spawn(
    name: String,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.clone()).spawn(move || run(&name, work))
}

/// Does `work`. When it fails or panics, this ends the process with a failure code, at once: what the
/// other threads are at is cut short.
pub fn run(name: &str, work: impl FnOnce() -> io::Result<()>) {
    // The process ends with what may be half changed, so nobody sees it.
    let why = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => String::from("it panicked"),
    };
    complain(&format!("thread {name} failed, which ends the server: {why}"));
    process::exit(1)
}
