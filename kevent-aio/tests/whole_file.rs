//! What is done to whole files, on every backend and on real file systems.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::files::{errno, file_systems, file_with, open_dir, refused, wait_until};
use common::{Bench, PATIENCE, all, engines, honest};
use kevent_aio::{Advice, Advise, Builder, Cancel, CopyRange, Op, Reflink, Truncate, Way};
use proptest::prelude::*;
use tempfile::TempDir;

#[test]
fn length_of_a_file_is_what_std_makes_it() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let ours = file_with(&temporary.path().join("ours"), b"content");
            let theirs = file_with(&temporary.path().join("theirs"), b"content");
            for len in [3, 10_000, 1 << 40, 0, 7] {
                bench.insist(|| Truncate::new(ours.clone(), len).into()).result.unwrap();
                theirs.set_len(len).unwrap();
                let stat = |file: &File| file.metadata().map(|m| (m.len(), m.blocks())).unwrap();
                assert_eq!(stat(&ours), stat(&theirs), "{name}: {len}");
            }
            assert_eq!(fs::read(temporary.path().join("ours")).unwrap(), [0; 7], "{name}");
            let fallbacks = bench.aio().report().counters.fallbacks;
            assert_eq!(fallbacks, 0, "{name}: the ring was told what was meant");
        }
    }
}

#[test]
fn length_that_can_not_be_is_the_error_of_std() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = temporary.path().join("file");
        let file = file_with(&path, b"content");
        let read_only = Arc::new(File::open(&path).unwrap());
        for (file, len) in
            [(read_only, 1), (open_dir(&temporary), 1), (file.clone(), i64::MAX as u64)]
        {
            let completion = bench.insist(|| Truncate::new(file.clone(), len).into());
            assert_eq!(errno(completion.result), errno(file.set_len(len)), "{name}");
        }
        assert!(refused(&mut bench, Truncate::new(file, 1 << 63)).contains("2^63"), "{name}");
        assert_eq!(fs::read(path).unwrap(), b"content", "{name}");
    }
}

const SIZE: u64 = 16 << 20;

/// A file of that size, and how much of it is in the page cache.
struct Cached {
    bench: Bench,
    file: Arc<File>,
    path: PathBuf,
    _dir: TempDir,
}

impl Cached {
    /// All of it is.
    fn new(builder: Builder) -> Option<Cached> {
        let bench = Bench::new(builder);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("file");
        let file = file_with(&path, &vec![7; SIZE as usize]);
        file.sync_all().unwrap();
        let cached = Cached { bench, file, path, _dir: dir };
        if cached.bytes() != Some(SIZE) {
            println!("skipped: no fincore, or a file system without page cache");
            return None;
        }
        Some(cached)
    }

    /// How many bytes are, as fincore(1) finds without changing it.
    fn bytes(&self) -> Option<u64> {
        let mut fincore = Command::new("fincore");
        let output = fincore.args(["-b", "-n", "-o", "RES"]).arg(&self.path).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }

    fn advise(&mut self, how: impl FnOnce(Advise) -> Advise, advice: Advice) -> Way {
        let completion = self.bench.complete(how(Advise::new(self.file.clone(), advice)));
        assert_eq!(completion.result.unwrap(), 0);
        completion.way
    }

    /// None is from here on. Pages that are being read do not leave before that is done.
    fn empty(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.bytes() != Some(0) {
            assert!(Instant::now() < deadline, "they do not leave");
            self.advise(|whole| whole, Advice::DontNeed);
        }
    }
}

#[test]
fn what_is_not_needed_leaves_the_page_cache() {
    for mut cached in engines().into_iter().filter_map(Cached::new) {
        cached.advise(|none| none.range(65_536, 0), Advice::DontNeed);
        assert_eq!(cached.bytes(), Some(SIZE), "no bytes are not the rest of the file");
        cached.advise(|half| half.range(SIZE / 2, SIZE / 2), Advice::DontNeed);
        // The kernel keeps pages in pieces of some MiB, and one that is needed in part it keeps whole.
        let left = cached.bytes().unwrap();
        assert!((SIZE / 2..SIZE).contains(&left), "{left}");
        cached.advise(|whole| whole, Advice::DontNeed);
        assert_eq!(cached.bytes(), Some(0));
        assert_eq!(cached.bench.aio().report().counters.fallbacks, 0);
    }
}

