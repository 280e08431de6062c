//! What every operation does, on every backend, and on one that lies.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Bench, SILENCE, all, honest};
use kevent_aio::{
    Close, Completion, Fallocate, Fdatasync, Fsync, Op, Open, Read, ReadVectored, Sendfile, Statx,
    Way, Write, WriteVectored,
};
use kevent_core::{Queue, testing::Contract};

fn file_with(content: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    Arc::new(file)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn read(completion: Completion) -> Read {
    let Op::Read(read) = *completion.op else { panic!("a read was submitted") };
    read
}

/// Reads all of a file as a program should: short counts are continued.
fn read_all(bench: &mut Bench, file: &Arc<File>, cold: bool) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let completion = bench.insist(|| {
            let read = Read::new(file.clone(), content.len() as u64, Vec::with_capacity(1000));
            if cold { read.cold().into() } else { read.into() }
        });
        let count = completion.result.as_ref().copied().unwrap();
        let read = read(completion);
        assert_eq!(read.data().len() as u64, count, "the buffer holds exactly what was read");
        if count == 0 {
            return content;
        }
        content.extend_from_slice(read.data());
    }
}

#[test]
fn reads_bring_the_file_back_whatever_the_backend() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        let content = pattern(10_500);
        let file = file_with(&content);
        assert!(read_all(&mut bench, &file, true) == content, "{name}, asynchronously");
        assert!(read_all(&mut bench, &file, false) == content, "{name}");
    }
}

#[test]
fn writes_arrive_whatever_the_backend() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        let content = pattern(5_000);
        let file = file_with(&[]);
        let mut at = 0;
        while at < content.len() {
            let completion =
                bench.insist(|| Write::new(file.clone(), at as u64, &content[at..]).into());
            at += completion.result.unwrap() as usize;
        }
        let mut written = vec![0; content.len()];
        file.read_exact_at(&mut written, 0).unwrap();
        assert!(written == content, "{name}");
        assert_eq!(file.metadata().unwrap().len() as usize, content.len(), "{name}");
    }
}

#[test]
fn vectored_reads_and_writes_go_through_the_buffers_in_order() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file = file_with(&[]);
        let parts = vec![b"one ".to_vec(), Vec::new(), b"two ".to_vec(), b"three".to_vec()];
        let completion = bench.complete(WriteVectored::new(file.clone(), 3, parts.clone()));
        assert_eq!(completion.result.unwrap(), 13, "{name}");
        let Op::WriteVectored(write) = *completion.op else { panic!() };
        assert_eq!(write.into_buffers(), parts);
        let rooms = [4, 0, 6, 100].into_iter().map(Vec::with_capacity).collect();
        let completion = bench.complete(ReadVectored::new(file, 3, rooms));
        assert_eq!(completion.result.unwrap(), 13, "{name}");
        let Op::ReadVectored(read) = *completion.op else { panic!() };
        assert_eq!(read.into_buffers(), [&b"one "[..], b"", b"two th", b"ree"], "{name}");
    }
}

#[test]
fn read_in_the_page_cache_is_done_inline() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::write(dir.path().join("f"), pattern(4096)).unwrap();
        let file = Arc::new(File::open(dir.path().join("f")).unwrap());
        let completion = bench.complete(Read::new(file.clone(), 0, Vec::with_capacity(8192)));
        if completion.way != Way::Inline {
            println!("skipped: {name}: this file system does not know RWF_NOWAIT");
            continue;
        }
        assert_eq!(completion.result.unwrap(), 4096);
        assert_eq!(bench.aio().report().counters.inline, 1);
    }
}

#[test]
fn streams_are_read_and_written_whatever_the_offset() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        // The pipes of a child process, which gives back what it gets.
        let piped = Stdio::piped;
        let mut child = Command::new("cat").stdin(piped()).stdout(piped()).spawn().unwrap();
        let writer = Arc::new(child.stdin.take().unwrap());
        let reader = Arc::new(child.stdout.take().unwrap());
        bench.submit(Read::new(reader, 7, Vec::with_capacity(100)), 1);
        bench.turn();
        bench.submit(Write::new(writer, 7, "hello"), 2);
        let (first, second) = (bench.next(), bench.next());
        let (one, two) = if first.key == 1 { (first, second) } else { (second, first) };
        assert_eq!(two.result.unwrap(), 5, "{name}");
        assert_eq!(read(one).into_buffer(), b"hello", "{name}");
        drop(two.op);
        child.wait().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        bench.submit(Read::new(Arc::new(near), 9, Vec::with_capacity(100)).up_to(3), 3);
        (&far).write_all(b"socket").unwrap();
        assert_eq!(read(bench.next()).into_buffer(), b"soc", "{name}");
    }
}

