//! The source: reads what the kernel tells, asks the models, and hands on what they say.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use kevent_core::{Due, Full, PollKey, PollSet, Ready, Sink, Source, Token};

use crate::change::{Change, Kinds};
use crate::gather::Gather;
use crate::intake::{Event, Intake, Mask};
use crate::registration::Scope;
use crate::rename::{HOLD, Inbox, Incident};
use crate::trees::Trees;
use crate::watches::Watches;

/// So many events are looked at in one turn. Their paths are freed while the processor's cache still has
/// them; of a thousand it has not.
const TURN: usize = 128;

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
    intake: Intake,
    gather: Gather,
    /// What came behind a half of a rename that lacks the other.
    inbox: Inbox,
    trees: Trees,
    /// The kernel had no more when it was last asked in this turn.
    dry: bool,
}

impl Watcher {
    /// A watcher that watches nothing yet.
    ///
    /// # Errors
    ///
    /// When the user has as many inotify instances as he may (`max_user_instances`, 128 mostly), or
    /// the process may open no more descriptors.
    pub fn new() -> io::Result<Watcher> {
        let intake = Intake::new()?;
        let watches = Watches::new(intake.share());
        Ok(Watcher {
            intake,
            gather: Gather::default(),
            inbox: Inbox::default(),
            trees: Trees::new(watches),
            dry: false,
        })
    }

    /// Tells these kinds of changes only. To be called before anything is registered.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Kinds) -> Watcher {
        self.trees.watches.set_kinds(kinds);
        self
    }

    /// Lets changes gather for this long after the first of them, and takes them all at once then. To
    /// be called before the watcher is attached.
    ///
    /// A burst costs a fraction that way, for the watcher and for whoever makes it: 2 ms are enough.
    /// Of none, the default, each change is told as soon as the queue can. Meanwhile the changes are in
    /// the kernel's queue (`max_queued_events` in inotify(7), 16,384 mostly, which lasts for about
    /// 100 ms of a burst).
    ///
    /// ```
    /// use std::time::Duration;
    /// use kevent_fs::Watcher;
    ///
    /// let watcher = Watcher::new()?.with_gather_time(Duration::from_millis(2));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn with_gather_time(mut self, time: Duration) -> Watcher {
        self.gather.set_time(time);
        self
    }

    /// Takes that many of the user's watches at most; a watch is one directory, and takes about 1 KiB
    /// of the kernel's memory. Directories beyond are told as
    /// [`NotCovered`](crate::ChangeKind::NotCovered).
    #[must_use]
    pub fn with_watch_limit(mut self, limit: usize) -> Watcher {
        self.trees.watches.set_limit(limit);
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
        let stood = self.trees.unregister(token);
        self.gather.changed();
        stood
    }

    /// How many watches the kernel holds for this watcher.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.trees.watches.len()
    }

    fn register(&mut self, path: &Path, key: u64, scope: Scope) -> io::Result<Token> {
        self.note_unread();
        let registered = self.trees.register(path, key, scope);
        self.gather.changed();
        registered.map_err(|error| in_context(path, &error))
    }

    fn note_unread(&mut self) {
        self.trees.watches.set_unread(!self.inbox.is_empty() || !self.intake.is_empty());
    }

    /// Looks at the next event. `false` when there is none, or none to be looked at yet.
    fn step(&mut self, sink: &mut dyn Sink<Change>) -> io::Result<bool> {
        if self.inbox.is_empty() {
            return Ok(self.look_at_next(sink) || self.read_if_due()? && self.look_at_next(sink));
        }
        if self.inbox.lacks_a_half() {
            // It may be there: in the buffer, or in the kernel's queue, however late it is here.
            self.hold_back();
            if self.inbox.lacks_a_half() && self.intake.read()? {
                return Ok(true);
            }
        }
        let Some(incident) = self.inbox.pop(|| self.gather.now()) else { return Ok(false) };
        self.note_unread();
        match &incident {
            Incident::Event { wd, name, mask } => {
                let (wd, mask, name) = (*wd, *mask, name.as_deref());
                self.trees.happened(&Event { wd, mask, cookie: 0, name }, sink);
            }
            Incident::Rename { from, to, is_dir } => {
                let [from, to] = [from, to].map(|spot| spot.as_ref().map(|s| (s.wd, &*s.name)));
                self.trees.renamed(from, to, *is_dir, sink);
            }
        }
        Ok(true)
    }

    /// Reads what the kernel has, unless it is to gather. `false` when there is nothing.
    fn read_if_due(&mut self) -> io::Result<bool> {
        if self.dry || !self.gather.may_read(Gather::now) {
            return Ok(false);
        }
        let read = self.intake.read()?;
        // What comes later makes the descriptor speak again.
        self.dry = self.intake.had_room();
        if self.dry {
            self.gather.was_read(self.intake.as_fd())?;
        }
        Ok(read)
    }

    /// Looks at the next event that was read, where it lies.
    fn look_at_next(&mut self, sink: &mut dyn Sink<Change>) -> bool {
        let Some((event, mut skip)) = self.intake.peek() else { return false };
        let is_dir = event.mask.contains(Mask::ISDIR);
        let spot = event.name.map(|name| (event.wd, name));
        self.trees.watches.set_unread(self.intake.has_more_than(skip));
        if event.mask.contains(Mask::MOVED_FROM) {
            match self.intake.peek_behind(skip).filter(|(other, _)| other.cookie == event.cookie) {
                Some((other, behind)) if other.mask.contains(Mask::MOVED_TO) => {
                    skip = behind;
                    let to = other.name.map(|name| (other.wd, name));
                    self.trees.renamed(spot, to, is_dir, sink);
                }
                _ => self.inbox.push_event(&event, || self.gather.now() + HOLD),
            }
        } else if event.mask.contains(Mask::MOVED_TO) {
            self.trees.renamed(None, spot, is_dir, sink);
        } else {
            self.trees.happened(&event, sink);
        }
        self.intake.skip(skip);
        true
    }

    /// Puts what was read behind the half that lacks the other.
    fn hold_back(&mut self) {
        let mut deadline = None;
        while let Some((event, skip)) = self.intake.peek() {
            self.inbox
                .push_event(&event, || *deadline.get_or_insert_with(|| self.gather.now() + HOLD));
            self.intake.skip(skip);
        }
    }
}

