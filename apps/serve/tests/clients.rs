//! Clients that are many, slow, or gone: nobody else is stalled, nothing leaks.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod common;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Client, Server, folder, has_curl, launch, pattern, start, ways, write};

#[test]
fn sixty_four_curls_fetch_a_tree_byte_for_byte() {
    if !has_curl() {
        return;
    }
    let root = folder();
    let mut config = String::new();
    let copy = tempfile::tempdir().unwrap();
    for way in ways() {
        let server = start(root.path(), &["--aio", way]);
        for n in 0..300_usize {
            let folder = format!("d{}", n % 10);
            let _ = fs::create_dir(root.path().join(&folder));
            let name = format!("{folder}/f{n}");
            write(root.path(), &name, &pattern(n * 997 % 150_000, n as u64));
            let into = copy.path().join(format!("{way}-{n}"));
            let port = server.port;
            config += &format!(
                "url = \"http://127.0.0.1:{port}/{name}\"\noutput = \"{}\"\n",
                into.display()
            );
        }
        write(copy.path(), "config", config.as_bytes());
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", "64"])
            .arg("--config")
            .arg(copy.path().join("config"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        config.clear();
        for n in 0..300_usize {
            let fetched = fs::read(copy.path().join(format!("{way}-{n}"))).unwrap();
            assert!(fetched == pattern(n * 997 % 150_000, n as u64), "{way} {n}");
        }
    }
}

/// The first socket that is full has the server make a set for such, which is kept.
const SET_OF_FULL_SOCKETS: usize = 3;

#[test]
fn slow_clients_cost_no_thread_and_no_memory_and_stall_nobody() {
    let root = folder();
    let big = fs::File::create(root.path().join("big")).unwrap();
    big.set_len(64 << 20).unwrap();
    let server = start(root.path(), &["--threads", "1"]);
    // Both files are kept open from now on.
    assert_eq!(server.get("/a.txt").body, b"hello");
    assert_eq!(server.get("/big").body.len(), 64 << 20);
    let threads = server.threads();
    let memory = server.memory();
    let descriptors = server.descriptors();
    let slow: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(client.head().status, 200);
            client
        })
        .collect();
    let begun = Instant::now();
    let mut quick = server.connect();
    for _ in 0..100 {
        assert_eq!(quick.get("/a.txt").body, b"hello");
    }
    println!("100 answers beside 20 slow clients: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5));
    // The kernel's own workers stand among the tasks; those of blocking reads come and go.
    println!("{threads} threads before, {} now", server.threads());
    assert!(server.threads() <= threads + 4, "{} of {threads}", server.threads());
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 40 << 20, "{grown} bytes for 20 clients");
    drop((slow, quick));
    server.gives_back_all_but(descriptors + SET_OF_FULL_SOCKETS);
}

#[test]
fn client_that_resets_in_the_middle_leaves_nothing_behind() {
    let root = folder();
    let big = fs::File::create(root.path().join("big")).unwrap();
    big.set_len(64 << 20).unwrap();
    let mut server = start(root.path(), &["--threads", "1"]);
    assert_eq!(server.get("/big").body.len(), 64 << 20);
    assert_eq!(server.get("/a.txt").status, 200);
    let descriptors = server.descriptors();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\nGET /big HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.head().status, 200);
        // Bytes of the answer are unread, so the kernel closes with a reset.
    }
    server.gives_back_all_but(descriptors + SET_OF_FULL_SOCKETS);
    assert!(server.is_alive());
    assert_eq!(server.get("/a.txt").body, b"hello");
}

#[test]
fn five_hundred_connections_that_come_and_go_leave_nothing_behind() {
    let root = folder();
    let server = start(root.path(), &["--threads", "2"]);
    assert_eq!(server.get("/a.txt").status, 200);
    let descriptors = server.descriptors();
    for _ in 0..2 {
        let clients: Vec<_> =
            (0..500).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
        drop(clients);
        assert_eq!(server.get("/a.txt").status, 200);
    }
    server.gives_back_all_but(descriptors + 1);
}

#[test]
fn long_requests_leave_no_memory_with_connections_that_wait() {
    let root = folder();
    let server = start(root.path(), &["--threads", "1"]);
    let long = format!("Cookie: {}\r\n", "c".repeat(15_000));
    assert_eq!(server.connect().ask("GET", "/a.txt", &long).status, 200);
    let memory = server.memory();
    let ask = |_| {
        let mut client = server.connect();
        assert_eq!(client.ask("GET", "/a.txt", &long).status, 200);
        client
    };
    let idle: Vec<_> = (0..400).map(ask).collect();
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 400 * 8000, "{grown} bytes for {} connections", idle.len());
}

