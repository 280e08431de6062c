//! The steps around non-blocking TCP that are easy to get wrong, over the types of `mio`.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};

/// A non-blocking listener on `addr`, with `SO_REUSEADDR`, so that a server can be restarted while
/// connections of its predecessor linger. Port 0 is any free one; `local_addr` says which.
///
/// # Errors
///
/// As in bind(2); the text names the address.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).map_err(|e| in_context("listen on", addr, &e))
}

/// Accepts one connection, non-blocking. `None` when none waits.
///
/// A connection that was broken off while it waited is skipped: accept(2) of Linux reports its error
/// in the place of the connection, which is no reason to give the listener up.
///
/// # Errors
///
/// Among those of accept(2), one is no fault of the listener: [`out_of_descriptors`]. The
/// connection then waits, so a level-triggered listener stays ready and every wait ends at once;
/// disable it until a descriptor was closed.
///
/// ```
/// use kevent_net::socket;
///
/// let listener = socket::listen("127.0.0.1:0".parse().unwrap())?;
/// assert!(socket::accept(&listener)?.is_none());
/// let client = std::net::TcpStream::connect(listener.local_addr()?)?;
/// let (_, peer) = socket::accept(&listener)?.expect("a connection");
/// assert_eq!(peer, client.local_addr()?);
/// # std::io::Result::Ok(())
/// ```
pub fn accept(listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    loop {
        match listener.accept() {
            Ok(accepted) => return Ok(Some(accepted)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                // Each of these takes one connection off the listener, so the loop ends.
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
                | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

/// Whether `error` says that the process (`EMFILE`) or the system (`ENFILE`) can open no more
/// descriptors until one is closed.
#[must_use]
pub fn out_of_descriptors(error: &io::Error) -> bool {
    // The same numbers on every architecture of Linux; std has no stable name for them.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// Begins to connect to `addr`, without waiting. Once the stream is writable, [`connected`] says
/// how it went.
///
/// # Errors
///
/// What connect(2) says at once, such as `NetworkUnreachable`; the text names the address.
pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(addr).map_err(|e| in_context("connect to", addr, &e))
}

/// Whether the connection that [`connect`] began is made; `false` while it is under way. Ask when the
/// stream is writable: readiness alone does not tell success from failure.
///
/// # Errors
///
/// Why the connection could not be made, once; asked again, it is `NotConnected`, or `false`.
pub fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

fn in_context(doing: &str, addr: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {doing} {addr}: {error}"))
}
