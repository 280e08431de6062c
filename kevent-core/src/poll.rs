//! What a source may ask of the queue's poll set.

use std::fmt;
use std::io;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use polling::Poller;

use crate::clock::Clock;
use crate::descriptors::ByDescriptor;
use crate::sys::epoll::{self, Change};
use crate::sys::poll;
use crate::token::Token;
use crate::waker::Waker;

/// What to be told of a file descriptor. Hang-up and errors are always told.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u32);

impl Interest {
    /// Nothing but hang-up and errors.
    pub const NONE: Interest = Interest(0);
    /// There is something to read.
    pub const READABLE: Interest = Interest(epoll::IN);
    /// There is room to write.
    pub const WRITABLE: Interest = Interest(epoll::OUT);
    /// There is urgent data, or another exceptional condition of the file (see `POLLPRI` in
    /// poll(2)).
    pub const PRIORITY: Interest = Interest(epoll::PRI);
    /// The peer has closed its writing side.
    pub const HALF_CLOSE: Interest = Interest(epoll::RDHUP);

    /// Whether all of `other` is asked for.
    #[must_use]
    #[inline]
    pub fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Interest {
    type Output = Interest;
    #[inline]
    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Ready(self.0), f)
    }
}

/// When to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// As long as the condition holds.
    Level,
    /// When something new happens. What an event announced must be used up (until `WouldBlock`)
    /// before the next one can be relied on.
    Edge,
    /// Once; then the registration is silent until it is modified.
    OneShot,
}

/// What a file descriptor is ready for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ready(u32);

impl Ready {
    #[inline]
    pub(crate) fn new(bits: u32) -> Ready {
        Ready(bits)
    }

    /// Nothing.
    #[must_use]
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What of it somebody wants to know who asked for `interest`: hang-up and errors in any case.
    #[must_use]
    #[inline]
    pub fn wanted(self, interest: Interest) -> Ready {
        Ready(self.0 & (interest.0 | epoll::HUP | epoll::ERR))
    }

    /// There is something to read: data, a connection to accept, or the end of the stream.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.0 & (epoll::IN | epoll::RDHUP | epoll::HUP | epoll::ERR) != 0
    }

    /// There is room to write, or writing will tell the error.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.0 & (epoll::OUT | epoll::HUP | epoll::ERR) != 0
    }

    /// There is urgent data.
    #[must_use]
    pub fn is_priority(self) -> bool {
        self.0 & epoll::PRI != 0
    }

    /// The peer has closed its writing side: what is buffered can still be read, then comes the end.
    #[must_use]
    pub fn is_half_closed(self) -> bool {
        self.0 & (epoll::RDHUP | epoll::HUP) != 0
    }

    /// Both directions are closed.
    #[must_use]
    pub fn is_hung_up(self) -> bool {
        self.0 & epoll::HUP != 0
    }

    /// An error is pending (`SO_ERROR` of a socket), or the reading end of a pipe is gone.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.0 & epoll::ERR != 0
    }

    /// The flags as epoll(7) gave them.
    #[must_use]
    #[inline]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Ready {
    type Output = Ready;
    #[inline]
    fn bitor(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }
}

impl BitOrAssign for Ready {
    #[inline]
    fn bitor_assign(&mut self, other: Ready) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u32, &str); 6] = [
            (epoll::IN, "IN"),
            (epoll::OUT, "OUT"),
            (epoll::PRI, "PRI"),
            (epoll::RDHUP, "RDHUP"),
            (epoll::HUP, "HUP"),
            (epoll::ERR, "ERR"),
        ];
        let names = NAMES.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name);
        f.write_str(&names.collect::<Vec<_>>().join("|"))
    }
}

/// Under which name a source finds its own file descriptor again, in [`Source::ready`].
///
/// A source with one descriptor uses the default; one with many uses the registrations' tokens, and
/// [`Table::find`] on the way back.
///
/// [`Source::ready`]: crate::Source::ready
/// [`Table::find`]: crate::Table::find
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollKey {
    pub(crate) slot: u32,
    /// The low half of the token's generation. The kernel carries 64 bits for us and the source's
    /// number needs 16 of them. It only has to tell an fd that was closed behind our back, and
    /// still speaks through a duplicate, from the slot's next tenant.
    pub(crate) generation: u16,
}

impl From<Token> for PollKey {
    #[inline]
    fn from(token: Token) -> PollKey {
        PollKey { slot: token.slot(), generation: token.generation() as u16 }
    }
}

