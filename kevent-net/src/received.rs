//! What a receiver says: what came in, and on which registration.

use std::io;

use kevent_core::Token;

use crate::uring::Buffer;

/// Something came in on a socket.
#[derive(Debug)]
pub struct ReceiveEvent {
    /// The registration.
    pub token: Token,
    /// The number that the user gave it.
    pub key: u64,
    /// What came in.
    pub received: Received,
}

/// What came in on a socket.
#[derive(Debug)]
pub enum Received {
    /// Data: a piece of a stream, which is not empty, or a datagram, which may be.
    Data(Buffer),
    /// The peer sends no more. The registration ends with this event.
    End,
    /// The socket can't be received from. The registration ends with this event.
    Error(io::Error),
}
