//! The model of a watched tree: which directories there are, what they hold, by which watch they are
//! known.

use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kevent_core::{Table, Token};

use crate::change::Uncovered;
use crate::entries::Entries;
use crate::intake::Wd;

/// Names a directory of a tree; one that was removed is never found again.
pub(crate) type NodeId = Token;

/// A directory.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// In which directory, under which name. None for the root, and for what is taken out.
    place: Option<(NodeId, OsString)>,
    entries: Entries<Entry>,
    pub(crate) wd: Option<Wd>,
    /// When it was listed, and compared with what was known of it.
    pub(crate) listed: Option<SystemTime>,
    /// Why it is not watched, as the user was told.
    pub(crate) uncovered: Option<Uncovered>,
}

/// What a directory has under a name.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A file, or a directory that is not looked into.
    Leaf {
        is_dir: bool,
        /// The number of the inode that a listing found, unless it has changed since.
        seen: Option<NonZero<u64>>,
    },
    /// A directory of the tree.
    Branch(NodeId),
}

impl Entry {
    pub(crate) fn is_dir(&self) -> bool {
        match self {
            Entry::Leaf { is_dir, .. } => *is_dir,
            Entry::Branch(_) => true,
        }
    }
}

/// The directories of one registration.
#[derive(Debug)]
pub(crate) struct Tree {
    base: PathBuf,
    nodes: Table<Node>,
    root: NodeId,
    last: Last,
}

/// The entry that was touched last: mostly it is the next one, too. It is true until the tree changes.
#[derive(Debug, Default)]
struct Last {
    /// The directory that has it; none when it is not true any more.
    node: Option<NodeId>,
    path: Vec<u8>,
    is_dir: bool,
}

impl Last {
    fn is(&self, node: NodeId, name: &OsStr) -> bool {
        let above = self.path.strip_suffix(name.as_bytes());
        self.node == Some(node) && above.is_some_and(|above| above.ends_with(b"/"))
    }
}

