//! Reads and writes that go on after a short count, because in a chain nobody is there to do it.

use std::io;
use std::sync::Arc;

use io_uring::squeue::Entry;

use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::{Read, Write};

/// Reads up to a length or the end of the file.
pub(super) struct ReadWhole {
    file: Fd,
    offset: u64,
    length: usize,
    /// What the reads before the present one have brought.
    data: Vec<u8>,
    read: Read,
}

impl ReadWhole {
    pub(super) fn new(file: Fd, offset: u64, length: usize) -> ReadWhole {
        let read = Read::new(Arc::clone(&file), offset, Vec::new()).up_to(length);
        ReadWhole { file, offset, length, data: Vec::new(), read }
    }

    pub(super) fn into_data(self) -> Vec<u8> {
        self.data
    }

    fn follow(&mut self, mut step: Step) -> Step {
        loop {
            let count = match step {
                Step::Done(Ok(count)) => count,
                other => return other,
            };
            if self.data.is_empty() {
                let blank = Read::new(Arc::clone(&self.file), self.offset, Vec::new());
                self.data = std::mem::replace(&mut self.read, blank).into_buffer();
            } else {
                self.data.extend_from_slice(self.read.data());
            }
            if count == 0 || self.data.len() >= self.length {
                return Step::Done(Ok(self.data.len() as u64));
            }
            let offset = self.offset + self.data.len() as u64;
            let left = self.length - self.data.len();
            self.read = Read::new(Arc::clone(&self.file), offset, Vec::new()).up_to(left);
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
}

impl WriteWhole {
    pub(super) fn new(file: Fd, offset: u64, bytes: Vec<u8>) -> WriteWhole {
        let length = bytes.len() as u64;
        let write = Write::new(Arc::clone(&file), offset, bytes);
        WriteWhole { file, offset, written: 0, length, write }
    }

    pub(super) fn written(&self) -> u64 {
        self.written
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
        let mut bytes = std::mem::replace(&mut self.write, blank).into_buffer();
        // A short count is rare, so what is left may be moved to the front.
        bytes.drain(..bytes.len().min(count as usize));
        self.write = Write::new(Arc::clone(&self.file), self.offset + self.written, bytes);
        self.write.advance()
    }
}

impl Operation for WriteWhole {
    fn check(&self) -> io::Result<()> {
        self.write.check()
    }

    fn advance(&mut self) -> Step {
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
