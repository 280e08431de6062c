//! Removing a name.

use std::io;
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::ops::place::Place;
use crate::sys::dir;

/// Removes a name, as unlinkat(2).
///
/// The file goes with its last name, once nobody has it open. A symbolic link is removed itself, and not
/// what it leads to.
///
/// ```
/// use kevent_aio::{Aio, Unlink};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let temporary = tempfile::tempdir()?;
/// let path = temporary.path().join("old");
/// std::fs::write(&path, "news of yesterday")?;
/// queue[aio].submit(Unlink::new(&path), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert!(!path.exists());
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Unlink {
    pub(super) place: Place,
    flags: i32,
}

impl Unlink {
    /// Removes `path`, which is no directory unless said otherwise.
    pub fn new(path: impl AsRef<Path>) -> Unlink {
        Unlink { place: Place::new(path), flags: 0 }
    }

    /// A relative path starts at this directory, and not at the working directory.
    #[must_use]
    pub fn at(mut self, dir: Fd) -> Unlink {
        self.place.start_at(Some(dir));
        self
    }

    /// It is a directory, and empty: as rmdir(2). The error is ENOTEMPTY if it is not empty.
    #[must_use]
    pub fn dir(self) -> Unlink {
        Unlink { flags: libc::AT_REMOVEDIR, ..self }
    }
}

impl Operation for Unlink {
    fn check(&self) -> io::Result<()> {
        self.place.check()
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let (dir, path) = self.place.get().ok()?.raw();
        Some(opcode::UnlinkAt::new(types::Fd(dir), path).flags(self.flags).build())
    }

    fn run(&mut self) -> Outcome {
        dir::unlink(self.place.get()?, self.flags)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}
