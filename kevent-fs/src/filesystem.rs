//! The source that watches whole file systems: reads what fanotify reports, and hands on what the
//! registrations make of it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use kevent_core::{Due, Full, PollKey, PollSet, Ready, Sink, Source, Table, Token};

use crate::buffer::Buffer;
use crate::change::{Change, Kinds};
use crate::directories::Directories;
use crate::gather::Gather;
use crate::report::{self, Report};
use crate::subtree::{Subtree, Teller};
use crate::sys::fanotify;

/// The largest report: a head, two names and three handles, of the largest size each.
const LARGEST: usize = 24 + 3 * (12 + 8 + 128) + 2 * 256;

/// A source of changes of whole file systems, or of what is below a directory of one.
///
/// It tells the same [`Change`]s as [`Watcher`](crate::Watcher), for a tree of any size: registering
/// takes some 50 us and one mark, and no directory is read. It asks for privileges, and it keeps no
/// list of what there is, hence the differences:
///
/// * It needs `CAP_SYS_ADMIN` and `CAP_DAC_READ_SEARCH`, Linux 5.9 (5.17 to tell renames as such, and
///   to tell two things of one name apart), and a file system with file handles, as ext4, XFS, btrfs and
///   tmpfs have them. What is missing says [`probe`](FileSystemWatcher::probe), or the error of
///   [`watch_tree`](FileSystemWatcher::watch_tree).
/// * Everything that happens on the file system reaches this source, and is thrown away here if it is
///   not below a registration. What other file systems that are mounted below do is not told.
/// * The kernel makes one of equal changes that were not read yet: of a file that was created,
///   written and removed since, this is told in the order that leads to what is there now. A name that
///   is renamed there and back several times may be told with one time too few.
/// * A change is told twice when a directory is moved in and something happens in it at the same time.
/// * The kernel's queue has no bound, but the memory of the machine, unless it was
///   [asked for](FileSystemWatcher::with_bounded_queue). When it runs over,
///   [`Overflow`](crate::ChangeKind::Overflow) is told and nothing else: what was lost is not known here.
/// * The root is held open: its file system can't be unmounted before
///   [`unwatch`](FileSystemWatcher::unwatch).
/// * What is moved out of sight of the mount that the root was reached by is told as removed.
///
/// What the program itself does is told, too.
///
/// ```
/// use kevent_core::Queue;
/// use kevent_fs::{ChangeKind, FileSystemWatcher};
///
/// if let Err(missing) = FileSystemWatcher::probe() {
///     eprintln!("{missing}"); // "watching a file system needs CAP_SYS_ADMIN ..."
///     return Ok(());
/// }
/// let dir = tempfile::tempdir()?;
/// let mut queue = Queue::new()?;
/// let watcher = queue.attach(FileSystemWatcher::new()?, |change| change)?;
/// # if queue[watcher].watch_tree(dir.path(), 7).is_err() { return Ok(()) }
/// queue[watcher].watch_tree(dir.path(), 7)?;
/// std::fs::create_dir_all(dir.path().join("a/b"))?;
/// queue.wait(None)?;
/// let change = queue.next().expect("a change");
/// assert_eq!((change.path, change.kind), (dir.path().join("a"), ChangeKind::Created));
/// # std::io::Result::Ok(())
/// ```
///
/// Source: fanotify(7).
pub struct FileSystemWatcher {
    group: OwnedFd,
    buffer: Buffer,
    gather: Gather,
    kinds: Kinds,
    /// Whether the kernel says what was changed, and tells a rename as one.
    names_targets: bool,
    subtrees: Table<Subtree>,
    /// On its way into the ring.
    told: VecDeque<Change>,
    /// The kernel had no more when it was last asked in this turn.
    dry: bool,
}

impl FileSystemWatcher {
    /// Whether such a source can work here. Leaves nothing behind.
    ///
    /// # Errors
    ///
    /// As [`new`](FileSystemWatcher::new).
    pub fn probe() -> io::Result<()> {
        FileSystemWatcher::new().map(|_| ())
    }

