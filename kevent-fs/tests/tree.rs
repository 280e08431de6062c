//! What a watcher promises, on real files.

#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Bench;
use kevent_core::Wait;
use kevent_fs::{ChangeKind, Kinds, Uncovered, Watcher};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::mount::MountFlags;

#[test]
fn directories_made_at_once_are_told_with_what_they_hold() {
    let (mut bench, _) = Bench::with_tree();
    for n in 0..50 {
        fs::create_dir_all(bench.at(&format!("{n}/a/b/c/d"))).unwrap();
        fs::write(bench.at(&format!("{n}/a/b/file")), "1").unwrap();
        fs::write(bench.at(&format!("{n}/a/b/c/d/file")), "1").unwrap();
    }
    bench.settle();
    bench.is_as_on_disk();
    // And they are watched.
    fs::write(bench.at("7/a/b/c/d/more"), "1").unwrap();
    assert!(bench.happened().contains(&"Created root/7/a/b/c/d/more".to_owned()));
}

#[test]
fn what_was_there_before_is_not_told_and_is_watched() {
    let mut bench = Bench::new(Watcher::new().unwrap().with_kinds(Kinds::NAMES));
    fs::create_dir_all(bench.at("a/b")).unwrap();
    fs::write(bench.at("a/b/old"), "1").unwrap();
    let root = bench.root();
    bench.queue[bench.id].watch_tree(&root, 1).unwrap();
    bench.stays_silent();
    common::walk(&root, &mut bench.told);
    fs::write(bench.at("a/b/new"), "1").unwrap();
    fs::remove_file(bench.at("a/b/old")).unwrap();
    assert_eq!(bench.happened(), ["Created root/a/b/new", "Removed root/a/b/old"]);
}

#[test]
fn write_is_told_as_modified_and_written() {
    let (mut bench, _) = Bench::with_tree();
    fs::write(bench.at("file"), "1").unwrap();
    assert_eq!(bench.happened(), ["Created root/file", "Modified root/file", "Written root/file"]);
    OpenOptions::new().write(true).open(bench.at("file")).unwrap().set_len(0).unwrap();
    assert_eq!(bench.happened(), ["Modified root/file", "Written root/file"]);
}

#[test]
fn attributes_are_told_if_asked_for() {
    let mut bench =
        Bench::new(Watcher::new().unwrap().with_kinds(Kinds::NAMES | Kinds::ATTRIBUTES));
    let root = bench.root();
    bench.queue[bench.id].watch_tree(root, 1).unwrap();
    fs::write(bench.at("file"), "1").unwrap();
    fs::set_permissions(bench.at("file"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.happened(), ["Created root/file", "Attributes root/file"]);

    let (mut bench, _) = Bench::with_tree();
    fs::write(bench.at("file"), "1").unwrap();
    bench.settle();
    fs::set_permissions(bench.at("file"), Permissions::from_mode(0o600)).unwrap();
    assert!(bench.happened().is_empty());
}

#[test]
fn rename_is_one_change() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir(bench.at("a")).unwrap();
    fs::write(bench.at("file"), "1").unwrap();
    bench.settle();
    fs::rename(bench.at("file"), bench.at("a/other")).unwrap();
    assert_eq!(bench.happened(), ["Moved root/file root/a/other"]);
}

#[test]
fn file_replaced_by_rename_is_one_change() {
    let (mut bench, _) = Bench::with_tree();
    fs::write(bench.at("file"), "old").unwrap();
    fs::write(bench.at("file.tmp"), "new").unwrap();
    bench.settle();
    fs::rename(bench.at("file.tmp"), bench.at("file")).unwrap();
    assert_eq!(bench.happened(), ["Moved root/file.tmp root/file"]);
    bench.is_as_on_disk();
}