#[test]
fn what_will_be_needed_comes_into_the_page_cache() {
    for mut cached in engines().into_iter().filter_map(Cached::new) {
        cached.empty();
        cached.advise(|beyond| beyond.range(SIZE, 1 << 20), Advice::WillNeed);
        assert_eq!(cached.bytes(), Some(0), "nothing is beyond the end");
        // To the pool goes what is more than the ring can be told; in 32 bits that would be 1.
        for range in [SIZE / 2, (1 << 32) + 1] {
            cached.empty();
            cached.advise(|part| part.range(SIZE / 2, range), Advice::WillNeed);
            wait_until(|| cached.bytes() >= Some(65_536), "the file is read ahead");
        }
        assert_eq!(cached.bench.aio().report().counters.fallbacks, 0);
    }
}

#[test]
fn marks_are_made_at_once_and_change_what_is_read_ahead() {
    for mut cached in engines().into_iter().filter_map(Cached::new) {
        let [normal, random] = [Advice::Normal, Advice::Random].map(|mark| {
            cached.empty();
            assert_eq!(cached.advise(|whole| whole, mark), Way::Inline);
            FileExt::read_at(&*cached.file, &mut [0], 0).unwrap();
            cached.bytes().unwrap()
        });
        assert!(random < normal, "{random} of {normal} bytes came along all the same");
        for mark in [Advice::Sequential, Advice::NoReuse] {
            assert_eq!(cached.advise(|whole| whole, mark), Way::Inline, "{mark:?}");
        }
    }
}

#[test]
fn advice_to_what_takes_none_is_an_error() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let pipe = Command::new("true").stdout(std::process::Stdio::piped()).spawn();
        let pipe: kevent_aio::Fd = Arc::new(pipe.unwrap().stdout.take().unwrap());
        for advice in [Advice::Random, Advice::WillNeed] {
            let completion = bench.complete(Advise::new(pipe.clone(), advice));
            assert_eq!(errno(completion.result), Some(libc::ESPIPE), "{name}: {advice:?}");
        }
        let beyond = Advise::new(pipe, Advice::WillNeed).range(1, u64::MAX);
        assert!(refused(&mut bench, beyond).contains("2^63"), "{name}");
    }
}

/// Bytes that tell where they are.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Copies until it is done: what fails for no reason is submitted again, and goes on.
fn copy(bench: &mut Bench, copy: CopyRange) -> io::Result<u64> {
    let mut op = Op::from(copy);
    for _ in 0..200 {
        let completion = bench.complete(op);
        let Op::CopyRange(copy) = completion.op else { panic!("it was submitted") };
        match completion.result.as_ref().map_err(|e| e.raw_os_error()) {
            Err(Some(libc::EIO | libc::EAGAIN)) => op = copy.into(),
            Ok(count) => {
                assert_eq!(*count, copy.copied());
                return completion.result;
            }
            _ => return completion.result,
        }
    }
    panic!("200 times bad luck");
}

/// A source in one directory and a target in another, for all pairs of file systems.
fn source_and_target(disk: &TempDir, memory: Option<&TempDir>) -> Vec<[PathBuf; 2]> {
    let all: Vec<_> = [Some(disk), memory].into_iter().flatten().map(TempDir::path).collect();
    let pairs = all.iter().flat_map(|a| all.iter().map(|b| [a.join("source"), b.join("target")]));
    pairs.collect()
}

