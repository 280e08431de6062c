//! The source: registered descriptors, in the queue's own epoll set.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use kevent_core::{Changes, Due, Interest, PollKey, PollSet, Ready, Sink, Source, Token};

use crate::registration::{Heard, Mode, Next, Registration, Watch};
use crate::registrations::{Registrations, no_such};

/// A source of readiness: which descriptors can be read or written.
///
/// All registrations share the queue's one epoll set, so a wait costs one system call however many
/// there are. One registration has at most one event in the ring: what happens before that is
/// delivered is told with it or right after it.
///
/// Interest in [`READABLE`](Interest::READABLE) includes
/// [`HALF_CLOSE`](Interest::HALF_CLOSE): that the peer will send no more is told with the last of
/// the data, as a flag, and not only found by reading to the end. Hang-up and errors are always told.
///
/// # Several registrations of one descriptor
///
/// Reading and writing can be registered apart, each with its key and its mode, and be modified,
/// enabled and disabled apart; so can any number of interests in one descriptor. The kernel does not
/// say which of the things that it tells is new. So an edge-triggered one of them may be told again
/// what it knows when something new happens for another: there is room to write, still, when data
/// come. And one whose descriptor is shared is told anew when another joins or leaves or is modified.
/// The others are told as if they were alone. A level-triggered one costs a system call for each event
/// then, because the kernel is not asked to repeat it.
///
/// # Who owns the descriptor
///
/// The caller. The source is lent it for the call of [`register`](Readiness::register) and knows
/// its number from then on; it never reads, writes or closes it. **Unregister before closing.** A
/// descriptor that is closed first does no harm as long as nobody holds a duplicate of it:
///
/// * The registration falls silent, because the kernel forgets a file with its last descriptor.
///   It stands until it is unregistered, whenever that is.
/// * When its number is given out again, the old token does not reach the new descriptor:
///   [`enable`](Readiness::enable) and [`modify`](Readiness::modify) fail with `NotFound`, and
///   [`unregister`](Readiness::unregister) leaves the new one alone.
/// * With a duplicate (`try_clone`, a forked child) the file lives on, and so does the registration:
///   its events come under its key until it is unregistered or disabled. But the kernel has no way
///   to change it or to take it out of the set any more. Whatever it tells then is dropped and
///   counted: see [`strays`](Readiness::strays).
///
/// ```
/// use kevent_core::{Queue, Wait};
/// use kevent_net::{Interest, Mode, Readiness};
///
/// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// socket.set_nonblocking(true)?;
/// let mut queue = Queue::new()?;
/// let readiness = queue.attach(Readiness::new(), |event| event)?;
/// let token = queue[readiness].register(&socket, Interest::READABLE, Mode::Dispatch, 53)?;
///
/// socket.send_to(b"ping", socket.local_addr()?)?;
/// queue.wait(None)?;
/// assert_eq!(queue.next().map(|event| event.key), Some(53));
///
/// // Disabled until it is enabled, though the datagram is still there.
/// assert_eq!(queue.wait(Wait::poll())?, 0);
/// queue[readiness].enable(token)?;
/// assert_eq!(queue.wait(None)?, 1);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Default)]
pub struct Readiness {
    registrations: Registrations,
    /// Registrations with something to push, in the order in which the kernel told it, and when, if the
    /// queue wants to know that. Some may have been removed since.
    told: VecDeque<(Token, Option<Instant>)>,
    /// Registrations that did not listen while their event was undelivered, and are to again.
    unmute: Vec<Token>,
    strays: u64,
}

/// A descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyEvent {
    /// The registration.
    pub token: Token,
    /// The number that the user gave it.
    pub key: u64,
    /// For what. A hint: by the time it is handed out somebody may have read the data, so a
    /// non-blocking descriptor is the safe kind.
    pub ready: Ready,
}