#[test]
fn file_replaced_from_outside_is_removed_and_created() {
    let (mut bench, _) = Bench::with_tree();
    fs::write(bench.at("file"), "old").unwrap();
    fs::write(bench.outside("new"), "new").unwrap();
    bench.settle();
    fs::rename(bench.outside("new"), bench.at("file")).unwrap();
    assert_eq!(bench.happened(), ["Removed root/file", "Created root/file", "Modified root/file"]);
}

#[test]
fn moved_directory_keeps_its_watches_under_its_new_path() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir_all(bench.at("a/b/c")).unwrap();
    fs::create_dir(bench.at("x")).unwrap();
    bench.settle();
    let watches = bench.queue[bench.id].watches();
    fs::rename(bench.at("a"), bench.at("x/y")).unwrap();
    File::create(bench.at("x/y/b/c/file")).unwrap();
    assert_eq!(
        bench.happened()[..2],
        ["Moved root/a/ root/x/y/", "Created root/x/y/b/c/file"].map(str::to_owned)
    );
    assert_eq!(bench.queue[bench.id].watches(), watches);
    bench.is_as_on_disk();
}

#[test]
fn directory_moved_out_is_not_watched_any_more() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir_all(bench.at("a/b")).unwrap();
    bench.settle();
    assert_eq!(bench.queue[bench.id].watches(), 3);
    fs::rename(bench.at("a"), bench.outside("a")).unwrap();
    assert_eq!(bench.happened(), ["Removed root/a/"]);
    assert_eq!(bench.queue[bench.id].watches(), 1);
    fs::write(bench.outside("a/b/file"), "1").unwrap();
    bench.stays_silent();
}

#[test]
fn directory_moved_in_is_told_with_what_it_holds() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir_all(bench.outside("a/b")).unwrap();
    fs::write(bench.outside("a/b/file"), "1").unwrap();
    fs::rename(bench.outside("a"), bench.at("a")).unwrap();
    let expected =
        ["Created root/a/", "Created root/a/b/", "Created root/a/b/file", "Modified root/a/b/file"];
    assert_eq!(bench.happened(), expected);
    File::create(bench.at("a/b/more")).unwrap();
    assert_eq!(bench.happened()[0], "Created root/a/b/more");
}

#[test]
fn plain_changes_do_not_wait_for_a_rename_that_is_over() {
    let (mut bench, _) = Bench::with_tree();
    fs::write(bench.at("file"), "1").unwrap();
    bench.settle();
    fs::write(bench.at("file"), "2").unwrap();
    bench.queue.wait(Wait::poll()).unwrap();
    assert!(bench.queue.next().is_some(), "the first look finds it");
}

#[test]
fn directory_is_watched_without_those_below() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    let root = bench.root();
    bench.queue[bench.id].watch(root, 1).unwrap();
    fs::create_dir(bench.at("a")).unwrap();
    File::create(bench.at("a/file")).unwrap();
    fs::rename(bench.at("a"), bench.at("b")).unwrap();
    assert_eq!(bench.happened(), ["Created root/a/", "Moved root/a/ root/b/"]);
    assert_eq!(bench.queue[bench.id].watches(), 1);
}

#[test]
fn file_is_watched_and_its_end_is_told() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    let file = bench.at("file");
    fs::write(&file, "1").unwrap();
    let token = bench.queue[bench.id].watch(&file, 5).unwrap();
    fs::write(&file, "2").unwrap();
    let taken = bench.until(|change| change.kind == ChangeKind::Written);
    assert_eq!(taken[0].kind, ChangeKind::Modified);
    assert!(taken.iter().all(|c| c.path == file && c.key == 5 && c.token == token && !c.is_dir));
    // Somebody has it open, so the kernel does not say that it is gone.
    let open = File::open(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let taken = bench.until(|change| change.kind == ChangeKind::RootGone);
    assert_eq!(taken.len(), 1);
    drop(open);
    bench.stays_silent();
    assert!(!bench.queue[bench.id].unwatch(token), "the registration has ended");
    assert_eq!(bench.queue[bench.id].watches(), 0);
}

