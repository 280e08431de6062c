//! Chains that programs are made of: copying, replacing, hashing, reading many small files.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::{
    Advice, Aio, Builder, Chain, Condition, Content, Data, Effect, Fd, Link, Mkdir, Op, Open,
    Rename, StepId, StepResult, Stop, Symlink, Transform, Unlink, Value, When, testing,
};

use common::{engines, next, queue};

/// Bytes that a looping step moves at once.
const PIECE: u64 = 128 * 1024;

/// Runs one chain on an engine of its own.
fn run(builder: Builder, chain: Chain) -> (io::Result<u64>, Chain) {
    let (mut queue, aio) = queue(builder);
    queue[aio].submit(chain, 7).unwrap();
    let completion = next(&mut queue);
    (completion.result, into_chain(*completion.op))
}

fn into_chain(op: Op) -> Chain {
    match op {
        Op::Chain(chain) => chain,
        other => panic!("{other:?} was not submitted"),
    }
}

/// Bytes without a pattern that a mistake could keep.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A directory that has one file, `from`.
struct Folder {
    dir: tempfile::TempDir,
    root: Fd,
}

impl Folder {
    fn new(content: &[u8]) -> Folder {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        fs::write(dir.path().join("from"), content).unwrap();
        let root = Arc::new(File::open(dir.path()).unwrap());
        Folder { dir, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> Open {
        Open::new(name).at(self.root.clone())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn unlink(&self, name: &str) -> Unlink {
        Unlink::new(name).at(self.root.clone())
    }

    fn rename(&self, from: &str, to: &str) -> Rename {
        Rename::new(from, to).at(self.root.clone())
    }

    /// How many descriptors are open on its files.
    fn leaks(&self) -> usize {
        let dir = self.dir.path().canonicalize().unwrap();
        let links = fs::read_dir("/proc/self/fd").unwrap();
        links
            .filter_map(|e| fs::read_link(e.ok()?.path()).ok())
            .filter(|link| link.starts_with(&dir) && *link != dir)
            .count()
    }

    /// `from` to `to`, in pieces, by way of a temporary file.
    fn copy(&self) -> Chain {
        let mut chain = Chain::new().cold();
        let from = chain.open(self.open("from"));
        let new = self.open("to.tmp").write_only().create_new(0o600);
        let to = chain.open(new);
        chain.defer(self.unlink("to.tmp"), When::Failed);
        let at = chain.variable(0);
        chain.repeat(1_000_000, |chain| {
            let piece = chain.read(from, at, PIECE);
            chain.stop(piece, Stop::Zero);
            let written = chain.write(to, at, piece);
            chain.add(at, written.count());
        });
        chain.fsync(to);
        chain.close(from);
        chain.close(to);
        chain.operation(self.rename("to.tmp", "to"));
        chain
    }

    /// New content for `from`, in one moment.
    fn replace(&self, content: impl Into<Content>) -> Chain {
        let mut chain = Chain::new();
        let new = self.open("from.tmp").write_only().create_new(0o600);
        let file = chain.open(new);
        chain.defer(self.unlink("from.tmp"), When::Failed);
        chain.write(file, 0, content);
        chain.fsync(file);
        chain.close(file);
        chain.operation(self.rename("from.tmp", "from"));
        chain
    }
}

#[test]
fn file_of_any_length_is_copied_whole() {
    let piece = PIECE as usize;
    for length in [0, 1, piece - 1, piece, piece + 1, 10 * piece + 77] {
        let content = noise(length);
        for builder in engines() {
            let folder = Folder::new(&content);
            let chain = folder.copy();
            let (result, chain) = run(builder, chain);
            assert_eq!(result.unwrap(), 2 * length as u64);
            let lines: Vec<_> = chain.report().collect();
            let pieces = length.div_ceil(piece) as u64;
            assert_eq!((lines[3].name, lines[3].runs), ("Loop", pieces + 1));
            assert_eq!((lines[4].runs, lines[4].moved), (pieces + 1, length as u64));
            assert_eq!((lines[5].runs, lines[5].moved), (pieces, length as u64));
            assert_eq!(chain.cleanups().len(), 0, "all was closed by steps");
            assert!(fs::read(folder.path("to")).unwrap() == content);
            assert_eq!((folder.names(), folder.leaks()), (vec!["from".into(), "to".into()], 0));
        }
    }
}

#[test]
fn copy_that_fails_leaves_no_temporary_file_and_one_that_was_there_is_not_touched() {
    for builder in engines() {
        let folder = Folder::new(b"new");
        fs::write(folder.path("to.tmp"), "of somebody else").unwrap();
        let (result, chain) = run(builder, folder.copy());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(chain.failed().unwrap().0, 1);
        assert_eq!(fs::read(folder.path("to.tmp")).unwrap(), b"of somebody else");
        // The new file can't have the name of a directory.
        fs::remove_file(folder.path("to.tmp")).unwrap();
        fs::create_dir(folder.path("to")).unwrap();
        let (result, chain) = run(Aio::builder(), folder.copy());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(chain.cleanups().map(|c| (c.step, c.result.is_ok())).last(), Some((2, true)));
        assert_eq!((folder.names(), folder.leaks()), (vec!["from".into(), "to".into()], 0));
    }
}

#[test]
fn copy_on_a_backend_that_lies_is_whole_or_not_there() {
    let content = noise(300_000);
    let mut copied = 0;
    for seed in 0..100 {
        let folder = Folder::new(&content);
        let (result, chain) = run(testing::lying(Aio::builder(), seed), folder.copy());
        let stuck = chain.cleanups().any(|cleanup| cleanup.step == 2 && cleanup.result.is_err());
        match result {
            Ok(moved) => {
                assert_eq!(moved, 600_000);
                assert!(fs::read(folder.path("to")).unwrap() == content);
                copied += 1;
            }
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::EAGAIN)), "{error}");
                assert!(!folder.path("to").exists());
            }
        }
        assert_eq!(folder.path("to.tmp").exists(), stuck, "{chain:?}");
        drop(chain);
        assert_eq!(folder.leaks(), 0);
    }
    assert!(copied > 5, "only {copied} of 100");
}

