//! Transfers on the engine, on both backends and on one that lies.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kevent_aio::{Aio, End, Op, Sendfile, Started, testing};

use common::{engines, next, queue};

fn sendfile(op: Op) -> Sendfile {
    match op {
        Op::Sendfile(sendfile) => sendfile,
        other => panic!("{other:?} was not submitted"),
    }
}

fn tcp() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    (Arc::new(server), client)
}

fn unix() -> (Arc<UnixStream>, UnixStream) {
    let (server, client) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    (Arc::new(server), client)
}

fn reader(mut client: impl io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    })
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| (i ^ (i >> 8) ^ (i >> 16) ^ seed) as u8).collect()
}

/// A file of the disk that the build is on: the system's temporary directory may be a tmpfs.
fn disk_file(data: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.write_all(data).unwrap();
    Arc::new(file)
}

#[test]
fn transfers_to_one_socket_arrive_in_the_order_of_submission() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, client) = tcp();
        let reader = reader(client);
        let mut expected = Vec::new();
        for key in 0..60_u64 {
            let seed = key as usize;
            let data = pattern([300, 40_000, 700_000][seed % 3], seed);
            let file = disk_file(&data);
            let head = format!("<{key}>");
            expected.extend_from_slice(head.as_bytes());
            let op = if key % 4 == 3 {
                Sendfile::bytes(server.clone(), head)
            } else {
                expected.extend_from_slice(&data);
                Sendfile::new(server.clone(), file, 0, data.len() as u64).header(head)
            };
            queue[aio].submit(op, key).unwrap();
        }
        for key in 0..60 {
            let completion = next(&mut queue);
            assert_eq!(completion.key, key);
            completion.result.unwrap();
            assert_eq!(sendfile(*completion.op).end(), Some(End::Complete));
        }
        server.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap() == expected);
    }
}

#[test]
fn transfer_that_is_started_is_done_at_once_and_never_overtakes() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, mut client) = unix();
        let data = pattern(2_000_000, 0);
        let file = disk_file(&data);
        let mut expected = Vec::new();
        let mut at = 0;
        let mut piece = |length: u64| {
            let op = Sendfile::new(server.clone(), file.clone(), at, length);
            expected.extend_from_slice(&data[at as usize..][..length as usize]);
            at += length;
            op
        };
        for _ in 0..3 {
            match queue[aio].start(piece(4096), 1).unwrap() {
                Started::Done { op, result } => {
                    assert_eq!(result.unwrap(), 4096);
                    assert_eq!(sendfile(op).end(), Some(End::Complete));
                }
                Started::InFlight(_) => panic!("nobody else writes, and there is room"),
            }
        }
        let large = queue[aio].start(piece(1_000_000), 2).unwrap();
        assert!(matches!(large, Started::InFlight(_)), "the socket does not hold so much");
        let behind = queue[aio].start(piece(10), 3).unwrap();
        assert!(matches!(behind, Started::InFlight(_)), "it has to wait for its turn");
        let mut got = vec![0; expected.len()];
        let reader = thread::spawn(move || {
            client.read_exact(&mut got).unwrap();
            got
        });
        assert_eq!([next(&mut queue).key, next(&mut queue).key], [2, 3]);
        assert!(reader.join().unwrap() == expected);
        assert_eq!(queue[aio].in_flight(), 0);
    }
}

#[test]
fn a_sparse_cold_file_goes_by_the_backend_and_arrives_whole() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, client) = tcp();
        let reader = reader(client);
        // Holes are in no page cache before somebody has read them.
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.set_len(5_000_001).unwrap();
        let op = Sendfile::new(server.clone(), Arc::new(file), 1, Sendfile::TO_END);
        queue[aio].submit(op, 1).unwrap();
        let completion = next(&mut queue);
        assert_eq!(completion.result.unwrap(), 5_000_000);
        assert_eq!(completion.way, queue[aio].report().backend);
        assert!(sendfile(*completion.op).misses() > 0);
        server.shutdown(Shutdown::Write).unwrap();
        let got = reader.join().unwrap();
        assert!(got.len() == 5_000_000 && got.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_fast_large_transfer_does_not_keep_a_small_one_waiting() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let data = pattern(64_000_000, 0);
        let file = disk_file(&data);
        let (large, large_client) = tcp();
        let (small, small_client) = tcp();
        let (large_reader, small_reader) = (reader(large_client), reader(small_client));
        queue[aio]
            .submit(Sendfile::new(large.clone(), file.clone(), 0, data.len() as u64), 1)
            .unwrap();
        queue[aio].submit(Sendfile::new(small.clone(), file, 0, 1000), 2).unwrap();
        assert_eq!(next(&mut queue).key, 2);
        let completion = next(&mut queue);
        assert_eq!((completion.key, completion.result.unwrap()), (1, data.len() as u64));
        large.shutdown(Shutdown::Write).unwrap();
        small.shutdown(Shutdown::Write).unwrap();
        assert!(large_reader.join().unwrap() == data);
        assert!(small_reader.join().unwrap() == data[..1000]);
    }
}

