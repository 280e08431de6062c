//! What the peers are asked to do, and what it costs.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::files::{BLOCK, Files, How, Item, Large, is_right};
use super::probe::Probe;
use crate::group::{Metric, Result, Sample, Setting};
use crate::measure;

/// What is left to be done in one pass, for however many tasks or threads share it.
pub(super) struct Pass {
    places: Vec<u64>,
    next: AtomicUsize,
    done: Vec<AtomicBool>,
}

/// One thing to do: the block at that place, or the file of that number.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    index: usize,
    pub(super) place: u64,
}

impl Pass {
    pub(super) fn new(places: Vec<u64>) -> Arc<Pass> {
        let done = places.iter().map(|_| AtomicBool::new(false)).collect();
        Arc::new(Pass { places, next: AtomicUsize::new(0), done })
    }

    /// The next to be done, unless others have the rest.
    pub(super) fn take(&self) -> Option<Piece> {
        let index = self.next.fetch_add(1, Relaxed);
        Some(Piece { index, place: *self.places.get(index)? })
    }

    /// The block was read; this was in it.
    pub(super) fn read(&self, piece: Piece, bytes: &[u8]) -> Result<()> {
        self.check(piece, bytes.len() == BLOCK && is_right(piece.place, bytes))
    }

    /// The file was read; this was in it.
    pub(super) fn read_file(&self, files: &Files, piece: Piece, bytes: &[u8]) -> Result<()> {
        let item = files.items.get(piece.place as usize);
        self.check(piece, item.is_some_and(|item| item.is(bytes)))
    }

    fn check(&self, piece: Piece, is_right: bool) -> Result<()> {
        if !is_right {
            return Err(format!("what was read at {} is not what is there", piece.place).into());
        }
        self.done[piece.index].store(true, Relaxed);
        Ok(())
    }

    /// Whether all was done.
    pub(super) fn finish(&self) -> Result<()> {
        match self.done.iter().filter(|done| !done.load(Relaxed)).count() {
            0 => Ok(()),
            left => Err(format!("{left} of {} were not done", self.places.len()).into()),
        }
    }
}

/// What is read, and how.
pub(super) struct Source {
    pub(super) large: Large,
    pub(super) how: How,
    /// How many reads are in flight.
    pub(super) depth: usize,
}

/// Who reads blocks. Every peer's part is this.
pub(super) trait Reader: Sized + 'static {
    fn open(source: &Source) -> Result<Self>;

    /// Reads the blocks of the pass, as many at a time as the source says.
    fn read(&mut self, pass: &Arc<Pass>) -> Result<()>;
}

/// As many small files are worked on at a time.
pub(super) const SMALL_FILES_AT_ONCE: usize = 32;

/// Who opens, reads and closes files. Every peer's part is this.
pub(super) trait Opener: Sized + 'static {
    fn open(files: &Arc<Files>) -> Result<Self>;

    /// Does so with the files of the pass.
    fn read(&mut self, pass: &Arc<Pass>) -> Result<()>;
}

/// Who copies a tree. Every peer's part is this.
pub(super) trait Copier: Sized + 'static {
    fn open() -> Result<Self>;

    /// Makes copies of the directories and of all files below `to`, which is there.
    fn copy(&mut self, files: &Arc<Files>, to: &Path) -> Result<()>;
}

/// Who sends parts of a file. Every peer's part is this.
pub(super) trait Sender: Sized + 'static {
    fn open(socket: TcpStream, file: File) -> Result<Self>;

    /// Sends `length` bytes from `at`. They are in the socket when it returns.
    fn send(&mut self, at: u64, length: u64) -> Result<()>;
}

/// Who sends files that it is given the paths of. Every peer's part is this.
pub(super) trait PathSender: Sized + 'static {
    fn open(socket: TcpStream) -> Result<Self>;

    /// Sends all of each, in this order, and closes them.
    fn send(&mut self, items: &[Item]) -> Result<()>;
}

/// Who sends to many sockets, by one thread. Every peer's part is this.
pub(super) trait Streams: 'static {
    /// Sends all of all streams, and answers the probe meanwhile. Says how long each of its posts has waited.
    fn send(streams: Vec<Stream>, probe: &Probe) -> Result<Vec<Duration>>;
}

/// A part of a file, and where it goes.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    pub(super) file: File,
    pub(super) at: u64,
    pub(super) length: u64,
}

/// What is measured of each operation.
pub(super) const METRICS: &[Metric] =
    &[Metric { name: "CPU", unit: "us" }, Metric { name: "wall time", unit: "us" }];
pub(super) const CPU: usize = 0;
pub(super) const WALL: usize = 1;

/// Processor time of this process, and time by the clock, of each of the operations; in microseconds.
pub(super) struct Cost {
    pub(super) cpu: f64,
    pub(super) wall: f64,
}

impl Cost {
    pub(super) fn of(operations: usize, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let began = Instant::now();
        let (cpu, ()) = measure::cpu_of(work)?;
        let wall = began.elapsed().as_nanos() as f64;
        let each = operations as f64 * 1e3;
        Ok(Cost { cpu: cpu / each, wall: wall / each })
    }

    pub(super) fn sample(&self) -> Sample {
        vec![Some(self.cpu), Some(self.wall)]
    }
}

/// What an operation costs: the median of those passes that begin within the time that there is, after one
/// that is warm-up.
pub(super) fn median_cost(
    setting: &Setting,
    mut pass: impl FnMut() -> Result<Cost>,
) -> Result<Cost> {
    pass()?;
    let time = setting.pick(Duration::from_millis(200), Duration::ZERO);
    let began = Instant::now();
    let mut costs = vec![pass()?];
    while began.elapsed() < time {
        costs.push(pass()?);
    }
    let median = |what: fn(&Cost) -> f64| {
        let mut values: Vec<_> = costs.iter().map(what).collect();
        measure::quantile(&mut values, 0.5).ok_or("nothing was measured")
    };
    Ok(Cost { cpu: median(|cost| cost.cpu)?, wall: median(|cost| cost.wall)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::aio::files::content;

    #[test]
    fn peer_that_leaves_out_a_block_or_reads_another_is_found_out() {
        let at = |block: u64| block * BLOCK as u64;
        let pass = Pass::new(vec![at(3), at(5)]);
        let (first, second) = (pass.take().unwrap(), pass.take().unwrap());
        assert!(pass.take().is_none());
        pass.read(first, &content(at(3), BLOCK)).unwrap();
        assert!(pass.finish().is_err());
        assert!(pass.read(second, &content(at(3), BLOCK)).is_err());
        assert!(pass.read(second, &content(at(5), BLOCK - 8)).is_err());
        assert!(pass.finish().is_err());
        pass.read(second, &content(at(5), BLOCK)).unwrap();
        pass.finish().unwrap();
    }
}
