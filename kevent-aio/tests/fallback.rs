//! Whatever io_uring's three calls say, and whenever: every operation finishes, and rightly. So it is
//! with the calls that a transfer makes if it can.
//!
//! Each case runs on a thread of its own under a seccomp filter, which is that thread's alone (and that
//! of the threads it starts).

#![allow(unsafe_code, clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Bench, PATIENCE};
use kevent_aio::{Aio, Call, Choice, Close, Fsync, Op, Open, Read, Sendfile, Statx, Way, Write};

const SETUP: libc::c_long = libc::SYS_io_uring_setup;
const ENTER: libc::c_long = libc::SYS_io_uring_enter;
const REGISTER: libc::c_long = libc::SYS_io_uring_register;

/// What containers, sysctls, limits and old kernels say, and some that nobody has seen yet.
const ERRNOS: [i32; 13] = [
    libc::EPERM,
    libc::ENOSYS,
    libc::EACCES,
    libc::ENOMEM,
    libc::EINVAL,
    libc::EMFILE,
    libc::ENFILE,
    libc::EAGAIN,
    libc::EBUSY,
    libc::EINTR,
    libc::EOPNOTSUPP,
    libc::EBADF,
    libc::EIO,
];

/// Lets `call` fail with `errno` on this thread from now on.
fn refuse(call: libc::c_long, errno: i32) {
    let op = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let ret = libc::BPF_RET | libc::BPF_K;
    let mut program = [
        // The number of the call is the first word of what the filter sees.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32) },
        op(ret, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(ret, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes no pointers.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    let filter = &raw const program;
    // SAFETY: the program and its filter outlive the call, which copies them.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, filter) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Runs `case` for every errno, each on a thread of its own, some at a time.
fn for_every_errno(case: impl Fn(i32) + Copy + Send + Sync) {
    std::thread::scope(|scope| {
        for errno in ERRNOS {
            scope.spawn(move || case(errno));
        }
    });
}

/// Whether the environment leaves the choice open, and the kernel has a ring to lose.
fn ring_is_there() -> bool {
    if std::env::var_os("KEVENT_AIO").is_some() {
        println!("skipped: KEVENT_AIO chooses the backend");
        return false;
    }
    match Aio::builder().backend(Choice::Uring).build() {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

/// One of most kinds of operations, with the results that they should have.
fn everything_works(bench: &mut Bench, case: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut completion = bench.complete(Open::new(&path).read_write().create(0o600));
    let Op::Open(open) = &mut *completion.op else { panic!() };
    let file = Arc::new(File::from(open.take().unwrap_or_else(|| panic!("{case}"))));
    for key in 0..100 {
        bench.submit(Write::new(file.clone(), key * 3, format!("{key:03}")), key);
    }
    for _ in 0..100 {
        assert_eq!(bench.next().result.unwrap(), 3, "{case}");
    }
    bench.complete(Fsync::new(file.clone())).result.unwrap();
    for key in 0..100 {
        bench.submit(Read::new(file.clone(), key * 3, Vec::with_capacity(3)).cold(), key);
    }
    for _ in 0..100 {
        let completion = bench.next();
        let Op::Read(read) = *completion.op else { panic!() };
        assert_eq!(read.data(), format!("{:03}", completion.key).as_bytes(), "{case}");
    }
    let completion = bench.complete(Statx::at(None, &path));
    let Op::Statx(statx) = *completion.op else { panic!() };
    assert_eq!(statx.stat().unwrap().size, 300, "{case}");
    drop(dir);
    bench.complete(Close::new(Arc::into_inner(file).unwrap())).result.unwrap();
}

fn refused_from_the_start(call: libc::c_long, name: Call) {
    if !ring_is_there() {
        return;
    }
    for_every_errno(|errno| {
        refuse(call, errno);
        let case = format!("{name}, errno {errno}");
        let forced = Aio::builder().backend(Choice::Uring).build().unwrap_err();
        assert_eq!(forced.kind(), std::io::ErrorKind::Unsupported, "{case}");
        assert!(forced.to_string().contains(&name.to_string()), "{forced}");
        let mut bench = Bench::around(Aio::new().expect(&case));
        everything_works(&mut bench, &case);
        assert_eq!(bench.aio().in_flight(), 0, "{case}");
        let report = bench.aio().report();
        assert_eq!(report.backend, Way::Pool, "{case}");
        let refusal = report.refusal.expect(&case);
        assert_eq!((refusal.call(), refusal.errno()), (name, errno), "{case}");
        assert!(report.to_string().contains("remedy"), "{report}");
        assert_eq!(report.counters.ring, 0, "{case}");
    });
}

#[test]
fn setup_refused_leads_to_the_pool() {
    refused_from_the_start(SETUP, Call::Setup);
}

#[test]
fn enter_refused_leads_to_the_pool() {
    refused_from_the_start(ENTER, Call::Enter);
}

#[test]
fn register_refused_leads_to_the_pool() {
    refused_from_the_start(REGISTER, Call::Register);
}

#[test]
fn calls_refused_later_lose_nothing() {
    if !ring_is_there() {
        return;
    }
    for_every_errno(|errno| {
        let case = format!("errno {errno}");
        let mut bench = Bench::around(Aio::new().unwrap());
        everything_works(&mut bench, &case);
        // One that the kernel has, and some that it has not.
        let (reader, mut writer) = UnixStream::pair().unwrap();
        bench.submit(Read::new(Arc::new(reader), 0, Vec::with_capacity(10)), 1000);
        bench.turn();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let file = Arc::new(file);
        for key in 0..10 {
            bench.submit(Read::new(file.clone(), key, Vec::with_capacity(1)).cold(), key);
        }
        for call in [ENTER, REGISTER, SETUP] {
            refuse(call, errno);
        }
        for _ in 0..10 {
            let completion = bench.next();
            let Op::Read(read) = *completion.op else { panic!() };
            assert_eq!(read.data(), completion.key.to_string().as_bytes(), "{case}");
        }
        everything_works(&mut bench, &case);
        writer.write_all(b"late").unwrap();
        let completion = bench.next();
        assert_eq!((completion.key, completion.result.unwrap()), (1000, 4), "{case}");
        assert_eq!(completion.way, Way::Ring, "the kernel had it: {case}");
        let report = bench.aio().report();
        assert_eq!(report.backend, Way::Pool, "{case}");
        assert_eq!(report.refusal.map(|r| (r.call(), r.errno())), Some((Call::Enter, errno)));
        assert!(report.counters.fallbacks >= 10, "{case}: {report}");
        assert_eq!(bench.aio().in_flight(), 0, "{case}");
    });
}

#[test]
fn cancelled_before_the_ring_is_lost_it_is_not_begun_on_the_pool() {
    if !ring_is_there() {
        return;
    }
    let case = std::thread::spawn(|| {
        let mut bench = Bench::around(Aio::new().unwrap());
        let (reader, _writer) = UnixStream::pair().unwrap();
        let token = bench.submit(Read::new(Arc::new(reader), 0, Vec::with_capacity(10)), 1);
        bench.aio().cancel(token);
        refuse(ENTER, libc::EPERM);
        assert!(bench.next().was_cancelled());
        assert_eq!(bench.aio().report().counters.pool, 0);
    });
    case.join().unwrap();
}

#[test]
fn ring_that_can_not_be_entered_is_dropped_in_time() {
    if !ring_is_there() {
        return;
    }
    let dropped = std::thread::spawn(|| {
        let mut bench = Bench::around(Aio::new().unwrap());
        let (reader, writer) = UnixStream::pair().unwrap();
        let reader = Arc::new(reader);
        bench.submit(Read::new(reader.clone(), 0, Vec::with_capacity(10)), 1);
        bench.turn();
        refuse(ENTER, libc::EPERM);
        let begin = Instant::now();
        drop(bench);
        assert_eq!(Arc::strong_count(&reader), 2, "freed, and the kernel may still write there");
        drop(writer);
        begin.elapsed()
    });
    let took = dropped.join().unwrap();
    assert!(took < PATIENCE && took > Duration::ZERO, "{took:?}");
}

/// A file on the disk of the build, because the system's temporary directory may be a tmpfs.
fn disk_file(data: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.write_all(data).unwrap();
    Arc::new(file)
}

#[test]
fn small_file_does_not_ask_for_the_mode_of_the_socket() {
    let refused = std::thread::spawn(|| {
        let (server, mut client) = UnixStream::pair().unwrap();
        let (server, file) = (Arc::new(server), disk_file(&[7; 30_000]));
        let mut bench = Bench::new(Aio::builder().backend(Choice::Pool));
        refuse(libc::SYS_fcntl, libc::EPERM);
        let op = Sendfile::new(server, file, 0, 30_000).header("head").trailer("tail");
        assert_eq!(bench.complete(op).result.unwrap(), 30_008);
        client.read_exact(&mut [0; 30_008]).unwrap();
    });
    refused.join().unwrap();
}

#[test]
fn large_file_goes_without_cachestat_too() {
    /// Linux 6.5; libc does not know it everywhere.
    const CACHESTAT: libc::c_long = 451;
    for_every_errno(|errno| {
        let (server, mut client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let (server, data) = (Arc::new(server), vec![7; 3_000_000]);
        let file = disk_file(&data);
        let mut bench = Bench::new(Aio::builder().backend(Choice::Pool).threads(1));
        refuse(CACHESTAT, errno);
        // A hot one, and one of which nothing was ever read.
        let cold = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        cold.set_len(1_000_001).unwrap();
        let reader = std::thread::spawn(move || {
            let mut got = vec![1; 4_000_009];
            client.read_exact(&mut got).unwrap();
            got
        });
        bench.submit(Sendfile::new(server.clone(), file, 0, 3_000_000).header("head"), 1);
        bench.submit(Sendfile::new(server, Arc::new(cold), 0, Sendfile::TO_END).header("next"), 2);
        let (hot, cold) = (bench.next(), bench.next());
        assert_eq!((hot.result.unwrap(), cold.result.unwrap()), (3_000_004, 1_000_005));
        let (Op::Sendfile(hot), Op::Sendfile(cold)) = (*hot.op, *cold.op) else { panic!() };
        assert_eq!(hot.misses(), 0, "errno {errno}: all of it is in memory");
        assert!(hot.refusal().is_none() && cold.refusal().is_none(), "errno {errno}");
        let sent = [b"head", data.as_slice(), b"next", &[0; 1_000_001]].concat();
        assert!(reader.join().unwrap() == sent, "errno {errno}");
    });
}
