//! The end of processes as events.
//!
//! Each process is a pidfd(2) in the queue's set. No handler of SIGCHLD, so nothing changes for the
//! rest of the program, and only children that were handed over are ever waited for.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use polling::{Event, Events, PollMode, Poller};

use crate::poll::{Interest, PollKey, PollSet, Ready, Trigger};
use crate::sink::Sink;
use crate::source::{Due, Source};
use crate::sources::signal::Signal;
use crate::sys::epoll;
use crate::sys::pidfd::PidFd;
use crate::table::Table;
use crate::token::Token;

/// A source of the ends of processes: children with their exit status, and any others.
///
/// ```
/// use std::process::Command;
/// use kevent_core::{ProcessEvent, Processes, Queue};
///
/// let mut queue = Queue::new()?;
/// let processes = queue.attach(Processes::new(), |event: ProcessEvent| event)?;
///
/// let child = Command::new("sh").args(["-c", "exit 3"]).spawn()?;
/// queue[processes].watch_child(child, 7)?;
///
/// queue.wait(None)?;
/// let event = queue.next().unwrap();
/// assert_eq!(event.key, 7);
/// assert_eq!(event.exit.unwrap().code(), Some(3));
/// # std::io::Result::Ok(())
/// ```
///
/// A watched child is waited for by the source, once, when it has ended: it leaves no zombie. That
/// holds also when the source is dropped before: children that still run then go to a thread of
/// their own (`kevent-reaper`), which waits for them and ends with the last. Their pipes are closed,
/// as dropping a [`Child`] does; they are not killed.
///
/// A stop (`SIGSTOP`) is no end, and says nothing. Needs Linux 5.3.
#[derive(Default)]
pub struct Processes {
    watches: Table<Watch>,
    /// Those that have, or may have, ended since the last drain.
    ended: VecDeque<Token>,
    poll_set: Option<PollSet>,
}

struct Watch {
    key: u64,
    pid: u32,
    /// None for a child that had ended before it was watched. Its number may be another's by now.
    pidfd: Option<PidFd>,
    child: Option<SharedChild>,
    /// The event is in the ring. A pidfd may become ready more than once.
    told: bool,
}

/// A child that the source and an event in the ring both hold on to: until the event is delivered, the
/// child is still to be had from the source. Whoever asks first gets it.
#[derive(Clone, Debug)]
struct SharedChild(Arc<Mutex<Option<Child>>>);

impl SharedChild {
    fn new(child: Child) -> SharedChild {
        SharedChild(Arc::new(Mutex::new(Some(child))))
    }

    fn take(&self) -> Option<Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for a child that has ended. std remembers the status, so this may be asked again.
    fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().map_or(Ok(None), Child::try_wait)
    }
}

impl Watch {
    /// The event, if the process has ended.
    fn event(&self, token: Token) -> Option<ProcessEvent> {
        let exit = match &self.child {
            // Not yet: a debugger that traces the child learns of its end first, and with the same
            // news. Once it lets go, the pidfd is ready again. An error means that somebody else has
            // waited for the child, or that SIGCHLD is ignored: the status is gone.
            Some(child) => match child.try_wait() {
                Ok(None) => return None,
                Ok(status) => status,
                Err(_) => None,
            },
            None => self.pidfd.as_ref().and_then(PidFd::peek_exit),
        };
        let child = self.child.clone();
        Some(ProcessEvent { token, key: self.key, pid: self.pid, exit, child })
    }

    /// Edge-triggered: an ended process is ready for ever.
    fn arm(&self, poll_set: Option<&PollSet>, token: Token) -> io::Result<()> {
        match (poll_set, &self.pidfd) {
            (Some(poll_set), Some(pidfd)) => {
                poll_set.add(pidfd.as_fd(), token.into(), Interest::READABLE, Trigger::Edge)
            }
            _ => Ok(()),
        }
    }
}

impl Processes {
    /// A source that watches no process yet.
    #[must_use]
    pub fn new() -> Processes {
        Processes::default()
    }

