//! A small program on the simulated queue: it echoes what it hears, and hangs up on who is silent.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kevent_core::testing::Sim;
use kevent_core::{Queue, SourceId, TimerEvent, Timers, Token};
use kevent_net::{Interest, Mode, Readiness, ReadyEvent};
use proptest::prelude::*;

/// Who says nothing for that long is hung up on.
const SILENCE: Duration = Duration::from_secs(5);

enum Event {
    Ready(ReadyEvent),
    Tick(TimerEvent),
}

/// The program. Nothing in it knows of a simulation.
struct Echo {
    queue: Queue<Event>,
    readiness: SourceId<Readiness>,
    timers: SourceId<Timers>,
    clients: HashMap<u64, Client>,
    /// When, who, and what.
    log: Vec<(Instant, u64, Heard)>,
}

struct Client {
    socket: UnixStream,
    readiness: Token,
    timer: Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Bytes(usize),
    End,
    Silence,
}

impl Echo {
    fn new(mut queue: Queue<Event>, sockets: Vec<UnixStream>) -> Echo {
        let readiness = queue.attach(Readiness::new(), Event::Ready).unwrap();
        let timers = queue.attach(Timers::new(), Event::Tick).unwrap();
        let mut clients = HashMap::new();
        for (key, socket) in (0..).zip(sockets) {
            socket.set_nonblocking(true).unwrap();
            let interest = Interest::READABLE;
            let token = queue[readiness].register(&socket, interest, Mode::Edge, key).unwrap();
            let timer = queue[timers].after(SILENCE, key);
            clients.insert(key, Client { socket, readiness: token, timer });
        }
        Echo { queue, readiness, timers, clients, log: Vec::new() }
    }

    fn run(&mut self) {
        while !self.clients.is_empty() {
            self.queue.wait(None).unwrap();
            while let Some(event) = self.queue.next() {
                match event {
                    Event::Ready(event) => self.hear(event.key),
                    Event::Tick(tick) => self.hang_up(tick.key, Heard::Silence),
                }
            }
        }
    }

