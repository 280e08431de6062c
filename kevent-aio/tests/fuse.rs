//! Files on a file system that fails on command: the engine says what the system calls say, on every
//! backend, and what is stuck keeps nothing else waiting.

#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Bench, PATIENCE, honest};
use faulty::{Cache, Call, Fate, Fault, Faulty};
use kevent_aio::{
    Aio, Buffers, Cancel, Choice, Completion, Fallocate, Fdatasync, Fsync, Op, Open, Read,
    ReadVectored, Sendfile, Statx, Write, WriteVectored,
};

const PAGE: u64 = 4096;

/// So many pages have the files that fail.
const PAGES: u64 = 8;

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// What a program asks for, of the kernel or of an engine.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Open,
    Create,
    Stat,
    Read(u64, u64),
    /// In buffers of a page and a half.
    ReadVectored(u64, u64),
    Write(u64, u64),
    WriteVectored(u64, u64),
    Fsync,
    Fdatasync,
    Fallocate(u64, u64),
}

/// A number and what was read, or the number of an error.
type Answer = Result<(u64, Vec<u8>), i32>;

fn nothing(result: io::Result<()>) -> io::Result<(u64, Vec<u8>)> {
    result.map(|()| (0, Vec::new()))
}

/// The answer of the system calls.
fn by_calls(ask: Ask, path: &Path, file: &File) -> Answer {
    let answer = || match ask {
        Ask::Open => nothing(File::open(path).map(drop)),
        Ask::Create => {
            nothing(File::options().create(true).truncate(false).write(true).open(path).map(drop))
        }
        Ask::Stat => file.metadata().map(|stat| (stat.len(), Vec::new())),
        Ask::Read(offset, len) | Ask::ReadVectored(offset, len) => {
            let mut buffer = vec![0; len as usize];
            file.read_at(&mut buffer, offset).map(|count| {
                buffer.truncate(count);
                (count as u64, buffer)
            })
        }
        Ask::Write(offset, len) | Ask::WriteVectored(offset, len) => {
            file.write_at(&pattern(len), offset).map(|count| (count as u64, Vec::new()))
        }
        Ask::Fsync => nothing(file.sync_all()),
        Ask::Fdatasync => nothing(file.sync_data()),
        Ask::Fallocate(offset, len) => nothing(
            rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, len)
                .map_err(io::Error::from),
        ),
    };
    loop {
        match answer().map_err(|error| error.raw_os_error().unwrap()) {
            Err(libc::EINTR) => {}
            answer => return answer,
        }
    }
}

fn rooms(len: u64) -> Vec<Vec<u8>> {
    let size = PAGE + PAGE / 2;
    (0..len)
        .step_by(size as usize)
        .map(|at| Vec::with_capacity(size.min(len - at) as usize))
        .collect()
}

fn parts(len: u64) -> Vec<Vec<u8>> {
    pattern(len).chunks(1000).map(<[u8]>::to_vec).collect()
}

fn operation(ask: Ask, path: &Path, file: &Arc<File>) -> Op {
    let file = file.clone();
    match ask {
        Ask::Open => Open::new(path).into(),
        Ask::Create => Open::new(path).write_only().create(0o600).into(),
        Ask::Stat => Statx::of(file).sync().into(),
        Ask::Read(offset, len) => Read::new(file, offset, Vec::with_capacity(len as usize)).into(),
        Ask::ReadVectored(offset, len) => ReadVectored::new(file, offset, rooms(len)).into(),
        Ask::Write(offset, len) => Write::new(file, offset, pattern(len)).into(),
        Ask::WriteVectored(offset, len) => WriteVectored::new(file, offset, parts(len)).into(),
        Ask::Fsync => Fsync::new(file).into(),
        Ask::Fdatasync => Fdatasync::new(file).into(),
        Ask::Fallocate(offset, len) => Fallocate::new(file, offset, len).into(),
    }
}

/// The answer that a completion tells.
fn answer(completion: Completion) -> Answer {
    let count = completion.result.map_err(|error| error.raw_os_error().unwrap())?;
    Ok(match *completion.op {
        Op::Read(read) => (count, read.into_buffer()),
        Op::ReadVectored(read) => (count, read.into_buffers().concat()),
        Op::Statx(statx) => (statx.stat().unwrap().size, Vec::new()),
        Op::Open(_) => (0, Vec::new()),
        _ => (count, Vec::new()),
    })
}

