//! Random things done to a tree.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Something done to paths of a few short components, the last step of which may fail: the directory
/// may be missing, be full, be a file.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Write(PathBuf),
    Append(PathBuf),
    MakeDirs(PathBuf),
    Remove(PathBuf),
    RemoveAll(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
}

/// A path in the root, or now and then beside it. Few names, so that they meet.
fn path(depth: usize) -> impl Strategy<Value = PathBuf> {
    let place = prop_oneof![6 => Just("root"), 1 => Just("outside")];
    (place, prop::collection::vec("[abc]", 1..=depth)).prop_map(|(place, names)| {
        let mut path = PathBuf::from(place);
        path.extend(names);
        path
    })
}

pub(crate) fn act(depth: usize) -> impl Strategy<Value = Act> {
    let path = move || path(depth);
    prop_oneof![
        3 => path().prop_map(Act::Write),
        2 => path().prop_map(Act::Append),
        3 => path().prop_map(Act::MakeDirs),
        1 => path().prop_map(Act::Remove),
        1 => path().prop_map(Act::RemoveAll),
        6 => (path(), path()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (path(), path()).prop_map(|(a, b)| Act::Exchange(a, b)),
    ]
}

/// What is written says when, so that no two files are alike and none is as it was.
pub(crate) fn perform(dir: &Path, act: &Act, when: usize) {
    // Failures are part of it.
    let _ = match act {
        Act::Write(path) => fs::write(dir.join(path), when.to_string()),
        Act::Append(path) => append(&dir.join(path), when),
        Act::MakeDirs(path) => fs::create_dir_all(dir.join(path)),
        Act::Remove(path) => fs::remove_file(dir.join(path)),
        Act::RemoveAll(path) => fs::remove_dir_all(dir.join(path)),
        Act::Rename(from, to) => fs::rename(dir.join(from), dir.join(to)),
        Act::Exchange(a, b) => {
            let flags = RenameFlags::EXCHANGE;
            renameat_with(CWD, dir.join(a), CWD, dir.join(b), flags).map_err(io::Error::from)
        }
    };
}

fn append(path: &Path, when: usize) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(format!(",{when}").as_bytes())
}

/// That many cases, or as many as `PROPTEST_CASES` says.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usual),
    }
}