#[test]
fn change_through_another_hard_link_is_told_of_a_watched_file() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    let (file, link) = (bench.at("file"), bench.at("link"));
    fs::write(&file, "1").unwrap();
    fs::hard_link(&file, &link).unwrap();
    bench.queue[bench.id].watch(&file, 5).unwrap();
    OpenOptions::new().append(true).open(&link).unwrap().write_all(b"2").unwrap();
    assert_eq!(bench.until(|_| true)[0].path, file);
}

#[test]
fn removed_root_ends_the_registration() {
    let (mut bench, token) = Bench::with_tree();
    fs::create_dir(bench.at("a")).unwrap();
    fs::remove_dir_all(bench.root()).unwrap();
    let taken = bench.until(|change| change.kind == ChangeKind::RootGone);
    assert_eq!(taken.last().unwrap().token, token);
    assert_eq!(bench.queue[bench.id].watches(), 0);
    fs::create_dir(bench.root()).unwrap();
    File::create(bench.at("file")).unwrap();
    bench.stays_silent();
}

#[test]
fn moved_root_ends_the_registration() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir(bench.at("a")).unwrap();
    bench.settle();
    fs::rename(bench.root(), bench.outside("other")).unwrap();
    bench.until(|change| change.kind == ChangeKind::RootGone);
    File::create(bench.outside("other/a/file")).unwrap();
    bench.stays_silent();
    assert_eq!(bench.queue[bench.id].watches(), 0);
}

#[test]
fn no_change_comes_out_after_unwatch() {
    let (mut bench, token) = Bench::with_tree();
    File::create(bench.at("a")).unwrap();
    bench.queue.wait(None).unwrap();
    assert!(!bench.queue.is_empty(), "changes are in the ring");
    File::create(bench.at("b")).unwrap();
    assert!(bench.queue[bench.id].unwatch(token));
    assert!(!bench.queue[bench.id].unwatch(token));
    assert_eq!(bench.queue[bench.id].watches(), 0);
    assert_eq!(bench.queue.next(), None);
    bench.stays_silent();
    // The same directory again: what is old does not come back under the new name.
    let root = bench.root();
    bench.queue[bench.id].watch_tree(root, 2).unwrap();
    bench.stays_silent();
}

#[test]
fn registrations_that_overlap_both_get_their_changes() {
    let mut bench = Bench::new(Watcher::new().unwrap().with_kinds(Kinds::NAMES));
    fs::create_dir_all(bench.at("a/b")).unwrap();
    let (root, a) = (bench.root(), bench.at("a"));
    let outer = bench.queue[bench.id].watch_tree(&root, 1).unwrap();
    let inner = bench.queue[bench.id].watch(&a, 2).unwrap();
    let twin = bench.queue[bench.id].watch_tree(&root, 3).unwrap();
    assert_eq!(bench.queue[bench.id].watches(), 3, "one for each directory");
    let mut keys_of = |name: &str| {
        let last = bench.at(name);
        File::create(&last).unwrap();
        bench.queue.wait(None).unwrap();
        let mut keys: Vec<u64> = std::iter::from_fn(|| bench.queue.next())
            .filter(|change| change.path == last)
            .map(|change| change.key)
            .collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys_of("a/1"), [1, 2, 3]);
    assert_eq!(keys_of("a/b/2"), [1, 3]);
    bench.queue[bench.id].unwatch(outer);
    fs::rename(bench.at("a/1"), bench.at("1")).unwrap();
    bench.queue.wait(None).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| bench.queue.next()).collect();
    let words: Vec<_> = taken.iter().map(|change| (change.token, bench.in_words(change))).collect();
    assert_eq!(words.len(), 2);
    assert!(words.contains(&(inner, "Removed root/a/1".to_owned())));
    assert!(words.contains(&(twin, "Moved root/a/1 root/1".to_owned())));
}

