//! Reading from a place in a file.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::buffer::{Filling, Memory};
use crate::fixed::Fixed;
use crate::operation::{Errno, Fd, Operation, Outcome, Step};
use crate::ops::{check_range, done};
use crate::priority::Priority;
use crate::reading::Reading;
use crate::sys::file::{self, STREAM};

/// No file system keeps files in smaller pieces.
const SMALLEST_BLOCK: i64 = 512;

/// Reads into a buffer, at an offset, as pread(2).
///
/// The buffer comes back in the completion ([`into_buffer`](Read::into_buffer)) and holds exactly what
/// was read: less than asked for at the end of the file, nothing beyond it. A short count is a result
/// and no error. Of a pipe, a socket or a terminal the next bytes are read and the offset counts for
/// nothing; there the read takes as long as it takes until something comes, and holds a thread of the
/// pool where there is no ring. (One that is set non-blocking may say `WouldBlock` instead.)
///
/// What is in the page cache may be read by [`submit`](crate::Aio::submit) itself, without a detour: the engine
/// has the read look there first if it is alone, and the file's last looks were not in vain; see
/// [`cold`](Read::cold).
///
/// Reads are not ordered after writes that are still in flight: submit a read once the write that it
/// is to see has completed.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Op, Read};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let file = Arc::new(std::fs::File::open("/proc/self/status")?);
/// queue[aio].submit(Read::new(file, 0, Vec::with_capacity(4096)), 1).unwrap();
/// queue.wait(None)?;
/// let completion = queue.next().unwrap();
/// let count = completion.result?;
/// let Op::Read(read) = *completion.op else { unreachable!() };
/// let buffer = read.into_buffer();
/// assert!(buffer.starts_with(b"Name:"));
/// assert_eq!(buffer.len() as u64, count);
/// # std::io::Result::Ok(())
/// ```
pub struct Read {
    reading: Reading,
    offset: u64,
    buffer: Filling,
    /// How much the buffer held when what is counted began: see [`Read::go_further`].
    counted: usize,
    /// It has come to the end of the file.
    ended: bool,
    /// The file turned out to have no places to read from.
    stream: bool,
    priority: Priority,
}

impl Read {
    /// A read of `file` at `offset` that fills `memory` up to its capacity: a `Vec<u8>`, or a
    /// [`Buffer`](crate::Buffer) of a pool, as O_DIRECT needs one. What it held is forgotten.
    pub fn new(file: Fd, offset: u64, memory: impl Into<Memory>) -> Read {
        Read {
            reading: Reading::new(file),
            offset,
            buffer: Filling::new(memory),
            counted: 0,
            ended: false,
            stream: false,
            priority: Priority::Normal,
        }
    }

    /// Goes on with a read at `offset` that has brought what `buffer` holds, which counts in the result.
    #[cfg(feature = "tokio")]
    pub(crate) fn resume(file: Fd, offset: u64, buffer: Vec<u8>) -> Read {
        Read { buffer: Filling::behind(buffer), ..Read::new(file, offset, Vec::new()) }
    }

    /// Reads what does not block, if that is `wanted`, and will not try that again.
    #[cfg(feature = "tokio")]
    pub(crate) fn look(&mut self, wanted: bool) -> Step {
        let step = if wanted { self.advance() } else { Step::Run };
        self.reading.cold = true;
        step
    }

    /// Reads `len` bytes at most. A vector grows if it must; a buffer of a pool is the limit itself.
    ///
    /// # Panics
    ///
    /// As [`Vec::with_capacity`], if no memory can be had for so many.
    #[must_use]
    pub fn up_to(mut self, len: usize) -> Read {
        self.buffer.up_to(len);
        self
    }

    /// The data is not expected in the page cache: do not look there first.
    ///
    /// Looking costs one system call if the data is there, and that is the read. If it is not, the look
    /// costs about as much as starting the read (10 us), so for cold files read in batches this saves a
    /// third. (A file that is open with O_DIRECT is never looked at. Say this if it is given that flag later: a
    /// look would wait for the disk then.)
    #[must_use]
    pub fn cold(mut self) -> Read {
        self.reading.cold = true;
        self
    }

