//! What a program makes of an overflow, without a flood of changes to bring one about.

use std::path::PathBuf;
use std::time::Duration;

use kevent_core::testing::Sim;
use kevent_fs::{Change, ChangeKind, Watcher};

#[test]
fn injected_overflow_comes_in_its_place_among_the_changes() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let watcher = queue.attach(Watcher::new().unwrap(), |change: Change| change).unwrap();
    let kinds = [ChangeKind::Created, ChangeKind::Overflow, ChangeKind::Resynced];
    for (minute, kind) in (1..).zip(kinds.clone()) {
        sim.at(Duration::from_secs(60 * minute), move |sim| {
            sim.inject(watcher, None, Change::for_test(7, "tree", kind));
        });
    }
    for (minute, kind) in (1..).zip(kinds) {
        queue.wait(None).unwrap();
        let change = queue.next().unwrap();
        assert_eq!((change.path, change.kind), (PathBuf::from("tree"), kind));
        assert_eq!(sim.elapsed(), Duration::from_secs(60 * minute));
    }
}

#[test]
fn halves_of_renames_and_gathered_bursts_wait_in_made_up_time() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
    [&inside, &outside].iter().for_each(|path| std::fs::create_dir(path).unwrap());
    std::fs::write(inside.join("a"), "").unwrap();

    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let minute = Duration::from_secs(60);
    let watcher = Watcher::new().unwrap().with_gather_time(minute);
    let watcher = queue.attach(watcher, |change: Change| change).unwrap();
    queue[watcher].watch_tree(&inside, 7).unwrap();
    queue.wait(minute).unwrap();
    while queue.next().is_some() {}

    let begun = sim.elapsed();
    std::fs::rename(inside.join("a"), outside.join("a")).unwrap();
    queue.wait(None).unwrap();
    assert_eq!(queue.next().unwrap().kind, ChangeKind::Removed);
    let waited = sim.elapsed() - begun;
    let hold = Duration::from_millis(2);
    assert_eq!(waited, minute + hold, "gathered for a minute, then the other half did not come");
}
