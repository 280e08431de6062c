//! The peers that read blocks by hand: one after another, by queues of the kernel, by threads.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use super::files;
use super::sys::{ByHand, Libaio, Ring};
use super::work::{Pass, Piece, Reader, Source};
use crate::group::Result;
use crate::sys::Page;

/// One after another, whatever the depth.
pub(super) struct Pread {
    file: File,
    block: Box<Page>,
}

impl Reader for Pread {
    fn open(source: &Source) -> Result<Self> {
        let file = files::open(&source.large.path, source.how)?;
        Ok(Pread { file, block: empty_block() })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        while let Some(piece) = pass.take() {
            let count = self.file.read_at(&mut self.block.0, piece.place)?;
            pass.read(piece, &self.block.0[..count])?;
        }
        Ok(())
    }
}

fn empty_block() -> Box<Page> {
    Box::new(Page([0; 4096]))
}

/// A queue of the kernel that is kept full.
pub(super) struct Queued<Q> {
    queue: Q,
    /// What is read into each slot.
    slots: Vec<Option<Piece>>,
}

impl<Q: ByHand> Queued<Q> {
    fn open(
        source: &Source,
        make: impl FnOnce(File, usize) -> std::io::Result<Q>,
    ) -> Result<Queued<Q>> {
        let file = files::open(&source.large.path, source.how)?;
        Ok(Queued { queue: make(file, source.depth)?, slots: vec![None; source.depth] })
    }

    fn read(&mut self, pass: &Pass) -> Result<()> {
        let mut in_flight = 0;
        for slot in 0..self.slots.len() {
            in_flight += usize::from(self.start(slot, pass)?);
        }
        while in_flight > 0 {
            self.queue.wait()?;
            while let Some((slot, read)) = self.queue.next() {
                let piece = self.slots[slot].ok_or("nobody has asked for that")?;
                pass.read(piece, read?)?;
                in_flight -= usize::from(!self.start(slot, pass)?);
            }
        }
        Ok(())
    }

    /// Has the next block read. Says whether there was one.
    fn start(&mut self, slot: usize, pass: &Pass) -> Result<bool> {
        let Some(piece) = pass.take() else { return Ok(false) };
        self.slots[slot] = Some(piece);
        self.queue.start(slot, piece.place)?;
        Ok(true)
    }
}

/// io_uring with all that makes it cheaper.
pub(super) struct Registered(Queued<Ring>);

impl Reader for Registered {
    fn open(source: &Source) -> Result<Self> {
        Queued::open(source, Ring::registered).map(Registered)
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        self.0.read(pass)
    }
}

/// io_uring as it comes.
pub(super) struct Plain(Queued<Ring>);

impl Reader for Plain {
    fn open(source: &Source) -> Result<Self> {
        Queued::open(source, Ring::plain).map(Plain)
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        self.0.read(pass)
    }
}

/// The kernel's older AIO.
pub(super) struct Older(Queued<Libaio>);

impl Reader for Older {
    fn open(source: &Source) -> Result<Self> {
        Queued::open(source, Libaio::new).map(Older)
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        self.0.read(pass)
    }
}

/// A block that a thread is to read into, or has.
struct Job {
    piece: Piece,
    block: Box<Page>,
    read: std::io::Result<usize>,
}

/// A pool of threads, with a channel to it and one back.
pub(super) struct Threads {
    jobs: Sender<Job>,
    done: Receiver<Job>,
    blocks: Vec<Box<Page>>,
}

impl Reader for Threads {
    fn open(source: &Source) -> Result<Self> {
        let (jobs, wanted) = crossbeam_channel::unbounded::<Job>();
        let (ready, done) = crossbeam_channel::unbounded();
        let file = Arc::new(files::open(&source.large.path, source.how)?);
        for _ in 0..32 {
            let (wanted, ready, file) = (wanted.clone(), ready.clone(), Arc::clone(&file));
            thread::spawn(move || {
                for mut job in wanted {
                    job.read = file.read_at(&mut job.block.0, job.piece.place);
                    if ready.send(job).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Threads { jobs, done, blocks: (0..source.depth).map(|_| empty_block()).collect() })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let depth = self.blocks.len();
        while let Some(block) = self.blocks.pop() {
            if !self.start(block, pass)? {
                break;
            }
        }
        while self.blocks.len() < depth {
            let Job { piece, block, read } = self.done.recv()?;
            pass.read(piece, &block.0[..read?])?;
            self.start(block, pass)?;
        }
        Ok(())
    }
}

impl Threads {
    /// Has the next block read; keeps the memory if there is none. Says whether there was one.
    fn start(&mut self, block: Box<Page>, pass: &Pass) -> Result<bool> {
        let Some(piece) = pass.take() else {
            self.blocks.push(block);
            return Ok(false);
        };
        self.jobs.send(Job { piece, block, read: Ok(0) })?;
        Ok(true)
    }
}
