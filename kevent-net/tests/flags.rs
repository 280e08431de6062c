//! What a descriptor is ready for, and which descriptors are taken.

mod common;

use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use common::{Bench, pipe, sys, tcp, tcp_pair, unix};
use kevent_core::{PollKey, PollSet, Queue, Sink, Source, Trigger, Wait};
use kevent_net::{Interest, Mode, Readiness, Ready};

#[test]
fn half_close_is_told_with_the_last_data() {
    let mut bench = Bench::new();
    let (here, mut there) = tcp_pair();
    bench.reads(&here, Mode::Edge, 1);
    there.write_all(b"the last").unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    bench.until(|told| told.is_half_closed());
}

#[test]
fn half_close_is_no_hang_up() {
    let mut bench = Bench::new();
    let (here, there) = UnixStream::pair().unwrap();
    bench.reads(&here, Mode::Level, 1);
    there.shutdown(Shutdown::Write).unwrap();
    let ready = bench.event().ready;
    assert!(ready.is_half_closed() && ready.is_readable() && !ready.is_hung_up());
}

#[test]
fn half_close_is_told_after_modify_too() {
    let mut bench = Bench::new();
    let (here, there) = UnixStream::pair().unwrap();
    let token = bench.source().register(&here, Interest::WRITABLE, Mode::Edge, 1).unwrap();
    assert!(!bench.event().ready.is_half_closed());
    bench.source().modify(token, Interest::READABLE, Mode::Edge).unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    assert!(bench.event().ready.is_half_closed());
}

#[test]
fn hang_up_is_told_whatever_the_interest() {
    for channel in [unix(), pipe()] {
        let mut bench = Bench::new();
        bench.source().register(&channel, Interest::NONE, Mode::Edge, 1).unwrap();
        drop(channel.writer);
        assert!(bench.event().ready.is_hung_up(), "{}", channel.kind);
    }
}

#[test]
fn reader_that_is_gone_is_an_error_of_the_pipe() {
    let mut bench = Bench::new();
    let channel = pipe();
    bench.source().register(&channel.writer, Interest::NONE, Mode::Edge, 1).unwrap();
    drop(channel.reader);
    assert!(bench.event().ready.is_error());
}