    /// A watcher that watches nothing yet. The kernel's queue of it has no bound.
    ///
    /// # Errors
    ///
    /// `Unsupported` when the kernel has no fanotify or an old one, or the program lacks a capability;
    /// the message says which. Else when the process may open no more descriptors.
    pub fn new() -> io::Result<FileSystemWatcher> {
        FileSystemWatcher::with_flags(libc::FAN_UNLIMITED_QUEUE)
    }

    /// As [`new`](FileSystemWatcher::new), but the kernel keeps `fs.fanotify.max_queued_events`
    /// (16,384 mostly) reports at most.
    ///
    /// # Errors
    ///
    /// As [`new`](FileSystemWatcher::new).
    pub fn with_bounded_queue() -> io::Result<FileSystemWatcher> {
        FileSystemWatcher::with_flags(0)
    }

    fn with_flags(flags: libc::c_uint) -> io::Result<FileSystemWatcher> {
        let flags = flags | libc::FAN_UNLIMITED_MARKS;
        match fanotify::group(flags | libc::FAN_REPORT_DFID_NAME_TARGET) {
            Ok(group) => Ok(FileSystemWatcher::of(group, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                FileSystemWatcher::without_targets(flags)
            }
            Err(error) => Err(explained(error)),
        }
    }

    /// As it works with a kernel before 5.17.
    fn without_targets(flags: libc::c_uint) -> io::Result<FileSystemWatcher> {
        let group = fanotify::group(flags | libc::FAN_REPORT_DFID_NAME).map_err(explained)?;
        Ok(FileSystemWatcher::of(group, false))
    }

    fn of(group: OwnedFd, names_targets: bool) -> FileSystemWatcher {
        FileSystemWatcher {
            group,
            buffer: Buffer::new(),
            gather: Gather::default(),
            kinds: Kinds::default(),
            names_targets,
            subtrees: Table::new(),
            told: VecDeque::new(),
            dry: false,
        }
    }

    /// Tells these kinds of changes only. To be called before anything is registered.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Kinds) -> FileSystemWatcher {
        self.kinds = kinds;
        self
    }

    /// Lets changes gather for this long after the first of them, and takes them all at once then;
    /// see [`Watcher::with_gather_time`](crate::Watcher::with_gather_time). To be called before the
    /// watcher is attached.
    #[must_use]
    pub fn with_gather_time(mut self, time: Duration) -> FileSystemWatcher {
        self.gather.set_time(time);
        self
    }

    /// Watches the file system that the directory `path` is on, and tells what happens below it: of
    /// the whole file system for the directory where it is mounted. `key` comes with every change.
    ///
    /// What is there already is not told.
    ///
    /// # Errors
    ///
    /// When `path` leads to no directory or must not be read. `Unsupported` when the file system
    /// has no file handles, or the program lacks a capability; the message says which.
    pub fn watch_tree(&mut self, path: impl AsRef<Path>, key: u64) -> io::Result<Token> {
        let path = path.as_ref();
        let registered = self.register(path, key);
        self.gather.changed();
        registered.map_err(explained).map_err(|error| in_context(path, &error))
    }

    /// Ends a registration. No change of it comes out any more, not even one that is in the ring.
    ///
    /// `false` when it had ended already.
    pub fn unwatch(&mut self, token: Token) -> bool {
        self.told.retain(|change| change.token != token);
        let stood = self.remove(token);
        self.gather.changed();
        stood
    }

    fn register(&mut self, path: &Path, key: u64) -> io::Result<Token> {
        let directories = Directories::new(path)?;
        let volume = rustix::fs::fstatvfs(directories.root())?.f_fsid;
        let (group, mask) = (self.group.as_fd(), self.mask());
        fanotify::mark(group, libc::FAN_MARK_ADD, mask, directories.root())?;
        Ok(self.subtrees.insert(Subtree::new(key, volume, directories)))
    }

