//! Counters that anybody may add to: other threads, other processes, the kernel.
//!
//! Each is an eventfd(2) in the queue's set. The kernel adds up what was not read yet, so a counter
//! is never full of news, and an event costs two system calls however often was added.
//!
//! There is no watch of a plain word in memory (futex(2)). The kernel offers no descriptor for one:
//! it takes a thread that blocks, or an io_uring (`IORING_OP_FUTEX_WAIT`), which this crate does
//! not have. Whoever changes the word adds to a counter, too.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::poll::{Interest, PollKey, PollSet, Ready, Trigger};
use crate::sink::Sink;
use crate::source::{Due, Source};
use crate::sys::eventfd;
use crate::table::Table;
use crate::token::Token;
use crate::unsupported::{is_missing_call, unsupported};

/// A source of counters.
///
/// ```
/// use kevent_core::{CounterEvent, Counters, Queue};
///
/// let mut queue = Queue::new()?;
/// let counters = queue.attach(Counters::new(), |event: CounterEvent| event)?;
/// let (_, adder) = queue[counters].sum(7)?;
///
/// adder.add(2)?;
/// std::thread::spawn(move || adder.add(40)).join().unwrap()?;
///
/// queue.wait(None)?;
/// let event = queue.next().unwrap();
/// assert_eq!((event.key, event.value), (7, 42));
/// # std::io::Result::Ok(())
/// ```
///
/// What is added between two looks of the queue is one event with the sum. A counter of the other
/// kind, a [`semaphore`](Counters::semaphore), has an event of value one for each unit.
///
/// An [`Adder`] is a descriptor: given to another process, or to whatever in the kernel counts into
/// an eventfd (asynchronous I/O, KVM, vhost), it adds from there. Each counter takes one
/// descriptor. What the queue has read belongs to it: it is lost with the registration or the
/// source, as a post is.
///
/// Source: eventfd(2).
#[derive(Debug, Default)]
pub struct Counters {
    counters: Table<Counter>,
    /// Those that may have something, each once.
    ready: VecDeque<Token>,
    poll_set: Option<PollSet>,
}

#[derive(Debug)]
struct Counter {
    key: u64,
    file: Arc<File>,
    /// One read may not have taken everything.
    many: bool,
    /// It is among those that are ready.
    queued: bool,
    /// Was read, and found no room.
    held: u64,
}

impl Counters {
    /// A source without counters yet.
    #[must_use]
    pub fn new() -> Counters {
        Counters::default()
    }

    /// A new counter, whose events have what was added since the last. `key` comes back in them.
    ///
    /// # Errors
    ///
    /// When the process may open no more descriptors.
    pub fn sum(&mut self, key: u64) -> io::Result<(Token, Adder)> {
        self.insert(create(eventfd::sum)?, key, false)
    }

    /// A new counter, which has an event of value one for each unit that was added. Where several
    /// processes [`adopt`](Counters::adopt) it, each unit goes to one of them.
    ///
    /// # Errors
    ///
    /// As [`sum`](Counters::sum).
    pub fn semaphore(&mut self, key: u64) -> io::Result<(Token, Adder)> {
        self.insert(create(eventfd::semaphore)?, key, true)
    }

    /// An eventfd that was made elsewhere, of which a duplicate is kept: one or the other kind of
    /// counter, as it was made.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what is no eventfd, and for one that blocks: make it with `EFD_NONBLOCK`.
    /// When the process may open no more descriptors.
    pub fn adopt(&mut self, fd: impl AsFd, key: u64) -> io::Result<(Token, Adder)> {
        self.insert(duplicate(fd.as_fd())?, key, true)
    }

    /// Removes a counter. No event of it comes out any more, not even one that is in the ring. Its
    /// adders go on to add, and nobody looks. `false` when it was removed before.
    pub fn remove(&mut self, token: Token) -> bool {
        let Some(counter) = self.counters.remove(token) else { return false };
        if counter.queued {
            self.ready.retain(|ready| *ready != token);
        }
        // An adder keeps it open, so it would stay in the set. It is there, so this can't fail.
        if let Some(poll_set) = &self.poll_set {
            let _ = poll_set.delete(counter.file.as_fd());
        }
        true
    }

    /// How many counters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// Whether there is no counter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    fn insert(&mut self, fd: OwnedFd, key: u64, many: bool) -> io::Result<(Token, Adder)> {
        let file = Arc::new(File::from(fd));
        let adder = Adder(Arc::clone(&file));
        let token = self.counters.try_insert_with(|token| {
            let counter = Counter { key, file, many, queued: false, held: 0 };
            self.poll_set.as_ref().map_or(Ok(()), |poll_set| counter.arm(poll_set, token))?;
            Ok::<_, io::Error>(counter)
        })?;
        Ok((token, adder))
    }
}