/// Asks for all that, of the kernel, and of every engine on a file that is as fresh, and compares.
fn same_by_every_way(fs: &Faulty, faults: &[Fault], asks: &[Ask]) {
    for cache in [Cache::Pages, Cache::Nothing] {
        let fresh = |who: &str| {
            let name = format!("{who}-{cache:?}-{:?}", Instant::now());
            fs.faults(&[]);
            let path = fs.file(&name, &pattern(PAGES * PAGE), cache);
            let file = Arc::new(File::options().read(true).write(true).open(&path).unwrap());
            fs.faults(faults);
            (name, path.with_extension("new"), path, file)
        };
        fn choose<'a>(ask: Ask, new: &'a Path, old: &'a Path) -> &'a Path {
            if matches!(ask, Ask::Create) { new } else { old }
        }

        let (name, new, old, file) = fresh("calls");
        let wanted = asks
            .iter()
            .map(|ask| by_calls(*ask, choose(*ask, &new, &old), &file))
            .collect::<Vec<_>>();
        let content = fs.content(&name);
        for (engine, builder) in honest() {
            let mut bench = Bench::new(builder);
            let (name, new, old, file) = fresh(engine);
            for (ask, wanted) in asks.iter().zip(&wanted) {
                let op = operation(*ask, choose(*ask, &new, &old), &file);
                let got = &answer(bench.complete(op));
                let brief = |answer: &Answer| answer.as_ref().map(|(n, _)| *n).map_err(|e| *e);
                assert_eq!(brief(got), brief(wanted), "{engine}, {cache:?}: {ask:?}, {faults:?}");
                assert!(got == wanted, "{engine}, {cache:?}: {ask:?}, {faults:?}: other bytes");
            }
            assert!(fs.content(&name) == content, "{engine}, {cache:?}: {asks:?}, {faults:?}");
            assert_eq!(bench.aio().in_flight(), 0);
        }
        fs.faults(&[]);
    }
}

/// The whole file, in parts, and every way to write to it.
const EVERYTHING: [Ask; 12] = [
    Ask::Open,
    Ask::Create,
    Ask::Stat,
    Ask::Read(0, PAGES * PAGE),
    Ask::Read(3 * PAGE, PAGE),
    Ask::ReadVectored(2 * PAGE, 3 * PAGE),
    Ask::Write(PAGE / 2, 4 * PAGE),
    Ask::WriteVectored(3 * PAGE, 100),
    Ask::Fsync,
    Ask::Fdatasync,
    Ask::Fallocate(0, 2 * PAGES * PAGE),
    Ask::Read(0, 3 * PAGES * PAGE),
];

/// What each of them comes down to.
const CALLS: [Call; 6] =
    [Call::Open, Call::Stat, Call::Read, Call::Write, Call::Fsync, Call::Fallocate];

/// The ring's ways to say that it did not do it.
const OF_THE_RING: [i32; 4] = [libc::ECANCELED, libc::EINVAL, libc::EAGAIN, libc::EOPNOTSUPP];

#[test]
fn every_error_is_that_of_the_system_call() {
    let Some(fs) = Faulty::mount() else { return };
    same_by_every_way(&fs, &[], &EVERYTHING);
    let errnos = [
        libc::EIO,
        libc::ESTALE,
        libc::ENOSPC,
        libc::EFBIG,
        libc::EDQUOT,
        libc::EACCES,
        libc::ENOENT,
        libc::ETIMEDOUT,
    ];
    for errno in errnos.into_iter().chain(OF_THE_RING) {
        let faults = CALLS.map(|call| Fault::always(call, Fate::Fails(errno)));
        same_by_every_way(&fs, &faults, &EVERYTHING);
        // And one that passes: of fsync it is told once, and not hidden by another try. Stale names the
        // kernel tries again, and what may be the ring's own error the engine.
        let faults = CALLS.map(|call| Fault::always(call, Fate::Fails(errno)).once());
        let is_tried_again = errno == libc::ESTALE || OF_THE_RING.contains(&errno);
        if !is_tried_again {
            same_by_every_way(&fs, &faults, &[EVERYTHING, EVERYTHING].concat());
        }
    }
}

#[test]
fn interrupted_calls_are_made_again() {
    let Some(fs) = Faulty::mount() else { return };
    let faults = CALLS.map(|call| Fault::always(call, Fate::Fails(libc::EINTR)).once());
    same_by_every_way(&fs, &faults, &EVERYTHING);
}

