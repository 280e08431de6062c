//! What comes in on sockets of every kind, and what becomes of it.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, UdpSocket};
use std::num::NonZeroUsize;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::receiving::{Bench, all, datagrams, each, for_one_thread, receiver, streams};
use common::{sys, tcp_pair};
use kevent_core::testing::Contract;
use kevent_core::{Queue, Token, Wait};
use kevent_net::{Buffer, ReceiveEvent, Received, Receiver};
use rustix::event::{PollFd, PollFlags};

#[test]
fn data_come_with_their_key_as_often_as_they_are_sent() {
    for (mut bench, mut pair) in each((64, 64, 4096), all) {
        let token = bench.register(&pair.here, 7);
        bench.sleeps();
        for text in ["one", "two", "three"] {
            pair.there.write_all(text.as_bytes()).unwrap();
            let ReceiveEvent { token: of, key, received } = bench.event();
            assert_eq!((of, key), (token, 7), "{}", pair.kind);
            let Received::Data(data) = received else { panic!("{received:?}") };
            assert_eq!(*data, *text.as_bytes());
            drop(data);
            bench.sleeps();
        }
    }
}

#[test]
fn what_was_there_before_comes_too() {
    for (mut bench, mut pair) in each((64, 64, 4096), all) {
        pair.there.write_all(b"early").unwrap();
        bench.register(&pair.here, 1);
        assert_eq!(bench.data(), b"early", "{}", pair.kind);
    }
}

#[test]
fn long_stream_comes_in_order_through_few_small_buffers_and_a_small_ring() {
    for (mut bench, mut pair) in each((2, 4, 100), streams) {
        bench.register(&pair.here, 1);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || pair.there.write_all(&sent));
        assert_eq!(bench.bytes(expected.len()), expected, "{}", pair.kind);
        writer.join().unwrap().unwrap();
        assert!(matches!(bench.event().received, Received::End), "the writer is gone");
        assert!(bench.source().is_empty());
    }
}

#[test]
fn end_of_the_stream_comes_after_the_data_and_ends_the_registration() {
    for (mut bench, mut pair) in each((64, 64, 4096), streams) {
        let token = bench.register(&pair.here, 1);
        pair.there.write_all(b"last").unwrap();
        drop(pair.there);
        assert_eq!(bench.data(), b"last");
        assert_eq!(bench.source().len(), 1, "it stands until its end is told");
        assert!(matches!(bench.event().received, Received::End), "{}", pair.kind);
        assert!(!bench.source().unregister(token));
        bench.sleeps();
        assert_eq!(Arc::strong_count(&pair.here), 1, "the source has let go of it");
    }
}

#[test]
fn datagram_is_one_event_also_an_empty_one_and_one_that_is_cut_off() {
    for (mut bench, mut pair) in each((64, 16, 8), datagrams) {
        bench.register(&pair.here, 1);
        for datagram in [&b"one"[..], b"", b"three", b"", b"", b"twelve bytes", b"eight by"] {
            pair.there.write_all(datagram).unwrap();
            if datagram.is_empty() {
                // Not even a system call is made for writing nothing to a file.
                let there = rustix::io::dup(&pair.there).unwrap();
                UnixDatagram::from(there).send(b"").unwrap();
            }
            let fitting = &datagram[..datagram.len().min(8)];
            assert_eq!(bench.data(), fitting, "{}", pair.kind);
        }
        bench.sleeps();
        assert_eq!(bench.source().len(), 1);
    }
}

#[test]
fn reset_is_an_error_that_ends_the_registration() {
    let Some(mut bench) = Bench::new() else { return };
    let (here, there) = tcp_pair();
    bench.register(&Arc::new(here), 1);
    sys::reset_on_close(&there);
    drop(there);
    let Received::Error(error) = bench.event().received else { panic!("no error") };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(bench.source().is_empty());
    bench.sleeps();
}

#[test]
fn socket_that_is_not_connected_is_an_error_event() {
    let Some(mut bench) = Bench::new() else { return };
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    bench.register(&Arc::new(socket), 1);
    let Received::Error(error) = bench.event().received else { panic!("no error") };
    assert_eq!(error.kind(), ErrorKind::NotConnected);
}

