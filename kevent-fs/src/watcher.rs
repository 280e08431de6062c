//! The source: reads what the kernel tells, asks the models, and hands on what they say.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use inotify::{EventMask, Inotify};
use kevent_core::{Due, Full, Interest, PollKey, PollSet, Sink, Source, Table, Token, Trigger};

use crate::change::{Change, Kinds};
use crate::registration::{Registration, Scope, Work};
use crate::rename::{HOLD, Inbox, Incident, Spot};
use crate::scan::Pass;
use crate::tree::NodeId;
use crate::watches::Watches;

/// Bytes that one `read(2)` takes: a few thousand events.
const BUFFER: usize = 64 * 1024;

/// A source of changes of files and of whole trees.
///
/// ```
/// use kevent_core::Queue;
/// use kevent_fs::{ChangeKind, Watcher};
///
/// let dir = tempfile::tempdir()?;
/// let mut queue = Queue::new()?;
/// let watcher = queue.attach(Watcher::new()?, |change| change)?;
/// queue[watcher].watch_tree(dir.path(), 7)?;
///
/// std::fs::create_dir_all(dir.path().join("a/b/c"))?;
///
/// let mut created = Vec::new();
/// while created.len() < 3 {
///     queue.wait(None)?;
///     while let Some(change) = queue.next() {
///         assert_eq!((change.key, change.kind), (7, ChangeKind::Created));
///         created.push(change.path);
///     }
/// }
/// assert_eq!(created, ["a", "a/b", "a/b/c"].map(|name| dir.path().join(name)));
/// # std::io::Result::Ok(())
/// ```
///
/// What surprises:
///
/// * A watch is on the inode, not on the path. Changes of a watched *file* through another hard link
///   are told under the path that was registered. In a watched *directory* the kernel tells only of
///   the name through which a file is changed.
/// * The kernel does not tell when a directory *above* the root is renamed, or when a root that is a
///   symbolic link is pointed elsewhere. The next new directory brings it to light, as
///   [`RootGone`](crate::ChangeKind::RootGone). A root directory that is removed while somebody has it
///   open is told to be gone when he closes it.
/// * One half of a rename waits up to 2 ms for the other, and what happened after it waits behind it.
/// * Symbolic links below the root are not followed; the root itself may be one.
/// * Changes through `mmap(2)`, or made by another machine on a network file system, are not told by
///   the kernel.
/// * A relative path is looked up anew for each directory: do not change the working directory.
///
/// No call waits for anything, but registering a tree, a directory that turns up in one, and
/// the rescan after an overflow read directories, and the attributes of what they hold, on the calling
/// thread. The memory for it grows with the tree: about the length of the names, and 100 bytes each.
///
/// What the ring has no room for stays here, and nothing more is read from the kernel until it has
/// gone; so the kernel's own queue (`max_queued_events`, inotify(7)) is the bound. When that runs
/// over, every registration tells [`Overflow`](crate::ChangeKind::Overflow), then what differs, then
/// [`Resynced`](crate::ChangeKind::Resynced).
///
/// Source: inotify(7).
pub struct Watcher {
    inotify: Inotify,
    buffer: Box<[u8]>,
    inbox: Inbox,
    watches: Watches,
    registrations: Table<Registration>,
    /// On its way into the ring.
    told: VecDeque<Change>,
    poll_set: Option<PollSet>,
}

impl Watcher {
    /// A watcher that watches nothing yet.
    ///
    /// # Errors
    ///
    /// When the user has as many inotify instances as he may (`max_user_instances`, 128 mostly), or
    /// the process may open no more descriptors.
    pub fn new() -> io::Result<Watcher> {
        let inotify = Inotify::init()?;
        Ok(Watcher {
            watches: Watches::new(inotify.watches()),
            inotify,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            inbox: Inbox::default(),
            registrations: Table::new(),
            told: VecDeque::new(),
            poll_set: None,
        })
    }