#[test]
fn file_is_replaced_in_one_moment_or_stays_as_it_is() {
    let new = "new content ".repeat(1000);
    for builder in engines() {
        let folder = Folder::new(b"old");
        let (result, _) = run(builder, folder.replace(new.clone()));
        assert_eq!(result.unwrap(), 12_000);
        assert_eq!(fs::read(folder.path("from")).unwrap(), new.as_bytes());
        assert_eq!((folder.names(), folder.leaks()), (vec!["from".to_owned()], 0));
    }
    let mut replaced = 0;
    for seed in 0..100 {
        let folder = Folder::new(b"old");
        let chain = folder.replace(new.clone());
        let (result, chain) = run(testing::lying(Aio::builder(), seed), chain);
        let stuck = chain.cleanups().any(|cleanup| cleanup.step == 1 && cleanup.result.is_err());
        let content = fs::read_to_string(folder.path("from")).unwrap();
        replaced += u32::from(result.is_ok());
        assert_eq!(content, if result.is_ok() { new.as_str() } else { "old" });
        assert_eq!(folder.path("from.tmp").exists(), stuck, "{chain:?}");
    }
    assert!((10..95).contains(&replaced), "{replaced} of 100");
}

#[test]
fn replaced_only_if_it_is_what_it_was() {
    for (expected, replaced) in [("old", true), ("other", false)] {
        for builder in engines() {
            let folder = Folder::new(b"old");
            let mut chain = Chain::new();
            let before = chain.open(folder.open("from"));
            let content = chain.read(before, 0, 100);
            chain.close(before);
            chain.leave_if(!Condition::holds(content, expected));
            let file = chain.open(folder.open("from").write_only().flags(libc::O_TRUNC));
            chain.write(file, 0, "new");
            let (result, _) = run(builder, chain);
            result.unwrap();
            let content = fs::read_to_string(folder.path("from")).unwrap();
            assert_eq!(content, if replaced { "new" } else { "old" });
        }
    }
}

/// Counts what goes through it, and sums it up.
#[derive(Default)]
struct Sum(u64, u64);

