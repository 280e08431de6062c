//! One listener, two threads, each with a queue.

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

enum Event {
    Arrived,
    Stop,
}

/// How often one thread was told, and whom it accepted.
#[derive(Default)]
struct Count {
    told: usize,
    accepted: Vec<SocketAddr>,
}

/// How to stop one thread, and where the system says what it does.
type Started = (Poster<()>, PathBuf);

/// Accepts until it is told to stop. Every accepted connection is said to `report`.
fn serve(
    listener: &TcpListener,
    started: &mpsc::Sender<Started>,
    report: &mpsc::Sender<()>,
) -> Count {
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Readiness::new(), |_| Event::Arrived).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |()| Event::Stop).unwrap();
    queue[id].register_exclusive(listener, Interest::READABLE, 0).unwrap();
    let state = Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap()).join("stat");
    started.send((poster, state)).unwrap();
    let mut count = Count::default();
    loop {
        queue.wait(None).unwrap();
        while let Some(event) = queue.next() {
            match event {
                Event::Stop => return count,
                Event::Arrived => count.told += 1,
            }
            while let Some((_, peer)) = socket::accept(listener).unwrap() {
                count.accepted.push(peer);
                report.send(()).unwrap();
            }
        }
    }
}

/// Until the thread sleeps: an arrival that finds one awake is told to another as well.
fn wait_until_asleep(state: &Path) {
    let deadline = Instant::now() + PATIENCE;
    // The state follows the name of the thread, which is in brackets: proc_pid_stat(5).
    while !fs::read_to_string(state).unwrap().contains(") S ") {
        assert!(Instant::now() < deadline, "the thread goes to sleep");
        thread::yield_now();
    }
}

#[test]
fn one_arrival_wakes_one_of_two_threads() {
    let listener = Arc::new(socket::listen("127.0.0.1:0".parse().unwrap()).unwrap());
    let (start, started) = mpsc::channel();
    let (report, reported) = mpsc::channel();
    let serve_in_thread = |_| {
        let (listener, start, report) = (Arc::clone(&listener), start.clone(), report.clone());
        thread::spawn(move || serve(&listener, &start, &report))
    };
    let threads: Vec<_> = (0..2).map(serve_in_thread).collect();
    let started: Vec<_> = (0..2).map(|_| started.recv_timeout(PATIENCE).unwrap()).collect();

    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        started.iter().for_each(|(_, state)| wait_until_asleep(state));
        clients.push(TcpStream::connect(address).unwrap());
        reported.recv_timeout(PATIENCE).expect("every connection is accepted");
    }
    for (poster, _) in started {
        poster.post(()).unwrap();
    }
    let counts: Vec<Count> = threads.into_iter().map(|t| t.join().unwrap()).collect();

    let accepted: Vec<_> = counts.iter().flat_map(|count| &count.accepted).collect();
    assert_eq!(accepted.len(), CONNECTIONS);
    assert_eq!(accepted.into_iter().collect::<HashSet<_>>().len(), CONNECTIONS, "none twice");
    let told: usize = counts.iter().map(|count| count.told).sum();
    // Some slack for a thread that was asleep, but not yet or no longer in its wait.
    assert!(told < CONNECTIONS * 5 / 4, "{told} were told of {CONNECTIONS} connections");
}