#[test]
fn links_are_not_followed_below_the_root() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    fs::create_dir(bench.outside("elsewhere")).unwrap();
    symlink(bench.root(), bench.outside("way")).unwrap();
    symlink(bench.outside("elsewhere"), bench.at("before")).unwrap();
    let way = bench.outside("way");
    bench.queue[bench.id].watch_tree(&way, 1).unwrap();
    symlink(bench.outside("elsewhere"), bench.at("link")).unwrap();
    File::create(bench.outside("elsewhere/file")).unwrap();
    let taken = bench.until(|_| true);
    assert_eq!((&taken[0].path, taken[0].is_dir), (&way.join("link"), false));
    bench.stays_silent();
    assert_eq!(bench.queue[bench.id].watches(), 1);
}

#[test]
fn any_name_is_told_as_it_is() {
    let (mut bench, _) = Bench::with_tree();
    let names: [&[u8]; 4] = [b"\xff\xfe", b"new\nline", b" ", &[b'x'; 255]];
    for name in names {
        let dir = bench.root().join(OsStr::from_bytes(name));
        fs::create_dir(&dir).unwrap();
        File::create(dir.join(OsStr::from_bytes(name))).unwrap();
    }
    bench.settle();
    bench.is_as_on_disk();
    assert_eq!(bench.told.len(), 8);
}

#[test]
fn path_that_is_too_long_is_not_covered_and_said_to_be() {
    let (mut bench, _) = Bench::with_tree();
    let name = "d".repeat(250);
    // Made below another root and moved in, so that each path used here is short enough.
    let mut deep = bench.outside("deep");
    fs::create_dir(&deep).unwrap();
    while let room @ 2.. = 4090 - deep.as_os_str().len() {
        deep.push(&name[..name.len().min(room - 1)]);
        fs::create_dir(&deep).unwrap();
    }
    let long = "l".repeat(250);
    fs::create_dir(bench.at(&long)).unwrap();
    fs::rename(bench.outside("deep"), bench.at(&long).join("deep")).unwrap();
    let taken = bench.settle();
    let missed =
        |kind: &ChangeKind| matches!(kind, ChangeKind::NotCovered { reason: Uncovered::Failed(_) });
    assert_eq!(taken.iter().filter(|change| missed(&change.kind)).count(), 1);
}

#[test]
fn directories_that_changed_places_are_both_told() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir_all(bench.at("a/in-a")).unwrap();
    fs::create_dir_all(bench.at("b/in-b")).unwrap();
    bench.settle();
    // What RENAME_EXCHANGE does, with a detour.
    fs::rename(bench.at("a"), bench.at("c")).unwrap();
    fs::rename(bench.at("b"), bench.at("a")).unwrap();
    fs::rename(bench.at("c"), bench.at("b")).unwrap();
    bench.settle();
    bench.is_as_on_disk();
    File::create(bench.at("a/in-b/file")).unwrap();
    File::create(bench.at("b/in-a/file")).unwrap();
    bench.settle();
    bench.is_as_on_disk();
}

#[test]
fn directory_made_again_under_its_old_name_is_told_apart() {
    let (mut bench, _) = Bench::with_tree();
    for n in 0..20 {
        fs::create_dir(bench.at("a")).unwrap();
        fs::write(bench.at(&format!("a/{n}")), "1").unwrap();
        fs::rename(bench.at("a"), bench.at(&format!("b{n}"))).unwrap();
    }
    bench.settle();
    bench.is_as_on_disk();
    for n in 0..20 {
        File::create(bench.at(&format!("b{n}/more"))).unwrap();
    }
    bench.settle();
    bench.is_as_on_disk();
}

