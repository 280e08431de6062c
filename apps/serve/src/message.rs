//! What the threads tell each other.

use std::fmt;
use std::io;

use kevent_aio::Fd;
use kevent_core::{PostError, Poster};

/// One message.
pub enum Message {
    /// Something below the root has changed.
    Invalid(Invalid),
    /// The folder that a connection asked for, as a page.
    Listed { connection: u64, page: io::Result<String> },
    /// Write the log to that file.
    Reopen(Fd),
    /// Finish and end.
    Stop,
    /// Another thread has ended. The first is told, since it ends last.
    Ended,
}

/// What is no longer true of the folder.
#[derive(Debug)]
pub enum Invalid {
    /// A file.
    File(Vec<u8>),
    /// A folder and all below it.
    Tree(Vec<u8>),
    /// Changes below that folder will not be told.
    Untold(Vec<u8>),
}

/// Posts a message that has to arrive: waits while the mailbox is full, not on the thread that empties
/// it.
pub fn insist(poster: &Poster<Message>, mut message: Message) {
    while let Err(PostError::Full(back)) = poster.post(message) {
        message = back;
        std::thread::yield_now();
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Message::Invalid(_) => "Invalid",
            Message::Listed { .. } => "Listed",
            Message::Reopen(_) => "Reopen",
            Message::Stop => "Stop",
            Message::Ended => "Ended",
        })
    }
}
