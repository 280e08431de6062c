//! The process: what it says at its start, how signals end it, and its log.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Client, Server, command, folder, launch, start, until, write};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kevent-serve")).args(arguments).output().unwrap()
}

#[test]
fn bad_input_ends_it_with_a_sentence() {
    let root = folder();
    let file = root.path().join("a.txt");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let path = root.path().to_str().unwrap();
    for (arguments, code, says) in [
        (vec!["--frobnicate"], 2, "--frobnicate"),
        (vec!["--threads", "0"], 2, "from 1 to"),
        (vec!["--aio", "magic"], 2, "auto, uring or pool"),
        (vec!["--listen", "127.0.0.1:0", "/no/such/folder"], 1, "/no/such/folder"),
        (vec!["--listen", "127.0.0.1:0", file.to_str().unwrap()], 1, "not a folder"),
        (vec!["--listen", &taken, path], 1, &taken),
        (vec!["--listen", "127.0.0.1:0", "--log", "/no/such/log", path], 1, "log"),
    ] {
        let output = run(&arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says) && !text.contains("panicked"), "{arguments:?}: {text}");
    }
    assert!(String::from_utf8_lossy(&run(&["--help"]).stdout).contains("--listen"));
    assert!(run(&["--version"]).status.success());
}

fn server_with_big_file(arguments: &[&str]) -> (tempfile::TempDir, Server) {
    let root = folder();
    let big = fs::File::create(root.path().join("big")).unwrap();
    big.set_len(64 << 20).unwrap();
    let server = start(root.path(), arguments);
    (root, server)
}

#[test]
fn signal_to_stop_lets_a_download_finish_and_takes_nobody_new() {
    for signal in ["TERM", "INT"] {
        let (_root, mut server) = server_with_big_file(&["--threads", "2"]);
        let mut idle = server.connect();
        assert_eq!(idle.get("/a.txt").status, 200);
        let mut slow = server.connect();
        slow.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(slow.head().status, 200);
        server.signal(signal);
        idle.assert_closed();
        until("nobody new is taken", || TcpStream::connect(server.address()).is_err());
        assert!(server.is_alive());
        assert_eq!(slow.rest().len(), 64 << 20, "the download finishes");
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn second_signal_ends_it_at_once() {
    let (_root, mut server) = server_with_big_file(&[]);
    let mut slow = server.connect();
    slow.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(slow.head().status, 200);
    server.signal("TERM");
    until("nobody new is taken", || TcpStream::connect(server.address()).is_err());
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Also when the thread that hears signals has nothing left to do.
#[test]
fn signal_for_the_log_while_it_ends_tears_no_download() {
    for _ in 0..4 {
        let (_root, mut server) = server_with_big_file(&["--threads", "2"]);
        let mut slow = server.connect();
        slow.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(slow.head().status, 200);
        server.signal("TERM");
        until("nobody new is taken", || TcpStream::connect(server.address()).is_err());
        server.signal("HUP");
        assert_eq!(slow.rest().len(), 64 << 20);
        assert_eq!(server.wait().code(), Some(0));
    }
}

fn lines(path: &std::path::Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn log_has_one_line_for_each_request_and_is_opened_anew() {
    let root = folder();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut server = start(root.path(), &["--log", log.to_str().unwrap()]);
    let mut client = server.connect();
    client.get("/a.txt");
    client.get("/\"none\\");
    client.ask("HEAD", "/a.txt", "User-Agent: x\r\n");
    until("three lines", || lines(&log).len() == 3);
    let first = &lines(&log)[0];
    assert!(first.starts_with("127.0.0.1 - - ["), "{first}");
    assert!(first.contains("] \"GET /a.txt HTTP/1.1\" 200 "), "{first}");
    let second = &lines(&log)[1];
    assert!(second.contains("\"GET /\\\"none\\\\ HTTP/1.1\" 4"), "{second}");
    let third = &lines(&log)[2];
    assert!(third.contains("\"HEAD /a.txt HTTP/1.1\" 200 "), "{third}");

    let moved = folder.path().join("moved");
    fs::rename(&log, &moved).unwrap();
    server.signal("HUP");
    until("a new log", || log.exists());
    // Each thread hears of it in its turn; what it wrote before is in the old file.
    until("a line in the new log", || {
        client.get("/a.txt");
        !lines(&log).is_empty()
    });
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(lines(&log).iter().chain(&lines(&moved)).all(|line| line.starts_with("127.0.0.1 ")));
}

#[test]
fn request_that_is_cut_short_has_its_line_too() {
    let root = folder();
    fs::File::create(root.path().join("big")).unwrap().set_len(64 << 20).unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut server = start(root.path(), &["--log", log.path().to_str().unwrap()]);
    let has = |text: &str| lines(log.path()).iter().filter(|line| line.contains(text)).count();
    let ask = |name: &str| {
        let mut client = server.connect();
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(client.head().status, 200);
        client
    };
    drop(ask("big?reset"));
    until("the line of a client who is gone", || has("\"GET /big?reset HTTP/1.1\" 200 ") == 1);

    let _slow = ask("big?grace");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(has("\"GET /big?grace HTTP/1.1\" 200 "), 1, "{:?}", lines(log.path()));
    let line = lines(log.path()).into_iter().find(|line| line.contains("?grace")).unwrap();
    let sent: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1..64 << 20).contains(&sent), "{line}");
}

#[test]
fn log_to_standard_output_follows_where_it_listens() {
    let root = folder();
    let mut server = start(root.path(), &["--log", "-", "--threads", "1"]);
    for n in 0..100 {
        assert_eq!(server.get("/a.txt").status, 200);
        let mut line = String::new();
        server.stdout.read_line(&mut line).unwrap();
        assert!(line.contains("\"GET /a.txt HTTP/1.1\" 200 "), "{n}: {line}");
    }
}

#[test]
fn reader_of_the_log_who_stops_reading_stalls_no_client() {
    let root = folder();
    write(root.path(), "b", b"x");
    let server = start(root.path(), &["--log", "-", "--threads", "1"]);
    let mut client = server.connect();
    let long = "q".repeat(4000);
    // Several pipes full.
    for _ in 0..500 {
        assert_eq!(client.get(&format!("/b?{long}")).status, 200);
    }
}

/// The server with its standard error to be read.
fn start_heard(root: &std::path::Path, arguments: &[&str]) -> Server {
    let mut command = command(root, arguments);
    command.stderr(Stdio::piped());
    launch(command)
}

/// All that it said, once it has ended.
fn said(server: &mut Server) -> String {
    let mut text = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn full_disk_under_the_log_is_said_once_and_stops_nothing() {
    let root = folder();
    let mut server = start_heard(root.path(), &["--log", "/dev/full", "--threads", "1"]);
    let mut client = server.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/a.txt").status, 200);
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let text = said(&mut server);
    let spoken = text.matches("No space left on device").count();
    // When it happens, and at the end, when it is known what is lost.
    assert!((1..=2).contains(&spoken), "{text}");
    assert!(text.contains("lines lost: 20"), "{text}");
}

#[test]
fn log_to_standard_output_may_be_a_socket() {
    let root = folder();
    for target in ["-", "/dev/stdout"] {
        let (reader, writer) = UnixStream::pair().unwrap();
        reader.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let mut command = command(root.path(), &["--log", target]);
        let mut child = command.stdout(OwnedFd::from(writer)).spawn().unwrap();
        drop(command);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let port = lines.next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        let mut client = Client::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
        assert_eq!(client.get("/a.txt").status, 200);
        let line = lines.next().unwrap();
        assert!(line.contains("\"GET /a.txt HTTP/1.1\" 200 "), "{line}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn fifo_as_a_log_waits_for_no_reader() {
    let root = folder();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    let mut server = start(root.path(), &["--log", log.to_str().unwrap(), "--threads", "1"]);
    assert_eq!(server.get("/a.txt").status, 200);
    server.signal("HUP");
    assert_eq!(server.get("/a.txt").status, 200);
    let mut lines = BufReader::new(fs::File::open(&log).unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"GET /a.txt HTTP/1.1\" 200 "));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// The reader is slow at first, so that the pipe is full and writes have to wait in its middle.
#[test]
fn lines_of_several_threads_do_not_mix_in_a_pipe() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 300;
    let root = folder();
    let mut server = start(root.path(), &["--log", "-", "--threads", "4"]);
    let address = server.address();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let query = client.to_string().repeat(300);
                for _ in 0..REQUESTS / 10 {
                    let mut client = Client::new(TcpStream::connect(address).unwrap());
                    for _ in 0..10 {
                        assert_eq!(client.get(&format!("/a.txt?{query}")).status, 200);
                    }
                }
            });
        }
    });
    server.signal("TERM");
    let mut text = String::new();
    server.stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), CLIENTS * REQUESTS);
    for line in text.lines() {
        let query = line.split_once("\"GET /a.txt?").unwrap().1.split_once(" HTTP/1.1\" 200 ");
        let (query, _) = query.unwrap_or_else(|| panic!("{line}"));
        assert!(query.len() == 300 && query.bytes().all(|byte| byte == query.as_bytes()[0]));
        assert_eq!(line.matches("127.0.0.1").count(), 1, "{line}");
    }
}