#[test]
fn what_is_neither_socket_nor_pipe_is_refused() {
    let Some(mut receiver) = receiver(1, 1) else { return };
    let file = Arc::new(std::fs::File::open("/dev/null").unwrap());
    let error = receiver.register(&file, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("sockets and pipes"), "{error}");
    assert!(receiver.is_empty());
}

#[test]
fn too_many_or_too_large_buffers_are_refused() {
    let number = |n| NonZeroUsize::new(n).unwrap();
    for (count, size) in [(32_769, 1), (usize::MAX, 1), (1, u32::MAX as usize + 1)] {
        let error = Receiver::with_buffers(number(count), number(size)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn kernel_that_refuses_io_uring_is_unsupported_and_readiness_is_named() {
    for (call, errno) in [
        (libc::SYS_io_uring_setup, libc::EPERM),
        (libc::SYS_io_uring_setup, libc::ENOSYS),
        (libc::SYS_io_uring_register, libc::EINVAL),
        (libc::SYS_io_uring_enter, libc::EPERM),
    ] {
        let refused = std::thread::spawn(move || {
            sys::refuse(call, errno);
            Receiver::new().unwrap_err()
        });
        let error = refused.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("Readiness"), "{error}");
    }
}

#[test]
fn io_uring_that_is_refused_later_is_an_error_of_the_source() {
    let Some(mut bench) = Bench::new() else { return };
    let refused = std::thread::spawn(move || {
        sys::refuse(libc::SYS_io_uring_enter, libc::EPERM);
        let (here, _there) = UnixStream::pair().unwrap();
        bench.register(&Arc::new(here), 1);
        bench.queue.wait(Wait::poll()).unwrap_err()
    });
    let error = refused.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("io_uring_enter"), "{error}");
}

#[test]
fn unregistered_socket_is_silent_also_with_events_in_the_ring() {
    for (mut bench, mut pair) in each((64, 64, 4096), all) {
        let token = bench.register(&pair.here, 1);
        bench.sleeps();
        pair.there.write_all(b"in the ring").unwrap();
        assert_eq!(bench.queue.wait(common::PATIENCE).unwrap(), 1);
        pair.there.write_all(b"in the kernel").unwrap();
        assert!(bench.source().unregister(token));
        assert!(!bench.source().unregister(token));
        assert!(bench.queue.next().is_none(), "{}", pair.kind);
        bench.sleeps();
        pair.there.write_all(b"later").unwrap();
        bench.sleeps();
        // Its successor is told what is its own.
        let again = bench.register(&pair.here, 2);
        let event = bench.event();
        assert_eq!((event.token, event.key), (again, 2));
    }
}

#[test]
fn socket_is_closed_when_both_have_let_go_of_it() {
    let Some(mut bench) = Bench::new() else { return };
    let (here, there) = UnixStream::pair().unwrap();
    let here = Arc::new(here);
    let token = bench.register(&here, 1);
    bench.sleeps();
    bench.source().unregister(token);
    drop(here);
    bench.sleeps();
    there.set_read_timeout(Some(common::PATIENCE)).unwrap();
    assert_eq!(std::io::Read::read(&mut &there, &mut [0]).unwrap(), 0, "the end");
}

#[test]
fn paused_socket_keeps_its_data_until_it_is_resumed() {
    for (mut bench, mut pair) in each((64, 64, 4096), all) {
        let token = bench.register(&pair.here, 1);
        pair.there.write_all(b"before").unwrap();
        assert_eq!(bench.queue.wait(common::PATIENCE).unwrap(), 1);
        bench.source().pause(token).unwrap();
        bench.source().pause(token).unwrap();
        assert_eq!(bench.data(), b"before", "what was received comes");
        bench.sleeps();
        pair.there.write_all(b"after").unwrap();
        bench.sleeps();
        bench.source().resume(token).unwrap();
        assert_eq!(bench.data(), b"after", "{}", pair.kind);
        // Resumed before the kernel has heard of the pause.
        bench.source().pause(token).unwrap();
        bench.source().resume(token).unwrap();
        bench.source().resume(token).unwrap();
        pair.there.write_all(b"again").unwrap();
        assert_eq!(bench.data(), b"again");
        bench.sleeps();
        bench.source().unregister(token);
        let not_found = ErrorKind::NotFound;
        assert_eq!(bench.source().pause(token).unwrap_err().kind(), not_found);
        assert_eq!(bench.source().resume(token).unwrap_err().kind(), not_found);
    }
}

#[test]
fn without_buffers_data_stay_in_the_socket_and_come_when_one_is_back() {
    let Some(mut bench) = Bench::with(64, 2, 16) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 1);
    there.write_all(&[7; 64]).unwrap();
    let mut held: Vec<Buffer> = (0..2).map(|_| bench.buffer()).collect();
    bench.sleeps();
    assert_eq!(bench.source().starved(), 1);
    held.pop();
    held.push(bench.buffer());
    bench.sleeps();
    assert_eq!(bench.source().starved(), 1, "and it has none again");
    assert!(held.iter().all(|buffer| **buffer == [7; 16]));
    held.clear();
    assert_eq!(bench.bytes(16), [7; 16]);
    bench.sleeps();
    assert_eq!(bench.source().starved(), 0);
}