/// One source's share of the queue's epoll set. A source gets it when it is attached.
///
/// All sources share one set: so waiting is one system call, however many descriptors there are.
#[derive(Clone)]
pub struct PollSet {
    poller: Arc<Poller>,
    owners: Owners,
    waker: Waker,
    clock: Clock,
    source: u16,
}

impl PollSet {
    pub(crate) fn new(
        poller: Arc<Poller>,
        owners: Owners,
        waker: Waker,
        clock: Clock,
        source: u16,
    ) -> PollSet {
        PollSet { poller, owners, waker, clock, source }
    }

    /// Adds `fd`.
    ///
    /// The set does not keep `fd` open. When its last descriptor is closed the kernel drops it from
    /// the set, without a word.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when the set has it, also for another source: epoll takes a file once.
    /// `PermissionDenied` for what epoll does not take: regular files and directories.
    ///
    /// Source: epoll_ctl(2).
    pub fn add(
        &self,
        fd: BorrowedFd<'_>,
        key: PollKey,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        self.put(Change::Add, fd.as_raw_fd(), key, flags(interest, trigger))
    }

    /// Adds `fd` so that, of several sets that wait for it, one is woken and not all: for a listener
    /// that several threads share.
    ///
    /// # Errors
    ///
    /// As [`add`](PollSet::add).
    ///
    /// Source: `EPOLLEXCLUSIVE` in epoll_ctl(2).
    pub fn add_exclusive(
        &self,
        fd: BorrowedFd<'_>,
        key: PollKey,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        // The kernel takes EXCLUSIVE with IN, OUT and ET only.
        let allowed = epoll::IN | epoll::OUT | epoll::ET;
        let flags = flags(interest, trigger) & allowed | epoll::EXCLUSIVE;
        self.put(Change::Add, fd.as_raw_fd(), key, flags)
    }

    /// Changes what is asked of `fd`, which is in the set. What is ready already is told again.
    ///
    /// # Errors
    ///
    /// `NotFound` when `fd` is not in the set; `InvalidInput` when it was added by
    /// [`add_exclusive`](PollSet::add_exclusive): delete and add it instead.
    pub fn modify(
        &self,
        fd: BorrowedFd<'_>,
        key: PollKey,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        self.put(Change::Modify, fd.as_raw_fd(), key, flags(interest, trigger))
    }

