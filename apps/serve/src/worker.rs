//! One thread's queue, with everything in it: listeners, connections, file I/O, timers, messages of the
//! other threads, and on the first thread signals and the watch on the folder.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kevent_aio::{Aio, Completion, Fd, Op, SubmitError, Write};
use kevent_core::{
    Poster, Queue, SignalEvent, Signals, SourceId, Table, TimerEvent, Timers, Token, UserEvents,
};
use kevent_fs::{Change, Watcher};
use kevent_net::{Interest, Mode, Readiness, ReadyEvent, socket};
use mio::net::{TcpListener, TcpStream};

use crate::connection::{
    Connection, Discarded, IDLE, IDLE_AT_THE_LIMIT, INPUT_KEPT, LINGER, State, Timer,
};
use crate::control::{Control, Peer, complain};
use crate::files::FileCache;
use crate::http::Status;
use crate::http::date::http_date;
use crate::http::request::{Parsed, parse};
use crate::idle::IdleLine;
use crate::limits::Share;
use crate::lister::Lister;
use crate::log::Log;

/// What comes out of the queue.
#[derive(Debug)]
pub enum Event {
    Ready(ReadyEvent),
    Done(Completion),
    Tick(TimerEvent),
    Message(Message),
    Signal(SignalEvent),
    Changed(Change),
}

/// What threads tell each other.
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

/// After a signal to stop, requests have that long to finish.
const GRACE: Duration = Duration::from_secs(10);

/// After that, what was cut short has that long to get into the log.
const LOG_GRACE: Duration = Duration::from_secs(1);

/// A listener that could not accept is tried again after that time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A client who comes when this thread is at its limit is left to the others for that long. Only then
/// is a connection closed for him.
const LEFT_TO_OTHERS: Duration = Duration::from_millis(5);

/// Connections taken from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// The key of the timer that ends the time of grace, and then that of the log. Connections have their tokens for keys, which are
/// at least 2³², because of their generation. Listeners have their numbers, which are below.
const GRACE_KEY: u64 = 0;
/// The key of the timer that resumes accepting.
const ACCEPT_KEY: u64 = 1;
/// The key of writes to the log.
const LOG_KEY: u64 = 2;
/// The key of the timer that resumes them.
const LOG_AGAIN_KEY: u64 = 3;
/// What a thread is given to begin with.
pub struct Setup {
    pub root: Fd,
    pub listeners: Vec<std::net::TcpListener>,
    pub users: UserEvents<Message>,
    pub poster: Poster<Message>,
    pub overrun: Arc<AtomicBool>,
    pub aio: Aio,
    pub lister: Lister,
    pub log: Option<Fd>,
    pub share: Share,
}

/// One serving thread.
pub struct Worker {
    pub(crate) queue: Queue<Event>,
    readiness: SourceId<Readiness>,
    timers: SourceId<Timers>,
    pub(crate) aio: SourceId<Aio>,
    control: Option<Control>,
    /// Threads that this one hears signals for, and does not end before.
    others: usize,
    pub(crate) root: Fd,
    listeners: Vec<Listener>,
    pub(crate) connections: Table<Connection>,
    idle: IdleLine,
    pub(crate) files: FileCache,
    overrun: Arc<AtomicBool>,
    pub(crate) lister: Lister,
    pub(crate) poster: Poster<Message>,
    pub(crate) log: Option<Log>,
    share: Share,
    /// The timer that resumes accepting. One at most: each that fires may ask for the next.
    accepting_again: Option<Token>,
    /// Accepting fails, which is said once and not with every try.
    cannot_accept: bool,
    /// No request is taken any more.
    pub(crate) stopping: bool,
    grace_is_over: bool,
    /// So is the moment for the log.
    log_is_late: bool,
    pub(crate) now: Instant,
    pub(crate) clock: Clock,
    seeds: Seeds,
    scratch: Box<[u8]>,
}

/// Numbers that nobody outside can guess.
struct Seeds {
    state: RandomState,
    given: u64,
}

/// What to do for a client when there is no room for him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtLimit {
    /// Another thread may have room.
    LeaveToOthers,
    /// None has taken him: close a connection that waits.
    MakeRoom,
}

