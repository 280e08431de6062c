//! Descriptors that get ready: one of a thousand, and all of them.

mod kevent;
mod peers;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use crate::group::{Bound, Goal, Group, Metric, Peer, Result, Sample, Setting, Topic};
use crate::measure::{self, Random};

pub(crate) const TOPIC: Topic =
    Topic { name: "readiness", title: "Descriptors that get ready", groups, helper: None };

/// A pipe, or a pair of sockets in the place of one. Neither end blocks.
struct Pipe {
    /// Shared with those who want a share in it.
    read: Arc<OwnedFd>,
    write: OwnedFd,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Pipe,
    Socket,
}

impl Pipe {
    fn new(kind: Kind) -> Result<Pipe> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (read, write) = match kind {
            Kind::Pipe => pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?,
            Kind::Socket => {
                let (read, write) = UnixStream::pair()?;
                read.set_nonblocking(true)?;
                write.set_nonblocking(true)?;
                (read.into(), write.into())
            }
        };
        Ok(Pipe { read: Arc::new(read), write, kind })
    }

    fn write(&self) -> Result<()> {
        rustix::io::write(&self.write, &[7; 8])?;
        Ok(())
    }

    /// Reads what was written. A read that brings less than there is room for has brought all, so
    /// nobody needs to ask twice, edge-triggered or not.
    fn read(&self) -> Result<()> {
        rustix::io::read(&self.read, &mut [0; 64])?;
        Ok(())
    }
}

/// What mio, tokio and others want of a descriptor is its read end.
impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl AsRawFd for Pipe {
    fn as_raw_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

type Pipes = Rc<[Pipe]>;

/// Who waits for pipes. Every peer's part is this.
trait Watch: Sized + 'static {
    /// Registers the pipes.
    fn open(pipes: Pipes) -> Result<Self>;

    /// Waits until something is ready, and reads it. Says how many pipes that were.
    fn turn(&mut self) -> Result<usize>;
}

/// What is to be done.
#[derive(Clone, Copy)]
enum Shape {
    One(Kind),
    All(Kind),
    Register,
    Memory,
}

fn peer<W: Watch>(name: &'static str, shape: Shape) -> Peer {
    let run: fn(&Setting) -> Result<Sample> = match shape {
        Shape::One(Kind::Pipe) => |setting| one_ready::<W>(setting, Kind::Pipe),
        Shape::One(Kind::Socket) => |setting| one_ready::<W>(setting, Kind::Socket),
        Shape::All(Kind::Pipe) => |setting| all_ready::<W>(setting, Kind::Pipe),
        Shape::All(Kind::Socket) => |setting| all_ready::<W>(setting, Kind::Socket),
        Shape::Register => registration::<W>,
        Shape::Memory => memory::<W>,
    };
    Peer { name, run }
}

fn everyone(shape: Shape) -> Vec<Peer> {
    vec![
        peer::<kevent::Level>("kevent", shape),
        peer::<kevent::Edge>("kevent, edge", shape),
        peer::<kevent::Ring>("kevent, ring", shape),
        peer::<kevent::RingOfOneThread>("kevent, ring of one thread", shape),
        peer::<peers::EpollLevel>("epoll", shape),
        peer::<peers::EpollEdge>("epoll, edge", shape),
        peer::<peers::UringPoll>("io_uring, multishot poll", shape),
        peer::<peers::UringRead>("io_uring, multishot read", shape),
        peer::<peers::Mio>("mio", shape),
        peer::<peers::Polling>("polling", shape),
        peer::<peers::Calloop>("calloop", shape),
        peer::<peers::Tokio>("tokio AsyncFd", shape),
    ]
}

/// For the topic of memory.
pub(super) fn memory_peers() -> Vec<Peer> {
    everyone(Shape::Memory)
}

const METRICS: &[Metric] = &[
    Metric { name: "CPU per event, above write and read", unit: "ns" },
    Metric { name: "CPU per event, in all", unit: "ns" },
];

const ONE: &str = "Eight bytes are written to one of them at random, and read when it is told ready. \
                   Each process first measures the write and the read alone, on the same ones.";
const ALL: &str = "Eight bytes are written to each, and read as they are told ready. \
                   Each process first measures the writes and the reads alone, on the same ones.";

