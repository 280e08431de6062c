//! The watches that the kernel holds for us, and for which registrations.
//!
//! The kernel has one watch for an inode, however often it was asked for, so registrations that
//! overlap share it; the last one that lets go removes it.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use foldhash::HashMap;
use inotify::{Inotify, WatchDescriptor, WatchMask};
use kevent_core::Token;

use crate::change::Kinds;
use crate::intake::Wd;
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
    /// As `Found`, by a link of /proc to where it is held open.
    Pinned,
}

pub(crate) struct Watches {
    kernel: Arc<Inotify>,
    /// The same descriptor.
    adder: inotify::Watches,
    /// Who holds each watch.
    by_wd: HashMap<Wd, Watch>,
    /// Removed, but the kernel's last word on them (`IN_IGNORED`) was not read yet: what comes in
    /// under such a number is old, even if the kernel has begun to use the number again.
    retired: HashSet<Wd>,
    kinds: Kinds,
    limit: usize,
    /// A watch was removed since that was last asked.
    freed: bool,
    /// Events were read that nobody has looked at yet.
    unread: bool,
}

struct Watch {
    descriptor: WatchDescriptor,
    holders: Vec<Holder>,
}

impl Watches {
    pub(crate) fn new(kernel: Arc<Inotify>) -> Watches {
        Watches {
            adder: kernel.watches(),
            kernel,
            by_wd: HashMap::default(),
            retired: HashSet::new(),
            kinds: Kinds::default(),
            limit: usize::MAX,
            freed: false,
            unread: false,
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

    /// Says whether events were read that nobody has looked at yet.
    pub(crate) fn set_unread(&mut self, unread: bool) {
        self.unread = unread;
    }

    /// Whether nothing has happened that is not known: no event waits, neither here nor in the kernel.
    pub(crate) fn is_silent(&self) -> bool {
        !self.unread && rustix::io::ioctl_fionread(&self.kernel) == Ok(0)
    }

    /// Watches what `path` leads to now. Somebody has to [`hold`](Watches::hold) it.
    ///
    /// `StorageFull` at the limit, be it ours or the kernel's.
    pub(crate) fn add(&mut self, path: &Path, target: Target) -> io::Result<Wd> {
        let descriptor = self.adder.add(path, mask(target, self.kinds))?;
        let wd = descriptor.get_watch_descriptor_id();
        if self.by_wd.contains_key(&wd) {
            return Ok(wd);
        }
        // Only the kernel knows whether the path leads to something new.
        if self.by_wd.len() >= self.limit {
            self.retire(descriptor);
            let text = "the watcher holds as many watches as it was allowed (with_watch_limit)";
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        self.by_wd.insert(wd, Watch { descriptor, holders: Vec::with_capacity(1) });
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
        let holders = &self.by_wd.get(&wd)?.holders;
        holders.iter().find(|holder| holder.0 == token).map(|holder| holder.1)
    }

    /// The registration holds the watch as that directory, and as no other.
    pub(crate) fn hold(&mut self, wd: Wd, token: Token, node: NodeId) {
        if let Some(Watch { holders, .. }) = self.by_wd.get_mut(&wd) {
            holders.retain(|holder| holder.0 != token);
            holders.push((token, node));
        }
    }

    /// The registration lets go of the watch.
    pub(crate) fn release(&mut self, wd: Wd, token: Token) {
        if let Some(Watch { holders, .. }) = self.by_wd.get_mut(&wd) {
            holders.retain(|holder| holder.0 != token);
        }
        self.remove_if_unheld(wd);
    }

    /// The kernel has removed the watch, and says nothing of it any more. Those who held it.
    pub(crate) fn ignored(&mut self, wd: Wd) -> Vec<Holder> {
        if self.retired.remove(&wd) {
            return Vec::new();
        }
        self.freed = true;
        self.by_wd.remove(&wd).map(|watch| watch.holders).unwrap_or_default()
    }

    /// The kernel's queue ran over; it may have swallowed any number of last words.
    pub(crate) fn overflowed(&mut self) {
        self.retired.clear();
    }

    /// Removes a watch that was added and that nobody holds.
    pub(crate) fn remove_if_unheld(&mut self, wd: Wd) {
        if !self.by_wd.get(&wd).is_some_and(|watch| watch.holders.is_empty()) {
            return;
        }
        if let Some(watch) = self.by_wd.remove(&wd) {
            self.freed = true;
            self.retire(watch.descriptor);
        }
    }

    fn retire(&mut self, descriptor: WatchDescriptor) {
        self.retired.insert(descriptor.get_watch_descriptor_id());
        // Fails when the kernel was faster: the directory is gone. Its last word comes all the same.
        let _ = self.adder.remove(descriptor);
    }
}

/// What the kernel is asked to tell: what the wanted kinds need, and what following names needs.
fn mask(target: Target, kinds: Kinds) -> WatchMask {
    let itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
    // Names are followed whatever is wanted: without them no path is known. A file that has no name
    // any more is nobody's entry.
    let names = WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ONLYDIR
        | WatchMask::EXCL_UNLINK;
    let mut mask = match target {
        // The number of links tells that a file was removed which somebody still has open.
        Target::File => itself | WatchMask::ATTRIB,
        Target::Root => itself | names,
        // Where it is and whether it stands, the directory above tells.
        Target::Found => names | WatchMask::DONT_FOLLOW,
        Target::Pinned => names,
    };
    mask.set(WatchMask::MODIFY, kinds.contains(Kinds::MODIFIED));
    mask.set(WatchMask::CLOSE_WRITE, kinds.contains(Kinds::WRITTEN));
    if kinds.contains(Kinds::ATTRIBUTES) {
        mask |= WatchMask::ATTRIB;
    }
    // The same directory may be the root of one registration and be found by another one.
    mask | WatchMask::MASK_ADD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::{Intake, Mask};
    use kevent_core::Table;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::fs;

    const LIMIT: usize = 3;

    /// Reads the kernel's last words, as the watcher does.
    fn hear(intake: &mut Intake, watches: &mut Watches) {
        while intake.read().unwrap() {
            while let Some((event, skip)) = intake.peek() {
                if event.mask.contains(Mask::IGNORED) {
                    let holders = watches.ignored(event.wd);
                    assert!(
                        holders.is_empty(),
                        "the directories stand, so only what nobody holds goes"
                    );
                }
                intake.skip(skip);
            }
        }
    }

    #[test]
    fn number_that_comes_again_is_silent_until_the_last_word_on_its_old_watch() {
        let dir = tempfile::tempdir().unwrap();
        let (mut tokens, intake) = (Table::new(), Intake::new().unwrap());
        let (old, new) = (tokens.insert(0), tokens.insert(1));
        let mut watches = Watches::new(intake.share());
        let wd = watches.add(dir.path(), Target::Found).unwrap();
        watches.hold(wd, old, old);
        watches.release(wd, old);
        // The kernel takes 2^31 other numbers first; not so here.
        let descriptor = watches.adder.add(dir.path(), WatchMask::CREATE).unwrap();
        watches.by_wd.insert(wd, Watch { descriptor, holders: vec![(new, new)] });
        assert_eq!(watches.holders(wd), [], "what comes now is of the old one");
        assert_eq!(watches.ignored(wd), [], "and so is this");
        assert_eq!(watches.holders(wd), [(new, new)]);
        assert_eq!(watches.ignored(wd), [(new, new)]);
    }

    /// Each makes an inotify instance; as many as `PROPTEST_CASES` says, if it does.
    fn cases() -> ProptestConfig {
        match std::env::var_os("PROPTEST_CASES") {
            Some(_) => ProptestConfig::default(),
            None => ProptestConfig::with_cases(60),
        }
    }

    proptest! {
        #![proptest_config(cases())]

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
            let mut intake = Intake::new().unwrap();
            let mut watches = Watches::new(intake.share());
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
                    hear(&mut intake, &mut watches);
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