    /// Tells these kinds of changes only. To be called before anything is registered.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Kinds) -> Watcher {
        self.watches.set_kinds(kinds);
        self
    }

    /// Takes that many of the user's watches at most; a watch is one directory, and takes about 1 KiB
    /// of the kernel's memory. Directories beyond are told as
    /// [`NotCovered`](crate::ChangeKind::NotCovered).
    #[must_use]
    pub fn with_watch_limit(mut self, limit: usize) -> Watcher {
        self.watches.set_limit(limit);
        self
    }

    /// Watches one file, or one directory and its entries. `key` comes with every change.
    ///
    /// What the directory holds already is not told.
    ///
    /// # Errors
    ///
    /// When `path` leads to nothing, when it must not be read, or when there are no more watches
    /// (`StorageFull`).
    pub fn watch(&mut self, path: impl AsRef<Path>, key: u64) -> io::Result<Token> {
        let path = path.as_ref();
        let is_dir = fs::metadata(path).map_err(|error| in_context(path, &error))?.is_dir();
        self.register(path, key, if is_dir { Scope::Directory } else { Scope::File })
    }

    /// Watches a directory and all directories below, also those that come later. `key` comes with
    /// every change.
    ///
    /// What the tree holds already is not told. A directory below that can't be watched is told as
    /// [`NotCovered`](crate::ChangeKind::NotCovered), and the others are watched.
    ///
    /// # Errors
    ///
    /// As [`watch`](Watcher::watch), for the root; `NotADirectory` when it is none.
    pub fn watch_tree(&mut self, path: impl AsRef<Path>, key: u64) -> io::Result<Token> {
        self.register(path.as_ref(), key, Scope::Tree)
    }

    /// Ends a registration. No change of it comes out any more, not even one that is in the ring.
    ///
    /// `false` when it had ended already.
    pub fn unwatch(&mut self, token: Token) -> bool {
        self.at_work(token, |work| work.let_go());
        self.told.retain(|change| change.token != token);
        let stood = self.registrations.remove(token).is_some();
        self.feed();
        self.changed();
        stood
    }

    /// How many watches the kernel holds for this watcher.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    fn register(&mut self, path: &Path, key: u64, scope: Scope) -> io::Result<Token> {
        let registration = Registration::new(path, key, scope);
        let root = registration.tree.root();
        let added = self.watches.add(path, registration.target(root));
        let wd = added.map_err(|error| in_context(path, &error))?;
        let token = self.registrations.insert(registration);
        self.watches.hold(wd, token, root);
        self.at_work(token, |work| {
            if let Some(root) = work.tree().get_mut(root) {
                root.wd = Some(wd);
            }
            if scope != Scope::File {
                work.scan(root, Pass::Before);
            }
        });
        self.changed();
        Ok(token)
    }

    /// What `flush` would say may have changed.
    fn changed(&self) {
        if let Some(poll_set) = &self.poll_set {
            poll_set.waker().changed();
        }
    }

    fn at_work(&mut self, token: Token, act: impl FnOnce(&mut Work<'_>)) {
        let Some(registration) = self.registrations.get_mut(token) else { return };
        if registration.ended {
            return;
        }
        let (watches, told) = (&mut self.watches, &mut self.told);
        act(&mut Work { token, registration, watches, told });
    }

    fn all_at_work(&mut self, act: impl Fn(&mut Work<'_>)) {
        let tokens: Vec<_> = self.registrations.iter().map(|(token, _)| token).collect();
        for token in tokens {
            self.at_work(token, &act);
        }
    }

    /// Reads what the kernel has. `false` when that is nothing.
    fn read(&mut self) -> io::Result<bool> {
        let events = match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut deadline = None;
        for event in events {
            let (wd, is_dir) =
                (event.wd.get_watch_descriptor_id(), event.mask.contains(EventMask::ISDIR));
            let name = event.name.map(|name| name.to_owned());
            match name {
                Some(name) if event.mask.contains(EventMask::MOVED_FROM) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + HOLD);
                    self.inbox.push_from(Spot { wd, name }, is_dir, event.cookie, deadline);
                }
                Some(name) if event.mask.contains(EventMask::MOVED_TO) => {
                    self.inbox.push_to(Spot { wd, name }, is_dir, event.cookie);
                }
                name => self.inbox.push(Incident::Event { wd, name, mask: event.mask }),
            }
        }
        Ok(true)
    }

    fn happened(&mut self, incident: &Incident) {
        match incident {
            Incident::Event { mask, .. } if mask.contains(EventMask::Q_OVERFLOW) => {
                self.watches.overflowed();
                self.all_at_work(|work| work.overflowed());
            }
            Incident::Event { wd, mask, .. } if mask.contains(EventMask::IGNORED) => {
                for (token, node) in self.watches.ignored(*wd) {
                    self.at_work(token, |work| work.ignored(node));
                }
            }
            Incident::Event { wd, name, mask } => {
                for (token, node) in self.watches.holders(*wd).to_vec() {
                    self.at_work(token, |work| work.event(node, name.as_ref(), *mask));
                }
            }
            Incident::Rename { from, to, is_dir } => {
                self.renamed(from.as_ref(), to.as_ref(), *is_dir);
            }
        }
    }

    /// Each registration that has one end of the rename is told of it, those that have both once.
    fn renamed(&mut self, from: Option<&Spot>, to: Option<&Spot>, is_dir: bool) {
        let holders = |spot: Option<&Spot>| {
            spot.map_or(Vec::new(), |spot| self.watches.holders(spot.wd).to_vec())
        };
        let (sources, targets) = (holders(from), holders(to));
        let find = |ends: &[(Token, NodeId)], token: Token| {
            ends.iter().find(|end| end.0 == token).map(|end| end.1)
        };
        let mut tokens: Vec<_> = sources.iter().chain(&targets).map(|end| end.0).collect();
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            let from = find(&sources, token).zip(from.map(|spot| spot.name.as_os_str()));
            let to = find(&targets, token).zip(to.map(|spot| spot.name.as_os_str()));
            self.at_work(token, |work| work.renamed(from, to, is_dir));
        }
    }

    /// A registration that has ended goes with its last change.
    fn set_undelivered(&mut self, token: Token, undelivered: usize) {
        let Some(registration) = self.registrations.get_mut(token) else { return };
        registration.undelivered = undelivered;
        if registration.ended && undelivered == 0 {
            self.registrations.remove(token);
        }
    }

    /// Gives watches that got free to directories that have none.
    fn feed(&mut self) {
        if self.watches.take_freed() {
            self.all_at_work(|work| work.feed());
        }
    }
}

