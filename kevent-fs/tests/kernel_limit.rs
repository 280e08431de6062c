//! The kernel has no more watches: those of the user, not those that the watcher was allowed.
//!
//! A limit for the whole machine would disturb the other tests. A user namespace has one of its own,
//! so the test runs itself again in one.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use common::Bench;
use kevent_fs::Watcher;

const INSIDE: &str = "KEVENT_TEST_KERNEL_LIMIT";

const LIMIT: &str = "/proc/sys/user/max_inotify_watches";

/// Runs the test of that name in a user namespace in which there are three watches. `false` when it
/// runs in there already.
fn runs_in_a_namespace(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let script = format!("echo 3 > {LIMIT} || exit 77; exec \"$0\" --exact \"$1\" --nocapture");
    let program = std::env::current_exe().unwrap();
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script])
        .args([program.as_os_str(), name.as_ref()])
        .env(INSIDE, "1")
        .output();
    match done {
        Ok(done) if done.status.success() => {}
        Ok(done) if done.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&done.stderr))
        }
        Ok(done) => println!("skipped: {}", String::from_utf8_lossy(&done.stderr)),
        Err(error) => println!("skipped: no unshare(1): {error}"),
    }
    true
}

#[test]
fn directories_beyond_the_kernels_limit_are_told_and_covered_when_watches_get_free() {
    if runs_in_a_namespace(
        "directories_beyond_the_kernels_limit_are_told_and_covered_when_watches_get_free",
    ) {
        return;
    }
    let (mut bench, _) = Bench::with_tree();
    for name in ["a", "b", "c"] {
        fs::create_dir(bench.at(name)).unwrap();
    }
    let happened = bench.happened();
    assert!(happened.contains(&"NotCovered root/c/ Limit".to_owned()), "{happened:?}");
    assert_eq!(bench.queue[bench.id].watches(), 3);
    // What is covered is watched, what is not is silent.
    for name in ["a", "b", "c"] {
        fs::write(bench.at(name).join("file"), "").unwrap();
    }
    let happened = bench.happened();
    assert!(happened.contains(&"Created root/b/file".to_owned()), "{happened:?}");
    assert!(!happened.iter().any(|words| words.contains("root/c/file")), "{happened:?}");

    fs::remove_dir_all(bench.at("a")).unwrap();
    let resynced = |change: &kevent_fs::Change| change.kind == kevent_fs::ChangeKind::Resynced;
    let taken = bench.until(resynced);
    let words: Vec<_> = taken.iter().map(|change| bench.in_words(change)).collect();
    assert!(
        words.ends_with(&["Created root/c/file".into(), "Resynced root/c/".into()]),
        "{words:?}"
    );
    bench.is_as_on_disk();
}

#[test]
fn root_beyond_the_kernels_limit_is_an_error_that_says_so() {
    if runs_in_a_namespace("root_beyond_the_kernels_limit_is_an_error_that_says_so") {
        return;
    }
    let mut bench = Bench::new(Watcher::new().unwrap());
    for name in ["a", "b", "c", "d"] {
        fs::create_dir(bench.at(name)).unwrap();
    }
    let (a, b, c, d) = (bench.at("a"), bench.at("b"), bench.at("c"), bench.at("d"));
    let watcher = &mut bench.queue[bench.id];
    let tokens = [a, b, c].map(|path| watcher.watch(path, 1).unwrap());
    let error = watcher.watch(&d, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.to_string().contains(d.to_str().unwrap()), "{error}");
    assert!(watcher.unwatch(tokens[0]));
    watcher.watch(&d, 1).unwrap();
}
