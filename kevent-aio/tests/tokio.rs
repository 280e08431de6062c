//! The engine in tokio: on both kinds of runtime, on the ring and on the pool.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::future::Future;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{PATIENCE, honest};
use kevent_aio::tokio::{Cursor, Engine, File};
use kevent_aio::{Aio, Chain, Choice, Open, Read, Sendfile, Way, Write, testing};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

fn threads(count: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(count).enable_all().build().unwrap()
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// On the ring and the pool, each on both kinds of runtime.
fn everywhere<F>(test: impl Fn(&'static str, Engine) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for (name, builder) in honest() {
        one_thread().block_on(soon(test(name, Engine::with(builder).unwrap())));
    }
    for (name, builder) in honest() {
        let runtime = threads(2);
        let task = runtime.spawn(soon(test(name, Engine::with(builder).unwrap())));
        runtime.block_on(task).unwrap();
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn file_with(content: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

/// A read of this never ends by itself: nobody writes to the other end.
fn stuck(engine: &Engine) -> (File, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (File::from_std(engine, near), far)
}

/// Polls it once.
async fn begin<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(pin!(&mut *future).poll(cx))).await
}

/// How many descriptors of this process are open on that file.
fn open_on(path: &Path) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    entries.filter(|e| std::fs::read_link(e.path()).is_ok_and(|at| at == path)).count()
}

/// Waits for what another thread, or a task, does by itself.
async fn becomes(what: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < deadline, "it did not become so");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn files_are_opened_written_read_synced_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    everywhere(|_, engine| {
        let path = path.clone();
        async move {
            let content = pattern(100_000);
            let file = File::create(&engine, &path).await.unwrap();
            let (written, buffer) = file.write_all_at(content.clone(), 5).await;
            written.unwrap();
            assert_eq!(buffer, content, "the buffer comes back as it was");
            file.sync_data().await.unwrap();
            file.sync_all().await.unwrap();
            assert_eq!(file.metadata().await.unwrap().size, 100_005);
            file.set_len(100_000).await.unwrap();
            file.allocate(0, 200_000).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().size, 200_000);
            file.set_len(100_005).await.unwrap();
            file.close().await.unwrap();

            let file = File::open(&engine, &path).await.unwrap();
            let (read, buffer) = file.read_exact_at(Vec::new(), 100_000 - 5, 5).await;
            read.unwrap();
            assert!(buffer == content[..100_000 - 5], "what was written is read");
            let (read, buffer) = file.read_exact_at(buffer, 10, 100_000).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(buffer.len(), 5, "what there was");
            let (read, buffer) = file.read_at(buffer, 100_005).await;
            assert_eq!((read.unwrap(), buffer.len()), (0, 0));
            let (written, buffer) = file.write_at(buffer, 0).await;
            assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EBADF), "open for reading");
            drop(buffer);
            assert!(File::open(&engine, path.join("no")).await.is_err());
        }
    });
}

#[test]
fn cached_read_is_done_in_the_first_poll_outside_of_any_runtime() {
    let content = pattern(4096);
    let file = file_with(&content);
    for (_, builder) in honest() {
        let engine = Engine::with(builder).unwrap();
        let file = File::from_std(&engine, file.try_clone().unwrap());
        let mut read = pin!(file.read_at(Vec::with_capacity(4096), 0));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let Poll::Ready((count, buffer)) = read.as_mut().poll(&mut cx) else {
            panic!("a cached read waits")
        };
        assert_eq!((count.unwrap(), buffer), (4096, content.clone()));
        assert_eq!(engine.report().counters.inline, 1);
    }
}

#[test]
fn waiting_outside_of_a_runtime_is_an_error_that_gives_the_buffer_back() {
    let engine = Engine::new().unwrap();
    let file = File::from_std(&engine, file_with(b""));
    let mut write = pin!(file.write_at(b"hello".to_vec(), 0));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let Poll::Ready((written, buffer)) = write.as_mut().poll(&mut cx) else { panic!("it waits") };
    assert!(written.unwrap_err().to_string().contains("runtime"));
    assert_eq!(buffer, b"hello");
}

