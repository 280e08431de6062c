//! The peers. A connection that does not take 64 bytes at once is closed: it does not happen here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::event::epoll;
use slab::Slab;

use crate::group::Result;
use crate::sys;

/// The key of the listener; those of connections count from zero.
const LISTENER: usize = usize::MAX;

/// What one read takes.
const BUFFER: usize = 16 * 1024;

/// Sends back what came in, and says whether the connection goes on.
fn echo(stream: &mut (impl Read + Write), buffer: &mut [u8; BUFFER]) -> bool {
    match stream.read(buffer) {
        Ok(0) => false,
        Ok(count) => matches!(stream.write(&buffer[..count]), Ok(sent) if sent == count),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

pub(super) fn epoll(listener: TcpListener) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let add = |fd: &dyn std::os::fd::AsFd, key: usize| {
        epoll::add(&epoll, fd, epoll::EventData::new_u64(key as u64), epoll::EventFlags::IN)
    };
    add(&listener, LISTENER)?;
    let mut clients = Slab::new();
    let mut buffer = [0; BUFFER];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let key = event.data.u64() as usize;
            if key == LISTENER {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                let slot = clients.vacant_entry();
                add(&stream, slot.key())?;
                slot.insert(stream);
            } else if !echo(&mut clients[key], &mut buffer) {
                clients.remove(key);
            }
        }
    }
}

/// Multishot accept, multishot receive into a pool of buffers, and a send for each message.
pub(super) fn io_uring(listener: TcpListener) -> Result<()> {
    // What a completion is of: 32 bits name the connection, 16 the buffer that is sent.
    const SENT: u64 = 1 << 48;
    const CLOSED: u64 = 1 << 49;
    let mut ring = sys::Uring::new(16_384)?;
    ring.accept_multishot(listener.as_raw_fd(), LISTENER as u64)?;
    loop {
        ring.wait(1)?;
        while let Some(done) = ring.next() {
            if done.key == LISTENER as u64 {
                // A ring gives numbers of descriptors; nobody else closes them.
                ring.receive_multishot(done.result, u64::from(done.result.unsigned_abs()))?;
            } else if done.key & SENT != 0 {
                ring.give_back((done.key >> 32) as u16);
            } else if done.key != CLOSED {
                let fd = done.key as i32;
                match (done.buffer, done.result) {
                    (Some(buffer), count @ 1..) => {
                        let sent = SENT | u64::from(buffer) << 32 | done.key;
                        ring.send(fd, buffer, count.unsigned_abs(), sent)?;
                        if !done.more {
                            ring.receive_multishot(fd, done.key)?;
                        }
                    }
                    // The buffers are all in use: some come back in this turn.
                    (None, count) if count == -libc::ENOBUFS => {
                        ring.receive_multishot(fd, done.key)?;
                    }
                    _ => ring.close(fd, CLOSED)?,
                }
            }
        }
    }
}

pub(super) fn mio(listener: TcpListener) -> Result<()> {
    use mio::{Events, Interest, Poll, Token};
    let mut poll = Poll::new()?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    poll.registry().register(&mut listener, Token(LISTENER), Interest::READABLE)?;
    let mut clients = Slab::new();
    let mut buffer = [0; BUFFER];
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let key = event.token().0;
            if key == LISTENER {
                while let Some((mut stream, _)) = nonblocking(listener.accept())? {
                    let slot = clients.vacant_entry();
                    let token = Token(slot.key());
                    poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    slot.insert(stream);
                }
            } else if !echo(&mut clients[key], &mut buffer) {
                clients.remove(key);
            }
        }
    }
}

fn nonblocking<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn polling(listener: TcpListener) -> Result<()> {
    let poller = polling::Poller::new()?;
    sys::add_level(&poller, &listener, LISTENER - 1)?;
    let mut clients = Slab::new();
    let mut buffer = [0; BUFFER];
    let mut events = polling::Events::new();
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            if event.key == LISTENER - 1 {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                let slot = clients.vacant_entry();
                sys::add_level(&poller, &stream, slot.key())?;
                slot.insert(stream);
            } else if !echo(&mut clients[event.key], &mut buffer) {
                let stream = clients.remove(event.key);
                poller.delete(&stream)?;
            }
        }
    }
}

pub(super) fn calloop(listener: TcpListener) -> Result<()> {
    use calloop::generic::{Generic, NoIoDrop};
    use calloop::{EventLoop, Interest, Mode, PostAction};
    type Buffer = [u8; BUFFER];
    let mut event_loop = EventLoop::try_new()?;
    let handle = event_loop.handle();
    let accept = move |_, listener: &mut NoIoDrop<TcpListener>, _: &mut Buffer| {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let answer = |_, stream: &mut NoIoDrop<std::net::TcpStream>, buffer: &mut Buffer| {
            let goes_on = echo(&mut &**stream, buffer);
            Ok(if goes_on { PostAction::Continue } else { PostAction::Remove })
        };
        let source = Generic::new(stream, Interest::READ, Mode::Level);
        handle.insert_source(source, answer).map_err(io::Error::other)?;
        Ok(PostAction::Continue)
    };
    let source = Generic::new(listener, Interest::READ, Mode::Level);
    event_loop.handle().insert_source(source, accept).map_err(|error| error.to_string())?;
    let mut buffer = [0; BUFFER];
    loop {
        event_loop.dispatch(None::<Duration>, &mut buffer)?;
    }
}

/// A task for each connection, with a buffer of its own, as its documentation shows.
pub(super) fn tokio(listener: TcpListener) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut buffer = vec![0; TASK_BUFFER];
                loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        return io::Result::Ok(());
                    }
                    stream.write_all(&buffer[..count]).await?;
                }
            });
        }
    })
}

/// What the read of a task takes: a task needs a buffer of its own.
const TASK_BUFFER: usize = 1024;

pub(super) fn compio(listener: TcpListener) -> Result<()> {
    use compio::io::{AsyncRead, AsyncWriteExt};
    compio::runtime::Runtime::new()?.block_on(async {
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            let serve = async move {
                let mut buffer = Vec::with_capacity(TASK_BUFFER);
                loop {
                    let compio::BufResult(count, filled) = stream.read(buffer).await;
                    if count? == 0 {
                        return io::Result::Ok(());
                    }
                    let compio::BufResult(sent, filled) = stream.write_all(filled).await;
                    sent?;
                    buffer = filled;
                    buffer.clear();
                }
            };
            compio::runtime::spawn(serve).detach();
        }
    })
}

pub(super) fn monoio(listener: TcpListener) -> Result<()> {
    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?;
    runtime.block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            monoio::spawn(async move {
                let mut buffer = Vec::with_capacity(TASK_BUFFER);
                loop {
                    let (count, filled) = stream.read(buffer).await;
                    if count? == 0 {
                        return io::Result::Ok(());
                    }
                    let (sent, filled) = stream.write_all(filled).await;
                    sent?;
                    buffer = filled;
                    buffer.clear();
                }
            });
        }
    })
}