impl Source for Watcher {
    type Item = Change;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        let fd = self.inotify.as_fd();
        poll_set.add(fd, PollKey::default(), Interest::READABLE, Trigger::Level)?;
        self.poll_set = Some(poll_set.clone());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        if !self.told.is_empty() {
            return Ok(Due::Now);
        }
        Ok(match self.inbox.waits_until(Instant::now) {
            Some(deadline) => Due::At(deadline),
            None if self.inbox.is_empty() => Due::OnWake,
            None => Due::Now,
        })
    }

    fn drain(&mut self, sink: &mut impl Sink<Change>) -> io::Result<()> {
        loop {
            while let Some(change) = self.told.pop_front() {
                if let Err(Full(change)) = sink.push(change.token, change) {
                    self.told.push_front(change);
                    return Ok(());
                }
            }
            if let Some(incident) = self.inbox.pop(Instant::now) {
                self.happened(&incident);
            } else if !self.read()? {
                self.feed();
                if self.told.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    fn deliver(&mut self, token: Token) -> bool {
        let Some(registration) = self.registrations.get(token) else { return false };
        let undelivered = registration.undelivered.saturating_sub(1);
        self.set_undelivered(token, undelivered);
        true
    }

    fn detach(&mut self) {
        // The descriptor stays open with the watcher, which the user may attach elsewhere.
        if let Some(poll_set) = self.poll_set.take() {
            let _ = poll_set.delete(self.inotify.as_fd());
        }
        // What was in the queue's ring is lost.
        let tokens: Vec<_> = self.registrations.iter().map(|(token, _)| token).collect();
        for token in tokens {
            let undelivered = self.told.iter().filter(|change| change.token == token).count();
            self.set_undelivered(token, undelivered);
        }
    }
}

fn in_context(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot watch {}: {error}", path.display()))
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("registrations", &self.registrations.len())
            .field("watches", &self.watches.len())
            .field("unread", &self.inbox.len())
            .field("waiting", &self.told.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ChangeKind;
    use kevent_core::{Queue, Wait};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn directories_that_are_gone_leave_nothing_behind() {
        // One watch for the root and one for the directory, or none for that.
        leaves_nothing_behind(2);
        leaves_nothing_behind(1);
    }

    fn leaves_nothing_behind(limit: usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = Queue::new().unwrap();
        let source = Watcher::new().unwrap().with_watch_limit(limit);
        let watcher = queue.attach(source, |change| change).unwrap();
        let token = queue[watcher].watch_tree(dir.path(), 1).unwrap();
        let path = dir.path().join("directory");
        for _ in 0..20 {
            fs::create_dir(&path).unwrap();
            queue.wait(Wait::timeout(PATIENCE)).unwrap();
            assert_eq!(queue.next().unwrap().kind, ChangeKind::Created);
            fs::remove_dir(&path).unwrap();
            while queue.next().is_none_or(|change| change.kind != ChangeKind::Removed) {
                assert_ne!(queue.wait(Wait::timeout(PATIENCE)).unwrap(), 0);
            }
        }
        let registration = queue[watcher].registrations.get(token).unwrap();
        assert!(registration.unsettled.is_empty(), "{:?}", registration.unsettled);
        assert!(registration.starved.is_empty(), "{:?}", registration.starved);
        assert_eq!(queue[watcher].watches(), 1);
    }
}