#[test]
fn ten_thousand_reads_of_a_hundred_tasks_bring_what_is_there() {
    const BLOCK: usize = 1000;
    let content = Arc::new(pattern(1_000_000));
    let lying = (1..3).map(|seed| ("liar", testing::lying(Aio::builder(), seed)));
    for (name, builder) in honest().into_iter().chain(lying) {
        let engine = Engine::with(builder.capacity(64)).unwrap();
        let file: kevent_aio::Fd = Arc::new(file_with(&content));
        let runtime = threads(4);
        let task = |first: usize| {
            let (engine, file, content) = (engine.clone(), Arc::clone(&file), Arc::clone(&content));
            async move {
                for n in 0..100 {
                    let at = (first * 7919 + n * 104_729) % (content.len() - BLOCK);
                    // Half of them take the long way.
                    let buffer = Vec::with_capacity(BLOCK);
                    let mut read = Read::new(Arc::clone(&file), at as u64, buffer);
                    if n % 2 == 0 {
                        read = read.cold();
                    }
                    let finished = engine.run(read).await;
                    let data = finished.op.expect("the read").into_buffer();
                    match finished.result {
                        Ok(count) => assert_eq!(count as usize, data.len()),
                        Err(_) => assert_eq!(name, "liar"),
                    }
                    assert!(name == "liar" || data.len() == BLOCK);
                    assert!(data == content[at..at + data.len()], "other bytes than there are");
                }
            }
        };
        let tasks: Vec<_> = (0..100).map(|first| runtime.spawn(task(first))).collect();
        runtime.block_on(soon(async {
            for task in tasks {
                task.await.unwrap();
            }
        }));
        let counters = engine.report().counters;
        assert!(counters.inline >= 5000 && counters.ring + counters.pool >= 5000, "{counters:?}");
    }
}

#[test]
fn what_tasks_ask_for_before_they_wait_is_handed_over_together() {
    // Each of the tasks is polled before the driver is: their reads are there when it comes.
    let Ok(builder) = ring() else { return };
    let engine = Engine::with(builder).unwrap();
    let file = Arc::new(file_with(&pattern(64 * 4096)));
    one_thread().block_on(soon(async {
        let read = |n: u64| {
            let (engine, file) = (engine.clone(), Arc::clone(&file));
            tokio::spawn(async move {
                let read = Read::new(file, n * 4096, Vec::with_capacity(4096)).cold();
                engine.run(read).await.result.unwrap();
            })
        };
        let tasks: Vec<_> = (0..64).map(read).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }));
    assert_eq!(engine.report().counters.ring, 64);
}

fn ring() -> Result<kevent_aio::Builder, ()> {
    let builder = || Aio::builder().backend(Choice::Uring);
    builder().build().map(|_| builder()).map_err(|error| println!("skipped: {error}"))
}

