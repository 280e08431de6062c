//! The example `echo`, with real clients.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::Running;

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn server() -> (Running, SocketAddr) {
    let mut server = Running::start(Command::new(env!("CARGO_BIN_EXE_echo")).arg("127.0.0.1:0"));
    let address = server.address();
    (server, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn say(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).unwrap();
    let mut echo = vec![0; text.len()];
    client.read_exact(&mut echo).expect("an echo in time");
    assert_eq!(echo, text);
}

#[test]
fn every_client_gets_its_own_words_back() {
    let (_server, address) = server();
    let mut clients: Vec<_> = (0..20).map(|_| connect(address)).collect();
    for round in 0..10 {
        for (client, number) in clients.iter_mut().zip(0_u8..) {
            say(client, &vec![number; 1 + round * 7_000]);
        }
    }
}

#[test]
fn client_that_has_said_all_gets_the_rest_and_the_end() {
    let (_server, address) = server();
    let mut client = connect(address);
    let text = vec![b'x'; 100_000];
    client.write_all(&text).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut echo = Vec::new();
    client.read_to_end(&mut echo).unwrap();
    assert!(echo == text, "{} bytes of {}", echo.len(), text.len());
}

#[test]
fn client_that_does_not_read_is_held_back_and_disturbs_nobody() {
    let (_server, address) = server();
    let mut greedy = connect(address);
    // Until nothing moved for that long: all buffers on the way are full.
    greedy.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let chunk: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    let mut said = 0_usize;
    let held_back = loop {
        match greedy.write(&chunk[said % 256..]) {
            Ok(count) => said += count,
            Err(error) => break error,
        }
        assert!(said < 256 << 20, "the server takes what it can't give back");
    };
    assert_eq!(held_back.kind(), ErrorKind::WouldBlock);
    say(&mut connect(address), b"does it still listen?");

    let reader = greedy.try_clone().unwrap();
    let counted = thread::spawn(move || {
        let mut expected = (0..=255_u8).cycle();
        let bytes = std::io::BufReader::new(reader).bytes();
        bytes.map_while(Result::ok).filter(|byte| expected.next() == Some(*byte)).count()
    });
    greedy.shutdown(Shutdown::Write).unwrap();
    assert_eq!(counted.join().unwrap(), said, "all of it comes back, in order");
}

#[test]
fn client_that_breaks_off_disturbs_nobody() {
    let (_server, address) = server();
    let mut quiet = connect(address);
    for _ in 0..50 {
        let mut client = connect(address);
        // Unread echoes make the close a reset.
        client.write_all(&[0; 10_000]).unwrap();
    }
    say(&mut quiet, b"still there");
}

#[test]
fn clients_beyond_the_descriptor_limit_wait_for_a_place() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 20 && exec \"$0\" 127.0.0.1:0", env!("CARGO_BIN_EXE_echo")]);
    let mut server = Running::start(&mut shell);
    let address = server.address();
    // Twenty descriptors hold fewer than twenty clients; the kernel connects all thirty.
    let clients: Vec<_> = (0..30).map(|_| connect(address)).collect();
    for mut client in clients {
        // Each leaves when it has had its say, which makes room for one that waits.
        say(&mut client, b"next");
    }
}

#[test]
fn address_that_is_none_is_refused() {
    let run = Command::new(env!("CARGO_BIN_EXE_echo")).arg("nowhere").output().unwrap();
    assert!(!run.status.success());
    assert!(String::from_utf8_lossy(&run.stderr).contains("not an address and port: nowhere"));
}
