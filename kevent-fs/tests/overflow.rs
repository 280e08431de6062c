//! The kernel's queue runs over, and nothing is lost.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};

use common::Bench;
use kevent_fs::ChangeKind;

/// More than the kernel's queue holds, whatever it is set to.
fn more_than_the_queue_holds() -> usize {
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap_or_default();
    text.trim().parse::<usize>().unwrap_or(16_384) + 1_000
}

/// Fills the kernel's queue with changes of two files in turn, which it does not merge.
fn overflow(bench: &Bench) {
    let files = [bench.at("one"), bench.at("two")];
    // Three events for each round: create (once), modify, close.
    for n in 0..more_than_the_queue_holds() {
        File::create(&files[n % 2]).unwrap().set_len(1).unwrap();
    }
}

#[test]
fn overflow_is_told_then_the_differences_then_that_all_is_told() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir_all(bench.at("stays/below")).unwrap();
    fs::create_dir_all(bench.at("goes/below")).unwrap();
    fs::create_dir_all(bench.at("moves/below")).unwrap();
    fs::write(bench.at("goes/file"), "1").unwrap();
    fs::write(bench.at("stays/file"), "1").unwrap();
    bench.settle();
    overflow(&bench);
    // None of this gets into the queue.
    fs::create_dir_all(bench.at("new/a/b")).unwrap();
    fs::write(bench.at("new/a/file"), "1").unwrap();
    fs::remove_dir_all(bench.at("goes")).unwrap();
    fs::rename(bench.at("moves"), bench.at("stays/moved")).unwrap();
    fs::write(bench.at("stays/file"), "longer").unwrap();

    let taken = bench.until(|change| change.kind == ChangeKind::Resynced);
    bench.is_as_on_disk();
    let from = taken.iter().position(|change| change.kind == ChangeKind::Overflow).unwrap();
    let words: Vec<_> = taken[from..].iter().map(|change| bench.in_words(change)).collect();
    assert_eq!(words.first().unwrap(), "Overflow root/");
    assert!(words.contains(&"Removed root/goes/".to_owned()), "{words:?}");
    assert!(words.contains(&"Modified root/stays/file".to_owned()), "{words:?}");
    assert_eq!(words.last().unwrap(), "Resynced root/");

    // What was found by the rescan is watched.
    for path in ["new/a/b/file", "stays/moved/below/file", "stays/below/file"] {
        File::create(bench.at(path)).unwrap();
    }
    assert!(bench.happened().contains(&"Created root/stays/moved/below/file".to_owned()));
    bench.is_as_on_disk();
}

#[test]
fn file_that_did_not_change_is_not_told_after_an_overflow() {
    let mut bench = Bench::new(kevent_fs::Watcher::new().unwrap());
    fs::write(bench.at("old"), "1").unwrap();
    // Its stamp can be relied on once the clock of the file system has moved on.
    let changed = fs::metadata(bench.at("old")).unwrap().modified().unwrap();
    while changed.elapsed().unwrap_or_default().as_millis() < 50 {
        std::thread::yield_now();
    }
    let root = bench.root();
    bench.queue[bench.id].watch_tree(&root, 1).unwrap();
    bench.told.insert(bench.at("old"), false);
    overflow(&bench);
    let old = bench.at("old");
    let taken = bench.until(|change| change.kind == ChangeKind::Resynced);
    assert!(taken.iter().all(|change| change.path != old));
}

#[test]
fn root_that_went_during_an_overflow_ends_the_registration() {
    let (mut bench, _) = Bench::with_tree();
    overflow(&bench);
    fs::remove_dir_all(bench.root()).unwrap();
    fs::create_dir(bench.root()).unwrap();
    bench.until(|change| change.kind == ChangeKind::RootGone);
    bench.stays_silent();
    assert_eq!(bench.queue[bench.id].watches(), 0);
}

#[test]
fn every_registration_is_told_of_an_overflow() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir(bench.outside("other")).unwrap();
    fs::write(bench.outside("file"), "1").unwrap();
    let (dir, file) = (bench.outside("other"), bench.outside("file"));
    bench.queue[bench.id].watch(&dir, 2).unwrap();
    bench.queue[bench.id].watch(&file, 3).unwrap();
    overflow(&bench);
    let mut keys = Vec::new();
    bench.until(|change| {
        keys.extend((change.kind == ChangeKind::Resynced).then_some(change.key));
        keys.len() == 3
    });
    keys.sort_unstable();
    assert_eq!(keys, [1, 2, 3]);
}