#[test]
fn cursor_reads_writes_and_seeks_as_one_would() {
    everywhere(|_, engine| async move {
        let content = pattern(300_000);
        let mut cursor = File::from_std(&engine, file_with(b"")).cursor().read_ahead(10_000);
        cursor.write_all(&content).await.unwrap();
        assert_eq!(cursor.stream_position().await.unwrap(), 300_000);
        cursor.rewind().await.unwrap();
        let mut back = Vec::new();
        cursor.read_to_end(&mut back).await.unwrap();
        assert!(back == content, "what was written is read");
        // Within what was read ahead, behind it, and before it.
        let mut few = [0; 7];
        for at in [100_000, 100_010, 100_003, 109_990, 99_999, 0, 299_993] {
            assert_eq!(cursor.seek(SeekFrom::Start(at)).await.unwrap(), at);
            cursor.read_exact(&mut few).await.unwrap();
            assert_eq!(few, content[at as usize..][..7], "at {at}");
        }
        // In the middle of what was read ahead: what follows the write is read, and not what was ahead.
        cursor.rewind().await.unwrap();
        cursor.read_exact(&mut few).await.unwrap();
        cursor.write_all(&content[7..14]).await.unwrap();
        cursor.read_exact(&mut few).await.unwrap();
        assert_eq!(few, content[14..21]);
        assert_eq!(cursor.seek(SeekFrom::End(-7)).await.unwrap(), 299_993);
        cursor.write_all(b"changed").await.unwrap();
        assert_eq!(cursor.seek(SeekFrom::End(-10)).await.unwrap(), 299_990);
        let mut end = Vec::new();
        cursor.read_to_end(&mut end).await.unwrap();
        assert_eq!(end[..3], content[299_990..299_993]);
        assert_eq!(&end[3..], b"changed");
        let before = cursor.seek(SeekFrom::Current(-300_001)).await.unwrap_err();
        assert_eq!(before.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(cursor.position(), 300_000, "it is where it was");
    });
}

#[test]
fn cursor_goes_nowhere_where_no_file_is() {
    everywhere(|_, engine| async move {
        // The file's own place, which -1 would mean to the kernel, is at its beginning.
        let mut file = file_with(b"hello");
        file.rewind().unwrap();
        let mut cursor = File::from_std(&engine, file.try_clone().unwrap()).cursor();
        for beyond in [SeekFrom::Start(u64::MAX), SeekFrom::Start(1 << 63), SeekFrom::End(i64::MAX)]
        {
            let error = cursor.seek(beyond).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{beyond:?}");
        }
        for position in [u64::MAX, 1 << 63] {
            let file = File::from_std(&engine, file.try_clone().unwrap());
            let mut cursor = Cursor::new(file, position);
            let error = cursor.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{position}");
            let error = cursor.write_all(b"x").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{position}");
        }
    });
}

#[derive(Clone, Debug)]
enum Move {
    Read(usize),
    /// Dropped when it was polled once.
    GiveUpReading(usize),
    Write(Vec<u8>),
    Flush,
    Start(u64),
    Current(i64),
    End(i64),
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (1..300_usize).prop_map(Move::Read),
        1 => (1..300_usize).prop_map(Move::GiveUpReading),
        3 => prop::collection::vec(any::<u8>(), 1..200).prop_map(Move::Write),
        1 => Just(Move::Flush),
        1 => (0..3000_u64).prop_map(Move::Start),
        2 => (-400..400_i64).prop_map(Move::Current),
        1 => (-3000..100_i64).prop_map(Move::End),
    ]
}

/// Does the same to a cursor and to a file of std.
async fn step(cursor: &mut Cursor, mut model: &std::fs::File, step: Move) {
    use std::io::Read as _;
    let seek = match step {
        Move::Read(len) => {
            // The cursor may bring less, but not less than one byte if there is any.
            let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
            let count = cursor.read(&mut ours).await.unwrap();
            let there = model.read(&mut theirs).unwrap();
            assert!(count <= there && (count > 0) == (there > 0));
            assert_eq!(ours[..count], theirs[..count]);
            model.seek_relative(count as i64 - there as i64).unwrap();
            return;
        }
        Move::GiveUpReading(len) => {
            let mut buffer = vec![0; len];
            let mut read = Box::pin(cursor.read(&mut buffer));
            if let Poll::Ready(count) = begin(&mut read).await {
                model.seek_relative(count.unwrap() as i64).unwrap();
            }
            return;
        }
        Move::Write(data) => {
            cursor.write_all(&data).await.unwrap();
            return model.write_all(&data).unwrap();
        }
        Move::Flush => return cursor.flush().await.unwrap(),
        Move::Start(to) => SeekFrom::Start(to),
        Move::Current(by) => SeekFrom::Current(by),
        Move::End(by) => SeekFrom::End(by),
    };
    let (ours, theirs) = (cursor.seek(seek).await, model.seek(seek));
    assert_eq!(ours.map_err(|e| e.kind()), theirs.map_err(|e| e.kind()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to it, a cursor is where a file of std would be, and so is what it has written.
    #[test]
    fn cursor_does_what_a_file_of_std_does(
        moves in prop::collection::vec(a_move(), 1..60),
        window in 1..500_usize,
    ) {
        for (_, builder) in honest() {
            let engine = Engine::with(builder).unwrap();
            let (own, model) = (file_with(&pattern(2000)), file_with(&pattern(2000)));
            (&model).rewind().unwrap();
            let file = File::from_std(&engine, own.try_clone().unwrap());
            let mut cursor = file.cursor().read_ahead(window);
            one_thread().block_on(soon(async {
                for one in moves.clone() {
                    step(&mut cursor, &model, one).await;
                    assert_eq!(cursor.position(), (&model).stream_position().unwrap());
                }
                cursor.flush().await.unwrap();
            }));
            let len = model.metadata().unwrap().len();
            prop_assert_eq!(own.metadata().unwrap().len(), len);
            let (mut ours, mut theirs) = (vec![0; len as usize], vec![0; len as usize]);
            own.read_exact_at(&mut ours, 0).unwrap();
            model.read_exact_at(&mut theirs, 0).unwrap();
            prop_assert!(ours == theirs, "other bytes were written");
        }
    }
}

#[test]
fn write_that_failed_is_told_at_the_next_call_or_at_flush_and_once() {
    everywhere(|_, engine| async move {
        let full = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let cursor = || File::from_std(&engine, full()).cursor();
        let no_space = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));

        let mut by_flush = cursor();
        assert_eq!(by_flush.write(b"hello").await.unwrap(), 5, "it is taken");
        no_space(by_flush.flush().await.unwrap_err());
        by_flush.flush().await.expect("told once");
        let mut by_write = cursor();
        by_write.write_all(b"hello").await.unwrap();
        no_space(by_write.write(b"hello").await.unwrap_err());
        let mut by_read = cursor();
        by_read.write_all(b"hello").await.unwrap();
        no_space(by_read.read(&mut [0; 8]).await.unwrap_err());
        let mut by_seek = cursor();
        by_seek.write_all(b"hello").await.unwrap();
        no_space(by_seek.rewind().await.unwrap_err());
        by_seek.rewind().await.expect("told once");
    });
}