    fn hear(&mut self, key: u64) {
        let mut buffer = [0; 4096];
        while let Some(client) = self.clients.get_mut(&key) {
            match client.socket.read(&mut buffer) {
                Ok(0) => return self.hang_up(key, Heard::End),
                Ok(n) => {
                    self.log.push((self.queue.clock().now(), key, Heard::Bytes(n)));
                    self.queue[self.timers].cancel(client.timer);
                    client.timer = self.queue[self.timers].after(SILENCE, key);
                    // Who does not read what he sent is not echoed to.
                    let _ = client.socket.write(&buffer[..n]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.hang_up(key, Heard::End),
            }
        }
    }

    fn hang_up(&mut self, key: u64, why: Heard) {
        let Some(client) = self.clients.remove(&key) else { return };
        self.queue[self.timers].cancel(client.timer);
        self.queue[self.readiness].unregister(client.readiness);
        self.log.push((self.queue.clock().now(), key, why));
    }
}

/// What somebody does at the other end.
#[derive(Clone, Debug)]
enum Act {
    Say(usize),
    Finish,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![5 => (1_usize..1000).prop_map(Act::Say), 1 => Just(Act::Finish)]
}

/// What it did, by milliseconds, and whom it did it to.
type Trace = Vec<(u64, u64, Heard)>;

/// Runs a script, and says what the program did, and what each of the others heard.
fn run(seed: u64, script: &[(u64, usize, Act)]) -> (Trace, Vec<Vec<u8>>) {
    let sim = Sim::new(seed);
    let begun = sim.now();
    let (here, there): (Vec<_>, Vec<_>) = (0..3).map(|_| UnixStream::pair().unwrap()).unzip();
    let there: Vec<_> = there.into_iter().map(|socket| Arc::new(Mutex::new(socket))).collect();
    for (n, (time, who, act)) in script.iter().cloned().enumerate() {
        let socket = Arc::clone(&there[who]);
        sim.at(Duration::from_millis(time), move |_| {
            let socket = &mut *socket.lock().unwrap();
            // An error says that the program has hung up.
            match act {
                Act::Say(length) => drop(socket.write(&vec![n as u8; length])),
                Act::Finish => drop(socket.shutdown(Shutdown::Write)),
            }
        });
    }
    let mut echo = Echo::new(sim.queue().unwrap(), here);
    echo.run();
    let time = |at: Instant| (at - begun).as_millis() as u64;
    let trace = echo.log.iter().map(|(at, who, what)| (time(*at), *who, *what)).collect();
    let heard = there.iter().map(|socket| {
        let mut heard = Vec::new();
        let mut socket = socket.lock().unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.read_to_end(&mut heard);
        heard
    });
    (trace, heard.collect())
}

/// What the trace has to be for one of them, going by the script alone.
fn expected_end(script: &[(u64, usize, Act)], who: usize, trace: &Trace) -> (u64, Heard) {
    let silence = SILENCE.as_millis() as u64;
    let mine = trace.iter().filter(|(_, key, _)| *key == who as u64);
    let last =
        mine.filter(|(.., what)| matches!(what, Heard::Bytes(_))).map(|(at, ..)| *at).next_back();
    let silent_at = last.unwrap_or(0) + silence;
    let finish = script.iter().filter(|(_, w, act)| *w == who && matches!(act, Act::Finish));
    match finish.map(|(at, ..)| *at).min() {
        Some(at) if at < silent_at => (at, Heard::End),
        _ => (silent_at, Heard::Silence),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the script: everything that is said in time is heard when it is said, all that is heard
    /// is echoed in its order, and who is silent is hung up on to the millisecond. And again the same.
    #[test]
    fn echo_hears_all_in_time_and_hangs_up_on_the_silent(
        seed: u64,
        script in prop::collection::vec((0_u64..4999, 0_usize..3, act()), 0..60).prop_map(|acts| {
            let mut time = 0;
            let later = acts.into_iter().map(|(delay, who, act)| {
                time += delay / 5;
                (time, who, act)
            });
            later.collect::<Vec<_>>()
        }),
    ) {
        let (trace, heard) = run(seed, &script);
        for (who, heard) in heard.iter().enumerate() {
            let mine: Vec<_> = trace.iter().filter(|(_, key, _)| *key == who as u64).collect();
            let (&&(ended, _, end), before) = mine.split_last().unwrap();
            let (expected, why) = expected_end(&script, who, &trace);
            // Of what happens at one time, either may be first.
            let tie = script.iter().any(|(at, w, act)| {
                *w == who && *at == ended && (matches!(act, Act::Say(_)) || why == Heard::Silence)
            });
            prop_assert!((ended, end) == (expected, why) || tie, "{ended} {end:?}: {trace:?}");
            let mut said = HashMap::<u64, usize>::new();
            for (at, _, act) in script.iter().filter(|(at, w, _)| *w == who && *at < ended) {
                if let Act::Say(length) = act {
                    *said.entry(*at).or_default() += length;
                }
            }
            let mut times = HashMap::<u64, usize>::new();
            for (at, _, what) in before {
                let Heard::Bytes(n) = what else { panic!("an end before the end: {trace:?}") };
                *times.entry(*at).or_default() += n;
            }
            if !tie {
                prop_assert_eq!(&times, &said);
                prop_assert_eq!(heard.len(), said.values().sum::<usize>());
            }
        }
        prop_assert_eq!(run(seed, &script), (trace, heard));
    }
}

/// What comes of it with fifty seeds.
fn outcomes<T: Ord>(run: impl Fn(Sim) -> T) -> BTreeSet<T> {
    (0..50).map(|seed| run(Sim::new(seed))).collect()
}

#[test]
fn two_descriptors_that_are_ready_are_told_in_either_order() {
    let orders = outcomes(|sim| {
        let mut queue = sim.queue().unwrap();
        let readiness = queue.attach(Readiness::new(), |event| event.key).unwrap();
        let pairs = [1, 2].map(|key| {
            let (here, mut there) = UnixStream::pair().unwrap();
            queue[readiness].register(&here, Interest::READABLE, Mode::Edge, key).unwrap();
            there.write_all(b"hello").unwrap();
            (here, there)
        });
        queue.wait(None).unwrap();
        drop(pairs);
        (queue.next(), queue.next())
    });
    assert_eq!(orders, [(Some(1), Some(2)), (Some(2), Some(1))].into());
}

#[test]
fn what_is_ready_and_what_is_to_happen_now_come_together_or_one_after_the_other() {
    let counts = outcomes(|sim| {
        let mut queue = sim.queue().unwrap();
        let readiness = queue.attach(Readiness::new(), |event| event.key).unwrap();
        let timers = queue.attach(Timers::new(), |tick: TimerEvent| tick.key).unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        queue[readiness].register(&here, Interest::READABLE, Mode::Edge, 1).unwrap();
        there.write_all(b"hello").unwrap();
        sim.after(Duration::ZERO, move |sim| {
            sim.inject(timers, None, TimerEvent::for_test(2, sim.now()));
        });
        queue.wait(None).unwrap()
    });
    assert_eq!(counts, [1, 2].into());
}

#[test]
fn queue_in_a_queue_is_told_at_its_own_deadlines() {
    let sim = Sim::new(1);
    let mut inner = sim.queue().unwrap();
    let timers = inner.attach(Timers::new(), |tick| tick.key).unwrap();
    let mut outer = sim.queue().unwrap();
    let readiness = outer.attach(Readiness::new(), |event| event.key).unwrap();
    outer[readiness].register(&inner, Interest::READABLE, Mode::Level, 7).unwrap();
    inner[timers].after(Duration::from_secs(10), 1);
    inner[timers].after(Duration::from_secs(20), 2);
    let mut ticks = Vec::new();
    while ticks.len() < 2 {
        outer.wait(None).unwrap();
        assert_eq!(outer.next(), Some(7));
        inner.wait(Duration::ZERO).unwrap();
        while let Some(key) = inner.next() {
            ticks.push((key, sim.elapsed().as_secs()));
        }
    }
    assert_eq!(ticks, [(1, 10), (2, 20)]);
}
