//! What a worker does for its clients, in made-up time: an hour of slow clients takes milliseconds, and
//! the same seed is the same hour.
//!
//! Clients are the other ends of socket pairs, which need no network stack, so nothing is left to real
//! time. What the acceptance of clients needs of TCP is for the tests of the whole program.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kevent_aio::{Aio, Choice, testing};
use kevent_core::testing::{Dice, Sim};
use kevent_core::{Interrupter, Poster, UserEvents};
use mio::net::TcpStream;

use crate::connection::{HEADER, IDLE, LINGER};
use crate::limits::Share;
use crate::lister::Lister;
use crate::message::Message;
use crate::worker::{Setup, Worker};

const SMALL: &[u8] = b"hello";
/// More than the socket takes in one go.
const BIG: usize = 1 << 20;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn big() -> Vec<u8> {
    let mut dice = Dice::new(1);
    (0..BIG / 8).flat_map(|_| dice.bits().to_ne_bytes()).collect()
}

/// A folder with `/small` and `/big`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small"), SMALL).unwrap();
    std::fs::write(folder.path().join("big"), big()).unwrap();
    folder
}

/// A worker, and the doors through which the script comes in.
struct House {
    sim: Sim,
    worker: Worker,
    poster: Poster<Message>,
    interrupter: Interrupter,
    door: Arc<Mutex<Vec<UnixStream>>>,
    /// How many clients it had, and from when on.
    clients: Vec<(Duration, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Honest,
    /// Late, short and failing.
    Lying,
}

impl House {
    fn new(seed: u64, root: &Path, disk: Disk) -> House {
        let sim = Sim::new(seed);
        let (users, poster) = UserEvents::with_capacity(NonZeroUsize::new(16).unwrap());
        let share = Share { connections: 100, files: 10 };
        let builder = Aio::builder().backend(Choice::Pool).capacity(share.operations());
        let builder = if disk == Disk::Lying { testing::lying(builder, seed) } else { builder };
        let setup = Setup {
            root: Arc::new(File::open(root).unwrap()),
            listeners: Vec::new(),
            users,
            poster: poster.clone(),
            overrun: Arc::new(AtomicBool::new(false)),
            aio: builder.build().unwrap(),
            lister: Lister::start().unwrap(),
            log: None,
            share,
        };
        let worker = Worker::new(sim.queue().unwrap(), setup).unwrap();
        let interrupter = worker.queue.interrupter();
        let (door, clients) = (Arc::default(), Vec::new());
        House { sim, worker, poster, interrupter, door, clients }
    }

    /// Has a client come at that time.
    fn client(&self, at: Duration) -> Client {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        let (door, interrupter) = (Arc::clone(&self.door), self.interrupter.clone());
        self.sim.at(at, move |_| {
            door.lock().unwrap().push(here);
            interrupter.interrupt();
        });
        let end = Far { socket: Some(there), received: Vec::new(), ended: None, reset: false };
        Client { sim: self.sim.clone(), end: Arc::new(Mutex::new(end)) }
    }

    /// Serves until it is told to stop, and everything is finished.
    fn run(&mut self, stop: Duration) {
        let poster = self.poster.clone();
        self.sim.at(stop, move |_| poster.post(Message::Stop).unwrap());
        while !self.worker.is_finished() {
            self.worker.turn().unwrap();
            for stream in std::mem::take(&mut *self.door.lock().unwrap()) {
                let stream = std::net::TcpStream::from(OwnedFd::from(stream));
                let peer = SocketAddr::from(([127, 0, 0, 1], 1));
                self.worker.welcome(TcpStream::from_std(stream), peer);
            }
            let clients = self.worker.connections.len();
            if self.clients.last().is_none_or(|(_, before)| *before != clients) {
                self.clients.push((self.sim.elapsed(), clients));
            }
        }
    }

    /// When the last client was let go.
    fn empty_since(&self) -> Duration {
        let (since, clients) = *self.clients.last().unwrap();
        assert_eq!(clients, 0, "{:?}", self.clients);
        since
    }

    /// Nothing is left of anybody.
    fn assert_clean(&mut self) {
        let worker = &self.worker;
        assert!(worker.connections.is_empty());
        assert_eq!(worker.idle.longest(), None);
        assert_eq!(worker.queue[worker.aio].in_flight(), 0, "an operation goes on for nobody");
        assert!(worker.queue[worker.readiness].is_empty(), "a registration was left behind");
        // The time of grace has one.
        assert!(worker.queue[worker.timers].len() <= 1, "a timer was left behind");
    }
}

/// A client, at the far end.
#[derive(Clone)]
struct Client {
    sim: Sim,
    end: Arc<Mutex<Far>>,
}

struct Far {
    socket: Option<UnixStream>,
    received: Vec<u8>,
    /// When the server's end was seen.
    ended: Option<Duration>,
    /// The client went away without a word.
    reset: bool,
}

impl Client {
    fn lock(&self) -> MutexGuard<'_, Far> {
        self.end.lock().unwrap()
    }