#[test]
fn more_directories_than_watches_are_a_partial_watch() {
    let mut bench = Bench::new(Watcher::new().unwrap().with_watch_limit(2));
    let root = bench.root();
    bench.queue[bench.id].watch_tree(root, 1).unwrap();
    fs::create_dir(bench.at("a")).unwrap();
    bench.settle();
    fs::create_dir_all(bench.at("b/c")).unwrap();
    fs::write(bench.at("b/file"), "1").unwrap();
    assert_eq!(bench.happened(), ["Created root/b/", "NotCovered root/b/ Limit"]);
    assert_eq!(bench.queue[bench.id].watches(), 2);
    // A watch gets free.
    fs::remove_dir(bench.at("a")).unwrap();
    let taken = bench.until(|change| change.kind == ChangeKind::Resynced);
    let words: Vec<_> = taken.iter().map(|change| bench.in_words(change)).collect();
    assert!(words.contains(&"Created root/b/file".to_owned()), "{words:?}");
    assert!(words.contains(&"NotCovered root/b/c/ Limit".to_owned()), "{words:?}");
    assert!(words.contains(&"Resynced root/b/".to_owned()), "{words:?}");
    bench.is_as_on_disk();
    // And another one, with the first of them.
    fs::remove_dir(bench.at("b/c")).unwrap();
    fs::create_dir(bench.at("b/d")).unwrap();
    assert!(bench.happened().contains(&"NotCovered root/b/d/ Limit".to_owned()));
}

#[test]
fn limit_is_an_error_for_a_root() {
    let mut bench = Bench::new(Watcher::new().unwrap().with_watch_limit(0));
    let root = bench.root();
    let error = bench.queue[bench.id].watch_tree(&root, 1).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
}

#[test]
fn wrong_paths_are_errors() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    let (file, missing) = (bench.at("file"), bench.at("missing"));
    File::create(&file).unwrap();
    let watcher = &mut bench.queue[bench.id];
    let kind = |error: std::io::Error| error.kind();
    assert_eq!(watcher.watch(&missing, 1).map_err(kind), Err(std::io::ErrorKind::NotFound));
    assert_eq!(watcher.watch_tree(&missing, 1).map_err(kind), Err(std::io::ErrorKind::NotFound));
    assert_eq!(watcher.watch_tree(&file, 1).map_err(kind), Err(std::io::ErrorKind::NotADirectory));
    assert_eq!(watcher.watches(), 0);
}

#[test]
fn full_ring_keeps_the_changes_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = kevent_core::Queue::with_capacity(2.try_into().unwrap()).unwrap();
    let id = queue
        .attach(Watcher::new().unwrap().with_kinds(Kinds::CREATED), |change| change.path)
        .unwrap();
    queue[id].watch_tree(dir.path(), 1).unwrap();
    let names: Vec<_> = (0..500).map(|n| dir.path().join(n.to_string())).collect();
    names.iter().for_each(|name| drop(File::create(name).unwrap()));
    for name in names {
        queue.wait(None).unwrap();
        assert_eq!(queue.next(), Some(name));
    }
}

#[test]
fn name_that_was_listed_is_not_told_again_by_its_own_event() {
    let mut bench = Bench::new(Watcher::new().unwrap().with_kinds(Kinds::NAMES));
    let root = bench.root();
    fs::write(bench.outside("moved"), "1").unwrap();
    fs::create_dir(bench.outside("dir")).unwrap();
    bench.queue[bench.id].watch(&root, 1).unwrap();
    File::create(bench.at("created")).unwrap();
    fs::rename(bench.outside("moved"), bench.at("moved")).unwrap();
    fs::rename(bench.outside("dir"), bench.at("dir")).unwrap();
    // The events wait in the kernel. This registration lists what they tell of.
    bench.queue[bench.id].watch_tree(&root, 2).unwrap();
    bench.queue.wait(Wait::forever().at_least(3)).unwrap();
    let keys: Vec<_> = std::iter::from_fn(|| bench.queue.next()).map(|c| c.key).collect();
    assert_eq!(keys, [1, 1, 1]);
}

#[test]
fn root_link_that_points_elsewhere_ends_the_registration_at_the_next_scan() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    let way = bench.outside("current");
    symlink(bench.root(), &way).unwrap();
    bench.queue[bench.id].watch_tree(&way, 1).unwrap();
    fs::remove_file(&way).unwrap();
    symlink(bench.dir.path(), &way).unwrap();
    fs::create_dir(bench.at("a")).unwrap();
    bench.until(|change| change.kind == ChangeKind::RootGone);
    bench.stays_silent();
}

