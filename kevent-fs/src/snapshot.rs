//! What a directory holds, and how directories and files are recognised.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

/// A file that changed less than this before it was listed may have changed after without a new time
/// stamp: file systems take the time from the timer tick, which is 10 ms at most.
const TICK: Duration = Duration::from_millis(20);

/// As [`TICK`], where the file system keeps whole seconds (FAT: two).
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Bytes of entries that one system call reads.
const ENTRIES: usize = 32 * 1024;

/// An entry of a directory as a listing found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: FileType,
    pub(crate) inode: Option<NonZero<u64>>,
}

impl Found {
    pub(crate) fn is_dir(self) -> bool {
        self.kind.is_dir()
    }
}

impl From<&Stat> for Found {
    fn from(stat: &Stat) -> Found {
        Found { kind: FileType::from_raw_mode(stat.st_mode), inode: NonZero::new(stat.st_ino) }
    }
}

/// A directory that is held open, so that it stays the same one whatever its path leads to meanwhile.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// Holds what `path` leads to now; through a symbolic link only when `follow`.
    pub(crate) fn open(path: &Path, follow: bool) -> io::Result<Directory> {
        let no_link = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | no_link;
        Ok(Directory(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// Leads to the directory, wherever it is now, if /proc is mounted. To be followed as a link.
    pub(crate) fn pinned_path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Reads the whole directory. Entries that come or go while it is read may be in it or not.
    pub(crate) fn list(&self) -> io::Result<Vec<(OsString, Found)>> {
        let mut listing = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed: it holds nothing.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let found = Found { kind: entry.file_type(), inode: NonZero::new(entry.ino()) };
            // Some file systems don't say here what it is.
            let found = match found.kind {
                FileType::Unknown => self.look(name)?.as_ref().map(Found::from),
                _ => Some(found),
            };
            listing.extend(found.map(|found| (name.to_owned(), found)));
        }
        Ok(listing)
    }

    /// Looks at one entry, not following a symbolic link. None when there is none of that name.
    pub(crate) fn look(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a file may have changed since its directory was `listed`.
///
/// The kernel sets `st_ctime` with each change of content, attributes or name, and nobody else can.
/// If the clock was set back meanwhile, anything may have changed.
pub(crate) fn may_have_changed(stat: &Stat, listed: SystemTime, now: SystemTime) -> bool {
    let seconds = u64::try_from(stat.st_ctime).unwrap_or(0);
    let nanos = u32::try_from(stat.st_ctime_nsec).unwrap_or(0);
    let tick = if nanos == 0 { COARSE_TICK } else { TICK };
    UNIX_EPOCH + Duration::new(seconds, nanos) + tick >= listed || now < listed
}

/// Whether there is content that was there before anybody could watch it being written.
pub(crate) fn has_content(stat: &Stat) -> bool {
    Found::from(stat).kind.is_file() && stat.st_size > 0
}

/// Whether both paths lead to the same directory now.
pub(crate) fn same_place(a: &Path, b: &Path) -> bool {
    match (rustix::fs::lstat(a), rustix::fs::lstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn look(path: &Path) -> Stat {
        rustix::fs::lstat(path).unwrap()
    }

    fn names(listing: Vec<(OsString, Found)>) -> Vec<(String, bool)> {
        let mut names: Vec<_> = listing
            .into_iter()
            .map(|(name, found)| (name.into_string().unwrap(), found.is_dir()))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn file_may_have_changed_unless_its_stamp_is_older_than_the_listing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stat = look(file.path());
        let at = UNIX_EPOCH + Duration::new(stat.st_ctime as u64, stat.st_ctime_nsec as u32);
        let tick = if stat.st_ctime_nsec == 0 { COARSE_TICK } else { TICK };
        let later = at + tick * 100;
        assert!(may_have_changed(&stat, at, later));
        assert!(may_have_changed(&stat, at + tick, later));
        assert!(!may_have_changed(&stat, at + tick * 2, later));
        assert!(may_have_changed(&stat, later, later - tick), "the clock was set back");
    }

    #[test]
    fn stamp_of_whole_seconds_is_taken_for_a_coarse_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut stat = look(file.path());
        stat.st_ctime_nsec = 0;
        let at = UNIX_EPOCH + Duration::from_secs(stat.st_ctime as u64);
        assert!(may_have_changed(&stat, at + COARSE_TICK, at + COARSE_TICK));
        assert!(!may_have_changed(&stat, at + COARSE_TICK * 2, at + COARSE_TICK * 2));
    }

    #[test]
    fn listing_tells_directories_from_links_to_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        fs::write(dir.path().join("file"), "1").unwrap();
        std::os::unix::fs::symlink("directory", dir.path().join("link")).unwrap();
        let listing = Directory::open(dir.path(), false).unwrap().list().unwrap();
        let inode = |name: &str| look(&dir.path().join(name)).st_ino;
        for (name, found) in &listing {
            assert_eq!(found.inode, NonZero::new(inode(name.to_str().unwrap())));
        }
        let expected = [("directory", true), ("file", false), ("link", false)];
        assert_eq!(names(listing), expected.map(|(name, is_dir)| (name.to_owned(), is_dir)));
    }

    #[test]
    fn directory_of_any_size_is_listed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut made: Vec<_> = (0..2000).map(|n| (format!("{n:0>60}"), false)).collect();
        made.iter().for_each(|(name, _)| drop(fs::File::create(dir.path().join(name)).unwrap()));
        made.sort_unstable();
        assert_eq!(names(Directory::open(dir.path(), false).unwrap().list().unwrap()), made);
    }

    #[test]
    fn removed_directory_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path(), false).unwrap();
        fs::remove_dir(dir.path()).unwrap();
        assert_eq!(directory.list().unwrap(), []);
    }

    #[test]
    fn open_directory_is_the_same_one_after_its_path_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/mine")).unwrap();
        fs::create_dir_all(at("b/other")).unwrap();
        let directory = Directory::open(&at("a"), false).unwrap();
        fs::rename(at("a"), at("c")).unwrap();
        fs::rename(at("b"), at("a")).unwrap();
        assert_eq!(names(directory.list().unwrap()), [("mine".to_owned(), true)]);
        assert!(Path::new(&directory.pinned_path()).join("mine").exists());
        assert!(directory.look(OsStr::new("mine")).unwrap().is_some());
        assert!(directory.look(OsStr::new("other")).unwrap().is_none());
    }

    #[test]
    fn link_to_a_directory_is_followed_on_demand_only() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(".", &link).unwrap();
        assert!(Directory::open(&link, true).is_ok());
        let refused = Directory::open(&link, false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn only_a_file_with_bytes_in_it_has_content() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("full"), "1").unwrap();
        fs::write(at("empty"), "").unwrap();
        std::os::unix::fs::symlink("full", at("link")).unwrap();
        assert!(has_content(&look(&at("full"))));
        assert!(!has_content(&look(&at("empty"))));
        assert!(!has_content(&look(&at("link"))));
        assert!(!has_content(&look(dir.path())));
    }
}
