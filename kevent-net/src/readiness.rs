//! The source: registered descriptors, in the queue's own epoll set.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use kevent_core::{Due, Interest, PollKey, PollSet, Ready, Sink, Source, Table, Token, Trigger};

use crate::registration::{Delivery, Heard, Mode, Registration, Watch};

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
    /// The queue's set, while the source is attached.
    poll_set: Option<PollSet>,
    registrations: Table<Registration>,
    /// Registrations with something to push, in the order in which the kernel told it. Some may have
    /// been removed since.
    told: VecDeque<Token>,
    /// Level-triggered registrations whose event was delivered after they had to be muted.
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
    /// * `AlreadyExists` when the queue has `fd`, in this source or another: epoll takes a
    ///   descriptor once. [`modify`](Readiness::modify) the one, or register a duplicate.
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
        let interest = with_half_close(interest);
        let registration = Registration::new(fd.as_fd().as_raw_fd(), key, interest, mode);
        self.add(registration, |set, key| set.add(fd.as_fd(), key, interest, mode.trigger()))
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
        let fd_number = fd.as_fd().as_raw_fd();
        let mut registration = Registration::new(fd_number, key, interest, Mode::Edge);
        registration.exclusive = true;
        self.add(registration, |set, key| {
            set.add_exclusive(fd.as_fd(), key, interest, Trigger::Edge)
        })
    }

    fn add(
        &mut self,
        registration: Registration,
        add: impl FnOnce(&PollSet, PollKey) -> io::Result<()>,
    ) -> io::Result<Token> {
        let poll_set = self.poll_set.as_ref().ok_or_else(not_attached)?;
        let fd = registration.fd;
        let token = self.registrations.insert(registration);
        match add(poll_set, token.into()) {
            Ok(()) => Ok(token),
            Err(error) => {
                self.registrations.remove(token);
                Err(refused(error, fd))
            }
        }
    }

    /// Changes what a registration tells and how often, and enables it. An event that is not
    /// delivered yet is taken back; what `fd` is ready for is told anew, under the new terms.
    ///
    /// With the terms that it has, this asks the kernel to look again: after a partial read of an
    /// edge-triggered descriptor, for example.
    ///
    /// # Errors
    ///
    /// `NotFound` when the registration is gone, or its descriptor was closed, or it is one-shot and
    /// its event is already on the way. `Unsupported` for an exclusive one. It is then as it was.
    pub fn modify(&mut self, token: Token, interest: Interest, mode: Mode) -> io::Result<()> {
        let interest = with_half_close(interest);
        let (poll_set, registration) = self.find(token)?;
        poll_set.modify_raw(registration.fd, token.into(), interest, mode.trigger())?;
        registration.withdraw();
        registration.interest = interest;
        registration.mode = mode;
        registration.watch = Watch::On;
        Ok(())
    }

    /// Lets a disabled registration tell again: what its descriptor is ready for now, and what
    /// follows. Nothing happens to one that is enabled.
    ///
    /// # Errors
    ///
    /// As [`modify`](Readiness::modify).
    pub fn enable(&mut self, token: Token) -> io::Result<()> {
        let (poll_set, registration) = self.find(token)?;
        if matches!(registration.watch, Watch::Off | Watch::OutOfReach) {
            watch(poll_set, token, registration)?;
        }
        Ok(())
    }

    /// Silences a registration until it is enabled. An event that is not delivered yet is taken
    /// back; nothing is lost by that, because enabling tells what the descriptor is ready for.
    ///
    /// # Errors
    ///
    /// `NotFound` when the registration is gone, or is one-shot and its event is already on the way.
    /// `Unsupported` for an exclusive one.
    pub fn disable(&mut self, token: Token) -> io::Result<()> {
        let (poll_set, registration) = self.find(token)?;
        if !matches!(registration.watch, Watch::Off | Watch::OutOfReach) {
            let silent = silence(poll_set, token, registration);
            registration.watch = if silent { Watch::Off } else { Watch::OutOfReach };
        }
        registration.withdraw();
        Ok(())
    }

    /// Ends a registration; says whether it stood. No event of it is delivered any more, not even
    /// one that is in the ring.
    pub fn unregister(&mut self, token: Token) -> bool {
        let Some(registration) = self.registrations.remove(token) else { return false };
        if let Some(poll_set) = &self.poll_set {
            take_out(poll_set, token, &registration);
        }
        true
    }

    /// How many registrations stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Whether no registration stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
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
    fn find(&mut self, token: Token) -> io::Result<(&PollSet, &mut Registration)> {
        let poll_set = self.poll_set.as_ref().ok_or_else(not_attached)?;
        let registration = self.registrations.get_mut(token);
        let registration = registration.ok_or_else(|| not_found("no such registration"))?;
        if registration.exclusive {
            let text = "the kernel does not let an exclusive registration be changed: \
                        unregister it and register the descriptor anew";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        if registration.watch == Watch::Over {
            return Err(not_found("the one-shot registration was told: its event is on the way"));
        }
        Ok((poll_set, registration))
    }
}