#[test]
fn whole_files_and_ranges_are_copied_and_nothing_beside_them() {
    let systems = file_systems();
    let content = pattern(20_000_000);
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for [from, to] in source_and_target(&systems[0], systems.get(1)) {
            let what = format!("{name}: {} to {}", from.display(), to.display());
            let source = file_with(&from, &content);
            let target = file_with(&to, &[]);
            let whole = CopyRange::new(source.clone(), 0, target.clone(), 0);
            assert_eq!(copy(&mut bench, whole).unwrap(), 20_000_000, "{what}");
            assert!(fs::read(&to).unwrap() == content, "{what}");
            let target = file_with(&to, &[b'.'; 10_000]);
            let range = CopyRange::new(source.clone(), 1_000, target.clone(), 500).up_to(3_000);
            assert_eq!(copy(&mut bench, range).unwrap(), 3_000, "{what}");
            let mut expected = vec![b'.'; 10_000];
            expected[500..3_500].copy_from_slice(&content[1_000..4_000]);
            assert!(fs::read(&to).unwrap() == expected, "{what}: a range");
            let nothing = CopyRange::new(source, 0, target, 0).up_to(0);
            assert_eq!(copy(&mut bench, nothing).unwrap(), 0, "{what}");
            assert!(fs::read(&to).unwrap() == expected, "{what}: nothing");
        }
    }
}

#[test]
fn copy_ends_where_the_source_ends() {
    let systems = file_systems();
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for [from, to] in source_and_target(&systems[0], systems.get(1)) {
            let source = file_with(&from, b"0123456789");
            let target = file_with(&to, b"");
            let mut range = |at, len| {
                let range = CopyRange::new(source.clone(), at, target.clone(), 0).up_to(len);
                copy(&mut bench, range).unwrap()
            };
            assert_eq!(range(10, 5), 0, "{name}: at the end");
            assert_eq!(range(1 << 40, 5), 0, "{name}: far beyond it");
            assert_eq!(target.metadata().unwrap().len(), 0, "{name}");
            assert_eq!(range(6, 1 << 40), 4, "{name}: across it");
            assert_eq!(fs::read(&to).unwrap(), b"6789", "{name}");
        }
    }
}

#[test]
fn holes_read_as_zeros_in_the_copy() {
    let systems = file_systems();
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for [from, to] in source_and_target(&systems[0], systems.get(1)) {
            let source = file_with(&from, &[]);
            for island in [0, 9_000_000, 17_000_123] {
                FileExt::write_all_at(&*source, b"island", island).unwrap();
            }
            source.set_len(18_000_000).unwrap();
            // What was there before is to go.
            let target = file_with(&to, &[b'x'; 1000]);
            let copied = copy(&mut bench, CopyRange::new(source, 0, target, 0)).unwrap();
            assert_eq!(copied, 18_000_000, "{name}");
            assert!(fs::read(from).unwrap() == fs::read(to).unwrap(), "{name}");
        }
    }
}

#[test]
fn files_without_a_length_are_copied_too() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let path = temporary.path().join("target");
            let target = file_with(&path, b"");
            let procfs = open_dir("/proc/filesystems");
            let content = fs::read("/proc/filesystems").unwrap();
            assert!(content.len() > 20);
            let whole = CopyRange::new(procfs.clone(), 0, target.clone(), 0);
            assert_eq!(copy(&mut bench, whole).unwrap(), content.len() as u64, "{name}");
            assert!(fs::read(&path).unwrap() == content, "{name}");
            let range = CopyRange::new(procfs, 3, target.clone(), 0).up_to(10);
            assert_eq!(copy(&mut bench, range).unwrap(), 10, "{name}");
            assert!(fs::read(&path).unwrap().starts_with(&content[3..13]), "{name}");
            let zeros = CopyRange::new(open_dir("/dev/zero"), 0, target, 0).up_to(300_001);
            assert_eq!(copy(&mut bench, zeros).unwrap(), 300_001, "{name}");
            assert!(fs::read(&path).unwrap() == vec![0; 300_001], "{name}");
        }
    }
}

#[test]
fn within_one_file_ranges_are_apart_or_refused() {
    const MIB: u64 = 1 << 20;
    let content = pattern(20 << 20);
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let path = temporary.path().join("file");
            let file = file_with(&path, &content);
            // Through an open file of its own: that it is the same is not seen in the descriptor.
            let again = open_dir(&path);
            let mut within = |from, to, len| {
                copy(&mut bench, CopyRange::new(again.clone(), from, file.clone(), to).up_to(len))
            };
            // Some overlap although no 8 MiB of them do.
            for (from, to) in [(0, 5), (0, 10 * MIB), (5 * MIB, 0), (7, 7)] {
                assert_eq!(errno(within(from, to, 12 * MIB)), Some(libc::EINVAL), "{name}");
            }
            assert!(fs::read(&path).unwrap() == content, "{name}: nothing has happened");
            assert_eq!(within(0, 10 * MIB, 10 * MIB).unwrap(), 10 * MIB, "{name}: side by side");
            let halves = fs::read(&path).unwrap();
            assert!(halves[..10 << 20] == content[..10 << 20], "{name}");
            assert!(halves[10 << 20..] == content[..10 << 20], "{name}");
            let doubled = within(0, 20 * MIB, 1 << 50).unwrap();
            assert_eq!(doubled, 20 * MIB, "{name}: up to where its end was, and not for ever");
            assert_eq!(file.metadata().unwrap().len(), 40 * MIB, "{name}");
        }
    }
}