#[test]
fn file_is_made_written_measured_synced_and_closed() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        let dir = tempfile::tempdir().unwrap();
        let root: Arc<File> = Arc::new(File::open(dir.path()).unwrap());
        let mut completion =
            bench.insist(|| Open::new("new").at(root.clone()).read_write().create(0o640).into());
        let Op::Open(open) = &mut *completion.op else { panic!() };
        let fd = open.take().expect(name);
        assert!(open.take().is_none(), "a descriptor is given once");
        let file = Arc::new(File::from(fd));
        bench.insist(|| Fallocate::new(file.clone(), 0, 9_000).into()).result.unwrap();
        bench.insist(|| Fsync::new(file.clone()).into()).result.unwrap();
        bench.insist(|| Fdatasync::new(file.clone()).into()).result.unwrap();
        let of_fd = |file: Arc<File>| Statx::of(file);
        let of_server = |file: Arc<File>| Statx::of(file).sync();
        for make in [of_fd, of_server] {
            let completion = bench.insist(|| make(file.clone()).into());
            let Op::Statx(statx) = *completion.op else { panic!() };
            let (stat, std) = (statx.stat().unwrap(), file.metadata().unwrap());
            assert_eq!((stat.size, stat.ino, stat.dev), (9_000, std.ino(), std.dev()), "{name}");
            assert_eq!((stat.mode, stat.nlink), (std.mode(), 1));
            assert!(stat.is_file() && !stat.is_dir());
        }
        let by_name = bench.insist(|| Statx::at(Some(root.clone()), "new").into());
        assert!(by_name.result.is_ok(), "{name}");
    }
}

#[test]
fn close_closes() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let completion = bench.complete(Close::new(writer));
        assert!(completion.result.is_ok(), "{name}");
        let Op::Close(mut close) = *completion.op else { panic!() };
        assert!(close.take().is_none(), "{name}");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "{name}: the pipe has no writer left");
    }
}

#[test]
fn open_beneath_refuses_what_leads_out() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        fs::write(dir.path().join("in/inside"), "public").unwrap();
        symlink("../outside", dir.path().join("in/relative")).unwrap();
        symlink("/etc/passwd", dir.path().join("in/absolute")).unwrap();
        symlink("inside", dir.path().join("in/harmless")).unwrap();
        let root: Arc<File> = Arc::new(File::open(dir.path().join("in")).unwrap());
        for path in ["../outside", "relative", "absolute", "/etc/passwd"] {
            let completion = bench.complete(Open::new(path).at(root.clone()).beneath());
            let errno = completion.result.unwrap_err().raw_os_error();
            assert_eq!(errno, Some(libc::EXDEV), "{name}: {path}");
        }
        let completion = bench.complete(Open::new("harmless").at(root.clone()).no_symlinks());
        assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(libc::ELOOP), "{name}");
        let mut completion = bench.complete(Open::new("harmless").at(root).beneath());
        let Op::Open(open) = &mut *completion.op else { panic!() };
        let mut text = String::new();
        File::from(open.take().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "public", "{name}");
    }
}

#[test]
fn nonsense_is_refused_with_a_reason_and_given_back() {
    for (_, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file = file_with(b"x");
        let refused = bench.aio().submit(Read::new(file.clone(), u64::MAX, vec![0; 9]), 1);
        let refused = refused.unwrap_err();
        assert_eq!(refused.error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("18446744073709551615"), "{refused}");
        let Op::Read(read) = refused.op else { panic!() };
        assert_eq!(read.into_buffer().capacity(), 9);
        let refused = bench.aio().submit(Open::new("a\0b"), 1).unwrap_err();
        assert!(refused.to_string().contains("zero byte"), "{refused}");
        let refused = bench.aio().submit(Fallocate::new(file.clone(), 1 << 62, 1 << 62), 1);
        assert!(refused.is_err());
        let socket = Arc::new(UnixStream::pair().unwrap().0);
        let beyond = Sendfile::new(socket, file.clone(), 1 << 63, 1);
        let refused = bench.aio().submit(beyond, 1).unwrap_err();
        assert!(refused.to_string().contains("9223372036854775808"), "{refused}");
        let many = vec![b"x".to_vec(); 1025];
        assert!(bench.aio().submit(WriteVectored::new(file, 0, many), 1).is_err());
        assert_eq!(bench.aio().in_flight(), 0);
        bench.is_silent();
    }
}

#[test]
fn errors_of_the_kernel_are_results() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let errno = |completion: Completion| completion.result.unwrap_err().raw_os_error();
        assert_eq!(errno(bench.complete(Open::new("/no/such/file"))), Some(libc::ENOENT), "{name}");
        let full: Arc<File> = Arc::new(File::options().write(true).open("/dev/full").unwrap());
        let write = Write::new(full.clone(), 0, "x");
        assert_eq!(errno(bench.complete(write)), Some(libc::ENOSPC), "{name}");
        let read = Read::new(full, 0, vec![0; 4]).cold();
        assert_eq!(errno(bench.complete(read)), Some(libc::EBADF), "{name}");
        let dir: Arc<File> = Arc::new(File::open("/").unwrap());
        let read = Read::new(dir.clone(), 0, vec![0; 4]);
        assert_eq!(errno(bench.complete(read)), Some(libc::EISDIR), "{name}");
        assert_eq!(errno(bench.complete(Fallocate::new(dir, 0, 1))), Some(libc::EBADF), "{name}");
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let write = Write::new(Arc::new(writer), 0, "x");
        assert_eq!(errno(bench.complete(write)), Some(libc::EPIPE), "{name}");
    }
}

