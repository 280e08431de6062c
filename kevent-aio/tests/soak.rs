//! Random operations on random files, against a model in memory; cancelled, too late, and forgotten at
//! random. Every byte is looked at, every completion comes once, and nothing is left behind. A process of
//! its own, since it counts descriptors and memory.
//!
//! `SOAK_OPERATIONS=10000000 SOAK_SEED=7 cargo test --release -p kevent-aio --test soak` makes so many on
//! each backend, with the chance of that seed.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::counted::{becomes, open_descriptors};
use common::{Bench, PATIENCE, honest};
use kevent_aio::{
    Aio, Builder, Close, Completion, Fallocate, Fdatasync, Fsync, Op, Open, Read, ReadVectored,
    Sendfile, Statx, Write, WriteVectored, testing,
};
use kevent_core::Token;
use kevent_core::testing::Dice;
use tempfile::TempDir;

/// The operations of the usual run, on each backend.
const OPERATIONS: u64 = 20_000;

/// The most bytes of a file.
const LONGEST: u64 = 16 * 1024;

/// Operations from one time of quiet to the next.
const ROUND: u64 = 500;

/// Operations in flight.
const DEPTH: usize = 64;

/// A file, and what it should hold.
struct Subject {
    path: PathBuf,
    file: Arc<File>,
    model: Vec<u8>,
    /// How many operations work on it.
    users: u32,
    /// What one of them writes, and where.
    written: Option<(u64, Vec<u8>)>,
}

impl Subject {
    fn new(path: PathBuf) -> Subject {
        let mut options = File::options();
        let file = options.create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        Subject { path, file: Arc::new(file), model: Vec::new(), users: 0, written: None }
    }

    /// A write is over, of which `told` bytes are said to be written: these are, and of the rest each is as
    /// it was or as it was to be. What is there counts from now on.
    fn settle(&mut self, told: u64) {
        let Some((offset, data)) = self.written.take() else { return };
        let (now, offset) = (fs::read(&self.path).unwrap(), offset as usize);
        let (told, end) = (offset + told as usize, offset + data.len());
        let least = self.model.len().max(if told > offset { told } else { 0 });
        assert!((least..=end.max(self.model.len())).contains(&now.len()), "{}", now.len());
        for (at, byte) in now.iter().enumerate() {
            let was = self.model.get(at).copied().unwrap_or(0);
            let right = match data.get(at.wrapping_sub(offset)) {
                Some(wanted) if at >= offset && at < told => byte == wanted,
                Some(wanted) if at >= offset => *byte == was || byte == wanted,
                _ => *byte == was,
            };
            assert!(right, "byte {at} of {:?} is {byte} and was {was}", self.path);
        }
        self.model = now;
    }

    /// What is to be read from there.
    fn expected(&self, offset: u64, len: u64) -> &[u8] {
        let end = self.model.len().min((offset + len) as usize);
        &self.model[end.min(offset as usize)..end]
    }
}

/// What an operation is to come to.
enum Expected {
    Bytes(u64, u64),
    /// The same, sent to the other end of this.
    Sent(u64, u64, UnixStream),
    Size,
    Opened,
    Written,
    Nothing,
}

struct Waiting {
    subject: usize,
    expected: Expected,
    cancelled: bool,
    has_deadline: bool,
}

struct Soak {
    bench: Bench,
    dice: Dice,
    subjects: Vec<Subject>,
    waiting: HashMap<Token, Waiting>,
    /// Those that nobody waits for.
    forgotten: Vec<usize>,
    lies: bool,
    done: u64,
    _folder: TempDir,
}

impl Soak {
    fn new(builder: Builder, lies: bool, seed: u64) -> Soak {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let subjects = (0..8).map(|n| Subject::new(folder.path().join(n.to_string()))).collect();
        let (bench, dice) = (Bench::new(builder), Dice::new(seed));
        let (waiting, forgotten) = (HashMap::new(), Vec::new());
        Soak { bench, dice, subjects, waiting, forgotten, lies, done: 0, _folder: folder }
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let salt = self.dice.bits();
        (0..len).map(|n| (n.wrapping_mul(31) ^ salt ^ (salt >> 8)) as u8).collect()
    }

