//! Blocks of a large file.

use std::marker::PhantomData;
use std::num::NonZero;
use std::sync::Arc;

use kevent_aio::{Aio, Buffers, Fd, Memory, Op, Read};

use super::super::files::{self, page_aligned};
use super::super::work::{Pass, Piece, Reader, Source};
use super::{Done, Engine, Kind, build, unexpected};
use crate::group::Result;

/// Bytes of a registered buffer.
const BLOCK: NonZero<usize> = NonZero::new(files::BLOCK).unwrap();

pub(in super::super) struct Reads<K> {
    engine: Engine,
    file: Fd,
    cold: bool,
    memory: Vec<Memory>,
    /// What is read, by key.
    pieces: Vec<Option<Piece>>,
    kind: PhantomData<K>,
}

impl<K: Kind> Reader for Reads<K> {
    fn open(source: &Source) -> Result<Self> {
        let file: Fd = Arc::new(files::open(&source.large.path, source.how)?);
        let (engine, memory) = if K::REGISTERED {
            let count = NonZero::new(source.depth).ok_or("no reads")?;
            let buffers = Buffers::new(count, BLOCK)?;
            let builder = Aio::builder().backend(K::BACKEND).buffers(&buffers);
            let mut engine = Engine::around(build(builder, K::BACKEND)?)?;
            let known = engine.queue[engine.aio].register_file(&file)?;
            if !known {
                return Err("the file could not be registered".into());
            }
            (engine, std::iter::from_fn(|| buffers.take()).map(Memory::Buffer).collect())
        } else {
            let memory = page_aligned(source.depth)?.into_iter().map(Memory::Vec);
            (Engine::new(K::BACKEND)?, memory.collect())
        };
        let cold = K::HINTS;
        let pieces = vec![None; source.depth];
        Ok(Reads { engine, file, cold, memory, pieces, kind: PhantomData })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let mut in_flight = 0;
        for key in 0..self.pieces.len() {
            let memory = self.memory.pop().ok_or("too little memory")?;
            in_flight += usize::from(self.start(key, memory, pass)?);
        }
        while in_flight > 0 {
            let Done { key, op, .. } = self.engine.next()?;
            let Op::Read(read) = op else { return Err(unexpected(&op)) };
            let piece = self.pieces[key].ok_or("nobody has asked for that")?;
            pass.read(piece, read.data())?;
            in_flight -= usize::from(!self.start(key, read.into_memory(), pass)?);
        }
        Ok(())
    }
}

impl<K> Reads<K> {
    /// Has the next block read; keeps the memory if there is none. Says whether there was one.
    fn start(&mut self, key: usize, memory: Memory, pass: &Pass) -> Result<bool> {
        let Some(piece) = pass.take() else {
            self.memory.push(memory);
            return Ok(false);
        };
        self.pieces[key] = Some(piece);
        let read = Read::new(Arc::clone(&self.file), piece.place, memory);
        let read = if self.cold { read.cold() } else { read };
        if self.pieces.len() == 1 {
            self.engine.start(read, key)?;
        } else {
            self.engine.submit(read, key)?;
        }
        Ok(true)
    }
}