struct Listener {
    socket: TcpListener,
    /// `None` while this thread takes no clients.
    registration: Option<Token>,
}

/// The time of day, and as the Date header has it. Formatted once a second.
#[derive(Debug)]
pub(crate) struct Clock {
    pub(crate) time: SystemTime,
    pub(crate) date: String,
}

impl Listener {
    fn new(socket: std::net::TcpListener) -> Listener {
        Listener { socket: TcpListener::from_std(socket), registration: None }
    }
}

impl Clock {
    fn new() -> Clock {
        let time = SystemTime::now();
        Clock { time, date: http_date(time) }
    }

    fn tick(&mut self) {
        let time = SystemTime::now();
        let second = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).map(|d| d.as_secs());
        if second(time).ok() != second(self.time).ok() {
            self.date = http_date(time);
        }
        self.time = time;
    }
}

impl Worker {
    /// Puts everything into a queue.
    ///
    /// # Errors
    ///
    /// When descriptors run out.
    pub fn new(setup: Setup) -> io::Result<Worker> {
        let mut queue = Queue::new()?;
        let readiness = queue.attach(Readiness::new(), Event::Ready)?;
        let timers = queue.attach(Timers::new(), Event::Tick)?;
        let aio = queue.attach(setup.aio, Event::Done)?;
        queue.attach(setup.users, Event::Message)?;
        let mut worker = Worker {
            queue,
            readiness,
            timers,
            aio,
            control: None,
            others: 0,
            root: setup.root,
            listeners: setup.listeners.into_iter().map(Listener::new).collect(),
            connections: Table::new(),
            idle: IdleLine::default(),
            files: FileCache::new(setup.share.files),
            overrun: setup.overrun,
            lister: setup.lister,
            poster: setup.poster,
            log: setup.log.map(Log::new),
            share: setup.share,
            accepting_again: None,
            cannot_accept: false,
            stopping: false,
            grace_is_over: false,
            log_is_late: false,
            now: Instant::now(),
            clock: Clock::new(),
            seeds: Seeds { state: RandomState::new(), given: 0 },
            scratch: vec![0; 16 << 10].into_boxed_slice(),
        };
        worker.listen()?;
        Ok(worker)
    }

    /// Has this thread hear signals and watch the folder, for all.
    ///
    /// # Errors
    ///
    /// When either can't be had.
    pub fn take_control(
        &mut self,
        control: Control,
        signals: Signals,
        watcher: Option<Watcher>,
    ) -> io::Result<()> {
        self.others = control.threads().saturating_sub(1);
        self.control = Some(control);
        self.queue.attach(signals, Event::Signal)?;
        if let Some(watcher) = watcher {
            self.queue.attach(watcher, Event::Changed)?;
        }
        Ok(())
    }

