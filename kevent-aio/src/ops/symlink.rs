//! Making a symbolic link.

use std::ffi::CString;
use std::io;
use std::path::Path;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::ops::place::{Place, c_path, zero_byte};
use crate::sys::dir;

/// Makes a symbolic link, as symlinkat(2). Whether what it leads to exists makes no difference.
///
/// ```
/// use kevent_aio::{Aio, Symlink};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
/// let temporary = tempfile::tempdir()?;
/// let current = temporary.path().join("current");
/// queue[aio].submit(Symlink::new("release-7", &current), 1).unwrap();
/// queue.wait(None)?;
/// queue.next().unwrap().result?;
/// assert_eq!(std::fs::read_link(current)?, std::path::Path::new("release-7"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Symlink {
    /// `None` if there is a zero byte in it, which `check` refuses.
    target: Option<CString>,
    pub(super) place: Place,
}

impl Symlink {
    /// Makes `path` a link that says `target`. What that means if it is relative depends on where the
    /// link is, and on nothing that is said here.
    pub fn new(target: impl AsRef<Path>, path: impl AsRef<Path>) -> Symlink {
        Symlink { target: c_path(target), place: Place::new(path) }
    }

    /// The link's path, if it is relative, starts at this directory, and not at the working directory.
    #[must_use]
    pub fn at(mut self, dir: Fd) -> Symlink {
        self.place.start_at(Some(dir));
        self
    }
}

impl Operation for Symlink {
    fn check(&self) -> io::Result<()> {
        if self.target.is_none() {
            return Err(zero_byte());
        }
        self.place.check()
    }

    fn advance(&mut self) -> Step {
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        let (dir, path) = self.place.get().ok()?.raw();
        let target = self.target.as_ref()?.as_ptr();
        Some(opcode::SymlinkAt::new(types::Fd(dir), target, path).build())
    }

    fn run(&mut self) -> Outcome {
        let target = self.target.as_deref().ok_or(Errno(libc::EINVAL))?;
        dir::symlink(target, self.place.get()?)
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}