    fn send(&self, at: Duration, bytes: impl Into<Vec<u8>>) {
        let (client, bytes) = (self.clone(), bytes.into());
        self.sim.at(at, move |_| {
            if let Some(socket) = &mut client.lock().socket {
                // An error says that the server has closed.
                let _ = socket.write(&bytes);
            }
        });
    }

    fn finish(&self, at: Duration) {
        let client = self.clone();
        self.sim.at(at, move |_| {
            if let Some(socket) = &client.lock().socket {
                let _ = socket.shutdown(Shutdown::Write);
            }
        });
    }

    fn reset(&self, at: Duration) {
        let client = self.clone();
        self.sim.at(at, move |_| {
            let mut far = client.lock();
            far.socket = None;
            far.reset = true;
        });
    }

    /// Reads up to `limit` bytes every `period`, until the end.
    fn read_every(&self, period: Duration, limit: usize) {
        let client = self.clone();
        self.sim.every(period, move |sim| {
            let mut far = client.lock();
            far.read(limit, sim.elapsed());
            if far.ended.is_some() || far.reset {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    /// What it has received, after reading what there is.
    fn received(&self) -> Vec<u8> {
        let mut far = self.lock();
        far.read(usize::MAX, self.sim.elapsed());
        far.received.clone()
    }
}

impl Far {
    fn read(&mut self, limit: usize, now: Duration) {
        let Some(socket) = &mut self.socket else { return };
        let mut buffer = vec![0; 64 << 10];
        let mut left = limit;
        while left > 0 && self.ended.is_none() {
            let room = left.min(buffer.len());
            match socket.read(&mut buffer[..room]) {
                Ok(0) => self.ended = Some(now),
                Ok(n) => {
                    self.received.extend_from_slice(&buffer[..n]);
                    left -= n;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A pair's way of saying that something of ours was left unread.
                Err(_) => self.ended = Some(now),
            }
        }
    }
}

/// What is asked for, and what the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Small,
    Big,
    Nothing,
    Head,
    Last,
    Bad,
}

const ASKS: [Ask; 6] = [Ask::Small, Ask::Big, Ask::Nothing, Ask::Head, Ask::Last, Ask::Bad];

impl Ask {
    fn request(self) -> &'static str {
        match self {
            Ask::Small => "GET /small HTTP/1.1\r\nHost: h\r\n\r\n",
            Ask::Big => "GET /big HTTP/1.1\r\nHost: h\r\n\r\n",
            Ask::Nothing => "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n",
            Ask::Head => "HEAD /big HTTP/1.1\r\nHost: h\r\n\r\n",
            Ask::Last => "GET /small HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            Ask::Bad => "what?\r\n\r\n",
        }
    }

    fn status(self) -> u16 {
        match self {
            Ask::Small | Ask::Big | Ask::Head | Ask::Last => 200,
            Ask::Nothing => 404,
            Ask::Bad => 400,
        }
    }

    /// Whether nothing is answered behind it.
    fn ends(self) -> bool {
        matches!(self, Ask::Last | Ask::Bad)
    }
}

/// How far the answers are that somebody received.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    whole: Vec<u16>,
    /// Behind them, part of one more.
    torn: bool,
}

/// Reads answers. What was asked for tells what has a body; what it has to be is checked.
fn answers(asked: &[Ask], mut received: &[u8], big: &[u8]) -> Answers {
    let mut whole = Vec::new();
    let mut asked = asked.iter();
    while !received.is_empty() {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Answers { whole, torn: true };
        };
        let head = std::str::from_utf8(&received[..end]).unwrap();
        received = &received[end + 4..];
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let ask = asked.next();
        let length = if ask == Some(&Ask::Head) { 0 } else { length };
        let body = &received[..length.min(received.len())];
        let expected = match (ask, status) {
            (Some(Ask::Small | Ask::Last), 200) => SMALL,
            (Some(Ask::Big), 200) => big,
            _ => body,
        };
        assert!(expected.starts_with(body), "a body of something else: {head}");
        if body.len() < length {
            return Answers { whole, torn: true };
        }
        received = &received[length..];
        whole.push(status);
    }
    Answers { whole, torn: false }
}

#[test]
fn client_that_dawdles_with_its_header_is_told_so_in_time() {
    let folder = folder();
    let mut house = House::new(1, folder.path(), Disk::Honest);
    let client = house.client(s(0));
    // A byte each second, from the 30th on.
    for (n, byte) in (30..).zip(Ask::Small.request().bytes()) {
        client.send(s(n), [byte]);
    }
    client.read_every(s(1), 1 << 20);
    house.run(s(200));
    let received = String::from_utf8(client.received()).unwrap();
    assert!(received.starts_with("HTTP/1.1 408 "), "{received}");
    let told = s(30) + HEADER;
    let ended = client.lock().ended.unwrap();
    assert!((told..=told + s(1)).contains(&ended), "{ended:?}");
    assert_eq!(house.empty_since(), told + LINGER, "it keeps talking, and is left");
    house.assert_clean();
}

#[test]
fn client_that_keeps_the_connection_and_says_nothing_is_let_go_in_time() {
    let folder = folder();
    for asks in [0, 1, 3] {
        let mut house = House::new(1, folder.path(), Disk::Honest);
        let client = house.client(s(0));
        (0..asks).for_each(|n| client.send(s(20 * (n + 1)), Ask::Small.request()));
        client.read_every(s(1), 1 << 20);
        house.run(s(1000));
        assert_eq!(house.empty_since(), s(20 * asks) + IDLE);
        let asked = vec![Ask::Small; asks as usize];
        let expected = Answers { whole: vec![200; asks as usize], torn: false };
        assert_eq!(answers(&asked, &client.received(), &[]), expected);
        house.assert_clean();
    }
}

#[test]
fn client_that_reads_slowly_gets_all_and_one_that_does_not_is_let_go() {
    let folder = folder();
    let mut house = House::new(1, folder.path(), Disk::Honest);
    let (slow, deaf) = (house.client(s(0)), house.client(s(0)));
    slow.send(s(1), Ask::Big.request());
    deaf.send(s(1), Ask::Big.request());
    // All that the socket holds: it takes no more before it is nearly empty.
    slow.read_every(s(50), 1 << 20);
    house.run(s(10_000));
    let expected = Answers { whole: vec![200], torn: false };
    assert_eq!(answers(&[Ask::Big], &slow.received(), &big()), expected);
    let expected = Answers { whole: vec![], torn: true };
    assert_eq!(answers(&[Ask::Big], &deaf.received(), &big()), expected);
    // It has a minute, and one more for what the socket took in the first.
    let expected = [(s(0), 2), (2 * IDLE, 1)];
    assert!(house.clients.iter().filter(|(_, n)| *n > 0).skip(1).eq(&expected));
    assert!(house.empty_since() > s(50 * 3), "{:?}", house.clients);
    house.assert_clean();
}

#[test]
fn pipelined_requests_are_answered_in_their_order_also_after_the_client_finished() {
    let folder = folder();
    for seed in 0..20 {
        let mut house = House::new(seed, folder.path(), Disk::Honest);
        let client = house.client(s(0));
        let mut dice = house.sim.dice();
        let open = &ASKS[..4];
        let asked: Vec<Ask> = (0..40).map(|_| *dice.pick(open).unwrap()).collect();
        let requests: String = asked.iter().map(|ask| ask.request()).collect();
        client.send(s(1), requests);
        client.finish(s(1) + Duration::from_nanos(1 + dice.below(2)));
        client.read_every(Duration::from_millis(10), 1 << 20);
        house.run(s(1000));
        let expected =
            Answers { whole: asked.iter().map(|ask| ask.status()).collect(), torn: false };
        assert_eq!(answers(&asked, &client.received(), &big()), expected, "seed {seed}");
        assert!(house.empty_since() < s(3), "nobody waits for more: {:?}", house.clients);
        house.assert_clean();
    }
}

#[test]
fn stop_lets_a_response_finish_and_does_not_wait_for_ever() {
    let folder = folder();
    let mut house = House::new(1, folder.path(), Disk::Honest);
    let [idle, brisk, deaf] = [(); 3].map(|()| house.client(s(0)));
    brisk.send(s(1), Ask::Big.request());
    deaf.send(s(1), Ask::Big.request());
    brisk.read_every(Duration::from_millis(700), 1 << 20);
    house.run(s(2));
    let expected = Answers { whole: vec![200], torn: false };
    assert_eq!(answers(&[Ask::Big], &brisk.received(), &big()), expected);
    assert!(idle.received().is_empty());
    assert_eq!(house.empty_since(), s(12), "the deaf one has the time of grace");
    assert!(house.clients.contains(&(s(2), 2)), "the idle one goes at once: {:?}", house.clients);
}

/// What became of one random run.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    clients: Vec<(Duration, usize)>,
    received: Vec<Vec<u8>>,
    /// How many got all that they asked for.
    content: usize,
}