/// Few descriptors, and two listeners: each is at the limit of connections.
fn start_with_few_descriptors(root: &Path) -> Server {
    let shell = format!(
        "ulimit -n 64; exec {} --listen 127.0.0.1:0 --listen 127.0.0.1:0 --threads 1 \"$0\"",
        env!("CARGO_BIN_EXE_kevent-serve")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &shell]).arg(root).stdout(Stdio::piped());
    launch(command)
}

/// A limit that holds for seconds makes no work that grows.
#[test]
fn server_that_takes_no_more_clients_stays_quiet() {
    let root = folder();
    let server = start_with_few_descriptors(root.path());
    let memory = server.memory();
    let idle: Vec<_> = (0..50).map(|_| server.connect()).collect();
    // Time itself is what is waited for.
    std::thread::sleep(Duration::from_secs(3));
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes more");
    drop(idle);
    assert_eq!(server.get("/a.txt").body, b"hello");
}

#[test]
fn connection_that_waits_longest_makes_room_for_a_new_client() {
    let root = folder();
    let server = start_with_few_descriptors(root.path());
    let mut busy = server.connect();
    let mut idle = Vec::new();
    let begun = Instant::now();
    for _ in 0..30 {
        let mut client = server.connect();
        assert_eq!(client.get("/a.txt").body, b"hello");
        assert_eq!(busy.get("/a.txt").body, b"hello", "it never waits long");
        idle.push(client);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    idle[0].assert_closed();
    assert_eq!(idle[29].get("/a.txt").body, b"hello");
    assert!(server.descriptors() <= 64);
}

/// Also those that never said a word.
#[test]
fn silent_connections_keep_no_client_out() {
    let root = folder();
    let server = start_with_few_descriptors(root.path());
    let _silent: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let begun = Instant::now();
    assert_eq!(server.get("/a.txt").body, b"hello");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn connection_that_waits_makes_room_when_descriptors_run_out() {
    let root = folder();
    let server = start(root.path(), &["--threads", "1"]);
    let mut first = server.connect();
    let mut others: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for client in others.iter_mut().chain([&mut first]) {
        assert_eq!(client.get("/a.txt").status, 200);
    }
    // Fewer than there are, so the file that is kept open is not enough.
    let limit = format!("--nofile={}", server.descriptors() - 4);
    let pid = server.child.id().to_string();
    match Command::new("prlimit").args(["--pid", &pid, &limit]).status() {
        Ok(status) if status.success() => {}
        _ => return println!("skipped: no prlimit"),
    }
    let begun = Instant::now();
    let mut new = server.connect();
    assert_eq!(new.get("/none").status, 404);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(first.get("/none").status, 404, "the others waited longer");
    others[0].assert_closed();
}

#[test]
fn more_clients_than_descriptors_are_all_served_in_the_end() {
    let root = folder();
    let mut server = start_with_few_descriptors(root.path());
    std::thread::scope(|scope| {
        for _ in 0..200 {
            let fetch = || {
                let response = server.connect().ask("GET", "/a.txt", "Connection: close\r\n");
                assert_eq!(response.body, b"hello");
            };
            scope.spawn(fetch);
        }
    });
    assert!(server.is_alive());
    assert!(server.descriptors() <= 64);
    assert_eq!(server.get("/a.txt").status, 200);
}

#[test]
fn refused_upload_still_gets_its_answer() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    let length = 8 << 20;
    client.send(format!("POST /a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"));
    client.send(vec![b'x'; length]);
    let status = client.response().status;
    assert!([405, 413, 501].contains(&status), "{status}");
}

#[test]
fn any_number_of_threads_and_either_family_serve() {
    let root = folder();
    for threads in ["1", "4"] {
        let server = start(root.path(), &["--threads", threads]);
        for _ in 0..20 {
            assert_eq!(server.get("/a.txt").body, b"hello");
        }
    }
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: no IPv6");
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_kevent-serve"));
    command.args(["--listen", "[::1]:0"]).arg(root.path()).stdout(Stdio::piped());
    let server = launch(command);
    let mut client = Client::new(TcpStream::connect(("::1", server.port)).unwrap());
    assert_eq!(client.get("/a.txt").body, b"hello");
}