    /// The first thread speaks to the others through this.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer { poster: self.poster.clone(), overrun: Arc::clone(&self.overrun) }
    }

    /// Has this thread woken for clients of its listeners. Every thread has them in its own set:
    /// exclusive, so that a client wakes one.
    fn listen(&mut self) -> io::Result<()> {
        let readiness = &mut self.queue[self.readiness];
        for (number, listener) in (0..).zip(&mut self.listeners) {
            if listener.registration.is_none() {
                let interest = Interest::READABLE;
                let token = readiness.register_exclusive(&listener.socket, interest, number)?;
                listener.registration = Some(token);
            }
        }
        Ok(())
    }

    /// Leaves clients to the other threads and to the backlog.
    fn stop_listening(&mut self) {
        let readiness = &mut self.queue[self.readiness];
        for token in self.listeners.iter_mut().filter_map(|listener| listener.registration.take()) {
            readiness.unregister(token);
        }
    }

    /// Serves until it is told to stop and everything is finished.
    ///
    /// # Errors
    ///
    /// When the queue itself fails, which nothing that a client does brings about.
    pub fn run(mut self) -> io::Result<()> {
        while !self.is_finished() {
            self.queue.wait(None)?;
            self.now = Instant::now();
            self.clock.tick();
            while let Some(event) = self.queue.next() {
                self.handle(event);
            }
            if self.overrun.swap(false, Ordering::Acquire) {
                self.files.invalidate_tree(b"");
            }
            self.write_log();
        }
        if let Some(text) = self.log.as_mut().and_then(|log| log.last_complaint(self.now)) {
            complain(&text);
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        let log_is_written = self.log.as_ref().is_none_or(|log| !log.is_busy());
        let all_is_done = self.connections.is_empty() && log_is_written && self.others == 0;
        self.stopping && (self.log_is_late || all_is_done)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ready(event) if event.key < 1 << 32 => {
                self.accept(event.key as usize, AtLimit::LeaveToOthers);
            }
            Event::Ready(event) => self.ready(Token::from_bits(event.key), &event),
            Event::Done(completion) if completion.key == LOG_KEY => self.log_written(completion),
            Event::Done(completion) => self.done(completion),
            Event::Tick(tick) if tick.key == GRACE_KEY => self.end_grace(),
            Event::Tick(tick) if tick.key == ACCEPT_KEY => self.resume_accepting(),
            Event::Tick(tick) if tick.key == LOG_AGAIN_KEY => {
                self.log.iter_mut().for_each(Log::resume);
            }
            Event::Tick(tick) => self.tick(Token::from_bits(tick.key)),
            Event::Message(message) => self.message(message),
            Event::Signal(signal) => {
                if let Some(control) = &mut self.control {
                    control.signal(&signal);
                }
            }
            Event::Changed(change) => {
                if let Some(control) = &mut self.control {
                    control.changed(&change);
                }
            }
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Invalid(Invalid::File(path)) => self.files.invalidate_file(&path),
            Message::Invalid(Invalid::Tree(path)) => self.files.invalidate_tree(&path),
            Message::Invalid(Invalid::Untold(path)) => self.files.changes_are_untold(&path),
            Message::Listed { connection, page } => {
                self.listed(Token::from_bits(connection), page);
            }
            Message::Reopen(file) => {
                if let Some(log) = &mut self.log {
                    log.reopen(file);
                }
            }
            Message::Stop => self.stop(),
            Message::Ended => self.others = self.others.saturating_sub(1),
        }
    }

    /// Closes what waits for a request, lets the others finish, and sets an end to it.
    fn stop(&mut self) {
        self.stopping = true;
        self.queue[self.timers].after(GRACE, GRACE_KEY);
        self.stop_listening();
        self.listeners.clear();
        self.close_those(Connection::is_idle);
    }

    /// Closes all that have not finished, and leaves a moment for the log to say so.
    fn end_grace(&mut self) {
        if self.grace_is_over {
            self.log_is_late = true;
            return;
        }
        self.grace_is_over = true;
        self.queue[self.timers].after(LOG_GRACE, GRACE_KEY);
        self.close_those(|_| true);
    }

    fn close_those(&mut self, chosen: impl Fn(&Connection) -> bool) {
        let chosen: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, connection)| chosen(connection))
            .map(|(token, _)| token)
            .collect();
        for token in chosen {
            self.close(token);
        }
    }

    /// Takes the clients that wait at a listener. It is edge-triggered: what is left behind is taken
    /// when the timer says so, since the listener will not.
    fn accept(&mut self, number: usize, at_limit: AtLimit) {
        for _ in 0..ACCEPTS_PER_TURN {
            let is_full = self.connections.len() >= self.share.connections;
            if is_full && at_limit == AtLimit::LeaveToOthers {
                return self.pause_accepting(LEFT_TO_OTHERS);
            }
            let makes_room = if is_full { self.longest_idle() } else { None };
            if is_full && makes_room.is_none() {
                return self.pause_accepting(ACCEPT_AGAIN);
            }
            let Some(listener) = self.listeners.get(number) else { return };
            match socket::accept(&listener.socket) {
                Ok(Some((stream, peer))) => {
                    self.cannot_accept = false;
                    makes_room.into_iter().for_each(|idle| self.close(idle));
                    self.welcome(stream, peer);
                }
                Ok(None) => return,
                Err(error) => {
                    // Out of descriptors or memory. The files that are kept open give some back,
                    // and so does a connection that waits.
                    self.files.invalidate_tree(b"");
                    let Some(idle) = self.longest_idle() else {
                        if !std::mem::replace(&mut self.cannot_accept, true) {
                            complain(&format!("cannot accept, clients wait: {error}"));
                        }
                        return self.pause_accepting(ACCEPT_AGAIN);
                    };
                    self.close(idle);
                }
            }
        }
        self.accept_after(Duration::ZERO);
    }

    /// The connection that has waited longest for a request, if that is long enough.
    fn longest_idle(&mut self) -> Option<Token> {
        loop {
            let token = self.idle.longest()?;
            let connection = self.connections.get_mut(token)?;
            let (_, since) = connection.idle?;
            if self.now.saturating_duration_since(since) < IDLE_AT_THE_LIMIT {
                return None;
            }
            // A request may have come, and its event waits behind this one.
            connection.more = true;
            self.read(token);
            if self.idle.longest() == Some(token) {
                return Some(token);
            }
        }
    }

    fn pause_accepting(&mut self, pause: Duration) {
        self.stop_listening();
        self.accept_after(pause);
    }

    fn accept_after(&mut self, pause: Duration) {
        if self.accepting_again.is_none() {
            self.accepting_again = Some(self.queue[self.timers].after(pause, ACCEPT_KEY));
        }
    }

    fn resume_accepting(&mut self) {
        self.accepting_again = None;
        if let Err(error) = self.listen() {
            complain(&format!("cannot listen, trying again shortly: {error}"));
            return self.pause_accepting(ACCEPT_AGAIN);
        }
        for number in 0..self.listeners.len() {
            self.accept(number, AtLimit::MakeRoom);
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        // Whole responses go out in one call, so there is nothing that waiting could merge.
        let _ = stream.set_nodelay(true);
        let deadline = self.now + IDLE;
        let token = self.connections.insert(Connection {
            stream: Arc::new(stream),
            peer,
            readiness: Token::SOLE,
            input: Vec::new(),
            more: true,
            half_closed: false,
            ended: false,
            state: State::Reading,
            exchange: None,
            idle: None,
            timer: Timer::armed_for(deadline),
        });
        let timer = self.queue[self.timers].at(deadline, token.to_bits());
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.timer.token = timer;
        connection.idle = Some((self.idle.join(token), self.now));
        let registered = self.queue[self.readiness].register(
            &*connection.stream,
            Interest::READABLE,
            Mode::Edge,
            token.to_bits(),
        );
        match registered {
            Ok(readiness) => connection.readiness = readiness,
            Err(_) => self.close(token),
        }
    }

    fn ready(&mut self, token: Token, event: &ReadyEvent) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.more = true;
        connection.half_closed |= event.ready.is_half_closed();
        match connection.state {
            State::Reading => self.read(token),
            State::Lingering => self.linger(token),
            // What was asked for is finished first; the rest is read afterwards.
            State::Finding | State::Sending => {}
        }
    }

    /// Reads requests and answers the first; the others stay until that is done.
    pub(crate) fn read(&mut self, token: Token) {
        while let Some(connection) = self.connections.get_mut(token) {
            if connection.state != State::Reading {
                return;
            }
            match parse(&connection.input) {
                Parsed::Complete { request, consumed } => {
                    let logged = self.log.is_some();
                    let line = if logged { first_line(&connection.input) } else { String::new() };
                    connection.input.drain(..consumed);
                    connection.timer.header_by = None;
                    self.answer(token, request, line);
                }
                Parsed::Invalid(status) => self.refuse(token, status),
                Parsed::Incomplete if connection.more => {
                    if connection.fill(&mut self.scratch).is_err() {
                        return self.close(token);
                    }
                    if !connection.input.is_empty() {
                        leave(&mut self.idle, connection);
                    }
                }
                Parsed::Incomplete if connection.ended => return self.close(token),
                Parsed::Incomplete => return self.await_request(token),
            }
        }
    }

    fn await_request(&mut self, token: Token) {
        if self.stopping {
            return self.close(token);
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.input.is_empty() {
            if connection.input.capacity() > INPUT_KEPT {
                connection.input = Vec::new();
            }
            // It has its minute from when it began to wait, however often it is looked at.
            if connection.idle.is_none() {
                connection.idle = Some((self.idle.join(token), self.now));
                self.set_deadline(token, self.now + IDLE);
            }
            return;
        }
        let by = connection.timer.header_by(self.now);
        self.set_deadline(token, by);
    }

    /// Takes no more requests, and waits for the client to close.
    pub(crate) fn begin_lingering(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.state = State::Lingering;
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        self.set_deadline(token, self.now + LINGER);
        self.linger(token);
    }

    fn linger(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.ended {
            return self.close(token);
        }
        match connection.discard(&mut self.scratch) {
            Discarded::All => {}
            Discarded::Some => {
                // A full socket has no further edge. This asks for one, after the others' turn.
                let readiness = connection.readiness;
                let asked =
                    self.queue[self.readiness].modify(readiness, Interest::READABLE, Mode::Edge);
                if asked.is_err() {
                    self.close(token);
                }
            }
            Discarded::End => self.close(token),
        }
    }

    pub(crate) fn set_deadline(&mut self, token: Token, deadline: Instant) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.timer.deadline = deadline;
        if deadline < connection.timer.armed {
            self.queue[self.timers].cancel(connection.timer.token);
            connection.timer.armed = deadline;
            connection.timer.token = self.queue[self.timers].at(deadline, token.to_bits());
        }
    }

    fn tick(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.state == State::Sending {
            let operation =
                connection.operation().and_then(|token| self.queue[self.aio].get(token));
            let progress = match operation {
                Some(Op::Sendfile(transfer)) => Some(transfer.sent().total()),
                // The disk has it, not the client.
                _ => None,
            };
            if progress.is_none_or(|sent| sent > connection.timer.progress) {
                connection.timer.progress = progress.unwrap_or(connection.timer.progress);
                connection.timer.deadline = self.now + IDLE;
            }
        }
        if self.now < connection.timer.deadline {
            connection.timer.armed = connection.timer.deadline;
            let timer = self.queue[self.timers].at(connection.timer.deadline, token.to_bits());
            connection.timer.token = timer;
            return;
        }
        match connection.state {
            State::Reading if !connection.input.is_empty() => {
                self.refuse(token, Status::RequestTimeout);
            }
            // A disk that does not answer is not the client's fault, and closing does not help it.
            _ => self.close(token),
        }
    }

    /// Ends a connection. Operations that are under way keep its socket open until they have ended.
    pub(crate) fn close(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(token) else { return };
        leave(&mut self.idle, &mut connection);
        self.queue[self.timers].cancel(connection.timer.token);
        self.queue[self.readiness].unregister(connection.readiness);
        // What is being sent ends with the socket, and not when the client has taken it.
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        if let Some(exchange) = connection.exchange {
            self.cut(connection.peer, exchange);
        }
    }

    /// A number that nobody outside can guess.
    pub(crate) fn seed(&mut self) -> u64 {
        self.seeds.given += 1;
        self.seeds.state.hash_one(self.seeds.given)
    }

    fn write_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        if let Some(text) = log.complaint(self.now) {
            complain(&text);
        }
        let Some(write) = log.take_write() else { return };
        if let Err(SubmitError { error, op: Op::Write(write) }) =
            self.queue[self.aio].submit(write, LOG_KEY)
        {
            self.log_ended(write, Err(error));
        }
    }

    fn log_written(&mut self, completion: Completion) {
        if let Op::Write(write) = completion.op {
            self.log_ended(write, completion.result);
        }
    }

    fn log_ended(&mut self, write: Write, result: io::Result<u64>) {
        let pause = self.log.as_mut().and_then(|log| log.written(write, result));
        if let Some(pause) = pause {
            self.queue[self.timers].after(pause, LOG_AGAIN_KEY);
        }
    }
}

/// A connection that does not wait for a request any more.
fn leave(idle: &mut IdleLine, connection: &mut Connection) {
    if let Some((place, _)) = connection.idle.take() {
        idle.leave(place);
    }
}

/// The request line, for the log.
pub(crate) fn first_line(input: &[u8]) -> String {
    let line = input.trim_ascii_start().split(|byte| *byte == b'\r' || *byte == b'\n').next();
    String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.queue)
            .field("connections", &self.connections.len())
            .field("files", &self.files.held())
            .finish_non_exhaustive()
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

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("share", &self.share).finish_non_exhaustive()
    }
}