impl Transform for Sum {
    fn feed(&mut self, input: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        self.0 += input.len() as u64;
        self.1 = input.iter().fold(self.1, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
        Ok(())
    }

    fn finish(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        let Sum(length, sum) = std::mem::take(self);
        output.extend(length.to_be_bytes());
        output.extend(sum.to_be_bytes());
        Ok(())
    }
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    let (mut sum, mut output) = (Sum::default(), Vec::new());
    sum.feed(bytes, &mut output).unwrap();
    sum.finish(&mut output).unwrap();
    output
}

/// What a file comes to, read in pieces.
fn digest(open: Open, transform: impl Transform + 'static) -> (Chain, StepId<Data>) {
    let mut chain = Chain::new();
    let file = chain.open(open);
    let hash = chain.transform(transform);
    let at = chain.variable(0);
    chain.repeat(1_000_000, |chain| {
        let piece = chain.read(file, at, PIECE);
        chain.feed(hash, piece);
        chain.add(at, piece.count());
        // A piece that is not whole is the last one.
        chain.leave_if(Condition::less(piece.count(), PIECE));
    });
    let digest = chain.finish(hash);
    chain.close(file);
    (chain, digest)
}

#[test]
fn tree_is_hashed_by_one_chain_for_each_file() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut paths = Vec::new();
    for folder in 0..5 {
        fs::create_dir(dir.path().join(folder.to_string())).unwrap();
        for file in 0..20_usize {
            let path = dir.path().join(format!("{folder}/{file}"));
            fs::write(&path, noise(file * file * 1500)).unwrap();
            paths.push(path);
        }
    }
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let mut digests = Vec::new();
        for (key, path) in paths.iter().enumerate() {
            let (chain, digest) = digest(Open::new(path), Sum::default());
            queue[aio].submit(chain, key as u64).unwrap();
            digests.push(digest);
        }
        for _ in &paths {
            let completion = next(&mut queue);
            completion.result.unwrap();
            let key = completion.key as usize;
            let chain = into_chain(*completion.op);
            let expected = sum(&fs::read(&paths[key]).unwrap());
            assert_eq!(chain.data(digests[key]).unwrap(), expected, "{:?}", paths[key]);
        }
        assert_eq!(queue[aio].in_flight(), 0);
    }
}

#[test]
fn transform_that_refuses_or_panics_fails_its_step_and_no_other() {
    struct Bad(bool);
    impl Transform for Bad {
        fn feed(&mut self, _: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
            assert!(!self.0, "a bug of the program's");
            Err(io::ErrorKind::InvalidData.into())
        }
        fn finish(&mut self, _: &mut Vec<u8>) -> io::Result<()> {
            Ok(())
        }
    }
    // On the thread itself and on the pool.
    for length in [10, 100_000] {
        for panics in [false, true] {
            let folder = Folder::new(&noise(length));
            let (chain, data) = digest(folder.open("from"), Bad(panics));
            let (result, chain) = run(Aio::builder(), chain);
            let kind = if panics { io::ErrorKind::Other } else { io::ErrorKind::InvalidData };
            assert_eq!(result.unwrap_err().kind(), kind);
            let (at, step) = chain.failed().unwrap();
            assert_eq!((at, step.name, folder.leaks()), (3, "Feed", 0));
            assert!(chain.data(data).is_none());
        }
    }
}

#[test]
fn ten_thousand_small_files_are_read_by_as_many_chains() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = |file: u64| dir.path().join(file.to_string());
    for file in 0..10_000 {
        fs::write(path(file), format!("this is file {file}")).unwrap();
    }
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (mut submitted, mut read) = (0, 0);
        while read < 10_000 {
            while submitted < 10_000 && queue[aio].in_flight() < 256 {
                let mut chain = Chain::new();
                let file = chain.open(Open::new(path(submitted)));
                let stat = chain.statx(file);
                // Steps are known by their places, and these are the same in each of the chains.
                assert_eq!(chain.read(file, 0, stat.size()).index(), 2);
                chain.close(file);
                queue[aio].submit(chain, submitted).unwrap();
                submitted += 1;
            }
            let completion = next(&mut queue);
            let expected = format!("this is file {}", completion.key);
            assert_eq!(completion.result.unwrap(), expected.len() as u64);
            let chain = into_chain(*completion.op);
            assert!(matches!(chain.report().last().unwrap().result, StepResult::Done(0)));
            read += 1;
        }
    }
}

#[test]
fn long_loop_lets_others_have_their_turn() {
    // The chain never blocks, and counts for a long while. The other has its turn before that is over.
    let (mut queue, aio) = queue(Aio::builder());
    let mut chain = Chain::new();
    let count = chain.variable(0);
    chain.repeat(1 << 30, |chain| {
        chain.add(count, 1);
    });
    let mut endless = Chain::new();
    let number = endless.variable(0);
    endless.repeat(1 << 30, |chain| {
        chain.add(number, 1);
        chain.leave_if(Condition::equal(number, 5_000_000));
    });
    assert!(queue[aio].submit(chain, 1).is_err(), "a loop without a way out");
    queue[aio].submit(endless, 1).unwrap();
    queue[aio].submit(Open::new("/dev/null"), 2).unwrap();
    assert_eq!(next(&mut queue).key, 2);
    let token = queue[aio].submit_until(Chain::new(), 3, Instant::now() + Duration::from_secs(9));
    token.unwrap();
    let done: Vec<u64> = [next(&mut queue), next(&mut queue)].map(|done| done.key).into();
    assert_eq!(done, [3, 1]);
}

