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