/// Some clients who do as chance has it.
fn any_run(seed: u64, root: &Path, big: &[u8]) -> Outcome {
    let disk = if seed % 2 == 0 { Disk::Honest } else { Disk::Lying };
    let mut house = House::new(seed, root, disk);
    let mut dice = house.sim.dice();
    let mut last = Duration::ZERO;
    let mut crowd = Vec::new();
    for _ in 0..1 + dice.below(5) {
        let client = house.client(Duration::from_millis(dice.below(20_000)));
        let asked: Vec<Ask> = (0..1 + dice.below(4)).map(|_| *dice.pick(&ASKS).unwrap()).collect();
        let acted = act(&client, &asked, &mut dice);
        last = last.max(acted);
        crowd.push((client, asked));
    }
    // Whatever a client does, the server is rid of it a while after; or ten seconds after it was told to
    // stop, which in some runs is in the midst of it.
    let (stop, rid) = match dice.below(4) {
        0 => {
            let stop = Duration::from_millis(dice.below(60_000));
            (stop, stop.max(s(20)) + s(10))
        }
        _ => (last + s(10_000), last + s(9_000)),
    };
    house.run(stop);
    assert!(house.empty_since() <= rid, "seed {seed}: {:?}", house.clients);
    house.assert_clean();
    let mut content = 0;
    let received = crowd.iter().map(|(client, asked)| {
        let received = client.received();
        let answers = answers(asked, &received, big);
        let end = asked.iter().position(|ask| ask.ends()).map_or(asked.len(), |end| end + 1);
        let expected: Vec<u16> = asked[..end].iter().map(|ask| ask.status()).collect();
        content += usize::from(answers.whole == expected);
        for (n, status) in answers.whole.iter().enumerate() {
            let right = expected.get(n) == Some(status);
            let excused = *status == 408 || disk == Disk::Lying && *status >= 500;
            assert!(right || excused, "seed {seed}: {status} as number {n} of {asked:?}");
        }
        received
    });
    let received = received.collect();
    Outcome { clients: house.clients, received, content }
}

