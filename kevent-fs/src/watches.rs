//! The watches that the kernel holds for us, and for which registrations.
//!
//! The kernel has one watch for an inode, however often it was asked for, so registrations that
//! overlap share it; the last one that lets go removes it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use inotify::{WatchDescriptor, WatchMask};
use kevent_core::Token;

use crate::change::Kinds;
use crate::rename::Wd;
use crate::tree::NodeId;

/// A registration, and which directory of its tree.
pub(crate) type Holder = (Token, NodeId);

/// What is to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// What the user named, be it through a symbolic link.
    File,
    /// As `File`, but it has to be a directory.
    Root,
    /// A directory that was found; a symbolic link to one is none.
    Found,
}

#[derive(Debug)]
struct Watch {
    descriptor: WatchDescriptor,
    holders: Vec<Holder>,
}

pub(crate) struct Watches {
    kernel: inotify::Watches,
    by_wd: HashMap<Wd, Watch>,
    /// Removed, but the kernel's last word on them (`IN_IGNORED`) was not read yet: what comes in
    /// under such a number is old, even if the kernel has begun to use the number again.
    retired: HashSet<Wd>,
    kinds: Kinds,
    limit: usize,
    /// A watch was removed since that was last asked.
    freed: bool,
}

impl Watches {
    pub(crate) fn new(kernel: inotify::Watches) -> Watches {
        Watches {
            kernel,
            by_wd: HashMap::new(),
            retired: HashSet::new(),
            kinds: Kinds::default(),
            limit: usize::MAX,
            freed: false,
        }
    }

    pub(crate) fn set_kinds(&mut self, kinds: Kinds) {
        self.kinds = kinds;
    }

