//! Listening, accepting and connecting.

mod common;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use common::{Bench, sys};
use kevent_net::{Interest, Mode, socket};

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[test]
fn accepts_until_nobody_waits() {
    let mut bench = Bench::new();
    let listener = socket::listen(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    bench.reads(&listener, Mode::Edge, 1);
    let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    bench.event();
    let mut peers = Vec::new();
    while let Some((_, peer)) = socket::accept(&listener).unwrap() {
        peers.push(peer);
    }
    assert_eq!(peers, clients.iter().map(|c| c.local_addr().unwrap()).collect::<Vec<_>>());
}

#[test]
fn broken_off_connection_does_not_disturb_the_next() {
    let listener = socket::listen(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let gone = TcpStream::connect(address).unwrap();
    sys::reset_on_close(&gone);
    drop(gone);
    let client = TcpStream::connect(address).unwrap();
    // Linux hands the broken one out too; what matters is that the other one comes.
    let mut peers = Vec::new();
    while let Some((_, peer)) = socket::accept(&listener).unwrap() {
        peers.push(peer);
    }
    assert!(peers.contains(&client.local_addr().unwrap()));
}

#[test]
fn address_in_use_is_named() {
    let listener = socket::listen(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let error = socket::listen(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn connection_is_made_when_it_says_so() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind(loopback()).unwrap();
    let stream = socket::connect(listener.local_addr().unwrap()).unwrap();
    bench.source().register(&stream, Interest::WRITABLE, Mode::OneShot, 1).unwrap();
    assert!(bench.event().ready.is_writable());
    assert!(socket::connected(&stream).unwrap());
}

#[test]
fn refused_connection_says_why() {
    let mut bench = Bench::new();
    // Bound and not listening: nobody else gets the port, and nobody answers.
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let stream = socket::connect(nobody.local_addr().unwrap()).unwrap();
    bench.source().register(&stream, Interest::WRITABLE, Mode::OneShot, 1).unwrap();
    assert!(bench.event().ready.is_error());
    let error = socket::connected(&stream).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
