//! Renaming.

use std::io;
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::ops::place::Place;
use crate::sys::dir;

/// Gives a file or directory another name, as renameat2(2): nobody ever sees both names, or neither.
///
/// What has the new name already is replaced: a file by a file, an empty directory by a directory. If both
/// are names of one file nothing happens, and that is no error. Another file system can't be reached
/// (EXDEV). A file system that does not know what is asked for beyond that says EINVAL.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Rename};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let temporary = tempfile::tempdir()?;
/// std::fs::write(temporary.path().join("settings.new"), "volume=11")?;
/// let root = Arc::new(std::fs::File::open(temporary.path())?);
/// queue[aio].submit(Rename::new("settings.new", "settings").at(root), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert_eq!(std::fs::read(temporary.path().join("settings"))?, b"volume=11");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Rename {
    pub(super) from: Place,
    pub(super) to: Place,
    flags: u32,
}

impl Rename {
    /// What is `from` is `to` from then on.
    pub fn new(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Rename {
        Rename { from: Place::new(from), to: Place::new(to), flags: 0 }
    }

    /// Relative paths start at this directory, both, and not at the working directory.
    #[must_use]
    pub fn at(self, dir: Fd) -> Rename {
        self.from_at(dir.clone()).to_at(dir)
    }

    /// The old path, if it is relative, starts at this directory.
    #[must_use]
    pub fn from_at(mut self, dir: Fd) -> Rename {
        self.from.start_at(Some(dir));
        self
    }

    /// The new path, if it is relative, starts at this directory.
    #[must_use]
    pub fn to_at(mut self, dir: Fd) -> Rename {
        self.to.start_at(Some(dir));
        self
    }

    /// Replaces nothing: the error is EEXIST if something has the new name.
    #[must_use]
    pub fn no_replace(self) -> Rename {
        self.flag(libc::RENAME_NOREPLACE)
    }

    /// Each of the two gets the other's name. Both must exist, of whatever kind.
    #[must_use]
    pub fn exchange(self) -> Rename {
        self.flag(libc::RENAME_EXCHANGE)
    }

    /// Leaves a whiteout at the old name, which hides what a lower layer of an overlay file system has
    /// there: a character device of number 0. Takes the privilege to make devices.
    #[must_use]
    pub fn whiteout(self) -> Rename {
        self.flag(libc::RENAME_WHITEOUT)
    }

    fn flag(self, more: u32) -> Rename {
        Rename { flags: self.flags | more, ..self }
    }
}

impl Operation for Rename {
    fn check(&self) -> io::Result<()> {
        let alone = libc::RENAME_EXCHANGE;
        if self.flags & alone != 0 && self.flags != alone {
            let text = "an exchange replaces both and leaves no whiteout: ask for one or the other";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.from.check()?;
        self.to.check()
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let (from_dir, from) = self.from.get().ok()?.raw();
        let (to_dir, to) = self.to.get().ok()?.raw();
        let entry = opcode::RenameAt::new(types::Fd(from_dir), from, types::Fd(to_dir), to);
        Some(entry.flags(self.flags).build())
    }

    fn run(&mut self) -> Outcome {
        dir::rename(self.from.get()?, self.to.get()?, self.flags)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}
