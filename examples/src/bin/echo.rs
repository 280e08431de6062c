//! A TCP echo server: one thread, one queue, any number of clients.
//!
//! ```text
//! cargo run -p kevent-examples --bin echo -- 127.0.0.1:7777
//! nc 127.0.0.1 7777
//! ```
//!
//! A client that does not read is not read from either: what it sends stays in its own buffers.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};

use kevent_core::Queue;
use kevent_net::{Interest, Mode, Readiness, socket};
use mio::net::TcpStream;

struct Client {
    stream: TcpStream,
    /// Received and not sent back yet: one read at most.
    unsent: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".to_owned());
    let address = address.parse().map_err(|_| format!("not an address and port: {address}"))?;
    let listener = socket::listen(address)?;
    println!("listening on {}", listener.local_addr()?);

    let mut queue = Queue::new()?;
    let id = queue.attach(Readiness::new(), |event| event)?;
    let listening = queue[id].register(&listener, Interest::READABLE, Mode::Level, 0)?;
    let mut clients = HashMap::new();
    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            let sockets = &mut queue[id];
            if let Some(client) = clients.get_mut(&event.token) {
                if let Ok(Some(interest)) = echo(client) {
                    sockets.modify(event.token, interest, Mode::Level)?;
                } else {
                    // It has said all, or broke off. Its descriptor serves whoever waits for one.
                    sockets.unregister(event.token);
                    clients.remove(&event.token);
                    sockets.enable(listening)?;
                }
                continue;
            }
            match socket::accept(&listener) {
                Ok(Some((stream, _))) => {
                    let token = sockets.register(&stream, Interest::READABLE, Mode::Level, 0)?;
                    clients.insert(token, Client { stream, unsent: Vec::new() });
                }
                Ok(None) => {}
                // Who connects now waits until a client leaves.
                Err(error) if socket::out_of_descriptors(&error) => sockets.disable(listening)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends back what `client` sent, and says what to wait for; `None` when it has no more to say.
fn echo(client: &mut Client) -> io::Result<Option<Interest>> {
    if client.unsent.is_empty() {
        let mut buffer = [0; 16 * 1024];
        match client.stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => client.unsent.extend_from_slice(&buffer[..count]),
            // Readiness is a hint. Nothing to send follows: it waits for more.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let sent = match client.stream.write(&client.unsent) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        sent => sent?,
    };
    client.unsent.drain(..sent);
    let done = client.unsent.is_empty();
    Ok(Some(if done { Interest::READABLE } else { Interest::WRITABLE }))
}
