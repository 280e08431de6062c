//! Reads through the page cache, whatever it holds of the range: the bytes that pread(2) brings, and
//! nobody sleeps for them, neither when they are submitted nor when they are taken out.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::fs::{self, File};
use std::num::NonZero;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Bench, honest};
use kevent_aio::{Buffers, Completion, Op, Read, ReadVectored, Way, Write};
use kevent_core::testing::Dice;
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use tempfile::NamedTempFile;

const PAGE: u64 = 4096;
const PAGES: u64 = 64;

/// A hole, from page to page.
const HOLE: std::ops::Range<u64> = 16..32;

/// What a file of so many bytes holds.
fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// A file on a disk: that of the build, because the system's temporary directory may be a tmpfs.
fn on_disk(content: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(file.path(), content).unwrap();
    file.as_file().sync_all().unwrap();
    file
}

/// One with a hole, that ends within a page; and what it holds.
fn holey() -> (NamedTempFile, Vec<u8>) {
    let mut content = pattern(PAGES * PAGE + 100);
    let file = on_disk(&content);
    let (begin, end) = (HOLE.start * PAGE, HOLE.end * PAGE);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if let Err(error) = fallocate(&file, punch, begin, end - begin) {
        println!("no hole here: {error}");
        file.as_file().write_all_at(&vec![0; (end - begin) as usize], begin).unwrap();
    }
    content[begin as usize..end as usize].fill(0);
    file.as_file().sync_all().unwrap();
    (file, content)
}

/// Takes a file out of the page cache. All of it: the kernel leaves large folios that are only partly
/// in a range.
fn evict(file: &File) {
    fadvise(file, 0, None, Advice::DontNeed).unwrap();
}

/// How many of the pages are in the page cache; `None` before Linux 6.5.
fn cached(file: &File, pages: std::ops::Range<u64>) -> Option<u64> {
    const CACHESTAT: libc::c_long = 451;
    let range = [pages.start * PAGE, (pages.end - pages.start) * PAGE];
    let mut stat = [0_u64; 5];
    let (range, answer) = (range.as_ptr(), stat.as_mut_ptr());
    // SAFETY: two numbers in, five out, as cachestat(2) has them; both outlive the call.
    let done = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range, answer, 0_u32) };
    (done == 0).then_some(stat[0])
}

/// Whether pages of that file leave the page cache when they are told to.
fn can_evict(file: &File) -> bool {
    evict(file);
    let left = cached(file, 0..PAGES);
    if left != Some(0) {
        println!("skipped: pages stay in the page cache here: {left:?}");
    }
    left == Some(0)
}

/// What a read has brought.
fn data(completion: Completion) -> Vec<u8> {
    let count = completion.result.unwrap();
    let data = match *completion.op {
        Op::Read(read) => read.into_buffer(),
        Op::ReadVectored(read) => read.into_buffers().concat(),
        other => panic!("not submitted: {other:?}"),
    };
    assert_eq!(data.len() as u64, count);
    data
}

/// What is to be read from there.
fn expected(content: &[u8], offset: u64, len: u64) -> &[u8] {
    let end = content.len().min((offset + len) as usize);
    &content[end.min(offset as usize)..end]
}

/// A read of one of three kinds.
fn a_read(dice: &mut Dice, file: &Arc<File>, offset: u64, len: u64) -> Op {
    let room = Vec::with_capacity(len as usize);
    match dice.below(3) {
        0 => Read::new(file.clone(), offset, room).into(),
        1 => Read::new(file.clone(), offset, room).cold().into(),
        _ => {
            let first = dice.below(len + 1);
            let rooms = [first, len - first].map(|len| Vec::with_capacity(len as usize));
            ReadVectored::new(file.clone(), offset, rooms.into()).into()
        }
    }
}

#[test]
fn mixed_ranges_read_as_by_the_system_call_whatever_leaves_the_cache_meanwhile() {
    let (named, content) = holey();
    if !can_evict(named.as_file()) {
        return;
    }
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file = Arc::new(named.reopen().unwrap());
        // Else the kernel reads more than it is asked for, and nothing is mixed.
        fadvise(&file, 0, None, Advice::Random).unwrap();
        let (mut dice, mut mixed, mut short) = (Dice::new(1), 0, 0);
        for _ in 0..100 {
            // Some pages are there, some are not.
            evict(&file);
            for _ in 0..8 {
                file.read_at(&mut [0], dice.below(PAGES) * PAGE).unwrap();
            }
            let mut asked = HashMap::new();
            for key in 0..16 {
                let (offset, len) = (dice.below((PAGES + 2) * PAGE), 1 + dice.below(12 * PAGE));
                let pages = offset / PAGE..(offset + len).div_ceil(PAGE).min(PAGES);
                if pages.start < pages.end {
                    let there = cached(&file, pages.clone()).unwrap();
                    mixed += u32::from(there > 0 && there < pages.end - pages.start);
                }
                let op = a_read(&mut dice, &file, offset, len);
                bench.submit(op, key);
                asked.insert(key, (offset, len));
            }
            bench.turn();
            // Between submission and harvest pages go again.
            evict(&file);
            for _ in 0..16 {
                let completion = bench.next();
                let (offset, len) = asked.remove(&completion.key).unwrap();
                let (got, wanted) = (data(completion), expected(&content, offset, len));
                // A read that overtakes the eviction of its own page may be short, as pread(2) may.
                // Then the rest is there for whoever asks again.
                assert!(wanted.starts_with(&got), "{name}: {len} at {offset}");
                assert!(!got.is_empty() || wanted.is_empty(), "{name}: {len} at {offset}");
                short += u32::from(got.len() < wanted.len());
            }
        }
        assert!(mixed > 100, "{name}: {mixed} of 1600 ranges were mixed");
        assert_eq!(short, 0, "{name}");
    }
}

