//! Nothing vanishes and nothing leaks, whoever ends an operation at whichever point: connections,
//! descriptors, buffers, bytes. A process of its own, and one test at a time, since it counts all
//! descriptors.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{self, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZero;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::counted::{alone, becomes, open_descriptors};
use common::{Bench, PATIENCE, honest};
use kevent_aio::{
    Accept, AcceptMany, Buffers, Builder, Chain, Close, Completion, Connect, Fallocate, Fd,
    Fdatasync, Fsync, Op, Open, Payload, Read, ReadVectored, Recv, RecvFrom, RecvMany, Send,
    SendTo, Sendfile, Shutdown, Statx, Write, WriteVectored,
};
use kevent_core::testing::Dice;
use kevent_core::{Queue, Token, Wait};

/// How many accepts are cancelled, and how many clients connect meanwhile.
const MANY: usize = 3000;

/// Accepts that are in flight together.
const TOGETHER: usize = 64;

/// Accepts and cancels by chance until all clients were served, and says who was.
fn serve(bench: &mut Bench, listener: &Fd, dice: &mut Dice) -> BTreeMap<u32, usize> {
    let deadline = Instant::now() + PATIENCE;
    let mut served = BTreeMap::new();
    let mut tokens = Vec::new();
    let (mut cancels, mut cancelled, mut submitted, mut completed) = (0, 0, 0, 0);
    while cancels < MANY || served.len() < MANY {
        assert!(Instant::now() < deadline, "{} served, {cancels} cancelled", served.len());
        while bench.aio().in_flight() < TOGETHER {
            tokens.push(bench.submit(Accept::new(listener.clone()), submitted));
            submitted += 1;
            // Some are cancelled before the kernel has heard of them.
            if dice.below(8) == 0 {
                bench.turn();
            }
        }
        dice.shuffle(&mut tokens);
        let staying = tokens.len().saturating_sub(dice.below(TOGETHER as u64 / 2) as usize);
        for token in tokens.drain(staying..) {
            bench.aio().cancel(token);
            cancels += 1;
        }
        bench.queue.wait(Duration::from_millis(1)).unwrap();
        while let Some(completion) = bench.queue.next() {
            completed += 1;
            tokens.retain(|token| *token != completion.token);
            cancelled += u64::from(completion.was_cancelled());
            if let Some(name) = name_of_client(completion) {
                *served.entry(name).or_default() += 1;
            }
        }
    }
    for token in tokens {
        bench.aio().cancel(token);
    }
    while bench.aio().in_flight() > 0 {
        completed += 1;
        let completion = bench.next();
        cancelled += u64::from(completion.was_cancelled());
        assert!(name_of_client(completion).is_none(), "one client too many");
    }
    assert_eq!(submitted, completed, "one completion each");
    assert_eq!(served.len() as u64 + cancelled, completed, "each was served or cancelled");
    served
}

/// What the client has written, if the accept has one.
fn name_of_client(completion: Completion) -> Option<u32> {
    let Op::Accept(mut accept) = *completion.op else { panic!("only accepts were submitted") };
    let Some(fd) = accept.take() else {
        let errno = completion.result.unwrap_err().raw_os_error();
        assert_eq!(errno, Some(libc::ECANCELED));
        return None;
    };
    completion.result.unwrap();
    let mut name = [0; 4];
    File::from(fd).read_exact(&mut name).unwrap();
    Some(u32::from_ne_bytes(name))
}

/// Serves clients that `connect`, on each backend, and counts.
fn storm<C: std::io::Write>(listener: &Fd, connect: impl Fn() -> C + Sync) {
    for (seed, (name, builder)) in honest().into_iter().enumerate() {
        let before = open_descriptors();
        let mut bench = Bench::new(builder);
        let served = thread::scope(|scope| {
            scope.spawn(|| {
                for name in 0..MANY as u32 {
                    connect().write_all(&name.to_ne_bytes()).unwrap();
                }
            });
            serve(&mut bench, listener, &mut Dice::new(seed as u64))
        });
        let once = served.into_iter().map(|(client, times)| (client as usize, times));
        assert!(once.eq((0..MANY).map(|client| (client, 1))), "{name}: each once");
        drop(bench);
        becomes(name, before, open_descriptors);
    }
}

