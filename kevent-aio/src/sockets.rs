//! The operations that wait for sockets: to write, one after another on each, until it takes data; to
//! read or to accept, until something comes.
//!
//! The waiting is an epoll set of its own, inside the queue's: the user may have the same socket in the
//! queue's set, and epoll takes a file only once. No thread waits for a slow client.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use kevent_core::Token;
use polling::Poller;

use crate::operation::Side;
use crate::sys::epoll;

/// The sockets that operations write to or wait for, by number. The operations in a line keep its
/// socket open, so the number stays that socket's.
#[derive(Default)]
pub(crate) struct Sockets {
    sockets: HashMap<RawFd, Socket>,
    /// Made when a socket is first waited for.
    poller: Option<Poller>,
}

/// The operations on one socket, a line for each side. The first in a line is at work or waits for the
/// socket, the others wait for it.
#[derive(Default)]
struct Socket {
    reading: VecDeque<Token>,
    writing: VecDeque<Token>,
    in_set: bool,
    /// What it will be told for, once.
    armed: u32,
}

impl Socket {
    fn line(&mut self, side: Side) -> &mut VecDeque<Token> {
        match side {
            Side::Reading => &mut self.reading,
            Side::Writing => &mut self.writing,
        }
    }
}

impl Sockets {
    /// Puts `token` at the end of the line on that side of socket `fd`, and says whether that is its
    /// beginning, too.
    pub(crate) fn join(&mut self, fd: RawFd, side: Side, token: Token) -> bool {
        let line = self.sockets.entry(fd).or_default().line(side);
        line.push_back(token);
        line.len() == 1
    }

    /// Whether nobody is in the line on that side of socket `fd`.
    #[inline]
    pub(crate) fn is_free(&self, fd: RawFd, side: Side) -> bool {
        let socket = if self.sockets.is_empty() { None } else { self.sockets.get(&fd) };
        socket.is_none_or(|socket| match side {
            Side::Reading => socket.reading.is_empty(),
            Side::Writing => socket.writing.is_empty(),
        })
    }

    /// Takes `token` out of its line. If it was the first, the next one's turn has come.
    pub(crate) fn leave(
        &mut self,
        socket: BorrowedFd<'_>,
        side: Side,
        token: Token,
    ) -> Option<Token> {
        let entry = self.sockets.get_mut(&socket.as_raw_fd())?;
        let line = entry.line(side);
        let was_first = line.front() == Some(&token);
        if was_first {
            line.pop_front();
        } else {
            line.retain(|member| *member != token);
        }
        let next = line.front().copied();
        if entry.reading.is_empty() && entry.writing.is_empty() {
            if let (true, Some(poller)) = (entry.in_set, &self.poller) {
                // Fails only if it is gone from the set already.
                let _ = poller.delete(socket);
            }
            self.sockets.remove(&socket.as_raw_fd());
        }
        next.filter(|_| was_first)
    }

    /// Tells once when `socket`, which has a line on that side, is ready there, or is broken.
    pub(crate) fn arm(&mut self, socket: BorrowedFd<'_>, side: Side) -> io::Result<()> {
        let poller = match &mut self.poller {
            Some(poller) => poller,
            none => none.insert(Poller::new()?),
        };
        let Some(entry) = self.sockets.get_mut(&socket.as_raw_fd()) else { return Ok(()) };
        let armed = entry.armed | flag(side);
        epoll::tell_once(poller, socket, !entry.in_set, armed)?;
        entry.armed = armed;
        entry.in_set = true;
        Ok(())
    }

    /// Appends the first of each line whose socket is ready. If both sides of one were waited for, both
    /// get their turn: telling once has disarmed both, and who finds nothing waits again.
    pub(crate) fn look(&mut self, ready: &mut VecDeque<Token>) -> io::Result<()> {
        let Sockets { sockets, poller: Some(poller) } = self else { return Ok(()) };
        epoll::look(poller, |key| {
            // The poller has descriptors of its own in its set; no socket has their keys.
            let fd = RawFd::try_from(key).ok();
            let Some(socket) = fd.and_then(|fd| sockets.get_mut(&fd)) else { return };
            let armed = std::mem::take(&mut socket.armed);
            for side in [Side::Reading, Side::Writing] {
                if armed & flag(side) != 0 {
                    ready.extend(socket.line(side).front());
                }
            }
        })
    }