#[test]
fn full_engine_gives_the_operation_back() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.capacity(64).threads(2));
        let content = pattern(10_000);
        let file = file_with(&content);
        let (mut next, mut taken, mut refusals) = (0, 0, 0);
        let mut waiting: Option<Op> = None;
        while taken < 10_000 {
            while next < 10_000 {
                let op = waiting.take().unwrap_or_else(|| {
                    let read = Read::new(file.clone(), next, Vec::with_capacity(1));
                    if next % 2 == 0 { read.cold().into() } else { read.into() }
                });
                match bench.aio().submit(op, next) {
                    Ok(_) => next += 1,
                    Err(refused) => {
                        assert_eq!(refused.error.kind(), std::io::ErrorKind::WouldBlock);
                        assert_eq!(bench.aio().in_flight(), 64, "{name}");
                        waiting = Some(refused.op);
                        refusals += 1;
                        break;
                    }
                }
            }
            let completion = bench.next();
            let key = completion.key as usize;
            assert_eq!(read(completion).into_buffer(), [content[key]], "{name}");
            taken += 1;
        }
        assert!(refusals > 0, "{name}");
        assert_eq!(bench.aio().in_flight(), 0);
    }
}

#[test]
fn source_keeps_the_contract() {
    // Through the page cache, and by the backend at once.
    for index in 0..all().len() {
        for cold in [false, true] {
            let make = move || {
                let (_, builder) = all().swap_remove(index);
                (builder.build().unwrap(), (file_with(b"contract"), Vec::new()))
            };
            Contract::new(make)
                .provoke(move |aio, (file, tokens), count| {
                    for key in 0..count {
                        let read = Read::new(file.clone(), 0, Vec::with_capacity(8));
                        let read = if cold { read.cold() } else { read };
                        tokens.push(aio.submit(read, key as u64).unwrap());
                    }
                })
                .remove(|aio, (_, tokens)| {
                    for token in tokens.drain(..) {
                        aio.abandon(token);
                    }
                })
                .check();
        }
    }
}

#[test]
fn engine_moves_to_another_queue_and_goes_on() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (reader, writer) = UnixStream::pair().unwrap();
        bench.submit(Read::new(Arc::new(reader), 0, Vec::with_capacity(9)), 1);
        bench.turn();
        let id = bench.id;
        let aio = bench.queue.detach(id).unwrap();
        let mut other = Bench::around(aio);
        (&writer).write_all(b"moved").unwrap();
        assert_eq!(read(other.next()).into_buffer(), b"moved", "{name}");
        bench.turn();
        assert!(bench.queue.is_empty());
    }
}

/// The descriptors in the queue's set.
fn watched(bench: &Bench) -> usize {
    let path = format!("/proc/self/fdinfo/{}", bench.queue.as_fd().as_raw_fd());
    let info = std::fs::read_to_string(path).unwrap();
    info.lines().filter(|line| line.starts_with("tfd:")).count()
}

#[test]
fn detached_engine_leaves_nothing_in_the_queue_and_loses_nothing() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let empty = watched(&Bench { queue: Queue::new().unwrap(), id: bench.id });
        // A read that waits, a transfer whose client is slow, and one that is done and not taken.
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let (server, mut client) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let (reader, server) = (Arc::new(reader), Arc::new(server));
        bench.submit(Read::new(reader.clone(), 0, Vec::with_capacity(9)), 1);
        bench.submit(Sendfile::bytes(server.clone(), pattern(1_000_000)), 2);
        bench.submit(Sendfile::bytes(server.clone(), "behind it"), 3);
        bench.submit(Statx::of(reader.clone()), 4);
        bench.turn();
        assert_eq!((bench.queue.len(), bench.aio().in_flight()), (1, 4), "{name}");
        assert!(watched(&bench) > empty, "{name}");
        let id = bench.id;
        let aio = bench.queue.detach(id).unwrap();
        assert_eq!(watched(&bench), empty, "{name}");
        assert_eq!(aio.in_flight(), 3, "{name}: what is in the queue goes with the queue");
        // What happens while the engine is in no queue is not lost.
        writer.write_all(b"meanwhile").unwrap();
        let received = std::thread::spawn(move || {
            let mut all = vec![0; 1_000_009];
            std::io::Read::read_exact(&mut client, &mut all).unwrap();
            all
        });
        assert!(bench.next_within(SILENCE).is_none(), "{name}: it is not in that queue any more");
        let mut other = Bench::around(aio);
        let mut keys: Vec<_> = (0..3).map(|_| other.next().key).collect();
        keys.sort_unstable();
        assert_eq!(keys, [1, 2, 3], "{name}");
        assert!(received.join().unwrap().ends_with(b"behind it"), "{name}");
        drop(other);
        // A thread of the pool may hold on to its job a moment longer.
        while Arc::strong_count(&reader) + Arc::strong_count(&server) > 2 {
            std::thread::yield_now();
        }
    }
}
