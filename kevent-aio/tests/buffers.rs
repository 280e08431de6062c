//! Buffers of a pool, and files and buffers that the kernel knows.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{File, OpenOptions};
use std::num::NonZero;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use common::{Bench, all, honest};
use kevent_aio::{Aio, Buffers, Completion, Fd, Memory, Op, Read, Way, Write};

fn pool(count: usize) -> Buffers {
    Buffers::new(NonZero::new(count).unwrap(), NonZero::new(4096).unwrap()).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn memory(completion: Completion) -> Memory {
    match *completion.op {
        Op::Read(read) => read.into_memory(),
        Op::Write(write) => write.into_memory(),
        other => panic!("{other:?}"),
    }
}

/// Every backend with buffers that it was told of, and with some that it was not.
fn everyone(pool: &Buffers) -> impl Iterator<Item = (&'static str, Bench)> {
    let strangers = all().into_iter().map(|(name, builder)| (name, Bench::new(builder)));
    let known = all().into_iter().map(|(name, builder)| (name, Bench::new(builder.buffers(pool))));
    strangers.chain(known)
}

#[test]
fn buffers_of_a_pool_serve_as_vectors_do() {
    let pool = pool(2);
    for (name, mut bench) in everyone(&pool) {
        let report = bench.aio().report();
        assert!(!report.knows_buffers || report.backend == Way::Ring, "{name}");
        let file = Arc::new(tempfile::tempfile().unwrap());
        let content = pattern(4000);
        let mut at = 0;
        while at < content.len() {
            let completion = bench.insist(|| {
                let mut buffer = pool.take().unwrap();
                buffer.resize(content.len() - at).unwrap();
                buffer.copy_from_slice(&content[at..]);
                Write::new(file.clone(), at as u64, buffer).into()
            });
            let count = *completion.result.as_ref().unwrap() as usize;
            assert_eq!(
                *memory(completion).as_slice(),
                content[at..],
                "{name}: as it was submitted"
            );
            at += count;
        }
        let mut found = Vec::new();
        while found.len() < content.len() {
            let completion = bench.insist(|| {
                let read = Read::new(file.clone(), found.len() as u64, pool.take().unwrap());
                read.cold().into()
            });
            let count = *completion.result.as_ref().unwrap() as usize;
            let buffer = memory(completion).into_buffer().unwrap();
            assert_eq!(buffer.len(), count, "{name}: it holds what was read");
            found.extend_from_slice(&buffer);
        }
        assert!(found == content, "{name}");
        assert_eq!(pool.free(), 2, "{name}");
    }
}

#[test]
fn buffer_of_a_pool_is_the_limit_of_a_read() {
    let pool = pool(1);
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.write_all_at(&pattern(10_000), 0).unwrap();
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.buffers(&pool));
        for (limit, expected) in [(10, 10), (1_000_000, 4096)] {
            let read = Read::new(file.clone(), 3, pool.take().unwrap()).up_to(limit);
            let completion = bench.complete(read);
            assert_eq!(completion.result.as_ref().unwrap(), &expected, "{name}");
            assert_eq!(*memory(completion).as_slice(), pattern(10_000)[3..3 + expected as usize]);
        }
    }
}

#[test]
fn buffers_of_a_pool_are_good_for_o_direct() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("direct");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(libc::O_DIRECT);
    let Ok(file) = options.open(&path) else {
        println!("skipped: this file system has no O_DIRECT");
        return;
    };
    let (file, pool): (Fd, _) = (Arc::new(file), pool(8));
    for (name, mut bench) in everyone(&pool) {
        for block in 0..8_u64 {
            let completion = bench.insist(|| {
                let mut buffer = pool.take().unwrap();
                buffer.resize(4096).unwrap();
                buffer.fill(block as u8);
                Write::new(file.clone(), block * 4096, buffer).into()
            });
            completion.result.unwrap();
        }
        let completion =
            bench.insist(|| Read::new(file.clone(), 7 * 4096, pool.take().unwrap()).cold().into());
        if name != "liar" {
            assert_eq!(completion.result.as_ref().unwrap(), &4096, "{name}");
            assert!(memory(completion).as_slice().iter().all(|byte| *byte == 7), "{name}");
        }
    }
}

#[test]
fn buffer_of_an_operation_that_never_ends_is_not_free_before_the_kernel_is_done() {
    for (name, builder) in honest() {
        let pool = pool(1);
        let mut bench = Bench::new(builder.buffers(&pool));
        let (here, there) = UnixStream::pair().unwrap();
        bench.submit(Read::new(Arc::new(here), 0, pool.take().unwrap()), 1);
        bench.turn();
        assert_eq!(pool.free(), 0, "{name}");
        drop(bench);
        drop(there);
        while pool.free() == 0 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn file_that_the_kernel_knows_is_open_until_it_is_forgotten() {
    let Ok(aio) = Aio::builder().backend(kevent_aio::Choice::Uring).build() else {
        println!("skipped: no ring can be had here");
        return;
    };
    let mut bench = Bench::around(aio);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(dir.path().join("f"), "known").unwrap();
    let file = Arc::new(File::open(dir.path().join("f")).unwrap());
    let fd: Fd = file.clone();
    assert!(bench.aio().register_file(&fd).unwrap());
    assert!(bench.aio().register_file(&fd).unwrap(), "once more is no mistake");
    let content = |bench: &mut Bench| {
        let read = Read::new(fd.clone(), 0, Vec::with_capacity(100)).cold();
        let completion = bench.complete(read);
        assert_eq!(completion.way, Way::Ring);
        memory(completion).into_vec()
    };
    assert_eq!(content(&mut bench), b"known");
    let before = Arc::strong_count(&file);
    assert!(bench.aio().unregister_file(&fd));
    assert!(!bench.aio().unregister_file(&fd));
    assert_eq!(Arc::strong_count(&file), before - 1);
    assert_eq!(content(&mut bench), b"known", "a stranger serves as well");
}

#[test]
fn more_files_than_the_kernel_is_told_of_are_read_all_the_same() {
    let Ok(aio) = Aio::builder().backend(kevent_aio::Choice::Uring).build() else {
        println!("skipped: no ring can be had here");
        return;
    };
    let mut bench = Bench::around(aio);
    let files: Vec<Fd> = (0..80)
        .map(|n: u8| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[n], 0).unwrap();
            Arc::new(file) as Fd
        })
        .collect();
    let known = files.iter().filter(|file| bench.aio().register_file(file).unwrap()).count();
    assert_eq!(known, 64);
    assert!(bench.aio().unregister_file(&files[5]));
    assert!(bench.aio().register_file(&files[70]).unwrap(), "in the place of the other");
    for (n, file) in files.iter().enumerate() {
        let read = Read::new(file.clone(), 0, Vec::with_capacity(2)).cold();
        assert_eq!(memory(bench.complete(read)).as_slice(), [n as u8]);
    }
}