#[test]
fn direct_and_buffered_reads_and_writes_see_each_other() {
    let named = on_disk(&pattern(PAGES * PAGE));
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let direct = match options.open(named.path()) {
        Ok(file) => Arc::new(file),
        Err(error) => return println!("skipped: no O_DIRECT here: {error}"),
    };
    let buffered = Arc::new(named.reopen().unwrap());
    let page = NonZero::new(PAGE as usize).unwrap();
    let pages = Buffers::new(NonZero::<usize>::MIN, page).unwrap();
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        for round in 0..PAGES {
            let at = round * PAGE;
            let bytes = |by: u8| vec![by.wrapping_add(round as u8); PAGE as usize];
            let write = Write::new(buffered.clone(), at, bytes(1));
            assert_eq!(bench.complete(write).result.unwrap(), PAGE, "{name}");
            let read = Read::new(direct.clone(), at, pages.take().unwrap()).cold();
            assert!(data(bench.complete(read)) == bytes(1), "{name}: direct read, page {round}");
            let mut aligned = pages.take().unwrap();
            aligned.resize(PAGE as usize).unwrap();
            aligned.copy_from_slice(&bytes(2));
            let write = Write::new(direct.clone(), at, aligned);
            assert_eq!(bench.complete(write).result.unwrap(), PAGE, "{name}");
            let read = Read::new(buffered.clone(), at, Vec::with_capacity(PAGE as usize));
            assert!(data(bench.complete(read)) == bytes(2), "{name}: buffered read, page {round}");
        }
        // What is not aligned is refused or done, as by the system call.
        let mut room = vec![0; 100];
        let wanted = direct.read_at(&mut room, 3).map_err(|error| error.kind());
        let read = Read::new(direct.clone(), 3, Vec::with_capacity(100)).cold();
        let got = bench.complete(read).result.map_err(|error| error.kind());
        assert_eq!(got, wanted.map(|count| count as u64), "{name}");
    }
}

#[test]
fn file_truncated_under_reads_gives_what_it_had_or_zeros_and_in_the_end_the_truth() {
    let content = pattern(PAGES * PAGE);
    let named = on_disk(&content);
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        fs::write(named.path(), &content).unwrap();
        let file = Arc::new(named.reopen().unwrap());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut dice = Dice::new(2);
                while !over.load(Ordering::Relaxed) {
                    // Longer and shorter. What comes again is zero.
                    named.as_file().set_len(dice.below(PAGES * PAGE)).unwrap();
                    named.as_file().sync_data().unwrap();
                    evict(named.as_file());
                }
            });
            let mut dice = Dice::new(3);
            for _ in 0..100 {
                let mut asked = Vec::new();
                for key in 0..16 {
                    let (offset, len) = (dice.below(PAGES * PAGE), 1 + dice.below(8 * PAGE));
                    let op = a_read(&mut dice, &file, offset, len);
                    bench.submit(op, key);
                    asked.push(offset);
                }
                for _ in 0..16 {
                    let completion = bench.next();
                    let offset = asked[completion.key as usize] as usize;
                    for (at, byte) in data(completion).into_iter().enumerate() {
                        let had = content[offset + at];
                        assert!(byte == 0 || byte == had, "{name}: {byte} at {}", offset + at);
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        let now = fs::read(named.path()).unwrap();
        let read = Read::new(file, 0, Vec::with_capacity((PAGES * PAGE) as usize));
        assert!(data(bench.complete(read)) == now, "{name}");
    }
}

/// How often this thread gave the processor up of itself, which is what waiting is.
fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Reads every page of a cold file, 32 at a time; says how often this thread slept, and how many pages
/// came by each way. It asks for what is there until there is something, so that every sleep is one
/// within submission or harvest.
fn read_cold(bench: &mut Bench, path: &Path, pages: u64, looks: bool) -> (u64, HashMap<Way, u32>) {
    let file = Arc::new(File::open(path).unwrap());
    fadvise(&file, 0, None, Advice::Random).unwrap();
    evict(&file);
    let (mut next, mut taken, mut ways) = (0, 0, HashMap::new());
    let before = sleeps();
    while taken < pages {
        while next < pages && next - taken < 32 {
            let read = Read::new(file.clone(), next * PAGE, Vec::with_capacity(PAGE as usize));
            bench.submit(if looks { read } else { read.cold() }, next);
            next += 1;
        }
        bench.turn();
        while let Some(completion) = bench.queue.next() {
            *ways.entry(completion.way).or_default() += 1;
            let (at, page) = (completion.key * PAGE, data(completion));
            assert!(
                (at..).zip(&page).all(|(at, byte)| *byte == (at ^ (at >> 8) ^ (at >> 16)) as u8)
            );
            taken += 1;
        }
        thread::yield_now();
    }
    (sleeps() - before, ways)
}

#[test]
fn neither_submission_nor_harvest_sleeps_for_a_cold_file() {
    let pages = 1000;
    let named = on_disk(&pattern(pages * PAGE));
    if !can_evict(named.as_file()) {
        return;
    }
    for looks in [false, true] {
        for (name, builder) in honest() {
            let mut bench = Bench::new(builder);
            let (slept, ways) = read_cold(&mut bench, named.path(), pages, looks);
            println!("{name}: {pages} cold reads, slept {slept} times, {ways:?}");
            let waited = ways.iter().filter(|(way, _)| **way != Way::Inline).map(|(_, n)| n);
            assert!(waited.sum::<u32>() > 500, "{name}: the file was not cold: {ways:?}");
            // A lock that a worker holds just then may be waited for. A read that is waited for would
            // count once for each page.
            assert!(slept < pages / 20, "{name}: slept {slept} times in {pages} reads");
        }
    }
}
