//! kevent: one queue, one watcher.

use std::path::Path;

use kevent_core::Queue;
use kevent_fs::{Change, ChangeKind, Watcher};

use super::{LAST, Watch};
use crate::group::Result;

pub(super) struct Kevent(Queue<Change>);

impl Watch for Kevent {
    fn open(root: &Path) -> Result<Self> {
        let mut watcher = Watcher::new()?;
        watcher.watch_tree(root, 0)?;
        let mut queue = Queue::new()?;
        queue.attach(watcher, |change| change)?;
        Ok(Kevent(queue))
    }

    fn hear_all(&mut self) -> Result<()> {
        loop {
            self.0.wait(None)?;
            while let Some(change) = self.0.next() {
                if matches!(change.kind, ChangeKind::Written) && change.path.ends_with(LAST) {
                    return Ok(());
                }
            }
        }
    }
}