#[test]
fn peer_is_held_up_while_the_buffers_are_kept() {
    for (mut bench, pair) in each((64, 4, 16), streams) {
        bench.register(&pair.here, 1);
        let mut there = pair.there;
        rustix::io::ioctl_fionbio(&there, true).unwrap();
        let held: Vec<_> = (0..4)
            .map(|_| {
                there.write_all(&[1; 16]).unwrap();
                bench.event()
            })
            .collect();
        let mut stuffed = 0;
        while let Ok(some @ 1..) = there.write(&[1; 4096]) {
            stuffed += some;
            bench.queue.wait(Wait::poll()).unwrap();
        }
        bench.sleeps();
        drop(held);
        assert_eq!(bench.bytes(stuffed).len(), stuffed, "{}: nothing was lost", pair.kind);
    }
}

#[test]
fn buffer_that_comes_back_on_another_thread_wakes_the_queue() {
    let Some(mut bench) = Bench::with(64, 1, 4) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 1);
    let (hand, handed) = mpsc::channel::<ReceiveEvent>();
    let other = std::thread::spawn(move || {
        for event in handed {
            // Long enough for the queue to be asleep, mostly; right in any case.
            std::thread::yield_now();
            drop(event);
        }
    });
    for n in 0..200_u32 {
        there.write_all(&n.to_ne_bytes()).unwrap();
    }
    for n in 0..200_u32 {
        let event = bench.event();
        let Received::Data(data) = &event.received else { panic!("no data") };
        assert_eq!(**data, n.to_ne_bytes());
        hand.send(event).unwrap();
    }
    drop(hand);
    other.join().unwrap();
}

#[test]
fn sockets_without_buffers_take_turns() {
    const SOCKETS: u64 = 20;
    let Some(mut bench) = Bench::with(64, 2, 4) else { return };
    let mut peers = Vec::new();
    for key in 0..SOCKETS {
        let (here, mut there) = UnixStream::pair().unwrap();
        bench.register(&Arc::new(here), key);
        there.write_all(&[0; 400]).unwrap();
        peers.push(there);
    }
    // By the time at which one has got all of its own.
    let mut got = [0_usize; SOCKETS as usize];
    while !got.contains(&400) {
        let event = bench.event();
        let Received::Data(data) = event.received else { panic!("no data") };
        got[usize::try_from(event.key).unwrap()] += data.len();
    }
    assert!(got.iter().all(|got| *got >= 200), "{got:?}");
}

