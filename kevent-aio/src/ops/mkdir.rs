//! Making a directory.

use std::io;
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::ops::place::Place;
use crate::sys::dir;

/// Makes a directory, as mkdirat(2). The one that it is to be in must exist.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Mkdir};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let temporary = tempfile::tempdir()?;
/// let root = Arc::new(std::fs::File::open(temporary.path())?);
/// queue[aio].submit(Mkdir::new("photos").at(root).mode(0o700), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert!(temporary.path().join("photos").is_dir());
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Mkdir {
    pub(super) place: Place,
    mode: u32,
}

impl Mkdir {
    /// Makes `path`, with all permissions less the process's umask unless said otherwise.
    pub fn new(path: impl AsRef<Path>) -> Mkdir {
        Mkdir { place: Place::new(path), mode: 0o777 }
    }

    /// A relative path starts at this directory, and not at the working directory.
    #[must_use]
    pub fn at(mut self, dir: Fd) -> Mkdir {
        self.place.start_at(Some(dir));
        self
    }

    /// With these permissions, less the process's umask.
    #[must_use]
    pub fn mode(self, mode: u32) -> Mkdir {
        Mkdir { mode, ..self }
    }
}

impl Operation for Mkdir {
    fn check(&self) -> io::Result<()> {
        self.place.check()
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let (dir, path) = self.place.get().ok()?.raw();
        Some(opcode::MkDirAt::new(types::Fd(dir), path).mode(self.mode).build())
    }

    fn run(&mut self) -> Outcome {
        dir::mkdir(self.place.get()?, self.mode)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}
