//! Giving a file one more name.

use std::io;
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::ops::place::Place;
use crate::sys::dir;

/// Gives a file one more name, as linkat(2). The new name must not exist, and be in the same file system.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Link};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let temporary = tempfile::tempdir()?;
/// std::fs::write(temporary.path().join("one"), "same")?;
/// let root = Arc::new(std::fs::File::open(temporary.path())?);
/// queue[aio].submit(Link::new("one", "two").at(root), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert_eq!(std::fs::read(temporary.path().join("two"))?, b"same");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Link {
    pub(super) from: Place,
    pub(super) to: Place,
    flags: i32,
}

impl Link {
    /// What is `from` is `to` as well. If `from` is a symbolic link, that gets another name and not what
    /// it leads to.
    pub fn new(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Link {
        Link { from: Place::new(from), to: Place::new(to), flags: 0 }
    }

    /// Relative paths start at this directory, both, and not at the working directory.
    #[must_use]
    pub fn at(self, dir: Fd) -> Link {
        self.from_at(dir.clone()).to_at(dir)
    }

    /// The old path, if it is relative, starts at this directory.
    #[must_use]
    pub fn from_at(mut self, dir: Fd) -> Link {
        self.from.start_at(Some(dir));
        self
    }

    /// The new path, if it is relative, starts at this directory.
    #[must_use]
    pub fn to_at(mut self, dir: Fd) -> Link {
        self.to.start_at(Some(dir));
        self
    }

    /// If the old path ends in a symbolic link, names what that leads to. So a file without a name
    /// (`O_TMPFILE`) gets one: the old path is `/proc/self/fd/` and its number.
    #[must_use]
    pub fn follow(self) -> Link {
        Link { flags: libc::AT_SYMLINK_FOLLOW, ..self }
    }
}

impl Operation for Link {
    fn check(&self) -> io::Result<()> {
        self.from.check()?;
        self.to.check()
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let (from_dir, from) = self.from.get().ok()?.raw();
        let (to_dir, to) = self.to.get().ok()?.raw();
        let entry = opcode::LinkAt::new(types::Fd(from_dir), from, types::Fd(to_dir), to);
        Some(entry.flags(self.flags).build())
    }

    fn run(&mut self) -> Outcome {
        dir::link(self.from.get()?, self.to.get()?, self.flags)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}