#[test]
fn bad_page_among_good_ones_is_told_as_by_the_system_call() {
    let Some(fs) = Faulty::mount() else { return };
    let all = PAGES * PAGE;
    let asks = [
        Ask::Read(0, all),
        Ask::Read(2 * PAGE, PAGE),
        Ask::Read(3 * PAGE - 1, 2),
        Ask::Read(3 * PAGE, all),
        Ask::Read(4 * PAGE, all),
        Ask::ReadVectored(PAGE, all),
        Ask::ReadVectored(3 * PAGE, all),
    ];
    let bad = |page: u64| {
        Fault::always(Call::Read, Fate::Fails(libc::EIO)).at(page * PAGE..(page + 1) * PAGE)
    };
    for faults in [vec![bad(3)], vec![bad(0)], vec![bad(7)], vec![bad(1), bad(3)]] {
        same_by_every_way(&fs, &faults, &asks);
    }
    let full = Fault::always(Call::Write, Fate::Fails(libc::ENOSPC)).at(3 * PAGE..u64::MAX);
    let asks = [
        Ask::Write(0, all),
        Ask::Write(2 * PAGE, PAGE),
        Ask::Write(2 * PAGE + 1, PAGE),
        Ask::WriteVectored(3 * PAGE, 100),
        Ask::Read(0, all),
    ];
    same_by_every_way(&fs, &[full], &asks);
}

#[test]
fn short_counts_are_those_of_the_system_call() {
    let Some(fs) = Faulty::mount() else { return };
    for most in [0, 1, 1000, 4096, 10_000] {
        for call in [Call::Read, Call::Write] {
            let short = Fault::always(call, Fate::Short(most));
            same_by_every_way(&fs, std::slice::from_ref(&short), &EVERYTHING);
            // A write that wrote nothing is tried again by a thread.
            if most > 0 {
                same_by_every_way(&fs, &[short.once()], &EVERYTHING);
            }
        }
    }
}

/// An open file of so many pages.
fn open(fs: &Faulty, name: &str, cache: Cache) -> Arc<File> {
    let path = fs.file(name, &pattern(PAGES * PAGE), cache);
    Arc::new(File::options().read(true).write(true).open(path).unwrap())
}

fn page_of(file: &Arc<File>, page: u64) -> Read {
    Read::new(file.clone(), page * PAGE, Vec::with_capacity(PAGE as usize))
}

/// What the read of that page should have brought.
fn is_page(completion: Completion, page: u64) -> bool {
    let at = (page * PAGE) as usize;
    answer(completion) == Ok((PAGE, pattern(PAGES * PAGE)[at..at + PAGE as usize].to_vec()))
}

/// Everything of a file waits for an answer.
fn nobody_answers() -> Vec<Fault> {
    CALLS.map(|call| Fault::always(call, Fate::Waits)).to_vec()
}

#[test]
fn what_is_stuck_keeps_nothing_else_waiting() {
    let Some(fs) = Faulty::mount() else { return };
    for (cache, looks) in [
        (Cache::Pages, true),
        (Cache::Pages, false),
        (Cache::Nothing, true),
        (Cache::Nothing, false),
    ] {
        for (name, builder) in honest() {
            let mut bench = Bench::new(builder);
            let [stuck, written, other] =
                ["stuck", "written", "other"].map(|n| open(&fs, n, cache));
            let disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            std::fs::write(disk.path(), pattern(PAGES * PAGE)).unwrap();
            let disk = Arc::new(File::options().read(true).write(true).open(&disk).unwrap());
            fs.faults(&[
                Fault::always(Call::Read, Fate::Waits).at(0..PAGE).once(),
                Fault::always(Call::Write, Fate::Waits).once(),
                Fault::always(Call::Fsync, Fate::Waits).once(),
                Fault::always(Call::Open, Fate::Waits).once(),
            ]);
            let read = if looks { page_of(&stuck, 0) } else { page_of(&stuck, 0).cold() };
            bench.submit(read, 1000);
            bench.turn();
            fs.wait_held(1);
            bench.submit(Fsync::new(stuck.clone()), 1001);
            bench.submit(Open::new(fs.path("other")), 1002);
            bench.submit(Write::new(written, 0, "x"), 1003);
            let in_flight = bench.aio().in_flight();
            bench.turn();
            fs.wait_held(in_flight);
            // Everything else goes on, by number of completions: none of the stuck is among them.
            for _ in 0..50 {
                for (key, file) in [&disk, &other].into_iter().cycle().take(8).enumerate() {
                    bench.submit(page_of(file, key as u64 % PAGES), key as u64);
                }
                for _ in 0..8 {
                    let completion = bench.next();
                    let key = completion.key;
                    assert!(key < 8 && is_page(completion, key), "{name}, {cache:?}: {key}");
                }
                // The same bytes once more.
                let write = Write::new(disk.clone(), 0, pattern(PAGES * PAGE));
                assert_eq!(bench.complete(write).result.unwrap(), PAGES * PAGE, "{name}");
            }
            assert_eq!((bench.aio().in_flight(), fs.held()), (in_flight, in_flight), "{name}");
            fs.release();
            for _ in 0..in_flight {
                let completion = bench.next();
                assert!(completion.result.is_ok(), "{name}, {cache:?}: {completion:?}");
                assert!(completion.key != 1000 || is_page(completion, 0), "{name}, {cache:?}");
            }
            bench.is_silent();
            assert_eq!(bench.aio().in_flight(), 0);
        }
    }
}

