//! Watching files and whole trees, as a source of a kevent queue.
//!
//! A [`Watcher`] tells of changes as [`Change`]s that can be relied on: directories that turn up in a
//! tree are watched without a gap, the two halves of a rename are one change, and when the kernel's
//! queue runs over, what was lost is found out and told.
//!
//! It needs no privileges: it stands on inotify(7). Who has them may watch whole file systems by a
//! [`FileSystemWatcher`], which stands on fanotify(7) and needs neither a watch nor a list of what there
//! is.

mod buffer;
mod change;
mod directories;
mod entries;
mod filesystem;
mod follow;
mod gather;
mod intake;
mod record;
mod registration;
mod rename;
mod report;
mod scan;
mod snapshot;
mod subtree;
mod sys;
mod tree;
mod trees;
mod watcher;
mod watches;

pub use crate::change::{Change, ChangeKind, Kinds, Uncovered};
pub use crate::filesystem::FileSystemWatcher;
pub use crate::watcher::Watcher;
