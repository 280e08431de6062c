//! The registrations of a receiver, and where the request of each is.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use kevent_core::{Table, Token};

use crate::received::{ReceiveEvent, Received};
use crate::uring::{Answer, How, Uring};

/// A share in a socket.
pub(crate) struct Socket(pub(crate) Arc<dyn AsFd + Send + Sync>);

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_fd().fmt(f)
    }
}

/// The registrations, and what is to be done about their requests.
#[derive(Debug)]
pub(crate) struct Requests {
    registrations: Table<Registration>,
    /// Registrations whose request is to be made with the next batch. Some may have been removed since.
    batched: VecDeque<Token>,
    /// Requests to be cancelled with the next batch.
    cancelled: VecDeque<Token>,
    /// Registrations whose request found no buffer, the longest waiting first. Some may have been
    /// removed since.
    starved: VecDeque<Token>,
    /// Those among them who found none at all when it was their turn, because others were faster. They
    /// come first: else the fast ones would be faster each time.
    passed_over: VecDeque<Token>,
    /// Sockets of removed registrations whose request is put down and the kernel has not seen: it
    /// would look for their number.
    kept: Vec<Socket>,
}

#[derive(Debug)]
struct Registration {
    socket: Socket,
    key: u64,
    how: How,
    /// Datagrams may be empty; an empty piece of a stream is its end.
    datagrams: bool,
    stage: Stage,
    /// Its request has received something.
    served: bool,
    paused: bool,
    /// Events that the user has not got yet.
    on_their_way: usize,
}

/// Where the request of a registration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nowhere: it is paused.
    Idle,
    /// On the list of those to be made.
    Batched,
    /// With the kernel.
    Standing,
    /// On the list of those that wait for buffers.
    Starved,
    /// Over: the last event is on its way.
    Over,
}

impl Requests {
    pub(crate) fn new() -> Requests {
        Requests {
            registrations: Table::new(),
            batched: VecDeque::new(),
            cancelled: VecDeque::new(),
            starved: VecDeque::new(),
            passed_over: VecDeque::new(),
            kept: Vec::new(),
        }
    }

    pub(crate) fn register(
        &mut self,
        socket: Socket,
        key: u64,
        how: How,
        datagrams: bool,
    ) -> Token {
        let token = self.registrations.insert(Registration {
            socket,
            key,
            how,
            datagrams,
            stage: Stage::Batched,
            served: false,
            paused: false,
            on_their_way: 0,
        });
        self.batched.push_back(token);
        token
    }

    /// Says whether that is news, or nothing if the registration is gone.
    pub(crate) fn pause(&mut self, token: Token) -> Option<bool> {
        let registration = self.registrations.get_mut(token)?;
        let news = !std::mem::replace(&mut registration.paused, true);
        if news && registration.stage == Stage::Standing {
            self.cancelled.push_back(token);
        }
        Some(news)
    }

    /// Says whether its request is to be made again, or nothing if the registration is gone.
    pub(crate) fn resume(&mut self, token: Token) -> Option<bool> {
        let registration = self.registrations.get_mut(token)?;
        registration.paused = false;
        let idle = registration.stage == Stage::Idle;
        if idle {
            registration.stage = Stage::Batched;
            self.batched.push_back(token);
        }
        Some(idle)
    }

    /// Takes a registration out. `unseen` says that the kernel has not taken all that was put down.
    /// Says whether a request is to be cancelled, or nothing if the registration is gone.
    pub(crate) fn unregister(&mut self, token: Token, unseen: bool) -> Option<bool> {
        let registration = self.registrations.remove(token)?;
        let standing = registration.stage == Stage::Standing;
        if standing {
            self.cancelled.push_back(token);
            if unseen {
                self.kept.push(registration.socket);
            }
        }
        Some(standing)
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.registrations.iter().map(|(token, _)| token).collect()
    }

    pub(crate) fn is_registered(&self, token: Token) -> bool {
        self.registrations.get(token).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.registrations.len()
    }

    /// How many registrations wait for a buffer.
    pub(crate) fn starved(&self) -> usize {
        let waiting = self.passed_over.iter().chain(&self.starved);
        waiting.filter(|token| self.is_registered(**token)).count()
    }

    /// Nobody is registered any more: the lists of those who want something are of the past.
    pub(crate) fn forget(&mut self) {
        self.batched.clear();
        self.starved.clear();
        self.passed_over.clear();
    }

    /// Makes the requests that are to be made, and cancels those to be cancelled, as far as the
    /// kernel takes them.
    #[inline]
    pub(crate) fn hand_over(&mut self, uring: &mut Uring) -> io::Result<()> {
        // Nearly always.
        let lists = [&self.cancelled, &self.batched, &self.starved, &self.passed_over];
        let empty = lists.iter().all(|list| list.is_empty()) && self.kept.is_empty();
        if empty && uring.is_submitted() {
            return Ok(());
        }
        self.hand_over_lists(uring)
    }

