//! Whatever happens to a tree, and however fast: the list of paths that is kept from the changes alone
//! is in the end what is on the disk.

#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)] // The standard library has no word for RENAME_EXCHANGE.

mod common;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::Bench;
use kevent_fs::Watcher;
use proptest::prelude::*;

/// Something done to paths of three short components, the last step of which may fail: the directory
/// may be missing, be full, be a file.
#[derive(Clone, Debug)]
enum Act {
    Write(PathBuf),
    MakeDirs(PathBuf),
    Remove(PathBuf),
    RemoveAll(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
}

/// A path in the root, or now and then beside it. Few names, so that they meet.
fn path() -> impl Strategy<Value = PathBuf> {
    let place = prop_oneof![6 => Just("root"), 1 => Just("outside")];
    (place, prop::collection::vec("[abc]", 1..4)).prop_map(|(place, names)| {
        let mut path = PathBuf::from(place);
        path.extend(names);
        path
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => path().prop_map(Act::Write),
        3 => path().prop_map(Act::MakeDirs),
        1 => path().prop_map(Act::Remove),
        1 => path().prop_map(Act::RemoveAll),
        6 => (path(), path()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (path(), path()).prop_map(|(a, b)| Act::Exchange(a, b)),
    ]
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let [a, b] = [a, b].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
    let here = libc::AT_FDCWD;
    // SAFETY: both paths end with a zero and live through the call.
    let done =
        unsafe { libc::renameat2(here, a.as_ptr(), here, b.as_ptr(), libc::RENAME_EXCHANGE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn perform(dir: &Path, act: &Act) {
    // Failures are part of it.
    let _ = match act {
        Act::Write(path) => fs::write(dir.join(path), "text"),
        Act::MakeDirs(path) => fs::create_dir_all(dir.join(path)),
        Act::Remove(path) => fs::remove_file(dir.join(path)),
        Act::RemoveAll(path) => fs::remove_dir_all(dir.join(path)),
        Act::Rename(from, to) => fs::rename(dir.join(from), dir.join(to)),
        Act::Exchange(a, b) => exchange(&dir.join(a), &dir.join(b)),
    };
}

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

/// That many cases, or as many as `PROPTEST_CASES` says.
fn cases(usual: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usual),
    }
}

proptest! {
    #![proptest_config(cases(40))]

    /// All at once, before anything is read.
    #[test]
    fn changes_read_late_keep_the_list(acts in prop::collection::vec(act(), 1..60)) {
        let (mut bench, _) = Bench::with_tree();
        fs::create_dir(bench.outside("outside")).unwrap();
        acts.iter().for_each(|act| perform(bench.dir.path(), act));
        bench.settle();
        bench.is_as_on_disk();
        is_watched_everywhere(&mut bench);
    }

    /// With fewer watches than directories. What is not covered may be missing from the list, but
    /// nothing contradicts it, and once there are directories enough gone, all is covered.
    #[test]
    fn partial_watch_becomes_a_whole_one_when_there_are_watches_again(
        acts in prop::collection::vec(act(), 1..80),
        at_once in any::<bool>(),
    ) {
        let mut bench = Bench::new(Watcher::new().unwrap().with_watch_limit(4));
        let root = bench.root();
        bench.queue[bench.id].watch_tree(&root, 1).unwrap();
        fs::create_dir(bench.outside("outside")).unwrap();
        for act in &acts {
            perform(bench.dir.path(), act);
            if at_once {
                bench.queue.wait(std::time::Duration::ZERO).unwrap();
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
    fn changes_read_at_once_keep_the_list(acts in prop::collection::vec(act(), 1..1000)) {
        let (mut bench, _) = Bench::with_tree();
        fs::create_dir(bench.outside("outside")).unwrap();
        let dir = bench.dir.path().to_owned();
        let worker =
            std::thread::spawn(move || acts.iter().for_each(|act| perform(&dir, act)));
        while !worker.is_finished() {
            bench.queue.wait(std::time::Duration::from_micros(100)).unwrap();
            while let Some(change) = bench.queue.next() {
                common::apply(&mut bench.told, &change);
            }
        }
        worker.join().unwrap();
        bench.settle();
        bench.is_as_on_disk();
        is_watched_everywhere(&mut bench);
    }
}
