//! Operations on sockets, on every backend: what comes and goes, who it is from, how it ends, and that
//! waiting takes no thread.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{self, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Bench, PATIENCE, honest};
use kevent_aio::{
    Accept, Address, Completion, Connect, Op, Open, Read, Recv, RecvFrom, Send, SendTo, Sendfile,
    Shutdown, Way,
};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd, ioctl_fionread};
use rustix::net::{AddressFamily, SocketType};

const WHICH: [&str; 2] = ["blocking", "non-blocking"];

/// A listener in either mode.
fn listener(nonblocking: bool) -> (Arc<TcpListener>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(nonblocking).unwrap();
    let address = listener.local_addr().unwrap();
    (Arc::new(listener), address)
}

/// Two ends of a connection over loopback; the first in either mode.
fn pair(nonblocking: bool) -> (Arc<TcpStream>, TcpStream) {
    let (listener, address) = listener(false);
    let far = TcpStream::connect(address).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(nonblocking).unwrap();
    (Arc::new(near), far)
}

/// Runs `test` on each backend with sockets in each mode.
fn everywhere(test: impl Fn(Bench, bool, &str)) {
    for nonblocking in [false, true] {
        for (name, builder) in honest() {
            let what = format!("{name}, {}", WHICH[usize::from(nonblocking)]);
            test(Bench::new(builder), nonblocking, &what);
        }
    }
}

fn recv(socket: &Arc<TcpStream>) -> Recv {
    Recv::new(socket.clone(), Vec::with_capacity(100))
}

fn accepted(completion: Completion) -> (OwnedFd, Address) {
    completion.result.unwrap();
    let Op::Accept(mut accept) = *completion.op else { panic!("an accept was submitted") };
    let fd = accept.take().expect("a socket");
    assert!(accept.take().is_none(), "a socket is given once");
    (fd, accept.peer().unwrap())
}

fn received(completion: Completion) -> Vec<u8> {
    let count = completion.result.unwrap();
    let Op::Recv(recv) = *completion.op else { panic!("a receive was submitted") };
    assert_eq!(recv.data().len() as u64, count);
    recv.into_buffer()
}

fn errno(completion: &Completion) -> Option<i32> {
    completion.result.as_ref().unwrap_err().raw_os_error()
}

#[test]
fn accept_gives_the_connection_and_who_made_it() {
    everywhere(|mut bench, nonblocking, what| {
        let (listener, address) = listener(nonblocking);
        // One that waits, and one whose client is there already.
        bench.submit(Accept::new(listener.clone()), 1);
        bench.turn();
        let first = TcpStream::connect(address).unwrap();
        let (fd, peer) = accepted(bench.next());
        assert_eq!(peer.ip(), Some(first.local_addr().unwrap()), "{what}");
        let mut stream = TcpStream::from(fd);
        stream.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        (&first).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        let second = TcpStream::connect(address).unwrap();
        let (_, peer) = accepted(bench.complete(Accept::new(listener.clone())));
        assert_eq!(peer.ip(), Some(second.local_addr().unwrap()), "{what}");
    });
}

#[test]
fn accepted_socket_is_closed_on_exec_and_has_the_mode_asked_for() {
    everywhere(|mut bench, nonblocking, what| {
        for (waits, wanted) in [(false, false), (true, true), (false, true), (true, false)] {
            let (listener, address) = listener(nonblocking);
            let client = (!waits).then(|| TcpStream::connect(address).unwrap());
            let accept = Accept::new(listener.clone());
            bench.submit(if wanted { accept.nonblocking() } else { accept }, 1);
            bench.turn();
            let _client = client.unwrap_or_else(|| TcpStream::connect(address).unwrap());
            let (fd, _) = accepted(bench.next());
            assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC), "{what}");
            assert_eq!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK), wanted, "{what}");
        }
    });
}

