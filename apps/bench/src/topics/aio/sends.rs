//! Files to sockets.

use std::fs::File;

use super::calls::{EpollLoop, SendPaths, Sendfile};
use super::files::{self, Files, How, Large};
use super::kevent::{AllStreams, Paths, QueuedSends, Sends};
use super::probe::Probe;
use super::receiver::Receiver;
use super::work::{CPU, Cost, METRICS, PathSender, Sender, Stream, Streams, median_cost};
use crate::group::{Bound, Goal, Group, Metric, Peer, Result, Sample, Setting};
use crate::measure;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const SENDFILE: &str = "sendfile(2)";
const PATHS: &str = "open, sendfile(2), close";

const STALLS: &[Metric] = &[
    Metric { name: "stall, p99.9", unit: "us" },
    Metric { name: "longest stall", unit: "us" },
    Metric { name: "wall time per MiB", unit: "us" },
];

pub(super) fn groups() -> Vec<Group> {
    vec![
        range("aio/sendfile-4k", "4 KiB of a cached file to a socket", 4 * KIB),
        range("aio/sendfile-64k", "64 KiB of a cached file to a socket", 64 * KIB),
        range("aio/sendfile-1m", "1 MiB of a cached file to a socket", MIB),
        range("aio/sendfile-1g", "1 GiB of a cached file to a socket", 1024 * MIB),
        Group {
            name: "aio/sendfile-path".into(),
            title: "100 cached files of 1 MiB, by path, to a socket".into(),
            about: "Over loopback to another process, on another processor. An operation is a file: \
                    opened, sent, closed. CPU time of the sender.",
            metrics: METRICS,
            peers: vec![
                Peer { name: "kevent", run: paths::<Paths> },
                Peer { name: PATHS, run: paths::<SendPaths> },
            ],
            size: 100,
            goals: vec![goal(CPU, Bound::Times(1.0, &[PATHS]))],
        },
        Group {
            name: "aio/sendfile-cold".into(),
            title: "32 cold streams to sockets, by one thread that waits for events".into(),
            about: "Each stream is a part of a file of which nothing is in the page cache, over loopback to \
                    another process. A stall is how long an event that another thread posts, every 250 us, \
                    waits until the thread takes it; so it is never less than a wake-up takes.",
            metrics: STALLS,
            peers: vec![
                Peer { name: "kevent", run: stalls::<AllStreams> },
                Peer { name: "epoll, sendfile(2)", run: stalls::<EpollLoop> },
            ],
            size: 32,
            goals: vec![goal(0, Bound::AtMost(200.0))],
        },
    ]
}

fn goal(metric: usize, bound: Bound) -> Goal {
    Goal { metric, who: "kevent", bound }
}

fn range(name: &str, title: &str, size: usize) -> Group {
    Group {
        name: name.into(),
        title: title.into(),
        about: "Over loopback to another process, on another processor, one after another. CPU time of the \
                sender. (No more than the file of this run has: a quarter of a gibibyte in a quick one.)",
        metrics: METRICS,
        peers: vec![
            Peer { name: "kevent", run: ranges::<Sends> },
            Peer { name: "kevent, through the queue", run: ranges::<QueuedSends> },
            Peer { name: SENDFILE, run: ranges::<Sendfile> },
        ],
        size,
        goals: vec![goal(CPU, Bound::Times(1.05, &[SENDFILE]))],
    }
}

fn ranges<S: Sender>(setting: &Setting) -> Result<Sample> {
    let [here, there] = measure::two_cpus()?;
    let large = Large::get(setting)?;
    large.warm()?;
    measure::pin(here)?;
    let (receiver, sockets) = Receiver::start(there, large.length, &[0])?;
    let socket = sockets.into_iter().next().ok_or("no connection")?;
    let mut sender = S::open(socket, files::open(&large.path, How::Cached)?)?;
    let length = large.length.min(setting.size as u64);
    // Some mebibytes in each pass.
    let count = (setting.pick(16, 1) * MIB / setting.size).max(1);
    let mut sent = 0;
    let cost = median_cost(setting, || {
        Cost::of(count, || {
            for _ in 0..count {
                sender.send(sent % large.length, length)?;
                sent += length;
            }
            Ok(())
        })
    })?;
    drop(sender);
    receiver.finish(sent)?;
    Ok(cost.sample())
}

fn paths<S: PathSender>(setting: &Setting) -> Result<Sample> {
    let [here, there] = measure::two_cpus()?;
    let files = Files::of_a_mebibyte()?;
    files.warm()?;
    measure::pin(here)?;
    let all = (files.items.len() * MIB) as u64;
    let (receiver, sockets) = Receiver::start(there, all, &[0])?;
    let mut sender = S::open(sockets.into_iter().next().ok_or("no connection")?)?;
    let mut sent = 0;
    let cost = median_cost(setting, || {
        sent += all;
        Cost::of(files.items.len(), || sender.send(&files.items))
    })?;
    drop(sender);
    receiver.finish(sent)?;
    Ok(cost.sample())
}

fn stalls<S: Streams>(setting: &Setting) -> Result<Sample> {
    let [here, there] = measure::two_cpus()?;
    let large = Large::get(setting)?;
    let part = large.length / setting.size as u64;
    let length = setting.pick(part, part.min(MIB as u64));
    let starts: Vec<_> = (0..setting.size as u64).map(|index| index * part).collect();
    measure::pin(here)?;
    let (receiver, sockets) = Receiver::start(there, large.length, &starts)?;
    let streams = sockets.into_iter().zip(starts).map(|(socket, at)| {
        let file: File = files::open(&large.path, How::Cold)?;
        Ok(Stream { socket, file, at, length })
    });
    let streams = streams.collect::<Result<Vec<_>>>()?;
    large.chill()?;
    let sent = streams.len() as u64 * length;
    let mut waits = Vec::new();
    let cost = Cost::of((sent as usize).div_ceil(MIB), || {
        waits = S::send(streams, &Probe { cpu: there })?;
        Ok(())
    })?;
    receiver.finish(sent)?;
    let mut waits: Vec<_> = waits.iter().map(|wait| wait.as_nanos() as f64 / 1e3).collect();
    let quantiles = [0.999, 1.0].map(|part| measure::quantile(&mut waits, part));
    Ok(vec![quantiles[0], quantiles[1], Some(cost.wall)])
}
