//! Blocks of a large file.

use std::marker::PhantomData;
use std::sync::Arc;

use kevent_aio::{Fd, Op, Read};

use super::super::files::{self, How, sector_aligned};
use super::super::work::{Pass, Piece, Reader, Source};
use super::{Done, Engine, Kind, unexpected};
use crate::group::Result;

pub(in super::super) struct Reads<K> {
    engine: Engine,
    file: Fd,
    cold: bool,
    memory: Vec<Vec<u8>>,
    /// What is read, by key.
    pieces: Vec<Option<Piece>>,
    kind: PhantomData<K>,
}

impl<K: Kind> Reader for Reads<K> {
    fn open(source: &Source) -> Result<Self> {
        Ok(Reads {
            engine: Engine::new(K::BACKEND)?,
            file: Arc::new(files::open(&source.large.path, source.how)?),
            // Of files that are open with O_DIRECT it is always to be said.
            cold: K::HINTS || source.how == How::Direct,
            memory: sector_aligned(source.depth)?,
            pieces: vec![None; source.depth],
            kind: PhantomData,
        })
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
            in_flight -= usize::from(!self.start(key, read.into_buffer(), pass)?);
        }
        Ok(())
    }
}

impl<K> Reads<K> {
    /// Has the next block read; keeps the memory if there is none. Says whether there was one.
    fn start(&mut self, key: usize, memory: Vec<u8>, pass: &Pass) -> Result<bool> {
        let Some(piece) = pass.take() else {
            self.memory.push(memory);
            return Ok(false);
        };
        self.pieces[key] = Some(piece);
        let read = Read::new(Arc::clone(&self.file), piece.place, memory);
        self.engine.submit(if self.cold { read.cold() } else { read }, key)?;
        Ok(true)
    }
}
