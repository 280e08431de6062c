//! A process that is out of descriptors. The limit is the process's, so this is a test binary of its
//! own, with one test.

mod common;

use std::fs::File;
use std::io;
use std::net::TcpStream;

use common::sys;
use kevent_net::socket;

#[test]
fn connection_waits_while_there_are_no_descriptors() {
    sys::set_descriptor_limit(32);
    let listener = socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();

    let error: io::Error = socket::accept(&listener).unwrap_err();
    assert!(socket::out_of_descriptors(&error), "{error}");
    hoard.pop();
    let (_, peer) = socket::accept(&listener).unwrap().expect("it still waits");
    assert_eq!(peer, client.local_addr().unwrap());
}