    /// One of the operations that leave the file as it is.
    fn an_operation_that_looks(&mut self, subject: usize) -> (Op, Expected) {
        let (offset, len) = (self.dice.below(LONGEST), 1 + self.dice.below(LONGEST / 2));
        let Subject { file, path, .. } = &self.subjects[subject];
        let file = file.clone();
        let room = |len: u64| Vec::with_capacity(len as usize);
        match self.dice.below(9) {
            0 => (Read::new(file, offset, room(len)).into(), Expected::Bytes(offset, len)),
            1 | 2 => {
                (Read::new(file, offset, room(len)).cold().into(), Expected::Bytes(offset, len))
            }
            3 => {
                let first = self.dice.below(len + 1);
                let rooms = vec![room(first), room(len - first)];
                (ReadVectored::new(file, offset, rooms).into(), Expected::Bytes(offset, len))
            }
            4 => {
                let (near, far) = UnixStream::pair().unwrap();
                near.set_nonblocking(true).unwrap();
                let send = Sendfile::new(Arc::new(near), file, offset, len);
                (send.into(), Expected::Sent(offset, len, far))
            }
            5 => (Statx::of(file).into(), Expected::Size),
            6 => (Open::new(path).into(), Expected::Opened),
            7 => (Close::new(File::open(path).unwrap()).into(), Expected::Nothing),
            _ if self.dice.flip() => (Fsync::new(file).into(), Expected::Nothing),
            _ => (Fdatasync::new(file).into(), Expected::Nothing),
        }
    }

    /// One of those that change it.
    fn an_operation_that_writes(&mut self, subject: usize) -> (Op, Expected) {
        let (offset, len) = (self.dice.below(LONGEST / 2), 1 + self.dice.below(LONGEST / 2));
        let data = self.bytes(len);
        let subject = &mut self.subjects[subject];
        let file = subject.file.clone();
        let end = subject.model.len() as u64;
        let (offset, data, op) = match self.dice.below(4) {
            0 if end + len <= LONGEST => {
                (end, vec![0; len as usize], Fallocate::new(file, end, len).into())
            }
            1 => {
                let parts = data.chunks(1000).map(<[u8]>::to_vec).collect();
                (offset, data, WriteVectored::new(file, offset, parts).into())
            }
            _ => (offset, data.clone(), Write::new(file, offset, data).into()),
        };
        subject.written = Some((offset, data));
        (op, Expected::Written)
    }

    /// Submits one operation, and perhaps does not let it be.
    fn submit(&mut self) {
        let subject = self.dice.below(self.subjects.len() as u64) as usize;
        if self.subjects[subject].written.is_some() {
            return;
        }
        let writes = self.subjects[subject].users == 0 && self.dice.below(3) > 0;
        let (op, expected) = if writes {
            self.an_operation_that_writes(subject)
        } else {
            self.an_operation_that_looks(subject)
        };
        self.subjects[subject].users += 1;
        let has_deadline = self.dice.below(8) == 0;
        let deadline = Instant::now() + Duration::from_micros(self.dice.below(300));
        let aio = self.bench.aio();
        let taken =
            if has_deadline { aio.submit_until(op, 0, deadline) } else { aio.submit(op, 0) };
        let token = taken.map_err(|refused| refused.error).unwrap();
        let waiting = Waiting { subject, expected, cancelled: false, has_deadline };
        self.waiting.insert(token, waiting);
        self.done += 1;
    }

    /// Cancels or forgets one that is in flight.
    fn disturb(&mut self) {
        let nth = self.dice.below(self.waiting.len().max(1) as u64) as usize;
        let Some((&token, waiting)) = self.waiting.iter_mut().nth(nth) else { return };
        match self.dice.below(3) {
            0 => {
                assert!(self.bench.queue[self.bench.id].abandon(token));
                self.forgotten.push(waiting.subject);
                self.waiting.remove(&token);
            }
            _ => {
                self.bench.queue[self.bench.id].cancel(token);
                waiting.cancelled = true;
            }
        }
    }

