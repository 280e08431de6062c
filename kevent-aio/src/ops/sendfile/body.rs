//! The part of a transfer that comes from a file: what of it is in the page cache, and how the rest gets there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::{Sendfile, failed};
use crate::buffer::Filling;
use crate::operation::{Errno, Fd, Outcome, Step};
use crate::ops::window::{self, Window};
use crate::recent::{Cached, Known};
use crate::sys::clock::Moment;
use crate::sys::sendfile as sys;
use crate::sys::{file, residency};

/// Up to this many bytes are cheaper to read and to send together with the header (two calls) than to
/// ask about, and then to send apart from it (four). Measured over loopback: 2.4 against 4.3 us for
/// 4 KiB, 7.2 against 9.1 us for 32 KiB, equal at 64 KiB.
pub(super) const SMALL: u64 = 32 * 1024;

/// For so many bytes it is asked whether they are in the page cache, at most: that costs 2.5 us, and a third of
/// it for 4 KiB. Sending them takes 70 us at least.
const REACH: u64 = 1024 * 1024;

/// Bytes between two probes where cachestat(2) is refused: half of the least that the kernel reads
/// ahead by default.
const PROBE_STEP: usize = 64 * 1024;

/// The part that comes from a file, and what is known about it.
pub(super) struct Body {
    pub(super) file: Fd,
    /// Where the next byte to send is in the file.
    pub(super) at: u64,
    /// Where the range ends. For a transfer to the end of the file: where that was last seen.
    pub(super) until: u64,
    pub(super) to_end: bool,
    /// The bytes up to here are in the page cache, or were a moment ago. They may go on behind the range.
    pub(super) ready: u64,
    /// Since where, and since when.
    pub(super) from: u64,
    pub(super) asked: Moment,
    /// It begins where the transfer before it ended.
    pub(super) follows: bool,
    /// Up to here it is in vain to ask for more than this transfer needs.
    pub(super) denied: u64,
    pub(super) window: Window,
    /// Bytes of the file in memory. The first `unstaged` of them have been sent; the next is that at
    /// `at`.
    pub(super) stage: Filling,
    pub(super) unstaged: usize,
    pub(super) scratch: Option<sys::Scratch>,
    /// What `Step::Run` is to do.
    pub(super) reading: Option<Reading>,
    /// Why sendfile(2) is not used.
    pub(super) copying: Option<Errno>,
    /// The socket was asked whether sendfile(2) would wait for it, and it would not.
    pub(super) nonblocking: bool,
    pub(super) asks_cachestat: bool,
    /// Read-ahead leaves out some of what it is asked for, or all.
    pub(super) lacks_read_ahead: bool,
    /// Whether what is read stays in the page cache was looked up.
    pub(super) stays_checked: bool,
    /// The ring can't read this file without waiting, and may not wait.
    pub(super) thread_only: bool,
    pub(super) misses: u32,
}

#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// The bytes themselves, to be sent from memory.
    Stage(usize),
    /// To have the reading of so many `ahead` started. The waiting thread does not do that itself: it takes longer
    /// than to send them, and where the disk has enough to do already it waits.
    Ahead { length: usize, ahead: usize },
    /// That all of them are in the page cache, after their reading was started: the last of them.
    Arrival(usize),
    /// To have them in the page cache. Reads them all, so it takes as long as copying them.
    Populate(usize),
}

impl Body {
    pub(super) fn new(file: Fd, offset: u64, length: u64) -> Body {
        let to_end = length == Sendfile::TO_END;
        Body {
            file,
            at: offset,
            until: if to_end { offset } else { offset.saturating_add(length) },
            to_end,
            ready: 0,
            from: 0,
            asked: Moment::default(),
            follows: false,
            denied: 0,
            window: Window::new(),
            stage: Filling::new(Vec::new()),
            unstaged: 0,
            scratch: None,
            reading: None,
            copying: None,
            nonblocking: false,
            asks_cachestat: true,
            lacks_read_ahead: false,
            stays_checked: false,
            thread_only: false,
            misses: 0,
        }
    }