    /// Takes `fd` out of the set.
    ///
    /// # Errors
    ///
    /// `NotFound` when `fd` is not in the set.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut owners = self.owners.lock();
        self.poller.delete(fd)?;
        owners.remove(fd.as_raw_fd());
        Ok(())
    }

    /// As [`modify`](PollSet::modify), for a source that was lent a descriptor once and knows its
    /// number only. When the descriptor was closed meanwhile nothing happens, also when the number
    /// was given out again and is in the set for somebody else.
    ///
    /// # Errors
    ///
    /// `NotFound` when what was added under `key` is not in the set as that number any more.
    pub fn modify_raw(
        &self,
        fd: RawFd,
        key: PollKey,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        self.replace_raw(fd, key, key, interest, trigger)
    }

    /// As [`modify_raw`](PollSet::modify_raw), and `key` gives way to `new_key`.
    ///
    /// # Errors
    ///
    /// As [`modify_raw`](PollSet::modify_raw).
    pub fn replace_raw(
        &self,
        fd: RawFd,
        key: PollKey,
        new_key: PollKey,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        let data = self.pack(new_key);
        let mut owners = self.owners.lock();
        if owners.get(fd) != Some(self.pack(key)) {
            return Err(gone(fd));
        }
        let changed = self.control(Change::Modify, fd, flags(interest, trigger), data);
        changed.map_err(|error| closed_is_gone(error, fd))?;
        owners.insert(fd, data);
        Ok(())
    }

    /// Under which key this source has added `fd`, if it has.
    #[must_use]
    pub fn key_raw(&self, fd: RawFd) -> Option<PollKey> {
        let (source, key) = unpack(self.owners.lock().get(fd)?);
        (source == self.source).then_some(key)
    }

    /// What of `interest` holds for `fd` now, asked of poll(2): the entry in the set is not touched.
    /// Nothing, when the number is not open. When it was given out again, the answer is about its new
    /// owner's file: see [`holds_raw`](PollSet::holds_raw).
    ///
    /// # Errors
    ///
    /// When the kernel is out of memory.
    pub fn ready_raw(&self, fd: RawFd, interest: Interest) -> io::Result<Ready> {
        Ok(Ready(poll::now(fd, interest.0)?.unwrap_or_default()))
    }

    /// Whether `fd` is still the file that was added under `key`: a source that was lent a descriptor
    /// can't see that its number was closed and given out again. One or two system calls.
    #[must_use]
    pub fn holds_raw(&self, fd: RawFd, key: PollKey) -> bool {
        let owners = self.owners.lock();
        if owners.get(fd) != Some(self.pack(key)) {
            return false;
        }
        // epoll finds an entry by number and file together, so it refuses what it has, and takes a
        // stranger: for a moment, silent, and in the name of nobody.
        match self.control(Change::Add, fd, epoll::ONESHOT, NOBODY) {
            Err(error) => error.raw_os_error() == Some(epoll::EEXIST),
            Ok(()) => {
                let _ = self.control(Change::Delete, fd, 0, 0);
                false
            }
        }
    }

    /// As [`delete`](PollSet::delete), for a source that was lent a descriptor once and knows its
    /// number only; see [`modify_raw`](PollSet::modify_raw).
    ///
    /// # Errors
    ///
    /// As [`modify_raw`](PollSet::modify_raw).
    pub fn delete_raw(&self, fd: RawFd, key: PollKey) -> io::Result<()> {
        let mut owners = self.owners.lock();
        if owners.get(fd) != Some(self.pack(key)) {
            return Err(gone(fd));
        }
        owners.remove(fd);
        let deleted = self.control(Change::Delete, fd, 0, 0);
        deleted.map_err(|error| closed_is_gone(error, fd))
    }

    /// Takes out all that the source has in the set. What was closed is out of reach: the kernel has
    /// dropped it, or it lives on through a duplicate.
    pub(crate) fn clear(&self) {
        let mut owners = self.owners.lock();
        let mine = owners.iter().filter(|(_, data)| unpack(*data).0 == self.source);
        for fd in mine.map(|(fd, _)| fd).collect::<Vec<_>>() {
            let _ = self.control(Change::Delete, fd, 0, 0);
            owners.remove(fd);
        }
    }

    /// Makes an entry, or another one of it, and remembers whose it is.
    fn put(&self, change: Change, fd: RawFd, key: PollKey, flags: u32) -> io::Result<()> {
        let data = self.pack(key);
        let mut owners = self.owners.lock();
        self.control(change, fd, flags, data)?;
        owners.insert(fd, data);
        Ok(())
    }

    fn control(&self, change: Change, fd: RawFd, flags: u32, data: u64) -> io::Result<()> {
        epoll::control(&self.poller, change, fd, flags, data)
    }

    /// What wakes the queue from another thread.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// For [`Source::flush`](crate::Source::flush): whether the source is going to be asked again before
    /// anybody sleeps. One to whom it costs something to call the queue may leave that off until it is asked
    /// and this is `false`; it then calls from before it looks what it has.
    #[must_use]
    #[inline]
    pub fn is_awake(&self) -> bool {
        !self.waker.is_asleep() && !self.waker.is_exported()
    }

    /// For [`Source::ready`](crate::Source::ready), under [`Order::Strict`](crate::Order::Strict): when the
    /// kernel told this, before what it tells next, of whichever source. `None` under any other order.
    #[must_use]
    #[inline]
    pub fn told_at(&self) -> Option<Instant> {
        self.waker.wants_stamps().then(|| self.clock.turn())
    }

    /// The clock by which the queue goes.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn pack(&self, key: PollKey) -> u64 {
        u64::from(self.source) << 48 | u64::from(key.generation) << 32 | u64::from(key.slot)
    }
}

impl fmt::Debug for PollSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollSet")
            .field("epoll", &self.poller.as_fd())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Which entry of the set a number stands for: the packed key under which it was last added.
///
/// epoll finds an entry by number and open file together. A number that was closed and given out
/// again names another file, and may be in the set for another source: without this record, whoever
/// still knows the number of old would take out the entry of its new owner.
///
/// The lock is held during the system call, so that record and set agree.
#[derive(Clone, Default)]
pub(crate) struct Owners(Arc<Mutex<ByDescriptor>>);