#[test]
fn short_writes_are_continued() {
    // A socket takes what there is room for; the ring does not wait for the rest.
    everywhere(|_, engine| async move {
        let content = pattern(3 << 20);
        for by_cursor in [true, false] {
            let (near, far) = UnixStream::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            let mut far = tokio::net::UnixStream::from_std(far).unwrap();
            let file = File::from_std(&engine, near);
            let send = async {
                if by_cursor {
                    let mut cursor = file.cursor();
                    cursor.write_all(&content).await.unwrap();
                    cursor.flush().await.unwrap();
                } else {
                    let (written, back) = file.write_all_at(content.clone(), 0).await;
                    written.unwrap();
                    assert!(back == content);
                }
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(send, far.read_to_end(&mut received));
            read.unwrap();
            assert!(received == content, "{} bytes came", received.len());
        }
    });
}

#[test]
fn exact_read_goes_on_where_a_short_one_has_ended() {
    everywhere(|_, engine| async move {
        let (file, mut far) = stuck(&engine);
        far.write_all(b"hel").unwrap();
        let mut read = Box::pin(file.read_exact_at(Vec::new(), 5, 0));
        assert!(begin(&mut read).await.is_pending());
        far.write_all(b"lo").unwrap();
        let (result, buffer) = read.await;
        result.unwrap();
        assert_eq!(buffer, b"hello");
    });
}

#[test]
fn dropped_cursor_lets_its_last_write_go_on() {
    everywhere(|_, engine| async move {
        let file = file_with(b"");
        let content = pattern(1 << 20);
        let mut cursor = File::from_std(&engine, file.try_clone().unwrap()).cursor();
        cursor.write_all(&content).await.unwrap();
        drop((cursor, engine));
        becomes(|| file.metadata().unwrap().len() == 1 << 20).await;
        let mut back = vec![0; 1 << 20];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back == content);
    });
}

#[test]
fn file_of_64_mebibytes_is_copied_by_tokio() {
    let content = Arc::new(pattern(64 << 20));
    let from = Arc::new(file_with(&content));
    for (_, builder) in honest() {
        let engine = Engine::with(builder).unwrap();
        let to = file_with(b"");
        let mut reader = File::from_std(&engine, from.try_clone().unwrap()).cursor();
        let mut writer = File::from_std(&engine, to.try_clone().unwrap()).cursor();
        let copied = threads(2).block_on(soon(async {
            let copied = tokio::io::copy(&mut reader, &mut writer).await;
            writer.shutdown().await.unwrap();
            copied
        }));
        assert_eq!(copied.unwrap(), 64 << 20);
        let mut back = vec![0; 64 << 20];
        to.read_exact_at(&mut back, 0).unwrap();
        assert!(back == *content, "the copy differs");
    }
}