    /// What the kernel is asked to report: what the wanted kinds need, and what following directories
    /// needs.
    fn mask(&self) -> u64 {
        let renames = if self.names_targets {
            libc::FAN_RENAME
        } else {
            libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO
        };
        let wanted = [
            (Kinds::CREATED, libc::FAN_CREATE),
            (Kinds::MODIFIED, libc::FAN_MODIFY),
            (Kinds::WRITTEN, libc::FAN_CLOSE_WRITE),
            (Kinds::ATTRIBUTES, libc::FAN_ATTRIB),
        ];
        wanted
            .into_iter()
            .filter(|(kind, _)| self.kinds.contains(*kind))
            .fold(renames | libc::FAN_DELETE | libc::FAN_ONDIR, |mask, (_, bit)| mask | bit)
    }

    /// Removes a registration, and the mark if it was the last one on its file system.
    fn remove(&mut self, token: Token) -> bool {
        let Some(gone) = self.subtrees.remove(token) else { return false };
        if self.subtrees.iter().all(|(_, other)| other.volume != gone.volume) {
            let (group, root) = (self.group.as_fd(), gone.directories.root());
            // The descriptors stand, so it can't fail; and if it did, nobody is told.
            let _ = fanotify::mark(group, libc::FAN_MARK_REMOVE, self.mask(), root);
        }
        true
    }

    /// Looks at the next report. `false` when there is none, or none to be looked at yet.
    fn step(&mut self) -> io::Result<bool> {
        if self.buffer.is_empty() && !self.read_if_due()? {
            return Ok(false);
        }
        let FileSystemWatcher { buffer, subtrees, kinds, told, .. } = self;
        let Some((report, length)) = report::parse(buffer.behind(0)) else {
            // Not from any kernel that is known.
            buffer.clear();
            return Ok(true);
        };
        take_in(&report, subtrees, *kinds, told);
        buffer.skip(length);
        Ok(true)
    }

    fn read_if_due(&mut self) -> io::Result<bool> {
        if self.dry || !self.gather.may_read(Gather::now) {
            return Ok(false);
        }
        let read = self.buffer.read(self.group.as_fd())?;
        // What comes later makes the descriptor speak again.
        self.dry = self.buffer.has_room_for(LARGEST);
        if self.dry {
            self.gather.was_read(self.group.as_fd())?;
        }
        Ok(read)
    }

    /// One change of a registration is told, or lost. One that has ended goes with its last change.
    fn set_undelivered(&mut self, token: Token, undelivered: usize) {
        let Some(subtree) = self.subtrees.get_mut(token) else { return };
        subtree.undelivered = undelivered;
        if subtree.ended && undelivered == 0 {
            self.remove(token);
        }
    }

    fn tokens(&self) -> Vec<Token> {
        self.subtrees.iter().map(|(token, _)| token).collect()
    }
}

/// Each registration on the file system of a report makes of it what it tells.
fn take_in(
    report: &Report<'_>,
    subtrees: &mut Table<Subtree>,
    kinds: Kinds,
    told: &mut VecDeque<Change>,
) {
    let tokens: Vec<_> = subtrees.iter().map(|(token, _)| token).collect();
    for token in tokens {
        let Some(subtree) = subtrees.get_mut(token) else { continue };
        let mut teller = Teller { token, kinds, told };
        if subtree.ended {
            continue;
        } else if report.is(libc::FAN_Q_OVERFLOW) {
            subtree.overflowed(&mut teller);
        } else if subtree.volume == report.volume {
            subtree.reported(report, &mut teller);
        }
    }
}

