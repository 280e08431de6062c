//! Blocks of a large file, from tokio: the engine is shared by all tasks.

use std::sync::Arc;

use kevent_aio::tokio::{Engine, File};

use super::super::files::{self, page_aligned};
use super::super::runtimes::{all, read_blocks, tokio_task};
use super::super::work::{Pass, Reader, Source};
use crate::group::Result;

pub(in super::super) struct InTokio {
    runtime: tokio::runtime::Runtime,
    file: Arc<File>,
    memory: Vec<Vec<u8>>,
}

impl Reader for InTokio {
    fn open(source: &Source) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let file = files::open(&source.large.path, source.how)?;
        let file = runtime.block_on(async { Result::Ok(File::from_std(&Engine::new()?, file)) })?;
        Ok(InTokio { runtime, file: Arc::new(file), memory: page_aligned(source.depth)? })
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        let memory = std::mem::take(&mut self.memory).into_iter();
        self.memory = self.runtime.block_on(async {
            let read = |memory| {
                let file = Arc::clone(&self.file);
                tokio_task(read_blocks(memory, Arc::clone(pass), async move |memory, at| {
                    file.read_at(memory, at).await
                }))
            };
            all(memory.map(read).collect()).await
        })?;
        Ok(())
    }
}