#[test]
fn operation_of_a_dropped_future_is_cancelled_and_what_it_held_is_let_go() {
    let Ok(builder) = ring() else { return };
    let engine = Engine::with(builder).unwrap();
    one_thread().block_on(soon(async {
        let (file, far) = stuck(&engine);
        let fd = file.fd();
        let mut read = Box::pin(file.read_at(Vec::with_capacity(100), 0));
        assert!(begin(&mut read).await.is_pending());
        assert_eq!(Arc::strong_count(&fd), 3, "file, test, and operation");
        // So that the driver has submitted it.
        tokio::task::yield_now().await;
        drop(read);
        becomes(|| Arc::strong_count(&fd) == 2).await;
        drop((file, fd));
        far.set_nonblocking(true).unwrap();
        let mut far = tokio::net::UnixStream::from_std(far).unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0, "the other end is closed");
    }));
}

#[test]
fn what_was_dropped_before_the_driver_came_is_never_begun() {
    for (_, builder) in honest() {
        let engine = Engine::with(builder).unwrap();
        let content = file_with(b"");
        let file = File::from_std(&engine, content.try_clone().unwrap());
        one_thread().block_on(soon(async {
            for _ in 0..20 {
                let mut write = Box::pin(file.write_all_at(b"hello".to_vec(), 0));
                assert!(begin(&mut write).await.is_pending());
                drop(write);
                file.sync_all().await.unwrap();
            }
        }));
        assert_eq!(content.metadata().unwrap().len(), 0, "it was written");
    }
}