    /// How many bytes of the file there are to send yet.
    pub(super) fn left(&mut self) -> Result<u64, Errno> {
        if self.to_end && self.at >= self.until {
            self.until = residency::size(self.file.as_fd())?;
        }
        Ok(self.until.saturating_sub(self.at))
    }

    /// The file ends here. Says whether the transfer has what it wanted nevertheless.
    pub(super) fn cut(&mut self) -> bool {
        if self.to_end {
            self.until = self.at;
            self.to_end = false;
        }
        self.until <= self.at
    }

    /// Takes over what the transfer before it knew.
    pub(super) fn recall(&mut self, known: Known) {
        self.follows = self.at == known.end;
        self.denied = known.denied;
        self.ready = known.cached.up_to(self.at, Moment::now());
        (self.from, self.asked) = (known.cached.from, known.cached.asked);
    }

    /// What the next one may want to know.
    pub(super) fn known(&self) -> Known {
        let cached = Cached { from: self.from, until: self.ready, asked: self.asked };
        // What the disk has brought was read ahead: some of that may be on its way.
        let cached = if self.misses == 0 { cached } else { Cached::default() };
        Known { end: self.at, cached, denied: self.denied }
    }

    /// Forgets what was found out too long ago.
    pub(super) fn doubt(&mut self) {
        if self.at < self.ready {
            let cached = Cached { from: self.from, until: self.ready, asked: self.asked };
            self.ready = cached.up_to(self.at, Moment::now());
        }
    }

    /// Gets the next bytes to where they can be sent from, if that takes no waiting. `alone`: nothing is to be sent
    /// before or behind the file's. `false`: the file has no more.
    pub(super) fn prepare(
        &mut self,
        socket: BorrowedFd<'_>,
        left: u64,
        alone: bool,
    ) -> Result<bool, Step> {
        if self.reaches_far(socket, left, alone)? {
            return Ok(true);
        }
        if self.copying.is_some() || left <= SMALL {
            let length = left.min(window::SMALLEST) as usize;
            match self.stage_now(length) {
                Ok(0) => return Ok(self.cut()),
                Ok(_) => return Ok(true),
                Err(Errno(libc::EAGAIN)) => return Err(self.wait_for(Reading::Stage(length))),
                // This file can't promise not to wait (tmpfs, for one). Then ask what it has.
                Err(Errno(libc::EOPNOTSUPP)) if self.copying.is_none() => {}
                Err(Errno(libc::EOPNOTSUPP)) => return Err(self.wait_for(Reading::Stage(length))),
                Err(errno) => return Err(failed(errno)),
            }
        }
        if !self.may_sendfile(socket)? {
            return Ok(true);
        }
        let length = self.window.next(self.at, left);
        match self.is_cached(length) {
            // The page on which the file ends may be cached, and the range begin behind that: found out
            // now, before the header leaves.
            Ok(true) if self.size()? <= self.at => return Ok(self.cut()),
            Ok(true) => self.is_ready(length),
            Ok(false) if length <= SMALL => {
                return Err(self.wait_for(Reading::Stage(length as usize)));
            }
            Ok(false) => return Err(self.fetch(length, left)),
            Err(errno) => self.copy(errno),
        }
        Ok(true)
    }

    /// Asks for more than a window at once, and for more than the range if the next one will go on from there: most
    /// files are in the page cache as a whole. Not after a miss: what was read ahead may be on its way.
    fn reaches_far(
        &mut self,
        socket: BorrowedFd<'_>,
        left: u64,
        alone: bool,
    ) -> Result<bool, Step> {
        let one_of_many = alone && self.follows && self.at >= self.denied;
        let pays = one_of_many || left > SMALL;
        if !pays || self.misses > 0 || self.copying.is_some() || !self.may_sendfile(socket)? {
            return Ok(false);
        }
        let wanted = if one_of_many { REACH } else { left.min(REACH) };
        let reach = wanted.min(self.size()?.saturating_sub(self.at));
        if reach > 0 && self.is_cached(reach) == Ok(true) {
            self.is_ready(reach);
            return Ok(true);
        }
        if one_of_many {
            self.denied = self.at + reach.max(1);
        }
        Ok(false)
    }