#[test]
fn addresses_of_all_families_are_told() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            Ok(listener) => {
                let address = listener.local_addr().unwrap();
                let client = TcpStream::connect(address).unwrap();
                let (_, peer) = accepted(bench.complete(Accept::new(Arc::new(listener))));
                assert_eq!(peer.ip(), Some(client.local_addr().unwrap()), "{name}");
            }
            Err(error) => println!("skipped: no IPv6 here: {error}"),
        }
        let abstract_name = format!("kevent-aio-{}-{name}", std::process::id());
        let here = UnixAddr::from_abstract_name(&abstract_name).unwrap();
        let listener = Arc::new(UnixListener::bind_addr(&here).unwrap());
        let client = Arc::new(unix_socket());
        let connect = bench.complete(Connect::new(client.clone(), here));
        connect.result.unwrap();
        let (_, peer) = accepted(bench.complete(Accept::new(listener)));
        let Address::Unix(peer) = peer else { panic!("{name}: another family") };
        assert!(peer.is_unnamed());
    }
}

/// A socket that is not connected to anything.
fn unix_socket() -> OwnedFd {
    rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap()
}

fn tcp_socket(nonblocking: bool) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(nonblocking).unwrap();
    stream
}

#[test]
fn connect_is_done_when_the_connection_stands_and_leaves_the_mode_alone() {
    everywhere(|mut bench, nonblocking, what| {
        let (listener, address) = listener(false);
        let socket = Arc::new(tcp_socket(nonblocking));
        // What is sent on it stands behind it.
        bench.submit(Connect::new(socket.clone(), address), 1);
        bench.submit(Send::new(socket.clone(), "first").all(), 2);
        for key in 1..3 {
            let completion = bench.next();
            assert_eq!(completion.key, key, "{what}");
            completion.result.unwrap();
        }
        let (mut peer, from) = listener.accept().unwrap();
        assert_eq!(socket.local_addr().unwrap(), from);
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"first");
        let flags = fcntl_getfl(&socket).unwrap();
        assert_eq!(flags.contains(OFlags::NONBLOCK), nonblocking, "{what}");
        let again = bench.complete(Connect::new(socket.clone(), address));
        assert_eq!(errno(&again), Some(libc::EISCONN), "{what}");
    });
}

#[test]
fn connect_to_nobody_is_refused() {
    everywhere(|mut bench, nonblocking, what| {
        let (gone, address) = listener(false);
        drop(gone);
        let socket = Arc::new(tcp_socket(nonblocking));
        let completion = bench.complete(Connect::new(socket, address));
        assert_eq!(errno(&completion), Some(libc::ECONNREFUSED), "{what}");
        let dir = tempfile::tempdir().unwrap();
        let to = UnixAddr::from_pathname(dir.path().join("nobody")).unwrap();
        let completion = bench.complete(Connect::new(Arc::new(unix_socket()), to));
        assert_eq!(errno(&completion), Some(libc::ENOENT), "{what}");
    });
}

#[test]
fn connect_that_nobody_answers_ends_at_its_deadline() {
    everywhere(|mut bench, nonblocking, what| {
        // A full backlog: further clients are not answered.
        let (listener, _) = listener(false);
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut full = Vec::new();
        let refused = loop {
            let client = TcpStream::connect_timeout(&address, Duration::from_millis(200));
            match client {
                Ok(client) => full.push(client),
                Err(error) => break error,
            }
            assert!(full.len() < 100, "the backlog is not small");
        };
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
        let soon = Instant::now() + Duration::from_millis(20);
        let socket = Arc::new(tcp_socket(nonblocking));
        bench.aio().submit_until(Connect::new(socket, address), 1, soon).unwrap();
        let completion = bench.next();
        assert!(Instant::now() >= soon, "{what}: early");
        assert_eq!(completion.result.unwrap_err().kind(), ErrorKind::TimedOut, "{what}");
    });
}

#[test]
fn bytes_come_in_order_and_then_the_end() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        bench.submit(recv(&near), 1);
        bench.turn();
        far.write_all(b"one").unwrap();
        assert_eq!(received(bench.next()), b"one", "{what}");
        far.write_all(b"two").unwrap();
        assert_eq!(received(bench.complete(recv(&near).up_to(2))), b"tw", "{what}");
        assert_eq!(received(bench.complete(recv(&near))), b"o", "{what}");
        bench.submit(recv(&near), 3);
        bench.turn();
        drop(far);
        assert_eq!(received(bench.next()), b"", "{what}: the end");
        assert_eq!(received(bench.complete(recv(&near))), b"", "{what}: and again");
    });
}