#[test]
fn entries_exchanged_in_one_step_are_both_told() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir_all(bench.at("a/in-a")).unwrap();
    fs::create_dir_all(bench.at("b/in-b")).unwrap();
    bench.settle();
    exchange(&bench.at("a"), &bench.at("b"));
    bench.settle();
    bench.is_as_on_disk();
    File::create(bench.at("a/in-b/file")).unwrap();
    File::create(bench.at("b/in-a/file")).unwrap();
    bench.settle();
    bench.is_as_on_disk();
}

fn exchange(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

#[test]
fn files_exchanged_in_one_step_are_told_to_have_other_content() {
    let (mut bench, _) = Bench::with_tree();
    fs::create_dir(bench.at("d")).unwrap();
    fs::write(bench.at("a"), "a").unwrap();
    fs::write(bench.at("d/b"), "b").unwrap();
    bench.take(None);
    bench.quiet();
    for _ in 0..3 {
        exchange(&bench.at("a"), &bench.at("d/b"));
        bench.quiet();
        bench.mirrors_the_disk();
    }
}

/// A directory that is mounted at a second place, until this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn directory_mounted_twice_is_covered_once() {
    let mut bench = Bench::new(Watcher::new().unwrap().with_kinds(Kinds::NAMES));
    fs::create_dir_all(bench.at("a/b")).unwrap();
    fs::create_dir(bench.at("c")).unwrap();
    let mut mount = Command::new("mount");
    mount.arg("--bind").arg(bench.at("a")).arg(bench.at("c"));
    if !mount.output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no permission to mount");
        return;
    }
    let mounted = Mounted(bench.at("c"));
    let root = bench.root();
    bench.queue[bench.id].watch_tree(root, 1).unwrap();
    let taken = bench.until(|_| true);
    assert_eq!(taken[0].kind, ChangeKind::NotCovered { reason: Uncovered::Twice });
    assert_eq!(bench.queue[bench.id].watches(), 3);
    drop(mounted);
}

#[test]
fn unmounted_root_ends_the_registration() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "kevent-fs-test"]).arg(bench.root());
    if !mount.output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no permission to mount");
        return;
    }
    let mounted = Mounted(bench.root());
    fs::create_dir(bench.at("a")).unwrap();
    let root = bench.root();
    bench.queue[bench.id].watch_tree(root, 1).unwrap();
    drop(mounted);
    bench.until(|change| change.kind == ChangeKind::RootGone);
    assert_eq!(bench.queue[bench.id].watches(), 0);
    bench.stays_silent();
}

#[test]
fn directory_that_was_below_a_mount_comes_to_light_when_that_is_undone() {
    let mut bench = Bench::new(Watcher::new().unwrap());
    fs::create_dir(bench.at("a")).unwrap();
    fs::write(bench.at("a/below"), "1").unwrap();
    let mounted = Mounted(bench.at("a"));
    if let Err(error) = rustix::mount::mount("x", &mounted.0, "tmpfs", MountFlags::empty(), None) {
        return println!("skipped: no permission to mount: {error}");
    }
    fs::write(bench.at("a/above"), "1").unwrap();
    let root = bench.root();
    bench.queue[bench.id].watch_tree(&root, 1).unwrap();
    common::walk(&root, &mut bench.told);
    drop(mounted);
    let below = bench.at("a/below");
    bench.until(|change| change.path == below);
    File::create(bench.at("a/new")).unwrap();
    bench.settle();
    bench.is_as_on_disk();
}

#[test]
fn detached_watcher_goes_on_in_another_queue() {
    let (mut bench, token) = Bench::with_tree();
    let watcher = bench.queue.detach(bench.id).unwrap();
    File::create(bench.at("file")).unwrap();
    bench.stays_silent();
    bench.id = bench.queue.attach(watcher, |change| change).unwrap();
    assert_eq!(bench.until(|_| true)[0].token, token);
}