impl Readiness {
    /// A source without registrations. It takes them once it is attached to a queue.
    #[must_use]
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Tells when `fd` is ready for `interest`, under the user's own number `key`. What it is ready
    /// for already is told too, in every mode.
    ///
    /// # Errors
    ///
    /// * `NotConnected` before the source is attached to a queue.
    /// * `AlreadyExists` when another source of the queue has `fd`, or this one has it as
    ///   [exclusive](Readiness::register_exclusive): epoll takes a descriptor once. Register a duplicate.
    /// * `Unsupported` for regular files and directories, which are always ready in the eyes of
    ///   poll(2), also while the disk is far behind.
    /// * Others as in epoll_ctl(2), such as the limit of `/proc/sys/fs/epoll/max_user_watches`.
    pub fn register(
        &mut self,
        fd: &impl AsFd,
        interest: Interest,
        mode: Mode,
        key: u64,
    ) -> io::Result<Token> {
        let (fd, interest) = (fd.as_fd(), with_half_close(interest));
        let number = fd.as_raw_fd();
        let make = |token| Registration::new(token, number, key, interest, mode);
        self.registrations.add(fd, make).map_err(|error| refused(error, number))
    }

    /// Tells when `fd`, which several queues wait for, is ready, so that one of those that sleep is
    /// woken and not all: for a listener that several threads share, each with a queue.
    ///
    /// Edge-triggered: accept until `WouldBlock`. Another queue may have been faster, so the first
    /// accept may say so too. Such a registration can't be modified, enabled or disabled, only
    /// unregistered: the kernel allows no more.
    ///
    /// # Errors
    ///
    /// As [`register`](Readiness::register), and `InvalidInput` for an interest other than
    /// [`READABLE`](Interest::READABLE), [`WRITABLE`](Interest::WRITABLE) or both.
    ///
    /// Source: `EPOLLEXCLUSIVE` in epoll_ctl(2).
    pub fn register_exclusive(
        &mut self,
        fd: &impl AsFd,
        interest: Interest,
        key: u64,
    ) -> io::Result<Token> {
        if !(Interest::READABLE | Interest::WRITABLE).contains(interest) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an exclusive registration takes READABLE and WRITABLE only",
            ));
        }
        let fd = fd.as_fd();
        let number = fd.as_raw_fd();
        let make = |token| {
            let mut registration = Registration::new(token, number, key, interest, Mode::Edge);
            registration.exclusive = true;
            registration
        };
        self.registrations.add(fd, make).map_err(|error| refused(error, number))
    }

    /// Changes what a registration tells and how often, and enables it. An event that is not
    /// delivered yet is taken back; what `fd` is ready for is told anew, under the new terms.
    ///
    /// With the terms that it has, this asks the kernel to look again: after a partial read of an
    /// edge-triggered descriptor, for example.
    ///
    /// # Errors
    ///
    /// `NotFound` when the registration is gone, or its descriptor was closed. `Unsupported` for an
    /// exclusive one. It is then as it was.
    pub fn modify(&mut self, token: Token, interest: Interest, mode: Mode) -> io::Result<()> {
        let mut changed = *self.find(token)?;
        changed.withdraw();
        changed.interest = with_half_close(interest);
        changed.mode = mode;
        changed.watch = Watch::On;
        let ready = self.registrations.change(token, changed)?;
        self.tell(token, ready);
        Ok(())
    }

    /// Lets a disabled registration tell again: what its descriptor is ready for now, and what
    /// follows. Nothing happens to one that is enabled.
    ///
    /// # Errors
    ///
    /// As [`modify`](Readiness::modify).
    pub fn enable(&mut self, token: Token) -> io::Result<()> {
        match self.find(token)?.watch {
            Watch::On | Watch::Muted => Ok(()),
            Watch::Off | Watch::OutOfReach => self.listen(token),
        }
    }

    /// Silences a registration until it is enabled. An event that is not delivered yet is taken
    /// back; nothing is lost by that, because enabling tells what the descriptor is ready for.
    ///
    /// # Errors
    ///
    /// `NotFound` when the registration is gone. `Unsupported` for an exclusive one.
    pub fn disable(&mut self, token: Token) -> io::Result<()> {
        let registration = self.find(token)?;
        registration.withdraw();
        if matches!(registration.watch, Watch::Off | Watch::OutOfReach) {
            return Ok(());
        }
        let reached = self.registrations.is_shared(token)
            || self.registrations.set_watch(token, Watch::Off).is_ok();
        self.find(token)?.watch = if reached { Watch::Off } else { Watch::OutOfReach };
        Ok(())
    }

    /// Has each event of a registration looked at once more when it is about to be delivered, or not
    /// any more; from the beginning it is not.
    ///
    /// If then nothing of what the event tells is true any more, because somebody has read the data
    /// meanwhile for example, it is not delivered. The registration stands as before: a one-shot one
    /// has not ended, a dispatching one is still enabled. If some of it is true, the event is delivered
    /// as it was.
    ///
    /// That costs a poll(2) for each event. It is worth it where a needless event is dear, or where
    /// several threads or handlers read from one descriptor.
    ///
    /// # Errors
    ///
    /// `NotFound` when the registration is gone.
    pub fn recheck(&mut self, token: Token, recheck: bool) -> io::Result<()> {
        let registration = self.registrations.get_mut(token).ok_or_else(no_such)?;
        registration.recheck = recheck;
        Ok(())
    }

    /// Ends a registration; says whether it stood. No event of it is delivered any more, not even
    /// one that is in the ring.
    pub fn unregister(&mut self, token: Token) -> bool {
        self.registrations.remove(token).is_some()
    }

    /// How many registrations stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Whether no registration stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registrations.len() == 0
    }

    /// How often the kernel spoke of a registration that is gone, or that should have been silent.
    ///
    /// That takes a descriptor that was closed before it was unregistered, while a duplicate of it
    /// is open somewhere. Nobody is told, and nobody can stop it but by closing the duplicate. If the
    /// registration was level-triggered and the file stays ready, every wait ends at once and looks
    /// again: a number that grows all the time explains a busy processor. It stays zero in a program
    /// that unregisters before it closes.
    #[must_use]
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// The registration of `token`, to be changed.
    fn find(&mut self, token: Token) -> io::Result<&mut Registration> {
        let registration = self.registrations.get_mut(token).ok_or_else(no_such)?;
        if registration.exclusive {
            let text = "the kernel does not let an exclusive registration be changed: \
                        unregister it and register the descriptor anew";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(registration)
    }

    /// Has a registration listen, beginning with what its descriptor is ready for now.
    fn listen(&mut self, token: Token) -> io::Result<()> {
        if !self.registrations.is_shared(token) {
            return self.registrations.set_watch(token, Watch::On);
        }
        let ready = self.registrations.ask(token)?;
        if let Some(registration) = self.registrations.get_mut(token) {
            registration.watch = Watch::On;
        }
        self.tell(token, ready);
        Ok(())
    }

    /// What follows from the delivery of an event.
    fn go_on(&mut self, token: Token, next: Next) {
        match next {
            Next::Rest => {}
            Next::Push => {
                if self.registrations.get_mut(token).is_some_and(Registration::enlist) {
                    self.told.push_back((token, self.registrations.told_at()));
                }
            }
            Next::Listen => self.unmute.push(token),
            Next::End => drop(self.registrations.remove(token)),
        }
    }

    /// The descriptor of `token` is ready, say the kernel's set or poll(2). Names the next of those that
    /// share it.
    fn tell(&mut self, token: Token, ready: Ready) -> Option<Token> {
        let registration = self.registrations.get_mut(token)?;
        let next = registration.next;
        let heard = registration.hear(ready, next != token);
        if registration.enlist() {
            self.told.push_back((token, self.registrations.told_at()));
        }
        let stray = match heard {
            Heard::Noted => false,
            Heard::Unwanted => true,
            // If that fails it goes on to repeat, and tells when its event is delivered.
            Heard::Repeated => self.registrations.set_watch(token, Watch::Muted).is_err(),
        };
        self.strays += u64::from(stray);
        Some(next)
    }
}

