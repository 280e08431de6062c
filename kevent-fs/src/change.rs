//! What a watcher tells.

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::path::PathBuf;

use kevent_core::Token;

/// One change of a watched file or tree.
///
/// The changes of one registration, applied in their order to a list of paths, keep that list equal
/// to the disk: nothing is created that is known, nothing is removed that is not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The registration.
    pub token: Token,
    /// The number under which the user registered it.
    pub key: u64,
    /// What changed. It begins with the path that was registered, as it was given.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Whether it is a directory. A symbolic link to a directory is none.
    pub is_dir: bool,
}

impl Change {
    /// One of no registration, for tests: see [`Sim::inject`](kevent_core::testing::Sim::inject). It is of
    /// no directory.
    #[must_use]
    pub fn for_test(key: u64, path: impl Into<PathBuf>, kind: ChangeKind) -> Change {
        Change { token: Token::SOLE, key, path: path.into(), kind, is_dir: false }
    }
}

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was created, linked, or moved in from where nobody watches. What a new directory of a tree
    /// holds comes in changes of its own. What comes with content, other than by link(2), is told as
    /// [`Modified`](ChangeKind::Modified) then: nobody saw it being written.
    Created,
    /// It was removed, or moved to where nobody watches. With a directory everything below is gone,
    /// which is not told one by one.
    Removed,
    /// It was renamed. What stood at the new path before is replaced; with a directory everything
    /// below has moved.
    Moved {
        /// Its path before.
        from: PathBuf,
    },
    /// Its content was changed: a write, a truncation. After an [`Overflow`](ChangeKind::Overflow)
    /// it says that content or attributes may have changed; and it is told of a file that comes with
    /// content, also to who asked for [`WRITTEN`](Kinds::WRITTEN) or
    /// [`ATTRIBUTES`](Kinds::ATTRIBUTES) only.
    Modified,
    /// A descriptor that was open for writing was closed.
    Written,
    /// Its mode, owner, times, extended attributes or number of links were changed.
    Attributes,
    /// The kernel's queue ran over (see `max_queued_events` in inotify(7)) and changes were lost.
    /// What differs from what was told before comes next, and then
    /// [`Resynced`](ChangeKind::Resynced). The path is that of the registration.
    Overflow,
    /// All that is below this directory has been told, and is watched as far as no
    /// [`NotCovered`](ChangeKind::NotCovered) says otherwise.
    Resynced,
    /// This directory and everything below it is not watched.
    NotCovered {
        /// Why.
        reason: Uncovered,
    },
    /// The registered file or directory itself was removed or moved, its file system was unmounted,
    /// or its path was found to lead elsewhere. The registration has ended and this was its last
    /// change.
    RootGone,
}

/// Why a directory is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uncovered {
    /// There are no more watches: those of the watcher
    /// ([`with_watch_limit`](crate::Watcher::with_watch_limit)), or those of the user
    /// (`max_user_watches` in inotify(7)). It is tried again when watches of this watcher get free; a
    /// [`Resynced`](ChangeKind::Resynced) of this path tells that it worked.
    Limit,
    /// The same directory is watched already at another place of the tree: it is mounted twice.
    Twice,
    /// The kernel said no: no permission, a path that is too long, ... It is tried again when the
    /// directory is moved, and after an overflow.
    Failed(io::ErrorKind),
}

impl fmt::Display for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Uncovered::Limit => {
                f.write_str("there are no more watches (fs.inotify.max_user_watches)")
            }
            Uncovered::Twice => f.write_str("it is watched at another place of the tree"),
            Uncovered::Failed(kind) => write!(f, "the kernel said no: {kind}"),
        }
    }
}

/// Which kinds of changes are wanted. Of those that are not the kernel is not asked, but for the names
/// that following a tree needs.
///
/// The default is all but [`ATTRIBUTES`](Kinds::ATTRIBUTES). `Overflow`, `Resynced`, `NotCovered`
/// and `RootGone` come always.
///
/// ```
/// use kevent_fs::Kinds;
///
/// let kinds = Kinds::NAMES | Kinds::WRITTEN;
/// assert!(kinds.contains(Kinds::MOVED));
/// assert!(!kinds.contains(Kinds::MODIFIED));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kinds(u8);

impl Kinds {
    /// [`ChangeKind::Created`].
    pub const CREATED: Kinds = Kinds(1);
    /// [`ChangeKind::Removed`].
    pub const REMOVED: Kinds = Kinds(2);
    /// [`ChangeKind::Moved`].
    pub const MOVED: Kinds = Kinds(4);
    /// [`ChangeKind::Modified`]: one for each write, though equal ones in a row are merged by the
    /// kernel.
    pub const MODIFIED: Kinds = Kinds(8);
    /// [`ChangeKind::Written`]. A file that is truncated by its path, or stays open, tells
    /// `Modified` only.
    pub const WRITTEN: Kinds = Kinds(16);
    /// [`ChangeKind::Attributes`].
    pub const ATTRIBUTES: Kinds = Kinds(32);
    /// What happens to names: created, removed, moved.
    pub const NAMES: Kinds = Kinds(1 | 2 | 4);

    /// Whether all of `other` is wanted.
    #[must_use]
    pub fn contains(self, other: Kinds) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is wanted.
    pub(crate) fn intersects(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether changes of this kind are wanted.
    pub(crate) fn want(self, kind: &ChangeKind) -> bool {
        match kind {
            ChangeKind::Created => self.contains(Kinds::CREATED),
            ChangeKind::Removed => self.contains(Kinds::REMOVED),
            ChangeKind::Moved { .. } => self.contains(Kinds::MOVED),
            // A rescan says `Modified` to whoever wants to know of content in any way.
            ChangeKind::Modified => {
                self.intersects(Kinds::MODIFIED | Kinds::WRITTEN | Kinds::ATTRIBUTES)
            }
            ChangeKind::Written => self.contains(Kinds::WRITTEN),
            ChangeKind::Attributes => self.contains(Kinds::ATTRIBUTES),
            ChangeKind::Overflow
            | ChangeKind::Resynced
            | ChangeKind::NotCovered { .. }
            | ChangeKind::RootGone => true,
        }
    }
}

impl Default for Kinds {
    fn default() -> Kinds {
        Kinds::NAMES | Kinds::MODIFIED | Kinds::WRITTEN
    }
}

impl BitOr for Kinds {
    type Output = Kinds;
    fn bitor(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Kinds, &str); 6] = [
            (Kinds::CREATED, "CREATED"),
            (Kinds::REMOVED, "REMOVED"),
            (Kinds::MOVED, "MOVED"),
            (Kinds::MODIFIED, "MODIFIED"),
            (Kinds::WRITTEN, "WRITTEN"),
            (Kinds::ATTRIBUTES, "ATTRIBUTES"),
        ];
        let names = NAMES.iter().filter(|(kind, _)| self.contains(*kind)).map(|(_, name)| *name);
        f.write_str(&names.collect::<Vec<_>>().join("|"))
    }
}