#[test]
fn accepts_cancelled_at_random_lose_no_connection() {
    let _alone = alone();
    for nonblocking in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(nonblocking).unwrap();
        // Room for all: a client that finds none tries again a second later.
        rustix::net::listen(&listener, MANY as i32).unwrap();
        let address = listener.local_addr().unwrap();
        storm(&(Arc::new(listener) as Fd), || TcpStream::connect(address).unwrap());
    }
}

#[test]
fn local_accepts_cancelled_at_random_lose_no_connection() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    storm(&(Arc::new(listener) as Fd), || UnixStream::connect(&path).unwrap());
}

#[test]
fn connection_of_an_abandoned_accept_is_closed() {
    let _alone = alone();
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let token = bench.submit(Accept::new(Arc::new(listener)), 1);
        bench.turn();
        assert!(bench.aio().abandon(token));
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        while bench.aio().in_flight() > 0 {
            bench.queue.wait(Duration::from_millis(1)).unwrap();
        }
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "{name}");
    }
}

/// What an operation holds, each by how often it is still held.
#[derive(Default)]
struct Watch(Vec<Box<dyn Fn() -> usize>>);

impl Watch {
    /// Gives `fd` away.
    fn fd<T: std::os::fd::AsFd + Sync + std::marker::Send + 'static>(&mut self, fd: T) -> Fd {
        let fd = Arc::new(fd);
        let watch = Arc::downgrade(&fd);
        self.0.push(Box::new(move || watch.strong_count()));
        fd
    }

    fn bytes(&mut self, count: usize) -> Payload {
        let bytes: Arc<[u8]> = vec![7; count].into();
        let watch = Arc::downgrade(&bytes);
        self.0.push(Box::new(move || watch.strong_count()));
        bytes.into()
    }

    fn held(&self) -> usize {
        self.0.iter().map(|watch| watch()).sum()
    }
}

/// Has that happen for which an operation waits.
type Release = Box<dyn FnOnce()>;

fn at_once() -> Release {
    Box::new(|| ())
}

fn buffer() -> Vec<u8> {
    Vec::with_capacity(100)
}

/// Operations on files.
fn on_files(dir: &Path, w: &mut Watch) -> Vec<(&'static str, Op)> {
    std::fs::write(dir.join("file"), [7; 10_000]).unwrap();
    let mut file = || {
        let options = File::options().read(true).write(true).open(dir.join("file"));
        w.fd(options.unwrap())
    };
    let mut chain = Chain::new();
    let opened = chain.open(Open::new("file").at(file_of(dir)).read_write());
    let data = chain.read(opened, 0, 5000);
    chain.write(opened, 5000, data);
    chain.fsync(opened);
    chain.close(opened);
    vec![
        ("open", Open::new("file").at(file_of(dir)).into()),
        ("close", Close::new(File::open(dir).unwrap()).into()),
        ("read", Read::new(file(), 0, buffer()).into()),
        ("cold read", Read::new(file(), 0, buffer()).cold().into()),
        ("write", Write::new(file(), 0, buffer()).into()),
        ("vectored read", ReadVectored::new(file(), 0, vec![buffer(), buffer()]).into()),
        ("vectored write", WriteVectored::new(file(), 0, vec![vec![1], vec![2]]).into()),
        ("fsync", Fsync::new(file()).into()),
        ("fdatasync", Fdatasync::new(file()).into()),
        ("statx", Statx::of(file()).into()),
        ("synced statx", Statx::of(file()).sync().into()),
        ("fallocate", Fallocate::new(file(), 0, 100).into()),
        ("chain", chain.into()),
    ]
}

fn file_of(dir: &Path) -> Fd {
    Arc::new(File::open(dir).unwrap())
}

