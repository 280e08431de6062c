//! Open files that are kept for the next request.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use kevent_aio::Fd;

use crate::http::conditional::Validators;
use crate::untold::{Untold, is_below};

/// A file as it was when it was opened: its descriptor and what was read off it belong together, so
/// a response is made of one version of the file, whatever has become of the name since.
pub struct OpenFile {
    pub fd: Fd,
    pub size: u64,
    pub validators: Validators,
    pub content_type: String,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Open files by their path below the root, at most a given number of them.
///
/// Two generations: what is asked for moves to the young one; when that has half of the bound, it
/// takes the place of the old one. So what was not asked for in a while goes, at no cost for what was.
/// The old ones that go are closed a few at a time: a thousand at once take a millisecond.
#[derive(Debug)]
pub struct FileCache {
    young: HashMap<Box<[u8]>, Arc<OpenFile>>,
    old: HashMap<Box<[u8]>, Arc<OpenFile>>,
    leaving: HashMap<Box<[u8]>, Arc<OpenFile>>,
    capacity: usize,
    /// No file in these is kept.
    untold: Untold,
    /// Counts invalidations. A file whose opening was begun before one may be what was invalidated.
    version: u64,
}

impl FileCache {
    /// A cache that keeps `capacity` files open, one more when that is odd; none when it is zero.
    pub fn new(capacity: usize) -> FileCache {
        FileCache {
            young: HashMap::new(),
            old: HashMap::new(),
            leaving: HashMap::new(),
            capacity,
            untold: Untold::default(),
            version: 0,
        }
    }

    /// The open file at `path`.
    pub fn get(&mut self, path: &[u8]) -> Option<Arc<OpenFile>> {
        if let Some(file) = self.young.get(path) {
            return Some(Arc::clone(file));
        }
        let (path, file) = self.old.remove_entry(path)?;
        self.keep(path, Arc::clone(&file));
        Some(file)
    }

    /// What to pass to `insert` for a file whose opening begins now.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Keeps `file`, unless something was invalidated since `version`, or its changes are not told.
    pub fn insert(&mut self, path: &[u8], file: &Arc<OpenFile>, version: u64) {
        if version == self.version && self.capacity > 0 && !self.untold.has(path) {
            self.old.remove(path);
            self.keep(path.into(), Arc::clone(file));
        }
    }

    fn keep(&mut self, path: Box<[u8]>, file: Arc<OpenFile>) {
        if self.young.len() >= self.capacity.div_ceil(2) {
            let young = std::mem::take(&mut self.young);
            self.leaving = std::mem::replace(&mut self.old, young);
        }
        // Two go for each that comes, so those that are leaving never exceed the room that the young
        // generation has left.
        let going: Vec<_> = self.leaving.keys().take(2).cloned().collect();
        for path in going {
            self.leaving.remove(&path);
        }
        self.young.insert(path, file);
    }

    /// Forgets the file at `path`. Nothing holds it open any more: a file that was deleted takes room
    /// on the disk until then.
    pub fn invalidate_file(&mut self, path: &[u8]) {
        self.version += 1;
        for kept in [&mut self.young, &mut self.old, &mut self.leaving] {
            kept.remove(path);
        }
    }

    /// Forgets every file below the directory at `path`.
    pub fn invalidate_tree(&mut self, path: &[u8]) {
        self.version += 1;
        for kept in [&mut self.young, &mut self.old, &mut self.leaving] {
            kept.retain(|kept, _| !is_below(kept, path));
        }
    }

    /// Keeps nothing below the directory at `path` from now on.
    pub fn changes_are_untold(&mut self, path: &[u8]) {
        self.invalidate_tree(path);
        self.untold.add(path);
    }

    /// How many files are kept open.
    pub fn held(&self) -> usize {
        self.young.len() + self.old.len() + self.leaving.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conditional::Stamp;
    use std::time::SystemTime;

    fn file() -> Arc<OpenFile> {
        Arc::new(OpenFile {
            fd: Arc::new(std::io::stdin()),
            size: 1,
            validators: Validators::new(&Stamp::default(), SystemTime::UNIX_EPOCH),
            content_type: "text/plain".into(),
        })
    }

    #[test]
    fn cache_keeps_what_is_asked_for_and_no_more_than_its_bound() {
        let mut cache = FileCache::new(4);
        cache.insert(b"hot", &file(), 0);
        for n in 0..100_u32 {
            cache.insert(&n.to_ne_bytes(), &file(), 0);
            assert!(cache.get(b"hot").is_some(), "what is asked for every time stays");
            assert!(cache.held() <= 4, "{} files are open", cache.held());
        }
    }

    #[test]
    fn file_opened_before_an_invalidation_is_not_kept() {
        let mut cache = FileCache::new(4);
        let version = cache.version();
        cache.invalidate_file(b"elsewhere");
        cache.insert(b"a", &file(), version);
        assert!(cache.get(b"a").is_none());
    }

    #[test]
    fn invalidated_tree_takes_all_below_it_and_nothing_else() {
        let mut cache = FileCache::new(100);
        for path in ["a/b", "a/b/c", "ab", "b/a"] {
            cache.insert(path.as_bytes(), &file(), 0);
        }
        cache.invalidate_tree(b"a");
        for (path, stays) in [("a/b", false), ("a/b/c", false), ("ab", true), ("b/a", true)] {
            assert_eq!(cache.get(path.as_bytes()).is_some(), stays, "{path}");
        }
        cache.invalidate_tree(b"");
        assert_eq!(cache.held(), 0, "the root is above everything");
    }

    #[test]
    fn invalidated_file_takes_nothing_else() {
        let mut cache = FileCache::new(100);
        cache.insert(b"a", &file(), 0);
        cache.insert(b"ab", &file(), 0);
        cache.invalidate_file(b"a");
        assert!(cache.get(b"a").is_none());
        assert!(cache.get(b"ab").is_some());
    }

    #[test]
    fn nothing_is_kept_whose_changes_are_not_told() {
        let mut cache = FileCache::new(100);
        cache.insert(b"a/b", &file(), cache.version());
        cache.changes_are_untold(b"a");
        for (path, stays) in [("a/b", false), ("a/b/c", false), ("ab", true), ("b", true)] {
            cache.insert(path.as_bytes(), &file(), cache.version());
            assert_eq!(cache.get(path.as_bytes()).is_some(), stays, "{path}");
        }
    }

    #[test]
    fn invalidated_file_is_closed_wherever_it_was_kept() {
        type Invalidate = fn(&mut FileCache, &[u8]);
        let ways: [Invalidate; 2] = [FileCache::invalidate_file, FileCache::invalidate_tree];
        for invalidate in ways {
            let mut cache = FileCache::new(40);
            let files: Vec<_> = (0..41).map(|_| file()).collect();
            for (n, file) in files.iter().enumerate() {
                cache.insert(format!("{n}").as_bytes(), file, 0);
            }
            assert!(!cache.leaving.is_empty(), "none is on its way out");
            for (n, file) in files.iter().enumerate() {
                invalidate(&mut cache, format!("{n}").as_bytes());
                assert_eq!(Arc::strong_count(file), 1, "{n} is open");
            }
            assert_eq!(cache.held(), 0);
        }
    }

    #[test]
    fn cache_of_nothing_keeps_nothing() {
        let mut cache = FileCache::new(0);
        cache.insert(b"a", &file(), 0);
        assert_eq!(cache.held(), 0);
    }
}
