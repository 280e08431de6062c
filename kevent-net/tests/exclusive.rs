//! One listener, several threads, each with a queue.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::collections::HashSet;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Instant;
use std::{fs, thread};

use common::PATIENCE;
use kevent_core::{Poster, Queue, UserEvents};
use kevent_net::{Interest, Readiness, socket};
use mio::net::TcpListener;

const CONNECTIONS: usize = 200;

/// More than there are processors, mostly.
const THREADS: usize = 6;

enum Event {
    Arrived,
    Stop,
}

/// How to stop one thread, and the folder in which the system says what it does.
type Started = (Poster<()>, PathBuf);

/// Accepts until it is told to stop, and says whom. Every accepted connection is said to `report`.
fn serve(
    listener: &TcpListener,
    started: &mpsc::Sender<Started>,
    report: &mpsc::Sender<()>,
) -> Vec<SocketAddr> {
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Readiness::new(), |_| Event::Arrived).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |()| Event::Stop).unwrap();
    queue[id].register_exclusive(listener, Interest::READABLE, 0).unwrap();
    let thread = Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap());
    started.send((poster, thread)).unwrap();
    let mut accepted = Vec::new();
    loop {
        queue.wait(None).unwrap();
        while let Some(event) = queue.next() {
            if let Event::Stop = event {
                return accepted;
            }
            while let Some((_, peer)) = socket::accept(listener).unwrap() {
                accepted.push(peer);
                report.send(()).unwrap();
            }
        }
    }
}

/// Until the thread sleeps: an arrival that finds one awake wakes another as well.
fn wait_until_asleep(thread: &Path) {
    let deadline = Instant::now() + PATIENCE;
    // The state follows the name of the thread, which is in brackets: proc_pid_stat(5).
    while !fs::read_to_string(thread.join("stat")).unwrap().contains(") S ") {
        assert!(Instant::now() < deadline, "the thread goes to sleep");
        thread::yield_now();
    }
}

/// How often the thread has gone to sleep: proc_pid_status(5). The kernel drops an event that another
/// thread has used up already, so a wake-up for nothing shows here only.
fn sleeps(thread: &Path) -> usize {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn one_arrival_wakes_one_of_many_threads() {
    let listener = Arc::new(socket::listen("127.0.0.1:0".parse().unwrap()).unwrap());
    let (start, started) = mpsc::channel();
    let (report, reported) = mpsc::channel();
    let serve_in_thread = |_| {
        let (listener, start, report) = (Arc::clone(&listener), start.clone(), report.clone());
        thread::spawn(move || serve(&listener, &start, &report))
    };
    let threads: Vec<_> = (0..THREADS).map(serve_in_thread).collect();
    let started: Vec<_> = (0..THREADS).map(|_| started.recv_timeout(PATIENCE).unwrap()).collect();

    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    started.iter().for_each(|(_, thread)| wait_until_asleep(thread));
    let before: usize = started.iter().map(|(_, thread)| sleeps(thread)).sum();
    for _ in 0..CONNECTIONS {
        clients.push(TcpStream::connect(address).unwrap());
        reported.recv_timeout(PATIENCE).expect("every connection is accepted");
        started.iter().for_each(|(_, thread)| wait_until_asleep(thread));
    }
    let woken = started.iter().map(|(_, thread)| sleeps(thread)).sum::<usize>() - before;
    for (poster, _) in started {
        poster.post(()).unwrap();
    }

    let accepted: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    assert_eq!(accepted.len(), CONNECTIONS);
    assert_eq!(accepted.into_iter().collect::<HashSet<_>>().len(), CONNECTIONS, "none twice");
    // Without exclusion it is one of each thread, for each.
    println!("{woken} wake-ups for {CONNECTIONS} connections");
    assert!(woken <= CONNECTIONS * 11 / 10, "{woken} wake-ups for {CONNECTIONS} connections");
}