#[test]
fn receive_of_all_goes_on_until_the_buffer_is_full_or_the_end() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        let size = 1 << 20;
        let all: Vec<u8> = (0..size).map(|n| (n * 7 + n / 251) as u8).collect();
        let sent = all.clone();
        let writer = thread::spawn(move || {
            for part in sent.chunks(70_001) {
                far.write_all(part).unwrap();
            }
            far
        });
        let whole = Recv::new(near.clone(), Vec::with_capacity(size)).all();
        assert!(received(bench.complete(whole)) == all, "{what}");
        let mut far = writer.join().unwrap();
        bench.submit(Recv::new(near.clone(), Vec::with_capacity(100)).all(), 1);
        far.write_all(b"short").unwrap();
        bench.turn();
        drop(far);
        assert_eq!(received(bench.next()), b"short", "{what}");
    });
}

#[test]
fn what_was_received_before_the_end_of_waiting_comes_back() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        let token = bench.submit(Recv::new(near.clone(), Vec::with_capacity(10)).all(), 1);
        bench.turn();
        far.write_all(b"half").unwrap();
        // It is there once it has left the socket.
        let deadline = Instant::now() + PATIENCE;
        while ioctl_fionread(&near).unwrap() > 0 {
            assert!(Instant::now() < deadline, "{what}: nobody receives");
            bench.queue.wait(Duration::from_millis(1)).unwrap();
        }
        bench.aio().cancel(token);
        let completion = bench.next();
        assert!(completion.was_cancelled(), "{what}");
        let Op::Recv(recv) = *completion.op else { panic!() };
        assert_eq!(recv.into_buffer(), b"half", "{what}");
        far.write_all(b"rest").unwrap();
        assert_eq!(received(bench.complete(self::recv(&near))), b"rest", "{what}");
    });
}

#[test]
fn send_of_all_goes_on_until_the_socket_has_taken_it() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        let size = 8 << 20;
        let all: Arc<[u8]> = (0..size).map(|n| (n * 7 + n / 251) as u8).collect();
        bench.submit(Send::new(near.clone(), all.clone()).all(), 1);
        bench.submit(Send::new(near.clone(), "behind it").all(), 2);
        bench.submit(Shutdown::new(near.clone(), net::Shutdown::Write), 3);
        bench.turn();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            got
        });
        for (key, count) in [(1, size as u64), (2, 9), (3, 0)] {
            let completion = bench.next();
            assert_eq!((completion.key, completion.result.unwrap()), (key, count), "{what}");
        }
        let got = reader.join().unwrap();
        assert!(got[..size] == all[..] && &got[size..] == b"behind it", "{what}");
    });
}

#[test]
fn short_send_says_how_much_and_a_cancelled_one_too() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        let big = vec![7; 32 << 20];
        let completion = bench.complete(Send::new(near.clone(), big.clone()));
        let first = completion.result.unwrap();
        drop(completion.op);
        assert!(first > 0 && first < big.len() as u64, "{what}: {first}");
        let token = bench.submit(Send::new(near.clone(), big.clone()).all(), 1);
        bench.turn();
        bench.aio().cancel(token);
        let completion = bench.next();
        assert!(completion.was_cancelled(), "{what}");
        let Op::Send(send) = *completion.op else { panic!() };
        let sent = first + send.sent();
        drop(send);
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got.len() as u64, sent, "{what}");
    });
}

#[test]
fn peer_that_is_gone_is_an_error() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(nonblocking).unwrap();
        let near = Arc::new(near);
        drop(far);
        let completion = bench.complete(Send::new(near.clone(), "to nobody").all());
        assert_eq!(errno(&completion), Some(libc::EPIPE), "{what}");
        let nobody = Arc::new(tcp_socket(nonblocking));
        let completion = bench.complete(Shutdown::new(nobody, net::Shutdown::Both));
        assert_eq!(errno(&completion), Some(libc::ENOTCONN), "{what}");
    });
}

