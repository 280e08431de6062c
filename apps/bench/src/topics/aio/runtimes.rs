//! The peers that are runtimes: a task for each read in flight, as their documentation has it.

use std::fs::File;
use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use compio::BufResult;
use compio::io::AsyncReadAt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::files::{self, BLOCK, Files, How, SMALL, page_aligned};
use super::work::{Opener, Pass, Reader, SMALL_FILES_AT_ONCE, Source};
use crate::group::Result;
use crate::sys::Page;

/// What all of the tasks come to.
pub(super) async fn all<T>(tasks: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await?);
    }
    Ok(results)
}

/// The work of one task of the runtimes that take the memory and give it back.
pub(super) async fn read_blocks(
    mut memory: Vec<u8>,
    pass: Arc<Pass>,
    read_at: impl AsyncFn(Vec<u8>, u64) -> (io::Result<usize>, Vec<u8>),
) -> Result<Vec<u8>> {
    while let Some(piece) = pass.take() {
        memory.clear();
        let (count, filled) = read_at(memory, piece.place).await;
        pass.read(piece, &filled[..count?])?;
        memory = filled;
    }
    Ok(memory)
}

fn tokio_runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?)
}

/// A task of tokio.
pub(super) fn tokio_task<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> impl Future<Output = Result<T>> {
    let task = tokio::spawn(work);
    async { task.await? }
}

/// tokio's own file, one for each task: it has one position.
pub(super) struct TokioFile {
    runtime: tokio::runtime::Runtime,
    files: Vec<(tokio::fs::File, Vec<u8>)>,
}

impl Reader for TokioFile {
    fn open(source: &Source) -> Result<Self> {
        let file = || Ok((files::open(&source.large.path, source.how)?.into(), vec![0; BLOCK]));
        let files = (0..source.depth).map(|_| file()).collect::<Result<_>>()?;
        Ok(TokioFile { runtime: tokio_runtime()?, files })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let files = std::mem::take(&mut self.files).into_iter();
        self.files = self.runtime.block_on(async {
            let read = |(file, memory)| tokio_task(tokio_reads(file, memory, Arc::clone(pass)));
            all(files.map(read).collect()).await
        })?;
        Ok(())
    }
}

async fn tokio_reads(
    mut file: tokio::fs::File,
    mut memory: Vec<u8>,
    pass: Arc<Pass>,
) -> Result<(tokio::fs::File, Vec<u8>)> {
    while let Some(piece) = pass.take() {
        file.seek(SeekFrom::Start(piece.place)).await?;
        let count = file.read(&mut memory).await?;
        pass.read(piece, &memory[..count])?;
    }
    Ok((file, memory))
}

/// pread(2) on tokio's threads.
pub(super) struct TokioBlocking {
    runtime: tokio::runtime::Runtime,
    file: Arc<File>,
    blocks: Vec<Box<Page>>,
}

impl Reader for TokioBlocking {
    fn open(source: &Source) -> Result<Self> {
        let file = Arc::new(files::open(&source.large.path, source.how)?);
        let blocks = (0..source.depth).map(|_| Box::new(Page([0; 4096]))).collect();
        Ok(TokioBlocking { runtime: tokio_runtime()?, file, blocks })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let blocks = std::mem::take(&mut self.blocks).into_iter();
        self.blocks = self.runtime.block_on(async {
            let read = |block| tokio_task(threads_read(self.file.clone(), block, pass.clone()));
            all(blocks.map(read).collect()).await
        })?;
        Ok(())
    }
}

async fn threads_read(file: Arc<File>, mut block: Box<Page>, pass: Arc<Pass>) -> Result<Box<Page>> {
    while let Some(piece) = pass.take() {
        let file = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || {
            let read = file.read_at(&mut block.0, piece.place);
            (block, read)
        });
        let (filled, count) = read.await?;
        pass.read(piece, &filled.0[..count?])?;
        block = filled;
    }
    Ok(block)
}

pub(super) struct Monoio {
    runtime: monoio::Runtime<monoio::IoUringDriver>,
    file: Rc<monoio::fs::File>,
    memory: Vec<Vec<u8>>,
}

impl Reader for Monoio {
    fn open(source: &Source) -> Result<Self> {
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?;
        let file = files::open(&source.large.path, source.how)?;
        let file = runtime.block_on(async { monoio::fs::File::from_std(file) })?;
        Ok(Monoio { runtime, file: Rc::new(file), memory: page_aligned(source.depth)? })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let memory = std::mem::take(&mut self.memory).into_iter();
        self.memory = self.runtime.block_on(async {
            let read = |memory| {
                let file = Rc::clone(&self.file);
                let read_at = async move |memory, at| file.read_at(memory, at).await;
                monoio::spawn(read_blocks(memory, Arc::clone(pass), read_at))
            };
            all(memory.map(read).collect()).await
        })?;
        Ok(())
    }
}

