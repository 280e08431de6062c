//! Operations that bring many things: connections by the thousand, each once, whatever happens to the operation.
//! A process of its own, and one test at a time, since it counts all descriptors.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::counted::{alone, becomes, open_descriptors};
use common::{Bench, PATIENCE, honest};
use kevent_aio::{
    Accept, AcceptMany, Buffers, Builder, Completion, Fd, Memory, Op, Recv, RecvMany, Way,
};
use kevent_core::testing::Dice;
use kevent_core::{Queue, Wait};

/// On each backend, after which everything is closed.
fn on_each(test: impl Fn(&str, Builder)) {
    let _alone = alone();
    for (name, builder) in honest() {
        let before = open_descriptors();
        test(name, builder);
        becomes(name, before, open_descriptors);
    }
}

/// How many clients connect.
const CLIENTS: u32 = 3000;

/// A listener with room for all: a client that finds none tries again a second later.
fn listener(nonblocking: bool) -> (Fd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(nonblocking).unwrap();
    rustix::net::listen(&listener, CLIENTS as i32).unwrap();
    let address = listener.local_addr().unwrap();
    (Arc::new(listener), address)
}

/// Connects that often, and says a number each time.
fn connect(address: SocketAddr, clients: u32) {
    for name in 0..clients {
        TcpStream::connect(address).unwrap().write_all(&name.to_ne_bytes()).unwrap();
    }
}

/// Which client each connection is of.
#[derive(Default)]
struct Served(BTreeMap<u32, usize>);

impl Served {
    /// Takes the connection of a piece; or the reason for which the operation has ended.
    fn take(&mut self, completion: Completion) -> Option<std::io::Error> {
        if !completion.has_more() {
            assert!(matches!(*completion.op, Op::AcceptMany(_)), "the operation comes back");
            return Some(completion.result.unwrap_err());
        }
        assert!(!completion.was_cancelled());
        assert_eq!(completion.result.unwrap(), 0);
        let Op::Accept(mut accept) = *completion.op else { panic!("an accept that is done") };
        assert!(accept.peer().unwrap().ip().is_some(), "it says who it is");
        let mut name = [0; 4];
        File::from(accept.take().unwrap()).read_exact(&mut name).unwrap();
        *self.0.entry(u32::from_ne_bytes(name)).or_default() += 1;
        None
    }

    fn is_each_once(&self, clients: u32) -> bool {
        self.0.iter().map(|(name, times)| (*name, *times)).eq((0..clients).map(|name| (name, 1)))
    }
}

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap()
}

#[test]
fn engine_that_leaves_its_queue_with_pieces_in_it_forgets_none_of_its_operations() {
    on_each(|name, builder| {
        let (listener, address) = listener(true);
        let mut bench = Bench::new(builder);
        let token = bench.submit(AcceptMany::new(listener), 7);
        connect(address, 3);
        // One at least lies in the queue, which nobody takes out.
        bench.queue.wait(PATIENCE).unwrap();
        let aio = bench.queue.detach(bench.id).unwrap();
        let mut next = Bench::around(aio);
        next.aio().cancel(token);
        let ended = std::iter::repeat_with(|| next.next()).find(|done| !done.has_more()).unwrap();
        assert!(ended.was_cancelled(), "{name}");
        assert_eq!(next.aio().in_flight(), 0, "{name}");
    });
}

#[test]
fn one_accept_serves_every_client_once_and_leaves_no_descriptor() {
    for nonblocking in [true, false] {
        on_each(|name, builder| {
            let (listener, address) = listener(nonblocking);
            let mut bench = Bench::new(builder);
            let token = bench.submit(AcceptMany::new(listener), 7);
            bench.turn();
            let clients = thread::spawn(move || connect(address, CLIENTS));
            let mut served = Served::default();
            while served.0.len() < CLIENTS as usize {
                let completion = bench.next();
                assert_eq!((completion.token, completion.key), (token, 7));
                assert!(served.take(completion).is_none(), "{name}: it goes on");
            }
            clients.join().unwrap();
            bench.is_silent();
            assert_eq!(bench.aio().in_flight(), 1);
            bench.aio().cancel(token);
            let last = bench.next();
            assert!(last.was_cancelled(), "{name}");
            assert_eq!(errno(&served.take(last).unwrap()), libc::ECANCELED);
            assert!(served.is_each_once(CLIENTS), "{name}");
            assert_eq!(bench.aio().in_flight(), 0);
            bench.is_silent();
        });
    }
}