#[test]
fn a_cancelled_transfer_tells_what_it_has_sent_and_lets_the_next_one_go() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, mut client) = unix();
        let data = pattern(3_000_000, 1);
        let file = disk_file(&data);
        let op = Sendfile::new(server.clone(), file, 0, data.len() as u64).header("head");
        let token = queue[aio].submit(op, 1).unwrap();
        queue[aio].submit(Sendfile::bytes(server.clone(), "next"), 2).unwrap();
        assert_eq!(queue.wait(Duration::from_millis(50)).unwrap(), 0);
        queue[aio].cancel(token);
        let completion = next(&mut queue);
        assert!(completion.was_cancelled());
        assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        let sent = sendfile(*completion.op).sent();
        assert!(sent.header == 4 && sent.body > 0 && sent.body < data.len() as u64);
        let reader = thread::spawn(move || {
            let mut got = vec![0; sent.total() as usize + 4];
            client.read_exact(&mut got).unwrap();
            got
        });
        assert_eq!(next(&mut queue).key, 2);
        assert!(reader.join().unwrap() == [b"head", &data[..sent.body as usize], b"next"].concat());
    }
}

#[test]
fn a_transfer_past_its_deadline_ends() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, _client) = unix();
        let file = disk_file(&pattern(3_000_000, 1));
        let op = Sendfile::new(server, file, 0, 3_000_000);
        queue[aio].submit_until(op, 1, Instant::now() + Duration::from_millis(20)).unwrap();
        let completion = next(&mut queue);
        assert_eq!(completion.result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(sendfile(*completion.op).sent().body > 0);
    }
}

#[test]
fn a_peer_that_leaves_ends_the_transfer_with_its_cause() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, mut client) = tcp();
        let file = disk_file(&pattern(30_000_000, 1));
        queue[aio].submit(Sendfile::new(server, file, 0, 30_000_000), 1).unwrap();
        let reader = thread::spawn(move || client.read_exact(&mut [0; 10_000]).unwrap());
        let completion = next(&mut queue);
        reader.join().unwrap();
        let kind = completion.result.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
        assert!(sendfile(*completion.op).sent().body >= 10_000);
    }
}

#[test]
fn on_a_backend_that_lies_what_arrives_is_right_as_far_as_it_goes() {
    let mut whole = 0;
    for seed in 0..40 {
        let (mut queue, aio) = queue(testing::lying(Aio::builder(), seed));
        let (server, client) = tcp();
        let reader = reader(client);
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.set_len(400_000).unwrap();
        file.write_all(b"start").unwrap();
        let op = Sendfile::new(server.clone(), Arc::new(file), 3, Sendfile::TO_END).header("head");
        queue[aio].submit(op, 1).unwrap();
        let completion = next(&mut queue);
        server.shutdown(Shutdown::Write).unwrap();
        let got = reader.join().unwrap();
        let expected = [b"headrt".as_slice(), &[0; 399_995]].concat();
        let sent = sendfile(*completion.op).sent().total();
        assert_eq!(sent, got.len() as u64);
        assert!(got == expected[..got.len()]);
        match completion.result {
            Ok(count) => assert_eq!(count, expected.len() as u64),
            Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::EAGAIN))),
        }
        whole += u32::from(got.len() == expected.len());
    }
    assert!(whole > 5, "only {whole} of 40 were whole");
}

#[test]
fn a_blocking_socket_that_is_full_stops_nobody() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, client) = UnixStream::pair().unwrap();
        let (server, data) = (Arc::new(server), pattern(2_000_000, 3));
        let op = Sendfile::new(server.clone(), disk_file(&data), 0, 2_000_000);
        queue[aio].submit(op, 1).unwrap();
        let (other, _other_client) = unix();
        queue[aio].submit(Sendfile::bytes(other, "others go on"), 2).unwrap();
        assert_eq!(next(&mut queue).key, 2);
        let reader = reader(client);
        assert_eq!(next(&mut queue).result.unwrap(), 2_000_000);
        server.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap() == data);
    }
}

#[test]
fn a_peer_that_leaves_ends_all_that_wait_for_it_in_their_order() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, client) = unix();
        for key in 0..4 {
            let file = disk_file(&pattern(1_000_000, 1));
            let op = Sendfile::new(server.clone(), file, 0, 1_000_000).header("head");
            queue[aio].submit(op, key).unwrap();
        }
        assert_eq!(queue.wait(Duration::from_millis(20)).unwrap(), 0);
        drop(client);
        for key in 0..4 {
            let completion = next(&mut queue);
            assert_eq!(completion.key, key);
            assert_eq!(completion.result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(sendfile(*completion.op).sent().total() > 0, key == 0);
        }
        assert_eq!(Arc::strong_count(&server), 1);
    }
}

#[test]
fn a_deadline_behind_others_passes_over_and_keeps_their_order() {
    for builder in engines() {
        let (mut queue, aio) = queue(builder);
        let (server, client) = unix();
        let bytes = |text: &str, times| Sendfile::bytes(server.clone(), text.repeat(times));
        queue[aio].submit(bytes("a", 1_000_000), 1).unwrap();
        queue[aio].submit_until(bytes("b", 1), 2, Instant::now()).unwrap();
        queue[aio].submit(bytes("c", 1), 3).unwrap();
        let completion = next(&mut queue);
        assert_eq!((completion.key, completion.was_cancelled()), (2, false));
        assert_eq!(completion.result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let reader = reader(client);
        assert_eq!((next(&mut queue).key, next(&mut queue).key), (1, 3));
        server.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap().ends_with(b"aac"));
    }
}