impl Counter {
    /// Edge-triggered, where each addition counts as news: so a counter need not be read until it
    /// is empty. One that has something already is told at once.
    fn arm(&self, poll_set: &PollSet, token: Token) -> io::Result<()> {
        poll_set.add(self.file.as_fd(), token.into(), Interest::READABLE, Trigger::Edge)
    }

    /// Moves what it has. `false` when there is no more room.
    fn drain(&mut self, token: Token, sink: &mut impl Sink<CounterEvent>) -> io::Result<bool> {
        loop {
            let reads = self.held == 0;
            if reads {
                // What is left in a counter, others may read.
                if sink.room() == 0 {
                    return Ok(false);
                }
                let Some(value) = read(&self.file)? else { return Ok(true) };
                self.held = value;
            }
            let event = CounterEvent { token, key: self.key, value: self.held };
            if sink.push(token, event).is_err() {
                return Ok(false);
            }
            self.held = 0;
            // What was held was read before, and more may have come since.
            if reads && !self.many {
                return Ok(true);
            }
        }
    }
}

impl Source for Counters {
    type Item = CounterEvent;

    fn probe() -> io::Result<()> {
        create(eventfd::sum).map(drop)
    }

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        for (token, counter) in self.counters.iter() {
            counter.arm(poll_set, token)?;
        }
        self.poll_set = Some(poll_set.clone());
        Ok(())
    }

    fn ready(&mut self, key: PollKey, _: Ready) {
        let Some(token) = self.counters.find(key) else { return };
        if let Some(counter) = self.counters.get_mut(token).filter(|counter| !counter.queued) {
            counter.queued = true;
            self.ready.push_back(token);
        }
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.ready.is_empty() { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<CounterEvent>) -> io::Result<()> {
        while let Some(token) = self.ready.front().copied() {
            if let Some(counter) = self.counters.get_mut(token) {
                if !counter.drain(token, sink)? {
                    // A semaphore with many units lets the others go first next time.
                    self.ready.rotate_left(1);
                    break;
                }
                counter.queued = false;
            }
            self.ready.pop_front();
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        self.counters.get(token).is_some()
    }

    fn detach(&mut self) {
        self.poll_set = None;
    }
}

/// Adds to a counter of a [`Counters`], from any thread. Clones add to the same.
///
/// [`AsFd`] is the descriptor to hand to another process; there, [`Adder::adopt`] takes it. It is closed
/// when a program is executed, unless it is made a standard stream of that, or duplicated.
#[derive(Clone, Debug)]
pub struct Adder(Arc<File>);

impl Adder {
    /// Adds `value` and wakes who waits; adding zero does nothing. One system call, which never
    /// blocks.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, and nothing is added, when the sum would be more than 2⁶⁴ - 2. `InvalidInput`
    /// for a value that is by itself.
    pub fn add(&self, value: u64) -> io::Result<()> {
        if value == 0 {
            return Ok(());
        }
        loop {
            match (&*self.0).write(&value.to_ne_bytes()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                written => return written.map(drop),
            }
        }
    }

    /// An adder to the counter behind `fd`, which another process made. A duplicate of it is kept.
    ///
    /// # Errors
    ///
    /// As [`Counters::adopt`].
    pub fn adopt(fd: impl AsFd) -> io::Result<Adder> {
        duplicate(fd.as_fd()).map(|fd| Adder(Arc::new(File::from(fd))))
    }
}

impl AsFd for Adder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Something was added to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterEvent {
    /// The registration.
    pub token: Token,
    /// What the counter was registered under.
    pub key: u64,
    /// How much was added since the last event of it; one for a semaphore.
    pub value: u64,
}

impl CounterEvent {
    /// One of no counter, for tests: see [`testing::Sim::inject`](crate::testing::Sim::inject).
    #[must_use]
    pub fn for_test(key: u64, value: u64) -> CounterEvent {
        CounterEvent { token: Token::SOLE, key, value }
    }
}

fn create(make: fn() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    make().map_err(|error| {
        if is_missing_call(&error) {
            unsupported("counting", "eventfd(2), and a seccomp filter that allows it")
        } else {
            error
        }
    })
}

/// Takes what the counter has: `None` when that is nothing.
fn read(mut file: &File) -> io::Result<Option<u64>> {
    let mut value = [0; 8];
    loop {
        match file.read(&mut value) {
            Ok(8) => return Ok(Some(u64::from_ne_bytes(value))),
            Ok(_) => return Err(not_a_counter()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A duplicate of `fd`, if that can be a counter here.
fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // Where /proc is not mounted there is no way to tell.
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if link.is_ok_and(|link| link.as_os_str() != "anon_inode:[eventfd]") {
        return Err(not_a_counter());
    }
    if !eventfd::is_nonblocking(fd)? {
        let text = "this eventfd blocks: make it with EFD_NONBLOCK, or set O_NONBLOCK by fcntl(2)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    fd.try_clone_to_owned()
}

fn not_a_counter() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a counter is an eventfd, and this is none")
}
