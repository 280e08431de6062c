//! A watched tree, and a list of its paths that is kept from the changes alone.

#[allow(dead_code)] // As below.
pub(crate) mod acts;
#[allow(dead_code)]
pub(crate) mod mirror;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kevent_core::{Queue, SourceId, Token, Wait};
use kevent_fs::{Change, ChangeKind, Watcher};
use tempfile::TempDir;

use mirror::Mirror;

/// How long a change may take on a busy machine before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every path with whether it is a directory.
pub(crate) type Paths = BTreeMap<PathBuf, bool>;

/// A queue with one watcher, and a folder of its own in which a `root` is watched.
pub(crate) struct Bench {
    pub(crate) queue: Queue<Change>,
    pub(crate) id: SourceId<Watcher>,
    pub(crate) dir: TempDir,
    pub(crate) told: Paths,
    pub(crate) mirror: Mirror,
    fences: usize,
}

#[allow(dead_code)] // Each test binary uses its part.
impl Bench {
    pub(crate) fn new(watcher: Watcher) -> Bench {
        let mut queue = Queue::new().unwrap();
        let id = queue.attach(watcher, |change| change).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Bench { queue, id, dir, told: Paths::new(), mirror: Mirror::new(), fences: 0 }
    }

    /// A bench whose root is watched as a tree.
    pub(crate) fn with_tree() -> (Bench, Token) {
        let mut bench = Bench::new(Watcher::new().unwrap());
        let root = bench.root();
        let token = bench.queue[bench.id].watch_tree(root, 1).unwrap();
        (bench, token)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A path below the root.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A path beside the root, where nobody watches.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Takes changes until one is as wanted, and hands out all of them.
    pub(crate) fn until(&mut self, mut wanted: impl FnMut(&Change) -> bool) -> Vec<Change> {
        let deadline = Instant::now() + PATIENCE;
        let mut taken = Vec::new();
        loop {
            self.queue.wait(Wait::until(deadline)).unwrap();
            while let Some(change) = self.queue.next() {
                apply(&mut self.told, &change);
                let found = wanted(&change);
                taken.push(change);
                if found {
                    return taken;
                }
            }
            assert!(Instant::now() < deadline, "the change did not come; so far: {taken:#?}");
        }
    }

    /// Takes what is there, and keeps the copy of the tree.
    pub(crate) fn take(&mut self, wait: impl Into<Wait>) -> Vec<Change> {
        self.queue.wait(wait).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| self.queue.next()).collect();
        taken.iter().for_each(|change| mirror::apply(&mut self.mirror, change));
        taken
    }

    /// Nothing happens any more, and all has been told: three times something is done and told, of
    /// which the last is behind all that the kernel's queue had swallowed.
    pub(crate) fn quiet(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let fence = self.at(".fence");
        let mut open = 0;
        for round in 0..6 {
            let there = round % 2 == 0;
            if there { fs::write(&fence, "") } else { fs::remove_file(&fence) }.unwrap();
            while self.mirror.contains_key(&fence) != there || open > 0 {
                for change in self.take(Wait::until(deadline)) {
                    match change.kind {
                        ChangeKind::Overflow => open += 1,
                        ChangeKind::Resynced if change.path == self.root() => open -= 1,
                        _ => {}
                    }
                }
                assert!(Instant::now() < deadline, "the fence did not come: {:?}", self.mirror);
            }
        }
    }

    /// Takes everything that happened in the root up to now. A file that is made and removed in the
    /// root tells when that is; it is left out.
    pub(crate) fn settle(&mut self) -> Vec<Change> {
        self.fences += 1;
        let fence = self.at(&format!(".fence{}", self.fences));
        fs::write(&fence, "").unwrap();
        fs::remove_file(&fence).unwrap();
        let mut taken =
            self.until(|change| change.path == fence && change.kind == ChangeKind::Removed);
        taken.retain(|change| change.path != fence);
        taken
    }

    /// As [`settle`](Bench::settle), in short words and with paths below the folder.
    pub(crate) fn happened(&mut self) -> Vec<String> {
        let taken = self.settle();
        taken.iter().map(|change| self.in_words(change)).collect()
    }

    pub(crate) fn in_words(&self, change: &Change) -> String {
        let short = |path: &Path| {
            path.strip_prefix(self.dir.path()).unwrap().to_string_lossy().into_owned()
        };
        let path = short(&change.path);
        let slash = if change.is_dir { "/" } else { "" };
        match &change.kind {
            ChangeKind::Moved { from } => format!("Moved {}{slash} {path}{slash}", short(from)),
            ChangeKind::NotCovered { reason } => format!("NotCovered {path}{slash} {reason:?}"),
            kind => format!("{kind:?} {path}{slash}"),
        }
    }

    /// Nothing comes although something happened elsewhere.
    pub(crate) fn stays_silent(&mut self) {
        self.queue.wait(Duration::from_millis(20)).unwrap();
        assert_eq!(self.queue.next(), None);
    }

    /// The copy that was kept from the changes is what is on the disk.
    pub(crate) fn mirrors_the_disk(&mut self) {
        let root = self.root();
        mirror::is_as_on_disk(&mut self.mirror, &root);
    }

    /// The list that was kept from the changes is what is on the disk.
    pub(crate) fn is_as_on_disk(&self) {
        let mut disk = Paths::new();
        walk(&self.root(), &mut disk);
        assert_eq!(self.told, disk);
    }
}

/// Another thread does one round after the other, as fast as it can, while the changes are taken; after
/// each the copy is as the disk.
#[allow(dead_code)]
pub(crate) fn full_speed(bench: &mut Bench, rounds: Vec<Vec<acts::Act>>) {
    for (round, acts) in rounds.into_iter().enumerate() {
        let dir = bench.dir.path().to_owned();
        let worker = std::thread::spawn(move || {
            for (n, act) in acts.iter().enumerate() {
                acts::perform(&dir, act, round * 1000 + n);
            }
        });
        while !worker.is_finished() {
            bench.take(Duration::from_micros(100));
        }
        worker.join().unwrap();
        bench.quiet();
        bench.mirrors_the_disk();
    }
}

/// What the documentation says how a list of paths follows the changes.
pub(crate) fn apply(paths: &mut Paths, change: &Change) {
    let below = |path: &Path| path.starts_with(&change.path);
    match &change.kind {
        ChangeKind::Created => {
            let before = paths.insert(change.path.clone(), change.is_dir);
            assert_eq!(before, None, "created what is known: {change:?}");
        }
        ChangeKind::Removed => {
            assert!(paths.contains_key(&change.path), "removed what is not known: {change:?}");
            paths.retain(|path, _| !below(path));
        }
        ChangeKind::Moved { from } => {
            assert!(paths.contains_key(from), "moved what is not known: {change:?}");
            paths.retain(|path, _| !below(path));
            *paths = std::mem::take(paths)
                .into_iter()
                .map(|(path, is_dir)| match path.strip_prefix(from) {
                    Ok(rest) => (change.path.join(rest).components().collect(), is_dir),
                    Err(_) => (path, is_dir),
                })
                .collect();
        }
        _ => {}
    }
}

pub(crate) fn walk(dir: &Path, paths: &mut Paths) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let is_dir = entry.file_type().unwrap().is_dir();
        paths.insert(entry.path(), is_dir);
        if is_dir {
            walk(&entry.path(), paths);
        }
    }
}
