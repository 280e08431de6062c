//! Going through directories: how what is on the disk gets into the model without a gap.
//!
//! A directory is watched first and listed then, so what comes later than the listing has an event,
//! and what has both is told once: the model knows it. It is held open for that, as its path may lead
//! elsewhere at any time, and back. For the same reason it counts as scanned only if, after its listing,
//! its path and that of its parent lead to what is watched. Otherwise it is *unsettled*: an event that explains it is
//! on its way. A watch that turns up at a second place was moved there, and its old place is looked
//! at again. Each mistake is thus found when the last event of the mess has been read.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;

use crate::change::{ChangeKind, Uncovered};
use crate::registration::{Scope, Work};
use crate::rename::Wd;
use crate::snapshot::{self, Found, Listing, Pinned};
use crate::tree::{Entry, NodeId};
use crate::watches::Target;

/// What is known of a directory that is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Nothing, and the user was told nothing: it was there before the registration.
    Before,
    /// Nothing: it is new.
    New,
    /// Something, which may be out of date, in all directories below as well.
    Again,
}

/// Why a directory could not be looked into.
pub(crate) enum Miss {
    /// Its path leads elsewhere now.
    Unsettled,
    Uncovered(Uncovered),
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Miss {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Miss::Unsettled,
            io::ErrorKind::StorageFull => Miss::Uncovered(Uncovered::Limit),
            kind => Miss::Uncovered(Uncovered::Failed(kind)),
        }
    }
}

type Todo = VecDeque<(NodeId, Pass)>;