pub(super) struct TokioUring {
    runtime: tokio_uring::Runtime,
    file: Rc<tokio_uring::fs::File>,
    memory: Vec<Vec<u8>>,
}

impl Reader for TokioUring {
    fn open(source: &Source) -> Result<Self> {
        let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
        let file = files::open(&source.large.path, source.how)?;
        let file = runtime.block_on(async { tokio_uring::fs::File::from_std(file) });
        Ok(TokioUring { runtime, file: Rc::new(file), memory: page_aligned(source.depth)? })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let memory = std::mem::take(&mut self.memory).into_iter();
        self.memory = self.runtime.block_on(async {
            let read = |memory| {
                let file = Rc::clone(&self.file);
                let read_at = async move |memory, at| file.read_at(memory, at).await;
                let task = tokio_uring::spawn(read_blocks(memory, Arc::clone(pass), read_at));
                async { task.await? }
            };
            all(memory.map(read).collect()).await
        })?;
        Ok(())
    }
}

/// A task of compio.
fn compio_task<T: 'static>(
    work: impl Future<Output = Result<T>> + 'static,
) -> impl Future<Output = Result<T>> {
    let task = compio::runtime::spawn(work);
    async { task.await.map_err(|_| "a task panicked")? }
}

pub(super) struct Compio {
    runtime: compio::runtime::Runtime,
    file: Rc<compio::fs::File>,
    memory: Vec<Vec<u8>>,
}

impl Reader for Compio {
    fn open(source: &Source) -> Result<Self> {
        let runtime = compio::runtime::Runtime::new()?;
        let flags = if source.how == How::Direct { libc::O_DIRECT } else { 0 };
        let mut options = compio::fs::OpenOptions::new();
        options.read(true).custom_flags(flags);
        let file = runtime.block_on(options.open(&source.large.path))?;
        Ok(Compio { runtime, file: Rc::new(file), memory: page_aligned(source.depth)? })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let memory = std::mem::take(&mut self.memory).into_iter();
        self.memory = self.runtime.block_on(async {
            let read = |memory| {
                let file = Rc::clone(&self.file);
                let read_at = async move |memory, at| file.read_at(memory, at).await.into();
                compio_task(read_blocks(memory, Arc::clone(pass), read_at))
            };
            all(memory.map(read).collect()).await
        })?;
        Ok(())
    }
}

/// Small files, by tokio's own file.
pub(super) struct TokioOpener {
    runtime: tokio::runtime::Runtime,
    files: Arc<Files>,
}

impl Opener for TokioOpener {
    fn open(files: &Arc<Files>) -> Result<Self> {
        Ok(TokioOpener { runtime: tokio_runtime()?, files: Arc::clone(files) })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        self.runtime.block_on(async {
            let read = |_| tokio_task(tokio_opens(Arc::clone(&self.files), Arc::clone(pass)));
            all((0..SMALL_FILES_AT_ONCE).map(read).collect()).await
        })?;
        Ok(())
    }
}

async fn tokio_opens(files: Arc<Files>, pass: Arc<Pass>) -> Result<()> {
    let mut memory = vec![0; SMALL + 1];
    while let Some(piece) = pass.take() {
        let mut file = tokio::fs::File::open(&files.items[piece.place as usize].path).await?;
        let count = file.read(&mut memory).await?;
        pass.read_file(&files, piece, &memory[..count])?;
    }
    Ok(())
}

/// Small files, by compio.
pub(super) struct CompioOpener {
    runtime: compio::runtime::Runtime,
    files: Arc<Files>,
}

impl Opener for CompioOpener {
    fn open(files: &Arc<Files>) -> Result<Self> {
        let runtime = compio::runtime::Runtime::new()?;
        Ok(CompioOpener { runtime, files: Arc::clone(files) })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        self.runtime.block_on(async {
            let read = |_| compio_task(compio_opens(Arc::clone(&self.files), Arc::clone(pass)));
            all((0..SMALL_FILES_AT_ONCE).map(read).collect()).await
        })?;
        Ok(())
    }
}

async fn compio_opens(files: Arc<Files>, pass: Arc<Pass>) -> Result<()> {
    let mut memory = Vec::with_capacity(SMALL + 1);
    while let Some(piece) = pass.take() {
        memory.clear();
        let file = compio::fs::File::open(&files.items[piece.place as usize].path).await?;
        let BufResult(count, filled) = file.read_at(memory, 0).await;
        pass.read_file(&files, piece, &filled[..count?])?;
        memory = filled;
        file.close().await?;
    }
    Ok(())
}