#[test]
fn loop_that_does_not_end_in_the_stated_rounds_fails() {
    for builder in engines() {
        let folder = Folder::new(&noise(1000));
        let mut chain = Chain::new();
        let file = chain.open(folder.open("from"));
        let repeat = chain.repeat(10, |chain| {
            let piece = chain.read(file, 0, 100);
            chain.stop(piece, Stop::Zero);
        });
        let (result, chain) = run(builder, chain);
        let text = result.unwrap_err().to_string();
        assert!(text.contains("step 1 has not ended within 10 rounds"), "{text}");
        assert_eq!(chain.failed().unwrap().0, repeat.index());
        assert_eq!((chain.moved(), folder.leaks()), (1000, 0));
    }
}

#[test]
fn first_of_several_files_that_is_there_is_read() {
    for builder in engines() {
        let folder = Folder::new(b"the last resort");
        let mut chain = Chain::new();
        let mut read: Vec<StepId<Data>> = Vec::new();
        let custom = chain.open(folder.open("custom"));
        chain.stop(custom, Stop::Never);
        chain.branch(
            Condition::failed_with(custom, io::ErrorKind::NotFound),
            |chain| {
                let fallback = chain.open(folder.open("from"));
                read.push(chain.read(fallback, 4, 100));
            },
            |chain| {
                // It may have failed for another reason.
                chain.fail_if(!Condition::succeeded(custom), io::ErrorKind::PermissionDenied);
                chain.read(custom, 0, 100);
            },
        );
        let (result, mut chain) = run(builder, chain);
        assert_eq!(result.unwrap(), 11);
        assert_eq!(chain.take_data(read[0]).unwrap(), b"last resort");
        assert!(matches!(&chain.report().next().unwrap().result, StepResult::Failed(_)));
        assert!(chain.failed().is_none());
    }
}

#[test]
fn any_operation_is_a_step_and_comes_back() {
    for builder in engines() {
        let folder = Folder::new(b"0123456789");
        let file: Fd = Arc::new(File::open(folder.path("from")).unwrap());
        let mut chain = Chain::new();
        let buffers = vec![Vec::with_capacity(4), Vec::with_capacity(4)];
        let read: StepId<Effect> = chain.operation(kevent_aio::ReadVectored::new(file, 1, buffers));
        let copy = chain.open(folder.open("copy").write_only().create(0o600));
        chain.fallocate(copy, 0, read.count());
        let (result, mut chain) = run(builder, chain);
        result.unwrap();
        let Some(Op::ReadVectored(read)) = chain.take_op(read) else { panic!("it is gone") };
        assert_eq!(read.into_buffers(), [b"1234", b"5678"]);
        assert_eq!(fs::metadata(folder.path("copy")).unwrap().len(), 8);
    }
}

#[test]
fn directory_is_opened_once_and_its_files_from_there() {
    for builder in engines() {
        let folder = Folder::new(b"0123456789");
        let mut chain = Chain::new();
        let dir = chain.open(Open::new(folder.dir.path()));
        let names = chain.read_dir(dir, 4096);
        let from = chain.open_at(dir, Open::new("from"));
        let to = chain.open_at(dir, Open::new("to").write_only().create(0o600));
        chain.close(dir);
        chain.advise(from, 0, 10, Advice::Sequential);
        let stat = chain.statx(from);
        let copied = chain.copy_range((from, 2), (to, 0), stat.size());
        chain.truncate(to, Value::from(copied.count()).minus(3));
        let (result, chain) = run(builder, chain);
        assert_eq!(result.unwrap(), 8);
        let names: Vec<_> = chain.entries(names).unwrap().map(|entry| entry.name).collect();
        assert_eq!(names, ["from"]);
        assert_eq!(fs::read(folder.path("to")).unwrap(), b"23456");
        assert_eq!(folder.leaks(), 0);
    }
}

