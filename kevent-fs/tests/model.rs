//! Whatever happens to a tree, and however fast: the list of paths that is kept from the changes alone
//! is in the end what is on the disk.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::Duration;

use common::Bench;
use common::acts::{act, cases, perform};
use kevent_fs::Watcher;
use proptest::prelude::*;

/// Every directory of the tree is watched: a file in each is told.
fn is_watched_everywhere(bench: &mut Bench) {
    let dirs: Vec<_> =
        bench.told.iter().filter(|(_, is_dir)| **is_dir).map(|(path, _)| path.clone()).collect();
    assert_eq!(bench.queue[bench.id].watches(), dirs.len() + 1, "a watch for each directory");
    for dir in dirs {
        fs::write(dir.join("probe"), "1").unwrap();
    }
    bench.settle();
    bench.is_as_on_disk();
}

proptest! {
    #![proptest_config(cases(40))]

    /// All at once, before anything is read.
    #[test]
    fn changes_read_late_keep_the_list(acts in prop::collection::vec(act(3), 1..60)) {
        let (mut bench, _) = Bench::with_tree();
        fs::create_dir(bench.outside("outside")).unwrap();
        acts.iter().for_each(|act| perform(bench.dir.path(), act, 0));
        bench.settle();
        bench.is_as_on_disk();
        is_watched_everywhere(&mut bench);
    }

    /// With fewer watches than directories. What is not covered may be missing from the list, but
    /// nothing contradicts it, and once there are directories enough gone, all is covered.
    #[test]
    fn partial_watch_becomes_a_whole_one_when_there_are_watches_again(
        acts in prop::collection::vec(act(3), 1..80),
        at_once in any::<bool>(),
    ) {
        let mut bench = Bench::new(Watcher::new().unwrap().with_watch_limit(4));
        let root = bench.root();
        bench.queue[bench.id].watch_tree(&root, 1).unwrap();
        fs::create_dir(bench.outside("outside")).unwrap();
        for act in &acts {
            perform(bench.dir.path(), act, 0);
            if at_once {
                bench.queue.wait(Duration::ZERO).unwrap();
            }
        }
        bench.settle();
        prop_assert!(bench.queue[bench.id].watches() <= 4);
        for name in ["a", "b", "c"] {
            let path = bench.at(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        bench.settle();
        bench.is_as_on_disk();
        fs::create_dir_all(bench.at("a/b/c")).unwrap();
        bench.settle();
        bench.is_as_on_disk();
        is_watched_everywhere(&mut bench);
    }

    /// By another thread, while the changes are read.
    #[test]
    fn changes_read_at_once_keep_the_list(acts in prop::collection::vec(act(3), 1..1000)) {
        let (mut bench, _) = Bench::with_tree();
        fs::create_dir(bench.outside("outside")).unwrap();
        let dir = bench.dir.path().to_owned();
        let worker =
            std::thread::spawn(move || acts.iter().for_each(|act| perform(&dir, act, 0)));
        while !worker.is_finished() {
            bench.queue.wait(Duration::from_micros(100)).unwrap();
            while let Some(change) = bench.queue.next() {
                common::apply(&mut bench.told, &change);
            }
        }
        worker.join().unwrap();
        bench.settle();
        bench.is_as_on_disk();
        is_watched_everywhere(&mut bench);
    }

    /// By another thread at full speed, in a deep tree, gathered or not. At each quiet point the copy
    /// that is kept from the changes is as the disk, with the content of all files.
    #[test]
    fn copy_kept_from_the_changes_is_as_the_disk_at_each_quiet_point(
        rounds in prop::collection::vec(prop::collection::vec(act(5), 1..300), 1..4),
        gather in prop_oneof![Just(0), Just(2)],
    ) {
        let watcher = Watcher::new().unwrap().with_gather_time(Duration::from_millis(gather));
        let mut bench = Bench::new(watcher);
        let root = bench.root();
        bench.queue[bench.id].watch_tree(&root, 1).unwrap();
        fs::create_dir(bench.outside("outside")).unwrap();
        common::full_speed(&mut bench, rounds);
    }
}