    /// Watches a child, and waits for it when it has ended. `key` comes back in the event.
    ///
    /// The child stays the source's until its event is delivered; then it is to be had from the event,
    /// with those of its pipes that were not taken before. A full pipe that nobody reads keeps a child
    /// from ending: take `stdout` before, and read it.
    ///
    /// # Errors
    ///
    /// The child comes back with the error: when the process may open no more descriptors (a watch
    /// takes one), or when the kernel has no pidfd_open(2) (`Unsupported`).
    pub fn watch_child(&mut self, mut child: Child, key: u64) -> Result<Token, WatchError> {
        let pid = child.id();
        let pidfd = match child.try_wait() {
            Ok(None) => match PidFd::open(pid) {
                Ok(pidfd) => Some(pidfd),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(WatchError { child, error }),
            },
            // It has ended. An error means that its status went elsewhere, which is for the event to
            // say: a child that ends a moment later has the same fate.
            Ok(Some(_)) | Err(_) => None,
        };
        let mut watch = Watch { key, pid, pidfd, child: None, told: false };
        let token = self.watches.try_insert_with(|token| {
            match watch.arm(self.poll_set.as_ref(), token) {
                Ok(()) => {
                    watch.child = Some(SharedChild::new(child));
                    Ok(watch)
                }
                Err(error) => Err(WatchError { child, error }),
            }
        })?;
        // If it had ended before, no descriptor will say so.
        self.look_at(token);
        Ok(token)
    }

    /// Watches any process. `key` comes back in the event.
    ///
    /// The event has the exit status if the process is a child of this one and nobody has waited for
    /// it yet. It is not waited for here either: that is left to whoever means to.
    ///
    /// By the time of this call the number may be another process's. Only that of a child which nobody
    /// has waited for can't be.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such process. `InvalidInput` for a number that can't be one; for a
    /// thread, the one or the other, as the kernel has it. `Unsupported` when the kernel has no
    /// pidfd_open(2). When the process may open no more descriptors.
    ///
    /// Source: pidfd_open(2).
    pub fn watch_pid(&mut self, pid: u32, key: u64) -> io::Result<Token> {
        let pidfd = Some(PidFd::open(pid)?);
        let watch = Watch { key, pid, pidfd, child: None, told: false };
        self.watches.try_insert_with(|token| {
            watch.arm(self.poll_set.as_ref(), token)?;
            Ok(watch)
        })
    }

    /// Ends a watch. No event of it comes out any more, not even one that is in the ring.
    ///
    /// Gives the child back if it was one: running, or ended and waited for. The source forgets it.
    pub fn unwatch(&mut self, token: Token) -> Option<Child> {
        self.watches.remove(token)?.child?.take()
    }

    /// Sends a signal to a watched process. Never hits another that has got its number.
    ///
    /// # Errors
    ///
    /// `NotFound` when the watch, or the process, has ended. `PermissionDenied` when the process is
    /// somebody else's.
    ///
    /// Source: pidfd_send_signal(2).
    pub fn kill(&self, token: Token, signal: Signal) -> io::Result<()> {
        let ended =
            || io::Error::new(io::ErrorKind::NotFound, "the process, or its watch, has ended");
        let pidfd = self.watches.get(token).and_then(|watch| watch.pidfd.as_ref());
        pidfd.ok_or_else(ended)?.send_signal(signal.as_raw()).map_err(|error| {
            if error.raw_os_error() == Some(libc::ESRCH) { ended() } else { error }
        })
    }

    /// How many processes are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether no process is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Has the next drain look at a watch that has no descriptor.
    fn look_at(&mut self, token: Token) {
        let silent = self.watches.get(token).is_some_and(|watch| watch.pidfd.is_none());
        if let (true, Some(poll_set)) = (silent, &self.poll_set) {
            self.ended.push_back(token);
            poll_set.waker().changed();
        }
    }
}

impl Source for Processes {
    type Item = ProcessEvent;

