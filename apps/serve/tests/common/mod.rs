//! A real server process on a free port, and a client that sees exact bytes.

#![allow(clippy::unwrap_used)] // Helpers of tests.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kevent_aio::{Aio, Choice};

/// Nothing that is waited for takes that long, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
}

/// The program, with a free port, and its standard output to be read.
pub(crate) fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kevent-serve"));
    command.args(["--listen", "127.0.0.1:0"]).args(arguments).arg(root).stdout(Stdio::piped());
    command
}

/// Serves `root` and waits until clients are accepted.
pub(crate) fn start(root: &Path, arguments: &[&str]) -> Server {
    launch(command(root, arguments))
}

/// Runs a command that prints where it listens.
pub(crate) fn launch(mut command: Command) -> Server {
    let mut child = command.spawn().expect("the server starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the server says where it listens");
    let port = line.trim_end().rsplit(':').next().and_then(|port| port.parse().ok());
    let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
    Server { port, child, stdout }
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address()).expect("the server accepts");
        Client::new(stream)
    }

    /// The answer to a GET on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.count("fd")
    }

    /// It closes what clients, who are gone, have made it open.
    pub(crate) fn gives_back_all_but(&self, descriptors: usize) {
        let begun = Instant::now();
        while self.descriptors() > descriptors {
            assert!(begun.elapsed() < PATIENCE, "{descriptors} expected: {:#?}", self.opened());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn opened(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs");
        entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
    }

    pub(crate) fn threads(&self) -> usize {
        self.count("task")
    }

    fn count(&self, what: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{what}", self.child.id())).expect("it runs").count()
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill exists");
        assert!(status.success());
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A connection, read one response at a time.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: BufReader<TcpStream>,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let input = BufReader::new(stream.try_clone().expect("a descriptor"));
        Client { stream, input }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes requests");
    }

    /// Ends what this client says.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        self.response()
    }

    /// A request with more header lines, each ended by CR LF.
    pub(crate) fn ask(&mut self, method: &str, target: &str, headers: &str) -> Response {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"));
        if method == "HEAD" { self.head() } else { self.response() }
    }

    /// Reads one response with its body.
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        let length = response.header("content-length").and_then(|value| value.parse().ok());
        let has_body = response.status != 304;
        let length: usize = if has_body { length.expect("a length") } else { 0 };
        response.body = vec![0; length];
        self.input.read_exact(&mut response.body).expect("the whole body");
        response
    }

    /// Reads one response that has no body, whatever its length says.
    pub(crate) fn head(&mut self) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let n = self.input.read_until(b'\n', &mut head).expect("a response");
            assert_ne!(n, 0, "closed after {:?}", String::from_utf8_lossy(&head));
        }
        let head = String::from_utf8(head).expect("a head is text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Response { status: status.expect("a status"), head, body: Vec::new() }
    }

    /// All that comes until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.input.read_to_end(&mut rest);
        rest
    }

    /// The server has closed, and sent nothing more.
    pub(crate) fn assert_closed(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }
}

/// A folder with one small file, `a.txt`.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.txt", b"hello");
    folder
}

pub(crate) fn write(root: &Path, name: impl AsRef<OsStr>, content: &[u8]) {
    fs::write(root.join(name.as_ref()), content).expect("a file is written");
}

/// Bytes of which no part looks like another.
pub(crate) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(step).collect()
}

pub(crate) fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: no curl");
    }
    found
}

/// The values of `--aio` that can be had on this machine.
pub(crate) fn ways() -> Vec<&'static str> {
    let mut ways = vec!["pool"];
    match Aio::builder().backend(Choice::Uring).build() {
        Ok(_) => ways.push("uring"),
        Err(error) => println!("skipped: {error}"),
    }
    ways
}
