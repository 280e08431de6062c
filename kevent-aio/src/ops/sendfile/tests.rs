//! The state machine by itself, driven by hand: what it does in which step.

#![allow(unsafe_code)] // getrusage(2), posix_fadvise(2), poll(2), ioctl(2): nothing safe is at hand.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use proptest::prelude::*;

use super::body::SMALL;
use super::*;
use crate::recent::{Cached, Known};
use crate::sys::clock::Moment;
use crate::sys::residency;

/// What a driven transfer did.
#[derive(Debug, Default)]
struct Steps {
    run: u32,
    writable: u32,
    again: u32,
    /// How often the waiting thread slept inside `advance` or `complete`.
    slept: i64,
}

/// Drives an operation to its end as the engine with a pool does.
fn drive(op: &mut Sendfile) -> (io::Result<u64>, Steps) {
    let mut steps = Steps::default();
    let mut step = awake(&mut steps, || op.advance());
    loop {
        step = match step {
            Step::Done(result) => return (result, steps),
            Step::Run => {
                steps.run += 1;
                let outcome = op.run();
                awake(&mut steps, || op.complete(outcome))
            }
            Step::Writable => {
                steps.writable += 1;
                wait_writable(op.socket().unwrap());
                awake(&mut steps, || op.advance())
            }
            Step::Again => {
                steps.again += 1;
                awake(&mut steps, || op.advance())
            }
            Step::Piece | Step::Rest => panic!("it is one thing"),
        };
    }
}

/// Of three runs, which say how often they slept, one has not. What waits for the disk or for a peer does so in each;
/// but the kernel may wait for memory in whichever call, now and then.
fn nobody_sleeps(run: impl Fn() -> i64) {
    assert!((0..3).any(|_| run() == 0), "the waiting thread slept in each of three runs");
}

/// Advances to where the socket is full. Nobody reads from it.
fn fill(op: &mut Sendfile) {
    let mut step = op.advance();
    while matches!(step, Step::Again) {
        step = op.advance();
    }
    assert!(matches!(step, Step::Writable), "{step:?}");
}

/// Counts how often this thread gave the processor up of itself, which is what waiting is.
fn awake<T>(steps: &mut Steps, call: impl FnOnce() -> T) -> T {
    let before = sleeps();
    let value = call();
    steps.slept += sleeps() - before;
    value
}

fn sleeps() -> i64 {
    // SAFETY: zero is a value of every field.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` outlives the call.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw
}

fn wait_writable(socket: BorrowedFd<'_>) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, -1) };
}

fn tcp() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    (Arc::new(server), client)
}

/// Reads all there is, on a thread, until the other end is closed.
fn reader(mut client: impl io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    })
}

/// Bytes that differ from page to page and within each.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// A file on a disk: that of the build, because the system's temporary directory may be a tmpfs.
fn disk_file(data: &[u8]) -> File {
    let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.write_all(data).unwrap();
    file
}

/// Takes the file out of the page cache; `false` where that can't be done.
fn evict(file: &File) -> bool {
    file.sync_all().unwrap();
    // SAFETY: takes no pointers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let length = file.metadata().unwrap().len();
    residency::cached_pages(file.as_fd(), 0, length) == Ok(0)
}

/// Sends it through a TCP connection and gives what arrived.
fn transfer(build: impl FnOnce(Fd) -> Sendfile) -> (Sendfile, io::Result<u64>, Steps, Vec<u8>) {
    let (server, client) = tcp();
    let reader = reader(client);
    let mut op = build(server.clone());
    let (result, steps) = drive(&mut op);
    server.shutdown(Shutdown::Write).unwrap();
    (op, result, steps, reader.join().unwrap())
}

#[test]
fn header_range_and_trailer_arrive_in_order() {
    let data = pattern(100_000);
    let file = Arc::new(disk_file(&data));
    for (offset, length) in [(0, 100_000), (1, 99_999), (4095, 3), (77_777, 20_001), (5, 0)] {
        let (op, result, _, got) = transfer(|socket| {
            Sendfile::new(socket, file.clone(), offset, length).header("head").trailer("tail")
        });
        let body = &data[offset as usize..(offset + length) as usize];
        assert_eq!(got, [b"head", body, b"tail"].concat());
        assert_eq!(result.unwrap(), length + 8);
        assert_eq!(op.end(), Some(End::Complete));
        assert_eq!(op.sent(), Sent { header: 4, body: length, trailer: 4 });
    }
}

