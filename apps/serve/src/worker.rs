//! One thread's queue, with everything in it: listeners, connections, file I/O, timers, messages of the
//! other threads, and on the first thread signals and the watch on the folder.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kevent_aio::{Aio, Completion, Fd, Op, SubmitError, Write};
use kevent_core::{
    Poster, Queue, SignalEvent, Signals, SourceId, Table, TimerEvent, Timers, Token, UserEvents,
};
use kevent_fs::{Change, Watcher};
use kevent_net::{Interest, Readiness, ReadyEvent};
use mio::net::TcpListener;

use crate::connection::Connection;
use crate::control::{Control, Peer};
use crate::files::FileCache;
use crate::http::date::http_date;
use crate::idle::IdleLine;
use crate::limits::Share;
use crate::lister::Lister;
use crate::log::Log;
use crate::message::{Invalid, Message};
use crate::stderr::complain;

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

/// After a signal to stop, requests have that long to finish.
const GRACE: Duration = Duration::from_secs(10);

/// After that, what was cut short has that long to get into the log.
const LOG_GRACE: Duration = Duration::from_secs(1);

/// The key of the timer that ends the time of grace, and then that of the log. Connections have their
/// tokens for keys, which are at least 2³², because of their generation. Listeners have their numbers,
/// which are below.
const GRACE_KEY: u64 = 0;
/// The key of the timer that resumes accepting.
pub(crate) const ACCEPT_KEY: u64 = 1;
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
    pub(crate) readiness: SourceId<Readiness>,
    pub(crate) timers: SourceId<Timers>,
    pub(crate) aio: SourceId<Aio>,
    control: Option<Control>,
    /// Threads that this one hears signals for, and does not end before.
    others: usize,
    pub(crate) root: Fd,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) connections: Table<Connection>,
    pub(crate) idle: IdleLine,
    pub(crate) files: FileCache,
    overrun: Arc<AtomicBool>,
    pub(crate) lister: Lister,
    pub(crate) poster: Poster<Message>,
    pub(crate) log: Option<Log>,
    pub(crate) share: Share,
    /// The timer that resumes accepting. One at most: each that fires may ask for the next.
    pub(crate) accepting_again: Option<Token>,
    /// Accepting fails, which is said once and not with every try.
    pub(crate) cannot_accept: bool,
    /// No request is taken any more.
    pub(crate) stopping: bool,
    grace_is_over: bool,
    /// So is the moment for the log.
    log_is_late: bool,
    pub(crate) now: Instant,
    pub(crate) clock: Clock,
    seeds: Seeds,
    pub(crate) scratch: Box<[u8]>,
}

/// Numbers that nobody outside can guess.
struct Seeds {
    state: RandomState,
    given: u64,
}

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
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
    fn new(time: SystemTime) -> Clock {
        Clock { time, date: http_date(time) }
    }

    fn tick(&mut self, time: SystemTime) {
        let second = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).map(|d| d.as_secs());
        if second(time).ok() != second(self.time).ok() {
            self.date = http_date(time);
        }
        self.time = time;
    }
}

impl Worker {
    /// Puts everything into `queue`.
    ///
    /// # Errors
    ///
    /// When descriptors run out.
    pub fn new(mut queue: Queue<Event>, setup: Setup) -> io::Result<Worker> {
        let readiness = queue.attach(Readiness::new(), Event::Ready)?;
        let timers = queue.attach(Timers::new(), Event::Tick)?;
        let aio = queue.attach(setup.aio, Event::Done)?;
        queue.attach(setup.users, Event::Message)?;
        let (now, clock) = (queue.clock().now(), Clock::new(queue.clock().wall()));
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
            now,
            clock,
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
    pub(crate) fn listen(&mut self) -> io::Result<()> {
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
    pub(crate) fn stop_listening(&mut self) {
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
            self.turn()?;
        }
        if let Some(text) = self.log.as_mut().and_then(|log| log.last_complaint(self.now)) {
            complain(&text);
        }
        Ok(())
    }

    /// Waits for what happens, and answers it.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.queue.wait(None)?;
        self.now = self.queue.clock().now();
        self.clock.tick(self.queue.clock().wall());
        while let Some(event) = self.queue.next() {
            self.handle(event);
        }
        if self.overrun.swap(false, Ordering::Acquire) {
            self.files.invalidate_tree(b"");
        }
        self.write_log();
        Ok(())
    }

    pub(crate) fn is_finished(&self) -> bool {
        let log_is_written = self.log.as_ref().is_none_or(|log| !log.is_busy());
        let all_is_done = self.connections.is_empty() && log_is_written && self.others == 0;
        self.stopping && (self.log_is_late || all_is_done)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ready(event) if event.key < 1 << 32 => {
                self.accept(event.key as usize);
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
        if let Op::Write(write) = *completion.op {
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

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.queue)
            .field("connections", &self.connections.len())
            .field("files", &self.files.held())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("share", &self.share).finish_non_exhaustive()
    }
}