#[test]
fn futures_that_are_dropped_at_random_points_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("file");
    std::fs::write(&path, pattern(10_000)).unwrap();
    let mut seed = 42_u64;
    let mut dice = move |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    for (name, builder) in honest() {
        // So few that many wait for room.
        let engine = Engine::with(builder.capacity(4)).unwrap();
        let fd: kevent_aio::Fd =
            Arc::new(std::fs::File::options().read(true).write(true).open(&path).unwrap());
        threads(2).block_on(soon(async {
            let mut tasks = Vec::new();
            for _ in 0..2000 {
                let (polls, kind) = (dice(5), dice(4));
                let (engine, fd, path) = (engine.clone(), Arc::clone(&fd), path.clone());
                tasks.push(tokio::spawn(async move {
                    let buffer = Vec::with_capacity(1000);
                    let mut run: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match kind {
                        0 => Box::pin(async move { drop(engine.run(Open::new(path)).await) }),
                        1 => Box::pin(async move {
                            drop(engine.run(Read::new(fd, 7, buffer).cold()).await)
                        }),
                        2 => Box::pin(async move {
                            drop(engine.run(Write::new(fd, 20_000, "hello")).await)
                        }),
                        _ => Box::pin(async move {
                            let mut chain = Chain::new();
                            let file = chain.open(Open::new(path));
                            chain.read(file, 0, 100);
                            drop(chain.run(&engine).await);
                        }),
                    };
                    for _ in 0..polls {
                        if begin(&mut run).await.is_ready() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            becomes(|| Arc::strong_count(&fd) == 1).await;
            becomes(|| open_on(&path) == 1).await;
            // There is room again for as many as there ever was.
            for _ in 0..100 {
                let read = Read::new(Arc::clone(&fd), 0, Vec::with_capacity(10)).cold();
                assert_eq!(engine.run(read).await.result.unwrap(), 10, "{name}");
            }
        }));
    }
}

#[test]
fn read_that_loses_a_race_against_the_clock_holds_up_nobody() {
    everywhere(|_, engine| async move {
        let (file, _far) = stuck(&engine);
        for _ in 0..10 {
            tokio::select! {
                _ = file.read_at(Vec::with_capacity(10), 0) => panic!("nobody writes"),
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
        }
        let other = File::from_std(&engine, file_with(b"hello"));
        let (synced, _) = tokio::join!(other.sync_all(), other.read_at(Vec::with_capacity(5), 0));
        synced.unwrap();
    });
}

#[test]
fn deadline_ends_what_is_in_flight_and_what_waits_for_room() {
    let Ok(builder) = ring() else { return };
    let engine = Engine::with(builder.capacity(1)).unwrap();
    one_thread().block_on(soon(async {
        let (file, mut far) = stuck(&engine);
        let buffer = || Vec::with_capacity(100);
        let soon = || Instant::now() + Duration::from_millis(5);
        let (late, back) = file.read_at_until(buffer(), 0, soon()).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(back.capacity(), 100, "the buffer is back");

        // Now one that has no deadline is in flight.
        let mut stays = Box::pin(file.read_at(buffer(), 0));
        assert!(begin(&mut stays).await.is_pending());
        let (late, back) = file.write_at_until(b"hello".to_vec(), 0, soon()).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(back, b"hello");
        far.write_all(b"news").unwrap();
        assert_eq!(stays.await.1, b"news");
        // Its alarm is not left behind: there is room, and nobody is late.
        let in_time = Instant::now() + PATIENCE;
        let (written, _) = file.write_all_at_until(b"answer".to_vec(), 0, in_time).await;
        written.unwrap();
    }));
}

#[test]
fn full_engine_begins_what_waits_in_the_order_in_which_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for (_, builder) in honest() {
        let engine = Engine::with(builder.capacity(1)).unwrap();
        std::fs::write(&path, "").unwrap();
        let log = std::fs::File::options().append(true).open(&path).unwrap();
        one_thread().block_on(soon(async {
            let (file, mut far) = stuck(&engine);
            let mut blocks = Box::pin(file.read_at(Vec::with_capacity(1), 0));
            assert!(begin(&mut blocks).await.is_pending());
            let log = Arc::new(File::from_std(&engine, log));
            let write = |n: u8| {
                let log = Arc::clone(&log);
                tokio::spawn(async move { log.write_all_at(vec![n], 0).await.0 })
            };
            let writes: Vec<_> = (0..50).map(write).collect();
            tokio::task::yield_now().await;
            // One of those that wait gives up.
            writes[25].abort();
            tokio::task::yield_now().await;
            assert_eq!(std::fs::read(&path).unwrap(), [], "there is no room");
            far.write_all(b"x").unwrap();
            blocks.await.0.unwrap();
            for (n, write) in writes.into_iter().enumerate() {
                assert_eq!(write.await.is_ok(), n != 25);
            }
        }));
        let order: Vec<u8> = (0..50).filter(|n| *n != 25).collect();
        assert_eq!(std::fs::read(&path).unwrap(), order);
    }
}

#[test]
fn sendfile_to_a_slow_reader_holds_up_nobody_and_sends_the_range() {
    let content = Arc::new(pattern(16 << 20));
    let source = Arc::new(file_with(&content));
    everywhere(|_, engine| {
        let (content, source) = (Arc::clone(&content), Arc::clone(&source));
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let file = File::from_std(&engine, source.try_clone().unwrap());
            server.write_all(b"before").await.unwrap();
            let range = 1000..(16 << 20) - 1;
            {
                let mut transfer = Box::pin(file.sendfile(range.clone(), &server));
                assert!(begin(&mut transfer).await.is_pending());
                // The socket is full, and others are served.
                let other = File::from_std(&engine, file_with(b"hello"));
                other.sync_all().await.unwrap();
                let mut received = vec![0; 6 + (range.end - range.start) as usize];
                let (sent, read) = tokio::join!(transfer, client.read_exact(&mut received));
                assert_eq!(sent.unwrap(), range.end - range.start);
                read.unwrap();
                assert_eq!(&received[..6], b"before");
                assert!(
                    received[6..] == content[1000..(16 << 20) - 1],
                    "other bytes than the file's"
                );
            }
            server.write_all(b"behind").await.unwrap();
            drop(server);
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"behind");
        }
    });
}

#[test]
fn sendfile_whose_receiver_never_reads_is_dropped_and_lets_go() {
    let source = Arc::new(file_with(&pattern(16 << 20)));
    everywhere(|_, engine| {
        let source = source.try_clone().unwrap();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let file = File::from_std(&engine, source);
            let fd = file.fd();
            let sent =
                timeout(Duration::from_millis(20), file.sendfile(0..16 << 20, &server)).await;
            assert!(sent.is_err(), "nobody reads");
            drop(server);
            becomes(|| Arc::strong_count(&fd) == 2).await;
            // No duplicate of the socket is left: the stream ends.
            assert!(client.read_to_end(&mut Vec::new()).await.unwrap() < 16 << 20);
        }
    });
}

#[test]
fn chain_comes_back_with_what_it_has_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("file");
    std::fs::write(&path, "hello").unwrap();
    everywhere(|_, engine| {
        let path = path.clone();
        async move {
            let mut chain = Chain::new();
            let file = chain.open(Open::new(&path));
            let data = chain.read(file, 1, 100);
            chain.keep(file);
            let finished = chain.run(&engine).await;
            assert_eq!(finished.result.unwrap(), 4);
            let mut chain = finished.op.unwrap();
            assert_eq!(chain.data(data).unwrap(), b"ello");
            assert!(chain.take_file(file).is_some());

            let mut chain = Chain::new();
            let none = chain.open(Open::new(path.join("none")));
            chain.close(none);
            let finished = chain.run_until(&engine, Instant::now() + PATIENCE).await;
            assert!(finished.result.is_err());
            let chain = finished.op.unwrap();
            let (step, report) = chain.failed().unwrap();
            assert_eq!((step, report.name), (0, "Open"));
        }
    });
}

