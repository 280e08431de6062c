//! Bytes that were read of a descriptor, and how far they were looked at.

use std::io;
use std::os::fd::BorrowedFd;

/// What one `read(2)` takes: a few thousand events.
const SIZE: usize = 64 * 1024;

pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn new() -> Buffer {
        Buffer { bytes: vec![0; SIZE].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Whether all that was read has been looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether the last read left room for so many bytes.
    pub(crate) fn has_room_for(&self, count: usize) -> bool {
        self.end + count <= self.bytes.len()
    }

    /// What was read and not looked at, but for so many bytes.
    pub(crate) fn behind(&self, count: usize) -> &[u8] {
        self.bytes.get(self.start + count..self.end).unwrap_or_default()
    }

    /// So many bytes have been looked at.
    pub(crate) fn skip(&mut self, count: usize) {
        self.start += count;
    }

    /// What is left is of no use.
    pub(crate) fn clear(&mut self) {
        self.start = self.end;
    }

    /// Reads, in place of what was read before, what a descriptor has that does not block. `false` when
    /// that is nothing.
    pub(crate) fn read(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        (self.start, self.end) = (0, 0);
        match rustix::io::read(fd, &mut *self.bytes) {
            Ok(count) => self.end = count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.end > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_was_read_is_looked_at_piece_by_piece() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut buffer = Buffer::new();
        assert!(!buffer.read(near.as_fd()).unwrap(), "there is nothing");
        far.write_all(b"abcde").unwrap();
        assert!(buffer.read(near.as_fd()).unwrap());
        assert!(buffer.has_room_for(SIZE - 5) && !buffer.has_room_for(SIZE - 4));
        assert_eq!((buffer.behind(0), buffer.behind(2)), (&b"abcde"[..], &b"cde"[..]));
        buffer.skip(4);
        assert_eq!((buffer.behind(0), buffer.behind(9)), (&b"e"[..], &b""[..]));
        assert!(!buffer.is_empty());
        buffer.clear();
        assert!(buffer.is_empty());
        assert_eq!(buffer.behind(0), b"");
    }
}
