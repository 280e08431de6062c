//! A registration: its tree, and what is still to be done in it.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use kevent_core::{Full, Sink, Token};

use crate::change::{Change, ChangeKind};
use crate::intake::Wd;
use crate::tree::{Entry, NodeId, Tree};
use crate::watches::{Target, Watches};

/// How far a registration reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    File,
    Directory,
    Tree,
}

#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) key: u64,
    pub(crate) scope: Scope,
    pub(crate) tree: Tree,
    /// Directories whose paths led elsewhere when they were looked at: the event that tells where
    /// they went is on its way, and with it they are looked at again.
    pub(crate) unsettled: BTreeSet<NodeId>,
    /// Directories for which there was no watch.
    pub(crate) starved: BTreeSet<NodeId>,
    /// Changes that were told and not handed to the user yet.
    pub(crate) undelivered: usize,
    /// The root is gone. The registration stands until the user was handed that.
    pub(crate) ended: bool,
}

impl Registration {
    pub(crate) fn new(path: &Path, key: u64, scope: Scope) -> Registration {
        Registration {
            key,
            scope,
            tree: Tree::new(path),
            unsettled: BTreeSet::new(),
            starved: BTreeSet::new(),
            undelivered: 0,
            ended: false,
        }
    }

    /// How a directory of the tree is watched.
    pub(crate) fn target(&self, node: NodeId) -> Target {
        match self.scope {
            _ if node != self.tree.root() => Target::Found,
            Scope::File => Target::File,
            Scope::Directory | Scope::Tree => Target::Root,
        }
    }
}

/// What is known of a new entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct New {
    pub(crate) is_dir: bool,
    /// The number of its inode, if a listing found it.
    pub(crate) seen: Option<NonZero<u64>>,
    pub(crate) tell: bool,
    pub(crate) with_content: bool,
}

/// One registration at work: what happens changes its tree and its watches, and is told.
pub(crate) struct Work<'a> {
    pub(crate) token: Token,
    pub(crate) registration: &'a mut Registration,
    pub(crate) watches: &'a mut Watches,
    /// What is told goes there, and waits in `told` when it is refused.
    pub(crate) sink: &'a mut dyn Sink<Change>,
    pub(crate) told: &'a mut VecDeque<Change>,
}

/// In place of a sink: what is told while no queue asks for it waits.
pub(crate) struct Closed;

impl Sink<Change> for Closed {
    fn push(&mut self, _: Token, change: Change) -> Result<(), Full<Change>> {
        Err(Full(change))
    }

    fn room(&self) -> usize {
        0
    }
}

impl Work<'_> {
    pub(crate) fn tree(&mut self) -> &mut Tree {
        &mut self.registration.tree
    }

    /// Tells of a path.
    #[inline(always)] // Else the path goes through memory, and is read before it is there.
    pub(crate) fn tell(&mut self, path: PathBuf, kind: ChangeKind, is_dir: bool) {
        if self.watches.kinds().want(&kind) && !self.registration.ended {
            let (token, key) = (self.token, self.registration.key);
            self.registration.undelivered += 1;
            let change = Change { token, key, path, kind, is_dir };
            let sink: &mut dyn Sink<Change> =
                if self.told.is_empty() { self.sink } else { &mut Closed };
            if let Err(Full(change)) = sink.push(token, change) {
                self.told.push_back(change);
            }
        }
    }

    /// Tells of an entry.
    pub(crate) fn tell_entry(
        &mut self,
        node: NodeId,
        name: &OsStr,
        kind: ChangeKind,
        is_dir: bool,
    ) {
        if self.watches.kinds().want(&kind) {
            let path = self.registration.tree.path_of(node, name);
            self.tell(path, kind, is_dir);
        }
    }

    /// Tells of the root.
    pub(crate) fn tell_root(&mut self, kind: ChangeKind) {
        let path = self.registration.tree.base().to_owned();
        self.tell(path, kind, self.registration.scope != Scope::File);
    }

    /// A new entry, which is told unless it was there before the registration; with content if it came
    /// with some. Nothing happens when it is known already, or its directory is gone. When it is itself
    /// a directory of the tree it has to be scanned.
    pub(crate) fn insert(&mut self, node: NodeId, name: &OsStr, new: New) -> Option<NodeId> {
        let New { is_dir, seen, tell, with_content } = new;
        // Made while the name is here, and told only if it gets there.
        let tell = tell && (with_content || self.watches.kinds().want(&ChangeKind::Created));
        let path = tell.then(|| self.registration.tree.path_of(node, name));
        let entry = match self.registration.scope {
            Scope::Tree if is_dir => self.tree().new_branch(),
            _ => Entry::Leaf { is_dir, seen },
        };
        let branch = if let Entry::Branch(id) = entry { Some(id) } else { None };
        if let Err(entry) = self.tree().put(node, name, entry) {
            self.forget(&entry);
            return None;
        }
        if let Some(path) = path {
            if seen.is_none() && branch.is_none() {
                self.tree().touched(node, &path, is_dir);
            }
            if with_content {
                self.tell(path.clone(), ChangeKind::Created, is_dir);
                self.tell(path, ChangeKind::Modified, is_dir);
            } else {
                self.tell(path, ChangeKind::Created, is_dir);
            }
        }
        branch
    }

    /// An entry is gone.
    pub(crate) fn remove(&mut self, node: NodeId, name: &OsStr) {
        if let Some(entry) = self.tree().take(node, name) {
            self.tell_entry(node, name, ChangeKind::Removed, entry.is_dir());
            self.forget(&entry);
        }
    }

    /// What was taken out of the tree is not watched any more.
    pub(crate) fn forget(&mut self, entry: &Entry) {
        let gone = self.tree().forget(entry);
        self.release(&gone);
    }

    /// The registration has ended: its root is gone.
    pub(crate) fn end(&mut self) {
        if !self.registration.ended {
            self.tell_root(ChangeKind::RootGone);
            self.registration.ended = true;
            self.let_go();
        }
    }

    /// Nothing is watched any more.
    pub(crate) fn let_go(&mut self) {
        let gone = self.tree().forget_all();
        self.release(&gone);
    }

    fn release(&mut self, gone: &[(NodeId, Option<Wd>)]) {
        for (node, wd) in gone {
            self.registration.unsettled.remove(node);
            self.registration.starved.remove(node);
            if let Some(wd) = wd {
                self.watches.release(*wd, self.token);
            }
        }
    }
}