    fn probe() -> io::Result<()> {
        PidFd::open(std::process::id()).map(drop)
    }

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.poll_set = Some(poll_set.clone());
        // The source may have been in another queue: what was in that one's ring is told again.
        self.ended.clear();
        let tokens: Vec<_> = self.watches.iter().map(|(token, _)| token).collect();
        for token in tokens {
            if let Some(watch) = self.watches.get_mut(token) {
                watch.told = false;
                watch.arm(self.poll_set.as_ref(), token)?;
            }
            self.look_at(token);
        }
        Ok(())
    }

    fn ready(&mut self, key: PollKey, _: Ready) {
        self.ended.extend(self.watches.find(key));
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.ended.is_empty() { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<ProcessEvent>) -> io::Result<()> {
        while let Some(token) = self.ended.front().copied() {
            if let Some(watch) = self.watches.get_mut(token).filter(|watch| !watch.told) {
                if let Some(event) = watch.event(token) {
                    if sink.push(token, event).is_err() {
                        break;
                    }
                    watch.told = true;
                }
            }
            self.ended.pop_front();
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        self.watches.remove(token).is_some()
    }

    fn detach(&mut self) {
        self.poll_set = None;
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let mut running = Vec::new();
        for Watch { pidfd, child, .. } in self.watches.drain() {
            let child = child.and_then(|child| child.take());
            if let (Some(mut child), Some(pidfd)) = (child, pidfd) {
                drop((child.stdin.take(), child.stdout.take(), child.stderr.take()));
                if let Ok(None) = child.try_wait() {
                    running.push((child, pidfd));
                }
            }
        }
        if !running.is_empty() {
            // Where no thread can be had, the children are zombies until this process ends: there is
            // nobody left to tell.
            let reaper = thread::Builder::new().name("kevent-reaper".to_owned());
            let _ = reaper.spawn(move || reap(running));
        }
    }
}

/// Waits for each of the children as it ends.
fn reap(children: Vec<(Child, PidFd)>) {
    let mut children: Vec<_> = children.into_iter().map(Some).collect();
    if reap_as_they_end(&mut children).is_err() {
        // No descriptors for a set. In the order given, then: an early end may have to wait.
        for (mut child, _) in children.into_iter().flatten() {
            let _ = child.wait();
        }
    }
}

fn reap_as_they_end(children: &mut [Option<(Child, PidFd)>]) -> io::Result<()> {
    let poller = Poller::new()?;
    for (index, (_, pidfd)) in children.iter().flatten().enumerate() {
        epoll::add(&poller, pidfd.as_fd(), Event::readable(index), PollMode::Edge)?;
    }
    let mut left = children.len();
    let mut events = Events::new();
    while left > 0 {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            let reaped = children.get_mut(event.key).and_then(|child| {
                child.take_if(|(child, _)| !matches!(child.try_wait(), Ok(None)))
            });
            left -= usize::from(reaped.is_some());
        }
    }
    Ok(())
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pids: Vec<_> = self.watches.iter().map(|(_, watch)| watch.pid).collect();
        f.debug_struct("Processes").field("pids", &pids).finish_non_exhaustive()
    }
}

/// A process has ended, and with it its watch.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProcessEvent {
    /// The watch.
    pub token: Token,
    /// What the process was watched under.
    pub key: u64,
    /// Its number, which may be another process's by now.
    pub pid: u32,
    /// How it ended. `None` for a process that is not a child of this one, or whose status somebody
    /// else took: with wait(2) for any child, or by ignoring `SIGCHLD`.
    pub exit: Option<ExitStatus>,
    child: Option<SharedChild>,
}

impl ProcessEvent {
    /// The end of no process, for tests: see [`testing::Sim::inject`](crate::testing::Sim::inject).
    #[must_use]
    pub fn for_test(key: u64, pid: u32, exit: Option<ExitStatus>) -> ProcessEvent {
        ProcessEvent { token: Token::SOLE, key, pid, exit, child: None }
    }

    /// The child, which has been waited for, with those of its pipes that were not taken before. What
    /// it wrote into them last can still be read. `None` if it was watched by its pid.
    #[must_use]
    pub fn into_child(self) -> Option<Child> {
        self.child?.take()
    }
}

/// Why a child could not be watched, with the child.
#[derive(Debug)]
pub struct WatchError {
    child: Child,
    error: io::Error,
}

impl WatchError {
    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The child, which runs on and is nobody's but the caller's.
    #[must_use]
    pub fn into_child(self) -> Child {
        self.child
    }
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the child {} is not watched: {}", self.child.id(), self.error)
    }
}

impl Error for WatchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl From<WatchError> for io::Error {
    /// Lets `?` through, and with it the child go.
    fn from(error: WatchError) -> io::Error {
        io::Error::new(error.error.kind(), error)
    }
}