impl Owners {
    fn lock(&self) -> MutexGuard<'_, ByDescriptor> {
        // No caller panics between the system call and the record of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that the queue gives to no source: what is told under it is nobody's.
const NOBODY: u64 = u64::MAX;

fn gone(fd: RawFd) -> io::Error {
    let text = format!("descriptor {fd} was closed, or taken out of the queue's set");
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// For a number that is not given out at the moment epoll_ctl(2) says EBADF instead of ENOENT.
fn closed_is_gone(error: io::Error, fd: RawFd) -> io::Error {
    match error.raw_os_error() {
        Some(epoll::EBADF | epoll::ENOENT) => gone(fd),
        _ => error,
    }
}

/// What [`PollSet::pack`] packed.
pub(crate) fn unpack(data: u64) -> (u16, PollKey) {
    ((data >> 48) as u16, PollKey { slot: data as u32, generation: (data >> 32) as u16 })
}

fn flags(interest: Interest, trigger: Trigger) -> u32 {
    interest.bits()
        | match trigger {
            Trigger::Level => 0,
            Trigger::Edge => epoll::ET,
            Trigger::OneShot => epoll::ONESHOT,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    const KEY: PollKey = PollKey { slot: 3, generation: 7 };

    /// Two sources of one queue.
    fn two_poll_sets() -> (PollSet, PollSet) {
        let (poller, owners) = (Arc::new(Poller::new().unwrap()), Owners::default());
        let waker = Waker::new(Clock::real()).unwrap();
        let clock = Clock::real();
        let of = |n| {
            let poller = Arc::clone(&poller);
            PollSet::new(poller, owners.clone(), waker.clone(), clock.clone(), n)
        };
        (of(1), of(2))
    }

    fn add(poll_set: &PollSet, fd: &impl AsFd) {
        poll_set.add(fd.as_fd(), KEY, Interest::READABLE, Trigger::Level).unwrap();
    }

    /// Whether `fd` is in the set: deleting says so.
    fn delete(poll_set: &PollSet, fd: &impl AsFd) -> bool {
        poll_set.delete(fd.as_fd()).is_ok()
    }

    #[test]
    fn raw_number_finds_the_entry_of_its_own_key() {
        let (mine, _) = two_poll_sets();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let number = socket.as_raw_fd();
        add(&mine, &socket);
        mine.modify_raw(number, KEY, Interest::NONE, Trigger::OneShot).unwrap();
        mine.delete_raw(number, KEY).unwrap();
        let again = mine.delete_raw(number, KEY).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::NotFound);
        assert!(!delete(&mine, &socket), "it is out of the set");
    }

    #[test]
    fn raw_number_of_a_closed_descriptor_is_not_found() {
        let (mine, _) = two_poll_sets();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let number = socket.as_raw_fd();
        add(&mine, &socket);
        drop(socket);
        let error = mine.modify_raw(number, KEY, Interest::NONE, Trigger::Level).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn number_is_held_until_it_is_deleted_or_is_another_file() {
        let (mine, theirs) = two_poll_sets();
        let (socket, peer) = UnixStream::pair().unwrap();
        let number = socket.as_raw_fd();
        add(&mine, &socket);
        assert_eq!(mine.key_raw(number), Some(KEY));
        assert_eq!(theirs.key_raw(number), None);
        assert!(mine.holds_raw(number, KEY) && !theirs.holds_raw(number, KEY));
        // As if the record were of a file that is gone and the number of another one.
        mine.owners.lock().insert(peer.as_raw_fd(), mine.pack(KEY));
        assert!(!mine.holds_raw(peer.as_raw_fd(), KEY));
        assert!(!delete(&mine, &peer), "and asking leaves nothing behind");
        assert!(delete(&mine, &socket));
        assert!(!mine.holds_raw(number, KEY));
    }

    #[test]
    fn what_holds_now_is_told_in_the_words_of_epoll() {
        use std::io::Write;
        let (mine, _) = two_poll_sets();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let all = Interest::READABLE | Interest::WRITABLE | Interest::HALF_CLOSE;
        let ready = |interest| mine.ready_raw(socket.as_raw_fd(), interest).unwrap();
        assert_eq!(ready(Interest::READABLE), Ready::default());
        assert_eq!(ready(all), Ready(epoll::OUT));
        peer.write_all(b"x").unwrap();
        assert_eq!(ready(all), Ready(epoll::OUT | epoll::IN));
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(ready(Interest::HALF_CLOSE), Ready(epoll::RDHUP));
        drop(peer);
        assert_eq!(ready(Interest::NONE), Ready(epoll::HUP));
        assert_eq!(mine.ready_raw(-1, all).unwrap(), Ready::default());
    }

    #[test]
    fn raw_number_does_not_reach_the_entry_of_another_source() {
        let (mine, theirs) = two_poll_sets();
        let (socket, _peer) = UnixStream::pair().unwrap();
        // As if the number had been closed and given out again: it is in the set, but not as mine.
        add(&theirs, &socket);
        let number = socket.as_raw_fd();
        let error = mine.delete_raw(number, KEY).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(mine.modify_raw(number, KEY, Interest::NONE, Trigger::Level).is_err());
        assert!(delete(&theirs, &OwnedFd::from(socket)), "it is still in the set");
    }
}
