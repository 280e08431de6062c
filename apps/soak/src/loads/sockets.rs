//! Sockets in all modes: every byte that is written is announced, for nobody reads before he is told.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use kevent_core::{Queue, SourceId, Token};
use kevent_net::{Interest, Mode, Readiness, ReadyEvent};

use crate::dice::Dice;
use crate::ledger::{AskedAt, Removals, RemovedAt, Tally};
use crate::loads::Event;

pub(crate) struct SocketLoad {
    id: SourceId<Readiness>,
    sockets: Vec<Socket>,
    removed: HashMap<Token, RemovedAt>,
    pub(crate) tally: Tally,
}

struct Socket {
    ours: UnixStream,
    theirs: UnixStream,
    unread: u64,
    registered: Option<Registered>,
}

struct Registered {
    token: Token,
    mode: Mode,
    /// When its terms were changed, or it was enabled: an event that was asked for before that may
    /// have come under the terms before, and there may be another one since.
    changed: Option<RemovedAt>,
    /// Not to tell anything until it is enabled.
    off: Option<RemovedAt>,
}

const MODES: [Mode; 4] = [Mode::Level, Mode::Edge, Mode::OneShot, Mode::Dispatch];

/// So many bytes may lie in a socket.
const MOST: u64 = 64;

impl SocketLoad {
    pub(crate) fn new(queue: &mut Queue<Event>) -> SocketLoad {
        let id = queue.attach(Readiness::new(), Event::Socket).expect("readiness attaches");
        let sockets = (0..64).map(|_| Socket::new()).collect();
        SocketLoad { id, sockets, removed: HashMap::new(), tally: Tally::default() }
    }

    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, dice: &mut Dice, removals: &Removals) {
        let place = dice.below(self.sockets.len());
        let source = &mut queue[self.id];
        let socket = &mut self.sockets[place];
        let Some(registered) = &mut socket.registered else {
            return socket.register(source, MODES[dice.below(4)], place as u64);
        };
        let token = registered.token;
        match dice.below(40) {
            0 => {
                let stood = source.unregister(token);
                assert!(stood || registered.mode == Mode::OneShot, "only a one-shot one ends");
                self.removed.insert(token, removals.removed());
                socket.registered = None;
            }
            1 => {
                let mode = MODES[dice.below(4)];
                match source.modify(token, Interest::READABLE, mode) {
                    Ok(()) => {
                        let changed = Some(removals.removed());
                        *registered = Registered { token, mode, changed, off: None };
                    }
                    Err(error) => registered.is_on_its_way(&error),
                }
            }
            2 | 3 => match source.disable(token) {
                Ok(()) => registered.off = registered.off.or(Some(removals.removed())),
                Err(error) => registered.is_on_its_way(&error),
            },
            4..8 => match source.enable(token) {
                Ok(()) => registered.is_enabled(removals),
                Err(error) => registered.is_on_its_way(&error),
            },
            _ if socket.unread < MOST => {
                socket.theirs.write_all(b"x").expect("there is room for it");
                socket.unread += 1;
                self.tally.provoked += 1;
            }
            _ => {}
        }
    }

    /// All that lies unread is to be told.
    pub(crate) fn settle(&mut self, queue: &mut Queue<Event>, removals: &Removals) {
        let source = &mut queue[self.id];
        for (place, socket) in self.sockets.iter_mut().enumerate() {
            match &mut socket.registered {
                None => socket.register(source, Mode::Level, place as u64),
                Some(registered) => match source.enable(registered.token) {
                    Ok(()) => registered.is_enabled(removals),
                    Err(error) => registered.is_on_its_way(&error),
                },
            }
        }
    }

    pub(crate) fn told(
        &mut self,
        queue: &mut Queue<Event>,
        event: &ReadyEvent,
        dice: &mut Dice,
        asked: AskedAt,
        removals: &Removals,
    ) {
        if let Some(at) = self.removed.get(&event.token) {
            assert!(at.permits(asked), "{event:?} came after its registration was removed");
            return;
        }
        let socket = &mut self.sockets[event.key as usize];
        let registered = socket.registered.as_mut().expect("it is registered");
        assert_eq!(registered.token, event.token);
        if let Some(at) = registered.off {
            assert!(at.permits(asked), "{event:?} came while it was not enabled");
        }
        let mode = registered.mode;
        let changed = registered.changed.is_some_and(|at| at.permits(asked));
        if mode == Mode::Dispatch && !changed && registered.off.is_none() {
            // Nobody is told of it until it is enabled.
            registered.off = Some(removals.removed());
        }
        let read = socket.read(mode == Mode::Level && dice.once_in(2));
        self.tally.told += read;
        if mode == Mode::OneShot {
            let source = &mut queue[self.id];
            let stood = source.unregister(event.token);
            assert!(changed || !stood, "a one-shot registration ends with its event");
            self.removed.insert(event.token, removals.removed());
            socket.registered = None;
            socket.register(source, MODES[dice.below(4)], event.key);
        }
    }
}

impl Socket {
    fn new() -> Socket {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("a socket can be so");
        Socket { ours, theirs, unread: 0, registered: None }
    }

    fn register(&mut self, source: &mut Readiness, mode: Mode, key: u64) {
        let token = source.register(&self.ours, Interest::READABLE, mode, key);
        let token = token.expect("a socket can be registered");
        self.registered = Some(Registered { token, mode, changed: None, off: None });
    }

    /// Reads one byte, or until there is none. Says how many it read.
    fn read(&mut self, one: bool) -> u64 {
        let mut bytes = [0; MOST as usize + 1];
        let room = if one { 1 } else { bytes.len() };
        let read = match self.ours.read(&mut bytes[..room]) {
            Ok(read) => read as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("the peer is there: {error}"),
        };
        self.unread = self.unread.checked_sub(read).expect("no byte comes twice");
        read
    }
}

impl Registered {
    fn is_enabled(&mut self, removals: &Removals) {
        self.changed = Some(removals.removed());
        self.off = None;
    }

    /// A change was refused, which may be only because its one event is in the hands of a thread or on
    /// the way there.
    fn is_on_its_way(&self, error: &io::Error) {
        let over = self.mode == Mode::OneShot && error.kind() == io::ErrorKind::NotFound;
        assert!(over, "{error}");
    }
}