    /// What was read: the vector that was given for it, or a copy out of the buffer of a pool.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer.into_vec()
    }

    /// The memory, with what was read.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        self.buffer.into_memory()
    }

    /// What was read.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.buffer.as_slice()
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Read {
        Read { priority, ..self }
    }

    /// The file that it reads.
    #[must_use]
    pub fn file(&self) -> &Fd {
        &self.reading.file
    }

    /// Whether a read has found nothing more: what the buffer lacks, the file lacks.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// To be advanced again, after a short count: goes on behind what it has read, and counts from there.
    pub(crate) fn go_further(&mut self) {
        self.counted = self.buffer.as_slice().len();
    }

    /// Where the next bytes are. `check` has seen that every offset fits.
    fn position(&self) -> i64 {
        if self.stream {
            return STREAM;
        }
        (self.offset + self.buffer.as_slice().len() as u64) as i64
    }

    /// Whether what was read ends within a block. Memory has whole blocks, so what has no more there but
    /// ends within one is the file.
    fn is_within_a_block(&self) -> bool {
        !self.stream && self.position() % SMALLEST_BLOCK != 0
    }

    /// What was read so far, if anything; whatever else happened will happen again to the next read.
    fn so_far(&self, otherwise: Outcome) -> Step {
        match (self.buffer.as_slice().len() - self.counted, otherwise) {
            (0, otherwise) => done(otherwise),
            (count, _) => Step::Done(Ok(count as u64)),
        }
    }
}

impl Operation for Read {
    fn check(&self) -> io::Result<()> {
        check_range(self.offset, self.buffer.want() as u64)
    }

    fn advance(&mut self) -> Step {
        if self.reading.cold {
            return Step::Run;
        }
        loop {
            let position = self.position();
            let room = self.buffer.room();
            let wanted = room.len();
            let read = file::read_now(self.reading.file.as_fd(), room, position);
            if matches!(read, Ok(_) | Err(Errno(libc::EAGAIN))) {
                self.reading.nowait = Some(true);
            }
            match read {
                Ok(0) => {
                    self.ended = wanted > 0;
                    return self.so_far(Ok(0));
                }
                Ok(count) => {
                    self.buffer.filled(count as usize);
                    self.ended = (count as usize) < wanted && self.is_within_a_block();
                    // Less than wanted may be the end of the file, or of what is in memory. Where that
                    // does not tell, asking again does. A stream has given what it has.
                    if count as usize == wanted || self.stream || self.ended {
                        return self.so_far(Ok(count));
                    }
                }
                Err(Errno(libc::ESPIPE)) if !self.stream => self.stream = true,
                Err(Errno(libc::EOPNOTSUPP)) => {
                    // A terminal, say, is a stream that can be polled: the ring waits without a thread.
                    self.reading.nowait = Some(self.stream);
                    return Step::Run;
                }
                Err(Errno(libc::EAGAIN | libc::ENOSYS | libc::EINVAL)) => return Step::Run,
                Err(errno) => return self.so_far(Err(errno)),
            }
        }
    }

    fn reading(&mut self) -> Option<&mut Reading> {
        Some(&mut self.reading)
    }

    fn encode(&mut self) -> Option<Entry> {
        if !self.reading.takes_nowait() {
            return None;
        }
        let (position, ioprio) = (self.position(), self.priority.ioprio());
        let room = self.buffer.room();
        let (pointer, len) = (room.as_mut_ptr().cast(), room.len() as u32);
        let fd = types::Fd(self.reading.file.as_fd().as_raw_fd());
        Some(opcode::Read::new(fd, pointer, len).offset(position as u64).ioprio(ioprio).build())
    }

    fn encode_fixed(&mut self, fixed: &Fixed) -> Option<Entry> {
        if !self.reading.takes_nowait() {
            return None;
        }
        let number = fixed.buffer(self.buffer.memory());
        let slot = fixed.file(self.reading.file.as_fd());
        let (position, ioprio) = (self.position() as u64, self.priority.ioprio());
        let room = self.buffer.room();
        let (pointer, len) = (room.as_mut_ptr().cast(), room.len() as u32);
        let fd = types::Fd(self.reading.file.as_fd().as_raw_fd());
        Some(match (slot.map(types::Fixed), number) {
            (Some(slot), Some(number)) => opcode::ReadFixed::new(slot, pointer, len, number)
                .offset(position)
                .ioprio(ioprio)
                .build(),
            (None, Some(number)) => opcode::ReadFixed::new(fd, pointer, len, number)
                .offset(position)
                .ioprio(ioprio)
                .build(),
            (Some(slot), None) => {
                opcode::Read::new(slot, pointer, len).offset(position).ioprio(ioprio).build()
            }
            (None, None) => return None,
        })
    }

    fn run(&mut self) -> Outcome {
        let position = self.position();
        file::read(self.reading.file.as_fd(), self.buffer.room(), position)
    }

    fn priority(&self) -> Priority {
        self.priority
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Err(Errno(libc::ESPIPE)) if !self.stream => {
                self.stream = true;
                Step::Run
            }
            Ok(count) => {
                self.ended = count == 0;
                self.buffer.filled(count as usize);
                self.so_far(Ok(count))
            }
            Err(errno) => self.so_far(Err(errno)),
        }
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read")
            .field("file", &self.reading.file.as_fd())
            .field("offset", &self.offset)
            .field("buffer", &self.buffer)
            .finish_non_exhaustive()
    }
}