    /// Looks at what one operation came to.
    fn judge(&mut self, mut completion: Completion) {
        let waiting = self.waiting.remove(&completion.token).expect("a completion comes once");
        let subject = &mut self.subjects[waiting.subject];
        subject.users -= 1;
        let errno = completion.result.as_ref().err().map(|error| error.raw_os_error());
        if let Some(errno) = errno {
            let excused = match errno {
                Some(libc::ECANCELED) => waiting.cancelled,
                Some(libc::ETIMEDOUT) => waiting.has_deadline,
                Some(libc::EIO | libc::EAGAIN) => self.lies,
                _ => false,
            };
            assert!(excused, "{completion:?}");
        }
        let count = completion.result.as_ref().copied().unwrap_or(0);
        let judge_bytes = |wanted: &[u8], got: &[u8]| {
            assert!(wanted.starts_with(got), "{completion:?}");
            let all = got.len() == wanted.len() || self.lies && !got.is_empty();
            assert!(all || errno.is_some(), "{} of {}", got.len(), wanted.len());
        };
        match (&waiting.expected, &*completion.op) {
            (Expected::Written, op) => {
                let all = subject.written.as_ref().map_or(0, |(_, data)| data.len() as u64);
                let told = match op {
                    _ if errno.is_some() => 0,
                    Op::Fallocate(_) => all,
                    _ => count,
                };
                assert!(told == all || self.lies || errno.is_some(), "{told} of {all}");
                subject.settle(told);
            }
            (Expected::Bytes(offset, len), Op::Read(read)) => {
                judge_bytes(subject.expected(*offset, *len), read.data());
            }
            (Expected::Sent(offset, len, far), Op::Sendfile(send)) => {
                let mut got = vec![0; send.sent().total() as usize];
                let mut far = far;
                far.read_exact(&mut got).unwrap();
                judge_bytes(subject.expected(*offset, *len), &got);
            }
            (Expected::Size, Op::Statx(statx)) if errno.is_none() => {
                assert_eq!(statx.stat().unwrap().size, subject.model.len() as u64);
            }
            _ => {}
        }
        match (waiting.expected, &mut *completion.op) {
            (Expected::Bytes(offset, len), Op::ReadVectored(_)) => {
                let Op::ReadVectored(read) = *completion.op else { return };
                let got = read.into_buffers().concat();
                assert!(subject.expected(offset, len).starts_with(&got));
                assert_eq!(got.len() as u64, count);
            }
            (Expected::Opened, Op::Open(open)) => {
                assert_eq!(open.take().is_some(), errno.is_none());
            }
            _ => {}
        }
    }

    /// Waits until nothing is in flight, and compares everything.
    fn quiet(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.bench.aio().in_flight() > 0 {
            assert!(Instant::now() < deadline, "{} never come", self.bench.aio().in_flight());
            if let Some(completion) = self.bench.next_within(Duration::from_millis(1)) {
                self.judge(completion);
            }
        }
        assert!(self.waiting.is_empty(), "lost: {}", self.waiting.len());
        for subject in std::mem::take(&mut self.forgotten) {
            self.subjects[subject].users -= 1;
            self.subjects[subject].settle(0);
        }
        for subject in &self.subjects {
            assert_eq!(subject.users, 0);
            assert!(fs::read(&subject.path).unwrap() == subject.model, "{:?}", subject.path);
        }
    }

    fn run(&mut self, operations: u64) {
        while self.done < operations {
            let until = self.done + ROUND;
            // Files of forgotten writes rest until it is quiet; it may be that there are no others.
            for _ in 0..4 * ROUND {
                if self.bench.aio().in_flight() < DEPTH && self.done < until {
                    self.submit();
                }
                if self.dice.below(8) == 0 {
                    self.disturb();
                }
                if self.dice.flip() {
                    self.bench.turn();
                }
                while let Some(completion) = self.bench.queue.next() {
                    self.judge(completion);
                }
            }
            self.quiet();
        }
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// KiB of memory that this process has in use.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn random_operations_keep_what_they_promise_and_leave_nothing_behind() {
    let (operations, seed) = (number("SOAK_OPERATIONS", OPERATIONS), number("SOAK_SEED", 1));
    // A sanitizer keeps what was freed for a while.
    let growth = number("SOAK_GROWTH_KIB", 4096);
    let liar = ("liar", testing::lying(Aio::builder(), seed));
    for (name, builder) in honest().into_iter().chain([liar]) {
        let descriptors = open_descriptors();
        let mut soak = Soak::new(builder.threads(4), name == "liar", seed);
        // As much memory as it needs, it has by then.
        soak.run(operations / 4);
        let (before, begun) = (memory(), open_descriptors());
        soak.run(operations);
        assert_eq!(open_descriptors(), begun, "{name}");
        let after = memory();
        assert!(after < before + growth, "{name}: {before} KiB, and in the end {after}");
        println!("{name}, seed {seed}: {} operations, {}", soak.done, soak.bench.aio().report());
        // Dropped in the middle of it.
        (0..DEPTH).for_each(|_| soak.submit());
        drop(soak);
        becomes(name, descriptors, open_descriptors);
    }
}
