//! Echo servers, 64 bytes there and back, from one connection to ten thousand.

mod client;
mod kevent;
mod peers;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::group::{Bound, Goal, Group, Metric, Peer, Result, Sample, Setting, Topic};
use crate::measure;
use crate::runner;
use crate::sys;
use client::Client;

pub(crate) const TOPIC: Topic =
    Topic { name: "echo", title: "Echo servers", groups, helper: Some(serve) };

/// A server: serves the connections of a non-blocking listener until it is killed.
type Server = fn(TcpListener) -> Result<()>;

/// Every peer's name, its server, and its two measurements.
const SERVERS: &[(&str, Server)] = &[
    ("kevent", kevent::serve),
    ("kevent, ring", kevent::serve_by_ring),
    ("epoll in C", |listener| Err(sys::echo_epoll_serve(listener).into())),
    ("epoll in Rust", peers::epoll),
    ("io_uring", peers::io_uring),
    ("mio", peers::mio),
    ("polling", peers::polling),
    ("calloop", peers::calloop),
    ("tokio", peers::tokio),
    ("compio", peers::compio),
    ("monoio", peers::monoio),
];

const LOAD: &[Metric] = &[
    Metric { name: "server's CPU per message", unit: "us" },
    Metric { name: "wall time per message", unit: "us" },
];
const MEMORY: &[Metric] = &[Metric { name: "memory per idle connection", unit: "KiB" }];

fn groups() -> Vec<Group> {
    let goal = |bound| Goal { metric: 0, who: "kevent", bound };
    let mut groups: Vec<_> = [(1, "1"), (64, "64"), (1_000, "1,000"), (10_000, "10,000")]
        .into_iter()
        .map(|(size, words)| Group {
            name: format!("echo/{size}"),
            title: format!("64 bytes there and back, {words} connections"),
            about: "Each connection has one message under way. Server and client are processes, on a \
                    processor each; the client is one epoll loop. CPU time of the server.",
            metrics: LOAD,
            peers: peers(load),
            size,
            goals: vec![goal(Bound::TimesOfBest(1.0, &["epoll in C"], 0.2))],
        })
        .collect();
    groups.push(Group {
        name: "echo/memory".into(),
        title: "Memory of 10,000 idle connections".into(),
        about: "What the server's resident memory grew by, when each connection has sent one message \
                and is silent. The kernel's part is not in it.",
        metrics: MEMORY,
        peers: peers(memory),
        size: 10_000,
        goals: vec![goal(Bound::AtMost(0.5))],
    });
    groups
}

fn peers(run: fn(&Setting) -> Result<Sample>) -> Vec<Peer> {
    SERVERS.iter().map(|(name, _)| Peer { name, run }).collect()
}

fn load(setting: &Setting) -> Result<Sample> {
    let [here, there] = measure::two_cpus()?;
    measure::pin(here)?;
    let server = Running::start(setting.peer, there)?;
    let mut client =
        Client::connect(server.address, setting.pick(setting.size, 8).min(setting.size))?;
    client.exchange(setting.pick(Duration::from_millis(100), Duration::from_millis(2)))?;
    let before = server.cpu_time()?;
    let time = setting.pick(Duration::from_millis(400), Duration::from_millis(5));
    let (messages, took) = client.exchange(time)?;
    let cost = server.cpu_time()? - before;
    let each = |nanoseconds: f64| Some(nanoseconds / messages as f64 / 1e3);
    Ok(vec![each(cost), each(took.as_nanos() as f64)])
}

fn memory(setting: &Setting) -> Result<Sample> {
    let [here, there] = measure::two_cpus()?;
    measure::pin(here)?;
    let server = Running::start(setting.peer, there)?;
    // What a first connection brings with it is not the connections' price.
    Client::connect(server.address, 1)?.exchange(Duration::ZERO)?;
    let before = server.resident_kib()?;
    let mut client = Client::connect(server.address, setting.pick(setting.size, 8))?;
    let (messages, _) = client.exchange(Duration::ZERO)?;
    let grown = server.resident_kib()? - before;
    Ok(vec![Some(grown / messages as f64)])
}

/// A server in a process of its own. Killed when dropped.
struct Running {
    process: Child,
    address: SocketAddr,
}

impl Running {
    fn start(name: &str, cpu: usize) -> Result<Running> {
        let mut command = runner::helper_command(TOPIC.name)?;
        command.args([name, &cpu.to_string()]).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| "the server did not start")?;
        Ok(Running { process, address })
    }

    fn cpu_time(&self) -> Result<f64> {
        Ok(sys::cpu_time_of(self.process.id())?)
    }

    /// Memory that is its own and in use, in KiB. Files that it maps do not count.
    fn resident_kib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).ok_or("no RssAnon")?;
        Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's process: `NAME PROCESSOR`. Says where it listens.
fn serve(arguments: &[String]) -> Result<()> {
    let [name, cpu] = arguments else { return Err("wrong arguments".into()) };
    let (_, serve) = SERVERS.iter().find(|(peer, _)| peer == name).ok_or("no such server")?;
    measure::pin(cpu.parse()?)?;
    let listener = client::listen()?;
    println!("{}", listener.local_addr()?);
    serve(listener)
}