#[test]
fn bytes_alone_need_no_file() {
    let (op, result, _, got) = transfer(|socket| Sendfile::bytes(socket, "304").trailer("!"));
    assert_eq!((result.unwrap(), got.as_slice()), (4, b"304!".as_slice()));
    assert_eq!(op.end(), Some(End::Complete));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn exactly_the_range_arrives(
        size in prop_oneof![0..20_000_usize, 0..1_500_000_usize],
        offset in prop_oneof![0..20_000_u64, 0..1_600_000_u64],
        length in prop_oneof![Just(u64::MAX), 0..20_000_u64, 0..1_600_000_u64],
        (head, tail) in (0..3000_usize, 0..3000_usize),
        (on_disk, cold) in any::<(bool, bool)>(),
    ) {
        let data = pattern(size);
        let file = if on_disk {
            disk_file(&data)
        } else {
            let mut file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
            file.write_all(&data).unwrap();
            file
        };
        if cold {
            evict(&file);
        }
        let file = Arc::new(file);
        let (op, result, _, got) = transfer(|socket| {
            Sendfile::new(socket, file, offset, length).header(vec![1; head]).trailer(vec![2; tail])
        });
        let from = size.min(offset as usize);
        let until = (size as u64).min(offset.saturating_add(length)) as usize;
        let body = &data[from..until.max(from)];
        let whole = length == u64::MAX || offset + length <= size as u64 || length == 0;
        prop_assert_eq!(op.sent().body, body.len() as u64);
        prop_assert_eq!(result.unwrap(), got.len() as u64);
        let expected = match (whole, body.is_empty()) {
            (true, _) => [&vec![1; head], body, &vec![2; tail]].concat(),
            (false, false) => [&vec![1; head], body].concat(),
            (false, true) => Vec::new(),
        };
        prop_assert!(got == expected, "{} bytes instead of {}", got.len(), expected.len());
        prop_assert_eq!(op.end(), Some(if whole { End::Complete } else { End::FileEnded }));
    }
}

#[test]
fn a_cold_file_is_never_waited_for_by_the_waiting_thread() {
    nobody_sleeps(|| {
        let mut slept = 0;
        for size in [3000, 60_000, 3_000_000] {
            let data = pattern(size);
            let file = disk_file(&data);
            if !evict(&file) {
                println!("skipped: the file can't be taken out of the page cache here");
                return 0;
            }
            let file = Arc::new(file);
            let (op, result, steps, got) = transfer(|socket| {
                Sendfile::new(socket, file.clone(), 0, size as u64).header("head")
            });
            assert_eq!(result.unwrap(), size as u64 + 4);
            assert!(got.len() == size + 4 && got[4..] == data);
            // What little is read at once may be there at once: the disk can be as fast as the call.
            assert!(op.misses() > 0 || size < SMALL as usize, "{steps:?}");
            // Read-ahead is a step of its own.
            assert!((op.misses()..=2 * op.misses()).contains(&steps.run), "{steps:?}");
            slept += steps.slept;
            assert!(op.refusal().is_none(), "{:?}", op.refusal());
        }
        slept
    });
}

#[test]
fn a_hot_file_needs_no_thread() {
    for size in [3000, 60_000, 3_000_000] {
        let file = Arc::new(disk_file(&pattern(size)));
        let (op, _, steps, got) =
            transfer(|socket| Sendfile::new(socket, file.clone(), 0, size as u64));
        assert_eq!(got.len(), size);
        assert_eq!((op.misses(), steps.run), (0, 0));
    }
}

