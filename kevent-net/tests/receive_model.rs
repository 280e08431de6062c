//! Random calls on a few sockets of a receiver, against a model of what has to come.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;

use common::receiving::{Bench, for_one_thread, receiver};
use kevent_core::{Token, Wait};
use kevent_net::{Buffer, Received};
use proptest::prelude::*;

/// Half of them are streams, the others datagram sockets.
const SOCKETS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Register(usize),
    Unregister(usize),
    Pause(usize),
    Resume(usize),
    /// So many bytes.
    Write(usize, usize),
    /// Close the other end.
    Close(usize),
    /// One turn of the queue.
    Look,
    /// Take one event out of the ring, and keep what it carries.
    Take,
    /// Drop what was kept the longest.
    Drop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..SOCKETS, 1..40_usize, 0..14_u8).prop_map(|(socket, bytes, verb)| match verb {
        0 => Step::Register(socket),
        1 => Step::Unregister(socket),
        2 => Step::Pause(socket),
        3 => Step::Resume(socket),
        4..=6 => Step::Write(socket, bytes),
        7 if bytes < 8 => Step::Close(socket),
        7..=9 => Step::Look,
        10..=12 => Step::Take,
        _ => Step::Drop,
    });
    prop::collection::vec(step, 0..120)
}

enum End {
    Stream(UnixStream),
    Datagram(UnixDatagram),
    Closed,
}

struct Model {
    token: Option<Token>,
    here: Arc<std::os::fd::OwnedFd>,
    there: End,
    paused: bool,
    /// Sent and not received. A stream's pieces may come in other pieces.
    owed: VecDeque<u8>,
    datagrams: VecDeque<usize>,
    next: u8,
}

impl Model {
    fn new(n: usize) -> Model {
        let (here, there): (std::os::fd::OwnedFd, _) = if n % 2 == 0 {
            let (here, there) = UnixStream::pair().unwrap();
            (here.into(), End::Stream(there))
        } else {
            let (here, there) = UnixDatagram::pair().unwrap();
            there.set_nonblocking(true).unwrap();
            (here.into(), End::Datagram(there))
        };
        Model {
            token: None,
            here: Arc::new(here),
            there,
            paused: false,
            owed: VecDeque::new(),
            datagrams: VecDeque::new(),
            next: 0,
        }
    }

    fn write(&mut self, count: usize) {
        let bytes: Vec<_> = (0..count).map(|n| self.next.wrapping_add(n as u8)).collect();
        match &mut self.there {
            End::Stream(there) => there.write_all(&bytes).unwrap(),
            // Its queue holds a few only.
            End::Datagram(there) if there.send(&bytes).is_ok() => self.datagrams.push_back(count),
            End::Datagram(_) | End::Closed => return,
        }
        self.next = self.next.wrapping_add(count as u8);
        self.owed.extend(bytes);
    }
}

struct World {
    bench: Bench,
    models: Vec<Model>,
    kept: VecDeque<Buffer>,
}

impl World {
    fn step(&mut self, step: Step) {
        let source = &mut self.bench.queue[self.bench.id];
        match step {
            Step::Register(n) if self.models[n].token.is_none() => {
                let model = &mut self.models[n];
                model.token = Some(source.register(&model.here, n as u64).unwrap());
                model.paused = false;
            }
            Step::Unregister(n) => {
                let Some(token) = self.models[n].token else { return };
                assert!(source.unregister(token));
                // What was received is lost, nobody knows how much: so a new pair of sockets.
                self.models[n] = Model::new(n);
            }
            Step::Pause(n) | Step::Resume(n) => {
                let model = &mut self.models[n];
                let Some(token) = model.token else { return };
                model.paused = matches!(step, Step::Pause(_));
                let done = if model.paused { source.pause(token) } else { source.resume(token) };
                done.unwrap();
            }
            Step::Write(n, count) => self.models[n].write(count),
            Step::Close(n) => {
                if let End::Stream(_) = self.models[n].there {
                    self.models[n].there = End::Closed;
                }
            }
            Step::Look => drop(self.bench.queue.wait(Wait::poll().at_least(usize::MAX)).unwrap()),
            Step::Take => drop(self.take()),
            Step::Drop => drop(self.kept.pop_front()),
            Step::Register(_) => {}
        }
    }

    fn take(&mut self) -> bool {
        let Some(event) = self.bench.queue.next() else { return false };
        let model = &mut self.models[usize::try_from(event.key).unwrap()];
        assert_eq!(Some(event.token), model.token, "only the registration that stands");
        match event.received {
            Received::Data(data) => {
                if let Some(sent) = model.datagrams.pop_front() {
                    assert_eq!(data.len(), sent.min(16), "a datagram is one event");
                    let whole: Vec<_> = model.owed.drain(..sent).collect();
                    assert_eq!(*data, whole[..data.len()]);
                } else {
                    assert!(!data.is_empty() && data.len() <= 16);
                    let owed: Vec<_> = model.owed.drain(..data.len()).collect();
                    assert_eq!(*data, owed, "in order, and nothing is missing");
                }
                self.kept.push_back(data);
            }
            Received::End => {
                assert!(matches!(model.there, End::Closed) && model.owed.is_empty());
                *model = Model::new(usize::try_from(event.key).unwrap());
            }
            Received::Error(error) => panic!("{error}"),
        }
        true
    }

    /// Everything that is owed comes. Then the queue sleeps.
    fn settle(&mut self) {
        for n in 0..SOCKETS {
            self.step(Step::Resume(n));
        }
        self.kept.clear();
        let due = |model: &Model| {
            model.token.is_some() && (!model.owed.is_empty() || matches!(model.there, End::Closed))
        };
        while self.models.iter().any(due) {
            assert!(self.bench.queue.wait(common::PATIENCE).unwrap() > 0, "something was lost");
            while self.take() {
                self.kept.clear();
            }
        }
        self.kept.clear();
        // Who went without has the buffers back one after another.
        for _ in 0..2 * SOCKETS {
            self.bench.queue.wait(Wait::poll()).unwrap();
            assert!(!self.take(), "more came than was sent");
        }
        assert_eq!(self.bench.source().starved(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is called in whatever order, with few buffers and a small ring: every byte comes once
    /// and in order, nothing comes from a registration that is gone, and in the end there is silence.
    #[test]
    fn any_sequence_of_calls_loses_nothing_and_tells_nobody_else(
        steps in steps(),
        ring in 1_usize..6,
        buffers in 1_usize..5,
        one_thread in any::<bool>(),
    ) {
        let make = if one_thread { for_one_thread } else { receiver };
        let Some(bench) = Bench::of(ring, make(buffers, 16)) else { return Ok(()) };
        let models = (0..SOCKETS).map(Model::new).collect();
        let mut world = World { bench, models, kept: VecDeque::new() };
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
