//! The contract suite over the watcher.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::fs::File;
use std::time::Duration;

use kevent_core::Token;
use kevent_core::testing::Contract;
use kevent_fs::{Kinds, Watcher};
use tempfile::TempDir;

struct Driver {
    dir: TempDir,
    token: Token,
    made: Cell<usize>,
}

/// One event for each file: only its creation is asked for.
fn make(tree: bool) -> (Watcher, Driver) {
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new().unwrap().with_kinds(Kinds::CREATED);
    let token = if tree { watcher.watch_tree(dir.path(), 0) } else { watcher.watch(dir.path(), 0) }
        .unwrap();
    (watcher, Driver { dir, token, made: Cell::new(0) })
}

fn provoke(watcher: &mut Watcher, driver: &mut Driver, count: usize) {
    let _ = watcher;
    for _ in 0..count {
        let number = driver.made.replace(driver.made.get() + 1);
        File::create(driver.dir.path().join(number.to_string())).unwrap();
    }
}

#[test]
fn tree_keeps_the_contract() {
    Contract::new(|| make(true))
        .provoke(provoke)
        .remove(|watcher, driver| assert!(watcher.unwatch(driver.token)))
        .check();
}

#[test]
fn tree_that_gathers_keeps_the_contract() {
    Contract::new(|| {
        let (watcher, driver) = make(true);
        (watcher.with_gather_time(Duration::from_millis(2)), driver)
    })
    .provoke(provoke)
    .remove(|watcher, driver| assert!(watcher.unwatch(driver.token)))
    .check();
}

#[test]
fn directory_keeps_the_contract() {
    Contract::new(|| make(false))
        .provoke(provoke)
        .remove(|watcher, driver| assert!(watcher.unwatch(driver.token)))
        .check();
}

/// Directories take a scan each.
#[test]
fn directories_that_turn_up_keep_the_contract() {
    Contract::new(|| make(true))
        .provoke(|_, driver, count| {
            for _ in 0..count {
                let number = driver.made.replace(driver.made.get() + 1);
                std::fs::create_dir(driver.dir.path().join(number.to_string())).unwrap();
            }
        })
        .remove(|watcher, driver| assert!(watcher.unwatch(driver.token)))
        .check();
}

/// Halves without a partner wait for it, which is a deadline of the source.
#[test]
fn files_moved_in_and_out_keep_the_contract() {
    Contract::new(|| {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut watcher = Watcher::new().unwrap().with_kinds(Kinds::REMOVED);
        let token = watcher.watch_tree(dir.path(), 0).unwrap();
        (watcher, (outside, Driver { dir, token, made: Cell::new(0) }))
    })
    .provoke(|_, (outside, driver), count| {
        for _ in 0..count {
            let name = driver.made.replace(driver.made.get() + 1).to_string();
            File::create(driver.dir.path().join(&name)).unwrap();
            std::fs::rename(driver.dir.path().join(&name), outside.path().join(&name)).unwrap();
        }
    })
    .remove(|watcher, (_, driver)| assert!(watcher.unwatch(driver.token)))
    .check();
}