type Case = (&'static str, Op, Release);

/// Operations on sockets that wait for nobody.
fn on_sockets(dir: &Path, w: &mut Watch) -> Vec<Case> {
    let (listener, address) = listener();
    let client = TcpStream::connect(address).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    (&far).write_all(b"here").unwrap();
    let near = Arc::new(near);
    let (one, two) = (udp(), udp());
    let there = two.local_addr().unwrap();
    one.send_to(b"here", there).unwrap();
    let path = dir.join("listener");
    let _ = std::fs::remove_file(&path);
    let local = UnixListener::bind(&path).unwrap();
    let to = UnixAddr::from_pathname(&path).unwrap();
    let free = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    );
    std::fs::write(dir.join("file"), [7; 1000]).unwrap();
    let file = w.fd(File::open(dir.join("file")).unwrap());
    let sendfile = Sendfile::new(near.clone(), file, 0, 1000).header(w.bytes(10));
    vec![
        ("accept", Accept::new(w.fd(listener)).into(), Box::new(|| drop(client))),
        ("connect", Connect::new(w.fd(free.unwrap()), to).into(), Box::new(|| drop(local))),
        ("receive", Recv::new(near.clone(), buffer()).into(), at_once()),
        ("send", Send::new(near.clone(), w.bytes(10)).into(), at_once()),
        ("sendfile", sendfile.into(), at_once()),
        ("shutdown", Shutdown::new(near, net::Shutdown::Both).into(), Box::new(|| drop(far))),
        ("receive from", RecvFrom::new(w.fd(two), buffer()).into(), at_once()),
        ("send to", SendTo::new(w.fd(one), there, w.bytes(10)).into(), at_once()),
    ]
}