#[test]
fn reset_connection_is_told_to_who_waits() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, far) = pair(nonblocking);
        bench.submit(recv(&near), 1);
        bench.turn();
        // What is closed with data unread is reset.
        (&*near).write_all(b"unread").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while ioctl_fionread(&far).unwrap() == 0 {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        drop(far);
        assert_eq!(errno(&bench.next()), Some(libc::ECONNRESET), "{what}");
    });
}

#[test]
fn receive_and_accept_end_at_their_deadline_or_when_cancelled_and_lose_nothing() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        let (listener, address) = listener(nonblocking);
        let soon = Instant::now() + Duration::from_millis(20);
        bench.aio().submit_until(recv(&near), 1, soon).unwrap();
        bench.aio().submit_until(Accept::new(listener.clone()), 2, soon).unwrap();
        for _ in 0..2 {
            let completion = bench.next();
            assert!(Instant::now() >= soon, "{what}: early");
            assert_eq!(completion.result.unwrap_err().kind(), ErrorKind::TimedOut, "{what}");
        }
        let tokens = [bench.submit(recv(&near), 3), bench.submit(Accept::new(listener.clone()), 4)];
        bench.turn();
        for token in tokens {
            bench.aio().cancel(token);
            assert!(bench.next().was_cancelled(), "{what}");
        }
        far.write_all(b"still").unwrap();
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(received(bench.complete(recv(&near))), b"still", "{what}");
        let (_, peer) = accepted(bench.complete(Accept::new(listener)));
        assert_eq!(peer.ip(), Some(client.local_addr().unwrap()), "{what}");
    });
}

#[test]
fn reader_does_not_stand_behind_what_is_to_be_sent() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        bench.submit(Send::new(near.clone(), vec![0; 32 << 20]).all(), 1);
        bench.submit(recv(&near), 2);
        bench.turn();
        far.write_all(b"here").unwrap();
        let completion = bench.next();
        assert_eq!(completion.key, 2, "{what}");
        assert_eq!(received(completion), b"here");
        assert_eq!(bench.aio().in_flight(), 1, "{what}: the other still waits for room");
    });
}

#[test]
fn receives_on_one_socket_get_one_datagram_each() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
        near.set_nonblocking(nonblocking).unwrap();
        let near = Arc::new(near);
        for key in 0..50 {
            bench.submit(Recv::new(near.clone(), Vec::with_capacity(10)), key);
        }
        bench.turn();
        let sender = thread::spawn(move || {
            (0..50_u8).for_each(|n| assert_eq!(far.send(&[n]).unwrap(), 1));
            far
        });
        let mut got: Vec<u8> = (0..50).flat_map(|_| received(bench.next())).collect();
        got.sort_unstable();
        assert!(got.iter().copied().eq(0..50), "{what}: {got:?}");
        drop(sender.join());
    });
}

#[test]
fn cancelled_first_of_those_who_wait_leaves_the_others_awake() {
    everywhere(|mut bench, nonblocking, what| {
        let (listener, address) = listener(nonblocking);
        let tokens: Vec<_> =
            (0..3).map(|key| bench.submit(Accept::new(listener.clone()), key)).collect();
        bench.turn();
        bench.aio().cancel(tokens[0]);
        assert_eq!(bench.next().key, 0, "{what}");
        let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        (0..2).for_each(|_| drop(accepted(bench.next())));
    });
}