impl Work<'_> {
    /// Scans a directory and everything new below it, and tells what differs from the model.
    pub(crate) fn scan(&mut self, node: NodeId, pass: Pass) {
        let mut todo = Todo::from([(node, pass)]);
        let mut recovered = Vec::new();
        while let Some((node, pass)) = todo.pop_front() {
            if self.tree().get(node).is_none() {
                continue;
            }
            let visited = self.visit(node, pass, &mut todo);
            self.registration.unsettled.remove(&node);
            match visited {
                Ok(()) => recovered.extend(self.covered(node)),
                Err(Miss::Unsettled) => self.unsettled(node),
                Err(Miss::Uncovered(reason)) => self.uncovered(node, reason),
            }
        }
        for node in recovered {
            let path = self.tree().path(node);
            self.tell(path, ChangeKind::Resynced, true);
        }
    }

    /// Scans again what led elsewhere before.
    pub(crate) fn settle(&mut self) {
        for node in std::mem::take(&mut self.registration.unsettled) {
            self.scan(node, Pass::Again);
        }
    }

    /// Scans what had no watch before, as far as there are watches now.
    pub(crate) fn feed(&mut self) {
        while let Some(node) = self.registration.starved.pop_first() {
            self.scan(node, Pass::New);
            if self.registration.starved.contains(&node) {
                break;
            }
        }
    }

    /// Whether the path of a directory leads to what we watch under its name.
    pub(crate) fn leads_home(&mut self, node: NodeId) -> bool {
        let Some(wd) = self.tree().wd(node) else { return false };
        let (path, target) = (self.tree().path(node), self.registration.target(node));
        self.watches.leads_to(&path, target, wd)
    }

    /// Looks for an entry in the directory that is watched as `node`, and in no other that its path
    /// may lead to by now.
    pub(crate) fn look(&mut self, node: NodeId, name: &OsStr) -> Result<Option<Found>, Miss> {
        let follow = self.registration.target(node) == Target::Root;
        let directory = Pinned::open(&self.tree().path(node), follow)?;
        let wd = self.tree().wd(node);
        if !wd.is_some_and(|wd| self.watches.leads_to(directory.path(), Target::Root, wd)) {
            return Err(Miss::Unsettled);
        }
        match snapshot::look(&directory.path().join(name)) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn visit(&mut self, node: NodeId, pass: Pass, todo: &mut Todo) -> Result<(), Miss> {
        let follow = self.registration.target(node) == Target::Root;
        let directory = Pinned::open(&self.tree().path(node), follow)?;
        // Watched and then listed, and both is the same directory: no change of it is missed, and no
        // entry of another one is taken for its own.
        let wd = self.watches.add(directory.path(), Target::Root)?;
        let pass = self.bind(node, wd, pass, todo)?;
        let listing = snapshot::list(directory.path())?;
        let parent = self.tree().parent(node);
        if parent.is_some_and(|parent| !self.leads_home(parent)) || !self.leads_home(node) {
            return Err(Miss::Unsettled);
        }
        self.compare(node, listing, pass, todo);
        Ok(())
    }

    /// What the path of `node` leads to is watched as `wd`. Says what the scan has to expect.
    fn bind(&mut self, node: NodeId, wd: Wd, pass: Pass, todo: &mut Todo) -> Result<Pass, Miss> {
        let before = self.tree().wd(node);
        if before == Some(wd) {
            return Ok(pass);
        }
        if let Some(other) = self.watches.holder(wd, self.token) {
            let (here, there) = (self.tree().path(node), self.tree().path(other));
            if snapshot::same_place(&here, &there) {
                return Err(Miss::Uncovered(Uncovered::Twice));
            }
            if let Some(other) = self.tree().get_mut(other) {
                other.wd = None;
            }
            todo.push_back((other, Pass::Again));
        }
        self.watches.hold(wd, self.token, node);
        if let Some(node) = self.tree().get_mut(node) {
            node.wd = Some(wd);
        }
        let Some(before) = before else { return Ok(pass) };
        // What we know of this directory, and of all below, is true of another one.
        self.watches.release(before, self.token);
        Ok(Pass::Again)
    }

    fn compare(&mut self, node: NodeId, listing: Listing, pass: Pass, todo: &mut Todo) {
        let known = self.tree().names(node);
        let gone: Vec<OsString> =
            known.filter(|name| !listing.contains_key(*name)).cloned().collect();
        for name in gone {
            self.remove(node, &name);
        }
        for (name, found) in listing {
            todo.extend(self.found(node, &name, found, pass));
        }
    }

    /// An entry is there. Says whether it is a directory that has to be scanned.
    pub(crate) fn found(
        &mut self,
        node: NodeId,
        name: &OsStr,
        found: Found,
        pass: Pass,
    ) -> Option<(NodeId, Pass)> {
        match self.tree().entry_mut(node, name) {
            Some(Entry::Branch(id)) if found.is_dir => {
                let id = *id;
                let known = pass != Pass::Again && self.tree().wd(id).is_some();
                (!known).then_some((id, pass))
            }
            Some(Entry::Leaf { is_dir, seen }) if *is_dir == found.is_dir => {
                let before = seen.replace(found);
                let unchanged = found.is_dir || before.is_some_and(|b| found.is_unchanged_since(b));
                if pass == Pass::Again && !unchanged {
                    self.tell_entry(node, name, ChangeKind::Modified, false);
                }
                None
            }
            _ => {
                self.remove(node, name);
                let tell = pass != Pass::Before;
                let branch = self.insert(node, name, found.is_dir, Some(found), tell);
                // Whatever is below a new directory is new.
                let pass = if pass == Pass::Again { Pass::New } else { pass };
                branch.map(|id| (id, pass))
            }
        }
    }

    /// A directory is watched. Gives it back if it was told not to be.
    fn covered(&mut self, node: NodeId) -> Option<NodeId> {
        self.registration.starved.remove(&node);
        self.tree().get_mut(node)?.uncovered.take().map(|_| node)
    }

    /// The path of a directory leads elsewhere: to be scanned again once it is known why.
    pub(crate) fn unsettled(&mut self, node: NodeId) {
        self.registration.unsettled.insert(node);
        // No event explains it when the root was a symbolic link that points elsewhere now, or when
        // something above the root was renamed.
        let root = self.tree().root();
        if !self.leads_home(root) {
            self.end();
        }
    }

    fn uncovered(&mut self, node: NodeId, reason: Uncovered) {
        if reason == Uncovered::Limit && self.registration.scope == Scope::Tree {
            self.registration.starved.insert(node);
        }
        let Some(known) = self.tree().get_mut(node) else { return };
        if known.uncovered.replace(reason) != Some(reason) {
            let path = self.tree().path(node);
            self.tell(path, ChangeKind::NotCovered { reason }, true);
        }
    }
}
