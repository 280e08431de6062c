//! Files to sockets.

use std::fs::File;
use std::net::TcpStream;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::{Chain, Choice, Completion, Fd, Header, Open, Sendfile, Span};
use kevent_core::{Queue, UserEvents};

use super::super::files::Item;
use super::super::probe::Probe;
use super::super::work::{PathSender, Sender, Stream, Streams};
use super::{Done, Engine, aio};
use crate::group::Result;

/// A socket as the engine wants it.
fn shared(socket: TcpStream) -> Result<Fd> {
    socket.set_nonblocking(true)?;
    Ok(Arc::new(socket))
}

/// Whether so much was sent.
fn check(sent: u64, length: u64) -> Result<()> {
    if sent == length {
        return Ok(());
    }
    Err(format!("{sent} of {length} bytes were sent").into())
}

/// One transfer after another, each begun so that it may be done at once.
pub(in super::super) struct Sends {
    engine: Engine,
    socket: Fd,
    file: Fd,
}

/// The same, each through the queue.
pub(in super::super) struct QueuedSends(Sends);

impl Sender for QueuedSends {
    fn open(socket: TcpStream, file: File) -> Result<Self> {
        Ok(QueuedSends(Sends::open(socket, file)?))
    }

    fn send(&mut self, at: u64, length: u64) -> Result<()> {
        let Sends { engine, socket, file } = &mut self.0;
        engine.submit(Sendfile::new(Arc::clone(socket), Arc::clone(file), at, length), 0)?;
        check(engine.next()?.count, length)
    }
}

impl Sender for Sends {
    fn open(socket: TcpStream, file: File) -> Result<Self> {
        let engine = Engine::new(Choice::Auto)?;
        Ok(Sends { engine, socket: shared(socket)?, file: Arc::new(file) })
    }

    fn send(&mut self, at: u64, length: u64) -> Result<()> {
        let (socket, file) = (Arc::clone(&self.socket), Arc::clone(&self.file));
        self.engine.start(Sendfile::new(socket, file, at, length), 0)?;
        check(self.engine.next()?.count, length)
    }
}

/// A chain for each file, submitted together: they keep their order, since the socket is the same.
pub(in super::super) struct Paths {
    engine: Engine,
    socket: Fd,
}

impl PathSender for Paths {
    fn open(socket: TcpStream) -> Result<Self> {
        Ok(Paths { engine: Engine::new(Choice::Auto)?, socket: shared(socket)? })
    }

    fn send(&mut self, items: &[Item]) -> Result<()> {
        for (key, item) in items.iter().enumerate() {
            let mut chain = Chain::new();
            let file = chain.open(Open::new(&item.path));
            let span = Span::range(0..item.length as u64);
            chain.sendfile(Arc::clone(&self.socket), file, span, Header::none());
            chain.close(file);
            self.engine.submit(chain, key)?;
        }
        for _ in items {
            let Done { key, count, .. } = self.engine.next()?;
            let item = items.get(key).ok_or("nobody has asked for that")?;
            check(count, item.length as u64)?;
        }
        Ok(())
    }
}

/// Many transfers at a time, in a queue that has other events, too.
pub(in super::super) struct AllStreams;

enum Event {
    Sent(Completion),
    Post(Instant),
}

/// Posts that may wait: a minute's.
const POSTS: NonZero<usize> = NonZero::new(1 << 18).unwrap();

impl Streams for AllStreams {
    fn send(streams: Vec<Stream>, probe: &Probe) -> Result<Vec<Duration>> {
        let mut queue = Queue::new()?;
        let aio = queue.attach(aio(Choice::Auto)?, Event::Sent)?;
        let (users, poster) = UserEvents::with_capacity(POSTS);
        queue.attach(users, Event::Post)?;
        let _probing = probe.start(move |now| {
            let _ = poster.post(now);
        });
        let lengths: Vec<_> = streams.iter().map(|stream| stream.length).collect();
        for (key, Stream { socket, file, at, length }) in streams.into_iter().enumerate() {
            let send = Sendfile::new(shared(socket)?, Arc::new(file), at, length);
            queue[aio].submit(send, key as u64).map_err(|refused| refused.error)?;
        }
        let (mut waits, mut left) = (Vec::new(), lengths.len());
        while left > 0 {
            queue.wait(None)?;
            // All that are there, also after the last transfer: those posts have waited until now.
            while let Some(event) = queue.next() {
                match event {
                    Event::Post(post) => waits.push(post.elapsed()),
                    Event::Sent(sent) => {
                        let length = lengths.get(sent.key as usize).ok_or("nobody's")?;
                        check(sent.result?, *length)?;
                        left -= 1;
                    }
                }
            }
        }
        Ok(waits)
    }
}
