//! The inotify descriptor, and what was read of it.
//!
//! Events are looked at where they lie in the buffer, one by one, so a name is copied only if something
//! keeps it. The layout is that of `struct inotify_event`: watch, mask, cookie and the length of the
//! name, 32 bits each, then the name, filled up with zeros. (The crate `inotify` reads them, too, but
//! allocates for each, and does not say how much there was.)

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use inotify::Inotify;

use crate::buffer::Buffer;

/// The kernel's words for what happened.
pub(crate) use inotify::EventMask as Mask;

/// A watch, as the kernel numbers them.
pub(crate) type Wd = i32;

/// The largest event: a name of 255 bytes and its zero.
const LARGEST: usize = 16 + 256;

pub(crate) struct Intake {
    kernel: Arc<Inotify>,
    buffer: Buffer,
}

/// What the kernel says of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) wd: Wd,
    pub(crate) mask: Mask,
    pub(crate) cookie: u32,
    /// An entry of the watched directory; without one it is the watched thing itself.
    pub(crate) name: Option<&'a OsStr>,
}

impl Intake {
    pub(crate) fn new() -> io::Result<Intake> {
        Ok(Intake { kernel: Arc::new(Inotify::init()?), buffer: Buffer::new() })
    }

    /// The descriptor, to add watches to it.
    pub(crate) fn share(&self) -> Arc<Inotify> {
        Arc::clone(&self.kernel)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }

    /// Whether all that was read has been looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether the last read had room to spare: the kernel had no more then.
    pub(crate) fn had_room(&self) -> bool {
        self.buffer.has_room_for(LARGEST)
    }

    /// Reads what the kernel has, in place of what was read before. `false` when that is nothing.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        self.buffer.read(self.kernel.as_fd())
    }

    /// The next event and its length, to be passed over by [`skip`](Intake::skip) once it was looked
    /// at.
    pub(crate) fn peek(&self) -> Option<(Event<'_>, usize)> {
        parse(self.buffer.behind(0))
    }

    /// Whether there is something behind the event of that length that was peeked at.
    pub(crate) fn has_more_than(&self, length: usize) -> bool {
        !self.buffer.behind(length).is_empty()
    }

    /// The event behind the one of that length that was peeked at, and the length of both.
    pub(crate) fn peek_behind(&self, length: usize) -> Option<(Event<'_>, usize)> {
        let (event, more) = parse(self.buffer.behind(length))?;
        Some((event, length + more))
    }

    pub(crate) fn skip(&mut self, length: usize) {
        self.buffer.skip(length);
    }
}

/// The event that `bytes` begin with, and its length. None when they are no whole event.
fn parse(bytes: &[u8]) -> Option<(Event<'_>, usize)> {
    let (wd, rest) = bytes.split_first_chunk()?;
    let (mask, rest) = rest.split_first_chunk()?;
    let (cookie, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let name = rest.get(..u32::from_ne_bytes(*length) as usize)?;
    let event = Event {
        wd: i32::from_ne_bytes(*wd),
        mask: Mask::from_bits_retain(u32::from_ne_bytes(*mask)),
        cookie: u32::from_ne_bytes(*cookie),
        name: CStr::from_bytes_until_nul(name).ok().map(|name| OsStr::from_bytes(name.to_bytes())),
    };
    Some((event, 16 + name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(wd: i32, mask: u32, cookie: u32, name: &[u8], zeros: usize) -> Vec<u8> {
        let length = (name.len() + zeros) as u32;
        let mut bytes = [wd.to_ne_bytes(), mask.to_ne_bytes(), cookie.to_ne_bytes()].concat();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(name);
        bytes.resize(bytes.len() + zeros, 0);
        bytes
    }

    proptest! {
        #[test]
        fn event_is_read_as_it_was_written(
            (wd, mask, cookie) in any::<(i32, u32, u32)>(),
            name in prop::collection::vec(1_u8.., 1..40),
            zeros in 1_usize..17,
            more in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = bytes_of(wd, mask, cookie, &name, zeros);
            let length = bytes.len();
            bytes.extend(more);
            let name = Some(OsStr::from_bytes(&name));
            let event = Event { wd, mask: Mask::from_bits_retain(mask), cookie, name };
            prop_assert_eq!(parse(&bytes), Some((event, length)));
        }

        #[test]
        fn bytes_that_are_no_event_are_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some((_, length)) = parse(&bytes) {
                prop_assert!((16..=bytes.len()).contains(&length));
            }
        }
    }

    #[test]
    fn event_without_a_name_is_of_the_watched_thing_itself() {
        let bytes = bytes_of(1, 2, 0, b"", 0);
        let (event, length) = parse(&bytes).unwrap();
        assert_eq!((event.name, length), (None, 16));
    }
}
