//! kevent: one queue, one watcher.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use kevent_core::Queue;
use kevent_fs::{Change, ChangeKind, Watcher};

use super::{LAST, Watch};
use crate::group::Result;

pub(super) struct Kevent(Queue<Change>);

/// Lets a burst gather for a while before it is read.
pub(super) struct Gathered(Kevent);

impl Kevent {
    fn open_with(mut watcher: Watcher, root: &Path) -> Result<Self> {
        watcher.watch_tree(root, 0)?;
        let mut queue = Queue::new()?;
        queue.attach(watcher, |change| change)?;
        Ok(Kevent(queue))
    }
}

impl Watch for Kevent {
    fn open(root: &Path) -> Result<Self> {
        Kevent::open_with(Watcher::new()?, root)
    }

    fn hear_all(&mut self) -> Result<()> {
        loop {
            self.0.wait(None)?;
            while let Some(change) = self.0.next() {
                if matches!(change.kind, ChangeKind::Written) && is_last(&change.path) {
                    return Ok(());
                }
            }
        }
    }
}

/// By its bytes, as the peers look at it: `Path::ends_with` goes through the components.
fn is_last(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(LAST.as_bytes())
}

impl Watch for Gathered {
    fn open(root: &Path) -> Result<Self> {
        let watcher = Watcher::new()?.with_gather_time(Duration::from_millis(2));
        Kevent::open_with(watcher, root).map(Gathered)
    }

    fn hear_all(&mut self) -> Result<()> {
        self.0.hear_all()
    }
}