#[test]
fn a_large_transfer_lets_others_have_their_turn() {
    let file = Arc::new(disk_file(&pattern(40_000_000)));
    let (_, result, steps, _) = transfer(|socket| Sendfile::new(socket, file, 0, 40_000_000));
    assert_eq!(result.unwrap(), 40_000_000);
    assert!(steps.again + steps.writable >= 40_000_000 / (2 * window::TURN as u32), "{steps:?}");
}

#[test]
fn a_reader_that_reads_only_when_the_socket_is_full_gets_everything() {
    let (server, mut client) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    client.set_nonblocking(true).unwrap();
    let data = pattern(3_000_000);
    let file = Arc::new(disk_file(&data));
    let mut op =
        Sendfile::new(Arc::new(server), file, 0, data.len() as u64).header("head").trailer("tail");
    let (mut got, mut full) = (Vec::new(), 0);
    let mut step = op.advance();
    while !matches!(step, Step::Done(_)) {
        if let Step::Writable = step {
            full += 1;
            let error = client.read_to_end(&mut got).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        step = match step {
            Step::Run => {
                let outcome = op.run();
                op.complete(outcome)
            }
            _ => op.advance(),
        };
    }
    assert!(full > 3, "{full}");
    assert_eq!(op.end(), Some(End::Complete));
    drop(op);
    client.read_to_end(&mut got).unwrap();
    assert!(got == [b"head", data.as_slice(), b"tail"].concat());
}

#[test]
fn the_header_stays_when_nothing_of_the_range_is_there() {
    let directories = [env!("CARGO_MANIFEST_DIR"), "/dev/shm"];
    for (size, offset, length) in [(12_289, 12_289, 1), (40_001, 40_001, 900_000), (9, 99_999, 1)] {
        for directory in directories {
            let Ok(mut file) = tempfile::tempfile_in(directory) else {
                println!("skipped: no files can be made in {directory}");
                continue;
            };
            file.write_all(&pattern(size)).unwrap();
            let (op, result, _, got) = transfer(|socket| {
                Sendfile::new(socket, Arc::new(file), offset, length).header("head")
            });
            assert_eq!((result.unwrap(), got.len()), (0, 0), "{size} {offset} {directory}");
            assert_eq!(op.end(), Some(End::FileEnded));
        }
    }
}

#[test]
fn to_a_blocking_socket_it_is_copied_and_nobody_waits() {
    nobody_sleeps(|| {
        let (server, client) = UnixStream::pair().unwrap();
        let server = Arc::new(server);
        let data = pattern(3_000_000);
        let file = Arc::new(disk_file(&data));
        let op = Sendfile::new(server.clone(), file, 0, data.len() as u64);
        let mut op = op.header("head").trailer("tail");
        // Nobody reads: the thread would wait here for ever.
        fill(&mut op);
        let reader = reader(client);
        let (result, steps) = drive(&mut op);
        assert_eq!(result.unwrap(), 3_000_008);
        assert_eq!(op.refusal().unwrap().kind(), io::ErrorKind::WouldBlock);
        server.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap() == [b"head", data.as_slice(), b"tail"].concat());
        steps.slept
    });
}

#[test]
fn a_file_cut_in_the_middle_ends_the_transfer_and_says_so() {
    let (server, mut client) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    let file = Arc::new(disk_file(&pattern(4_000_000)));
    let mut op = Sendfile::new(Arc::new(server), file.clone(), 0, 4_000_000).trailer("tail");
    fill(&mut op);
    file.set_len(1_000_000).unwrap();
    let reader = thread::spawn(move || {
        let mut all = vec![0; 1_000_000];
        client.read_exact(&mut all).unwrap();
        (all, client)
    });
    let (result, _) = drive(&mut op);
    assert_eq!(op.end(), Some(End::FileEnded));
    assert_eq!(result.unwrap(), 1_000_000);
    assert_eq!(op.sent().trailer, 0);
    assert!(reader.join().unwrap().0 == pattern(1_000_000));
}

