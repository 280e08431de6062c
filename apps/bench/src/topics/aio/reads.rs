//! Blocks of a large file, read at random.

use super::by_hand::{Older, Plain, Pread, Registered, Threads};
use super::files::{BLOCK, How, Large};
use super::kevent::{self, Hinted, InTokio, Pool, Reads, Usual};
use super::runtimes::{Compio, Monoio, TokioBlocking, TokioFile, TokioUring};
use super::work::{CPU, Cost, METRICS, Pass, Reader, Source, WALL, median_cost};
use crate::group::{Bound, Goal, Group, Peer, Result, Sample, Setting};
use crate::measure::Random;

const PREAD: &str = "pread loop";
const BY_HAND: &[&str] = &["io_uring, registered", "io_uring"];
const OLDER: &str = "libaio";
const THREADS: &str = "32 threads, channel";
const TOKIO: &str = "tokio::fs::File";
const BLOCKING: &str = "tokio spawn_blocking";

pub(super) fn groups() -> Vec<Group> {
    vec![
        group("aio/cached-1", "Cached blocks, one at a time", 1, How::Cached),
        group("aio/cached-32", "Cached blocks, 32 at a time", 32, How::Cached),
        group("aio/cached-128", "Cached blocks, 128 at a time", 128, How::Cached),
        group("aio/cold-32", "Cold blocks, 32 at a time", 32, How::Cold),
        group("aio/cold-128", "Cold blocks, 128 at a time", 128, How::Cold),
        group("aio/direct-32", "Blocks past the page cache, 32 at a time", 32, How::Direct),
        group("aio/direct-128", "Blocks past the page cache, 128 at a time", 128, How::Direct),
    ]
}

fn group(name: &str, title: &str, depth: usize, how: How) -> Group {
    let about = match how {
        How::Cached => {
            "4 KiB at random places of a file of 1 GiB, all of it in the page cache. Reads per second are a \
             million through the wall time. (The pread loop has one in flight always.)"
        }
        How::Cold => {
            "4 KiB at random places of a file of 1 GiB, nothing of it in the page cache of this machine (a \
             host may have its own). Reads per second are a million through the wall time."
        }
        How::Direct => {
            "4 KiB at random places of a file of 1 GiB that is open with O_DIRECT. Reads per second are a \
             million through the wall time."
        }
    };
    Group {
        name: name.into(),
        title: title.into(),
        about,
        metrics: METRICS,
        peers: peers(how),
        size: depth,
        goals: goals(how, depth),
    }
}

fn peers(how: How) -> Vec<Peer> {
    let mut peers = vec![peer::<Reads<Usual>>("kevent", how)];
    if how == How::Cold {
        peers.push(peer::<Reads<Hinted>>("kevent, told", how));
    }
    peers.extend([
        peer::<Reads<kevent::Registered>>("kevent, registered", how),
        peer::<Reads<Pool>>("kevent, pool", how),
        peer::<InTokio>("kevent, in tokio", how),
        peer::<Registered>(BY_HAND[0], how),
        peer::<Plain>(BY_HAND[1], how),
        peer::<Older>(OLDER, how),
        peer::<Threads>(THREADS, how),
        peer::<Monoio>("monoio", how),
        peer::<Compio>("compio", how),
        peer::<TokioUring>("tokio-uring", how),
        peer::<TokioBlocking>(BLOCKING, how),
    ]);
    if how == How::Cached {
        peers.push(peer::<Pread>(PREAD, how));
    }
    // Its memory does not begin with a sector.
    if how != How::Direct {
        peers.push(peer::<TokioFile>(TOKIO, how));
    }
    peers
}

fn peer<R: Reader>(name: &'static str, how: How) -> Peer {
    let run = match how {
        How::Cached => cached::<R>,
        How::Cold => cold::<R>,
        How::Direct => direct::<R>,
    };
    Peer { name, run }
}

fn goals(how: How, depth: usize) -> Vec<Goal> {
    let goal = |metric, times, others| {
        let bound = Bound::Times(times, others);
        Goal { metric, who: "kevent", bound }
    };
    let of_pool = |goal: Goal| Goal { who: "kevent, pool", ..goal };
    let in_tokio = |goal: Goal| Goal { who: "kevent, in tokio", ..goal };
    // So many reads per second more are so much less time for each.
    match (how, depth) {
        (How::Cached, 1) => vec![
            goal(CPU, 1.1, &[PREAD]),
            in_tokio(goal(CPU, 0.1, &[TOKIO])),
            of_pool(goal(CPU, 1.2, &[PREAD])),
        ],
        (How::Cached, 32) => {
            vec![
                goal(CPU, 1.08, BY_HAND),
                goal(CPU, 1.0, &[PREAD]),
                in_tokio(goal(CPU, 0.1, &[TOKIO])),
            ]
        }
        (How::Cached, _) => vec![goal(CPU, 1.08, BY_HAND), goal(CPU, 1.0, &[PREAD])],
        (How::Cold, 32) => vec![
            goal(WALL, 1.03, BY_HAND),
            goal(CPU, 1.1, BY_HAND),
            goal(WALL, 0.4, &[TOKIO]),
            in_tokio(goal(WALL, 0.4, &[TOKIO])),
            goal(WALL, 0.25, &[OLDER]),
            of_pool(goal(WALL, 1.0, &[THREADS])),
            of_pool(goal(WALL, 0.5, &[BLOCKING])),
        ],
        (How::Cold, _) => vec![
            goal(WALL, 1.03, BY_HAND),
            goal(CPU, 1.1, BY_HAND),
            goal(WALL, 0.4, &[TOKIO]),
            goal(WALL, 0.25, &[OLDER]),
        ],
        (How::Direct, _) => vec![goal(WALL, 1.03, BY_HAND), goal(CPU, 1.1, BY_HAND)],
    }
}

fn cached<R: Reader>(setting: &Setting) -> Result<Sample> {
    let source = Source { large: Large::get(setting)?, how: How::Cached, depth: setting.size };
    source.large.warm()?;
    measure::<R>(setting, &source, setting.pick(4_096, 256))
}

fn cold<R: Reader>(setting: &Setting) -> Result<Sample> {
    let source = Source { large: Large::get(setting)?, how: How::Cold, depth: setting.size };
    measure::<R>(setting, &source, setting.pick(2_048, 128))
}

fn direct<R: Reader>(setting: &Setting) -> Result<Sample> {
    let source = Source { large: Large::get(setting)?, how: How::Direct, depth: setting.size };
    measure::<R>(setting, &source, setting.pick(2_048, 128))
}

/// Has so many blocks read in each pass.
fn measure<R: Reader>(setting: &Setting, source: &Source, count: usize) -> Result<Sample> {
    let mut reader = R::open(source)?;
    let mut random = Random::new();
    let cost = median_cost(setting, || {
        if source.how != How::Cached {
            source.large.chill()?;
        }
        let block = || random.below(source.large.blocks()) * BLOCK as u64;
        let pass = Pass::new(std::iter::repeat_with(block).take(count).collect());
        let cost = Cost::of(count, || reader.read(&pass))?;
        pass.finish()?;
        Ok(cost)
    })?;
    Ok(cost.sample())
}