    fn hand_over_lists(&mut self, uring: &mut Uring) -> io::Result<()> {
        self.submit(uring)?;
        // Those of whom nothing comes leave the buffers to the next: nobody else would wake them.
        while self.serve_starved(uring) {
            self.submit(uring)?;
            if uring.has_answers()? {
                break;
            }
        }
        Ok(())
    }

    /// Puts those who wait for buffers on the list, as many as there are buffers; says whether that is
    /// anybody.
    fn serve_starved(&mut self, uring: &Uring) -> bool {
        let waiting = self.passed_over.len() + self.starved.len();
        let mut buffers = if waiting > 0 { uring.ration(waiting) } else { 0 };
        let any = buffers > 0;
        while buffers > 0 {
            let next = self.passed_over.pop_front().or_else(|| self.starved.pop_front());
            let Some(token) = next else { break };
            buffers -= usize::from(self.batch(token));
        }
        any
    }

    /// Hands over what is on the lists, in as few calls as hold it.
    fn submit(&mut self, uring: &mut Uring) -> io::Result<()> {
        while self.put_down(uring) {
            uring.submit()?;
            if !uring.is_submitted() {
                return Ok(());
            }
        }
        self.kept.clear();
        Ok(())
    }

    /// Puts down as much as one call hands over; says whether that is anything.
    fn put_down(&mut self, uring: &mut Uring) -> bool {
        while let Some(token) = self.cancelled.front() {
            if !uring.push_cancel(token.to_bits()) {
                return true;
            }
            self.cancelled.pop_front();
        }
        while let Some(token) = self.batched.front().copied() {
            if let Some(registration) = self.registrations.get_mut(token) {
                if registration.paused {
                    registration.stage = Stage::Idle;
                    self.batched.pop_front();
                    continue;
                }
                let fd = registration.socket.0.as_fd();
                if uring.push_receive(token.to_bits(), fd, registration.how) {
                    registration.stage = Stage::Standing;
                    registration.served = false;
                } else {
                    return true;
                }
            }
            self.batched.pop_front();
        }
        !uring.is_submitted()
    }

    /// Has the request of a registration made, or made anew, if that is still wanted; says whether it is.
    fn batch(&mut self, token: Token) -> bool {
        let Some(registration) = self.registrations.get_mut(token) else { return false };
        registration.stage = if registration.paused { Stage::Idle } else { Stage::Batched };
        if !registration.paused {
            self.batched.push_back(token);
        }
        !registration.paused
    }

    /// What an answer of the kernel means to the user, if anything.
    #[inline]
    pub(crate) fn understand(&mut self, answer: Answer) -> Option<(Token, ReceiveEvent)> {
        let Answer { name, result, buffer, more } = answer;
        let token = Token::from_bits(name);
        let standing = self.registrations.get_mut(token).filter(|r| r.stage != Stage::Over);
        let Some(registration) = standing else {
            // It was cancelled, and is not gone yet.
            if more {
                self.cancelled.push_back(token);
            }
            return None;
        };
        let received = match result {
            Ok(0) if !registration.datagrams => Some(Received::End),
            Ok(_) => Some(Received::Data(buffer)),
            Err(libc::ENOBUFS) => None,
            // Cancelled, to be paused; or because the thread that made the request has ended.
            Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => None,
            Err(errno) => Some(Received::Error(io::Error::from_raw_os_error(errno))),
        };
        let key = registration.key;
        registration.served |= received.is_some();
        registration.on_their_way += usize::from(received.is_some());
        let over = matches!(received, Some(Received::End | Received::Error(_)));
        // Of one that is paused, the request to cancel it came while it was at work.
        if more && (over || registration.paused) {
            self.cancelled.push_back(token);
        }
        if over {
            registration.stage = Stage::Over;
        } else if !more && result == Err(libc::ENOBUFS) {
            registration.stage = Stage::Starved;
            let waiting =
                if registration.served { &mut self.starved } else { &mut self.passed_over };
            waiting.push_back(token);
        } else if !more {
            self.batch(token);
        }
        Some((token, ReceiveEvent { token, key, received: received? }))
    }

    /// The user gets an event of a registration, if that stands. The last one ends it.
    pub(crate) fn deliver(&mut self, token: Token) -> bool {
        let Some(registration) = self.registrations.get_mut(token) else { return false };
        registration.on_their_way = registration.on_their_way.saturating_sub(1);
        if registration.stage == Stage::Over && registration.on_their_way == 0 {
            self.registrations.remove(token);
        }
        true
    }
}