/// A change to [`Readiness`], for [`Queue::change`](kevent_core::Queue::change).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ReadinessChange<'fd> {
    /// [`Readiness::register`].
    Register(BorrowedFd<'fd>, Interest, Mode, u64),
    /// [`Readiness::modify`].
    Modify(Token, Interest, Mode),
    /// [`Readiness::enable`].
    Enable(Token),
    /// [`Readiness::disable`].
    Disable(Token),
    /// [`Readiness::unregister`]. `NotFound` if there is none of that token.
    Unregister(Token),
}

/// Each change gives back the token of the registration.
impl Changes for Readiness {
    type Change<'fd> = ReadinessChange<'fd>;
    type Done = Token;

    fn change(&mut self, change: ReadinessChange<'_>) -> io::Result<Token> {
        match change {
            ReadinessChange::Register(fd, interest, mode, key) => {
                self.register(&fd, interest, mode, key)
            }
            ReadinessChange::Modify(token, interest, mode) => {
                self.modify(token, interest, mode).map(|()| token)
            }
            ReadinessChange::Enable(token) => self.enable(token).map(|()| token),
            ReadinessChange::Disable(token) => self.disable(token).map(|()| token),
            ReadinessChange::Unregister(token) if self.unregister(token) => Ok(token),
            ReadinessChange::Unregister(_) => Err(no_such()),
        }
    }
}