#[test]
fn reset_is_an_error() {
    let mut bench = Bench::new();
    let (here, there) = tcp_pair();
    bench.reads(&here, Mode::Edge, 1);
    sys::reset_on_close(&there);
    drop(there);
    bench.until(|told| told.is_error() && told.is_hung_up());
    let error = here.take_error().unwrap().expect("the reason");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn urgent_data_is_priority() {
    let mut bench = Bench::new();
    let (here, there) = tcp_pair();
    bench.source().register(&here, Interest::PRIORITY, Mode::Edge, 1).unwrap();
    sys::send_urgent(&there);
    let ready = bench.event().ready;
    assert!(ready.is_priority() && !ready.is_half_closed());
}

#[test]
fn room_to_write_is_told_once_the_peer_has_read() {
    let mut bench = Bench::new();
    let (mut here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    bench.source().register(&here, Interest::WRITABLE, Mode::Edge, 1).unwrap();
    assert!(bench.event().ready.is_writable());
    while here.write(&[0; 4096]).is_ok() {}
    bench.nothing();
    there.set_nonblocking(true).unwrap();
    io::copy(&mut &there, &mut io::sink()).unwrap_err();
    assert!(bench.event().ready.is_writable());
}

#[test]
fn sockets_of_mio_are_taken() {
    let mut bench = Bench::new();
    let (here, mut there) = mio::net::UnixStream::pair().unwrap();
    bench.reads(&here, Mode::Level, 1);
    there.write_all(b"x").unwrap();
    assert_eq!(bench.event().key, 1);

    let path = format!("kevent-net-test-{}", std::process::id());
    let address = {
        use std::os::linux::net::SocketAddrExt;
        std::os::unix::net::SocketAddr::from_abstract_name(path).unwrap()
    };
    let listener = mio::net::UnixListener::bind_addr(&address).unwrap();
    bench.reads(&listener, Mode::Edge, 2);
    let _client = mio::net::UnixStream::connect_addr(&address).unwrap();
    while bench.event().key != 2 {}
    listener.accept().unwrap();

    let datagrams = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    bench.reads(&datagrams, Mode::Edge, 3);
    datagrams.send_to(b"x", datagrams.local_addr().unwrap()).unwrap();
    while bench.event().key != 3 {}
}

#[test]
fn queue_in_a_queue_is_a_descriptor_like_others() {
    let mut outer = Bench::new();
    let mut inner = Bench::new();
    let mut channel = tcp();
    inner.reads(&channel, Mode::Edge, 1);
    outer.reads(&inner.queue, Mode::Level, 2);
    inner.queue.wait(Wait::poll()).unwrap();
    channel.write();
    assert_eq!(outer.event().key, 2);
    assert_eq!(inner.event().key, 1);
}

#[test]
fn muted_descriptor_still_wakes_who_sleeps_on_the_queue() {
    let mut outer = Bench::new();
    let mut inner = Bench::new();
    let mut channel = unix();
    inner.reads(&channel, Mode::Level, 1);
    outer.reads(&inner.queue, Mode::Level, 2);
    channel.write();
    assert_eq!(outer.event().key, 2);
    // The second look finds the event of the first undelivered.
    inner.fill_ring();
    inner.fill_ring();
    for _ in 0..3 {
        assert!(inner.queue.next().is_some(), "what nobody read is told again");
        while inner.queue.is_empty() {
            assert_eq!(outer.event().key, 2);
            inner.queue.wait(Wait::poll()).unwrap();
        }
    }
    inner.queue.next();
    channel.read();
    inner.nothing();
    while outer.queue.wait(Wait::poll()).unwrap() > 0 {
        outer.event();
        inner.nothing();
    }
    outer.sleeps();
}

#[test]
fn regular_file_is_refused_with_a_hint() {
    let mut bench = Bench::new();
    for path in [env!("CARGO_MANIFEST_DIR"), concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        let file = File::open(path).unwrap();
        let refused = bench.source().register(&file, Interest::READABLE, Mode::Level, 1);
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("kevent-aio"), "{error}");
    }
    assert!(bench.source().is_empty());
}

/// A source that has the descriptor which another one is asked to register.
struct Holder(Arc<UnixStream>);

impl Source for Holder {
    type Item = kevent_net::ReadyEvent;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        poll_set.add(self.0.as_fd(), PollKey::default(), Interest::READABLE, Trigger::Edge)
    }

    fn drain(&mut self, _: &mut impl Sink<Self::Item>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn descriptor_that_another_source_holds_is_refused() {
    let mut bench = Bench::new();
    let (here, mut there) = UnixStream::pair().unwrap();
    let here = Arc::new(here);
    bench.queue.attach(Holder(here.clone()), |event| event).unwrap();
    let error = bench.source().register(&here, Interest::READABLE, Mode::Edge, 2).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("duplicate"), "{error}");
    // As the text says: a duplicate is a registration of its own.
    let duplicate = here.try_clone().unwrap();
    bench.reads(&duplicate, Mode::Edge, 3);
    there.write_all(b"x").unwrap();
    assert_eq!(bench.event().key, 3);
}

#[test]
fn exclusive_registration_shares_with_nobody() {
    let mut bench = Bench::new();
    let channel = tcp();
    let token = bench.source().register_exclusive(&channel, Interest::READABLE, 1).unwrap();
    let exists = io::ErrorKind::AlreadyExists;
    let refused = bench.source().register(&channel, Interest::READABLE, Mode::Edge, 2);
    assert_eq!(refused.unwrap_err().kind(), exists);
    assert!(bench.source().unregister(token));
    let token = bench.reads(&channel, Mode::Edge, 3);
    let refused = bench.source().register_exclusive(&channel, Interest::READABLE, 4);
    assert_eq!(refused.unwrap_err().kind(), exists);
    assert_eq!(bench.source().len(), 1);
    assert!(bench.source().unregister(token));
    bench.source().register_exclusive(&channel, Interest::READABLE, 5).unwrap();
}

#[test]
fn source_without_a_queue_says_so() {
    let mut readiness = Readiness::new();
    let channel = unix();
    let refused = readiness.register(&channel, Interest::READABLE, Mode::Level, 1);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert!(error.to_string().contains("attach"), "{error}");
    assert!(readiness.is_empty());
}

#[test]
fn exclusive_takes_reading_and_writing_and_no_changes() {
    let mut bench = Bench::new();
    let mut channel = tcp();
    let refused = bench.source().register_exclusive(&channel, Interest::PRIORITY, 1);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let token = bench.source().register_exclusive(&channel, Interest::READABLE, 1).unwrap();
    let unsupported = io::ErrorKind::Unsupported;
    let modified = bench.source().modify(token, Interest::READABLE, Mode::Level);
    assert_eq!(modified.unwrap_err().kind(), unsupported);
    assert_eq!(bench.source().disable(token).unwrap_err().kind(), unsupported);
    assert_eq!(bench.source().enable(token).unwrap_err().kind(), unsupported);
    channel.write();
    assert_eq!(bench.event().token, token);
    assert!(bench.source().unregister(token));
    bench.reads(&channel, Mode::Level, 2);
}

#[test]
fn detached_source_has_nothing_in_the_set_and_serves_another_queue() {
    let mut bench = Bench::new();
    let mut channel = unix();
    let token = bench.reads(&channel, Mode::Level, 1);
    channel.write();
    assert_eq!(bench.fill_ring(), 1);
    let mut readiness = bench.queue.detach(bench.id).unwrap();
    assert!(readiness.is_empty());
    assert!(!readiness.unregister(token));
    bench.nothing();
    bench.sleeps();

    let mut other = Queue::new().unwrap();
    let id = other.attach(readiness, |event| event).unwrap();
    let again = other[id].register(&channel.as_fd(), Interest::READABLE, Mode::Level, 2).unwrap();
    assert_ne!(again, token, "a token of the queue before names nothing in this one");
    other.wait(common::PATIENCE).unwrap();
    assert_eq!(other.next().map(|event| event.key), Some(2));
}

#[test]
fn flags_are_empty_by_default() {
    assert!(Ready::default().is_empty());
}