#[test]
fn one_engine_serves_several_runtimes_one_after_another() {
    for (_, builder) in honest() {
        let engine = Engine::with(builder).unwrap();
        let file = File::from_std(&engine, file_with(b""));
        // The first is alive all the time, and nobody drives it.
        let idle = one_thread();
        let gone = threads(2);
        for runtime in [&idle, &gone, &idle] {
            runtime.block_on(soon(file.sync_all())).unwrap();
        }
        drop(gone);
        threads(1).block_on(soon(file.sync_all())).unwrap();
        idle.block_on(soon(file.sync_all())).unwrap();
    }
}

#[test]
fn runtime_that_is_gone_is_an_error_and_no_hang() {
    let engine = Engine::new().unwrap();
    let file = File::from_std(&engine, file_with(b""));
    let runtime = threads(1);
    runtime.block_on(soon(file.sync_all())).unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(handle.block_on(file.sync_all())));
    assert!(told.recv_timeout(PATIENCE).expect("it hangs").is_err());
}

#[test]
fn future_that_moves_to_another_runtime_goes_on_there() {
    for (_, builder) in honest() {
        let engine = Engine::with(builder).unwrap();
        let (file, mut far) = stuck(&engine);
        let (first, second) = (one_thread(), one_thread());
        // The second has a driver already, which sleeps.
        second.block_on(soon(File::from_std(&engine, file_with(b"")).sync_all())).unwrap();
        let mut read = Box::pin(file.read_at(Vec::with_capacity(5), 0));
        // Asked for in the first, whose driver never comes to it.
        assert!(first.block_on(begin(&mut read)).is_pending());
        far.write_all(b"hello").unwrap();
        let (count, buffer) = second.block_on(soon(read));
        assert_eq!((count.unwrap(), &buffer[..]), (5, &b"hello"[..]));
    }
}

#[test]
fn runtime_that_goes_with_operations_in_flight_takes_them_along() {
    for (name, builder) in honest() {
        let engine = Engine::with(builder).unwrap();
        let (file, far) = stuck(&engine);
        let fd = file.fd();
        let runtime = threads(2);
        let file = Arc::new(file);
        for _ in 0..10 {
            let file = Arc::clone(&file);
            runtime.spawn(async move { file.read_at(Vec::with_capacity(10), 0).await });
        }
        runtime.block_on(becomes(|| Arc::strong_count(&fd) == 12));
        drop(runtime);
        if name == "pool" {
            // Threads of the pool are stuck in it, until there is something.
            drop(far);
        }
        let sync = File::from_std(&engine, file_with(b""));
        one_thread().block_on(soon(async {
            sync.sync_all().await.unwrap();
            becomes(|| Arc::strong_count(&fd) == 2).await;
        }));
    }
}