    /// The set, to be put into the queue's, once there is one.
    pub(crate) fn set(&self) -> Option<BorrowedFd<'_>> {
        self.poller.as_ref().map(AsFd::as_fd)
    }
}

fn flag(side: Side) -> u32 {
    match side {
        Side::Reading => epoll::IN,
        Side::Writing => epoll::OUT,
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").field("sockets", &self.sockets.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::Side::{Reading, Writing};
    use super::*;

    fn token(bits: u64) -> Token {
        Token::from_bits(bits)
    }

    #[test]
    fn line_moves_on_when_the_first_leaves_and_not_before() {
        let (near, _far) = UnixStream::pair().unwrap();
        let (fd, socket) = (near.as_raw_fd(), near.as_fd());
        let mut sockets = Sockets::default();
        assert!(sockets.join(fd, Writing, token(1)));
        for bits in 2..5 {
            assert!(!sockets.join(fd, Writing, token(bits)));
        }
        assert_eq!(sockets.leave(socket, Writing, token(3)), None, "it was not the first");
        assert_eq!(sockets.leave(socket, Writing, token(1)), Some(token(2)));
        assert_eq!(sockets.leave(socket, Writing, token(2)), Some(token(4)));
        assert_eq!(sockets.leave(socket, Writing, token(4)), None);
        assert!(sockets.join(fd, Writing, token(5)), "the line has ended");
    }

    #[test]
    fn socket_that_takes_data_again_is_told_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut sockets = Sockets::default();
        sockets.join(near.as_raw_fd(), Writing, token(7));
        let mut ready = VecDeque::new();
        for _ in 0..2 {
            while (&near).write(&[0; 4096]).is_ok() {}
            sockets.arm(near.as_fd(), Writing).unwrap();
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
            sockets.join(near.as_raw_fd(), Writing, token(bits));
            sockets.arm(near.as_fd(), Writing).unwrap();
            assert_eq!(sockets.leave(near.as_fd(), Writing, token(bits)), None);
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
        sockets.join(near.as_raw_fd(), Writing, token(7));
        while (&near).write(&[0; 4096]).is_ok() {}
        sockets.arm(near.as_fd(), Writing).unwrap();
        drop(far);
        let mut ready = VecDeque::new();
        sockets.look(&mut ready).unwrap();
        assert_eq!(ready, [token(7)]);
    }

    #[test]
    fn reader_does_not_stand_behind_writers_and_is_told_what_comes() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let (fd, socket) = (near.as_raw_fd(), near.as_fd());
        let mut sockets = Sockets::default();
        while (&near).write(&[0; 4096]).is_ok() {}
        sockets.join(fd, Writing, token(1));
        sockets.arm(socket, Writing).unwrap();
        assert!(sockets.join(fd, Reading, token(2)));
        sockets.arm(socket, Reading).unwrap();
        let mut ready = VecDeque::new();
        sockets.look(&mut ready).unwrap();
        assert!(ready.is_empty(), "neither side is ready");
        far.write_all(b"x").unwrap();
        sockets.look(&mut ready).unwrap();
        assert!(ready.contains(&token(2)));
        // The writer was disarmed with it, and has been told so.
        assert!(ready.contains(&token(1)));
        assert_eq!(sockets.leave(socket, Reading, token(2)), None);
        sockets.arm(socket, Writing).unwrap();
        ready.clear();
        sockets.look(&mut ready).unwrap();
        assert!(ready.is_empty(), "what nobody reads any more wakes nobody");
    }

    #[test]
    fn urgent_byte_that_nobody_reads_wakes_nobody() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        let mut sockets = Sockets::default();
        sockets.join(near.as_raw_fd(), Reading, token(7));
        sockets.arm(near.as_fd(), Reading).unwrap();
        rustix::net::send(&far, b"!", rustix::net::SendFlags::OOB).unwrap();
        let urgent = rustix::event::PollFlags::PRI;
        let mut poll = [rustix::event::PollFd::new(&near, urgent)];
        rustix::event::poll(&mut poll, None).unwrap();
        let mut ready = VecDeque::new();
        sockets.look(&mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
