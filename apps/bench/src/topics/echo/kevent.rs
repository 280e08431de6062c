//! kevent: one queue, and a source of readiness or one that receives.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::num::NonZero;
use std::sync::Arc;

use kevent_core::{Queue, Token};
use kevent_net::{Interest, Mode, Readiness, ReadyEvent, ReceiveEvent, Received, Receiver, socket};
use mio::net::TcpStream;

use crate::group::Result;

/// The key of the listener; those of connections count from zero.
const LISTENER: u64 = u64::MAX;

pub(super) fn serve(listener: TcpListener) -> Result<()> {
    let listener = mio::net::TcpListener::from_std(listener);
    let mut queue: Queue<ReadyEvent> = Queue::new()?;
    let readiness = queue.attach(Readiness::new(), |event| event)?;
    queue[readiness].register(&listener, Interest::READABLE, Mode::Level, LISTENER)?;
    let mut clients: slab::Slab<(TcpStream, Token)> = slab::Slab::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            if event.key == LISTENER {
                while let Some((stream, _)) = socket::accept(&listener)? {
                    let slot = clients.vacant_entry();
                    let key = slot.key() as u64;
                    let sockets = &mut queue[readiness];
                    let token = sockets.register(&stream, Interest::READABLE, Mode::Level, key)?;
                    slot.insert((stream, token));
                }
                continue;
            }
            let (stream, token) = &mut clients[event.key as usize];
            if !echo(stream, &mut buffer) {
                queue[readiness].unregister(*token);
                clients.remove(event.key as usize);
            }
        }
    }
}

/// Sends back what came in. Says whether the connection goes on; one that does not take all at once,
/// does not.
fn echo(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    match stream.read(buffer) {
        Ok(0) => false,
        Ok(count) => matches!(stream.write(&buffer[..count]), Ok(sent) if sent == count),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// The same on io_uring: what came in comes with the event.
pub(super) fn serve_by_ring(listener: TcpListener) -> Result<()> {
    let listener = mio::net::TcpListener::from_std(listener);
    let mut queue = Queue::new()?;
    let readiness = queue.attach(Readiness::new(), |_| Event::Accept)?;
    queue[readiness].register(&listener, Interest::READABLE, Mode::Level, LISTENER)?;
    let receiver = Receiver::for_one_thread(BUFFERS, BUFFER_SIZE)?;
    let receiver = queue.attach(receiver, Event::Received)?;
    let mut clients: slab::Slab<(Arc<TcpStream>, Token)> = slab::Slab::new();
    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            let ReceiveEvent { key, received, .. } = match event {
                Event::Received(event) => event,
                Event::Accept => {
                    while let Some((stream, _)) = socket::accept(&listener)? {
                        let stream = Arc::new(stream);
                        let slot = clients.vacant_entry();
                        let token = queue[receiver].register(&stream, slot.key() as u64)?;
                        slot.insert((stream, token));
                    }
                    continue;
                }
            };
            let (stream, token) = &clients[key as usize];
            let goes_on = match received {
                Received::Data(data) => {
                    matches!((&**stream).write(&data), Ok(sent) if sent == data.len())
                }
                _ => false,
            };
            if !goes_on {
                queue[receiver].unregister(*token);
                clients.remove(key as usize);
            }
        }
    }
}

enum Event {
    Accept,
    Received(ReceiveEvent),
}

/// As many as there are messages under way, each as large as a message.
const BUFFERS: NonZero<usize> = NonZero::new(16_384).unwrap();
const BUFFER_SIZE: NonZero<usize> = NonZero::new(64).unwrap();