#[test]
fn copy_that_can_not_be_is_an_error_and_harms_nothing() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let path = temporary.path().join("target");
            let source = file_with(&temporary.path().join("source"), b"source");
            let target = file_with(&path, b"target");
            let appends = Arc::new(File::options().append(true).open(&path).unwrap());
            let write_only = Arc::new(File::options().write(true).open(&path).unwrap());
            let mut fails = |from: &Arc<File>, to: &Arc<File>| {
                errno(copy(&mut bench, CopyRange::new(from.clone(), 0, to.clone(), 0).up_to(9)))
            };
            assert_eq!(fails(&source, &appends), Some(libc::EBADF), "{name}");
            // By reading and writing.
            let unlike = ["/proc/filesystems", "/dev/zero"].map(open_dir);
            for from in &unlike {
                assert_eq!(fails(from, &appends), Some(libc::EBADF), "{name}");
                assert_eq!(fails(from, &open_dir(&path)), Some(libc::EBADF), "{name}");
            }
            assert_eq!(fails(&source, &open_dir(&path)), Some(libc::EBADF), "{name}");
            assert_eq!(fails(&write_only, &source), Some(libc::EBADF), "{name}");
            let dir = open_dir(&temporary);
            assert_eq!(fails(&dir, &target), Some(libc::EISDIR), "{name}");
            let full = Arc::new(File::options().write(true).open("/dev/full").unwrap());
            assert_eq!(fails(&source, &full), Some(libc::ENOSPC), "{name}");
            assert_eq!(fs::read(&path).unwrap(), b"target", "{name}");
            let beyond = CopyRange::new(source, 1, target, 0).up_to(1 << 63);
            assert!(refused(&mut bench, beyond).contains("2^63"), "{name}");
        }
    }
}

/// How long files may be, if the file system says so below where numbers end.
fn longest(file: &File) -> Option<u64> {
    let (mut fits, mut fails) = (0, 1 << 62);
    if file.set_len(fails).is_ok() {
        return None;
    }
    while fails - fits > 1 {
        let middle = fits + (fails - fits) / 2;
        if file.set_len(middle).is_ok() { fits = middle } else { fails = middle }
    }
    file.set_len(0).unwrap();
    Some(fits)
}

#[test]
fn copy_that_fails_on_its_way_says_how_far_it_came() {
    let systems = file_systems();
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        for [from, to] in source_and_target(&systems[0], systems.get(1)) {
            let source = file_with(&from, &pattern(3 << 20));
            let target = file_with(&to, &[]);
            let Some(longest) = longest(&target) else {
                println!("skipped: {name}: files know no bounds on {}", to.display());
                continue;
            };
            let start = longest - 1_000_000;
            let completion = bench.complete(CopyRange::new(source, 0, target.clone(), start));
            let Op::CopyRange(copy) = &completion.op else { panic!() };
            let copied = copy.copied();
            assert_eq!(errno(completion.result), Some(libc::EFBIG), "{name}");
            assert_eq!(copied, 1_000_000, "{name}");
            let mut arrived = vec![0; 1_000_000];
            FileExt::read_exact_at(&*target, &mut arrived, start).unwrap();
            assert!(arrived == pattern(1_000_000), "{name}");
        }
    }
}

