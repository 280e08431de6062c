//! What a directory holds, and how directories and files are recognised.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that changed less than this ago may change again without a new time stamp: file systems
/// take the time from the timer tick, which is 10 ms at most.
const TICK: Duration = Duration::from_millis(20);

/// By what a file's state is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later change of the file is sure to change its stamp.
    fn is_settled(&self, now: SystemTime) -> bool {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        let nanos = u32::try_from(self.changed.1).unwrap_or(0);
        Duration::new(changed, nanos) + TICK < since
    }
}

/// An entry of a directory as a listing found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) is_dir: bool,
    pub(crate) stamp: Stamp,
    /// Whether every change from here on shows in the stamp.
    pub(crate) settled: bool,
}

impl Found {
    /// Whether this is surely what an earlier look found.
    pub(crate) fn is_unchanged_since(&self, before: Found) -> bool {
        before.settled && before.stamp == self.stamp
    }
}

/// A directory that is held open, so that it stays the same one whatever its path leads to meanwhile.
#[derive(Debug)]
pub(crate) struct Pinned {
    path: PathBuf,
    _directory: File,
}

impl Pinned {
    /// Holds what `path` leads to now; through a symbolic link only when `follow`.
    pub(crate) fn open(path: &Path, follow: bool) -> io::Result<Pinned> {
        let no_link = if follow { 0 } else { libc::O_NOFOLLOW };
        let flags = libc::O_DIRECTORY | no_link;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let pinned = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        // Where no /proc is mounted the path has to do; what changes at that very moment is lost.
        let path = if pinned.exists() { pinned } else { path.to_owned() };
        Ok(Pinned { path, _directory: directory })
    }

    /// Leads to the directory, wherever it is now. To be followed as a link.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

pub(crate) type Listing = HashMap<OsString, Found>;

/// Reads a directory. Entries that go while it is read are left out: an event tells of them.
pub(crate) fn list(path: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) => {
                listing.insert(entry.file_name(), found(&metadata));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listing)
}

/// Looks at one file, not following a symbolic link.
pub(crate) fn look(path: &Path) -> io::Result<Found> {
    fs::symlink_metadata(path).map(|metadata| found(&metadata))
}

fn found(metadata: &Metadata) -> Found {
    let stamp = Stamp::of(metadata);
    Found { is_dir: metadata.is_dir(), stamp, settled: stamp.is_settled(SystemTime::now()) }
}

/// Whether both paths lead to the same directory now.
pub(crate) fn same_place(a: &Path, b: &Path) -> bool {
    match (fs::symlink_metadata(a), fs::symlink_metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_file_is_not_settled_and_an_old_one_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = look(file.path()).unwrap().stamp;
        let at = UNIX_EPOCH + Duration::new(stamp.changed.0 as u64, stamp.changed.1 as u32);
        assert!(!stamp.is_settled(at));
        assert!(!stamp.is_settled(at + TICK));
        assert!(stamp.is_settled(at + TICK * 2));
    }

    #[test]
    fn listing_tells_directories_from_links_to_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        fs::write(dir.path().join("file"), "1").unwrap();
        std::os::unix::fs::symlink("directory", dir.path().join("link")).unwrap();
        let listing = list(dir.path()).unwrap();
        let mut seen: Vec<_> =
            listing.iter().map(|(n, f)| (n.to_str().unwrap(), f.is_dir)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [("directory", true), ("file", false), ("link", false)]);
    }

    #[test]
    fn pinned_directory_is_the_same_one_after_its_path_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/mine")).unwrap();
        fs::create_dir_all(at("b/other")).unwrap();
        let pinned = Pinned::open(&at("a"), false).unwrap();
        fs::rename(at("a"), at("c")).unwrap();
        fs::rename(at("b"), at("a")).unwrap();
        let listing = list(pinned.path()).unwrap();
        assert_eq!(listing.keys().collect::<Vec<_>>(), ["mine"]);
    }

    #[test]
    fn link_to_a_directory_is_followed_on_demand_only() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(".", &link).unwrap();
        assert!(Pinned::open(&link, true).is_ok());
        let refused = Pinned::open(&link, false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn rewritten_file_has_another_stamp() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = look(file.path()).unwrap().stamp;
        fs::write(file.path(), "longer").unwrap();
        assert_ne!(look(file.path()).unwrap().stamp, before);
    }
}
