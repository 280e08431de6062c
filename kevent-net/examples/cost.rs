//! What an event costs beyond the write and the read that it is about: by epoll by hand, by
//! `Readiness` and by `Receiver`.
//!
//! ```text
//! cargo run --release -p kevent-net --example cost [rounds [milliseconds [pipe]]]
//! ```
//!
//! In each round every way has its turn, so that a mood of the machine meets all of them; figures are
//! this thread's processor time for each event, the median of the rounds and their range. On a machine
//! that others use, many short rounds say more than few long ones.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_core::Queue;
use kevent_net::{Interest, Mode, Readiness, ReadyEvent, ReceiveEvent, Received, Receiver};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};

const SOCKETS: usize = 1000;

/// Sockets, and a way to learn that they can be read.
trait Way {
    /// Writes a byte to each socket from `first` to `last`, and reads all of them back.
    fn turn(&mut self, first: usize, last: usize) -> io::Result<()>;
}

struct Pairs {
    here: Vec<Arc<File>>,
    there: Vec<File>,
}

impl Pairs {
    fn new(kind: Kind) -> io::Result<Pairs> {
        let mut pairs = Pairs { here: Vec::new(), there: Vec::new() };
        for _ in 0..SOCKETS {
            let (here, there): (OwnedFd, OwnedFd) = match kind {
                Kind::Socket => {
                    let (here, there) = UnixStream::pair()?;
                    (here.into(), there.into())
                }
                Kind::Pipe => pipe_with(PipeFlags::CLOEXEC)?,
            };
            rustix::io::ioctl_fionbio(&here, true)?;
            pairs.here.push(Arc::new(here.into()));
            pairs.there.push(there.into());
        }
        Ok(pairs)
    }

    fn write(&mut self, first: usize, last: usize) -> io::Result<usize> {
        self.there[first..last].iter_mut().try_for_each(|there| there.write_all(b"x"))?;
        Ok(last - first)
    }

    fn read(&self, which: usize) -> io::Result<()> {
        let read = (&*self.here[which]).read(&mut [0; 64])?;
        assert_eq!(read, 1);
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Socket,
    Pipe,
}

/// Nobody asks.
struct Bare(Pairs);

impl Way for Bare {
    fn turn(&mut self, first: usize, last: usize) -> io::Result<()> {
        self.0.write(first, last)?;
        (first..last).try_for_each(|which| self.0.read(which))
    }
}

struct Epoll {
    pairs: Pairs,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Epoll {
    fn new(kind: Kind) -> io::Result<Epoll> {
        let (pairs, epoll) = (Pairs::new(kind)?, epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        for (here, which) in pairs.here.iter().zip(0..) {
            epoll::add(&epoll, here, epoll::EventData::new_u64(which), flags)?;
        }
        Ok(Epoll { pairs, epoll, events: Vec::with_capacity(1024) })
    }
}

impl Way for Epoll {
    fn turn(&mut self, first: usize, last: usize) -> io::Result<()> {
        let mut missing = self.pairs.write(first, last)?;
        while missing > 0 {
            self.events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut self.events), None)?;
            missing -= self.events.len();
            for event in &self.events {
                self.pairs.read(event.data.u64() as usize)?;
            }
        }
        Ok(())
    }
}

struct ByReadiness {
    pairs: Pairs,
    queue: Queue<ReadyEvent>,
}

impl ByReadiness {
    fn new(kind: Kind) -> io::Result<ByReadiness> {
        let (pairs, mut queue) = (Pairs::new(kind)?, Queue::new()?);
        let id = queue.attach(Readiness::new(), |event| event)?;
        for (here, which) in pairs.here.iter().zip(0..) {
            queue[id].register(&**here, Interest::READABLE, Mode::Edge, which)?;
        }
        Ok(ByReadiness { pairs, queue })
    }
}

impl Way for ByReadiness {
    fn turn(&mut self, first: usize, last: usize) -> io::Result<()> {
        let mut missing = self.pairs.write(first, last)?;
        while missing > 0 {
            self.queue.wait(None)?;
            while let Some(event) = self.queue.next() {
                self.pairs.read(event.key as usize)?;
                missing -= 1;
            }
        }
        Ok(())
    }
}

struct ByReceiver {
    pairs: Pairs,
    queue: Queue<ReceiveEvent>,
}

impl ByReceiver {
    fn new(kind: Kind, receiver: io::Result<Receiver>) -> io::Result<ByReceiver> {
        let (pairs, mut queue) = (Pairs::new(kind)?, Queue::new()?);
        let id = queue.attach(receiver?, |event| event)?;
        for (here, which) in pairs.here.iter().zip(0..) {
            queue[id].register(here, which)?;
        }
        Ok(ByReceiver { pairs, queue })
    }
}

impl Way for ByReceiver {
    fn turn(&mut self, first: usize, last: usize) -> io::Result<()> {
        let mut missing = self.pairs.write(first, last)?;
        while missing > 0 {
            self.queue.wait(None)?;
            while let Some(event) = self.queue.next() {
                let Received::Data(data) = event.received else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                };
                assert_eq!(data.len(), 1);
                missing -= 1;
            }
        }
        Ok(())
    }
}