#[test]
fn on_the_ring_a_connection_takes_no_submission() {
    on_each(|name, builder| {
        let mut bench = Bench::new(builder);
        if bench.aio().report().backend != Way::Ring {
            return;
        }
        let (listener, address) = listener(true);
        bench.submit(AcceptMany::new(listener), 7);
        bench.turn();
        let mut served = Served::default();
        for client in 0_u32..10 {
            TcpStream::connect(address).unwrap().write_all(&client.to_ne_bytes()).unwrap();
            let completion = bench.next();
            assert_eq!(completion.way, Way::Ring, "{name}");
            assert!(served.take(completion).is_none());
        }
        let counters = bench.aio().report().counters;
        assert_eq!((counters.ring, counters.inline, counters.fallbacks), (10, 0, 0), "{name}");
    });
}

#[test]
fn accepts_of_many_cancelled_at_random_lose_no_connection() {
    for nonblocking in [true, false] {
        on_each(|name, builder| {
            let mut dice = Dice::new(nonblocking.into());
            let (listener, address) = listener(nonblocking);
            let mut bench = Bench::new(builder);
            let clients = thread::spawn(move || connect(address, CLIENTS));
            let (mut served, mut ends) = (Served::default(), 0);
            let deadline = Instant::now() + PATIENCE;
            let mut token = bench.submit(AcceptMany::new(listener.clone()), 0);
            while served.0.len() < CLIENTS as usize {
                assert!(Instant::now() < deadline, "{name}: {} served", served.0.len());
                if dice.below(3) == 0 {
                    bench.aio().cancel(token);
                }
                bench.queue.wait(Duration::from_millis(1)).unwrap();
                while let Some(completion) = bench.queue.next() {
                    if let Some(reason) = served.take(completion) {
                        assert_eq!(errno(&reason), libc::ECANCELED, "{name}");
                        ends += 1;
                        token = bench.submit(AcceptMany::new(listener.clone()), 0);
                    }
                }
            }
            clients.join().unwrap();
            assert!(ends > 10, "{name}: it was hardly cancelled: {ends}");
            assert!(served.is_each_once(CLIENTS), "{name}");
        });
    }
}

#[test]
fn connections_that_nobody_takes_wait_with_the_listener_and_none_is_lost() {
    on_each(|name, builder| {
        let (listener, address) = listener(true);
        let mut queue = Queue::with_capacity(1.try_into().unwrap()).unwrap();
        let id = queue.attach(builder.build().unwrap(), |completion| completion).unwrap();
        let mut bench = Bench { queue, id };
        bench.submit(AcceptMany::new(listener), 7);
        bench.turn();
        let idle = open_descriptors();
        let clients = thread::spawn(move || connect(address, CLIENTS));
        // The queue holds one event, and is looked at all the while.
        while !clients.is_finished() {
            bench.queue.wait(Wait::timeout(Duration::from_millis(1)).at_least(0)).unwrap();
        }
        clients.join().unwrap();
        for _ in 0..10 {
            bench.queue.wait(Wait::timeout(Duration::from_millis(1)).at_least(0)).unwrap();
        }
        let waiting = open_descriptors() - idle;
        assert!((2..2000).contains(&waiting), "{name}: {waiting} connections were accepted");
        let mut served = Served::default();
        while served.0.len() < CLIENTS as usize {
            assert!(served.take(bench.next()).is_none(), "{name}");
        }
        assert!(served.is_each_once(CLIENTS), "{name}");
    });
}

