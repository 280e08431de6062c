//! Random calls on a few sockets, against a model of what has to come.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::Bench;
use kevent_core::{Token, Wait};
use kevent_net::{Interest, Mode};
use proptest::prelude::*;

const SOCKETS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Register(usize, Mode),
    Modify(usize, Mode),
    Enable(usize),
    Disable(usize),
    Unregister(usize),
    Write(usize),
    Read(usize),
    /// Look at the kernel, with what is undelivered in the ring.
    Look,
    /// Take one event out of the ring.
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mode = prop::sample::select(vec![Mode::Level, Mode::Edge, Mode::OneShot, Mode::Dispatch]);
    let step = (0..SOCKETS, mode, 0..11_u8).prop_map(|(socket, mode, verb)| match verb {
        0 => Step::Register(socket, mode),
        1 => Step::Modify(socket, mode),
        2 => Step::Enable(socket),
        3 => Step::Disable(socket),
        4 => Step::Unregister(socket),
        5 | 6 => Step::Write(socket),
        7 => Step::Read(socket),
        8 | 9 => Step::Look,
        _ => Step::Take,
    });
    prop::collection::vec(step, 0..60)
}

/// One socket, and what is to be expected of it.
struct Model {
    here: UnixStream,
    there: UnixStream,
    registered: Option<(Token, Mode)>,
    enabled: bool,
    unread: usize,
    /// Something happened that has to be told, whatever is done to the ring meanwhile.
    owed: bool,
}

impl Model {
    fn new() -> Model {
        let (here, there) = UnixStream::pair().unwrap();
        Model { here, there, registered: None, enabled: false, unread: 0, owed: false }
    }

    fn token(&self) -> Token {
        // A token that names nothing is as good as one that names nothing any more.
        self.registered.map_or(Token::SOLE, |(token, _)| token)
    }

    /// The kernel looks at the socket anew, under these terms.
    fn watched(&mut self, token: Token, mode: Mode) {
        self.registered = Some((token, mode));
        self.enabled = true;
        self.owed = self.unread > 0;
    }
}

struct World {
    bench: Bench,
    models: Vec<Model>,
}

impl World {
    fn new(ring: usize) -> World {
        let models = (0..SOCKETS).map(|_| Model::new()).collect();
        World { bench: Bench::with_ring(ring), models }
    }

    fn step(&mut self, step: Step) {
        let source = &mut self.bench.queue[self.bench.id];
        match step {
            Step::Register(socket, mode) => {
                let model = &mut self.models[socket];
                let key = socket as u64;
                // A one-shot whose event is on the way is out of the set, and may be joined by a
                // second registration. That is for other tests.
                if model.registered.is_none() {
                    let token =
                        source.register(&model.here, Interest::READABLE, mode, key).unwrap();
                    model.watched(token, mode);
                }
            }
            Step::Modify(socket, mode) => {
                let model = &mut self.models[socket];
                if source.modify(model.token(), Interest::READABLE, mode).is_ok() {
                    model.watched(model.token(), mode);
                }
            }
            Step::Enable(socket) => {
                let model = &mut self.models[socket];
                if source.enable(model.token()).is_ok() && !model.enabled {
                    let (token, mode) = model.registered.expect("it could be enabled");
                    model.watched(token, mode);
                }
            }
            Step::Disable(socket) => {
                let model = &mut self.models[socket];
                if source.disable(model.token()).is_ok() {
                    (model.enabled, model.owed) = (false, false);
                }
            }
            Step::Unregister(socket) => {
                let model = &mut self.models[socket];
                let stood = source.unregister(model.token());
                assert_eq!(stood, model.registered.is_some());
                (model.registered, model.enabled, model.owed) = (None, false, false);
            }
            Step::Write(socket) => {
                let model = &mut self.models[socket];
                model.there.write_all(b"x").unwrap();
                model.unread += 1;
                model.owed |= model.enabled;
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

    /// What was read before it was told need not be told.
    fn read(&mut self, socket: usize) {
        let model = &mut self.models[socket];
        model.here.read_exact(&mut vec![0; model.unread]).unwrap();
        (model.unread, model.owed) = (0, false);
    }

    fn take(&mut self) -> bool {
        let Some(event) = self.bench.queue.next() else { return false };
        let model = &mut self.models[usize::try_from(event.key).unwrap()];
        let (token, mode) = model.registered.expect("only registered sockets are told");
        assert_eq!(event.token, token, "only the registration that stands");
        assert!(model.enabled, "only what is enabled");
        model.owed = false;
        match mode {
            Mode::Level => model.owed = model.unread > 0,
            Mode::Edge => {}
            Mode::OneShot => (model.registered, model.enabled) = (None, false),
            Mode::Dispatch => model.enabled = false,
        }
        true
    }

    /// Everything that is owed comes. Then all is read, and the queue sleeps.
    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.models.iter().any(|model| model.owed && !self.is_level(model)) {
                break;
            }
            self.bench.queue.wait(Wait::poll()).unwrap();
            while self.take() {}
        }
        for model in &self.models {
            assert!(!model.owed || self.is_level(model), "an event was lost");
        }
        for socket in 0..SOCKETS {
            let told = !self.models[socket].owed || self.is_told(socket);
            assert!(told, "a level-triggered event was lost");
            self.read(socket);
        }
        // News that found its event undelivered may still follow, one event for each socket.
        for _ in 0..2 * SOCKETS {
            self.bench.queue.wait(Wait::poll()).unwrap();
            while self.take() {}
        }
        self.bench.nothing();
    }

    fn is_level(&self, model: &Model) -> bool {
        model.registered.is_some_and(|(_, mode)| mode == Mode::Level)
    }

    /// Whether the level-triggered `socket` repeats.
    fn is_told(&mut self, socket: usize) -> bool {
        let token = self.models[socket].token();
        for _ in 0..10 {
            self.bench.queue.wait(Wait::poll()).unwrap();
            while let Some(event) = self.bench.queue.next() {
                if event.token == token {
                    return true;
                }
            }
        }
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is called in whatever order: nothing comes from a registration that is gone or
    /// disabled, everything that happened to an enabled one comes, and in the end there is silence.
    #[test]
    fn any_sequence_of_calls_loses_nothing_and_tells_nobody_else(
        steps in steps(),
        ring in 1_usize..6,
    ) {
        let mut world = World::new(ring);
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