fn groups() -> Vec<Group> {
    let goal = |who, factor| Goal { metric: 0, who, bound: Bound::Times(factor, &["epoll"]) };
    vec![
        Group {
            name: "readiness/one".into(),
            title: "One of 1,000 pipes gets ready".into(),
            about: ONE,
            metrics: METRICS,
            peers: everyone(Shape::One(Kind::Pipe)),
            size: 1_000,
            goals: vec![goal("kevent", 1.05), goal("kevent, ring of one thread", 1.0)],
        },
        Group {
            name: "readiness/all".into(),
            title: "All of 1,000 pipes get ready".into(),
            about: ALL,
            metrics: METRICS,
            peers: everyone(Shape::All(Kind::Pipe)),
            size: 1_000,
            goals: vec![goal("kevent", 1.05), goal("kevent, ring of one thread", 0.5)],
        },
        Group {
            name: "readiness/one-socket".into(),
            title: "One of 1,000 sockets gets ready".into(),
            about: ONE,
            metrics: METRICS,
            peers: everyone(Shape::One(Kind::Socket)),
            size: 1_000,
            goals: vec![goal("kevent", 1.05), goal("kevent, ring of one thread", 1.0)],
        },
        Group {
            name: "readiness/all-sockets".into(),
            title: "All of 1,000 sockets get ready".into(),
            about: ALL,
            metrics: METRICS,
            peers: everyone(Shape::All(Kind::Socket)),
            size: 1_000,
            goals: vec![goal("kevent", 1.05), goal("kevent, ring of one thread", 0.5)],
        },
        Group {
            name: "readiness/register".into(),
            title: "1,000 pipes are registered".into(),
            about: "CPU time from nothing to the first event of one of them.",
            metrics: &[Metric { name: "CPU per registration", unit: "ns" }],
            peers: everyone(Shape::Register),
            size: 1_000,
            goals: vec![],
        },
    ]
}

fn pipes(setting: &Setting, kind: Kind) -> Result<Pipes> {
    let count = setting.pick(setting.size, 32);
    (0..count).map(|_| Pipe::new(kind)).collect::<Result<Vec<_>>>().map(Pipes::from)
}

fn one_ready<W: Watch>(setting: &Setting, kind: Kind) -> Result<Sample> {
    let pipes = pipes(setting, kind)?;
    let mut random = Random::new();
    let bare = measure::cpu_per_operation(setting, 1, || {
        let pipe = random.pick(&pipes)?;
        pipe.write()?;
        pipe.read()
    })?;
    let mut watch = W::open(Rc::clone(&pipes))?;
    let cost = measure::cpu_per_operation(setting, 1, || {
        random.pick(&pipes)?.write()?;
        take(&mut watch, 1)
    })?;
    Ok(vec![Some(cost - bare), Some(cost)])
}

fn all_ready<W: Watch>(setting: &Setting, kind: Kind) -> Result<Sample> {
    let pipes = pipes(setting, kind)?;
    let bare = measure::cpu_per_operation(setting, pipes.len(), || {
        pipes.iter().try_for_each(Pipe::write)?;
        pipes.iter().try_for_each(Pipe::read)
    })?;
    let mut watch = W::open(Rc::clone(&pipes))?;
    let cost = measure::cpu_per_operation(setting, pipes.len(), || {
        pipes.iter().try_for_each(Pipe::write)?;
        take(&mut watch, pipes.len())
    })?;
    Ok(vec![Some(cost - bare), Some(cost)])
}

fn registration<W: Watch>(setting: &Setting) -> Result<Sample> {
    let pipes = pipes(setting, Kind::Pipe)?;
    let register = || -> Result<f64> {
        pipes.first().ok_or("no pipes")?.write()?;
        let (cost, _) = measure::cpu_of(|| {
            let mut watch = W::open(Rc::clone(&pipes))?;
            take(&mut watch, 1)?;
            // Dropped after the clock was looked at.
            Ok(watch)
        })?;
        Ok(cost / pipes.len() as f64)
    };
    let mut costs = (0..setting.pick(9, 1)).map(|_| register()).collect::<Result<Vec<_>>>()?;
    Ok(vec![measure::quantile(&mut costs, 0.5)])
}

fn memory<W: Watch>(setting: &Setting) -> Result<Sample> {
    let pipes = pipes(setting, Kind::Pipe)?;
    super::memory::heap_of(pipes.len(), || {
        let mut watch = W::open(Rc::clone(&pipes))?;
        pipes.iter().try_for_each(Pipe::write)?;
        take(&mut watch, pipes.len())?;
        Ok(watch)
    })
}

/// Waits for as many pipes as were written to.
fn take(watch: &mut impl Watch, count: usize) -> Result<()> {
    let mut taken = 0;
    while taken < count {
        taken += watch.turn()?;
    }
    if taken == count { Ok(()) } else { Err(format!("{taken} ready instead of {count}").into()) }
}