#[test]
fn ring_that_overflows_loses_no_completion() {
    on_each(|name, builder| {
        let (listener, address) = listener(true);
        let mut bench = Bench::new(builder.capacity(16));
        bench.submit(AcceptMany::new(listener), 7);
        let mut others = Vec::new();
        for key in 0..10 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            bench.submit(Recv::new(Arc::new(ours), Vec::with_capacity(1)), key + 100);
            others.push(theirs);
        }
        bench.turn();
        // The kernel tells of each while this thread is in it, and nobody looks.
        connect(address, 500);
        others.iter_mut().for_each(|other| other.write_all(b"x").unwrap());
        let (mut served, mut received) = (Served::default(), Vec::new());
        while served.0.len() < 500 || received.len() < others.len() {
            let completion = bench.next();
            match completion.key {
                7 => assert!(served.take(completion).is_none(), "{name}"),
                key => received.push((key, completion.result.unwrap())),
            }
        }
        received.sort_unstable();
        assert!(received.into_iter().eq((100..110).map(|key| (key, 1))), "{name}");
        assert!(served.is_each_once(500), "{name}");
    });
}

/// What is in flight ends, and nobody hears of it.
fn ends_in_silence(bench: &mut Bench) {
    let deadline = Instant::now() + PATIENCE;
    while bench.aio().in_flight() > 0 {
        assert!(Instant::now() < deadline, "it does not end");
        bench.is_silent();
    }
}

/// A client whose connection was closed reads its end.
fn is_closed(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    match client.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn abandoned_accept_of_many_ends_and_what_it_had_is_closed() {
    on_each(|name, builder| {
        let (listener, address) = listener(true);
        let mut bench = Bench::new(builder);
        let token = bench.submit(AcceptMany::new(listener.clone()), 7);
        bench.turn();
        let mut client = TcpStream::connect(address).unwrap();
        while bench.queue.is_empty() {
            bench.queue.wait(None).unwrap();
        }
        assert!(bench.aio().abandon(token));
        bench.is_silent();
        assert!(is_closed(&mut client), "{name}");
        ends_in_silence(&mut bench);
        assert_eq!(Arc::strong_count(&listener), 1, "{name}: it let go of the listener");
        let _late = TcpStream::connect(address).unwrap();
        assert!(bench.complete(Accept::new(listener)).result.is_ok(), "{name}: it takes no more");
    });
}

#[test]
fn accept_of_many_that_is_late_or_drained_ends_with_the_reason() {
    on_each(|name, builder| {
        let (listener, address) = listener(true);
        let mut bench = Bench::new(builder);
        let soon = Instant::now() + Duration::from_millis(30);
        let accept = AcceptMany::new(listener.clone());
        bench.aio().submit_until(accept, 7, soon).unwrap();
        let last = bench.next();
        assert!(!last.has_more() && !last.was_cancelled(), "{name}");
        assert_eq!(errno(&last.result.unwrap_err()), libc::ETIMEDOUT, "{name}");
        // The operation can be submitted again.
        bench.submit(*last.op, 8);
        bench.turn();
        let begun = Instant::now();
        connect(address, 1);
        assert!(bench.aio().drain(begun + Duration::from_secs(3600)).is_empty());
        assert!(begun.elapsed() < PATIENCE, "{name}: nobody waits for what has no end");
        let mut served = Served::default();
        while served.take(bench.next()).is_none() {}
        assert_eq!(bench.aio().in_flight(), 0);
        // Whoever was not served is still there.
        if served.0.is_empty() {
            assert!(bench.complete(Accept::new(listener)).result.is_ok(), "{name}");
        }
    });
}

#[test]
fn listener_that_ends_ends_the_accept_of_many() {
    for nonblocking in [true, false] {
        on_each(|name, builder| {
            let (listener, address) = listener(nonblocking);
            let mut bench = Bench::new(builder);
            bench.submit(AcceptMany::new(listener.clone()), 7);
            bench.turn();
            connect(address, 1);
            let mut served = Served::default();
            assert!(served.take(bench.next()).is_none());
            rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
            let last = bench.next();
            assert!(!last.was_cancelled());
            assert_eq!(errno(&served.take(last).unwrap()), libc::EINVAL, "{name}");
            assert_eq!(bench.aio().in_flight(), 0);
        });
    }
}

#[test]
fn engine_dropped_while_it_accepts_closes_what_nobody_has_taken() {
    on_each(|name, builder| {
        let (listener, address) = listener(true);
        let mut bench = Bench::new(builder);
        bench.submit(AcceptMany::new(listener), 7);
        bench.turn();
        let clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
        bench.queue.wait(None).unwrap();
        drop(bench);
        for mut client in clients {
            assert!(is_closed(&mut client), "{name}");
        }
    });
}

fn pool(count: usize) -> Buffers {
    Buffers::new(NonZero::new(count).unwrap(), NonZero::new(4096).unwrap()).unwrap()
}

/// The bytes of a piece, in the buffer of the pool.
fn piece(completion: Completion) -> Memory {
    assert!(completion.has_more());
    let Op::Recv(recv) = *completion.op else { panic!("a receive that is done") };
    assert_eq!(completion.result.unwrap(), recv.data().len() as u64);
    recv.into_memory()
}

/// What an operation that has ended has received in all.
fn ended(completion: Completion) -> std::io::Result<u64> {
    assert!(!completion.has_more());
    assert!(matches!(*completion.op, Op::RecvMany(_)), "the operation comes back");
    completion.result
}

/// Bytes of which none of the next hundred thousand is where it does not belong.
fn text(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|n| (((n + seed) * 2_654_435_761) >> 7) as u8).collect()
}

