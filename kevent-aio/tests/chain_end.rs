//! Chains that end early, at any point: each cleans up behind itself, exactly once, and nothing of them
//! stays. A process of its own, since it counts all descriptors; and one test, since others would open
//! some meanwhile.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::{
    Aio, Builder, Chain, Completion, Fd, Op, Open, Rename, Stop, Unlink, When, testing,
};
use kevent_core::Wait;

use common::counted::{becomes, open_descriptors};
use common::{Bench, honest};

/// Bytes of the file that is copied, and of a piece.
const LENGTH: u64 = 200_000;
const PIECE: u64 = 16_384;

/// The step that defers the removal of the temporary file.
const DEFER: usize = 3;

/// `from` to the file of that number, which is kept open; by way of a temporary one.
fn copy(root: &Fd, number: u64) -> Chain {
    let at = |name: &str| Open::new(name).at(root.clone());
    let (temporary, name) = (format!("{number}.tmp"), number.to_string());
    let mut chain = Chain::new().cold();
    let from = chain.open(at("from"));
    let kept = chain.open(at("from"));
    chain.keep(kept);
    let to = chain.open(at(&temporary).write_only().create_new(0o600));
    let defer = chain.defer(Unlink::new(&temporary).at(root.clone()), When::Failed);
    assert_eq!(defer.index(), DEFER);
    let position = chain.variable(0);
    chain.repeat(1000, |chain| {
        let piece = chain.read(from, position, PIECE);
        chain.stop(piece, Stop::Zero);
        chain.write(to, position, piece);
        chain.add(position, piece.count());
    });
    chain.close(from);
    chain.close(to);
    chain.operation(Rename::new(&temporary, &name).at(root.clone()));
    chain
}

/// How an ended chain has left things.
fn examine(dir: &Path, completion: Completion, lies: bool) -> bool {
    let (number, result) = (completion.key, completion.result);
    let Op::Chain(chain) = *completion.op else { panic!("chains were submitted") };
    let mut cleaned: HashMap<usize, u32> = HashMap::new();
    for cleanup in chain.cleanups() {
        *cleaned.entry(cleanup.step).or_default() += 1;
        assert!(lies || cleanup.result.is_ok(), "{chain:?}");
    }
    assert!(cleaned.values().all(|times| *times == 1), "{chain:?}");
    let steps: Vec<_> = chain.report().collect();
    let deferred = steps[DEFER].runs == 1;
    assert_eq!(cleaned.contains_key(&DEFER), deferred && result.is_err(), "{chain:?}");
    let stuck = chain.cleanups().any(|c| c.step == DEFER && c.result.is_err());
    assert_eq!(dir.join(format!("{number}.tmp")).exists(), stuck, "{chain:?}");
    let copied = dir.join(number.to_string());
    assert_eq!(copied.exists(), result.is_ok(), "{chain:?}");
    match &result {
        Ok(moved) => assert_eq!(*moved, 2 * LENGTH),
        Err(error) => match error.raw_os_error() {
            Some(libc::ECANCELED | libc::ETIMEDOUT) => {}
            other => assert!(lies && matches!(other, Some(libc::EIO | libc::EAGAIN)), "{error}"),
        },
    }
    if result.is_ok() {
        fs::remove_file(copied).unwrap();
    }
    let _ = fs::remove_file(dir.join(format!("{number}.tmp")));
    result.is_ok()
}

/// splitmix64.
fn dice(state: &mut u64, sides: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % sides
}

/// 300 chains, 8 at a time; most are cancelled or given a deadline at some point. Says how many were
/// done before that.
fn end_at_random(builder: Builder, seed: u64, lies: bool) -> u32 {
    let nothing = open_descriptors();
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    fs::write(dir.path().join("from"), vec![7; LENGTH as usize]).unwrap();
    let root: Fd = Arc::new(File::open(dir.path()).unwrap());
    let mut bench = Bench::new(builder);
    let engine = open_descriptors();
    let (mut state, mut running, mut done) = (seed, Vec::new(), 0);
    let (mut submitted, mut ended) = (0, 0);
    while ended < 300 {
        while submitted < 300 && running.len() < 8 {
            let chain = copy(&root, submitted);
            let token = match dice(&mut state, 3) {
                0 => {
                    let after = Duration::from_micros(dice(&mut state, 3000));
                    bench.aio().submit_until(chain, submitted, Instant::now() + after).unwrap()
                }
                _ => bench.submit(chain, submitted),
            };
            running.push(token);
            submitted += 1;
        }
        if dice(&mut state, 12) == 0 {
            let victim = dice(&mut state, running.len() as u64) as usize;
            bench.aio().cancel(running[victim]);
        }
        let patience = Wait::from(Duration::from_micros(dice(&mut state, 300)));
        bench.queue.wait(patience).unwrap();
        while let Some(completion) = bench.queue.next() {
            running.retain(|token| *token != completion.token);
            done += u32::from(examine(dir.path(), completion, lies));
            ended += 1;
        }
    }
    becomes("chains that ended", engine, open_descriptors);
    // An engine that is dropped in the middle of it closes what they have opened.
    for number in 0..20 {
        bench.submit(copy(&root, number), number);
        bench.turn();
    }
    drop(bench);
    // A thread of the pool may be in a call, and cleans up behind that.
    let leaves = || fs::read_dir(dir.path()).unwrap().flatten();
    let temporary =
        || leaves().filter(|e| e.path().extension().is_some_and(|x| x == "tmp")).count();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !lies && temporary() > 0 {
        assert!(Instant::now() < deadline, "{} temporary files are left", temporary());
        std::thread::yield_now();
    }
    drop((root, dir));
    becomes("an engine that was dropped", nothing, open_descriptors);
    done
}

#[test]
fn chains_that_end_at_any_point_clean_up_exactly_once() {
    for (name, _) in honest() {
        for seed in 0..3 {
            let builder = honest().into_iter().find(|(other, _)| *other == name).unwrap().1;
            let done = end_at_random(builder, seed, false);
            println!("{name}: {done} of 300 were done before they were to end");
            assert!((10..290).contains(&done), "{name}: {done}");
        }
    }
    let done = end_at_random(testing::lying(Aio::builder(), 5), 9, true);
    println!("lying: {done} of 300 were done");
}