#[test]
fn cancelled_copy_knows_how_far_it_came_and_can_go_on() {
    let systems = file_systems();
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        for [from, to] in source_and_target(&systems[0], systems.get(1)) {
            // So long that nobody waits for its end.
            let source = file_with(&from, &[]);
            source.set_len(1 << 40).unwrap();
            let target = file_with(&to, &[]);
            let length = || target.metadata().unwrap().len();
            let token = bench.submit(CopyRange::new(source.clone(), 0, target.clone(), 0), 1);
            let deadline = Instant::now() + PATIENCE;
            let seen = loop {
                let seen = length();
                if seen >= 20_000_000 {
                    break seen;
                }
                assert!(Instant::now() < deadline, "{name}: it does not come on");
                bench.turn();
            };
            assert_eq!(bench.aio().cancel(token), Cancel::Requested);
            let completion = bench.next();
            assert!(completion.was_cancelled(), "{name}");
            assert_eq!(errno(completion.result), Some(libc::ECANCELED), "{name}");
            let Op::CopyRange(copy) = completion.op else { panic!() };
            let copied = copy.copied();
            assert!(copied <= seen + (8 << 20), "{name}: {copied}, which was {seen} before");
            assert_eq!(length(), copied, "{name}: it is said how much there is");
            // It goes on to the end of the source, and on again when that has grown.
            let mut op = Op::from(copy);
            for end in [copied + 1000, copied + 2000] {
                source.set_len(end).unwrap();
                let completion = bench.complete(op);
                assert_eq!(completion.result.unwrap(), end, "{name}");
                assert_eq!(length(), end, "{name}");
                op = completion.op;
            }
        }
    }
}

#[test]
fn late_copy_ends_with_its_count() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let source = file_with(&temporary.path().join("source"), &[]);
        source.set_len(1 << 40).unwrap();
        let target = file_with(&temporary.path().join("target"), &[]);
        let copy = CopyRange::new(source, 0, target.clone(), 0);
        let deadline = Instant::now() + Duration::from_millis(20);
        bench.aio().submit_until(copy, 1, deadline).unwrap();
        let completion = bench.next();
        assert_eq!(completion.result.unwrap_err().kind(), io::ErrorKind::TimedOut, "{name}");
        let Op::CopyRange(copy) = completion.op else { panic!() };
        assert_eq!(target.metadata().unwrap().len(), copy.copied(), "{name}");
    }
}

/// A new file system in a file, of a kind whose files can share data; its root, held by `root` only.
struct Sharing {
    root: File,
    _image: tempfile::NamedTempFile,
}

impl Sharing {
    /// Makes and mounts it with the tools of the system, as far as those are there.
    fn new(kind: &str) -> Option<Sharing> {
        let image = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        image.as_file().set_len(512 << 20).unwrap();
        let mount_point = tempfile::tempdir().unwrap();
        let run = |command: &mut Command| match command.output() {
            Ok(output) if output.status.success() => true,
            Ok(output) => {
                println!("skipped: {kind}: {}", String::from_utf8_lossy(&output.stderr));
                false
            }
            Err(error) => {
                println!("skipped: {kind}: {:?}: {error}", command.get_program());
                false
            }
        };
        let made = run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(image.path()))
            && run(Command::new("mount")
                .args(["-o", "loop"])
                .args([image.path(), mount_point.path()]));
        if !made {
            return None;
        }
        let root = File::open(mount_point.path()).unwrap();
        // Nobody finds it any more, and it goes with the last descriptor, however the test ends.
        assert!(run(Command::new("umount").arg("--lazy").arg(mount_point.path())));
        Some(Sharing { root, _image: image })
    }

    /// A path to it, also for other processes.
    fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.root.as_raw_fd()).into()
    }
}

