//! Random calls on a few sockets, each with several registrations, against a model of what has to come.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::Bench;
use kevent_core::{Token, Wait};
use kevent_net::{Interest, Mode, Readiness};
use proptest::prelude::*;

const SOCKETS: usize = 2;
/// Registrations of one socket.
const EACH: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Register(usize, Mode, Interest),
    Modify(usize, Mode, Interest),
    Enable(usize),
    Disable(usize),
    Unregister(usize),
    Recheck(usize, bool),
    Write(usize),
    Read(usize),
    /// Look at the kernel, with what is undelivered in the ring.
    Look,
    /// Take one event out of the ring.
    Take,
}

fn steps(each: usize) -> impl Strategy<Value = Vec<Step>> {
    let mode = prop::sample::select(vec![Mode::Level, Mode::Edge, Mode::OneShot, Mode::Dispatch]);
    let interest = prop::sample::select(vec![Interest::READABLE, Interest::WRITABLE]);
    let step = (0..SOCKETS, 0..each, mode, interest, 0..13_u8);
    let step = step.prop_map(|(socket, nth, mode, interest, verb)| {
        let which = socket * EACH + nth;
        match verb {
            0 | 1 => Step::Register(which, mode, interest),
            2 => Step::Modify(which, mode, interest),
            3 => Step::Enable(which),
            4 => Step::Disable(which),
            5 => Step::Unregister(which),
            6 => Step::Recheck(which, mode != Mode::Level),
            7 | 8 => Step::Write(socket),
            9 => Step::Read(socket),
            10 | 11 => Step::Look,
            _ => Step::Take,
        }
    });
    prop::collection::vec(step, 0..80)
}

/// One socket. Its peer never reads, and it never writes: it can always be written to.
struct Socket {
    here: UnixStream,
    there: UnixStream,
    unread: usize,
}

/// One registration, and what is to be expected of it.
#[derive(Clone, Copy)]
struct Model {
    socket: usize,
    token: Token,
    registered: bool,
    mode: Mode,
    interest: Interest,
    enabled: bool,
    rechecked: bool,
    /// Something happened that has to be told, whatever is done to the ring meanwhile.
    owed: bool,
}

struct World {
    bench: Bench,
    sockets: Vec<Socket>,
    models: Vec<Model>,
}

impl World {
    fn new(ring: usize) -> World {
        let sockets = (0..SOCKETS).map(|_| {
            let (here, there) = UnixStream::pair().unwrap();
            Socket { here, there, unread: 0 }
        });
        let model = |n| Model {
            socket: n / EACH,
            // A token that names nothing is as good as one that names nothing any more.
            token: Token::SOLE,
            registered: false,
            mode: Mode::Edge,
            interest: Interest::NONE,
            enabled: false,
            rechecked: false,
            owed: false,
        };
        World {
            bench: Bench::with_ring(ring),
            sockets: sockets.collect(),
            models: (0..SOCKETS * EACH).map(model).collect(),
        }
    }

