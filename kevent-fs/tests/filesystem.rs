//! What a watcher of file systems promises, on a file system of its own.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kevent_core::testing::Contract;
use kevent_core::{Queue, SourceId, Token, Wait};
use kevent_fs::{Change, ChangeKind, FileSystemWatcher, Kinds};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A file system in memory, which nobody else works on.
struct Volume(TempDir);

impl Volume {
    /// None, with a word why, where it can't be had or watched.
    fn new() -> Option<Volume> {
        if let Err(error) = FileSystemWatcher::probe() {
            println!("skipped: {error}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Not by mount(8): a new process has the files of the other tests open for a moment, and
        // then closes them.
        let (name, flags) = ("kevent-fs-test", MountFlags::empty());
        if let Err(error) = rustix::mount::mount(name, dir.path(), "tmpfs", flags, None) {
            println!("skipped: no permission to mount: {error}");
            return None;
        }
        let volume = Volume(dir);
        if let Err(error) = FileSystemWatcher::new().unwrap().watch_tree(volume.path(), 1) {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
            println!("skipped: {error}");
            return None;
        }
        Some(volume)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// A queue with one watcher, and a volume of which the folder `root` is watched.
struct Bench {
    queue: Queue<Change>,
    id: SourceId<FileSystemWatcher>,
    token: Token,
    volume: Volume,
    fences: usize,
}

impl Bench {
    fn with(watcher: FileSystemWatcher) -> Option<Bench> {
        let volume = Volume::new()?;
        let root = volume.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut queue = Queue::new().unwrap();
        let id = queue.attach(watcher, |change| change).unwrap();
        let token = queue[id].watch_tree(root, 1).unwrap();
        Some(Bench { queue, id, token, volume, fences: 0 })
    }

    fn new() -> Option<Bench> {
        FileSystemWatcher::probe().map_err(|error| println!("skipped: {error}")).ok()?;
        Bench::with(FileSystemWatcher::new().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.volume.path().join("root").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.volume.path().join(path)
    }

    fn until(&mut self, mut wanted: impl FnMut(&Change) -> bool) -> Vec<Change> {
        let deadline = Instant::now() + PATIENCE;
        let mut taken = Vec::new();
        loop {
            self.queue.wait(Wait::until(deadline)).unwrap();
            while let Some(change) = self.queue.next() {
                taken.push(change);
                if wanted(taken.last().unwrap()) {
                    return taken;
                }
            }
            assert!(Instant::now() < deadline, "the change did not come; so far: {taken:#?}");
        }
    }

    /// All that has happened, in short words.
    fn happened(&mut self) -> Vec<String> {
        self.fences += 1;
        let fence = self.at(&format!(".fence{}", self.fences));
        fs::create_dir(&fence).unwrap();
        let mut taken = self.until(|change| change.path == fence);
        taken.pop();
        taken.iter().map(|change| self.in_words(change)).collect()
    }

    fn in_words(&self, change: &Change) -> String {
        let short = |path: &Path| {
            path.strip_prefix(self.volume.path()).unwrap().to_string_lossy().into_owned()
        };
        let path = short(&change.path);
        let slash = if change.is_dir { "/" } else { "" };
        match &change.kind {
            ChangeKind::Moved { from } => format!("Moved {}{slash} {path}{slash}", short(from)),
            kind => format!("{kind:?} {path}{slash}"),
        }
    }
}

type Driver = (Token, Volume, Cell<usize>);

/// Creates files; each is one event.
fn contract(gather: Duration) -> Option<Contract<FileSystemWatcher, Driver>> {
    drop(Volume::new()?);
    let contract = Contract::new(move || {
        let volume = Volume::new().unwrap();
        let mut watcher = FileSystemWatcher::new().unwrap().with_kinds(Kinds::CREATED);
        let token = watcher.watch_tree(volume.path(), 0).unwrap();
        (watcher.with_gather_time(gather), (token, volume, Cell::new(0)))
    })
    .provoke(|_, (_, volume, made), count| {
        for _ in 0..count {
            let number = made.replace(made.get() + 1);
            File::create(volume.path().join(number.to_string())).unwrap();
        }
    })
    .remove(|watcher, (token, _, _)| assert!(watcher.unwatch(*token)));
    Some(contract)
}

#[test]
fn file_system_keeps_the_contract() {
    contract(Duration::ZERO).into_iter().for_each(|contract| contract.check());
}

#[test]
fn file_system_that_gathers_keeps_the_contract() {
    contract(Duration::from_millis(2)).into_iter().for_each(|contract| contract.check());
}

#[test]
fn changes_are_told_as_they_were_made() {
    let Some(mut bench) = Bench::new() else { return };
    fs::create_dir_all(bench.at("a/b")).unwrap();
    assert_eq!(bench.happened(), ["Created root/a/", "Created root/a/b/"]);
    fs::write(bench.at("a/b/file"), "1").unwrap();
    let mut happened = bench.happened();
    happened.dedup();
    assert_eq!(
        happened,
        ["Created root/a/b/file", "Modified root/a/b/file", "Written root/a/b/file"]
    );
    fs::rename(bench.at("a/b/file"), bench.at("other")).unwrap();
    assert_eq!(bench.happened(), ["Moved root/a/b/file root/other"]);
    fs::remove_file(bench.at("other")).unwrap();
    fs::remove_dir(bench.at("a/b")).unwrap();
    assert_eq!(bench.happened(), ["Removed root/other", "Removed root/a/b/"]);
}

#[test]
fn only_what_is_below_the_registration_is_told() {
    let Some(mut bench) = Bench::new() else { return };
    fs::create_dir(bench.outside("rooted")).unwrap();
    fs::write(bench.outside("rooted/file"), "1").unwrap();
    fs::write(bench.outside("file"), "1").unwrap();
    fs::rename(bench.outside("file"), bench.outside("rooted/file")).unwrap();
    assert!(bench.happened().is_empty());
    let everything = bench.volume.path().to_owned();
    bench.queue[bench.id].watch_tree(&everything, 2).unwrap();
    File::create(bench.outside("rooted/new")).unwrap();
    let taken = bench.until(|change| change.kind == ChangeKind::Written);
    assert!(taken.iter().all(|change| change.key == 2), "{taken:?}");
    File::create(bench.at("both")).unwrap();
    let mut keys = Vec::new();
    bench.until(|change| {
        keys.extend((change.kind == ChangeKind::Written).then_some(change.key));
        keys.len() == 2
    });
    keys.sort_unstable();
    assert_eq!(keys, [1, 2]);
}

#[test]
fn content_of_a_moved_directory_is_told_under_its_new_path_and_before_under_its_old() {
    let Some(mut bench) = Bench::new() else { return };
    fs::create_dir_all(bench.at("a/b/c")).unwrap();
    bench.happened();
    // Looked at only when all of it has been done.
    File::create(bench.at("a/b/c/1")).unwrap();
    fs::rename(bench.at("a"), bench.at("x")).unwrap();
    File::create(bench.at("x/b/c/2")).unwrap();
    fs::rename(bench.at("x/b"), bench.at("y")).unwrap();
    File::create(bench.at("y/c/3")).unwrap();
    let mut happened = bench.happened();
    happened.retain(|words| !words.starts_with("Written"));
    assert_eq!(
        happened,
        [
            "Created root/a/b/c/1",
            "Moved root/a/ root/x/",
            "Created root/x/b/c/2",
            "Moved root/x/b/ root/y/",
            "Created root/y/c/3",
        ]
    );
}

#[test]
fn directory_that_was_there_before_is_found_by_its_handle() {
    let Some(mut bench) = Bench::new() else { return };
    let deep = "deep/a/b/c/d";
    fs::create_dir_all(bench.outside("deep/a/b/c/d")).unwrap();
    fs::rename(bench.outside("deep"), bench.at("deep")).unwrap();
    let root = bench.at("");
    let again = bench.queue[bench.id].watch_tree(root, 3).unwrap();
    assert!(bench.queue[bench.id].unwatch(bench.token));
    bench.token = again;
    bench.queue.wait(Wait::poll()).unwrap();
    while bench.queue.next().is_some() {}
    File::create(bench.at(deep).join("file")).unwrap();
    assert_eq!(
        bench.happened().first().map(String::as_str),
        Some("Created root/deep/a/b/c/d/file")
    );
}

#[test]
fn moved_in_and_out_is_created_and_removed_with_what_it_holds() {
    let Some(mut bench) = Bench::new() else { return };
    fs::create_dir_all(bench.outside("a/b")).unwrap();
    fs::write(bench.outside("a/b/file"), "1").unwrap();
    // It is known to be outside.
    bench.happened();
    fs::rename(bench.outside("a"), bench.at("a")).unwrap();
    assert_eq!(
        bench.happened(),
        ["Created root/a/", "Created root/a/b/", "Created root/a/b/file", "Modified root/a/b/file"]
    );
    File::create(bench.at("a/b/more")).unwrap();
    assert_eq!(bench.happened()[0], "Created root/a/b/more");
    fs::rename(bench.at("a"), bench.outside("a")).unwrap();
    File::create(bench.outside("a/b/not told")).unwrap();
    assert_eq!(bench.happened(), ["Removed root/a/"]);
    fs::write(bench.outside("f"), "1").unwrap();
    fs::rename(bench.outside("f"), bench.at("f")).unwrap();
    assert_eq!(bench.happened(), ["Created root/f", "Modified root/f"]);
}

#[test]
fn what_was_made_and_removed_before_anybody_looked_ends_as_removed() {
    let Some(mut bench) = Bench::new() else { return };
    for _ in 0..3 {
        fs::create_dir(bench.at("d")).unwrap();
        fs::write(bench.at("d/f"), "1").unwrap();
        fs::write(bench.at("f"), "1").unwrap();
        fs::remove_file(bench.at("f")).unwrap();
        fs::remove_dir_all(bench.at("d")).unwrap();
    }
    fs::write(bench.at("f"), "1").unwrap();
    let mut there = std::collections::BTreeSet::new();
    for words in bench.happened() {
        match words.split_once(' ').unwrap() {
            ("Created", path) => assert!(there.insert(path.to_owned()), "{words}"),
            ("Removed", path) => {
                there.retain(|known| !known.starts_with(path));
            }
            _ => {}
        }
    }
    assert_eq!(there.into_iter().collect::<Vec<_>>(), ["root/f"]);
}

#[test]
fn exchange_leaves_both() {
    let Some(mut bench) = Bench::new() else { return };
    fs::create_dir_all(bench.at("a/in-a")).unwrap();
    fs::create_dir_all(bench.at("b/in-b")).unwrap();
    fs::write(bench.at("f"), "f").unwrap();
    fs::write(bench.at("g"), "g").unwrap();
    bench.happened();
    let exchange = |a: &str, b: &str| {
        renameat_with(CWD, bench.at(a), CWD, bench.at(b), RenameFlags::EXCHANGE).unwrap();
    };
    exchange("a", "b");
    exchange("f", "g");
    assert_eq!(
        bench.happened(),
        [
            "Moved root/a/ root/b/",
            "Created root/a/",
            "Created root/a/in-b/",
            "Moved root/f root/g",
            "Created root/f",
            "Modified root/f",
        ]
    );
    File::create(bench.at("a/in-b/1")).unwrap();
    File::create(bench.at("b/in-a/2")).unwrap();
    let happened = bench.happened();
    for path in ["Created root/a/in-b/1", "Created root/b/in-a/2"] {
        assert!(happened.contains(&path.to_owned()), "{happened:?}");
    }
}

#[test]
fn rename_there_and_back_is_no_exchange() {
    let Some(mut bench) = Bench::new() else { return };
    fs::write(bench.at("f"), "f").unwrap();
    bench.happened();
    fs::rename(bench.at("f"), bench.at("g")).unwrap();
    fs::rename(bench.at("g"), bench.at("f")).unwrap();
    assert_eq!(bench.happened(), ["Moved root/f root/g", "Moved root/g root/f"]);
}

#[test]
fn removed_or_moved_root_ends_the_registration() {
    let Some(mut bench) = Bench::new() else { return };
    fs::create_dir(bench.outside("second")).unwrap();
    let second = bench.outside("second");
    bench.queue[bench.id].watch_tree(&second, 2).unwrap();
    // The same name elsewhere is not meant.
    fs::create_dir_all(bench.outside("else/root")).unwrap();
    fs::remove_dir(bench.outside("else/root")).unwrap();
    fs::remove_dir(&second).unwrap();
    let root = bench.at("");
    fs::rename(&root, bench.outside("elsewhere")).unwrap();
    let mut gone = Vec::new();
    bench.until(|change| {
        assert_eq!(change.kind, ChangeKind::RootGone);
        gone.push(change.key);
        gone.len() == 2
    });
    assert_eq!(gone, [2, 1]);
    assert!(!bench.queue[bench.id].unwatch(bench.token), "it has ended");
    fs::create_dir(bench.outside("elsewhere/a")).unwrap();
    bench.queue.wait(Duration::from_millis(20)).unwrap();
    assert_eq!(bench.queue.next(), None);
}

#[test]
fn queue_that_runs_over_is_told() {
    let Ok(watcher) = FileSystemWatcher::with_bounded_queue() else {
        return println!("skipped: no fanotify");
    };
    let Some(mut bench) = Bench::with(watcher.with_kinds(Kinds::CREATED)) else { return };
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap_or_default();
    let count = limit.trim().parse::<usize>().unwrap_or(16_384) + 100;
    for n in 0..count {
        File::create(bench.at(&n.to_string())).unwrap();
    }
    let taken = bench.until(|change| change.kind == ChangeKind::Overflow);
    assert!(taken.len() < count);
    assert_eq!(bench.in_words(taken.last().unwrap()), "Overflow root/");
    File::create(bench.at("later")).unwrap();
    assert_eq!(bench.happened().first().map(String::as_str), Some("Created root/later"));
}

#[test]
fn unbounded_queue_does_not_run_over() {
    let Some(mut bench) = Bench::new() else { return };
    for n in 0..20_000 {
        File::create(bench.at(&n.to_string())).unwrap();
    }
    let happened = bench.happened();
    let created = happened.iter().filter(|words| words.starts_with("Created")).count();
    assert_eq!(created, 20_000);
}

#[test]
fn only_wanted_kinds_are_told() {
    let Ok(watcher) = FileSystemWatcher::new() else { return println!("skipped: no fanotify") };
    let Some(mut bench) = Bench::with(watcher.with_kinds(Kinds::WRITTEN | Kinds::CREATED)) else {
        return;
    };
    let mut file = File::create(bench.at("a")).unwrap();
    file.write_all(b"1").unwrap();
    file.set_permissions(file.metadata().unwrap().permissions()).unwrap();
    drop(file);
    fs::remove_file(bench.at("a")).unwrap();
    assert_eq!(bench.happened(), ["Created root/a", "Written root/a"]);
}

#[test]
fn unwatch_silences_what_waits_and_leaves_the_others() {
    let Some(mut bench) = Bench::new() else { return };
    let root = bench.at("");
    bench.queue[bench.id].watch_tree(&root, 2).unwrap();
    File::create(bench.at("a")).unwrap();
    bench.queue.wait(None).unwrap();
    assert!(bench.queue[bench.id].unwatch(bench.token));
    File::create(bench.at("b")).unwrap();
    let b = bench.at("b");
    let taken = bench.until(|change| change.path == b && change.kind == ChangeKind::Written);
    assert!(taken.iter().all(|change| change.key == 2), "{taken:?}");
}

#[test]
fn file_system_without_handles_is_unsupported_and_says_so() {
    if FileSystemWatcher::probe().is_err() {
        return println!("skipped: no fanotify");
    }
    let mut watcher = FileSystemWatcher::new().unwrap();
    let error = watcher.watch_tree("/proc/self", 1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("file handles"), "{error}");
    let missing = watcher.watch_tree("/nowhere/at all", 1).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
