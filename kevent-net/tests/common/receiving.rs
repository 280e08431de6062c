//! A queue with a receiver, and pairs of sockets.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;

use kevent_core::{Queue, SourceId, Token, Wait};
use kevent_net::{Buffer, ReceiveEvent, Received, Receiver};

use super::{PATIENCE, sys, tcp_pair};

/// A receiver for any thread, unless there can be none here.
pub fn receiver(buffers: usize, size: usize) -> Option<Receiver> {
    unless_unsupported(Receiver::with_buffers(number(buffers), number(size)))
}

/// A receiver for the thread that waits first, unless there can be none here.
pub fn for_one_thread(buffers: usize, size: usize) -> Option<Receiver> {
    unless_unsupported(Receiver::for_one_thread(number(buffers), number(size)))
}

fn number(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

thread_local! {
    /// Whether the test, which is a thread, has said that it is skipped.
    static SAID: Cell<bool> = const { Cell::new(false) };
}

fn unless_unsupported(receiver: std::io::Result<Receiver>) -> Option<Receiver> {
    match receiver {
        Ok(receiver) => Some(receiver),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            if !SAID.replace(true) {
                println!("skipped: {error}");
            }
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A queue whose only source is a receiver.
pub struct Bench {
    pub queue: Queue<ReceiveEvent>,
    pub id: SourceId<Receiver>,
}

impl Bench {
    pub fn new() -> Option<Bench> {
        Bench::with(64, 64, 4096)
    }

    pub fn with(ring: usize, buffers: usize, size: usize) -> Option<Bench> {
        Bench::of(ring, receiver(buffers, size))
    }

    pub fn of(ring: usize, receiver: Option<Receiver>) -> Option<Bench> {
        let mut queue = Queue::with_capacity(number(ring)).unwrap();
        let id = queue.attach(receiver?, |event| event).unwrap();
        Some(Bench { queue, id })
    }

    pub fn source(&mut self) -> &mut Receiver {
        &mut self.queue[self.id]
    }

    pub fn register(&mut self, socket: &Arc<impl AsFd + Send + Sync + 'static>, key: u64) -> Token {
        self.source().register(socket, key).unwrap()
    }

    /// The next event, which has to come.
    pub fn event(&mut self) -> ReceiveEvent {
        loop {
            if let Some(event) = self.queue.next() {
                return event;
            }
            assert!(self.queue.wait(PATIENCE).unwrap() > 0, "an event in time");
        }
    }

    /// What the next event carries.
    pub fn buffer(&mut self) -> Buffer {
        match self.event().received {
            Received::Data(data) => data,
            other => panic!("{other:?} in the place of data"),
        }
    }

    /// A copy of it.
    pub fn data(&mut self) -> Vec<u8> {
        self.buffer().to_vec()
    }

    /// Exactly that many bytes, in whatever pieces they come.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(self.data());
        }
        assert_eq!(bytes.len(), count);
        bytes
    }

    /// Nothing comes, and the wait for it sleeps instead of looking again and again.
    pub fn sleeps(&mut self) {
        let before = self.queue.stats().polls;
        self.queue.wait(Wait::timeout(std::time::Duration::from_millis(20))).unwrap();
        assert!(self.queue.next().is_none());
        let looks = self.queue.stats().polls - before;
        assert!(looks < 10, "the wait looked {looks} times");
    }
}

/// Two connected sockets of a kind: of which one is received from, and what is written to the other.
pub struct Pair {
    pub kind: &'static str,
    pub here: Arc<OwnedFd>,
    pub there: std::fs::File,
}

impl Pair {
    fn of(kind: &'static str, here: impl Into<OwnedFd>, there: impl Into<OwnedFd>) -> Pair {
        Pair { kind, here: Arc::new(here.into()), there: there.into().into() }
    }
}

pub fn streams() -> [Pair; 3] {
    let (a, b) = UnixStream::pair().unwrap();
    let (c, d) = tcp_pair();
    let (e, f) = sys::pipe();
    [Pair::of("Unix stream", a, b), Pair::of("TCP", c, d), Pair::of("pipe", e, f)]
}

pub fn datagrams() -> [Pair; 2] {
    let (a, b) = UnixDatagram::pair().unwrap();
    let c = UdpSocket::bind("127.0.0.1:0").unwrap();
    let d = UdpSocket::bind("127.0.0.1:0").unwrap();
    d.connect(c.local_addr().unwrap()).unwrap();
    [Pair::of("Unix datagram", a, b), Pair::of("UDP", c, d)]
}

pub fn all() -> Vec<Pair> {
    streams().into_iter().chain(datagrams()).collect()
}

/// Each pair with a bench of its own, for both kinds of receivers: what the ring holds, how many
/// buffers, and their size.
pub fn each<P: IntoIterator<Item = Pair>>(
    (ring, buffers, size): (usize, usize, usize),
    pairs: fn() -> P,
) -> impl Iterator<Item = (Bench, Pair)> {
    let kinds: [fn(usize, usize) -> Option<Receiver>; 2] = [receiver, for_one_thread];
    let pairs = kinds.into_iter().flat_map(move |make| pairs().into_iter().map(move |p| (make, p)));
    pairs.filter_map(move |(make, pair)| Some((Bench::of(ring, make(buffers, size))?, pair)))
}
