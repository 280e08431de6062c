//! Files and directories to work on, on real file systems.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kevent_aio::Op;
use tempfile::TempDir;

use super::{Bench, PATIENCE};

/// A directory on each file system that can be had here: the disk's, and one in memory.
pub fn file_systems() -> Vec<TempDir> {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    match tempfile::tempdir_in("/dev/shm") {
        Ok(memory) => vec![disk, memory],
        Err(error) => {
            println!("skipped: /dev/shm: {error}");
            vec![disk]
        }
    }
}

/// Two directories that no rename leads between.
pub fn two_file_systems() -> Option<[TempDir; 2]> {
    let two: [TempDir; 2] = file_systems().try_into().ok()?;
    let dev = |dir: &TempDir| dir.path().metadata().unwrap().dev();
    if dev(&two[0]) == dev(&two[1]) {
        println!("skipped: there is one file system only");
        return None;
    }
    Some(two)
}

pub fn open_dir(path: impl AsRef<Path>) -> Arc<File> {
    Arc::new(File::open(path).unwrap())
}

pub fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

/// What is refused at once, and says why.
pub fn refused(bench: &mut Bench, op: impl Into<Op>) -> String {
    let refused = bench.aio().submit(op, 1).unwrap_err();
    assert_eq!(refused.error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(bench.aio().in_flight(), 0);
    refused.to_string()
}

/// A file that is open for reading and writing.
pub fn file_with(path: &Path, content: &[u8]) -> Arc<File> {
    fs::write(path, content).unwrap();
    Arc::new(File::options().read(true).write(true).open(path).unwrap())
}

pub fn wait_until(come_true: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !come_true() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}
