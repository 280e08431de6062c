//! File systems that are full, and users who have had their share: what was written is told, and what
//! was not.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{Bench, honest};
use kevent_aio::{Completion, Fallocate, Fsync, Op, Open, Write, WriteVectored};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A small file system, unmounted when it is dropped.
struct Mounted(TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// One in memory; `None` where none can be mounted.
fn in_memory(options: &str) -> Option<Mounted> {
    let point = tempfile::tempdir().unwrap();
    let data = std::ffi::CString::new(options).unwrap();
    match mount("kevent-full", point.path(), "tmpfs", MountFlags::empty(), Some(data.as_c_str())) {
        Ok(()) => Some(Mounted(point)),
        Err(error) => {
            println!("skipped: tmpfs with {options} can't be mounted here: {error}");
            None
        }
    }
}

/// One as on a disk: ext4, of which blocks are promised at write(2) and taken later.
fn on_disk() -> Option<Mounted> {
    let (image, point) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
    image.as_file().set_len(4 << 20).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg(image.path());
        if program == "mount" {
            command.arg(point.path());
        }
        command.output().is_ok_and(|output| output.status.success())
    };
    // The loop device keeps the image when its name is gone.
    if run("mkfs.ext4", &["-q", "-F"]) && run("mount", &["-o", "loop"]) {
        return Some(Mounted(point));
    }
    println!("skipped: no file system in a file can be made and mounted here");
    None
}

fn errno(completion: &Completion) -> Option<i32> {
    completion.result.as_ref().err().and_then(std::io::Error::raw_os_error)
}

fn create(bench: &mut Bench, path: &Path) -> Arc<File> {
    let mut made = bench.complete(Open::new(path).read_write().create(0o600));
    let Op::Open(open) = &mut *made.op else { panic!() };
    Arc::new(File::from(open.take().unwrap()))
}

/// Writes, 16 at a time, until nothing more is taken; every byte that was told is there, and when there
/// is room again it goes on.
fn fill(folder: &Path, full: i32) {
    const PIECE: u64 = 50_000;
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let path = folder.join(name);
        let file = create(&mut bench, &path);
        let (mut counts, mut refused) = (Vec::new(), 0);
        while refused == 0 {
            let first = counts.len() as u64;
            for key in first..first + 16 {
                let bytes = vec![key as u8 + 1; PIECE as usize];
                bench.submit(Write::new(file.clone(), key * PIECE, bytes), key);
            }
            counts.resize(counts.len() + 16, 0);
            for _ in 0..16 {
                let completion = bench.next();
                match &completion.result {
                    Ok(count) => counts[completion.key as usize] = *count,
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(full), "{name}: {error}");
                        refused += 1;
                    }
                }
            }
            assert!(counts.len() < 2000, "{name}: it is never full");
        }
        // Beside it, too.
        let more = vec![vec![1; PIECE as usize]; 100];
        let completion = bench.complete(WriteVectored::new(file.clone(), 1 << 30, more));
        assert!(
            errno(&completion) == Some(full) || completion.result.is_ok_and(|n| n < PIECE * 100)
        );
        let completion = bench.complete(Fallocate::new(file.clone(), 0, 1 << 30));
        assert_eq!(errno(&completion), Some(full), "{name}");
        bench.complete(Fsync::new(file.clone())).result.unwrap();
        for (key, count) in counts.iter().enumerate() {
            let mut there = vec![0; *count as usize];
            file.read_exact_at(&mut there, key as u64 * PIECE).unwrap();
            assert!(there.iter().all(|byte| *byte == key as u8 + 1), "{name}: piece {key}");
        }
        file.set_len(0).unwrap();
        bench.complete(Fsync::new(file.clone())).result.unwrap();
        let completion = bench.complete(Write::new(file, 0, vec![1; PIECE as usize]));
        assert_eq!(completion.result.unwrap(), PIECE, "{name}: there is room again");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn full_file_system_in_memory_keeps_what_was_told() {
    let Some(mounted) = in_memory("size=2m") else { return };
    fill(mounted.0.path(), libc::ENOSPC);
}

#[test]
fn full_file_system_on_a_disk_keeps_what_was_told() {
    let Some(mounted) = on_disk() else { return };
    fill(mounted.0.path(), libc::ENOSPC);
}

#[test]
fn file_system_without_room_for_names_refuses_new_ones_only() {
    let Some(mounted) = in_memory("size=2m,nr_inodes=5") else { return };
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let paths = (0..10).map(|key| mounted.0.path().join(format!("{name}{key}")));
        let made: Vec<_> = paths
            .map(|path| bench.complete(Open::new(path).read_write().create(0o600)))
            .map(|completion| errno(&completion))
            .collect();
        assert_eq!(made, [[None; 4].as_slice(), &[Some(libc::ENOSPC); 6]].concat(), "{name}");
        for key in 0..4 {
            fs::remove_file(mounted.0.path().join(format!("{name}{key}"))).unwrap();
        }
    }
}

/// Quotas don't hold for root.
#[test]
fn user_who_has_had_his_share_is_told_so() {
    let Some(mounted) = in_memory("size=8m,usrquota_block_hardlimit=1m") else { return };
    fs::set_permissions(mounted.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(&program);
    command.args(["--exact", "case_quota", "--nocapture", "--ignored"]).uid(65534).gid(65534);
    match command.current_dir(mounted.0.path()).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => println!("skipped: {} as another user: {error}", program.display()),
    }
}

#[test]
#[ignore = "is run by the test above, as another user"]
fn case_quota() {
    fill(&std::env::current_dir().unwrap(), libc::EDQUOT);
}