    /// The next `length` bytes are in the page cache.
    fn is_ready(&mut self, length: u64) {
        (self.from, self.ready, self.asked) = (self.at, self.at + length, Moment::now());
    }

    fn size(&self) -> Result<u64, Step> {
        residency::size(self.file.as_fd()).map_err(failed)
    }

    /// Whether sendfile(2) waits for neither room in the socket nor the disk. Asked only of who comes to
    /// need it: bytes from memory are sent by a call that never waits, whatever the socket's mode.
    fn may_sendfile(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Step> {
        if self.nonblocking {
            return Ok(true);
        }
        if file::status_flags(self.file.as_fd()).map_err(failed)? & libc::O_DIRECT != 0 {
            let text =
                "a file that was opened with O_DIRECT: what is sent goes through the page cache";
            return Err(Step::Done(Err(io::Error::new(io::ErrorKind::InvalidInput, text))));
        }
        self.nonblocking = file::status_flags(socket).map_err(failed)? & libc::O_NONBLOCK != 0;
        if !self.nonblocking {
            self.copy(Errno(libc::EWOULDBLOCK));
        }
        Ok(self.nonblocking)
    }

    /// Whether sendfile(2) of the next `length` bytes would find them. An error when nobody tells.
    pub(super) fn is_cached(&mut self, length: u64) -> Result<bool, Errno> {
        let file = self.file.as_fd();
        let last = self.at + (length - 1);
        if self.asks_cachestat {
            match residency::holds_all(file, self.at, length) {
                Ok(false) => return Ok(false),
                // A page counts as soon as its read has begun, and the last is the last to arrive.
                Ok(true) => match self.have_arrived(length) {
                    // Nothing can be asked not to wait. FUSE may have pages there that somebody else's
                    // read waits for.
                    Err(Errno(libc::EOPNOTSUPP)) => {
                        return residency::has_arrived(file, self.at, length);
                    }
                    probed => return probed,
                },
                Err(_) => self.asks_cachestat = false,
            }
        }
        self.are_there((self.at..last).step_by(PROBE_STEP), last)
    }

    /// Whether the reads that have brought the next `length` bytes are over: each has brought a window, or more.
    fn have_arrived(&self, length: u64) -> Result<bool, Errno> {
        let last = self.at + (length - 1);
        self.are_there((self.at..last).step_by(window::LARGEST as usize).skip(1), last)
    }

    fn are_there(&self, places: impl Iterator<Item = u64>, last: u64) -> Result<bool, Errno> {
        for at in places.chain([last]) {
            if !residency::probe(self.file.as_fd(), at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gets the next `length` bytes of the `left` into the page cache.
    fn fetch(&mut self, length: u64, left: u64) -> Step {
        if self.lacks_read_ahead || !self.asks_cachestat {
            return self.wait_for(Reading::Populate(length as usize));
        }
        // The next window as well, so that the disk has something to do while this one is sent.
        let ahead = left.min(2 * length) as usize;
        self.reading = Some(Reading::Ahead { length: length as usize, ahead });
        Step::Run
    }

    pub(super) fn wait_for(&mut self, reading: Reading) -> Step {
        self.misses += 1;
        self.reading = Some(reading);
        Step::Run
    }

    /// From here on, bytes are read into memory and sent from there.
    pub(super) fn copy(&mut self, refusal: Errno) {
        self.copying = Some(refusal);
        self.ready = self.at;
        self.scratch = None;
    }

    /// The bytes in memory that are to be sent next.
    pub(super) fn staged(&self) -> &[u8] {
        self.stage.as_slice().get(self.unstaged..).unwrap_or_default()
    }

    /// `count` bytes have been sent from memory.
    pub(super) fn unstage(&mut self, count: usize) {
        self.at += count as u64;
        self.unstaged += count;
    }

    /// Makes room for the next `length` bytes, and says where in the file they are.
    fn clear_stage(&mut self, length: usize) -> Result<i64, Errno> {
        self.stage =
            Filling::new(std::mem::replace(&mut self.stage, Filling::new(Vec::new())).into_vec());
        self.stage.up_to(length);
        self.unstaged = 0;
        i64::try_from(self.at).map_err(|_| Errno(libc::EINVAL))
    }

    /// Reads into memory what the page cache has of the next `length` bytes.
    fn stage_now(&mut self, length: usize) -> Outcome {
        let offset = self.clear_stage(length)?;
        let read = file::read_now(self.file.as_fd(), self.stage.room(), offset)?;
        self.stage.filled(read as usize);
        Ok(read)
    }

    pub(super) fn encode(&mut self) -> Option<Entry> {
        if let Some(Reading::Ahead { ahead, .. }) = self.reading {
            let fd = types::Fd(self.file.as_fd().as_raw_fd());
            let advice = libc::POSIX_FADV_WILLNEED;
            return Some(opcode::Fadvise::new(fd, ahead as i64, advice).offset(self.at).build());
        }
        if !file::takes_nowait(self.file.as_fd()) {
            self.thread_only = true;
            return None;
        }
        match self.reading? {
            Reading::Ahead { .. } => None,
            Reading::Stage(length) => {
                let offset = self.clear_stage(length).ok()?;
                let room = self.stage.room();
                let (pointer, length) = (room.as_mut_ptr().cast(), room.len() as u32);
                let fd = types::Fd(self.file.as_fd().as_raw_fd());
                Some(opcode::Read::new(fd, pointer, length).offset(offset as u64).build())
            }
            Reading::Arrival(length) => {
                let scratch = self.scratch.get_or_insert_with(sys::Scratch::new);
                Some(scratch.populate_entry(self.file.as_fd(), last(self.at, length), 1))
            }
            Reading::Populate(length) => {
                let scratch = self.scratch.get_or_insert_with(sys::Scratch::new);
                Some(scratch.populate_entry(self.file.as_fd(), self.at, length))
            }
        }
    }

    pub(super) fn run(&mut self) -> Outcome {
        match self.reading {
            Some(Reading::Ahead { ahead, .. }) => {
                residency::read_ahead(self.file.as_fd(), self.at, ahead as u64).map(|()| 0)
            }
            Some(Reading::Stage(length)) => {
                let offset = self.clear_stage(length)?;
                file::read(self.file.as_fd(), self.stage.room(), offset)
            }
            Some(Reading::Arrival(length)) => {
                let scratch = self.scratch.get_or_insert_with(sys::Scratch::new);
                scratch.populate(self.file.as_fd(), last(self.at, length), 1)
            }
            Some(Reading::Populate(length)) => {
                let scratch = self.scratch.get_or_insert_with(sys::Scratch::new);
                scratch.populate(self.file.as_fd(), self.at, length)
            }
            None => Ok(0),
        }
    }

    /// What was read is where it was wanted. `false`: the file has no more.
    pub(super) fn arrived(&mut self, reading: Reading, count: u32) -> bool {
        match reading {
            Reading::Ahead { .. } => {}
            // The last byte is there, or never will be: is the rest?
            Reading::Arrival(length) => {
                let (length, file) = (length as u64, self.file.as_fd());
                if count == 1 && residency::holds_all(file, self.at, length) == Ok(true) {
                    self.is_ready(length);
                } else {
                    self.lacks_read_ahead = true;
                }
            }
            _ if count == 0 => return self.cut(),
            Reading::Stage(_) => self.stage.filled(count as usize),
            Reading::Populate(_) => {
                self.is_ready(count.into());
                // A file whose reads leave nothing in the cache (some of FUSE): sendfile(2)
                // would read it again, and wait.
                if !std::mem::replace(&mut self.stays_checked, true)
                    && self.asks_cachestat
                    && residency::cached_pages(self.file.as_fd(), self.at, 1) == Ok(0)
                {
                    self.copy(Errno(libc::EOPNOTSUPP));
                }
            }
        }
        true
    }
}

/// Where the last of the `length` bytes from `at` is.
fn last(at: u64, length: usize) -> u64 {
    at + (length as u64).saturating_sub(1)
}
