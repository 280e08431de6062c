//! Going through directories: how what is on the disk gets into the model without a gap.
//!
//! A directory is watched first and listed then, so what comes later than the listing has an event,
//! and what has both is told once: the model knows it. Two things can go wrong: its path may lead
//! elsewhere between the two, and back; or lead to what an event that was not looked at yet has
//! brought there.
//!
//! As long as no event waits after the listing, neither did. The kernel queues the event of a rename
//! or a removal before the directory that it was done in is given free for the next one, so of two
//! that come to nothing the first has an event; and one alone makes the directory be looked at again.
//!
//! Otherwise the directory is visited carefully: it is held open while it is watched and listed, and
//! counts as scanned only if, after its listing, its path and that of its parent lead to what is
//! watched. If not it is *unsettled*: an event that explains it is on its way. A watch that turns up
//! at a second place was moved there, and its old place is looked at again. Each mistake is thus
//! found when the last event of the mess has been read.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::change::{ChangeKind, Uncovered};
use crate::intake::Wd;
use crate::registration::{New, Scope, Work};
use crate::snapshot::{self, Directory, Found};
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

    /// Opens the directory that is watched as `node`, and no other that its path may lead to by now.
    pub(crate) fn open(&mut self, node: NodeId) -> Result<Directory, Miss> {
        let path = self.tree().path(node);
        let directory = Directory::open(&path, self.follows(node))?;
        let watched = self.watch_pinned(&directory, node, &path)?;
        if self.tree().wd(node) == Some(watched) {
            return Ok(directory);
        }
        self.watches.remove_if_unheld(watched);
        Err(Miss::Unsettled)
    }

    /// The directory of this registration may be a symbolic link only where the user named it.
    fn follows(&self, node: NodeId) -> bool {
        self.registration.target(node) == Target::Root
    }

    fn visit(&mut self, node: NodeId, pass: Pass, todo: &mut Todo) -> Result<(), Miss> {
        let path = self.tree().path(node);
        let wd = self.watches.add(&path, self.registration.target(node))?;
        let listed = SystemTime::now();
        let found = Directory::open(&path, self.follows(node))
            .and_then(|directory| Ok((directory.list()?, directory)));
        if !self.watches.is_silent() {
            if self.watches.holder(wd, self.token).is_none() {
                self.watches.remove_if_unheld(wd);
            }
            return self.visit_carefully(node, &path, pass, todo);
        }
        let pass = self.bind(node, wd, pass, todo)?;
        let (listing, directory) = found?;
        self.compare(node, &directory, listing, listed, pass, todo);
        Ok(())
    }

    fn visit_carefully(
        &mut self,
        node: NodeId,
        path: &Path,
        pass: Pass,
        todo: &mut Todo,
    ) -> Result<(), Miss> {
        let directory = Directory::open(path, self.follows(node))?;
        let wd = self.watch_pinned(&directory, node, path)?;
        let pass = self.bind(node, wd, pass, todo)?;
        let listed = SystemTime::now();
        let listing = directory.list()?;
        let parent = self.tree().parent(node);
        if parent.is_some_and(|parent| !self.leads_home(parent)) || !self.leads_home(node) {
            return Err(Miss::Unsettled);
        }
        self.compare(node, &directory, listing, listed, pass, todo);
        Ok(())
    }

    /// Watches what is held open, whatever its path leads to.
    fn watch_pinned(&mut self, directory: &Directory, node: NodeId, path: &Path) -> io::Result<Wd> {
        let target = self.registration.target(node);
        let pinned = if target == Target::Found { Target::Pinned } else { target };
        match self.watches.add(Path::new(&directory.pinned_path()), pinned) {
            // Where no /proc is mounted the path has to do; what changes at that very moment is lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.watches.add(path, target),
            added => added,
        }
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

    fn compare(
        &mut self,
        node: NodeId,
        directory: &Directory,
        listing: Vec<(OsString, Found)>,
        listed: SystemTime,
        pass: Pass,
        todo: &mut Todo,
    ) {
        if pass == Pass::Again {
            self.find_missing(node, &listing);
        }
        for (name, found) in listing {
            todo.extend(self.found(node, directory, &name, found, pass));
        }
        if let Some(node) = self.tree().get_mut(node) {
            node.listed = Some(listed);
        }
    }

    /// Removes from the model what a listing has not found.
    fn find_missing(&mut self, node: NodeId, listing: &[(OsString, Found)]) {
        let listed: HashSet<_> = listing.iter().map(|(name, _)| name.as_os_str()).collect();
        let known = self.tree().names(node);
        let gone: Vec<_> =
            known.filter(|name| !listed.contains(name)).map(OsStr::to_owned).collect();
        for name in gone {
            self.remove(node, &name);
        }
    }

    /// An entry is there. Says whether it is a directory that has to be scanned.
    pub(crate) fn found(
        &mut self,
        node: NodeId,
        directory: &Directory,
        name: &OsStr,
        found: Found,
        pass: Pass,
    ) -> Option<(NodeId, Pass)> {
        match self.tree().entry(node, name) {
            Some(Entry::Branch(id)) if found.is_dir() => {
                let id = *id;
                let known = pass != Pass::Again && self.tree().wd(id).is_some();
                (!known).then_some((id, pass))
            }
            Some(Entry::Leaf { is_dir, seen }) if *is_dir == found.is_dir() => {
                let same = seen.is_some() && *seen == found.inode;
                self.found_again(node, directory, name, found, same, pass);
                None
            }
            Some(_) => {
                self.remove(node, name);
                self.found_new(node, directory, name, found, pass)
            }
            None => self.found_new(node, directory, name, found, pass),
        }
    }

    fn found_new(
        &mut self,
        node: NodeId,
        directory: &Directory,
        name: &OsStr,
        found: Found,
        pass: Pass,
    ) -> Option<(NodeId, Pass)> {
        let tell = pass != Pass::Before;
        let with_content = tell
            && found.kind.is_file()
            && self.wants_content()
            && directory.look(name).is_ok_and(|s| s.is_some_and(|s| snapshot::has_content(&s)));
        let (is_dir, seen) = (found.is_dir(), found.inode);
        let branch = self.insert(node, name, New { is_dir, seen, tell, with_content });
        // Whatever is below a new directory is new.
        let pass = if pass == Pass::Again { Pass::New } else { pass };
        branch.map(|id| (id, pass))
    }

    /// An entry that is known, and no directory to be scanned; `same` if it is the file that was
    /// listed, and no event of it came since.
    fn found_again(
        &mut self,
        node: NodeId,
        directory: &Directory,
        name: &OsStr,
        found: Found,
        same: bool,
        pass: Pass,
    ) {
        let mut seen = None;
        if pass == Pass::Again {
            seen = found.inode;
            let listed = self.tree().get(node).and_then(|node| node.listed).filter(|_| same);
            if !found.is_dir() && self.wants_content() && is_suspect(directory, name, listed) {
                self.tell_entry(node, name, ChangeKind::Modified, false);
            }
        }
        if let Some(Entry::Leaf { seen: known, .. }) = self.tree().entry_mut(node, name) {
            *known = seen;
        }
    }

    /// Whether it is of interest what files hold.
    fn wants_content(&self) -> bool {
        self.watches.kinds().want(&ChangeKind::Modified)
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

/// Whether a file may have changed since it was `listed`, if it was. One that is gone by now has an
/// event that says so.
fn is_suspect(directory: &Directory, name: &OsStr, listed: Option<SystemTime>) -> bool {
    let Some(listed) = listed else { return true };
    match directory.look(name) {
        Ok(Some(stat)) => snapshot::may_have_changed(&stat, listed, SystemTime::now()),
        Ok(None) => false,
        Err(_) => true,
    }
}