#[test]
fn names_start_at_directories_that_the_chain_has_opened() {
    for builder in engines() {
        let folder = Folder::new(b"content");
        // What has these names here must not be touched.
        let mut chain = Chain::new();
        let root = chain.open(Open::new(folder.dir.path()));
        chain.operation_at(root, Mkdir::new("sub"));
        let sub = chain.open_at(root, Open::new("sub"));
        chain.operation_across(root, sub, Link::new("from", "linked"));
        chain.operation_at(sub, Symlink::new("linked", "soft"));
        chain.operation_at(sub, Rename::new("linked", "renamed"));
        chain.operation_across(sub, root, Rename::new("renamed", "moved"));
        chain.operation_at(root, Unlink::new("from"));
        chain.defer_at(sub, Unlink::new("soft"), When::Always);
        let used = chain.repeat(3, |chain| {
            chain.operation_at(sub, Mkdir::new("again"));
            let gone = chain.operation_at(sub, Unlink::new("again").dir());
            chain.leave_if(Condition::equal(gone.count(), 1));
        });
        assert_eq!(used.index(), 9);
        let (result, mut chain) = run(builder, chain);
        // The loop has no end, which is the only failure.
        let text = result.unwrap_err().to_string();
        assert!(text.contains("loop of step 9"), "{text}");
        assert_eq!(folder.names(), ["moved", "sub"]);
        assert_eq!(fs::read(folder.path("moved")).unwrap(), b"content");
        assert_eq!(fs::read_dir(folder.path("sub")).unwrap().count(), 0);
        let cleaned: Vec<_> = chain.cleanups().map(|c| (c.step, c.result.is_ok())).collect();
        assert_eq!(cleaned, [(8, true), (sub.index(), true), (root.index(), true)]);
        assert_eq!(folder.leaks(), 0, "no operation that came back holds a directory open");
        assert!(chain.take_file(sub).is_none());
    }
}

#[test]
fn directories_that_are_not_there_or_not_used_are_refused() {
    type Build = fn(&mut Chain);
    let cases: [(Build, &str); 4] = [
        (
            |chain| {
                let dir = chain.open(Open::new("."));
                chain.close(dir);
                chain.operation_at(dir, Mkdir::new("a"));
            },
            "step 2 (Mkdir) of the chain uses the file of step 0 (Open) after",
        ),
        (
            |chain| {
                let dir = chain.open(Open::new("."));
                chain.defer_at(dir, Unlink::new("a"), When::Failed);
                chain.close(dir);
            },
            "step 2 (Close) of the chain closes the directory at which a clean-up starts",
        ),
        (
            |chain| {
                let dir = chain.open(Open::new("."));
                let other = chain.open(Open::new("."));
                chain.operation_across(dir, other, Unlink::new("a"));
            },
            "step 2 (Unlink) of the chain has one path",
        ),
        (
            |chain| {
                let dir = chain.open(Open::new("."));
                let file: Fd = Arc::new(File::open("/dev/null").unwrap());
                chain.operation_at(dir, kevent_aio::Fsync::new(file));
            },
            "step 1 (Fsync) of the chain has no path",
        ),
    ];
    for (build, text) in cases {
        let (mut queue, aio) = queue(Aio::builder());
        let mut chain = Chain::new();
        build(&mut chain);
        let refused = queue[aio].submit(chain, 1).unwrap_err();
        assert!(refused.error.to_string().contains(text), "{}", refused.error);
    }
}

