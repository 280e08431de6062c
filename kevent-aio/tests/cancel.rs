//! Ending operations early: by cancelling, by a deadline, by forgetting, by dropping everything.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Bench, PATIENCE, honest};
use kevent_aio::{Aio, Cancel, Choice, Close, Op, Read, Sendfile, Way, Write};

/// Two ends: from the first nothing comes until it is written to the second.
fn stream() -> (Arc<UnixStream>, UnixStream) {
    let (reader, writer) = UnixStream::pair().unwrap();
    (Arc::new(reader), writer)
}

fn read_of(reader: &Arc<UnixStream>) -> Read {
    Read::new(reader.clone(), 0, Vec::with_capacity(100))
}

#[test]
fn cancelled_read_of_a_stream_says_so_and_gives_the_buffer_back() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        if bench.aio().report().backend == Way::Pool {
            continue;
        }
        let (reader, _writer) = stream();
        // One that the kernel has, and one that it has not.
        let first = bench.submit(read_of(&reader), 1);
        bench.turn();
        let second = bench.submit(read_of(&reader), 2);
        for token in [first, second] {
            assert_eq!(bench.aio().cancel(token), Cancel::Requested);
            assert_eq!(bench.aio().cancel(token), Cancel::Requested, "twice is once");
        }
        for _ in 0..2 {
            let completion = bench.next();
            assert!(completion.was_cancelled(), "{name}");
            let errno = completion.result.unwrap_err().raw_os_error();
            assert_eq!(errno, Some(libc::ECANCELED), "{name}");
            let Op::Read(read) = *completion.op else { panic!() };
            let buffer = read.into_buffer();
            assert!(buffer.is_empty() && buffer.capacity() == 100);
            assert_eq!(bench.aio().cancel(completion.token), Cancel::NotFound);
        }
        bench.is_silent();
        assert_eq!(bench.aio().in_flight(), 0);
    }
}

#[test]
fn cancelled_job_that_no_thread_has_begun_ends_at_once() {
    let mut bench = Bench::new(Aio::builder().backend(Choice::Pool).threads(1));
    let (blocker, mut writer) = stream();
    let first = bench.submit(read_of(&blocker), 1);
    let second = bench.submit(read_of(&blocker), 2);
    assert_eq!(bench.aio().cancel(second), Cancel::Requested);
    let completion = bench.next();
    assert!(completion.was_cancelled());
    assert_eq!(completion.key, 2);
    // The other is at work, or will be; whichever, it tells the truth.
    writer.write_all(b"data").unwrap();
    assert_eq!(bench.aio().cancel(first), Cancel::Requested);
    let completion = bench.next();
    assert_eq!(completion.key, 1);
    assert_eq!(completion.was_cancelled(), completion.result.is_err());
    bench.is_silent();
}

#[test]
fn running_job_of_the_pool_finishes_and_says_so() {
    let mut bench = Bench::new(Aio::builder().backend(Choice::Pool));
    let (reader, mut writer) = stream();
    let (proof, mut prove) = stream();
    let token = bench.submit(read_of(&reader), 1);
    // Once a read that was submitted later is done, the first has long begun: jobs begin in order.
    bench.submit(read_of(&proof), 2);
    prove.write_all(b"begun").unwrap();
    assert_eq!(bench.next().key, 2);
    assert_eq!(bench.aio().cancel(token), Cancel::Requested);
    bench.is_silent();
    writer.write_all(b"all the same").unwrap();
    let completion = bench.next();
    assert_eq!(completion.result.as_ref().copied().unwrap(), 12);
    assert!(!completion.was_cancelled());
}

#[test]
fn cancel_after_completion_keeps_the_result() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (reader, mut writer) = stream();
        writer.write_all(b"here").unwrap();
        let token = bench.submit(read_of(&reader), 1);
        while bench.queue.is_empty() {
            bench.queue.wait(None).unwrap();
        }
        assert_eq!(bench.aio().cancel(token), Cancel::Requested);
        let completion = bench.next();
        assert_eq!(completion.result.as_ref().copied().unwrap(), 4, "{name}");
        assert!(!completion.was_cancelled());
        assert_eq!(bench.aio().cancel(token), Cancel::NotFound);
    }
}

