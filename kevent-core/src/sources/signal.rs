//! Signals as events.
//!
//! A handler writes each delivery into a pipe, and the queue reads that. Not signalfd(2): that one
//! sees only signals which are blocked in *every* thread, and threads that exist already, or that a
//! library starts, can't be told to block them.
//!
//! What a signal does is a property of the process and not of a queue. So there is global state
//! behind this source, and nowhere else in the crate: see `sys::signal`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::poll::{Interest, PollKey, PollSet, Trigger};
use crate::sink::{Full, Sink};
use crate::source::Source;
use crate::sys::signal::{Claim, Pipe, Record, realtime_range};
use crate::table::Table;
use crate::token::Token;

/// A signal, by its number.
///
/// ```
/// use kevent_core::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!(Signal::from_raw(15), Signal::TERM);
/// assert_eq!(Signal::realtime(1).unwrap().to_string(), "SIGRTMIN+1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

impl Signal {
    /// `SIGHUP`: the terminal is gone; by custom also "read your configuration again".
    pub const HUP: Signal = Signal(libc::SIGHUP);
    /// `SIGINT`: Ctrl-C.
    pub const INT: Signal = Signal(libc::SIGINT);
    /// `SIGQUIT`: Ctrl-\.
    pub const QUIT: Signal = Signal(libc::SIGQUIT);
    /// `SIGABRT`: abort(3). That ends the program even when the signal is handled.
    pub const ABRT: Signal = Signal(libc::SIGABRT);
    /// `SIGKILL`: ends a process, whatever it does. Can be sent, not handled.
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// `SIGUSR1`: for the program's own use.
    pub const USR1: Signal = Signal(libc::SIGUSR1);
    /// `SIGUSR2`: for the program's own use.
    pub const USR2: Signal = Signal(libc::SIGUSR2);
    /// `SIGPIPE`: a write to a pipe or socket that nobody reads. Rust programs ignore it.
    pub const PIPE: Signal = Signal(libc::SIGPIPE);
    /// `SIGALRM`: alarm(2).
    pub const ALRM: Signal = Signal(libc::SIGALRM);
    /// `SIGTERM`: please end.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// `SIGCHLD`: a child ended, stopped or went on. [`Processes`](crate::Processes) does not need it.
    pub const CHLD: Signal = Signal(libc::SIGCHLD);
    /// `SIGCONT`: go on after a stop.
    pub const CONT: Signal = Signal(libc::SIGCONT);
    /// `SIGSTOP`: stops a process, whatever it does. Can be sent, not handled.
    pub const STOP: Signal = Signal(libc::SIGSTOP);
    /// `SIGTSTP`: Ctrl-Z.
    pub const TSTP: Signal = Signal(libc::SIGTSTP);
    /// `SIGURG`: urgent data on a socket.
    pub const URG: Signal = Signal(libc::SIGURG);
    /// `SIGWINCH`: the terminal's window changed its size.
    pub const WINCH: Signal = Signal(libc::SIGWINCH);
    /// `SIGIO`: a descriptor with `O_ASYNC` got ready.
    pub const IO: Signal = Signal(libc::SIGIO);
    /// `SIGPWR`: the power fails.
    pub const PWR: Signal = Signal(libc::SIGPWR);

    /// The realtime signal `SIGRTMIN + n`; `None` beyond the last. Unlike the others, those queue up:
    /// N sent are N events, each with its value.
    #[must_use]
    pub fn realtime(n: u8) -> Option<Signal> {
        let (first, last) = realtime_range();
        let number = first + i32::from(n);
        (number <= last).then_some(Signal(number))
    }

    /// The signal with that number, which need not exist: [`Signals::add`] says whether it does.
    #[must_use]
    pub const fn from_raw(number: i32) -> Signal {
        Signal(number)
    }