#[test]
fn reflink_shares_all_or_whole_blocks_and_takes_no_space() {
    const BLOCKS: usize = 1 << 20;
    for sharing in ["btrfs", "xfs"].into_iter().filter_map(Sharing::new) {
        let content = pattern(20 * BLOCKS + 7);
        let free = || {
            let output = Command::new("stat")
                .args(["-f", "-c", "%f"])
                .arg(sharing.path().join("."))
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap().trim().parse::<u64>().unwrap()
        };
        for (name, builder) in all() {
            let mut bench = Bench::new(builder);
            let source = file_with(&sharing.path().join("source"), &content);
            source.sync_all().unwrap();
            let before = free();
            let path = sharing.path().join("target");
            let target = file_with(&path, &[]);
            let mut share = |reflink: &dyn Fn(Reflink) -> Reflink| {
                let make = || reflink(Reflink::new(source.clone(), target.clone())).into();
                bench.insist(make).result
            };
            share(&|whole| whole).unwrap();
            target.sync_all().unwrap();
            assert!(fs::read(&path).unwrap() == content, "{name}");
            assert!(before.saturating_sub(free()) < 1000, "{name}: blocks of 4 KiB, of 5,120");
            let blocks = BLOCKS as u64;
            share(&|part| part.range(blocks, 3 * blocks, 2 * blocks)).unwrap();
            share(&|part| part.range(blocks, 0, 0)).unwrap();
            let tail = 20 * blocks;
            share(&|part| part.range(tail, tail, 7)).unwrap();
            let mut expected = content.clone();
            expected.copy_within(BLOCKS..3 * BLOCKS, 3 * BLOCKS);
            assert!(fs::read(&path).unwrap() == expected, "{name}: a range, and then nothing");
            let half = share(&|part| part.range(0, 0, 100));
            assert_eq!(errno(half), Some(libc::EINVAL), "{name}: no whole block");
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn where_nothing_is_shared_reflink_says_so() {
    let systems = file_systems();
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for [from, to] in source_and_target(&systems[0], systems.get(1)) {
            let source = file_with(&from, b"source");
            let target = file_with(&to, b"target");
            let make = || Reflink::new(source.clone(), target.clone()).into();
            let across = source.metadata().unwrap().dev() != target.metadata().unwrap().dev();
            match bench.insist(make).result.map_err(|e| e.raw_os_error()) {
                Ok(_) => println!("skipped: {name}: {} can share", from.display()),
                Err(error) => {
                    let expected = if across { libc::EXDEV } else { libc::EOPNOTSUPP };
                    assert_eq!(error, Some(expected), "{name}");
                    assert_eq!(fs::read(&to).unwrap(), b"target", "{name}");
                }
            }
            let beyond = Reflink::new(source, target).range(0, 1 << 62, 1 << 62);
            assert!(refused(&mut bench, beyond).contains("2^63"), "{name}");
        }
    }
}

#[test]
fn copy_where_files_share_is_complete() {
    for sharing in ["btrfs", "xfs"].into_iter().filter_map(Sharing::new) {
        let content = pattern(20_000_000);
        let source = file_with(&sharing.path().join("source"), &content);
        for (name, builder) in honest() {
            let mut bench = Bench::new(builder);
            let path = sharing.path().join("target");
            let whole = CopyRange::new(source.clone(), 0, file_with(&path, &[]), 0);
            assert_eq!(copy(&mut bench, whole).unwrap(), 20_000_000, "{name}");
            assert!(fs::read(&path).unwrap() == content, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_copy_is_what_a_copy_in_memory_is(
        source_len in 0..300_000_usize,
        target_len in 0..300_000_usize,
        from in 0..400_000_usize,
        to in 0..400_000_usize,
        len in prop::option::of(0..400_000_usize),
        across in any::<bool>(),
    ) {
        let systems = file_systems();
        let pairs = source_and_target(&systems[0], systems.get(1));
        let [source_path, target_path] = if across { &pairs[pairs.len() / 2] } else { &pairs[0] };
        let content = pattern(source_len);
        let source = file_with(source_path, &content);
        let mut expected = vec![b'.'; target_len];
        let target = file_with(target_path, &expected);
        let copied = content.get(from..).unwrap_or_default();
        let copied = &copied[..copied.len().min(len.unwrap_or(usize::MAX))];
        if !copied.is_empty() {
            expected.resize(target_len.max(to + copied.len()), 0);
            expected[to..to + copied.len()].copy_from_slice(copied);
        }
        let mut bench = Bench::new(kevent_aio::Aio::builder());
        let range = CopyRange::new(source, from as u64, target, to as u64);
        let range = if let Some(len) = len { range.up_to(len as u64) } else { range };
        prop_assert_eq!(copy(&mut bench, range).unwrap(), copied.len() as u64);
        prop_assert!(fs::read(target_path).unwrap() == expected);
    }
}
