//! kevent: one queue, one source of readiness.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

use kevent_core::{Queue, Token};
use kevent_net::{Interest, Mode, Readiness, ReadyEvent, socket};
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