#[test]
fn submitting_waits_for_no_write_whatever_the_file_is_opened_for() {
    let Some(fs) = Faulty::mount() else { return };
    for (flags, readable) in
        [(0, true), (0, false), (libc::O_DIRECT, true), (libc::O_DIRECT, false)]
    {
        for (name, builder) in honest() {
            let path = fs.file("file", &pattern(PAGES * PAGE), Cache::Pages);
            let mut options = File::options();
            let file = options.read(readable).write(true).custom_flags(flags).open(path).unwrap();
            let file: Arc<File> = Arc::new(file);
            let buffers = Buffers::new(NonZero::<usize>::MIN, NonZero::<usize>::MIN).unwrap();
            let mut aligned = buffers.take().unwrap();
            aligned.resize(PAGE as usize).unwrap();
            fs.faults(&nobody_answers());
            let (submitted, is_submitted) = mpsc::channel();
            let (fs, file) = (&fs, &file);
            thread::scope(|scope| {
                scope.spawn(move || {
                    let mut bench = Bench::new(builder);
                    bench.submit(Write::new(file.clone(), 0, aligned), 1);
                    bench.turn();
                    // Which writes it is to wait for, it finds without asking the server.
                    let copy = Arc::new(file.try_clone().unwrap());
                    bench.submit(Fsync::new(copy).after_writes(), 2);
                    bench.turn();
                    submitted.send(()).unwrap();
                    let ends = [bench.next(), bench.next()].map(|completion| completion.key);
                    assert_eq!(ends, [1, 2], "{name}");
                });
                fs.wait_held(1);
                let in_time = is_submitted.recv_timeout(PATIENCE / 4);
                let held = fs.held();
                fs.release();
                assert!(in_time.is_ok() && held == 1, "{name}, {flags:o}, {readable}: {held}");
            });
        }
    }
}

/// Something of each kind, of files that nobody answers for.
fn stuck_operations(fs: &Faulty) -> Vec<Op> {
    let [read, written, synced] =
        ["read", "written", "synced"].map(|name| open(fs, name, Cache::Nothing));
    fs.file("opened", b"x", Cache::Pages);
    fs.faults(&nobody_answers());
    vec![
        page_of(&read, 0).into(),
        ReadVectored::new(read, PAGE, rooms(PAGE)).into(),
        Write::new(written, 0, "x").into(),
        Fsync::new(synced).into(),
        Open::new(fs.path("opened")).into(),
    ]
}

/// An operation that has nothing to do with it.
fn goes_on(bench: &mut Bench) {
    let status = Arc::new(File::open("/proc/self/status").unwrap());
    let read = Read::new(status, 0, Vec::with_capacity(5));
    assert_eq!(answer(bench.complete(read)), Ok((5, b"Name:".to_vec())));
}

