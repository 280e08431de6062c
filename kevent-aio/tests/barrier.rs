//! Bringing a file to the disk, and all that was written to it before.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use common::{Bench, honest};
use kevent_aio::{Fallocate, Fd, Fdatasync, Fsync, Write, WriteVectored};

#[test]
fn sync_comes_after_all_writes_that_were_submitted_before() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file: Fd = Arc::new(tempfile::tempfile().unwrap());
        for round in 0..50 {
            for key in 0..8 {
                bench.submit(Write::new(file.clone(), key * 10_000, vec![1; 10_000]), key);
            }
            bench.submit(WriteVectored::new(file.clone(), 0, vec![vec![2; 10_000]]), 8);
            bench.submit(Fallocate::new(file.clone(), 0, 100_000), 9);
            if round % 2 == 0 {
                bench.submit(Fsync::new(file.clone()).after_writes(), 10);
            } else {
                bench.submit(Fdatasync::new(file.clone()).after_writes(), 10);
            }
            let mut keys = Vec::new();
            for _ in 0..11 {
                let completion = bench.next();
                completion.result.unwrap();
                keys.push(completion.key);
            }
            assert_eq!(keys.last(), Some(&10), "{name}: {keys:?}");
        }
    }
}

/// The ends of a connection that takes no more until somebody reads.
fn full() -> (UnixStream, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    while (&here).write(&[0; 4096]).is_ok() {}
    here.set_nonblocking(false).unwrap();
    (here, there)
}

#[test]
fn sync_waits_for_writes_by_other_descriptors_of_the_file_and_for_no_others() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (here, mut there) = full();
        let duplicate: Fd = Arc::new(here.try_clone().unwrap());
        let here: Fd = Arc::new(here);
        bench.submit(Write::new(here.clone(), 0, "stuck"), 1);
        let file: Fd = Arc::new(tempfile::tempfile().unwrap());
        bench.submit(Fsync::new(file).after_writes(), 2);
        assert_eq!(bench.next().key, 2, "{name}: it is of another file");
        bench.submit(Fsync::new(duplicate).after_writes(), 3);
        bench.is_silent();
        let reader = std::thread::spawn(move || std::io::copy(&mut there, &mut std::io::sink()));
        assert_eq!(bench.next().key, 1, "{name}");
        let sync = bench.next();
        assert_eq!(sync.key, 3, "{name}");
        let error = sync.result.as_ref().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "of a socket");
        drop((bench, here, sync));
        reader.join().unwrap().unwrap();
    }
}

#[test]
fn sync_that_waits_can_be_cancelled_and_the_writes_go_on() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (here, mut there) = full();
        let here: Fd = Arc::new(here);
        bench.submit(Write::new(here.clone(), 0, "stuck"), 1);
        let token = bench.submit(Fsync::new(here.clone()).after_writes(), 2);
        bench.turn();
        bench.aio().cancel(token);
        assert!(bench.next().was_cancelled(), "{name}");
        bench.is_silent();
        let reader = std::thread::spawn(move || std::io::copy(&mut there, &mut std::io::sink()));
        assert_eq!(bench.next().key, 1);
        assert_eq!(bench.aio().in_flight(), 0);
        drop((bench, here));
        reader.join().unwrap().unwrap();
    }
}