/// How many datagrams are received.
const PIECES: u32 = 100_000;

#[test]
fn pieces_come_whole_and_in_order_and_one_submission_is_enough() {
    on_each(|name, builder| {
        let buffers = pool(64);
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut bench = Bench::new(builder);
        let token = bench.submit(RecvMany::new(Arc::new(ours), &buffers), 7);
        bench.turn();
        let sender = thread::spawn(move || {
            for number in 0..PIECES {
                assert_eq!(theirs.send(&number.to_ne_bytes()).unwrap(), 4);
            }
            assert_eq!(theirs.send(&[]).unwrap(), 0);
            theirs
        });
        for number in 0..PIECES {
            let completion = bench.next();
            assert_eq!((completion.token, completion.key), (token, 7));
            assert_eq!(piece(completion).as_slice(), number.to_ne_bytes(), "{name}");
        }
        assert!(piece(bench.next()).as_slice().is_empty(), "{name}: an empty one is no end");
        let report = bench.aio().report();
        if report.backend == Way::Ring {
            assert_eq!((report.counters.inline, report.counters.pool), (0, 0), "by the ring");
        }
        drop(sender.join().unwrap());
        bench.aio().cancel(token);
        let last = bench.next();
        assert!(last.was_cancelled(), "{name}");
        assert_eq!(errno(&ended(last).unwrap_err()), libc::ECANCELED);
        drop(bench);
        assert_eq!(buffers.free(), 64, "{name}: all are back");
    });
}

#[test]
fn streams_share_a_few_buffers_and_each_comes_whole_to_its_end() {
    on_each(|name, builder| {
        let buffers = pool(3);
        let mut bench = Bench::new(builder);
        let texts: Vec<_> = (0..20).map(|seed| text(100_000 + seed, seed)).collect();
        let mut senders = Vec::new();
        for (key, text) in texts.iter().cloned().enumerate() {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            bench.submit(RecvMany::new(Arc::new(ours), &buffers), key as u64);
            senders.push(thread::spawn(move || theirs.write_all(&text).unwrap()));
        }
        let mut received = vec![Vec::new(); texts.len()];
        let mut left = texts.len();
        while left > 0 {
            let completion = bench.next();
            let into = &mut received[completion.key as usize];
            if completion.has_more() {
                into.extend_from_slice(piece(completion).as_slice());
            } else {
                assert_eq!(ended(completion).unwrap(), into.len() as u64, "{name}");
                left -= 1;
            }
        }
        assert!(received == texts, "{name}");
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(bench.aio().in_flight(), 0);
    });
}