    fn source(&mut self) -> &mut Readiness {
        &mut self.bench.queue[self.bench.id]
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Register(which, mode, interest) if !self.models[which].registered => {
                let socket = &self.sockets[self.models[which].socket].here;
                let source = &mut self.bench.queue[self.bench.id];
                let token = source.register(socket, interest, mode, which as u64).unwrap();
                let model = &mut self.models[which];
                *model = Model { token, registered: true, rechecked: false, ..*model };
                self.watched(which, mode, interest);
            }
            Step::Register(..) => {}
            Step::Modify(which, mode, interest) => {
                let Model { token, registered, .. } = self.models[which];
                assert_eq!(self.source().modify(token, interest, mode).is_ok(), registered);
                if registered {
                    self.watched(which, mode, interest);
                }
            }
            Step::Enable(which) => {
                let Model { token, registered, enabled, mode, interest, .. } = self.models[which];
                assert_eq!(self.source().enable(token).is_ok(), registered);
                if registered && !enabled {
                    self.watched(which, mode, interest);
                }
            }
            Step::Disable(which) => {
                let Model { token, registered, .. } = self.models[which];
                assert_eq!(self.source().disable(token).is_ok(), registered);
                let model = &mut self.models[which];
                (model.enabled, model.owed) = (false, false);
            }
            Step::Unregister(which) => {
                let Model { token, registered, .. } = self.models[which];
                assert_eq!(self.source().unregister(token), registered);
                let model = &mut self.models[which];
                (model.registered, model.enabled, model.owed) = (false, false, false);
            }
            Step::Recheck(which, recheck) => {
                let Model { token, registered, .. } = self.models[which];
                assert_eq!(self.source().recheck(token, recheck).is_ok(), registered);
                self.models[which].rechecked = recheck;
            }
            Step::Write(socket) => {
                self.sockets[socket].there.write_all(b"x").unwrap();
                self.sockets[socket].unread += 1;
                for model in self.readers(socket) {
                    model.owed |= model.enabled;
                }
            }
            Step::Read(socket) => self.read(socket),
            Step::Look => {
                self.bench.queue.wait(Wait::poll().at_least(usize::MAX)).unwrap();
            }
            Step::Take => {
                self.take();
            }
        }
    }

    fn readers(&mut self, socket: usize) -> impl Iterator<Item = &mut Model> {
        let reads = move |model: &&mut Model| {
            model.socket == socket && model.interest == Interest::READABLE && model.registered
        };
        self.models.iter_mut().filter(reads)
    }

    /// Whether what the registration asks for holds.
    fn holds(&self, which: usize) -> bool {
        let Model { socket, interest, .. } = self.models[which];
        interest == Interest::WRITABLE || self.sockets[socket].unread > 0
    }

    /// The registration listens anew, under these terms.
    fn watched(&mut self, which: usize, mode: Mode, interest: Interest) {
        let model = &mut self.models[which];
        *model = Model { mode, interest, enabled: true, ..*model };
        self.models[which].owed = self.holds(which);
    }

    /// What was read before it was told need not be told.
    fn read(&mut self, socket: usize) {
        let Socket { here, unread, .. } = &mut self.sockets[socket];
        here.read_exact(&mut vec![0; *unread]).unwrap();
        *unread = 0;
        self.readers(socket).for_each(|model| model.owed = false);
    }

    /// Takes an event out of the ring; which registration's.
    fn take(&mut self) -> Option<usize> {
        let event = self.bench.queue.next()?;
        let which = usize::try_from(event.key).unwrap();
        let holds = self.holds(which);
        let model = &mut self.models[which];
        assert!(model.registered, "only registered sockets are told");
        assert_eq!(event.token, model.token, "only the registration that stands");
        assert!(model.enabled, "only what is enabled");
        assert!(holds || !model.rechecked, "only what is still true");
        let writable = model.interest == Interest::WRITABLE;
        assert!(if writable { event.ready.is_writable() } else { event.ready.is_readable() });
        model.owed = false;
        match model.mode {
            Mode::Level => model.owed = holds,
            Mode::Edge => {}
            Mode::OneShot => (model.registered, model.enabled) = (false, false),
            Mode::Dispatch => model.enabled = false,
        }
        Some(which)
    }

    /// Everything that is owed comes. Then all is read, and the queue sleeps.
    fn settle(&mut self) {
        for which in 0..self.models.len() {
            assert!(!self.models[which].owed || self.is_told(which), "an event was lost: {which}");
        }
        for which in 0..self.models.len() {
            // It would go on for ever.
            let Model { mode, interest, .. } = self.models[which];
            if mode == Mode::Level && interest == Interest::WRITABLE {
                self.step(Step::Disable(which));
            }
        }
        (0..SOCKETS).for_each(|socket| self.read(socket));
        // News that found its event undelivered may still follow, one event for each registration.
        for _ in 0..2 * self.models.len() {
            self.bench.queue.wait(Wait::poll()).unwrap();
            while self.take().is_some() {}
        }
        self.bench.nothing();
        self.bench.sleeps_until(Wait::timeout(std::time::Duration::from_micros(50)));
    }

    /// Whether the registration is told what it is owed, now or soon.
    fn is_told(&mut self, which: usize) -> bool {
        for _ in 0..100 {
            self.bench.queue.wait(Wait::poll()).unwrap();
            // A ringful and no more: some repeat.
            for _ in 0..self.bench.queue.capacity() {
                if self.take() == Some(which) {
                    return true;
                }
            }
            if !self.models[which].owed {
                return true;
            }
        }
        false
    }

    fn run(steps: Vec<Step>, ring: usize) {
        let mut world = World::new(ring);
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2000))]

    /// Whatever is called in whatever order: nothing comes from a registration that is gone or
    /// disabled, everything that happened to an enabled one comes, and in the end there is silence.
    #[test]
    fn any_sequence_of_calls_loses_nothing_and_tells_nobody_else(
        steps in steps(1),
        ring in 1_usize..6,
    ) {
        World::run(steps, ring);
    }

    /// The same, when one descriptor is registered up to three times.
    #[test]
    fn registrations_that_share_a_descriptor_are_told_as_if_each_were_alone(
        steps in steps(EACH),
        ring in 1_usize..8,
    ) {
        World::run(steps, ring);
    }
}
