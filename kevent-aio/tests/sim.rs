//! The engine in a simulated queue: bad luck from a seed, and no time but made-up time.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::{Aio, Completion, Op, Read, Way, Write, testing};
use kevent_core::testing::Sim;
use kevent_core::{Queue, SourceId};

/// The program: copies a file in pieces, all at a time, and tries again what failed or fell short.
struct Copy {
    queue: Queue<Completion>,
    aio: SourceId<Aio>,
    from: Arc<File>,
    to: Arc<File>,
    /// When, which piece, and what came of it.
    log: Vec<(Instant, u64, Result<u64, ErrorKind>)>,
}

const PIECE: u64 = 1000;

impl Copy {
    fn run(&mut self, pieces: u64) {
        (0..pieces).for_each(|piece| self.read(piece * PIECE, PIECE));
        while self.queue[self.aio].in_flight() > 0 {
            self.queue.wait(None).unwrap();
            while let Some(completion) = self.queue.next() {
                self.done(completion);
            }
        }
    }

    fn read(&mut self, offset: u64, length: u64) {
        let buffer = Vec::with_capacity(length as usize);
        let read = Read::new(self.from.clone(), offset, buffer).cold();
        self.queue[self.aio].submit(read, offset).unwrap();
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        let write = Write::new(self.to.clone(), offset, bytes);
        self.queue[self.aio].submit(write, offset).unwrap();
    }

    fn done(&mut self, completion: Completion) {
        let Completion { key: offset, result, op, .. } = completion;
        let what = result.as_ref().copied().map_err(io::Error::kind);
        self.log.push((self.queue.clock().now(), offset, what));
        // The end of the piece, wherever this part of it begins.
        let end = (offset / PIECE + 1) * PIECE;
        match (*op, result) {
            (Op::Read(read), Ok(n)) => {
                let mut bytes = read.into_buffer();
                bytes.truncate(n as usize);
                if offset + n < end {
                    self.read(offset + n, end - offset - n);
                }
                self.write(offset, bytes);
            }
            (Op::Read(_), Err(_)) => self.read(offset, end - offset),
            (Op::Write(write), result) => {
                let bytes = write.into_buffer();
                let n = result.unwrap_or(0);
                if n < bytes.len() as u64 {
                    self.write(offset + n, bytes[n as usize..].to_vec());
                }
            }
            other => panic!("not submitted: {other:?}"),
        }
    }
}

/// What came of it, by the microsecond.
type Trace = Vec<(u128, u64, Result<u64, ErrorKind>)>;

fn copy(seed: u64) -> Trace {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..20 * PIECE).map(|n| (n % 251) as u8).collect();
    std::fs::write(dir.path().join("from"), &content).unwrap();
    let sim = Sim::new(seed);
    let mut queue = sim.queue().unwrap();
    let aio = testing::lying(Aio::builder(), seed).build().unwrap();
    let aio = queue.attach(aio, |completion| completion).unwrap();
    let from = Arc::new(File::open(dir.path().join("from")).unwrap());
    let to = Arc::new(File::create(dir.path().join("to")).unwrap());
    let (begun, log) = (sim.now(), Vec::new());
    let mut copy = Copy { queue, aio, from, to, log };
    copy.run(20);
    assert_eq!(std::fs::read(dir.path().join("to")).unwrap(), content);
    let micros = |at: Instant| (at - begun).as_micros();
    copy.log.iter().map(|(at, piece, what)| (micros(*at), *piece, *what)).collect()
}

#[test]
fn same_seed_is_the_same_bad_luck_at_the_same_times() {
    let mut traces = HashSet::new();
    for seed in 0..20 {
        let trace = copy(seed);
        assert!(trace.iter().any(|(.., what)| what.is_err()), "nothing failed");
        assert!(trace.iter().any(|(.., what)| what.is_ok_and(|n| n < PIECE)), "none was short");
        assert!(trace.last().unwrap().0 > 100, "nothing was late");
        assert_eq!(copy(seed), trace);
        traces.insert(trace);
    }
    assert_eq!(traces.len(), 20, "and another seed is another run");
}

#[test]
fn honest_engine_takes_no_time_and_no_thread() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let aio = queue.attach(Aio::new().unwrap(), |completion| completion).unwrap();
    let file = Arc::new(File::open("/proc/self/status").unwrap());
    queue[aio].submit(Read::new(file, 0, Vec::with_capacity(5)).cold(), 7).unwrap();
    assert_eq!(queue.wait(None).unwrap(), 1);
    let completion = queue.next().unwrap();
    assert_eq!((completion.key, completion.result.unwrap(), completion.way), (7, 5, Way::Pool));
    assert_eq!(sim.elapsed(), Duration::ZERO);
}

#[test]
fn what_a_simulation_has_not_done_is_done_in_the_queue_that_follows_it() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let engine = testing::lying(Aio::builder(), 1).build().unwrap();
    let aio = queue.attach(engine, |completion| completion).unwrap();
    let file = Arc::new(File::open("/proc/self/status").unwrap());
    for key in 0..20 {
        let read = Read::new(file.clone(), 0, Vec::with_capacity(5)).cold();
        queue[aio].submit(read, key).unwrap();
    }
    // The clock stands still from here on.
    let engine = queue.detach(aio).unwrap();
    let mut queue = Queue::new().unwrap();
    let aio = queue.attach(engine, |completion| completion).unwrap();
    while queue[aio].in_flight() > 0 {
        assert!(queue.wait(Duration::from_secs(20)).unwrap() > 0, "they are not begun");
        while queue.next().is_some() {}
    }
}

#[test]
fn deadlines_are_those_of_made_up_time() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let engine = testing::lying(Aio::builder(), 1).build().unwrap();
    let aio = queue.attach(engine, |completion| completion).unwrap();
    let file = Arc::new(File::open("/proc/self/status").unwrap());
    let deadline = sim.now() + Duration::from_micros(50);
    for key in 0..100 {
        let read = Read::new(file.clone(), 0, Vec::with_capacity(5)).cold();
        queue[aio].submit_until(read, key, deadline).unwrap();
    }
    let mut late = 0;
    while queue[aio].in_flight() > 0 {
        queue.wait(None).unwrap();
        while let Some(completion) = queue.next() {
            if completion.result.is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
                assert_eq!(sim.now(), deadline);
                late += 1;
            }
        }
    }
    // They take up to 200 us each, all at once.
    assert!((50..100).contains(&late), "{late} of 100 were late");
    assert_eq!(sim.now(), deadline);
}

#[test]
fn injected_completion_comes_with_its_error() {
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let aio = queue.attach(Aio::new().unwrap(), |completion| completion).unwrap();
    let file = Arc::new(File::open("/proc/self/status").unwrap());
    sim.at(Duration::from_secs(3), move |sim| {
        let read = Read::new(file, 0, Vec::new());
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        sim.inject(aio, None, Completion::for_test(9, read, Err(full)));
    });
    queue.wait(None).unwrap();
    let completion = queue.next().unwrap();
    assert_eq!(completion.key, 9);
    assert_eq!(completion.result.unwrap_err().kind(), ErrorKind::StorageFull);
}