#[test]
fn room_for_entries_is_neither_too_small_nor_more_than_there_is() {
    let folder = Folder::new(b"");
    let mut chain = Chain::new();
    let dir = chain.open(Open::new(folder.dir.path()));
    chain.read_dir(dir, 279);
    let (mut queue, aio) = queue(Aio::builder());
    let refused = queue[aio].submit(chain, 1).unwrap_err();
    assert!(refused.error.to_string().contains("step 1 (ReadDir) of the chain"), "{refused}");
    for much in [usize::MAX, usize::MAX >> 2] {
        let mut chain = Chain::new();
        let dir = chain.open(Open::new(folder.dir.path()));
        chain.read_dir(dir, much);
        let (result, _) = run(Aio::builder(), chain);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
    assert_eq!(folder.leaks(), 0);
}

#[test]
fn the_last_lines_of_a_file_are_found_by_its_size() {
    for builder in engines() {
        let folder = Folder::new(b"one\ntwo\nthree\n");
        let mut chain = Chain::new();
        let file = chain.open(folder.open("from"));
        let stat = chain.statx(file);
        let tail = chain.read(file, Value::from(stat.size()).minus(6), u64::MAX >> 40);
        let (result, chain) = run(builder, chain);
        assert_eq!(result.unwrap(), 6);
        assert_eq!(chain.data(tail).unwrap(), b"three\n");
    }
}

#[test]
fn length_beyond_all_memory_is_an_error_of_the_step() {
    let folder = Folder::new(b"short");
    let mut chain = Chain::new();
    let file = chain.open(folder.open("from"));
    let much = chain.variable(u64::MAX >> 2);
    chain.read(file, 0, much);
    let (result, chain) = run(Aio::builder(), chain);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    assert_eq!((chain.failed().unwrap().0, folder.leaks()), (1, 0));
}

#[test]
fn clean_ups_run_the_last_first_and_only_when_they_are_wanted() {
    for fails in [false, true] {
        for builder in engines() {
            let folder = Folder::new(b"");
            for name in ["one", "two", "three"] {
                fs::write(folder.path(name), "").unwrap();
            }
            let mut chain = Chain::new();
            chain.defer(folder.unlink("one"), When::Always);
            let file = chain.open(folder.open("from"));
            chain.defer(folder.unlink("two"), When::Failed);
            chain.defer(folder.unlink("nothing"), When::Always);
            chain.fail_if(Condition::equal(u64::from(fails), 1), io::ErrorKind::InvalidData);
            chain.defer(folder.unlink("three"), When::Always);
            let (result, chain) = run(builder, chain);
            assert_eq!(result.is_err(), fails);
            let done: Vec<_> = chain.cleanups().map(|c| (c.step, c.result.is_ok())).collect();
            let opened = file.index();
            if fails {
                assert_eq!(done, [(3, false), (2, true), (opened, true), (0, true)]);
                assert_eq!(folder.names(), ["from", "three"]);
            } else {
                assert_eq!(done, [(5, true), (3, false), (opened, true), (0, true)]);
                assert_eq!(folder.names(), ["from", "two"]);
            }
        }
    }
}

#[cfg(feature = "transforms")]
mod transforms {
    use std::io::Read as _;

    use kevent_aio::{Blake3, Crc32c, Gzip};

    use super::*;

    #[test]
    fn checksums_and_hashes_of_pieces_are_those_of_the_whole() {
        for length in [0, 5, 4096, 300_001] {
            let content = noise(length);
            for builder in engines() {
                let folder = Folder::new(&content);
                let (chain, digest) = digest(folder.open("from"), Blake3::new());
                let (result, chain) = run(builder, chain);
                result.unwrap();
                assert_eq!(chain.data(digest).unwrap(), blake3::hash(&content).as_bytes());
            }
            let folder = Folder::new(&content);
            let (chain, digest) = digest(folder.open("from"), Crc32c::new());
            let (result, chain) = run(Aio::builder(), chain);
            result.unwrap();
            let crc = crc32c::crc32c(&content).to_be_bytes();
            assert_eq!(chain.data(digest).unwrap(), crc);
        }
    }

    /// `from` compressed into `to.gz`.
    fn pack(folder: &Folder) -> Chain {
        let mut chain = Chain::new();
        let from = chain.open(folder.open("from"));
        let to = chain.open(folder.open("to.gz").write_only().create(0o600));
        let gzip = chain.transform(Gzip::new(3));
        let (read, written) = (chain.variable(0), chain.variable(0));
        chain.repeat(1_000_000, |chain| {
            let piece = chain.read(from, read, PIECE);
            chain.stop(piece, Stop::Zero);
            chain.add(read, piece.count());
            let packed = chain.feed(gzip, piece);
            chain.write(to, written, packed);
            chain.add(written, packed.count());
        });
        let rest = chain.finish(gzip);
        chain.write(to, written, rest);
        chain.close(to);
        chain
    }

    #[test]
    fn file_that_is_compressed_on_the_way_comes_back_as_it_was() {
        let content = [noise(200_000), vec![0; 500_000], noise(77)].concat();
        for builder in engines() {
            let folder = Folder::new(&content);
            let (result, _) = run(builder, pack(&folder));
            result.unwrap();
            let packed = File::open(folder.path("to.gz")).unwrap();
            assert!(packed.metadata().unwrap().len() < 210_000);
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(packed).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == content);
        }
    }
}