#[test]
fn datagrams_come_with_their_sender() {
    everywhere(|mut bench, nonblocking, what| {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(nonblocking).unwrap();
            let address = socket.local_addr().unwrap();
            (Arc::new(socket), address)
        };
        let ((near, here), (far, there)) = (bind(), bind());
        let recv = |len| RecvFrom::new(near.clone(), Vec::with_capacity(len));
        bench.submit(recv(100), 1);
        bench.turn();
        bench.submit(SendTo::new(far.clone(), here, "hello"), 2);
        let mut completions = [bench.next(), bench.next()];
        completions.sort_by_key(|completion| completion.key);
        let [first, second] = completions;
        assert_eq!((first.result.unwrap(), second.result.unwrap()), (5, 5), "{what}");
        let Op::RecvFrom(got) = *first.op else { panic!() };
        assert_eq!(got.from().unwrap().ip(), Some(there), "{what}");
        assert_eq!(got.into_buffer(), b"hello");
        far.send_to(b"too long", here).unwrap();
        let completion = bench.complete(recv(3).flags(libc::MSG_TRUNC));
        assert_eq!(completion.result.unwrap(), 8, "{what}: of the whole");
        let Op::RecvFrom(got) = *completion.op else { panic!() };
        assert_eq!(got.data(), b"too");
    });
}

#[test]
fn bytes_that_a_receive_counts_and_throws_away_are_zeros() {
    // Not whatever was in the memory: TCP does that with MSG_TRUNC.
    let used = || {
        let mut buffer = vec![0xaa; 8];
        buffer.clear();
        buffer
    };
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        let recv = || Recv::new(near.clone(), used()).flags(libc::MSG_TRUNC);
        let from = || RecvFrom::new(near.clone(), used()).flags(libc::MSG_TRUNC);
        for op in [Op::from(recv()), recv().all().into(), from().into()] {
            bench.submit(op, 1);
            // Some of it waits for the ring, where there is one.
            bench.turn();
            far.write_all(b"nonsense").unwrap();
            let completion = bench.next();
            let count = completion.result.unwrap() as usize;
            let buffer = match *completion.op {
                Op::Recv(recv) => recv.into_buffer(),
                Op::RecvFrom(recv) => recv.into_buffer(),
                _ => unreachable!(),
            };
            assert_eq!(buffer, vec![0; count], "{what}");
        }
    });
}

#[test]
fn peeked_data_stays_and_flags_that_contradict_are_refused() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        far.write_all(b"data").unwrap();
        let peek = bench.complete(recv(&near).flags(libc::MSG_PEEK));
        assert_eq!(received(peek), b"data", "{what}");
        assert_eq!(received(bench.complete(recv(&near))), b"data", "{what}");
        let refused = [
            bench.aio().submit(recv(&near).flags(libc::MSG_WAITALL), 1).unwrap_err(),
            bench.aio().submit(recv(&near).flags(libc::MSG_PEEK).all(), 1).unwrap_err(),
            bench.aio().submit(Send::new(near, "").flags(libc::MSG_DONTWAIT), 1).unwrap_err(),
        ];
        for refused in refused {
            assert_eq!(refused.error.kind(), ErrorKind::InvalidInput, "{what}");
        }
    });
}

#[test]
fn thousand_waiting_receives_and_accepts_take_no_thread() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.threads(1).capacity(4000));
        let ends: Vec<_> = (0..1000).map(|_| UnixStream::pair().unwrap()).collect();
        let (nears, mut fars): (Vec<_>, Vec<_>) =
            ends.into_iter().map(|(near, far)| (Arc::new(near), far)).unzip();
        for (key, near) in nears.iter().enumerate() {
            bench.submit(Recv::new(near.clone(), Vec::with_capacity(8)), key as u64);
        }
        let (listener, address) = listener(true);
        for key in 1000..2000 {
            bench.submit(Accept::new(listener.clone()), key);
        }
        bench.turn();
        // The one thread is free for a file.
        let open = bench.complete(Open::new("/proc/self/status"));
        let Op::Open(mut open) = *open.op else { panic!() };
        let file = Arc::new(std::fs::File::from(open.take().unwrap()));
        let read = bench.complete(Read::new(file, 0, Vec::with_capacity(5)).cold());
        assert_eq!(read.result.unwrap(), 5, "{name}");
        for (key, far) in fars.iter_mut().enumerate() {
            far.write_all(&(key as u64).to_ne_bytes()).unwrap();
        }
        let client = thread::spawn(move || {
            (0..1000).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
        });
        let mut keys: Vec<_> = (0..2000)
            .map(|_| {
                let completion = bench.next();
                let key = completion.key;
                if key < 1000 {
                    assert_eq!(received(completion), key.to_ne_bytes(), "{name}");
                } else {
                    accepted(completion);
                }
                key
            })
            .collect();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..2000), "{name}");
        // The open and the read. A thread that only asked whether it is time would be counted.
        assert!(bench.aio().report().counters.pool <= 2, "{name}");
        drop(client.join().unwrap());
    }
}