#[test]
fn deadline_ends_what_is_late_and_nothing_else() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (reader, mut writer) = stream();
        let soon = Instant::now() + Duration::from_millis(30);
        let later = Instant::now() + Duration::from_secs(3600);
        let in_time = Write::new(Arc::new(tempfile::tempfile().unwrap()), 0, "in time");
        bench.aio().submit_until(read_of(&reader), 1, soon).unwrap();
        bench.aio().submit_until(in_time, 2, later).unwrap();
        let completion = bench.next();
        assert_eq!((completion.key, completion.result.unwrap()), (2, 7), "{name}");
        if bench.aio().report().backend == Way::Ring {
            let completion = bench.next();
            assert!(Instant::now() >= soon, "{name}: early");
            assert!(Instant::now() < soon + PATIENCE / 2, "{name}: nothing woke the queue");
            assert_eq!(completion.key, 1);
            assert!(!completion.was_cancelled(), "nobody cancelled it");
            let error = completion.result.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{name}");
        } else {
            // The pool can't stop it. It says what it did.
            while Instant::now() < soon {
                bench.is_silent();
            }
            writer.write_all(b"late").unwrap();
            assert_eq!(bench.next().result.unwrap(), 4);
        }
        assert_eq!(bench.aio().in_flight(), 0);
    }
}

#[test]
fn abandoned_operations_are_never_heard_of() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (reader, mut writer) = stream();
        let token = bench.submit(read_of(&reader), 1);
        bench.turn();
        assert!(bench.aio().abandon(token));
        assert!(!bench.aio().abandon(token), "twice");
        assert_eq!(bench.aio().in_flight(), 1, "the kernel still has it");
        writer.write_all(b"unheard").unwrap();
        bench.is_silent();
        while bench.aio().in_flight() > 0 {
            bench.is_silent();
        }
        assert_eq!(Arc::strong_count(&reader), 1, "{name}: the operation let go of its file");
    }
}

#[test]
fn engine_dropped_with_reads_in_flight_lets_go_of_everything() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.threads(2));
        let (reader, mut writer) = stream();
        for key in 0..20 {
            bench.submit(read_of(&reader), key);
            if key == 10 {
                bench.turn();
            }
        }
        let on_ring = bench.aio().report().backend == Way::Ring;
        drop(bench);
        if on_ring {
            assert_eq!(Arc::strong_count(&reader), 1, "{name}: some were leaked");
            continue;
        }
        // Two threads of the pool are stuck, and end when their reads do.
        while Arc::strong_count(&reader) > 1 {
            let _ = writer.write(b"x").unwrap();
            std::thread::yield_now();
        }
    }
}

#[test]
fn operations_outlive_the_thread_that_submitted_them() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (reader, mut writer) = stream();
        let submitter = {
            let reader = reader.clone();
            std::thread::spawn(move || {
                for key in 0..8 {
                    bench.submit(Read::new(reader.clone(), 0, Vec::with_capacity(1)), key);
                }
                bench.turn();
                bench
            })
        };
        let mut bench = submitter.join().unwrap();
        writer.write_all(b"12345678").unwrap();
        let mut got: Vec<u8> = (0..8)
            .map(|_| {
                let completion = bench.next();
                assert_eq!(completion.result.unwrap(), 1, "{name}");
                let Op::Read(read) = *completion.op else { panic!() };
                read.data()[0]
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, b"12345678", "{name}");
    }
}

#[test]
fn cancelled_close_still_closes() {
    // Whichever way it goes, the descriptor is closed once the completion is dropped.
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let token = bench.submit(Close::new(writer), 1);
        bench.aio().cancel(token);
        drop(bench.next());
        let count = std::io::Read::read(&mut reader, &mut [0]).unwrap();
        assert_eq!(count, 0, "{name}");
        drop(File::open("/dev/null"));
    }
}

#[test]
fn cancelled_in_the_line_of_a_socket_leaves_the_order_of_the_others() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = Arc::new(near);
        let big = vec![b'a'; 1 << 20];
        bench.submit(Sendfile::bytes(near.clone(), big), 1);
        let second = bench.submit(Sendfile::bytes(near.clone(), b"b".to_vec()), 2);
        bench.submit(Sendfile::bytes(near.clone(), b"c".to_vec()), 3);
        bench.turn();
        assert_eq!(bench.aio().cancel(second), Cancel::Requested);
        let completion = bench.next();
        assert!(completion.was_cancelled() && completion.key == 2, "{name}");
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; (1 << 20) + 1];
            std::io::Read::read_exact(&mut far, &mut all).unwrap();
            (all, far)
        });
        assert_eq!(bench.next().key, 1, "{name}");
        assert_eq!(bench.next().key, 3, "{name}");
        let (all, _far) = reader.join().unwrap();
        assert!(all.ends_with(b"aac"), "{name}");
    }
}