/// Operations that wait until they are released.
fn that_wait(_: &Path, w: &mut Watch) -> Vec<Case> {
    let ((one, address), (many, address_of_many)) = (listener(), listener());
    let come = move || drop(TcpStream::connect(address));
    let come_to_many = move || drop(TcpStream::connect(address_of_many));
    let mut stream = || {
        let (near, far) = UnixStream::pair().unwrap();
        let leave: Release = Box::new(move || drop(far));
        (w.fd(near), leave)
    };
    let ends = [(); 5].map(|()| stream());
    let [
        (read, end_read),
        (recv_many, end_recv_many),
        (recv, end_recv),
        (send, end_send),
        (transfer, end_transfer),
    ] = ends;
    let buffers = Buffers::new(NonZero::new(4).unwrap(), NonZero::new(100).unwrap()).unwrap();
    let big = 8 << 20;
    let datagrams = udp();
    let here = datagrams.local_addr().unwrap();
    let write = move || drop(udp().send_to(b"x", here));
    vec![
        ("waiting accept", Accept::new(w.fd(one)).into(), Box::new(come)),
        ("accept of many", AcceptMany::new(w.fd(many)).into(), Box::new(come_to_many)),
        ("waiting read", Read::new(read, 0, buffer()).into(), end_read),
        ("waiting receive", Recv::new(recv, buffer()).all().into(), end_recv),
        ("receive of many", RecvMany::new(recv_many, &buffers).into(), end_recv_many),
        ("waiting receive from", RecvFrom::new(w.fd(datagrams), buffer()).into(), Box::new(write)),
        ("waiting send", Send::new(send, w.bytes(big)).all().into(), end_send),
        ("waiting transfer", Sendfile::bytes(transfer, w.bytes(big)).into(), end_transfer),
    ]
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// How far an operation is.
#[derive(Clone, Copy, Debug)]
enum Point {
    Submitted,
    Flushed,
    /// The completion has no room in the queue.
    Done,
    InQueue,
    Taken,
}

const POINTS: [Point; 5] =
    [Point::Submitted, Point::Flushed, Point::Done, Point::InQueue, Point::Taken];

/// What is dropped.
#[derive(Clone, Copy, Debug)]
enum Dropped {
    Engine,
    Queue,
    /// The token: nobody asks any more.
    Token,
    /// The token, and the operation is to end.
    Cancelled,
}

const DROPPED: [Dropped; 4] = [Dropped::Engine, Dropped::Queue, Dropped::Token, Dropped::Cancelled];

/// An engine in a queue that holds one event, or more than are needed.
fn bench_for(point: Point, builder: Builder) -> Bench {
    let room = if matches!(point, Point::Done) { 1 } else { 100 };
    let mut queue = Queue::with_capacity(room.try_into().unwrap()).unwrap();
    let id = queue.attach(builder.build().unwrap(), |completion| completion).unwrap();
    Bench { queue, id }
}

/// A turn also of a queue that has events.
fn turn(bench: &mut Bench) {
    bench.queue.wait(Wait::timeout(Duration::from_millis(1)).at_least(0)).unwrap();
}

fn steps_done(bench: &mut Bench) -> u64 {
    let counters = bench.aio().report().counters;
    counters.inline + counters.ring + counters.pool
}

/// Brings an operation to `point`; taken, it is given back. `release` is left if it is not needed.
fn bring_to(
    point: Point,
    bench: &mut Bench,
    op: Op,
    release: &mut Option<Release>,
) -> (Token, Option<Completion>) {
    if matches!(point, Point::Done) {
        bench.submit(Statx::of(Arc::new(File::open("/").unwrap())), 0);
        turn(bench);
        assert_eq!(bench.queue.len(), 1, "the queue is not full");
    }
    let before = steps_done(bench);
    let token = bench.submit(op, 1);
    if matches!(point, Point::Submitted) {
        return (token, None);
    }
    turn(bench);
    if matches!(point, Point::Flushed) {
        return (token, None);
    }
    release.take().into_iter().for_each(|release| release());
    let deadline = Instant::now() + PATIENCE;
    let is_there = |bench: &mut Bench| match point {
        Point::Done => steps_done(bench) > before,
        _ => !bench.queue.is_empty(),
    };
    while !is_there(bench) {
        assert!(Instant::now() < deadline, "it does not get to be {point:?}");
        turn(bench);
    }
    (token, matches!(point, Point::Taken).then(|| bench.next()))
}

/// Drops `what`, has that happen for which the operation waits, and takes out all that still comes.
fn drop_and_finish(what: Dropped, bench: Bench, token: Token, release: Option<Release>) {
    let Bench { mut queue, id } = bench;
    let finish = || release.into_iter().for_each(|release| release());
    match what {
        Dropped::Queue => {
            drop(queue);
            finish();
        }
        Dropped::Engine => {
            drop(queue.detach(id));
            finish();
            assert!(queue.next().is_none(), "an event of an engine that is gone");
        }
        Dropped::Token | Dropped::Cancelled => {
            if matches!(what, Dropped::Cancelled) {
                queue[id].cancel(token);
            }
            queue[id].abandon(token);
            finish();
            let deadline = Instant::now() + PATIENCE;
            while queue[id].in_flight() > 0 {
                assert!(Instant::now() < deadline, "it does not end");
                queue.wait(Wait::timeout(Duration::from_millis(1)).at_least(0)).unwrap();
                while let Some(completion) = queue.next() {
                    assert_ne!(completion.token, token, "nobody was to hear of it");
                }
            }
        }
    }
}

/// Drops `what` when the operation that `make` makes is at `point`, and counts what is left: `before` descriptors,
/// from before the first of them, since a thread of the pool may still open and close what the last one was to.
fn nothing_is_left(
    before: usize,
    (name, builder): (&str, Builder),
    point: Point,
    what: Dropped,
    make: impl FnOnce(&mut Watch) -> Case,
) {
    let mut watch = Watch::default();
    let (kind, op, release) = make(&mut watch);
    let mut release = Some(release);
    let mut bench = bench_for(point, builder);
    let (token, taken) = bring_to(point, &mut bench, op, &mut release);
    drop_and_finish(what, bench, token, release);
    let what = format!("{name}, {kind}, {point:?}, {what:?} dropped");
    if let Some(completion) = taken {
        assert_eq!(completion.token, token, "{what}");
        drop(completion);
    }
    becomes(&format!("{what}: held"), 0, || watch.held());
    becomes(&format!("{what}: descriptors"), before, open_descriptors);
}

/// Every point of each operation that `kinds` makes, and everything that can be dropped there.
fn every_point(kinds: impl Fn(&Path, &mut Watch) -> Vec<Case>) {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let count = kinds(dir.path(), &mut Watch::default()).len();
    let before = open_descriptors();
    for kind in 0..count {
        for point in POINTS {
            for what in DROPPED {
                for (name, builder) in honest() {
                    let make = |watch: &mut Watch| kinds(dir.path(), watch).swap_remove(kind);
                    nothing_is_left(before, (name, builder.threads(2)), point, what, make);
                }
            }
        }
    }
}

#[test]
fn every_handle_of_a_file_operation_dropped_at_every_point_leaves_nothing() {
    every_point(|dir, watch| {
        on_files(dir, watch).into_iter().map(|(name, op)| (name, op, at_once())).collect()
    });
}

#[test]
fn every_handle_of_a_socket_operation_dropped_at_every_point_leaves_nothing() {
    every_point(on_sockets);
}

#[test]
fn every_handle_of_what_waits_dropped_at_every_point_leaves_nothing() {
    every_point(that_wait);
}
