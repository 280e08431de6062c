//! What an event of the kernel does to the model of a tree, and what of it is told.
//!
//! An event may be older than what a scan has found. That does no harm: the model only has to follow
//! the events to the last one of each name, which says what is there, as the scan did. So a name that
//! is known is not created once more, and one that is not known is not removed.

use std::ffi::OsStr;

use crate::change::ChangeKind;
use crate::intake::Mask;
use crate::registration::{New, Scope, Work};
use crate::scan::Pass;
use crate::snapshot::Found;
use crate::tree::{Entry, NodeId};

/// An entry of a directory of the tree.
pub(crate) type Place<'a> = (NodeId, &'a OsStr);

impl Work<'_> {
    /// Something happened to an entry of a directory, or to the directory itself.
    pub(crate) fn event(&mut self, node: NodeId, name: Option<&OsStr>, mask: Mask) {
        let Some(name) = name else { return self.happened_to_itself(node, mask) };
        let place = (node, name);
        if mask.contains(Mask::CREATE) {
            // Unless a listing has found it already.
            self.insert_and_scan(node, name, mask.contains(Mask::ISDIR), false);
        } else if mask.contains(Mask::DELETE) {
            self.remove(node, name);
        } else if let Some(kind) = content_kind(mask) {
            self.changed(place, kind);
        }
    }

    /// A rename, of which at least one end is in the tree. It is `exchanged` if it takes an earlier one
    /// back.
    pub(crate) fn renamed(
        &mut self,
        from: Option<Place<'_>>,
        to: Option<Place<'_>>,
        is_dir: bool,
        exchanged: bool,
    ) {
        match (from, to) {
            (Some(from), Some(to)) => self.moved(from, to, is_dir),
            (Some((node, name)), None) => self.remove(node, name),
            (None, Some(to)) => self.arrived(to, is_dir),
            (None, None) => {}
        }
        if exchanged {
            from.into_iter().for_each(|from| self.find_again(from));
            to.filter(|_| !is_dir)
                .into_iter()
                .for_each(|to| self.changed(to, ChangeKind::Modified));
        }
    }

    /// The kernel has dropped the watch of a directory: it is gone, or its file system is.
    pub(crate) fn ignored(&mut self, node: NodeId) {
        if node == self.tree().root() {
            self.end();
        } else if let Some(known) = self.tree().get_mut(node) {
            known.wd = None;
            // Where something was unmounted, the directory below it comes to light.
            self.scan(node, Pass::Again);
        }
    }

    /// Changes were lost.
    pub(crate) fn overflowed(&mut self) {
        self.tell_root(ChangeKind::Overflow);
        let root = self.tree().root();
        if !self.leads_home(root) {
            return self.end();
        }
        match self.registration.scope {
            Scope::File => self.tell_root(ChangeKind::Modified),
            Scope::Directory | Scope::Tree => self.scan(root, Pass::Again),
        }
        self.tell_root(ChangeKind::Resynced);
    }

    fn happened_to_itself(&mut self, node: NodeId, mask: Mask) {
        if node != self.tree().root() {
            return; // The directory above tells.
        }
        let gone = Mask::DELETE_SELF | Mask::MOVE_SELF | Mask::UNMOUNT;
        // A file that was removed while somebody has it open has one link less, and no name.
        let unlinked = mask.contains(Mask::ATTRIB)
            && self.registration.scope == Scope::File
            && !self.leads_home(node);
        if mask.intersects(gone) || unlinked {
            self.end();
        } else if let Some(kind) = content_kind(mask) {
            self.tell_root(kind);
        }
    }

    fn insert_and_scan(&mut self, node: NodeId, name: &OsStr, is_dir: bool, with_content: bool) {
        let new = New { is_dir, seen: None, tell: true, with_content };
        if let Some(branch) = self.insert(node, name, new) {
            self.scan(branch, Pass::New);
        }
    }

    fn changed(&mut self, (node, name): Place<'_>, kind: ChangeKind) {
        if let Some((path, is_dir)) = self.registration.tree.touch(node, name) {
            let path = path.to_owned();
            self.tell(path, kind, is_dir);
        }
    }

    /// Something was moved in from where we do not watch.
    fn arrived(&mut self, place: Place<'_>, is_dir: bool) {
        let (node, name) = place;
        match self.tree().entry(node, name) {
            Some(Entry::Branch(branch)) if is_dir => {
                let branch = *branch;
                return self.check(branch);
            }
            // Listed already, and not replaced since: told.
            Some(Entry::Leaf { seen: Some(inode), .. }) => {
                let inode = *inode;
                let path = self.tree().path_of(node, name);
                if rustix::fs::lstat(&path).is_ok_and(|stat| stat.st_ino == inode.get()) {
                    return;
                }
            }
            _ => {}
        }
        self.remove(node, name);
        self.insert_and_scan(node, name, is_dir, !is_dir);
    }

    fn moved(&mut self, from: Place<'_>, to: Place<'_>, is_dir: bool) {
        let old_path = self.tree().path_of(from.0, from.1);
        // What replaces a directory can't come out of it. That happens only to a model that is ahead
        // of the events; then the new place is looked at afresh.
        let entangled = old_path.starts_with(self.tree().path_of(to.0, to.1));
        let mut entry = match self.tree().take(from.0, from.1) {
            Some(entry) if entry.is_dir() == is_dir && !entangled => entry,
            other => {
                if let Some(entry) = other {
                    self.tell(old_path, ChangeKind::Removed, entry.is_dir());
                    self.forget(&entry);
                }
                return self.arrived(to, is_dir);
            }
        };
        if let Some(replaced) = self.tree().take(to.0, to.1) {
            self.forget(&replaced);
        }
        let branch = match &mut entry {
            Entry::Branch(id) => Some(*id),
            // It was seen elsewhere.
            Entry::Leaf { seen, .. } => {
                *seen = None;
                None
            }
        };
        if let Err(entry) = self.tree().put(to.0, to.1, entry) {
            // Below itself: again, only such a model can do that.
            self.tell(old_path, ChangeKind::Removed, is_dir);
            return self.forget(&entry);
        }
        self.tell_entry(to.0, to.1, ChangeKind::Moved { from: old_path }, is_dir);
        if let Some(branch) = branch {
            self.check(branch);
            self.settle();
        }
    }

    /// Two entries that change places in one step (`RENAME_EXCHANGE`) are told as two renames, one
    /// there and one back, as if nothing were left at the place that the second comes from; and what it
    /// brings is not what was there before. A rename that is really taken back looks the same, so the
    /// disk is asked.
    fn find_again(&mut self, (node, name): Place<'_>) {
        if self.tree().get(node).is_none() {
            return;
        }
        let found = self.open(node).and_then(|directory| {
            let found = directory.look(name)?.as_ref().map(Found::from);
            Ok(found.map(|found| (directory, found)))
        });
        match found {
            Ok(Some((directory, found))) => {
                let branch = self.found(node, &directory, name, found, Pass::New);
                if let Some((branch, pass)) = branch {
                    self.scan(branch, pass);
                }
            }
            Ok(None) => {}
            Err(_) => self.unsettled(node),
        }
    }

    /// Scans a directory that is known, unless it is what we took it for.
    fn check(&mut self, branch: NodeId) {
        if !self.leads_home(branch) {
            self.scan(branch, Pass::Again);
        }
    }
}

fn content_kind(mask: Mask) -> Option<ChangeKind> {
    if mask.contains(Mask::MODIFY) {
        Some(ChangeKind::Modified)
    } else if mask.contains(Mask::CLOSE_WRITE) {
        Some(ChangeKind::Written)
    } else if mask.contains(Mask::ATTRIB) {
        Some(ChangeKind::Attributes)
    } else {
        None
    }
}