impl Source for Watcher {
    type Item = Change;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.gather.attach(poll_set, self.intake.as_fd())
    }

    fn ready(&mut self, _: PollKey, _: Ready) {
        self.gather.spoke(Gather::now);
    }

    fn flush(&mut self) -> io::Result<Due> {
        if !self.trees.told.is_empty() || !self.intake.is_empty() {
            return Ok(Due::Now);
        }
        let inbox = match self.inbox.waits_until(|| self.gather.now()) {
            Some(deadline) => Due::At(deadline),
            None if self.inbox.is_empty() => Due::OnWake,
            None => Due::Now,
        };
        Ok(inbox.or_sooner(self.gather.due(Gather::now)))
    }

    fn drain(&mut self, sink: &mut impl Sink<Change>) -> io::Result<()> {
        self.dry = false;
        while let Some(change) = self.trees.told.pop_front() {
            if let Err(Full(change)) = sink.push(change.token, change) {
                self.trees.told.push_front(change);
                return Ok(());
            }
        }
        for _ in 0..TURN {
            if !self.trees.told.is_empty() || !self.step(sink)? {
                break;
            }
        }
        self.note_unread();
        self.trees.feed(sink);
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        let Some(registration) = self.trees.registrations.get(token) else { return false };
        let undelivered = registration.undelivered.saturating_sub(1);
        self.trees.set_undelivered(token, undelivered);
        true
    }

    fn detach(&mut self) {
        // The descriptor stays open with the watcher, which the user may attach elsewhere.
        self.gather.detach(self.intake.as_fd());
        // What was in the queue's ring is lost.
        for token in self.trees.tokens() {
            let told = &self.trees.told;
            let undelivered = told.iter().filter(|change| change.token == token).count();
            self.trees.set_undelivered(token, undelivered);
        }
    }
}

fn in_context(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot watch {}: {error}", path.display()))
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("registrations", &self.trees.registrations.len())
            .field("watches", &self.trees.watches.len())
            .field("unread", &self.inbox.len())
            .field("waiting", &self.trees.told.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ChangeKind;
    use kevent_core::{Queue, Wait};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn directories_that_are_gone_leave_nothing_behind() {
        // One watch for the root and one for the directory, or none for that.
        leaves_nothing_behind(2);
        leaves_nothing_behind(1);
    }

    /// The reader was kept away for longer than a half waits, and the other half has come meanwhile.
    #[test]
    fn half_whose_time_is_over_is_made_whole_by_what_was_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = Queue::new().unwrap();
        let id = queue.attach(Watcher::new().unwrap(), |change| change).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        queue[id].watch_tree(dir.path(), 1).unwrap();
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let watcher = &mut queue[id];
        assert!(watcher.intake.read().unwrap());
        let (half, skip) = watcher.intake.peek().unwrap();
        watcher.inbox.push_event(&half, Instant::now);
        watcher.intake.skip(skip);
        queue.wait(Wait::timeout(PATIENCE)).unwrap();
        let kind = queue.next().unwrap().kind;
        assert_eq!(kind, ChangeKind::Moved { from: dir.path().join("a") });
        assert_eq!(queue.next(), None);
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
        let registration = queue[watcher].trees.registrations.get(token).unwrap();
        assert!(registration.unsettled.is_empty(), "{:?}", registration.unsettled);
        assert!(registration.starved.is_empty(), "{:?}", registration.starved);
        assert_eq!(queue[watcher].watches(), 1);
    }
}