#[test]
fn without_a_log_nothing_is_written() {
    let root = folder();
    let mut server = start(root.path(), &[]);
    assert_eq!(server.get("/a.txt").status, 200);
    server.signal("TERM");
    assert!(server.wait().success());
    let mut rest = String::new();
    server.stdout.read_line(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// The only slow one: a header block has ten seconds.
#[test]
fn header_that_does_not_end_times_out() {
    let root = folder();
    let log = tempfile::NamedTempFile::new().unwrap();
    let server = start(root.path(), &["--log", log.path().to_str().unwrap()]);
    let mut client = server.connect();
    let begun = Instant::now();
    client.send("GET /a.txt HTTP/1.1\r\nHost");
    assert_eq!(client.response().status, 408);
    client.assert_closed();
    let line = "\"GET /a.txt HTTP/1.1\" 408 ";
    until("it is in the log", || lines(log.path()).iter().any(|found| found.contains(line)));
    let took = begun.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

/// Also when the log was to go there.
#[test]
fn closed_standard_output_is_no_reason_to_fail() {
    let root = folder();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for arguments in [&[][..], &["--log", "-"]] {
        let mut gone = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = gone.stdin.take().unwrap();
        gone.wait().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kevent-serve"));
        command.args(["--listen", &free]).args(arguments).arg(root.path()).stdout(pipe);
        let mut child = command.spawn().unwrap();
        let mut stream = None;
        until("it listens", || {
            stream = TcpStream::connect(&free).ok();
            stream.is_some()
        });
        let mut client = Client::new(stream.unwrap());
        assert_eq!(client.get("/a.txt").status, 200);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
