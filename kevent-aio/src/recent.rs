//! What the last transfer on a socket has found out of its file, for the next one.
//!
//! To ask the kernel what is in the page cache costs half of what it costs to send 4 KiB from there. Who sends a
//! file in pieces, or the same piece again, would ask for each. So the answer is asked for a mebibyte, and
//! believed for [`BELIEVED`].
//!
//! The risk is that of a page which was there is thrown out within this time, and then waited for. A page that
//! was not there is never assumed to be.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::operation::Fd;
use crate::sys::clock::Moment;

/// How long an answer is believed: two of the longest ticks, since it is told by those. Also within one transfer.
const BELIEVED: Duration = Duration::from_millis(20);

/// How many sockets are remembered; a power of two.
const SOCKETS: usize = 64;

/// Bytes of a file that were in the page cache when that was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cached {
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) asked: Moment,
}

impl Cached {
    /// Up to where the bytes from `at` on are there; `at` itself when nobody knows, or not any more.
    #[inline]
    pub(crate) fn up_to(&self, at: u64, now: Moment) -> u64 {
        let holds = (self.from..self.until).contains(&at) && self.asked.age(now) < BELIEVED;
        if holds { self.until } else { at }
    }
}

/// What is known when a transfer is over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Where the transfer ended. The next one will go on there, probably.
    pub(crate) end: u64,
    pub(crate) cached: Cached,
    /// Up to here it is in vain to ask whether more is there than one transfer needs.
    pub(crate) denied: u64,
}

struct Past {
    /// They keep their places in memory, and neither socket nor file: so no other one can be taken for it.
    socket: Weak<dyn AsFd + Send + Sync>,
    file: Weak<dyn AsFd + Send + Sync>,
    known: Known,
}

impl Past {
    fn is_of(&self, socket: &Fd, file: &Fd) -> bool {
        ptr::addr_eq(self.socket.as_ptr(), Arc::as_ptr(socket))
            && ptr::addr_eq(self.file.as_ptr(), Arc::as_ptr(file))
    }
}

/// The last transfers.
#[derive(Default)]
pub(crate) struct Recent {
    /// Each in the place that the last digits of its socket's number give, until another one comes there. None
    /// for who sends no files.
    places: Vec<Option<Past>>,
}

impl Recent {
    /// What the last transfer from `file` to `socket` has found out, if it was that one.
    #[inline]
    pub(crate) fn of(&self, socket: &Fd, file: &Fd) -> Option<Known> {
        let past = self.places.get(place(socket))?.as_ref()?;
        past.is_of(socket, file).then_some(past.known)
    }

    #[inline]
    pub(crate) fn keep(&mut self, socket: &Fd, file: &Fd, known: Known) {
        if self.places.is_empty() {
            self.places.resize_with(SOCKETS, || None);
        }
        let Some(place) = self.places.get_mut(place(socket)) else { return };
        match place {
            Some(past) if past.is_of(socket, file) => past.known = known,
            place => {
                let (socket, file) = (Arc::downgrade(socket), Arc::downgrade(file));
                *place = Some(Past { socket, file, known });
            }
        }
    }
}

fn place(socket: &Fd) -> usize {
    socket.as_fd().as_raw_fd() as usize % SOCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Fd {
        Arc::new(std::fs::File::open("/dev/null").unwrap())
    }

    #[test]
    fn transfer_is_told_what_the_last_of_this_socket_and_this_file_knew() {
        let (mut recent, socket, file) = (Recent::default(), open(), open());
        assert!(recent.of(&socket, &file).is_none());
        for end in [1, 2] {
            recent.keep(&socket, &file, Known { end, ..Known::default() });
            assert_eq!(recent.of(&socket, &file).unwrap().end, end);
        }
        assert!(recent.of(&socket, &open()).is_none(), "of another file nothing is known");
        assert!(recent.of(&open(), &file).is_none(), "nor of another socket");
        recent.keep(&socket, &open(), Known::default());
        assert!(recent.of(&socket, &file).is_none(), "the last one only");
    }

    #[test]
    fn socket_in_the_place_of_another_is_not_taken_for_it() {
        let (mut recent, socket, file) = (Recent::default(), open(), open());
        recent.keep(&socket, &file, Known::default());
        let number = socket.as_fd().as_raw_fd();
        drop(socket);
        let next = open();
        if next.as_fd().as_raw_fd() == number {
            assert!(recent.of(&next, &file).is_none());
        }
    }

    #[test]
    fn answer_is_for_its_bytes_and_is_not_believed_for_long() {
        let asked = Moment::now();
        let cached = Cached { from: 10, until: 20, asked };
        assert_eq!([9, 10, 19, 20].map(|at| cached.up_to(at, asked)), [9, 20, 20, 20]);
        let later = asked.after(BELIEVED);
        assert_eq!(cached.up_to(10, later), 10);
    }
}
