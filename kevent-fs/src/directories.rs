//! Where the directories of a file system stand, by their handles.
//!
//! A directory is looked up once, by opening its handle. Then its place is known: in which directory,
//! under which name. What is reported of it later keeps that true, so a path is told as it was when the
//! change was made, also if the directory has been moved since.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::sys::fanotify::{self, Handle};

/// As many places are known at most; then all are forgotten, and looked up again.
const MAX_KNOWN: usize = 65_536;

/// How often a directory is looked up that is moved meanwhile.
const LOOKS: usize = 4;

/// Deeper than any path that the kernel takes.
const MAX_DEPTH: usize = 4096;

pub(crate) struct Directories {
    /// The path of the root, as the user gave it.
    base: PathBuf,
    root: OwnedFd,
    root_handle: Handle,
    known: HashMap<Handle, Position>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Position {
    /// Not below the root, or nowhere any more.
    Outside,
    In {
        parent: Handle,
        name: OsString,
    },
}

impl Directories {
    pub(crate) fn new(base: &Path) -> io::Result<Directories> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, base, flags, Mode::empty())?;
        let root_handle = fanotify::handle_of(root.as_fd(), c"")?;
        // Says whether we may.
        fanotify::open(root.as_fd(), &root_handle)?;
        Ok(Directories { base: base.to_owned(), root, root_handle, known: HashMap::new() })
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The root, which is held open: its file system can't be unmounted meanwhile.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether the path of the root leads to it.
    pub(crate) fn leads_home(&self) -> bool {
        let here = rustix::fs::fstat(&self.root).map(|stat| (stat.st_dev, stat.st_ino));
        here.is_ok() && here == rustix::fs::stat(&self.base).map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// The path of an entry, "." being the directory itself. None when it is not below the root.
    pub(crate) fn path_of(&mut self, directory: &[u8], name: &OsStr) -> Option<PathBuf> {
        if *directory != *self.root_handle && !self.known.contains_key(directory) {
            self.look_up(directory);
        }
        let mut names = Vec::new();
        let mut at = directory;
        while *at != *self.root_handle {
            match self.known.get(at)? {
                Position::In { parent, name } if names.len() < MAX_DEPTH => {
                    names.push(name);
                    at = parent;
                }
                _ => return None,
            }
        }
        let names = names.into_iter().map(OsString::as_os_str).rev();
        let names = names.chain(Some(name).filter(|name| *name != "."));
        let length: usize = names.clone().map(|name| name.len() + 1).sum();
        let mut path = PathBuf::with_capacity(self.base.as_os_str().len() + length);
        path.push(&self.base);
        path.extend(names);
        Some(path)
    }

    /// A directory stands there now. What it holds has gone along.
    pub(crate) fn put(&mut self, directory: &[u8], parent: &[u8], name: &OsStr) {
        let position = Position::In { parent: parent.into(), name: name.to_owned() };
        self.remember(directory.into(), position);
    }

    /// A directory is gone.
    pub(crate) fn remove(&mut self, directory: &[u8]) {
        self.known.remove(directory);
    }

    /// A directory was moved in: what was outside may be inside with it.
    pub(crate) fn forget_outside(&mut self) {
        self.known.retain(|_, position| *position != Position::Outside);
    }

    pub(crate) fn forget_all(&mut self) {
        self.known.clear();
    }

    fn remember(&mut self, directory: Handle, position: Position) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(directory, position);
    }

    /// Finds out where a directory stands, and those above.
    fn look_up(&mut self, directory: &[u8]) {
        // The handle of what is gone leads nowhere, and will not ever again.
        let Ok(Some(way)) = self.find(directory) else {
            return self.remember(directory.into(), Position::Outside);
        };
        for (directory, parent, name) in way {
            self.remember(directory, Position::In { parent, name });
        }
    }

    /// From a directory up to the root: each with the one above and its name. None when it is outside.
    fn find(&self, directory: &[u8]) -> io::Result<Option<Vec<(Handle, Handle, OsString)>>> {
        let fd = fanotify::open(self.root.as_fd(), directory)?;
        let Some(mut path) = self.path_below_the_root(&fd)? else { return Ok(None) };
        for _ in 0..LOOKS {
            let way = self.way_to(&fd, &path);
            let Some(now) = self.path_below_the_root(&fd)? else { return Ok(None) };
            if now == path {
                return way.map(Some);
            }
            path = now;
        }
        // Whoever moves it that often, moves it again, which is reported.
        self.way_to(&fd, &path).map(Some)
    }

    /// The path of an open directory from the root on, if it is below that and stands.
    fn path_below_the_root(&self, directory: &OwnedFd) -> io::Result<Option<PathBuf>> {
        if rustix::fs::fstat(directory)?.st_nlink == 0 {
            return Ok(None);
        }
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let root = fs::read_link(format!("/proc/self/fd/{}", self.root.as_raw_fd()))?;
        Ok(path.strip_prefix(root).ok().map(Path::to_owned))
    }