#[test]
fn what_can_not_be_stopped_is_waited_for_by_nobody_and_tells_the_truth() {
    let Some(fs) = Faulty::mount() else { return };
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let ops = stuck_operations(&fs);
        let count = ops.len();
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut tokens = Vec::new();
        for (key, op) in ops.into_iter().enumerate() {
            let submitted = if key % 2 == 0 {
                bench.aio().submit(op, key as u64)
            } else {
                bench.aio().submit_until(op, key as u64, deadline)
            };
            tokens.push(submitted.unwrap());
        }
        bench.turn();
        fs.wait_held(count);
        for token in tokens.iter().step_by(2) {
            assert_eq!(bench.aio().cancel(*token), Cancel::Requested, "{name}");
        }
        // The others' deadline is over before this has come.
        let mut early = Vec::new();
        while early.is_empty() && Instant::now() < deadline {
            early.extend(bench.next_within(Duration::from_millis(1)));
        }
        (0..20).for_each(|_| goes_on(&mut bench));
        fs.release();
        while early.len() < count {
            early.push(bench.next());
        }
        for completion in early {
            let key = completion.key as usize;
            let errno = if key % 2 == 0 { libc::ECANCELED } else { libc::ETIMEDOUT };
            // Done nevertheless, because it could not be stopped; or not done.
            let result = completion.result.as_ref().map_err(|error| error.raw_os_error());
            assert!(result.is_ok() || result == Err(Some(errno)), "{name}: {completion:?}");
            assert!(key > 0 || result.is_err() || is_page(completion, 0), "{name}");
        }
        assert_eq!(bench.aio().in_flight(), 0, "{name}");
        fs.wait_open(0);
    }
}

#[test]
fn what_waits_behind_the_stuck_is_cancelled_at_once() {
    let Some(fs) = Faulty::mount() else { return };
    let mut bench = Bench::new(Aio::builder().backend(Choice::Pool).threads(1));
    let file = open(&fs, "file", Cache::Nothing);
    fs.faults(&nobody_answers());
    bench.submit(page_of(&file, 0), 0);
    fs.wait_held(1);
    let tokens: Vec<_> = (1..10).map(|key| bench.submit(page_of(&file, 1), key)).collect();
    let soon = Instant::now() + Duration::from_millis(1);
    bench.aio().submit_until(page_of(&file, 2), 10, soon).unwrap();
    for token in tokens {
        bench.aio().cancel(token);
    }
    for _ in 1..=10 {
        let completion = bench.next();
        let errno = if completion.key == 10 { libc::ETIMEDOUT } else { libc::ECANCELED };
        assert_eq!(answer(completion), Err(errno));
    }
    assert_eq!((bench.aio().in_flight(), fs.held()), (1, 1));
    fs.release();
    assert!(is_page(bench.next(), 0));
}

#[test]
fn abandoned_open_that_was_stuck_is_closed_when_it_comes() {
    let Some(fs) = Faulty::mount() else { return };
    fs.file("file", b"x", Cache::Pages);
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        fs.faults(&nobody_answers());
        let token = bench.submit(Open::new(fs.path("file")), 1);
        bench.turn();
        fs.wait_held(1);
        assert!(bench.aio().abandon(token), "{name}");
        goes_on(&mut bench);
        fs.release();
        while bench.aio().in_flight() > 0 {
            bench.is_silent();
        }
        fs.wait_open(0);
    }
}

#[test]
fn engine_is_dropped_in_time_whatever_is_stuck() {
    let Some(fs) = Faulty::mount() else { return };
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let ops = stuck_operations(&fs);
        let count = ops.len();
        for op in ops {
            bench.submit(op, 1);
        }
        bench.turn();
        fs.wait_held(count);
        let begun = Instant::now();
        drop(bench);
        assert!(begun.elapsed() < PATIENCE, "{name}: {:?}", begun.elapsed());
        assert_eq!(fs.held(), count, "{name}: somebody answered");
        fs.release();
        // Nor is anything left behind when they are answered after all.
        fs.wait_open(0);
    }
}

#[test]
fn file_system_that_dies_under_them_fails_them_all() {
    for (name, builder) in honest() {
        let Some(fs) = Faulty::mount() else { return };
        let mut bench = Bench::new(builder);
        let ops = stuck_operations(&fs);
        let count = ops.len();
        for (key, op) in ops.into_iter().enumerate() {
            bench.submit(op, key as u64);
        }
        bench.turn();
        fs.wait_held(count);
        fs.die();
        for _ in 0..count {
            let errno = answer(bench.next()).unwrap_err();
            assert!(matches!(errno, libc::ECONNABORTED | libc::ENOTCONN | libc::EIO), "{errno}");
        }
        goes_on(&mut bench);
        assert_eq!(bench.aio().in_flight(), 0, "{name}");
    }
}