impl Tree {
    pub(crate) fn new(base: &Path) -> Tree {
        let mut nodes = Table::new();
        let root = nodes.insert(Node::default());
        Tree { base: base.to_owned(), nodes, root, last: Last::default() }
    }

    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(node)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(node)
    }

    pub(crate) fn wd(&self, node: NodeId) -> Option<Wd> {
        self.nodes.get(node)?.wd
    }

    pub(crate) fn parent(&self, node: NodeId) -> Option<NodeId> {
        Some(self.nodes.get(node)?.place.as_ref()?.0)
    }

    /// The path of a directory that stands in the tree.
    pub(crate) fn path(&self, node: NodeId) -> PathBuf {
        self.path_to(node, None)
    }

    pub(crate) fn path_of(&self, node: NodeId, name: &OsStr) -> PathBuf {
        self.path_to(node, Some(name))
    }

    /// Written from its end, which is known first, into a buffer of the right size: every change that
    /// is told makes one.
    fn path_to(&self, node: NodeId, last: Option<&OsStr>) -> PathBuf {
        let base = self.base.as_os_str().as_bytes();
        let names = || last.into_iter().chain(self.names_up_from(node));
        let slashes = base.is_empty() || base.ends_with(b"/");
        let length: usize = names().map(|name| name.len() + 1).sum();
        let length = if slashes { length.saturating_sub(1) } else { length };
        // Not `vec![0; ..]`: calloc(3) takes the slow way through glibc's allocator.
        let mut path = Vec::with_capacity(base.len() + length);
        path.extend_from_slice(base);
        path.resize(base.len() + length, 0);
        let mut at = path.len();
        for name in names() {
            path[at - name.len()..at].copy_from_slice(name.as_bytes());
            at -= name.len();
            if at > base.len() {
                at -= 1;
                path[at] = b'/';
            }
        }
        PathBuf::from(OsString::from_vec(path))
    }

    /// The name of a directory, and of those above up to the root, which has none.
    fn names_up_from(&self, node: NodeId) -> impl Iterator<Item = &OsStr> {
        let place = |node| self.nodes.get(node)?.place.as_ref();
        std::iter::successors(place(node), move |(parent, _)| place(*parent))
            .map(|(_, name)| name.as_os_str())
    }

    pub(crate) fn entry(&self, node: NodeId, name: &OsStr) -> Option<&Entry> {
        self.nodes.get(node)?.entries.get(name)
    }

    pub(crate) fn entry_mut(&mut self, node: NodeId, name: &OsStr) -> Option<&mut Entry> {
        self.last.node = None;
        self.nodes.get_mut(node)?.entries.get_mut(name)
    }

    /// The content or the attributes of an entry have changed: its path, and whether it is a directory.
    /// None when it is not known.
    pub(crate) fn touch(&mut self, node: NodeId, name: &OsStr) -> Option<(&Path, bool)> {
        if !self.last.is(node, name) {
            let entry = self.entry_mut(node, name)?;
            let is_dir = entry.is_dir();
            if let Entry::Leaf { seen, .. } = entry {
                *seen = None;
            }
            let path = self.path_of(node, name);
            self.touched(node, &path, is_dir);
        }
        Some((Path::new(OsStr::from_bytes(&self.last.path)), self.last.is_dir))
    }

    /// This is the path of the entry of `node` that was touched last.
    pub(crate) fn touched(&mut self, node: NodeId, path: &Path, is_dir: bool) {
        self.last.node = Some(node);
        self.last.path.clear();
        self.last.path.extend_from_slice(path.as_os_str().as_bytes());
        self.last.is_dir = is_dir;
    }

    /// The names that a directory has.
    pub(crate) fn names(&self, node: NodeId) -> impl Iterator<Item = &OsStr> {
        self.nodes.get(node).into_iter().flat_map(|node| node.entries.names())
    }

    /// A new directory, which still has to be put somewhere.
    pub(crate) fn new_branch(&mut self) -> Entry {
        Entry::Branch(self.nodes.insert(Node::default()))
    }

    /// Puts an entry to its place.
    ///
    /// Gives it back when something is there, which has to be taken out first; or when there is no such
    /// directory in the tree: it was removed, or it is below the entry itself.
    pub(crate) fn put(&mut self, node: NodeId, name: &OsStr, entry: Entry) -> Result<(), Entry> {
        if !self.is_standing(node) {
            return Err(entry);
        }
        self.last.node = None;
        let branch = if let Entry::Branch(id) = entry { Some(id) } else { None };
        let Some(directory) = self.nodes.get_mut(node) else { return Err(entry) };
        directory.entries.insert(name, entry)?;
        if let Some(branch) = branch.and_then(|id| self.nodes.get_mut(id)) {
            branch.place = Some((node, name.to_owned()));
        }
        Ok(())
    }

    /// Takes an entry out of its place, with all that is below.
    pub(crate) fn take(&mut self, node: NodeId, name: &OsStr) -> Option<Entry> {
        self.last.node = None;
        let entry = self.nodes.get_mut(node)?.entries.remove(name)?;
        if let Entry::Branch(id) = entry {
            self.nodes.get_mut(id)?.place = None;
        }
        Some(entry)
    }

    /// Forgets an entry that was taken out; says which directories that were, each with its watch.
    pub(crate) fn forget(&mut self, entry: &Entry) -> Vec<(NodeId, Option<Wd>)> {
        match entry {
            Entry::Branch(id) => self.forget_node(*id),
            Entry::Leaf { .. } => Vec::new(),
        }
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&mut self) -> Vec<(NodeId, Option<Wd>)> {
        self.forget_node(self.root)
    }

    fn forget_node(&mut self, node: NodeId) -> Vec<(NodeId, Option<Wd>)> {
        self.last.node = None;
        let mut gone = Vec::new();
        let mut todo = vec![node];
        while let Some(id) = todo.pop() {
            let Some(node) = self.nodes.remove(id) else { continue };
            gone.push((id, node.wd));
            todo.extend(node.entries.values().filter_map(|entry| match entry {
                Entry::Branch(id) => Some(*id),
                Entry::Leaf { .. } => None,
            }));
        }
        gone
    }

    /// Whether the directory hangs on the root.
    fn is_standing(&self, node: NodeId) -> bool {
        let mut at = node;
        while let Some(parent) = self.parent(at) {
            at = parent;
        }
        at == self.root && self.nodes.get(at).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn branch(tree: &mut Tree, parent: NodeId, name: &str, wd: Wd) -> NodeId {
        let entry = tree.new_branch();
        let Entry::Branch(id) = entry else { unreachable!() };
        tree.put(parent, OsStr::new(name), entry).unwrap();
        tree.get_mut(id).unwrap().wd = Some(wd);
        id
    }

    #[test]
    fn moved_directory_takes_the_paths_below_along() {
        let mut tree = Tree::new(Path::new("/base"));
        let root = tree.root();
        let a = branch(&mut tree, root, "a", 1);
        let b = branch(&mut tree, a, "b", 2);
        let c = branch(&mut tree, root, "c", 3);
        let taken = tree.take(a, OsStr::new("b")).unwrap();
        tree.put(c, OsStr::new("d"), taken).unwrap();
        assert_eq!(tree.path_of(b, OsStr::new("f")), Path::new("/base/c/d/f"));
        assert!(tree.entry(a, OsStr::new("b")).is_none());
    }

    #[test]
    fn directory_cannot_be_put_below_itself() {
        let mut tree = Tree::new(Path::new("/base"));
        let root = tree.root();
        let a = branch(&mut tree, root, "a", 1);
        let b = branch(&mut tree, a, "b", 2);
        let taken = tree.take(root, OsStr::new("a")).unwrap();
        assert!(tree.put(a, OsStr::new("b"), Entry::Branch(b)).is_err(), "there is something");
        let back = tree.put(b, OsStr::new("a"), taken).unwrap_err();
        assert_eq!(tree.forget(&back).len(), 2);
        assert!(tree.get(b).is_none());
    }

    #[test]
    fn path_begins_with_the_base_as_it_was_given() {
        for (base, file, in_a) in [
            ("/", "/f", "/a/f"),
            ("", "f", "a/f"),
            (".", "./f", "./a/f"),
            ("/base/", "/base/f", "/base/a/f"),
            ("/base", "/base/f", "/base/a/f"),
        ] {
            let mut tree = Tree::new(Path::new(base));
            let root = tree.root();
            let a = branch(&mut tree, root, "a", 1);
            // As text: paths compare by their components.
            assert_eq!(tree.path(root).as_os_str(), base);
            assert_eq!(tree.path_of(root, OsStr::new("f")).as_os_str(), file);
            assert_eq!(tree.path_of(a, OsStr::new("f")).as_os_str(), in_a);
        }
    }

    #[test]
    fn entry_that_was_touched_last_is_told_as_long_as_it_stands_there() {
        let mut tree = Tree::new(Path::new("/base"));
        let root = tree.root();
        let a = branch(&mut tree, root, "a", 1);
        let (name, longer) = (OsStr::new("f"), OsStr::new("ff"));
        let leaf = || Entry::Leaf { is_dir: false, seen: NonZero::new(7) };
        tree.put(a, name, leaf()).unwrap();
        tree.put(a, longer, leaf()).unwrap();
        for _ in 0..2 {
            assert_eq!(tree.touch(a, longer), Some((Path::new("/base/a/ff"), false)));
            assert!(matches!(tree.entry(a, longer), Some(Entry::Leaf { seen: None, .. })));
        }
        assert_eq!(tree.touch(a, name), Some((Path::new("/base/a/f"), false)));
        assert_eq!(tree.touch(root, name), None, "the same name elsewhere");
        let taken = tree.take(root, OsStr::new("a")).unwrap();
        tree.put(root, OsStr::new("b"), taken).unwrap();
        assert_eq!(tree.touch(a, name), Some((Path::new("/base/b/f"), false)));
        tree.take(a, name).unwrap();
        assert_eq!(tree.touch(a, name), None);
    }

    proptest! {
        /// Against a model: a set of paths, in which a move renames every path with that prefix.
        #[test]
        fn tree_is_a_set_of_paths(
            steps in prop::collection::vec((0_usize..12, 0_usize..12, 0_u8..4, 0_u8..3), 0..80),
        ) {
            let mut tree = Tree::new(Path::new("r"));
            let mut ids = vec![tree.root()];
            let mut model = BTreeSet::from([PathBuf::from("r")]);
            for (wd, (a, b, name, what)) in steps.into_iter().enumerate() {
                let (a, b) = (ids[a % ids.len()], ids[b % ids.len()]);
                let name = OsString::from(format!("n{name}"));
                let target = tree.path_of(a, &name);
                match what {
                    0 if tree.entry(a, &name).is_none() => {
                        ids.push(branch(&mut tree, a, name.to_str().unwrap(), wd as Wd));
                        model.insert(target);
                    }
                    1 => if let Some(taken) = tree.take(a, &name) {
                        let gone = tree.forget(&taken);
                        let before = model.len();
                        model.retain(|path| !path.starts_with(&target));
                        prop_assert_eq!(gone.len(), before - model.len());
                    },
                    2 if tree.entry(b, &name).is_none() => if let Some(taken) = tree.take(a, &name) {
                        let to = tree.path_of(b, &name);
                        match tree.put(b, &name, taken) {
                            Ok(()) => model = model.iter().map(|p| match p.strip_prefix(&target) {
                                Ok(rest) => to.join(rest).components().collect(),
                                Err(_) => p.clone(),
                            }).collect(),
                            Err(back) => {
                                tree.forget(&back);
                                model.retain(|path| !path.starts_with(&target));
                            }
                        }
                    },
                    _ => {}
                }
                ids.retain(|id| tree.get(*id).is_some());
                let paths: BTreeSet<_> = ids.iter().map(|id| tree.path(*id)).collect();
                prop_assert_eq!(&paths, &model);
            }
        }
    }
}