    /// From an open directory up to the root: each with the one above and its name.
    fn way_to(&self, fd: &OwnedFd, path: &Path) -> io::Result<Vec<(Handle, Handle, OsString)>> {
        let mut way = Vec::new();
        let mut below = fanotify::handle_of(fd.as_fd(), c"")?;
        let mut at = path;
        while let (Some(above), Some(name)) = (at.parent(), at.file_name()) {
            let parent = self.handle_at(above)?;
            way.push((below, parent.clone(), name.to_owned()));
            (below, at) = (parent, above);
        }
        Ok(way)
    }

    /// The handle of what stands at a path below the root.
    fn handle_at(&self, path: &Path) -> io::Result<Handle> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        fanotify::handle_of(self.root.as_fd(), &path)
    }

    /// Whether `target` is what a path below the root leads to, or anything at all if it is not known.
    pub(crate) fn stands(&self, path: &Path, target: Option<&[u8]>) -> bool {
        match target {
            Some(target) => {
                let below = path.strip_prefix(&self.base).unwrap_or(path);
                self.handle_at(below).is_ok_and(|handle| *handle == *target)
            }
            None => rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of a new folder, and it; None where we may not.
    fn directories() -> Option<(tempfile::TempDir, Directories)> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        match Directories::new(&dir.path().join("root")) {
            Ok(directories) => Some((dir, directories)),
            Err(error) => {
                println!("skipped: {error}");
                None
            }
        }
    }

    fn handle(path: &Path) -> Handle {
        let file = fs::File::open(path).unwrap();
        fanotify::handle_of(file.as_fd(), c"").unwrap()
    }

    #[test]
    fn directory_is_found_by_its_handle_and_followed_from_there() {
        let Some((dir, mut directories)) = directories() else { return };
        let at = |path: &str| dir.path().join("root").join(path);
        let [root, a, b] = ["", "a", "a/b"].map(|path| handle(&at(path)));
        let name = OsStr::new("name");
        assert_eq!(directories.path_of(&b, name), Some(at("a/b/name")));
        assert_eq!(directories.path_of(&root, name), Some(at("name")));
        assert_eq!(directories.path_of(&a, OsStr::new(".")), Some(at("a")));
        // What is not reported yet is not seen.
        fs::rename(at("a"), at("c")).unwrap();
        assert_eq!(directories.path_of(&b, name), Some(at("a/b/name")));
        directories.put(&a, &root, OsStr::new("c"));
        assert_eq!(directories.path_of(&b, name), Some(at("c/b/name")));
        directories.forget_all();
        assert_eq!(directories.path_of(&b, name), Some(at("c/b/name")));
    }

    #[test]
    fn directory_outside_or_gone_has_no_path_until_it_is_moved_in() {
        let Some((dir, mut directories)) = directories() else { return };
        let (outside, gone) = (dir.path().join("outside"), dir.path().join("root/gone"));
        fs::create_dir_all(outside.join("below")).unwrap();
        fs::create_dir(&gone).unwrap();
        let name = OsStr::new("name");
        let handles = [&outside, &outside.join("below"), &gone].map(|path| handle(path));
        let root = handle(&dir.path().join("root"));
        fs::remove_dir(&gone).unwrap();
        for handle in &handles {
            assert_eq!(directories.path_of(handle, name), None);
        }
        let inside = dir.path().join("root/inside");
        fs::rename(&outside, &inside).unwrap();
        assert_eq!(directories.path_of(&handles[1], name), None, "that was not reported yet");
        directories.forget_outside();
        directories.put(&handles[0], &root, OsStr::new("inside"));
        assert_eq!(directories.path_of(&handles[1], name), Some(inside.join("below/name")));
        assert_eq!(directories.path_of(&handles[2], name), None);
    }

    #[test]
    fn no_more_is_known_than_the_bound() {
        let Some((dir, mut directories)) = directories() else { return };
        let root = handle(&dir.path().join("root"));
        for n in 0..=MAX_KNOWN as u64 {
            directories.put(&n.to_ne_bytes(), &root, OsStr::new("x"));
        }
        assert!(directories.known.len() <= MAX_KNOWN);
    }

    #[test]
    fn path_that_stands_leads_to_its_target() {
        let Some((dir, directories)) = directories() else { return };
        let at = |path: &str| dir.path().join("root").join(path);
        let (a, b) = (handle(&at("a")), handle(&at("a/b")));
        assert!(directories.stands(&at("a/b"), Some(&b)));
        assert!(!directories.stands(&at("a/b"), Some(&a)));
        assert!(!directories.stands(&at("nothing"), Some(&b)));
        assert!(directories.stands(&at("a/b"), None));
        assert!(!directories.stands(&at("nothing"), None));
    }
}