#[test]
fn waiting_receives_and_accepts_outlive_the_thread_that_submitted_them() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        let (listener, address) = listener(nonblocking);
        let submitter = {
            let (near, listener) = (near.clone(), listener.clone());
            thread::spawn(move || {
                bench.submit(recv(&near), 1);
                bench.submit(Accept::new(listener), 2);
                bench.turn();
                bench
            })
        };
        let mut bench = submitter.join().unwrap();
        far.write_all(b"data").unwrap();
        let completion = bench.next();
        assert_eq!(received(completion), b"data", "{what}");
        let client = TcpStream::connect(address).unwrap();
        let (_, peer) = accepted(bench.next());
        assert_eq!(peer.ip(), Some(client.local_addr().unwrap()), "{what}");
    });
}

#[test]
fn what_is_no_socket_and_what_does_not_listen_are_told() {
    everywhere(|mut bench, nonblocking, what| {
        let file = || Arc::new(tempfile::tempfile().unwrap());
        let ops: [Op; 5] = [
            Accept::new(file()).into(),
            Recv::new(file(), Vec::with_capacity(1)).into(),
            Send::new(file(), "x").into(),
            Connect::new(file(), SocketAddr::from(([127, 0, 0, 1], 1))).into(),
            Shutdown::new(file(), net::Shutdown::Both).into(),
        ];
        for op in ops {
            let completion = bench.complete(op);
            assert_eq!(errno(&completion), Some(libc::ENOTSOCK), "{what}: {:?}", completion.op);
        }
        let completion = bench.complete(Accept::new(Arc::new(tcp_socket(nonblocking))));
        assert_eq!(errno(&completion), Some(libc::EINVAL), "{what}");
    });
}

#[test]
fn what_goes_out_by_different_operations_keeps_its_order() {
    everywhere(|mut bench, nonblocking, what| {
        let (near, mut far) = pair(nonblocking);
        bench.submit(Send::new(near.clone(), vec![b'a'; 4 << 20]).all(), 1);
        bench.submit(Sendfile::bytes(near.clone(), vec![b'b'; 4 << 20]), 2);
        bench.submit(Send::new(near.clone(), "c"), 3);
        bench.submit(Shutdown::new(near, net::Shutdown::Write), 4);
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            got
        });
        for key in 1..5 {
            assert_eq!(bench.next().key, key, "{what}");
        }
        let got = reader.join().unwrap();
        assert_eq!(got.len(), (8 << 20) + 1, "{what}");
        assert!(got.is_sorted(), "{what}");
    });
}

#[test]
fn ring_does_what_waits_where_there_is_one() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let by = if name == "pool" { Way::Inline } else { Way::Ring };
        let (near, mut far) = pair(false);
        bench.submit(recv(&near), 1);
        bench.turn();
        far.write_all(b"x").unwrap();
        assert_eq!(bench.next().way, by, "{name}");
        let (listener, address) = listener(true);
        bench.submit(Accept::new(listener), 1);
        bench.turn();
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(bench.next().way, by, "{name}");
        assert_eq!(bench.aio().report().counters.fallbacks, 0, "{name}");
    }
}

#[test]
fn one_connection_to_a_blocking_listener_takes_one_thread() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.threads(1));
        let (listener, address) = listener(false);
        let _client = TcpStream::connect(address).unwrap();
        for key in 0..5 {
            bench.submit(Accept::new(listener.clone()), key);
        }
        drop(accepted(bench.next()));
        // Were another accept to wait on the one thread, this would not be done.
        bench.complete(Open::new("/dev/null")).result.unwrap();
        assert_eq!(bench.aio().in_flight(), 4, "{name}");
    }
}