    /// Its number.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// Why it can't be an event, if it can't.
    fn obstacle(self) -> Option<&'static str> {
        let (first_realtime, last) = realtime_range();
        match self.0 {
            libc::SIGKILL | libc::SIGSTOP => Some("the kernel lets no program handle it"),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL => {
                Some("it means that the instruction at hand failed, which can't wait for a queue")
            }
            number if number < 1 || number > last => Some("there is no such signal"),
            // Between the standard signals and those which the C library leaves to programs.
            number if (32..first_realtime).contains(&number) => {
                Some("the C library keeps it for itself")
            }
            _ => None,
        }
    }
}

const NAMES: [(Signal, &str); 18] = [
    (Signal::HUP, "SIGHUP"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::ABRT, "SIGABRT"),
    (Signal::KILL, "SIGKILL"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::PIPE, "SIGPIPE"),
    (Signal::ALRM, "SIGALRM"),
    (Signal::TERM, "SIGTERM"),
    (Signal::CHLD, "SIGCHLD"),
    (Signal::CONT, "SIGCONT"),
    (Signal::STOP, "SIGSTOP"),
    (Signal::TSTP, "SIGTSTP"),
    (Signal::URG, "SIGURG"),
    (Signal::WINCH, "SIGWINCH"),
    (Signal::IO, "SIGIO"),
    (Signal::PWR, "SIGPWR"),
];

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first_realtime, last) = realtime_range();
        if let Some((_, name)) = NAMES.iter().find(|(signal, _)| signal == self) {
            f.write_str(name)
        } else if (first_realtime..=last).contains(&self.0) {
            write!(f, "SIGRTMIN+{}", self.0 - first_realtime)
        } else {
            write!(f, "signal {}", self.0)
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A source of signals.
///
/// While it has a signal, the signal does nothing but make events. What the signal did before, it
/// does again as soon as [`remove`](Signals::remove) or the drop of the source gives it back: take
/// `SIGINT` back at the first Ctrl-C, and the second one ends a program that hangs in its shutdown.
///
/// ```
/// use kevent_core::{Queue, Signal, SignalEvent, Signals};
///
/// let mut queue = Queue::new()?;
/// queue.attach(Signals::new([Signal::INT, Signal::TERM])?, |event: SignalEvent| event.signal)?;
///
/// # let us = std::process::id().to_string();
/// # std::process::Command::new("sh").args(["-c", "kill -TERM $0", &us]).status()?;
/// queue.wait(None)?; // … and somebody sends SIGTERM
/// assert_eq!(queue.next(), Some(Signal::TERM));
/// # std::io::Result::Ok(())
/// ```
///
/// What may surprise:
///
/// - The kernel keeps one standard signal of a kind pending, and drops those that come meanwhile.
///   Realtime signals queue up, each with its value; at the limit of `RLIMIT_SIGPENDING` their sender
///   is told. What was delivered is not lost any more, however late it is read: see
///   [`SignalEvent::count`].
/// - Signals that were queued come in order when one thread takes them, as when they were sent to a
///   thread. When several threads of the process take signals, two of them may overtake each other on
///   the way to the source.
/// - It works whichever threads exist; a signal blocked in all of them stays pending, of course.
/// - System calls elsewhere in the program are restarted (`SA_RESTART`). Those that never are, such as
///   `epoll_wait` and `nanosleep`, fail with `EINTR`: see signal(7). [`Queue::wait`](crate::Queue::wait)
///   goes on.
/// - A process has each signal once. One that another `Signals` has is refused.
/// - A child made by fork(2) without exec(2) inherits the handler, which does nothing there until the
///   child drops its copy of the source. Programs started by exec get the default.
pub struct Signals {
    pipe: Arc<Pipe>,
    claims: Table<(Signal, Claim)>,
    /// Read, and refused by a sink that said it had room: one that merges knows only when it tries.
    held: VecDeque<SignalEvent>,
}

impl Signals {
    /// A source of `signals`. None at all is fine: [`add`](Signals::add) them later.
    ///
    /// # Errors
    ///
    /// As [`add`](Signals::add), and none is taken then. When the process may open no more
    /// descriptors: a source takes two.
    pub fn new(signals: impl IntoIterator<Item = Signal>) -> io::Result<Signals> {
        let pipe = Arc::new(Pipe::new()?);
        let mut source = Signals { pipe, claims: Table::new(), held: VecDeque::new() };
        for signal in signals {
            source.add(signal)?;
        }
        Ok(source)
    }

    /// Makes `signal` an event from now on.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what can't be an event: `SIGKILL`, `SIGSTOP`, faults (`SIGSEGV`, `SIGBUS`,
    /// `SIGFPE`, `SIGILL`), numbers of no signal. `ResourceBusy` when a `Signals` of this process,
    /// this one included, has the signal.
    ///
    /// Source: sigaction(2).
    pub fn add(&mut self, signal: Signal) -> io::Result<Token> {
        if let Some(obstacle) = signal.obstacle() {
            let text = format!("{signal} can't be an event: {obstacle}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let pipe = &self.pipe;
        self.claims
            .try_insert_with(|token| Ok((signal, Claim::new(signal.0, token, pipe)?)))
            .map_err(|error: io::Error| match error.kind() {
                io::ErrorKind::ResourceBusy => {
                    let text = format!(
                        "a `Signals` of this process has {signal} already: a signal goes to one of \
                         them; remove it there first"
                    );
                    io::Error::new(io::ErrorKind::ResourceBusy, text)
                }
                _ => error,
            })
    }

    /// Gives a signal back to whatever had it before. No event of it comes out any more, not even one
    /// that is in the ring. `false` when it was removed before.
    ///
    /// If somebody else has put his own handler in place meanwhile, that one stays.
    pub fn remove(&mut self, token: Token) -> bool {
        self.claims.remove(token).is_some()
    }

    fn push_held(&mut self, sink: &mut impl Sink<SignalEvent>) {
        while let Some(event) = self.held.pop_front() {
            if let Err(Full(event)) = sink.push(event.token, event) {
                return self.held.push_front(event);
            }
        }
    }

    /// The events for deliveries that the pipe had no room for.
    fn drain_missed(&self, sink: &mut impl Sink<SignalEvent>) {
        for (token, (signal, claim)) in self.claims.iter() {
            let count = claim.take_missed();
            if count > 0 && sink.push(token, SignalEvent::missed(token, *signal, count)).is_err() {
                claim.give_back_missed(count);
            }
        }
    }
}

impl Source for Signals {
    type Item = SignalEvent;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        let readable = Interest::READABLE;
        poll_set.add(self.pipe.as_fd(), PollKey::default(), readable, Trigger::Edge)
    }

    fn drain(&mut self, sink: &mut impl Sink<SignalEvent>) -> io::Result<()> {
        self.push_held(sink);
        let mut more = true;
        while more && self.held.is_empty() && sink.room() > 0 {
            let (claims, held) = (&self.claims, &mut self.held);
            more = self.pipe.read(sink.room(), |record| {
                // A record without registration is one of a signal that was removed, or a nudge.
                if let Some((signal, _)) = claims.get(record.token) {
                    held.push_back(SignalEvent::new(*signal, record));
                }
            })?;
            self.push_held(sink);
        }
        // After the pipe: whoever could not write into it counted before it was read. Also without
        // room: then the refusal tells the queue to come back.
        if self.held.is_empty() {
            self.drain_missed(sink);
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        self.claims.get(token).is_some()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signals: Vec<_> = self.claims.iter().map(|(_, (signal, _))| signal).collect();
        f.debug_struct("Signals").field("signals", &signals).finish_non_exhaustive()
    }
}

/// A signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalEvent {
    /// The registration.
    pub token: Token,
    /// Which signal.
    pub signal: Signal,
    /// The process that sent it, or that it is about (`SIGCHLD`), where the kernel tells.
    pub pid: Option<u32>,
    /// That process's real user, where the kernel tells.
    pub uid: Option<u32>,
    /// Why it was sent: `si_code` in sigaction(2). `None` if the event stands for deliveries whose
    /// particulars were lost.
    pub code: Option<i32>,
    /// What was sent along by sigqueue(3), a POSIX timer or message queue.
    pub value: Option<SignalValue>,
    /// How many deliveries this event stands for. One, unless the queue was so far behind that there
    /// was no more room for particulars (2,048 deliveries where a page has 4 KiB): those that came
    /// then are one event for each signal, which comes after the others and has nothing but this
    /// count.
    pub count: usize,
}

impl SignalEvent {
    /// One that nobody sent, for tests: see [`testing::Sim::inject`](crate::testing::Sim::inject). It
    /// came once, and nothing is known of its sender.
    #[must_use]
    pub fn for_test(signal: Signal) -> SignalEvent {
        SignalEvent::missed(Token::SOLE, signal, 1)
    }

    fn new(signal: Signal, record: Record) -> SignalEvent {
        let Record { token, value, code, pid, uid } = record;
        let from_process = tells_process(signal, code);
        SignalEvent {
            token,
            signal,
            pid: from_process.then_some(pid),
            uid: from_process.then_some(uid),
            code: Some(code),
            value: tells_value(code).then_some(SignalValue(value)),
            count: 1,
        }
    }

    fn missed(token: Token, signal: Signal, count: usize) -> SignalEvent {
        SignalEvent { token, signal, pid: None, uid: None, code: None, value: None, count }
    }
}

/// Whether `si_pid` and `si_uid` mean something; elsewhere their place holds a timer or a descriptor.
fn tells_process(signal: Signal, code: i32) -> bool {
    match code {
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL | libc::SI_MESGQ | libc::SI_ASYNCIO => true,
        libc::CLD_EXITED..=libc::CLD_CONTINUED => signal == Signal::CHLD,
        _ => false,
    }
}

/// Whether `si_value` means something.
fn tells_value(code: i32) -> bool {
    matches!(code, libc::SI_QUEUE | libc::SI_TIMER | libc::SI_MESGQ | libc::SI_ASYNCIO)
}

/// What was sent along with a signal: in C a union of an `int` and a pointer, and only sender and
/// receiver know which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignalValue(u64);

impl SignalValue {
    /// As the `int` it was sent as (`sival_int`).
    #[must_use]
    pub fn int(self) -> i32 {
        let pointer = self.0 as usize;
        // The members of a union begin at the same address, whichever end of the number that is.
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&pointer.to_ne_bytes()[..4]);
        i32::from_ne_bytes(bytes)
    }

    /// As the address it was sent as (`sival_ptr`). An address in the process that sent it.
    #[must_use]
    pub fn address(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_c_library() {
        assert_eq!(Signal::INT.to_string(), "SIGINT");
        assert_eq!(Signal::realtime(0).unwrap().to_string(), "SIGRTMIN+0");
        assert_eq!(Signal::from_raw(-3).to_string(), "signal -3");
        assert_eq!(Signal::realtime(200), None);
    }

    #[test]
    fn timer_has_a_value_and_no_sender() {
        let record =
            Record { token: Token::SOLE, value: 5, code: libc::SI_TIMER, pid: 77, uid: 78 };
        let event = SignalEvent::new(Signal::ALRM, record);
        assert_eq!((event.pid, event.uid), (None, None), "those are a timer's number and overrun");
        assert_eq!(event.value, Some(SignalValue(5)));
    }

    #[test]
    fn child_code_names_the_child_only_in_sigchld() {
        let record =
            Record { token: Token::SOLE, value: 0, code: libc::CLD_EXITED, pid: 9, uid: 8 };
        assert_eq!(SignalEvent::new(Signal::CHLD, record).pid, Some(9));
        assert_eq!(SignalEvent::new(Signal::IO, record).pid, None, "there it is a descriptor");
    }
}