impl Source for Readiness {
    type Item = ReadyEvent;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.registrations.attach(poll_set.clone());
        Ok(())
    }

    fn ready(&mut self, key: PollKey, ready: Ready) {
        let Some(first) = self.registrations.find(key) else {
            self.strays += 1;
            return;
        };
        let mut token = first;
        while let Some(next) = self.tell(token, ready).filter(|next| *next != first) {
            token = next;
        }
    }

    fn flush(&mut self) -> io::Result<Due> {
        while let Some(token) = self.unmute.pop() {
            if self.registrations.get_mut(token).is_some_and(|r| r.may_listen()) {
                // A descriptor that was closed meanwhile stays silent, as if it had not been muted.
                let _ = self.listen(token);
            }
        }
        Ok(if self.told.is_empty() { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<ReadyEvent>) -> io::Result<()> {
        while let Some((token, told_at)) = self.told.pop_front() {
            let Some(registration) = self.registrations.get_mut(token) else { continue };
            let Some(ready) = registration.unlist() else { continue };
            if sink.push(token, ReadyEvent { token, key: registration.key, ready }).is_err() {
                registration.enlist();
                self.told.push_front((token, told_at));
                break;
            }
            registration.pushed();
        }
        Ok(())
    }

    fn oldest(&mut self) -> Option<Instant> {
        self.told.front().and_then(|(_, told_at)| *told_at)
    }

    fn deliver(&mut self, token: Token) -> bool {
        let Some(registration) = self.registrations.get_mut(token) else { return false };
        let Some(told) = registration.claim() else { return false };
        if !registration.recheck {
            let next = registration.delivered(true);
            self.go_on(token, next);
            return true;
        }
        let holds = self.registrations.still_holds(token, told);
        let next = self.registrations.get_mut(token).map(|r| r.delivered(holds));
        next.into_iter().for_each(|next| self.go_on(token, next));
        holds
    }

    fn detach(&mut self) {
        self.registrations.detach();
        self.told.clear();
        self.unmute.clear();
    }
}

fn with_half_close(interest: Interest) -> Interest {
    if interest.contains(Interest::READABLE) { interest | Interest::HALF_CLOSE } else { interest }
}

/// Says what to do about what epoll_ctl(2) refused.
fn refused(error: io::Error, fd: RawFd) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "descriptor {fd} is registered with this queue by another source, or exclusively: \
             register a duplicate of it"
        ),
        io::ErrorKind::PermissionDenied => {
            return io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "descriptor {fd} is a regular file or a directory, which epoll does not take \
                     (it would always be ready): read and write it asynchronously with kevent-aio"
                ),
            );
        }
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}
