//! The kernel's queue holds 16 events, so it runs over all the time, and nothing is lost.
//!
//! The limit is one for the whole machine, and a watcher takes it when it is made: it is set for that
//! moment only, and the tests of this file are in a program of their own.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::Mutex;

use common::Bench;
use common::acts::{act, cases};
use kevent_fs::{ChangeKind, Watcher};
use proptest::prelude::*;

const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The limit as it was, to be set again.
struct Restore(String);

impl Drop for Restore {
    fn drop(&mut self) {
        fs::write(LIMIT, &self.0).unwrap();
    }
}

/// A watcher whose queue holds 16 events, if we may set that.
fn hard_pressed() -> Option<Watcher> {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let before = fs::read_to_string(LIMIT).unwrap();
    if let Err(error) = fs::write(LIMIT, "16") {
        println!("skipped: {LIMIT} can't be set: {error}");
        return None;
    }
    let _restore = Restore(before);
    Some(Watcher::new().unwrap())
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn copy_kept_from_the_changes_is_as_the_disk_although_most_changes_are_lost(
        rounds in prop::collection::vec(prop::collection::vec(act(5), 1..300), 1..4),
    ) {
        let Some(watcher) = hard_pressed() else { return Ok(()) };
        let mut bench = Bench::new(watcher);
        let root = bench.root();
        bench.queue[bench.id].watch_tree(&root, 1).unwrap();
        fs::create_dir(bench.outside("outside")).unwrap();
        common::full_speed(&mut bench, rounds);
    }
}

#[test]
fn limit_has_effect() {
    let Some(watcher) = hard_pressed() else { return };
    let mut bench = Bench::new(watcher);
    let root = bench.root();
    bench.queue[bench.id].watch_tree(&root, 1).unwrap();
    (0..20).for_each(|n| fs::create_dir(bench.at(&n.to_string())).unwrap());
    let overflowed = bench.take(None).iter().any(|change| change.kind == ChangeKind::Overflow);
    assert!(overflowed, "20 changes did not fill a queue of 16");
    bench.quiet();
    bench.mirrors_the_disk();
}