#[test]
fn unwatch_takes_back_what_waits_for_room_in_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = kevent_core::Queue::with_capacity(1.try_into().unwrap()).unwrap();
    let id = queue.attach(Watcher::new().unwrap(), |change| change).unwrap();
    let token = queue[id].watch_tree(dir.path(), 1).unwrap();
    for name in ["a", "b", "c"] {
        File::create(dir.path().join(name)).unwrap();
    }
    queue.wait(None).unwrap();
    assert!(queue[id].unwatch(token));
    assert_eq!(queue.next(), None);
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 0, "nothing else went into the ring");
}

/// A new directory is scanned when another one stands in its place, which is gone before anything
/// tells of it. A ring of one event lets the test act in between.
#[test]
fn directory_mistaken_for_another_is_found_out_when_its_move_is_told() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    let mut queue = kevent_core::Queue::with_capacity(1.try_into().unwrap()).unwrap();
    let id = queue.attach(Watcher::new().unwrap(), |change| change).unwrap();
    queue[id].watch_tree(dir.path(), 1).unwrap();
    fs::create_dir(outside.path().join("stranger")).unwrap();
    fs::create_dir(at("a")).unwrap();
    fs::rename(at("a"), at("b")).unwrap();
    fs::rename(outside.path().join("stranger"), at("a")).unwrap();
    queue.wait(None).unwrap();
    fs::rename(at("a"), outside.path().join("stranger")).unwrap();
    File::create(at("end")).unwrap();
    while queue.next().is_none_or(|change| change.path != at("end")) {
        queue.wait(None).unwrap();
    }
    File::create(outside.path().join("stranger/not-in-b")).unwrap();
    File::create(at("b/file")).unwrap();
    let told = loop {
        queue.wait(None).unwrap();
        match queue.next() {
            Some(change) if change.kind == ChangeKind::Created => break change.path,
            _ => {}
        }
    };
    assert_eq!(told, at("b/file"));
    assert_eq!(queue[id].watches(), 2);
}

/// As before, one level deeper: what stands in the place is the directory above. No event tells of the
/// new directory then, so the look at it has to find out by itself.
#[test]
fn directory_below_another_that_took_its_place_is_not_mistaken() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    let stranger = outside.path().join("stranger");
    let mut queue = kevent_core::Queue::with_capacity(1.try_into().unwrap()).unwrap();
    let id = queue.attach(Watcher::new().unwrap(), |change| change).unwrap();
    fs::create_dir(at("a")).unwrap();
    fs::create_dir_all(stranger.join("b")).unwrap();
    queue[id].watch_tree(dir.path(), 1).unwrap();
    fs::create_dir(at("a/b")).unwrap();
    fs::rename(at("a"), at("z")).unwrap();
    fs::rename(&stranger, at("a")).unwrap();
    queue.wait(None).unwrap();
    fs::rename(at("a"), &stranger).unwrap();
    File::create(at("end")).unwrap();
    while queue.next().is_none_or(|change| change.path != at("end")) {
        queue.wait(None).unwrap();
    }
    File::create(stranger.join("b/not told")).unwrap();
    File::create(at("z/b/file")).unwrap();
    let told = loop {
        queue.wait(None).unwrap();
        match queue.next() {
            Some(change) if change.kind == ChangeKind::Created => break change.path,
            _ => {}
        }
    };
    assert_eq!(told, at("z/b/file"));
    assert_eq!(queue[id].watches(), 3);
}