/// Has a client ask in pieces, read as it likes, and leave in some way. Says when it is done but for
/// reading.
fn act(client: &Client, asked: &[Ask], dice: &mut Dice) -> Duration {
    let requests: String = asked.iter().map(|ask| ask.request()).collect();
    let mut requests = requests.as_bytes();
    let mut now = s(20);
    while !requests.is_empty() {
        let most = if dice.flip() { 8 } else { 400 };
        let (piece, rest) = requests.split_at(requests.len().min(1 + dice.below(most) as usize));
        client.send(now, piece);
        requests = rest;
        let pause = if dice.below(30) == 0 { 70_000 } else { 300 };
        now += Duration::from_millis(1 + dice.below(pause));
    }
    match dice.below(4) {
        0 => {}
        1 | 2 => client.finish(now + Duration::from_millis(dice.below(3000))),
        _ => client.reset(s(19) + Duration::from_millis(dice.below(10_000))),
    }
    if dice.below(8) > 0 {
        let period = Duration::from_millis(1 + dice.below(3000));
        client.read_every(period, 20_000 + dice.below(2 << 20) as usize);
    }
    now
}

/// The seeds of the random runs: `KEVENT_SIM_SEEDS=17..18` has one run again, and other ranges have more.
fn seeds() -> Range<u64> {
    let Ok(range) = std::env::var("KEVENT_SIM_SEEDS") else { return 0..400 };
    let ends = range.split_once("..").map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    let (begin, end) = ends.expect("KEVENT_SIM_SEEDS is a range, such as 0..400");
    begin..end
}

#[test]
fn whatever_clients_do_they_are_answered_rightly_and_let_go() {
    let (folder, big) = (folder(), big());
    let begun = Instant::now();
    let (mut content, mut clients) = (0, 0);
    for seed in seeds() {
        let outcome = any_run(seed, folder.path(), &big);
        content += outcome.content;
        clients += outcome.received.len();
    }
    assert!(3 * content > clients, "{content} of {clients} got all that they asked for");
    println!("{content} of {clients} clients content, {:?}", begun.elapsed());
}

#[test]
fn same_seed_is_the_same_run() {
    let (folder, big) = (folder(), big());
    for seed in 0..40 {
        // The first finds the folder as it was left by whoever was here before.
        any_run(seed, folder.path(), &big);
        let outcome = any_run(seed, folder.path(), &big);
        assert!(any_run(seed, folder.path(), &big) == outcome, "seed {seed}");
    }
}