impl Source for FileSystemWatcher {
    type Item = Change;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.gather.attach(poll_set, self.group.as_fd())
    }

    fn ready(&mut self, _: PollKey, _: Ready) {
        self.gather.spoke(Gather::now);
    }

    fn flush(&mut self) -> io::Result<Due> {
        if !self.told.is_empty() || !self.buffer.is_empty() {
            return Ok(Due::Now);
        }
        Ok(self.gather.due(Gather::now))
    }

    fn drain(&mut self, sink: &mut impl Sink<Change>) -> io::Result<()> {
        self.dry = false;
        loop {
            while let Some(change) = self.told.pop_front() {
                if let Err(Full(change)) = sink.push(change.token, change) {
                    self.told.push_front(change);
                    return Ok(());
                }
            }
            if !self.step()? {
                return Ok(());
            }
        }
    }

    fn deliver(&mut self, token: Token) -> bool {
        let Some(subtree) = self.subtrees.get(token) else { return false };
        let undelivered = subtree.undelivered.saturating_sub(1);
        self.set_undelivered(token, undelivered);
        true
    }

    fn detach(&mut self) {
        self.gather.detach(self.group.as_fd());
        // What was in the queue's ring is lost.
        for token in self.tokens() {
            let undelivered = self.told.iter().filter(|change| change.token == token).count();
            self.set_undelivered(token, undelivered);
        }
    }
}

/// What the kernel means by an error of fanotify(7), or of file handles.
fn explained(error: io::Error) -> io::Error {
    let needs = match error.raw_os_error() {
        Some(libc::ENOSYS) => "a kernel with fanotify(7)",
        Some(libc::EINVAL) => "Linux 5.9",
        Some(libc::EPERM) => "CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH: run it as root",
        Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EXDEV) => {
            "a file system with an id and file handles, such as ext4, XFS, btrfs or tmpfs"
        }
        _ => return error,
    };
    let text = format!("watching a file system needs {needs} ({error})");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

fn in_context(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot watch {}: {error}", path.display()))
}

impl fmt::Debug for FileSystemWatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystemWatcher")
            .field("registrations", &self.subtrees.len())
            .field("waiting", &self.told.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ChangeKind;
    use kevent_core::{Queue, Wait};
    use std::fs::{self, File};
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// What is told below `path` up to a fence, in short words; the file system is everybody's.
    fn happened(queue: &mut Queue<Change>, path: &Path, fence: &str) -> Vec<String> {
        let fence = path.join(fence);
        fs::create_dir(&fence).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut words = Vec::new();
        loop {
            assert_ne!(queue.wait(Wait::until(deadline)).unwrap(), 0, "{words:?}");
            while let Some(change) = queue.next() {
                if change.path == fence {
                    return words;
                }
                let below = change.path.strip_prefix(path).unwrap();
                words.push(format!("{:?} {}", change.kind, below.display()));
            }
        }
    }

    #[test]
    fn kernel_that_names_no_targets_is_enough() {
        let watcher = match FileSystemWatcher::without_targets(0) {
            Ok(watcher) => watcher.with_kinds(Kinds::NAMES),
            Err(error) => return println!("skipped: {error}"),
        };
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join("root").join(path);
        fs::create_dir_all(at("a/b")).unwrap();
        let root = at("");
        let mut queue = Queue::new().unwrap();
        let id = queue.attach(watcher, |change| change).unwrap();
        if let Err(error) = queue[id].watch_tree(&root, 1) {
            return println!("skipped: {error}");
        }
        File::create(at("a/b/1")).unwrap();
        assert_eq!(happened(&mut queue, &root, "1"), ["Created a/b/1"]);
        fs::rename(at("a"), at("c")).unwrap();
        let expected = ["Removed a", "Created c", "Created c/b", "Created c/b/1"];
        assert_eq!(happened(&mut queue, &root, "2"), expected);
        File::create(at("c/b/2")).unwrap();
        fs::remove_file(at("c/b/1")).unwrap();
        assert_eq!(happened(&mut queue, &root, "3"), ["Created c/b/2", "Removed c/b/1"]);
        fs::rename(&root, dir.path().join("elsewhere")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while last != Some(ChangeKind::RootGone) {
            assert_ne!(queue.wait(Wait::until(deadline)).unwrap(), 0, "{last:?}");
            last = queue.next().map(|change| change.kind);
        }
    }
}