    pub(crate) fn kinds(&self) -> Kinds {
        self.kinds
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(crate) fn len(&self) -> usize {
        self.by_wd.len()
    }

    pub(crate) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// Watches what `path` leads to now. Somebody has to [`hold`](Watches::hold) it.
    ///
    /// `StorageFull` at the limit, be it ours or the kernel's.
    pub(crate) fn add(&mut self, path: &Path, target: Target) -> io::Result<Wd> {
        let descriptor = self.kernel.add(path, mask(target, self.kinds))?;
        let wd = descriptor.get_watch_descriptor_id();
        if self.by_wd.contains_key(&wd) {
            return Ok(wd);
        }
        // Only the kernel knows whether the path leads to something new.
        if self.by_wd.len() >= self.limit {
            self.retire(wd, descriptor);
            let text = "the watcher holds as many watches as it was allowed (with_watch_limit)";
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        self.by_wd.insert(wd, Watch { descriptor, holders: Vec::new() });
        Ok(wd)
    }

    /// Whether `path` leads to what `wd` watches.
    pub(crate) fn leads_to(&mut self, path: &Path, target: Target, wd: Wd) -> bool {
        match self.add(path, target) {
            Ok(found) => {
                self.remove_if_unheld(found);
                found == wd
            }
            Err(_) => false,
        }
    }

    pub(crate) fn holders(&self, wd: Wd) -> &[Holder] {
        if self.retired.contains(&wd) {
            return &[];
        }
        self.by_wd.get(&wd).map_or(&[], |watch| &watch.holders)
    }

    /// As which directory the registration holds the watch.
    pub(crate) fn holder(&self, wd: Wd, token: Token) -> Option<NodeId> {
        let watch = self.by_wd.get(&wd)?;
        watch.holders.iter().find(|holder| holder.0 == token).map(|holder| holder.1)
    }

    /// The registration holds the watch as that directory, and as no other.
    pub(crate) fn hold(&mut self, wd: Wd, token: Token, node: NodeId) {
        if let Some(watch) = self.by_wd.get_mut(&wd) {
            watch.holders.retain(|holder| holder.0 != token);
            watch.holders.push((token, node));
        }
    }

    /// The registration lets go of the watch.
    pub(crate) fn release(&mut self, wd: Wd, token: Token) {
        if let Some(watch) = self.by_wd.get_mut(&wd) {
            watch.holders.retain(|holder| holder.0 != token);
        }
        self.remove_if_unheld(wd);
    }

    /// The kernel has removed the watch, and says nothing of it any more. Those who held it.
    pub(crate) fn ignored(&mut self, wd: Wd) -> Vec<Holder> {
        if self.retired.remove(&wd) {
            return Vec::new();
        }
        self.freed = true;
        self.by_wd.remove(&wd).map_or(Vec::new(), |watch| watch.holders)
    }

    /// The kernel's queue ran over; it may have swallowed any number of last words.
    pub(crate) fn overflowed(&mut self) {
        self.retired.clear();
    }

    fn remove_if_unheld(&mut self, wd: Wd) {
        if self.by_wd.get(&wd).is_some_and(|watch| watch.holders.is_empty()) {
            if let Some(watch) = self.by_wd.remove(&wd) {
                self.freed = true;
                self.retire(wd, watch.descriptor);
            }
        }
    }

    fn retire(&mut self, wd: Wd, descriptor: WatchDescriptor) {
        // Fails when the kernel was faster: the directory is gone. Its last word comes all the same.
        let _ = self.kernel.remove(descriptor);
        self.retired.insert(wd);
    }
}

fn mask(target: Target, kinds: Kinds) -> WatchMask {
    let mut mask = match target {
        // The number of links tells that a file was removed which somebody still has open.
        Target::File => WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ATTRIB,
        // Names are followed whatever is wanted: without them no path is known. A file that has no
        // name any more is nobody's entry.
        Target::Root | Target::Found => {
            WatchMask::CREATE
                | WatchMask::DELETE
                | WatchMask::MOVE
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF
                | WatchMask::ONLYDIR
                | WatchMask::EXCL_UNLINK
        }
    };
    for (kind, flag) in [
        (Kinds::MODIFIED, WatchMask::MODIFY),
        (Kinds::WRITTEN, WatchMask::CLOSE_WRITE),
        (Kinds::ATTRIBUTES, WatchMask::ATTRIB),
    ] {
        mask.set(flag, mask.contains(flag) || kinds.contains(kind));
    }
    mask.set(WatchMask::DONT_FOLLOW, target == Target::Found);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use inotify::{EventMask, Inotify};
    use kevent_core::Table;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::fs;

    const LIMIT: usize = 3;

    /// Reads the kernel's last words, as the watcher does.
    fn hear(inotify: &mut Inotify, watches: &mut Watches) {
        let mut buffer = [0; 4096];
        while let Ok(events) = inotify.read_events(&mut buffer) {
            for event in events.filter(|event| event.mask.contains(EventMask::IGNORED)) {
                let holders = watches.ignored(event.wd.get_watch_descriptor_id());
                assert!(
                    holders.is_empty(),
                    "the directories stand, so only what nobody holds goes"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Against a set of pairs: a directory is watched as long as one registration holds it, by
        /// one watch, and never are there more of them than allowed.
        #[test]
        fn watch_stands_while_somebody_holds_it(
            steps in prop::collection::vec((0_usize..5, 0_usize..3, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let paths: Vec<_> = (0..5).map(|n| dir.path().join(n.to_string())).collect();
            paths.iter().for_each(|path| fs::create_dir(path).unwrap());
            let mut tokens = Table::new();
            let tokens: Vec<_> = (0..3).map(|n| tokens.insert(n)).collect();
            let mut inotify = Inotify::init().unwrap();
            let mut watches = Watches::new(inotify.watches());
            watches.set_limit(LIMIT);
            let mut model: BTreeSet<(usize, usize)> = BTreeSet::new();
            let mut wds = [None; 5];
            for (path, who, hold, hears) in steps {
                let is_watched = model.iter().any(|(held, _)| *held == path);
                let count = model.iter().map(|(held, _)| *held).collect::<BTreeSet<_>>().len();
                if hold {
                    match watches.add(&paths[path], Target::Found) {
                        Ok(wd) => {
                            prop_assert!(is_watched || count < LIMIT, "more than allowed");
                            if is_watched {
                                prop_assert_eq!(wds[path], Some(wd), "one watch for all");
                            }
                            wds[path] = Some(wd);
                            watches.hold(wd, tokens[who], tokens[who]);
                            model.insert((path, who));
                        }
                        Err(error) => {
                            prop_assert!(!is_watched && count == LIMIT, "{}", error);
                            prop_assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                        }
                    }
                } else if let Some(wd) = wds[path] {
                    watches.release(wd, tokens[who]);
                    model.remove(&(path, who));
                }
                if hears {
                    hear(&mut inotify, &mut watches);
                }
                let held: BTreeSet<_> = model.iter().map(|(held, _)| *held).collect();
                prop_assert_eq!(watches.len(), held.len());
                for (n, wd) in wds.iter().enumerate() {
                    let Some(wd) = *wd else { continue };
                    let mut holders: Vec<_> = watches.holders(wd).iter().map(|h| h.0).collect();
                    holders.sort_unstable();
                    let expected: Vec<_> = model
                        .iter()
                        .filter(|(held, _)| *held == n)
                        .map(|(_, who)| tokens[*who])
                        .collect();
                    prop_assert_eq!(holders, expected);
                    if held.contains(&n) {
                        prop_assert!(watches.leads_to(&paths[n], Target::Found, wd));
                        prop_assert!(!watches.leads_to(&paths[(n + 1) % 5], Target::Found, wd));
                    }
                }
                prop_assert_eq!(watches.len(), held.len(), "a look leaves no watch behind");
            }
        }
    }
}