#[test]
fn nothing_is_received_while_all_buffers_are_held_and_one_that_comes_back_lets_it_go_on() {
    on_each(|name, builder| {
        let buffers = pool(2);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(ours);
        let mut bench = Bench::new(builder);
        bench.submit(RecvMany::new(ours.clone(), &buffers), 7);
        bench.turn();
        let text = text(40_000, 1);
        theirs.write_all(&text).unwrap();
        drop(theirs);
        let mut held = VecDeque::from([piece(bench.next()), piece(bench.next())]);
        bench.is_silent();
        let left = rustix::io::ioctl_fionread(&*ours).unwrap();
        let taken: usize = held.iter().map(|piece| piece.as_slice().len()).sum();
        assert_eq!(left as usize, text.len() - taken, "{name}: the rest is in the socket");
        let mut received = Vec::new();
        while let Some(piece_of_it) = held.pop_front() {
            received.extend_from_slice(piece_of_it.as_slice());
            // Another thread gives it back, and the queue sleeps until then.
            let other = thread::spawn(move || drop(piece_of_it));
            if received.len() + 4096 < text.len() {
                held.push_back(piece(bench.next()));
            }
            other.join().unwrap();
        }
        assert!(received == text, "{name}");
        assert_eq!(ended(bench.next()).unwrap(), text.len() as u64, "{name}");
    });
}

#[test]
fn receives_of_many_cancelled_at_random_lose_no_byte() {
    on_each(|name, builder| {
        let mut dice = Dice::new(7);
        let buffers = pool(4);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours: Fd = Arc::new(ours);
        let text = text(3_000_000, 3);
        let sender = thread::spawn({
            let text = text.clone();
            move || text.chunks(777).for_each(|chunk| theirs.write_all(chunk).unwrap())
        });
        let mut bench = Bench::new(builder);
        let (mut received, mut ends) = (Vec::new(), 0);
        let mut token = bench.submit(RecvMany::new(ours.clone(), &buffers), 0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{name}: {} came", received.len());
            if dice.below(3) == 0 {
                bench.aio().cancel(token);
            }
            bench.queue.wait(Duration::from_millis(1)).unwrap();
            let mut at_end = false;
            while let Some(completion) = bench.queue.next() {
                if completion.has_more() {
                    received.extend_from_slice(piece(completion).as_slice());
                    continue;
                }
                match ended(completion) {
                    Ok(_) => at_end = true,
                    Err(error) => {
                        assert_eq!(errno(&error), libc::ECANCELED, "{name}");
                        ends += 1;
                        token = bench.submit(RecvMany::new(ours.clone(), &buffers), 0);
                    }
                }
            }
            if at_end {
                break;
            }
        }
        sender.join().unwrap();
        assert!(ends > 10, "{name}: it was hardly cancelled: {ends}");
        assert!(received == text, "{name}: {} of {}", received.len(), text.len());
    });
}

#[test]
fn buffers_of_what_is_abandoned_or_dropped_come_back() {
    on_each(|name, builder| {
        let buffers = pool(4);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut bench = Bench::new(builder);
        let ours: Fd = Arc::new(ours);
        let token = bench.submit(RecvMany::new(ours.clone(), &buffers), 7);
        bench.turn();
        theirs.write_all(b"unheard").unwrap();
        while bench.queue.is_empty() {
            bench.queue.wait(None).unwrap();
        }
        assert!(bench.aio().abandon(token));
        bench.is_silent();
        ends_in_silence(&mut bench);
        assert_eq!(Arc::strong_count(&ours), 1, "{name}: it let go of the socket");
        // Of those that nobody receives into the kernel lets go when there are others.
        let others = pool(4);
        bench.submit(RecvMany::new(ours, &others), 8);
        assert_eq!(buffers.free(), 4, "{name}");
        theirs.write_all(b"heard").unwrap();
        let kept = bench.next();
        drop(bench);
        assert_eq!(others.free(), 3, "{name}: one is in the program's hands");
        assert_eq!(piece(kept).as_slice(), b"heard");
        assert_eq!(others.free(), 4, "{name}");
    });
}

#[test]
fn socket_that_fails_ends_the_receive_with_its_error() {
    on_each(|name, builder| {
        let mut bench = Bench::new(builder);
        let unconnected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let nowhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        unconnected.connect(nowhere).unwrap();
        unconnected.send(b"x").unwrap();
        bench.submit(RecvMany::new(Arc::new(unconnected), &pool(1)), 7);
        assert_eq!(errno(&ended(bench.next()).unwrap_err()), libc::ECONNREFUSED, "{name}");
        let file = std::fs::File::open("/dev/null").unwrap();
        bench.submit(RecvMany::new(Arc::new(file), &pool(1)), 8);
        assert_eq!(errno(&ended(bench.next()).unwrap_err()), libc::ENOTSOCK, "{name}");
    });
}