#[test]
fn a_file_that_grows_is_sent_as_asked() {
    for (length, expected) in [(2_000_000, 2_000_000), (Sendfile::TO_END, 2_500_000)] {
        let (server, client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let file = Arc::new(disk_file(&pattern(2_000_000)));
        let server = Arc::new(server);
        let mut op = Sendfile::new(server.clone(), file.clone(), 0, length).trailer("tail");
        fill(&mut op);
        file.write_all_at(&[7; 500_000], 2_000_000).unwrap();
        let reader = reader(client);
        let (result, _) = drive(&mut op);
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(result.unwrap(), expected + 4);
        assert_eq!(reader.join().unwrap().len() as u64, expected + 4);
    }
}

#[test]
fn a_peer_that_leaves_is_an_error_and_the_bytes_so_far_are_known() {
    let (server, mut client) = tcp();
    let file = Arc::new(disk_file(&pattern(30_000_000)));
    let mut op = Sendfile::new(server, file, 0, 30_000_000).header("head");
    let reader = thread::spawn(move || {
        let mut some = vec![0; 100_000];
        client.read_exact(&mut some).unwrap();
    });
    let error = drive(&mut op).0.unwrap_err();
    reader.join().unwrap();
    let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error}");
    assert!(op.sent().total() >= 100_000 && op.sent().total() < 30_000_000);
    assert_eq!(op.end(), None);
}

#[test]
fn an_aborted_transfer_keeps_its_count() {
    let (server, _client) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    let file = Arc::new(disk_file(&pattern(4_000_000)));
    let mut op = Sendfile::new(Arc::new(server), file, 0, 4_000_000).header("head");
    fill(&mut op);
    let step = op.abort(io::ErrorKind::TimedOut.into());
    assert!(matches!(step, Step::Done(Err(e)) if e.kind() == io::ErrorKind::TimedOut));
    assert!(op.sent().body > 0);
    assert_eq!(op.sent().header, 4);
}

#[test]
fn what_sendfile_refuses_is_copied() {
    nobody_sleeps(|| {
        let expected = std::fs::read("/proc/self/mountinfo").unwrap();
        let file = Arc::new(File::open("/proc/self/mountinfo").unwrap());
        let length = expected.len() as u64;
        let (op, result, steps, got) = transfer(|socket| {
            Sendfile::new(socket, file, 0, length).header("head").trailer("tail")
        });
        assert_eq!(result.unwrap(), length + 8, "{op:?}");
        assert!(got == [b"head", expected.as_slice(), b"tail"].concat());
        steps.slept
    });
}

#[test]
fn a_file_that_claims_to_be_longer_than_it_is_ends_where_it_ends() {
    // All files of sysfs claim to have 4,096 bytes.
    let path = "/sys/kernel/uevent_seqnum";
    let Ok(file) = File::open(path) else {
        println!("skipped: no {path}");
        return;
    };
    let file = Arc::new(file);
    let (op, result, _, got) = transfer(|socket| {
        let whole = Sendfile::new(socket, file.clone(), 0, Sendfile::TO_END);
        whole.header("head").trailer("tail")
    });
    assert_eq!((result.unwrap(), op.end()), (got.len() as u64, Some(End::Complete)));
    assert!(got.starts_with(b"head") && got.ends_with(b"\ntail"), "{got:?}");
    assert!(got.len() < 100);
}

#[test]
fn without_cachestat_the_file_is_probed() {
    nobody_sleeps(|| {
        let mut slept = 0;
        let data = pattern(3_000_000);
        let file = disk_file(&data);
        let evicted = evict(&file);
        let file = Arc::new(file);
        for cold in [evicted, false] {
            let (op, _, steps, got) = transfer(|socket| {
                let mut op = Sendfile::new(socket, file.clone(), 0, 3_000_000);
                op.body.as_mut().unwrap().asks_cachestat = false;
                op
            });
            assert!(got == data);
            assert_eq!(op.misses() > 0, cold);
            slept += steps.slept;
        }
        slept
    });
}

#[test]
fn a_file_that_nobody_can_tell_about_is_copied_without_waiting() {
    let data = pattern(300_000);
    let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else {
        println!("skipped: no tmpfs at /dev/shm");
        return;
    };
    file.write_all(&data).unwrap();
    let (op, _, _, got) = transfer(|socket| {
        let mut op = Sendfile::new(socket, Arc::new(file), 0, 300_000);
        op.body.as_mut().unwrap().asks_cachestat = false;
        op
    });
    assert!(got == data);
    let refusal = op.refusal().and_then(|error| error.raw_os_error());
    assert_eq!(refusal, Some(libc::EOPNOTSUPP));
}

