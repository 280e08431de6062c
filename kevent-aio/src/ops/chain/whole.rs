//! Reads and writes that go on after a short count, because in a chain nobody is there to do it.

use std::io;
use std::sync::Arc;

use io_uring::squeue::Entry;

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::{Read, Write};

/// Makes room for so many bytes in `buffer`, whose content is forgotten.
///
/// # Errors
///
/// `OutOfMemory`: the length may come from a file's metadata, which is not to end the program.
pub(super) fn room(mut buffer: Vec<u8>, length: u64) -> io::Result<(Vec<u8>, usize)> {
    buffer.clear();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if buffer.try_reserve_exact(length).is_err() {
        let text = format!("there is no memory to read {length} bytes at once into");
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
    }
    Ok((buffer, length))
}

/// Reads up to a length or the end of the file.
pub(super) struct ReadWhole {
    length: usize,
    read: Read,
}

impl ReadWhole {
    /// Reads into `buffer`, whose content is forgotten.
    ///
    /// # Errors
    ///
    /// As [`room`].
    pub(super) fn new(
        file: Fd,
        offset: u64,
        length: u64,
        buffer: Vec<u8>,
    ) -> io::Result<ReadWhole> {
        let (buffer, length) = room(buffer, length)?;
        let read = Read::new(file, offset, buffer).up_to(length);
        read.check()?;
        Ok(ReadWhole { length, read })
    }

    /// Does not look into the page cache first.
    pub(super) fn cold(self) -> ReadWhole {
        ReadWhole { read: self.read.cold(), ..self }
    }

    pub(super) fn into_data(self) -> Vec<u8> {
        self.read.into_buffer()
    }

    fn follow(&mut self, mut step: Step) -> Step {
        loop {
            if !matches!(step, Step::Done(Ok(_))) {
                return step;
            }
            let length = self.read.data().len();
            if self.read.has_ended() || length >= self.length {
                return Step::Done(Ok(length as u64));
            }
            self.read.go_further();
            step = self.read.advance();
        }
    }
}

impl Operation for ReadWhole {
    fn advance(&mut self) -> Step {
        let step = self.read.advance();
        self.follow(step)
    }

    fn encode(&mut self) -> Option<Entry> {
        self.read.encode()
    }

    fn run(&mut self) -> Outcome {
        self.read.run()
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        let step = self.read.complete(outcome);
        self.follow(step)
    }

    fn abort(&mut self, reason: io::Error) -> Step {
        self.read.abort(reason)
    }
}

/// Writes everything.
pub(super) struct WriteWhole {
    file: Fd,
    offset: u64,
    written: u64,
    length: u64,
    write: Write,
    /// What is to be written, once a short count made `write` one of a part of it.
    whole: Option<Vec<u8>>,
}

impl WriteWhole {
    pub(super) fn new(file: Fd, offset: u64, bytes: Vec<u8>) -> WriteWhole {
        let length = bytes.len() as u64;
        let write = Write::new(Arc::clone(&file), offset, bytes);
        WriteWhole { file, offset, written: 0, length, write, whole: None }
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The bytes, all of them.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.whole.unwrap_or_else(|| self.write.into_buffer())
    }

    fn follow(&mut self, step: Step) -> Step {
        let count = match step {
            Step::Done(Ok(count)) => count,
            other => return other,
        };
        self.written += count;
        if self.written >= self.length {
            return Step::Done(Ok(self.written));
        }
        if count == 0 {
            return Step::Done(Err(io::ErrorKind::WriteZero.into()));
        }
        let blank = Write::new(Arc::clone(&self.file), self.offset, Vec::new());
        let write = std::mem::replace(&mut self.write, blank);
        let whole = self.whole.get_or_insert_with(|| write.into_buffer());
        // A short count is rare, so what is left may be copied.
        let left = whole.get(self.written as usize..).unwrap_or_default().to_vec();
        self.write = Write::new(Arc::clone(&self.file), self.offset + self.written, left);
        self.write.advance()
    }
}

impl Operation for WriteWhole {
    fn check(&self) -> io::Result<()> {
        self.write.check()
    }

    fn advance(&mut self) -> Step {
        if self.length == 0 {
            // Nothing to write is nothing to ask the kernel for.
            return Step::Done(Ok(0));
        }
        let step = self.write.advance();
        self.follow(step)
    }

    fn encode(&mut self) -> Option<Entry> {
        self.write.encode()
    }

    fn run(&mut self) -> Outcome {
        self.write.run()
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        let step = self.write.complete(outcome);
        self.follow(step)
    }

    fn abort(&mut self, reason: io::Error) -> Step {
        self.write.abort(reason)
    }
}