#[test]
fn replaced_name_is_not_looked_for_in_the_directory_that_took_the_place_of_its_own() {
    let (mut bench, _) = Bench::with_tree();
    for name in ["a", "b"] {
        fs::create_dir(bench.at(name)).unwrap();
        fs::write(bench.at(name).join("f"), "").unwrap();
    }
    fs::write(bench.at("a/g"), "").unwrap();
    bench.settle();
    fs::rename(bench.at("a/f"), bench.at("a/g")).unwrap();
    fs::rename(bench.at("a"), bench.at("z")).unwrap();
    fs::rename(bench.at("b"), bench.at("a")).unwrap();
    let happened = bench.happened();
    bench.is_as_on_disk();
    assert!(!happened.iter().any(|words| words.contains("z/f")), "{happened:?}");
}

#[test]
fn registration_whose_end_was_in_the_ring_is_gone_when_the_watcher_is_detached() {
    let (mut bench, token) = Bench::with_tree();
    fs::remove_dir(bench.root()).unwrap();
    assert_eq!(bench.queue.wait(std::time::Duration::from_secs(20)).unwrap(), 1);
    let mut watcher = bench.queue.detach(bench.id).unwrap();
    assert!(!watcher.unwatch(token), "its last change was lost, and it stands for ever");
}

#[test]
fn who_wants_content_only_is_told_of_files_that_come_with_it() {
    for kinds in [Kinds::MODIFIED, Kinds::WRITTEN] {
        let mut bench = Bench::new(Watcher::new().unwrap().with_kinds(kinds));
        let root = bench.root();
        bench.queue[bench.id].watch_tree(root, 1).unwrap();
        fs::create_dir(bench.outside("a")).unwrap();
        fs::write(bench.outside("a/full"), "1").unwrap();
        fs::write(bench.outside("a/empty"), "").unwrap();
        fs::rename(bench.outside("a"), bench.at("a")).unwrap();
        let taken = bench.until(|_| true);
        let words: Vec<_> = taken.iter().map(|change| bench.in_words(change)).collect();
        assert_eq!(words, ["Modified root/a/full"]);
        bench.stays_silent();
    }
}

#[test]
fn burst_is_gathered_and_wakes_nobody_meanwhile() {
    let time = std::time::Duration::from_millis(300);
    let watcher = Watcher::new().unwrap().with_kinds(Kinds::CREATED).with_gather_time(time);
    let mut bench = Bench::new(watcher);
    let root = bench.root();
    bench.queue[bench.id].watch_tree(&root, 1).unwrap();
    bench.stays_silent();
    for round in 0..2 {
        let polls = bench.queue.stats().polls;
        File::create(bench.at(&format!("{round}.first"))).unwrap();
        // The watcher learns of the first one, and does not tell it yet.
        while bench.queue.stats().polls == polls {
            assert_eq!(bench.queue.wait(Wait::poll()).unwrap(), 0);
        }
        let begun = std::time::Instant::now();
        for n in 1..100 {
            File::create(bench.at(&format!("{round}.{n}"))).unwrap();
        }
        bench.queue.wait(Wait::timeout(std::time::Duration::from_secs(20))).unwrap();
        // The time had begun a moment before the clock was asked here.
        assert!(begun.elapsed() > time / 2, "it was read after {:?}", begun.elapsed());
        assert_eq!(std::iter::from_fn(|| bench.queue.next()).count(), 100);
        let polls = bench.queue.stats().polls - polls;
        assert!(polls <= 3, "the kernel was asked {polls} times");
    }
    bench.stays_silent();
}

#[test]
fn rename_is_one_change_also_when_it_is_gathered() {
    let time = std::time::Duration::from_millis(5);
    let mut bench = Bench::new(Watcher::new().unwrap().with_gather_time(time));
    let root = bench.root();
    bench.queue[bench.id].watch_tree(root, 1).unwrap();
    fs::write(bench.at("0"), "1").unwrap();
    bench.settle();
    for n in 0..200 {
        fs::rename(bench.at(&n.to_string()), bench.at(&(n + 1).to_string())).unwrap();
    }
    let happened = bench.happened();
    assert_eq!(happened.len(), 200);
    assert!(happened.iter().all(|words| words.starts_with("Moved")), "{happened:?}");
}
