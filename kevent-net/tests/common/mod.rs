//! What the tests share: a queue with a readiness source, and channels of every kind.

#![allow(clippy::unwrap_used)] // Helpers of tests.
#![allow(dead_code)] // Each test binary uses its part.
#![allow(unreachable_pub)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kevent_core::{Queue, SourceId, Token, Wait};
use kevent_net::{Interest, Mode, Readiness, ReadyEvent};

pub mod receiving;
pub mod sys;

/// How long an event may take on a busy machine before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A queue whose only source is a readiness source.
pub struct Bench {
    pub queue: Queue<ReadyEvent>,
    pub id: SourceId<Readiness>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_ring(64)
    }

    pub fn with_ring(capacity: usize) -> Bench {
        let mut queue = Queue::with_capacity(NonZeroUsize::new(capacity).unwrap()).unwrap();
        let id = queue.attach(Readiness::new(), |event| event).unwrap();
        Bench { queue, id }
    }

    pub fn source(&mut self) -> &mut Readiness {
        &mut self.queue[self.id]
    }

    /// Registers for reading.
    pub fn reads(&mut self, fd: &impl AsFd, mode: Mode, key: u64) -> Token {
        self.source().register(fd, Interest::READABLE, mode, key).unwrap()
    }

    /// The next event, which has to come.
    pub fn event(&mut self) -> ReadyEvent {
        let event = self.queue.next().or_else(|| {
            self.queue.wait(PATIENCE).unwrap();
            self.queue.next()
        });
        event.expect("an event in time")
    }

    /// Waits until `done` says that the flags told so far, together, are what it waits for.
    pub fn until(&mut self, done: impl Fn(kevent_net::Ready) -> bool) {
        let mut told = kevent_net::Ready::default();
        while !done(told) {
            told |= self.event().ready;
        }
    }

    /// Puts into the ring what is there, and leaves it there.
    pub fn fill_ring(&mut self) -> usize {
        self.queue.wait(Wait::poll().at_least(usize::MAX)).unwrap();
        self.queue.len()
    }

    /// Nothing is there.
    pub fn nothing(&mut self) {
        self.queue.wait(Wait::poll()).unwrap();
        assert_eq!(self.queue.next(), None);
    }

    /// Nothing comes, and the wait for it sleeps instead of looking again and again.
    pub fn sleeps(&mut self) {
        self.sleeps_until(Wait::timeout(Duration::from_millis(20)));
        assert_eq!(self.queue.next(), None);
    }

    pub fn sleeps_until(&mut self, wait: Wait) {
        let before = self.queue.stats().polls;
        self.queue.wait(wait).unwrap();
        let looks = self.queue.stats().polls - before;
        assert!(looks < 10, "the wait looked {looks} times");
    }
}

/// Two ends of something, of which one can be read what was written to the other, eight bytes at a
/// time (an eventfd takes no less).
pub struct Channel {
    pub kind: &'static str,
    pub reader: File,
    pub writer: File,
}

impl Channel {
    fn of(kind: &'static str, reader: impl Into<OwnedFd>, writer: impl Into<OwnedFd>) -> Channel {
        Channel { kind, reader: File::from(reader.into()), writer: File::from(writer.into()) }
    }

    pub fn write(&mut self) {
        self.writer.write_all(&1_u64.to_ne_bytes()).unwrap();
    }

    pub fn read(&mut self) {
        self.reader.read_exact(&mut [0; 8]).unwrap();
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

/// One channel of every kind.
pub fn channels() -> [Channel; 5] {
    [unix(), tcp(), udp(), pipe(), eventfd()]
}

pub fn unix() -> Channel {
    let (reader, writer) = UnixStream::pair().unwrap();
    Channel::of("Unix stream", reader, writer)
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    one.set_nodelay(true).unwrap();
    other.set_nodelay(true).unwrap();
    (one, other)
}

pub fn tcp() -> Channel {
    let (reader, writer) = tcp_pair();
    Channel::of("TCP", reader, writer)
}

pub fn udp() -> Channel {
    let reader = UdpSocket::bind("127.0.0.1:0").unwrap();
    let writer = UdpSocket::bind("127.0.0.1:0").unwrap();
    writer.connect(reader.local_addr().unwrap()).unwrap();
    Channel::of("UDP", reader, writer)
}

pub fn pipe() -> Channel {
    let (reader, writer) = sys::pipe();
    Channel::of("pipe", reader, writer)
}

pub fn eventfd() -> Channel {
    let reader = sys::eventfd();
    let writer = reader.try_clone().unwrap();
    Channel::of("eventfd", reader, writer)
}