#[test]
fn those_who_wait_for_a_buffer_and_go_leave_it_to_the_next() {
    for (mut bench, mut pair) in each((64, 1, 4), streams) {
        let mut others = Vec::new();
        bench.register(&pair.here, 99);
        pair.there.write_all(b"1234").unwrap();
        let held = bench.buffer();
        for key in 0..10 {
            let (here, mut there) = UnixStream::pair().unwrap();
            there.write_all(b"x").unwrap();
            others.push((bench.register(&Arc::new(here), key), there));
        }
        bench.sleeps();
        // The last to come.
        pair.there.write_all(b"5678").unwrap();
        bench.sleeps();
        assert!(bench.source().starved() >= 10);
        for (n, (token, _)) in others.iter().enumerate() {
            if n % 2 == 0 {
                assert!(bench.source().unregister(*token));
            } else {
                bench.source().pause(*token).unwrap();
            }
        }
        drop(held);
        assert_eq!(bench.data(), b"5678", "{}", pair.kind);
    }
}

#[test]
fn thread_that_made_the_requests_may_end() {
    let Some(mut bench) = Bench::new() else { return };
    let mut pairs = all();
    for (pair, key) in pairs.iter().zip(0..) {
        bench.register(&pair.here, key);
    }
    let made = std::thread::spawn(move || {
        bench.sleeps();
        bench
    });
    let mut bench = made.join().unwrap();
    for round in 0..3 {
        for (pair, key) in pairs.iter_mut().zip(0..) {
            pair.there.write_all(b"x").unwrap();
            assert_eq!(bench.event().key, key, "{} {round}", pair.kind);
        }
    }
    bench.sleeps();
}

#[test]
fn busy_thread_that_made_the_requests_does_not_keep_another_from_receiving() {
    let Some(mut bench) = Bench::new() else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 1);
    let (hand, handed) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let maker = std::thread::spawn(move || {
        bench.sleeps();
        hand.send(bench).unwrap();
        // Computes, and makes no system call.
        while let Err(mpsc::TryRecvError::Empty) = ended.try_recv() {
            std::hint::spin_loop();
        }
    });
    let mut bench = handed.recv().unwrap();
    there.write_all(b"x").unwrap();
    assert_eq!(bench.data(), b"x");
    end.send(()).unwrap();
    maker.join().unwrap();
}

#[test]
fn half_close_of_our_own_side_disturbs_nothing() {
    let Some(mut bench) = Bench::new() else { return };
    let (here, mut there) = tcp_pair();
    let here = Arc::new(here);
    bench.register(&here, 1);
    here.shutdown(Shutdown::Write).unwrap();
    there.write_all(b"still").unwrap();
    assert_eq!(bench.data(), b"still");
}

#[test]
fn detached_source_lets_go_of_its_sockets_and_serves_another_queue() {
    let Some(mut bench) = Bench::new() else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    let here = Arc::new(here);
    bench.register(&here, 1);
    there.write_all(b"x").unwrap();
    assert_eq!(bench.queue.wait(common::PATIENCE).unwrap(), 1);
    let source = bench.queue.detach(bench.id).unwrap();
    assert!(source.is_empty());
    assert_eq!(Arc::strong_count(&here), 1);
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(source, |event| event).unwrap();
    let mut bench = Bench { queue, id };
    bench.register(&here, 2);
    there.write_all(b"y").unwrap();
    let event = bench.event();
    assert_eq!(event.key, 2);
    bench.sleeps();
}

#[test]
fn queue_descriptor_is_readable_when_data_come_and_when_a_buffer_is_back() {
    let Some(mut bench) = Bench::with(64, 1, 4) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    let mut outer = common::Bench::new();
    outer.reads(&bench.queue, kevent_net::Mode::Level, 0);
    bench.register(&Arc::new(here), 1);
    let mut turn = |bench: &mut Bench| {
        while bench.queue.is_empty() {
            outer.event();
            bench.queue.wait(Wait::poll()).unwrap();
        }
        bench.queue.next().unwrap()
    };
    there.write_all(b"12345678").unwrap();
    let first = turn(&mut bench);
    bench.queue.wait(Wait::poll()).unwrap();
    let dropper = std::thread::spawn(move || drop(first));
    let second = turn(&mut bench);
    assert!(matches!(second.received, Received::Data(data) if *data == *b"5678"));
    dropper.join().unwrap();
}