/// Nanoseconds for registering a socket and unregistering it again: by hand, and with `Readiness`.
fn measure_registering(pairs: &Pairs, span: Duration) -> io::Result<[f64; 2]> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    let by_hand = repeat(span, pairs.here.len(), || {
        for (here, which) in pairs.here.iter().zip(0..) {
            epoll::add(&epoll, here, epoll::EventData::new_u64(which), flags)?;
        }
        pairs.here.iter().try_for_each(|here| Ok(epoll::delete(&epoll, here)?))
    })?;
    let mut queue: Queue<ReadyEvent> = Queue::new()?;
    let id = queue.attach(Readiness::new(), |event| event)?;
    let mut tokens = Vec::with_capacity(pairs.here.len());
    let readiness = repeat(span, pairs.here.len(), || {
        for (here, which) in pairs.here.iter().zip(0..) {
            tokens.push(queue[id].register(&**here, Interest::READABLE, Mode::Edge, which)?);
        }
        tokens.drain(..).for_each(|token| assert!(queue[id].unregister(token)));
        Ok(())
    })?;
    Ok([by_hand, readiness])
}

/// Nanoseconds for each of the `many` things that `act` does each time.
fn repeat(span: Duration, many: usize, mut act: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let (begun, before, mut times) = (Instant::now(), processor_time(), 0);
    while begun.elapsed() < span {
        act()?;
        times += many;
    }
    Ok((processor_time() - before) / times as f64)
}

/// The processor time of this thread so far, in nanoseconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds for each event, where `active` of the sockets are at a time.
fn measure(way: &mut dyn Way, active: usize, span: Duration) -> io::Result<f64> {
    repeat(span, SOCKETS, || {
        let mut firsts = (0..SOCKETS).step_by(active);
        firsts.try_for_each(|first| way.turn(first, first + active))
    })
}

fn median_and_range(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn main() -> io::Result<()> {
    let pipe = std::env::args().any(|argument| argument == "pipe");
    let kind = if pipe { Kind::Pipe } else { Kind::Socket };
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let rounds = numbers.next().unwrap_or(9).max(1);
    let span = Duration::from_millis(numbers.next().unwrap_or(1000));
    let mut ways: Vec<(&str, Box<dyn Way>)> = vec![
        ("bare", Box::new(Bare(Pairs::new(kind)?))),
        ("Readiness", Box::new(ByReadiness::new(kind)?)),
        ("epoll by hand", Box::new(Epoll::new(kind)?)),
    ];
    let number = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
    let for_one_thread = Receiver::for_one_thread(number(1024), number(64));
    for (name, receiver) in [
        ("Receiver", Receiver::with_buffers(number(1024), number(64))),
        ("for one thread", for_one_thread),
    ] {
        match ByReceiver::new(kind, receiver) {
            Ok(receiver) => ways.push((name, Box::new(receiver))),
            Err(error) => println!("without {name}: {error}"),
        }
    }
    // The same once more says how much the figures are worth.
    ways.push(("epoll again", Box::new(Epoll::new(kind)?)));
    for active in [1, SOCKETS] {
        println!("{active} of {SOCKETS} active:");
        let mut figures = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for ((_, way), figures) in ways.iter_mut().zip(&mut figures) {
                figures.push(measure(way.as_mut(), active, span)?);
            }
        }
        let floor = |n: usize| figures[n].iter().copied().fold(f64::INFINITY, f64::min);
        for ((n, (name, _)), own) in ways.iter().enumerate().zip(&figures) {
            let middle = |n: usize| median_and_range(figures[n].clone()).0;
            let above = |of: &dyn Fn(usize) -> f64| (of(n) - of(0)) / (of(2) - of(0));
            let (median, least, most) = median_and_range(own.clone());
            print!("  {name:14} {median:6.0} ns ({least:.0}-{most:.0}); above bare, by medians ");
            println!("{:.2} times epoll's, by minima {:.2}", above(&middle), above(&floor));
        }
    }
    let pairs = Pairs::new(kind)?;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let [by_hand, readiness] = measure_registering(&pairs, span)?;
        ratios.push(readiness / by_hand);
        println!(
            "register and unregister: {by_hand:.0} ns by hand, {readiness:.0} ns by Readiness"
        );
    }
    let (median, least, most) = median_and_range(ratios);
    println!("{median:.2} times epoll's ({least:.2}-{most:.2})");
    Ok(())
}
