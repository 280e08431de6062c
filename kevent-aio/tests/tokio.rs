//! The engine in tokio: on both kinds of runtime, on the ring and on the pool.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::future::Future;
use std::io::{self, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{PATIENCE, honest};
use kevent_aio::tokio::{Cursor, Engine, File};
use kevent_aio::{Aio, Chain, Choice, Open, Read, Sendfile, StepKind, Way, Write, testing};
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