#[test]
fn a_read_error_ends_the_transfer() {
    let directory = Arc::new(File::open("/").unwrap());
    let (op, result, _, got) =
        transfer(|socket| Sendfile::new(socket, directory, 0, 100).header("head"));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EISDIR));
    assert_eq!((op.end(), got.len()), (None, 0));
}

/// How many bytes the kernel holds back, of those that the socket has taken. The receiver has room.
fn held_back(socket: &TcpStream) -> i32 {
    /// `SIOCOUTQNSD`, which libc does not have.
    const UNSENT: libc::Ioctl = 0x894b;
    let mut count = 0_i32;
    // SAFETY: this command writes an int, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), UNSENT, &raw mut count) };
    assert_eq!(done, 0);
    count
}

#[test]
fn nothing_is_held_back_for_what_does_not_follow() {
    for cancelled in [false, true] {
        let (server, mut client) = tcp();
        let file = Arc::new(disk_file(&pattern(200_000)));
        let mut op = Sendfile::new(server.clone(), file.clone(), 0, 200_000).header("head");
        // The header is sent, and the file is about to follow.
        let body = op.body.as_mut().unwrap();
        body.prepare(server.as_fd(), 200_000, false).unwrap();
        assert_eq!(op.go().unwrap(), 4);
        assert_eq!(held_back(&server), 4, "the kernel waits for no more");
        let step = if cancelled {
            op.abort(io::ErrorKind::TimedOut.into())
        } else {
            file.set_len(0).unwrap();
            op.advance()
        };
        assert!(matches!(step, Step::Done(_)), "{step:?}");
        assert_eq!(held_back(&server), 0);
        client.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn nothing_is_held_back_when_reading_fails() {
    let (server, _client) = tcp();
    let file = Arc::new(disk_file(&pattern(200_000)));
    let mut op = Sendfile::new(server.clone(), file, 0, 200_000).header("head");
    op.body.as_mut().unwrap().ready = 100_000;
    assert_eq!(op.go().unwrap(), 4);
    op.body.as_mut().unwrap().reading = Some(Reading::Populate(1));
    assert!(matches!(op.complete(Err(Errno(libc::EIO))), Step::Done(Err(_))));
    assert_eq!(held_back(&server), 0);
}

#[test]
fn the_window_follows_the_pace_of_the_socket() {
    let (server, _client) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    let server = Arc::new(server);
    let file = Arc::new(disk_file(&pattern(4_000_000)));
    let mut op = Sendfile::new(server.clone(), file, 0, 4_000_000);
    let size = |op: &Sendfile| op.body.as_ref().unwrap().window.next(0, u64::MAX);
    let first = size(&op);
    op.body.as_mut().unwrap().ready = 4096;
    assert_eq!(op.go().unwrap(), 4096);
    assert_eq!(size(&op), 2 * first, "all that was ready has been sent");
    while (&*server).write(&[0; 65_536]).is_ok() {}
    assert!(matches!(op.advance(), Step::Writable));
    assert_eq!(size(&op), first, "the socket did not take it");
    let body = op.body.as_ref().unwrap();
    assert_eq!(body.ready, body.at, "it may be evicted until the socket takes it");
}

/// Sends that range, from what the last transfer knew, and gives what this one knows.
fn go_on_from(recent: &mut Recent, socket: &Fd, file: &Fd, at: u64, length: u64) -> Sendfile {
    let mut op = Sendfile::new(socket.clone(), file.clone(), at, length);
    op.recall(recent);
    assert_eq!(drive(&mut op).0.unwrap(), length);
    op.remember(recent);
    op
}

#[test]
fn pieces_that_follow_each_other_ask_once_for_many() {
    let (server, client) = tcp();
    let reader = reader(client);
    let data = pattern(300_000);
    let (server, file): (Fd, Fd) = (server, Arc::new(disk_file(&data)));
    let mut recent = Recent::default();
    let mut asked = Vec::new();
    for at in (0..300_000).step_by(4000) {
        let op = go_on_from(&mut recent, &server, &file, at, 4000);
        let body = op.body.unwrap();
        asked.extend((body.ready > 0).then_some(body.asked));
        // As the second has found out, unless it is too long ago.
        assert!(at == 0 || body.ready == 300_000, "{}", body.ready);
    }
    asked.dedup();
    assert!((1..40).contains(&asked.len()), "{asked:?}");
    drop((server, recent));
    assert!(reader.join().unwrap() == data);
}

#[test]
fn what_was_there_too_long_ago_is_asked_for_again() {
    nobody_sleeps(|| {
        let (server, client) = tcp();
        let reader = reader(client);
        let data = pattern(400_000);
        let file = disk_file(&data);
        if !evict(&file) {
            println!("skipped: the file can't be taken out of the page cache here");
            return 0;
        }
        let (server, file): (Fd, Fd) = (server, Arc::new(file));
        let mut op = Sendfile::new(server.clone(), file, 0, 400_000);
        let cached = Cached { from: 0, until: 400_000, asked: Moment::default() };
        op.body.as_mut().unwrap().recall(Known { end: 0, cached, denied: 0 });
        let (result, steps) = drive(&mut op);
        assert_eq!(result.unwrap(), 400_000);
        assert!(op.misses() > 0, "it is not there any more");
        assert_eq!(op.body.as_ref().unwrap().known().cached.until, 0, "and some may be on its way");
        drop((server, op));
        assert!(reader.join().unwrap() == data);
        steps.slept
    });
}

#[test]
fn header_stays_also_when_more_was_there_a_moment_ago() {
    let (server, client) = tcp();
    let reader = reader(client);
    let inner = Arc::new(disk_file(&pattern(300_000)));
    let (server, file): (Fd, Fd) = (server, inner.clone());
    let mut recent = Recent::default();
    go_on_from(&mut recent, &server, &file, 0, 100_000);
    go_on_from(&mut recent, &server, &file, 100_000, 50_000);
    inner.set_len(150_000).unwrap();
    let mut op = Sendfile::new(server.clone(), file, 150_000, 50_000).header("head");
    op.recall(&recent);
    assert_eq!(drive(&mut op).0.unwrap(), 0);
    assert_eq!((op.end(), op.sent().header), (Some(End::FileEnded), 0));
    drop((server, op));
    assert_eq!(reader.join().unwrap().len(), 150_000);
}

/// The kernel may read less than it was asked to, and the ring may say whatever it says.
#[test]
fn what_read_ahead_did_not_bring_is_read() {
    let data = pattern(3_000_000);
    let outcomes = [Ok(0), Ok(1), Err(Errno(libc::EIO)), Err(Errno(libc::EINVAL))];
    for outcome in outcomes {
        let file = Arc::new(disk_file(&data));
        let (server, client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let server = Arc::new(server);
        let mut op = Sendfile::new(server.clone(), file.clone(), 0, data.len() as u64);
        if !evict(&file) {
            println!("skipped: the file can't be taken out of the page cache here");
            return;
        }
        assert!(matches!(op.advance(), Step::Run));
        assert!(matches!(op.body.as_ref().unwrap().reading, Some(Reading::Ahead { .. })));
        let told = op.run();
        assert!(matches!(op.complete(told), Step::Run));
        assert!(matches!(op.body.as_ref().unwrap().reading, Some(Reading::Arrival(_))));
        // Pages that are still on their way stay until they are there.
        assert!((0..1000).any(|_| evict(&file)), "what was begun is gone again");
        let mut step = op.complete(outcome);
        if let Step::Again = step {
            step = op.advance();
        }
        assert!(matches!(step, Step::Run), "{outcome:?}");
        assert!(matches!(op.body.as_ref().unwrap().reading, Some(Reading::Populate(_))));
        let reader = reader(client);
        let outcome = op.run();
        let step = op.complete(outcome);
        assert!(matches!(step, Step::Again));
        let result = drive(&mut op).0;
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(result.unwrap(), data.len() as u64);
        assert!(reader.join().unwrap() == data);
    }
}

#[test]
fn without_cachestat_what_is_missing_in_the_middle_is_found_out() {
    let file = Arc::new(disk_file(&pattern(1_000_000)));
    if !evict(&file) {
        println!("skipped: the file can't be taken out of the page cache here");
        return;
    }
    // SAFETY: takes no pointers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    for last in [0, 131_071] {
        file.read_exact_at(&mut [0], last).unwrap();
    }
    let socket = Arc::new(UnixStream::pair().unwrap().0);
    let mut op = Sendfile::new(socket, file.clone(), 0, 1_000_000);
    let body = op.body.as_mut().unwrap();
    body.asks_cachestat = false;
    let told = body.is_cached(131_072).unwrap();
    // Asking begins the reading of what is missing; a disk may be as fast as that.
    let middle = residency::cached_pages(file.as_fd(), 65_536, 4096);
    assert!(!told || middle == Ok(1), "{middle:?}");
}

#[test]
fn a_file_that_the_ring_can_not_read_without_waiting_goes_to_a_thread() {
    let (server, _client) = tcp();
    let file = Arc::new(disk_file(&pattern(1000)));
    let mut op = Sendfile::new(server, file, 0, 1000);
    op.body.as_mut().unwrap().reading = Some(Reading::Stage(1000));
    assert!(op.encode().is_some());
    assert!(matches!(op.complete(Err(Errno(libc::EAGAIN))), Step::Run));
    assert!(op.encode().is_none());
    let outcome = op.run();
    assert!(matches!(op.complete(outcome), Step::Again));
    assert!(matches!(op.advance(), Step::Done(Ok(1000))));
}

#[test]
fn what_a_file_grows_by_comes_before_the_trailer() {
    let file = Arc::new(disk_file(b"small"));
    let (_, result, _, got) = transfer(|socket| {
        let mut op = Sendfile::new(socket, file.clone(), 0, Sendfile::TO_END).trailer("tail");
        assert_eq!(op.go().unwrap(), 0, "it is read, and not sent");
        file.write_all_at(b" no more ", 5).unwrap();
        op
    });
    assert_eq!((result.unwrap(), got.as_slice()), (18, b"small no more tail".as_slice()));
}

/// sendfile(2) would wait for it, and a copy would need aligned memory.
#[test]
fn a_file_opened_for_direct_io_is_refused_and_nobody_waits() {
    for size in [3_000, 1_000_000] {
        let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&pattern(size)).unwrap();
        file.as_file().sync_all().unwrap();
        let mut options = File::options();
        let Ok(direct) = options.read(true).custom_flags(libc::O_DIRECT).open(file.path()) else {
            println!("skipped: no direct I/O here");
            return;
        };
        let direct = Arc::new(direct);
        for is_cached in [true, false] {
            if !is_cached {
                evict(file.as_file());
            }
            let build = |socket| Sendfile::new(socket, direct.clone(), 0, size as u64);
            let (_, result, steps, got) = transfer(|socket| build(socket).header("head"));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!((got.len(), steps.slept), (0, 0), "{size} {is_cached}");
        }
    }
}

#[test]
fn file_that_grows_after_its_end_was_reached_does_not_follow_its_trailer() {
    let (server, client) = tcp();
    let mut file = disk_file(b"body");
    let trailer = pattern(8_000_000);
    let mut op =
        Sendfile::new(server.clone(), Arc::new(file.try_clone().unwrap()), 0, Sendfile::TO_END)
            .header("head")
            .trailer(trailer.clone());
    fill(&mut op);
    assert!(op.sent().trailer > 0);
    file.write_all(b"more").unwrap();
    let reader = reader(client);
    let (result, _) = drive(&mut op);
    server.shutdown(Shutdown::Write).unwrap();
    assert!(reader.join().unwrap() == [b"headbody", trailer.as_slice()].concat());
    assert_eq!((result.unwrap(), op.end()), (8_000_008, Some(End::Complete)));
}