#[test]
fn shutdown_ends_every_future_and_gives_back_what_it_can() {
    everywhere(|name, builder_engine| async move {
        drop(builder_engine);
        let choice = if name == "pool" { Choice::Pool } else { Choice::Uring };
        let engine = Engine::with(Aio::builder().backend(choice).capacity(4)).unwrap();
        let (file, far) = stuck(&engine);
        let file = Arc::new(file);
        let read = |n: usize| {
            let file = Arc::clone(&file);
            tokio::spawn(async move { file.read_at(Vec::with_capacity(10 + n), 0).await })
        };
        let reads: Vec<_> = (0..10).map(read).collect();
        let fd = file.fd();
        becomes(|| Arc::strong_count(&fd) == 12).await;
        engine.shutdown();
        for (n, read) in reads.into_iter().enumerate() {
            let (count, buffer) = read.await.unwrap();
            assert!(count.is_err(), "nobody has written");
            let back = buffer.capacity() == 10 + n;
            assert!(back || name == "pool", "what the kernel has let go of comes back");
        }
        let (refused, buffer) = file.read_at(Vec::with_capacity(7), 0).await;
        assert!(refused.unwrap_err().to_string().contains("shut down"));
        assert_eq!(buffer.capacity(), 7);
        drop(far);
        becomes(|| Arc::strong_count(&fd) == 2).await;
    });
}

/// A socket of a user that wants to know how the engine is, when he lets it go.
struct Curious(UnixStream, Engine, Arc<AtomicBool>);

impl AsFd for Curious {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        let _ = self.1.report();
        self.2.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_a_user_gave_may_ask_the_engine_when_it_is_dropped_however_late() {
    let runtime = threads(2);
    let gone = Arc::new(AtomicBool::new(false));
    let (near, mut far) = UnixStream::pair().unwrap();
    let late = runtime.block_on(soon(async {
        let engine = Engine::with(Aio::builder().backend(Choice::Pool)).unwrap();
        let file = Arc::new(Curious(near, engine.clone(), gone.clone()));
        let run = engine.clone();
        let read = tokio::spawn(async move { run.run(Read::new(file, 0, vec![0; 9])).await });
        becomes(|| engine.report().in_flight == 1).await;
        engine.shutdown();
        assert!(read.await.unwrap().op.is_none(), "a thread is at work on it");
        far.write_all(b"too late").unwrap();
        timeout(PATIENCE, becomes(|| gone.load(Ordering::Relaxed))).await
    }));
    runtime.shutdown_background();
    late.expect("it waits for itself");
}

#[test]
fn driver_ends_with_the_last_handle() {
    for (_, builder) in honest() {
        let runtime = threads(2);
        let engine = Engine::with(builder).unwrap();
        let cursor: Cursor = runtime.block_on(soon(async {
            let file = File::from_std(&engine, file_with(b"hello"));
            file.sync_all().await.unwrap();
            file.cursor()
        }));
        drop(engine);
        assert_eq!(runtime.metrics().num_alive_tasks(), 1, "a file is a handle, too");
        drop(cursor);
        runtime.block_on(becomes(|| runtime.metrics().num_alive_tasks() == 0));
    }
}

#[test]
fn transfers_on_one_socket_follow_each_other() {
    everywhere(|_, engine| async move {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut far = tokio::net::UnixStream::from_std(far).unwrap();
        let socket: kevent_aio::Fd = Arc::new(near);
        let send = |n: u8| {
            let (engine, socket) = (engine.clone(), Arc::clone(&socket));
            async move {
                let finished = engine.run(Sendfile::bytes(socket, vec![n; 100_000])).await;
                assert_eq!(finished.result.unwrap(), 100_000);
                assert_eq!(finished.way, Way::Inline);
            }
        };
        let mut received = vec![0; 300_000];
        tokio::join!(send(1), send(2), send(3), async {
            far.read_exact(&mut received).await.unwrap();
        });
        for (n, sent) in received.chunks(100_000).enumerate() {
            assert!(sent.iter().all(|byte| usize::from(*byte) == n + 1), "mixed up");
        }
    });
}
