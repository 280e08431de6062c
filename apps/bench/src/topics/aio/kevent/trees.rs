//! Small files, and trees of them.

use std::fs;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use kevent_aio::{Chain, Choice, Data, Op, Open, Read, StepId};

use super::super::files::{Files, SMALL};
use super::super::work::{Copier, Opener, Pass, Piece, SMALL_FILES_AT_ONCE};
use super::{Done, Engine, Kind, unexpected};
use crate::group::Result;

/// Small files, a chain for each.
pub(in super::super) struct Chains<K> {
    engine: Engine,
    files: Arc<Files>,
    /// What is read, by key.
    in_flight: Vec<Option<(Piece, StepId<Data>)>>,
    kind: PhantomData<K>,
}

impl<K: Kind> Opener for Chains<K> {
    fn open(files: &Arc<Files>) -> Result<Self> {
        Ok(Chains {
            engine: Engine::new(K::BACKEND)?,
            files: Arc::clone(files),
            in_flight: vec![None; SMALL_FILES_AT_ONCE],
            kind: PhantomData,
        })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let mut in_flight = 0;
        for key in 0..self.in_flight.len() {
            in_flight += usize::from(self.start(key, pass)?);
        }
        while in_flight > 0 {
            let Done { key, op, .. } = self.engine.next()?;
            let Op::Chain(chain) = op else { return Err(unexpected(&op)) };
            let (piece, read) = self.in_flight[key].ok_or("nobody has asked for that")?;
            pass.read_file(&self.files, piece, chain.data(read).ok_or("nothing was read")?)?;
            in_flight -= usize::from(!self.start(key, pass)?);
        }
        Ok(())
    }
}

impl<K> Chains<K> {
    fn start(&mut self, key: usize, pass: &Pass) -> Result<bool> {
        let Some(piece) = pass.take() else { return Ok(false) };
        let mut chain = Chain::new();
        let file = chain.open(Open::new(&self.files.items[piece.place as usize].path));
        let read = chain.read(file, 0, SMALL as u64 + 1);
        chain.close(file);
        self.in_flight[key] = Some((piece, read));
        self.engine.submit(chain, key)?;
        Ok(true)
    }
}

/// Small files, one operation after another.
pub(in super::super) struct Ops {
    engine: Engine,
    files: Arc<Files>,
    pieces: Vec<Option<Piece>>,
    memory: Vec<Vec<u8>>,
}

impl Opener for Ops {
    fn open(files: &Arc<Files>) -> Result<Self> {
        Ok(Ops {
            engine: Engine::new(Choice::Auto)?,
            files: Arc::clone(files),
            pieces: vec![None; SMALL_FILES_AT_ONCE],
            memory: vec![Vec::new(); SMALL_FILES_AT_ONCE],
        })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let mut in_flight = 0;
        for key in 0..self.pieces.len() {
            in_flight += usize::from(self.start(key, pass)?);
        }
        while in_flight > 0 {
            let Done { key, op, .. } = self.engine.next()?;
            match op {
                Op::Open(mut open) => {
                    let file = Arc::new(open.take().ok_or("nothing was opened")?);
                    let memory = self.memory.pop().ok_or("too little memory")?;
                    self.engine.submit(Read::new(file, 0, memory).up_to(SMALL + 1), key)?;
                }
                Op::Read(read) => {
                    let piece = self.pieces[key].ok_or("nobody has asked for that")?;
                    pass.read_file(&self.files, piece, read.data())?;
                    self.memory.push(read.into_buffer());
                    // The read was the last that had the file: it is closed.
                    in_flight -= usize::from(!self.start(key, pass)?);
                }
                op => return Err(unexpected(&op)),
            }
        }
        Ok(())
    }
}

impl Ops {
    fn start(&mut self, key: usize, pass: &Pass) -> Result<bool> {
        let Some(piece) = pass.take() else { return Ok(false) };
        self.pieces[key] = Some(piece);
        let open = Open::new(&self.files.items[piece.place as usize].path);
        self.engine.submit(open, key)?;
        Ok(true)
    }
}

/// A tree, a chain for each file.
pub(in super::super) struct Copies<K> {
    engine: Engine,
    kind: PhantomData<K>,
}

/// Files that are copied at a time.
const COPIES_AT_ONCE: usize = 64;

impl<K: Kind> Copier for Copies<K> {
    fn open() -> Result<Self> {
        Ok(Copies { engine: Engine::new(K::BACKEND)?, kind: PhantomData })
    }

    fn copy(&mut self, files: &Arc<Files>, to: &Path) -> Result<()> {
        for directory in &files.directories {
            fs::create_dir(files.copy_of(directory, to)?)?;
        }
        let mut items = files.items.iter();
        let mut in_flight = 0;
        loop {
            for item in items.by_ref().take(COPIES_AT_ONCE - in_flight) {
                self.engine.submit(copy(&item.path, &files.copy_of(&item.path, to)?), 0)?;
                in_flight += 1;
            }
            if in_flight == 0 {
                return Ok(());
            }
            self.engine.next()?;
            in_flight -= 1;
        }
    }
}

/// A small file is copied.
fn copy(from: &Path, to: &Path) -> Chain {
    let mut chain = Chain::new();
    let from = chain.open(Open::new(from));
    let content = chain.read(from, 0, SMALL as u64 + 1);
    let to = chain.open(Open::new(to).write_only().create(0o666).flags(libc::O_EXCL));
    chain.write(to, 0, content);
    chain.close(to);
    chain.close(from);
    chain
}
