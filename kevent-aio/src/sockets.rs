//! The operations that write to sockets: one after another on each, and waiting until it takes data.
//!
//! The waiting is an epoll set of its own, inside the queue's: the user may have the same socket in the
//! queue's set, and epoll takes a file only once. No thread waits for a slow client.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use kevent_core::Token;
use polling::{Event, PollMode, Poller};

use crate::sys::epoll;

/// The sockets that operations write to, by number. The operations in a line keep its socket open, so
/// the number stays that socket's.
#[derive(Default)]
pub(crate) struct Sockets {
    lines: HashMap<RawFd, Line>,
    /// Made when a socket is first waited for.
    poller: Option<Poller>,
}

/// The operations on one socket. The first is at work, the others wait for it.
#[derive(Default)]
struct Line {
    members: VecDeque<Token>,
    in_set: bool,
}

impl Sockets {
    /// Puts `token` at the end of the line of socket `fd`, and says whether that is its beginning, too.
    pub(crate) fn join(&mut self, fd: RawFd, token: Token) -> bool {
        let line = self.lines.entry(fd).or_default();
        line.members.push_back(token);
        line.members.len() == 1
    }

    /// Takes `token` out of the line of `socket`. If it was the first, the next one's turn has come.
    pub(crate) fn leave(&mut self, socket: BorrowedFd<'_>, token: Token) -> Option<Token> {
        let line = self.lines.get_mut(&socket.as_raw_fd())?;
        let was_first = line.members.front() == Some(&token);
        line.members.retain(|member| *member != token);
        let next = line.members.front().copied();
        if next.is_none() {
            if let (true, Some(poller)) = (line.in_set, &self.poller) {
                // Fails only if it is gone from the set already.
                let _ = poller.delete(socket);
            }
            self.lines.remove(&socket.as_raw_fd());
        }
        next.filter(|_| was_first)
    }

    /// Tells once when `socket`, which has a line, takes data again, or is broken.
    pub(crate) fn arm(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let poller = match &mut self.poller {
            Some(poller) => poller,
            none => none.insert(Poller::new()?),
        };
        let fd = socket.as_raw_fd();
        let Some(line) = self.lines.get_mut(&fd) else { return Ok(()) };
        // A descriptor is not negative.
        let key = fd as usize;
        if line.in_set {
            return poller.modify_with_mode(socket, Event::writable(key), PollMode::Oneshot);
        }
        epoll::add_writable(poller, socket, key)?;
        line.in_set = true;
        Ok(())
    }

    /// Appends the first of the line of every socket that takes data again.
    pub(crate) fn look(&self, ready: &mut VecDeque<Token>) -> io::Result<()> {
        let Some(poller) = &self.poller else { return Ok(()) };
        epoll::look(poller, |key| {
            // The poller has descriptors of its own in its set; no socket has their keys.
            let line = RawFd::try_from(key).ok().and_then(|fd| self.lines.get(&fd));
            ready.extend(line.and_then(|line| line.members.front()));
        })
    }

    /// The set, to be put into the queue's, once there is one.
    pub(crate) fn set(&self) -> Option<BorrowedFd<'_>> {
        self.poller.as_ref().map(AsFd::as_fd)
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn token(bits: u64) -> Token {
        Token::from_bits(bits)
    }

    #[test]
    fn line_moves_on_when_the_first_leaves_and_not_before() {
        let (near, _far) = UnixStream::pair().unwrap();
        let (fd, socket) = (near.as_raw_fd(), near.as_fd());
        let mut sockets = Sockets::default();
        assert!(sockets.join(fd, token(1)));
        for bits in 2..5 {
            assert!(!sockets.join(fd, token(bits)));
        }
        assert_eq!(sockets.leave(socket, token(3)), None, "it was not the first");
        assert_eq!(sockets.leave(socket, token(1)), Some(token(2)));
        assert_eq!(sockets.leave(socket, token(2)), Some(token(4)));
        assert_eq!(sockets.leave(socket, token(4)), None);
        assert!(sockets.join(fd, token(5)), "the line has ended");
    }

    #[test]
    fn socket_that_takes_data_again_is_told_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut sockets = Sockets::default();
        sockets.join(near.as_raw_fd(), token(7));
        let mut ready = VecDeque::new();
        for _ in 0..2 {
            while (&near).write(&[0; 4096]).is_ok() {}
            sockets.arm(near.as_fd()).unwrap();
            sockets.look(&mut ready).unwrap();
            assert!(ready.is_empty(), "it is full");
            while far.read(&mut [0; 65_536]).is_ok() {}
            sockets.look(&mut ready).unwrap();
            sockets.look(&mut ready).unwrap();
            assert_eq!(ready.drain(..).collect::<Vec<_>>(), [token(7)]);
        }
    }

    #[test]
    fn socket_can_be_waited_for_again_after_its_line_has_ended() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut sockets = Sockets::default();
        for bits in 0..3 {
            sockets.join(near.as_raw_fd(), token(bits));
            sockets.arm(near.as_fd()).unwrap();
            assert_eq!(sockets.leave(near.as_fd(), token(bits)), None);
        }
        let mut ready = VecDeque::new();
        sockets.look(&mut ready).unwrap();
        assert!(ready.is_empty(), "nobody waits for it");
    }

    #[test]
    fn socket_whose_peer_is_gone_is_told() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut sockets = Sockets::default();
        sockets.join(near.as_raw_fd(), token(7));
        while (&near).write(&[0; 4096]).is_ok() {}
        sockets.arm(near.as_fd()).unwrap();
        drop(far);
        let mut ready = VecDeque::new();
        sockets.look(&mut ready).unwrap();
        assert_eq!(ready, [token(7)]);
    }
}
