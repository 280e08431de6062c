//! Chains whose engine is dropped while they run: what was deferred is done exactly once, wherever they are.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::{
    Aio, Builder, Chain, Condition, Fd, Open, Read, Stop, Unlink, When, Write, testing,
};

use common::{Bench, PATIENCE, honest};

const CHAINS: u8 = 60;

/// The chain of that number leaves its number in the log when it ends, and no temporary file if it fails. Some
/// come to their end, others wait for a socket, for a pipe, or are at work.
fn chain(number: u8, dir: &Path, log: &Fd, socket: &Arc<UnixStream>) -> Chain {
    let temporary = format!("{number}.tmp");
    let mut chain = Chain::new().cold();
    chain.defer(Write::new(log.clone(), 0, [number]), When::Always);
    let dir = chain.open(Open::new(dir));
    let file = chain.open_at(dir, Open::new(&temporary).read_write().create_new(0o600));
    chain.defer_at(dir, Unlink::new(&temporary), When::Failed);
    chain.write(file, 0, vec![7; 300_000]);
    match number % 4 {
        0 => {
            chain.recv(socket.clone(), 10);
        }
        1 => {
            let pipe: Fd = socket.clone();
            chain.operation(Read::new(pipe, 0, Vec::with_capacity(10)));
            // A thread that comes back from there goes on as far as it can.
            chain.fail_if(Condition::equal(1, 1), std::io::ErrorKind::InvalidData);
        }
        2 => {
            let at = chain.variable(0);
            chain.repeat(1 << 20, |chain| {
                chain.fdatasync(file);
                chain.write(file, at, "more");
                chain.add(at, 1);
                chain.leave_if(Condition::equal(at, u64::MAX));
            });
        }
        _ => {
            chain.operation_at(dir, Unlink::new(&temporary));
        }
    }
    chain
}

fn drop_after(turns: u32, builder: Builder, lies: bool, what: &str) {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let log = dir.path().join("log");
    let file: Fd = Arc::new(File::options().append(true).create(true).open(&log).unwrap());
    let (near, far) = UnixStream::pair().unwrap();
    let near = Arc::new(near);
    let mut bench = Bench::new(builder);
    for number in 0..CHAINS {
        bench.submit(chain(number, dir.path(), &file, &near), number.into());
    }
    for _ in 0..turns {
        bench.turn();
    }
    drop(bench);
    // What a thread was stuck in.
    drop(far);
    let names = || fs::read_dir(dir.path()).unwrap().count();
    let logged = || fs::metadata(&log).unwrap().len();
    let deadline = Instant::now() + PATIENCE;
    let done = || lies || logged() >= u64::from(CHAINS) && names() == 1;
    while !done() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut numbers = fs::read(&log).unwrap();
    numbers.sort_unstable();
    let count = numbers.len();
    numbers.dedup();
    assert_eq!(count, numbers.len(), "{what}, {turns} turns: a clean-up was done twice");
    if !lies {
        assert!(numbers.into_iter().eq(0..CHAINS), "{what}, {turns} turns: {count} of {CHAINS}");
        assert_eq!(names(), 1, "{what}, {turns} turns: temporary files are left");
    }
}

#[test]
fn what_was_deferred_is_done_once_also_when_the_engine_is_dropped() {
    for turns in [0, 1, 2, 3, 5, 10, 30, 100] {
        for (name, builder) in honest() {
            drop_after(turns, builder, false, name);
        }
        drop_after(turns, testing::lying(Aio::builder(), turns.into()), true, "liar");
    }
}

#[test]
fn chain_that_was_never_begun_or_is_over_does_nothing_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let build = || {
        let mut chain = Chain::new();
        chain.defer(Unlink::new(&path), When::Always);
        let gone = chain.open(Open::new(dir.path().join("nothing")));
        chain.stop(gone, Stop::Never);
        chain
    };
    fs::write(&path, "").unwrap();
    drop(build());
    assert!(path.exists());
    let mut bench = Bench::new(Aio::builder());
    bench.submit(build(), 1);
    let completion = bench.next();
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    drop(completion);
    assert!(path.exists(), "it was done once");
}
