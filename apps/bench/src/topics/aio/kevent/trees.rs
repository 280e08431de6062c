//! Small files, and trees of them.

use std::fs;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use kevent_aio::{Aio, Chain, Choice, Data, Op, Open, Opened, Read, StepId};

use super::super::files::{EACH, Files, SMALL};
use super::super::work::{Copier, Opener, Pass, Piece, SMALL_FILES_AT_ONCE};
use super::{Done, Engine, Kind, build, unexpected};
use crate::group::Result;

/// Small files, a chain for each.
pub(in super::super) struct Chains<K> {
    engine: Engine,
    files: Arc<Files>,
    /// What is read, by key.
    in_flight: Vec<Option<(Piece, Reading)>>,
    /// Chains that wait for a file.
    spare: Vec<(Chain, Reading)>,
    kind: PhantomData<K>,
}

/// The steps of a chain that are of interest.
#[derive(Clone, Copy)]
struct Reading {
    file: StepId<Opened>,
    content: StepId<Data>,
}

/// Opens, reads and closes a small file.
fn reading() -> (Chain, Reading) {
    let mut chain = Chain::new();
    let file = chain.open(Open::new(""));
    let content = chain.read(file, 0, SMALL as u64 + 1);
    chain.close(file);
    (chain, Reading { file, content })
}

impl<K: Kind> Opener for Chains<K> {
    fn open(files: &Arc<Files>) -> Result<Self> {
        Ok(Chains {
            engine: Engine::new(K::BACKEND)?,
            files: Arc::clone(files),
            in_flight: vec![None; SMALL_FILES_AT_ONCE],
            spare: (0..SMALL_FILES_AT_ONCE).map(|_| reading()).collect(),
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
            let Op::Chain(mut chain) = op else { return Err(unexpected(&op)) };
            let (piece, reading) = self.in_flight[key].ok_or("nobody has asked for that")?;
            let content = chain.data(reading.content).ok_or("nothing was read")?;
            pass.read_file(&self.files, piece, content)?;
            chain.renew()?;
            self.spare.push((chain, reading));
            in_flight -= usize::from(!self.start(key, pass)?);
        }
        Ok(())
    }
}

impl<K> Chains<K> {
    fn start(&mut self, key: usize, pass: &Pass) -> Result<bool> {
        let Some(piece) = pass.take() else { return Ok(false) };
        let (mut chain, reading) = self.spare.pop().ok_or("too few chains")?;
        chain.reopen(reading.file, Open::new(&self.files.items[piece.place as usize].path));
        self.in_flight[key] = Some((piece, reading));
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
    /// Chains that wait for a file.
    spare: Vec<Copying>,
    kind: PhantomData<K>,
}

/// Files that are copied at a time.
const COPIES_AT_ONCE: usize = 64;

/// Threads that make files: a file system that has room in memory makes them wait for each other and not
/// for the disk.
const THREADS: usize = 4;

impl<K: Kind> Copier for Copies<K> {
    fn open() -> Result<Self> {
        let aio = build(Aio::builder().backend(K::BACKEND).threads(THREADS), K::BACKEND)?;
        let spare = (0..COPIES_AT_ONCE).map(|_| copying()).collect();
        Ok(Copies { engine: Engine::around(aio)?, spare, kind: PhantomData })
    }

    fn copy(&mut self, files: &Arc<Files>, to: &Path) -> Result<()> {
        for directory in &files.directories {
            fs::create_dir(files.copy_of(directory, to)?)?;
        }
        // Neighbours are of different directories: those who make files in one wait for each other.
        let mut items = (0..EACH).flat_map(|n| files.items.iter().skip(n).step_by(EACH));
        let mut in_flight = vec![None; COPIES_AT_ONCE];
        loop {
            for (key, place) in in_flight.iter_mut().enumerate().filter(|(_, p)| p.is_none()) {
                let Some(item) = items.next() else { break };
                let Copying { mut chain, from, to: into } =
                    self.spare.pop().ok_or("too few chains")?;
                chain.reopen(from, Open::new(&item.path));
                chain.reopen(into, new(&files.copy_of(&item.path, to)?));
                self.engine.submit(chain, key)?;
                *place = Some((from, into));
            }
            if in_flight.iter().all(Option::is_none) {
                return Ok(());
            }
            let Done { key, op, .. } = self.engine.next()?;
            let Op::Chain(mut chain) = op else { return Err(unexpected(&op)) };
            let (from, to) = in_flight[key].take().ok_or("nobody has asked for that")?;
            chain.renew()?;
            self.spare.push(Copying { chain, from, to });
        }
    }
}

/// A chain that copies a small file.
struct Copying {
    chain: Chain,
    from: StepId<Opened>,
    to: StepId<Opened>,
}

fn copying() -> Copying {
    let mut chain = Chain::new();
    let from = chain.open(Open::new(""));
    let content = chain.read(from, 0, SMALL as u64 + 1);
    let to = chain.open(new(Path::new("")));
    chain.write(to, 0, content);
    chain.close(to);
    chain.close(from);
    Copying { chain, from, to }
}

/// A file is made.
fn new(path: &Path) -> Open {
    Open::new(path).write_only().create_new(0o666)
}