/// Each event is a datagram of one socket.
fn check(make: fn(usize, usize) -> Option<Receiver>) {
    if make(1, 1).is_none() {
        return;
    }
    type Driver = Option<(Token, UdpSocket)>;
    Contract::new(move || (make(64, 16).unwrap(), Driver::None))
        .provoke(|source, driver, count| {
            let (_, there) = driver.get_or_insert_with(|| {
                let here = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                let there = UdpSocket::bind("127.0.0.1:0").unwrap();
                there.connect(here.local_addr().unwrap()).unwrap();
                (source.register(&here, 1).unwrap(), there)
            });
            (0..count).for_each(|_| assert_eq!(there.send(b"x").unwrap(), 1));
        })
        .remove(|source, driver| {
            assert!(source.unregister(driver.take().unwrap().0));
        })
        .check();
}

#[test]
fn receiver_keeps_the_contract() {
    check(receiver);
}

#[test]
fn receiver_for_one_thread_keeps_the_contract() {
    check(for_one_thread);
}

#[test]
fn receiver_for_one_thread_wakes_a_queue_that_sleeps() {
    let Some(mut bench) = Bench::of(64, for_one_thread(4, 4)) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 1);
    bench.sleeps();
    for n in 0..100_u32 {
        let writer = std::thread::spawn(move || {
            // So that the queue is asleep, mostly; right in any case.
            (0..n % 4).for_each(|_| std::thread::yield_now());
            there.write_all(&n.to_ne_bytes()).unwrap();
            there
        });
        assert_eq!(bench.data(), n.to_ne_bytes());
        there = writer.join().unwrap();
    }
}

#[test]
fn receiver_for_one_thread_says_so_to_another() {
    let Some(mut bench) = Bench::of(64, for_one_thread(4, 4)) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 1);
    // Made and registered with here, it belongs to the thread that waits.
    let waits = std::thread::spawn(move || {
        there.write_all(b"x").unwrap();
        assert_eq!(bench.data(), b"x");
        there.write_all(b"y").unwrap();
        (bench, there)
    });
    let (mut bench, _there) = waits.join().unwrap();
    let (other, _other_peer) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(other), 2);
    let error = bench.queue.wait(Wait::poll()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("thread that waited first"), "{error}");
}

#[test]
fn waits_are_no_longer_than_asked() {
    let Some(mut bench) = Bench::new() else { return };
    let (here, _there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 1);
    let begun = std::time::Instant::now();
    bench.queue.wait(Duration::from_millis(5)).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(5));
}

#[test]
fn sleeper_that_was_busy_is_woken() {
    for make in [receiver, for_one_thread] {
        let Some(mut bench) = Bench::of(64, make(64, 64)) else { return };
        let (here, mut own) = UnixStream::pair().unwrap();
        let (from, mut theirs) = UnixStream::pair().unwrap();
        bench.register(&Arc::new(here), 0);
        bench.register(&Arc::new(from), 1);
        let (go, wanted) = mpsc::channel();
        let other = std::thread::spawn(move || {
            wanted.iter().for_each(|()| theirs.write_all(b"y").unwrap());
        });
        for round in 0..3_000 {
            // It looks at what it has so often that nobody needs to call it.
            for _ in 0..round % 5 {
                own.write_all(b"x").unwrap();
                assert_eq!(bench.event().key, 0);
            }
            go.send(()).unwrap();
            assert_eq!(bench.event().key, 1, "round {round}");
        }
        drop(go);
        other.join().unwrap();
    }
}

#[test]
fn descriptor_of_a_queue_that_was_busy_gets_readable() {
    let Some(mut bench) = Bench::of(64, for_one_thread(64, 64)) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    bench.register(&Arc::new(here), 0);
    for _ in 0..5 {
        there.write_all(b"x").unwrap();
        bench.event();
    }
    let limit = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
    for _ in 0..5 {
        // Until the queue says that it has nothing.
        while bench.queue.wait(Wait::poll()).unwrap() > 0 {
            while bench.queue.next().is_some() {}
        }
        assert!(bench.queue.next().is_none());
        there.write_all(b"x").unwrap();
        let mut set = [PollFd::new(&bench.queue, PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut set, Some(&limit)).unwrap(), 1);
        assert_eq!(bench.data(), b"x");
    }
}