impl Source for Readiness {
    type Item = ReadyEvent;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.poll_set = Some(poll_set.clone());
        Ok(())
    }

    fn ready(&mut self, key: PollKey, ready: Ready) {
        let found = self.registrations.find(key);
        let found = found.and_then(|token| Some((token, self.registrations.get_mut(token)?)));
        let (Some((token, registration)), Some(poll_set)) = (found, &self.poll_set) else {
            self.strays += 1;
            return;
        };
        match registration.hear(ready) {
            Heard::Noted => {}
            Heard::Unwanted => self.strays += 1,
            Heard::Repeated => {
                if !silence(poll_set, token, registration) {
                    // It goes on to repeat, and tells when its event is delivered.
                    registration.watch = Watch::On;
                    self.strays += 1;
                }
            }
            // Now and not at the delivery: whoever gets the event may register the descriptor anew
            // at once, here or with another source of the queue.
            Heard::Finished => {
                let _ = poll_set.delete_raw(registration.fd, token.into());
            }
        }
        if registration.enlist() {
            self.told.push_back(token);
        }
    }

    fn flush(&mut self) -> io::Result<Due> {
        let Some(poll_set) = &self.poll_set else { return Ok(Due::OnWake) };
        for token in self.unmute.drain(..) {
            let registration = self.registrations.get_mut(token).filter(|r| r.may_unmute());
            // A descriptor that was closed meanwhile stays silent, as if it had not been muted.
            let _ = registration.map(|registration| watch(poll_set, token, registration));
        }
        Ok(if self.told.is_empty() { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<ReadyEvent>) -> io::Result<()> {
        while let Some(token) = self.told.pop_front() {
            let Some(registration) = self.registrations.get_mut(token) else { continue };
            let Some(ready) = registration.unlist() else { continue };
            if sink.push(token, ReadyEvent { token, key: registration.key, ready }).is_err() {
                registration.enlist();
                self.told.push_front(token);
                break;
            }
            registration.pushed();
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        let Some(registration) = self.registrations.get_mut(token) else { return false };
        match registration.deliver() {
            Delivery::Withheld => return false,
            Delivery::Handed => {}
            Delivery::HandedWithMore => {
                if registration.enlist() {
                    self.told.push_back(token);
                }
            }
            Delivery::HandedAndUnmute => self.unmute.push(token),
            Delivery::HandedLast => {
                self.registrations.remove(token);
            }
        }
        true
    }

    /// Takes every descriptor out of the set. The registrations end.
    fn detach(&mut self) {
        if let Some(poll_set) = self.poll_set.take() {
            for (token, registration) in self.registrations.iter() {
                take_out(&poll_set, token, registration);
            }
        }
        // Not a new table: a token of today shall name nothing tomorrow either.
        self.registrations.drain().for_each(drop);
        self.told.clear();
        self.unmute.clear();
    }
}

/// Lets the kernel tell of a registration, beginning with what is ready now.
fn watch(poll_set: &PollSet, token: Token, registration: &mut Registration) -> io::Result<()> {
    let Registration { fd, interest, mode, .. } = *registration;
    poll_set.modify_raw(fd, token.into(), interest, mode.trigger())?;
    registration.watch = Watch::On;
    Ok(())
}

/// Keeps the kernel from telling of a registration. `false` when its descriptor was closed: that is
/// as silent as can be, unless a duplicate is open.
///
/// Interest in nothing would not do: hang-up and errors are told all the same, for ever if
/// level-triggered. One-shot, they are told once. Taking the descriptor out of the set would be
/// silent at once, but then it could only be put back by its number, and that may be a stranger's
/// by then.
fn silence(poll_set: &PollSet, token: Token, registration: &Registration) -> bool {
    let fd = registration.fd;
    poll_set.modify_raw(fd, token.into(), Interest::NONE, Trigger::OneShot).is_ok()
}

/// Takes the descriptor of a registration out of the set, if it is still there.
fn take_out(poll_set: &PollSet, token: Token, registration: &Registration) {
    if registration.watch != Watch::Over {
        let _ = poll_set.delete_raw(registration.fd, token.into());
    }
}

fn with_half_close(interest: Interest) -> Interest {
    if interest.contains(Interest::READABLE) { interest | Interest::HALF_CLOSE } else { interest }
}

fn not_attached() -> io::Error {
    let text = "attach the readiness source to a queue before registering with it";
    io::Error::new(io::ErrorKind::NotConnected, text)
}

fn not_found(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// Says what to do about what epoll_ctl(2) refused.
fn refused(error: io::Error, fd: RawFd) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "descriptor {fd} is registered with this queue already: modify that registration, \
             or register a duplicate of the descriptor"
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