#[test]
fn file_that_is_truncated_under_a_read_reads_as_by_the_system_call() {
    let Some(fs) = Faulty::mount() else { return };
    let held = [Fault::always(Call::Read, Fate::Waits).once()];
    for cache in [Cache::Pages, Cache::Nothing] {
        for kept in [0, 100, PAGE + 100, 2 * PAGE] {
            let cut = |name: &str| {
                fs.wait_held(1);
                fs.truncate(name, kept as usize);
                fs.release();
            };
            let name = format!("{cache:?}-{kept}-calls");
            let file = open(&fs, &name, cache);
            fs.faults(&held);
            let read = Ask::Read(PAGE, 2 * PAGE);
            let wanted = thread::scope(|scope| {
                let reader = scope.spawn(|| by_calls(read, Path::new(""), &file));
                cut(&name);
                reader.join().unwrap()
            });
            for (engine, builder) in honest() {
                let mut bench = Bench::new(builder);
                let name = format!("{cache:?}-{kept}-{engine}");
                let file = open(&fs, &name, cache);
                fs.faults(&held);
                bench.submit(operation(read, Path::new(""), &file), 1);
                bench.turn();
                cut(&name);
                assert_eq!(answer(bench.next()), wanted, "{engine}, {cache:?}, {kept}");
            }
        }
    }
}

#[test]
fn stuck_transfer_keeps_neither_others_nor_the_program_waiting() {
    let Some(fs) = Faulty::mount() else { return };
    for cache in [Cache::Pages, Cache::Nothing] {
        for (name, builder) in honest() {
            let mut bench = Bench::new(builder);
            let pages = 64;
            let content = pattern(pages * PAGE);
            let path = fs.file("large", &content, cache);
            let file: Arc<File> = Arc::new(File::open(path).unwrap());
            let other = open(&fs, "other", cache);
            fs.faults(&[Fault::always(Call::Read, Fate::Waits).at(40 * PAGE..u64::MAX)]);
            let mut clients = Vec::new();
            // The second finds pages that the first waits for.
            for key in 0..2 {
                let (server, client) = UnixStream::pair().unwrap();
                server.set_nonblocking(true).unwrap();
                clients.push(thread::spawn(move || {
                    let mut got = Vec::new();
                    (&client).read_to_end(&mut got).unwrap();
                    got
                }));
                let send = Sendfile::new(Arc::new(server), file.clone(), 0, pages * PAGE);
                bench.submit(send.header("head"), 1000 + key);
                let deadline = Instant::now() + PATIENCE;
                let mut turns = 0;
                while fs.held() == 0 || turns < 100 {
                    bench.turn();
                    turns += 1;
                    thread::yield_now();
                    assert!(Instant::now() < deadline, "{name}, {cache:?}: nothing is stuck");
                }
            }
            for key in 0..50 {
                goes_on(&mut bench);
                let page = key % PAGES;
                let read = page_of(&other, page);
                assert!(is_page(bench.complete(read), page), "{name}, {cache:?}");
            }
            assert_eq!(bench.aio().in_flight(), 2, "{name}, {cache:?}");
            fs.release();
            for _ in 0..2 {
                let completion = bench.next();
                assert_eq!(completion.result.unwrap(), 4 + pages * PAGE, "{name}, {cache:?}");
            }
            for client in clients {
                assert!(client.join().unwrap() == [b"head", content.as_slice()].concat());
            }
        }
    }
}

#[test]
fn dozen_of_stuck_calls_leaves_workers_for_others() {
    let Some(fs) = Faulty::mount() else { return };
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let files = [0; 12].map(|_| open(&fs, "file", Cache::Nothing));
        fs.faults(&nobody_answers());
        for file in &files {
            bench.submit(Fsync::new(file.clone()), 1);
        }
        bench.turn();
        let disk: Arc<File> = Arc::new(tempfile::tempfile().unwrap());
        let write = bench.complete(Write::new(disk.clone(), 0, "text"));
        assert_eq!(write.result.unwrap(), 4, "{name}");
        bench.complete(Fsync::new(disk)).result.unwrap();
        assert_eq!(bench.aio().in_flight(), files.len(), "{name}");
        fs.release();
        (0..files.len()).for_each(|_| assert!(bench.next().result.is_ok(), "{name}"));
    }
}
