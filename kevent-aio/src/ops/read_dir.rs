//! Reading the entries of a directory.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use io_uring::squeue::Entry;

use crate::buffer::Filling;
use crate::operation::{Fd, Operation, Outcome, Step};
use crate::ops::done;
use crate::sys::dir;

/// What an entry takes that has the longest name of most file systems, 255 bytes.
const LONGEST: usize = 280;

/// Where the parts of the kernel's record are (`linux_dirent64`): the inode, then eight bytes that mean
/// something to the file system only, the record's length, the kind, and the name, which ends in zero.
const INO: usize = 0;
const LENGTH: usize = 16;
const KIND: usize = 18;
const NAME: usize = 19;

/// Reads entries of an open directory, as getdents64(2): as many as fit into the buffer.
///
/// The result is the number of [`entries`](ReadDir::entries); 0 is the end of the directory. `.` and `..`
/// are left out. The entries come in the file system's own order, and lie in the buffer, so the operation
/// takes no memory but that. What comes back may be submitted again, and reads the next batch.
///
/// Where the next batch begins is kept by the open directory itself, as in a file that is read without
/// offsets. Two operations on one directory in flight share its entries among them: each entry is in
/// one of the two, and which is not known. (So one that is abandoned takes entries with it.) Who wants
/// all of them twice opens the directory twice; who wants them again seeks to its start. An entry that is
/// made or removed while the directory is read may be among those found, or not; all others are, once.
///
/// Names are bytes, and in no way bound to be UTF-8. The ring has no such operation, so the pool does it.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Op, ReadDir};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let mut names = Vec::new();
/// let dir = Arc::new(std::fs::File::open("/proc/self")?);
/// queue[aio].submit(ReadDir::new(dir, Vec::with_capacity(32 * 1024)), 1)?;
/// loop {
///     queue.wait(None)?;
///     let Some(completion) = queue.next() else { continue };
///     if completion.result? == 0 {
///         break;
///     }
///     let Op::ReadDir(read_dir) = *completion.op else { unreachable!() };
///     names.extend(read_dir.entries().map(|entry| entry.name.to_owned()));
///     queue[aio].submit(read_dir, 1)?;
/// }
/// assert!(names.iter().any(|name| name == "status"));
/// # std::io::Result::Ok(())
/// ```
pub struct ReadDir {
    dir: Fd,
    buffer: Filling,
}

impl ReadDir {
    /// Reads entries of `dir` into `buffer`, up to its capacity. What that held is forgotten.
    ///
    /// 32 KiB hold about a thousand entries with short names, and more does not make it faster. Submitting
    /// is refused below 280 bytes, which hold any one name of 255. The few file systems that have
    /// longer names say EINVAL when the buffer is too small for the next.
    pub fn new(dir: Fd, buffer: Vec<u8>) -> ReadDir {
        ReadDir { dir, buffer: Filling::new(buffer) }
    }

    /// What was found, in the order in which it was found.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries { rest: self.buffer.as_slice() }
    }

    /// The directory that it reads.
    #[must_use]
    pub fn dir(&self) -> &Fd {
        &self.dir
    }

    /// The buffer, to be used again.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer.into_vec()
    }

    /// Forgets the entries of the batch before.
    fn clear(&mut self) {
        let buffer = std::mem::replace(&mut self.buffer, Filling::new(Vec::new()));
        self.buffer = Filling::new(buffer.into_vec());
    }
}

/// Refuses a buffer into which not every entry fits.
pub(crate) fn check_room(capacity: usize) -> io::Result<()> {
    if capacity >= LONGEST {
        return Ok(());
    }
    let text = format!(
        "a buffer of {capacity} bytes may be too small for one entry: give one with a capacity of \
         {LONGEST} at least"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

impl Operation for ReadDir {
    fn check(&self) -> io::Result<()> {
        check_room(self.buffer.want())
    }

    fn advance(&mut self) -> Step {
        self.clear();
        Step::Run
    }

    fn encode(&mut self) -> Option<Entry> {
        None
    }

    fn run(&mut self) -> Outcome {
        loop {
            self.clear();
            let bytes = dir::read_entries(self.dir.as_fd(), self.buffer.room())?;
            self.buffer.filled(bytes as usize);
            let count = self.entries().count();
            // A batch of nothing but `.` and `..` is not the end.
            if bytes == 0 || count > 0 {
                // No more than there are bytes.
                return Ok(count as u32);
            }
        }
    }

    fn complete(&mut self, outcome: Outcome) -> Step {
        done(outcome)
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir")
            .field("dir", &self.dir.as_fd())
            .field("buffer", &self.buffer)
            .finish()
    }
}

/// The entries that a [`ReadDir`] has found.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    /// Records of the kernel, end to end.
    rest: &'a [u8],
}

impl Entries<'_> {
    /// Of what [`ReadDir::into_buffer`] has given.
    pub(crate) fn of(records: &[u8]) -> Entries<'_> {
        Entries { rest: records }
    }
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry<'a> {
    /// The name, without any directory.
    pub name: &'a OsStr,
    /// What it is the name of.
    pub kind: FileKind,
    /// The number of that in its file system. If something is mounted there, of what that hides.
    pub ino: u64,
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// The directory does not say, as on some file systems: [`Statx`](crate::Statx) does.
    Unknown,
}

impl FileKind {
    fn new(raw: u8) -> FileKind {
        match raw {
            libc::DT_REG => FileKind::File,
            libc::DT_DIR => FileKind::Dir,
            libc::DT_LNK => FileKind::Symlink,
            libc::DT_FIFO => FileKind::Fifo,
            libc::DT_SOCK => FileKind::Socket,
            libc::DT_CHR => FileKind::CharDevice,
            libc::DT_BLK => FileKind::BlockDevice,
            _ => FileKind::Unknown,
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = DirEntry<'a>;

    fn next(&mut self) -> Option<DirEntry<'a>> {
        loop {
            let (entry, rest) = split_record(self.rest)?;
            self.rest = rest;
            if entry.name != "." && entry.name != ".." {
                return Some(entry);
            }
        }
    }
}

/// The first record, and those after it; `None` at the end, or where there is none that makes sense.
fn split_record(records: &[u8]) -> Option<(DirEntry<'_>, &[u8])> {
    let length = u16::from_ne_bytes(*records.get(LENGTH..)?.first_chunk()?);
    let (record, rest) = records.split_at_checked(length.into())?;
    let ino = u64::from_ne_bytes(*record.get(INO..)?.first_chunk()?);
    let kind = FileKind::new(*record.get(KIND)?);
    let name = record.get(NAME..)?.split(|byte| *byte == 0).next()?;
    Some((DirEntry { name: OsStr::from_bytes(name), kind, ino }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(ino: u64, kind: u8, name: &[u8]) -> Vec<u8> {
        let length = (NAME + name.len() + 1).next_multiple_of(8);
        let mut record = ino.to_ne_bytes().to_vec();
        record.extend([0; 8]);
        record.extend(u16::try_from(length).unwrap().to_ne_bytes());
        record.push(kind);
        record.extend(name);
        record.resize(length, 0);
        record
    }

    proptest! {
        #[test]
        fn entries_are_what_the_records_say(
            names in prop::collection::vec(prop::collection::vec(1..=255_u8, 1..=255), 0..20),
        ) {
            let records = names.iter().enumerate().flat_map(|(n, name)| record(n as u64, 4, name));
            let records: Vec<u8> = records.collect();
            let found = Entries { rest: &records };
            prop_assert!(found.clone().all(|entry| entry.kind == FileKind::Dir));
            let found: Vec<_> = found.map(|e| (e.ino, e.name.as_bytes().to_vec())).collect();
            let all = names.into_iter().enumerate().map(|(n, name)| (n as u64, name));
            let all: Vec<_> = all.filter(|(_, name)| name != b"." && name != b"..").collect();
            prop_assert_eq!(found, all);
        }

        #[test]
        fn nonsense_ends_and_does_no_harm(records in prop::collection::vec(any::<u8>(), 0..200)) {
            let entries = Entries { rest: &records };
            prop_assert!(entries.count() <= records.len() / NAME);
        }
    }

    #[test]
    fn dots_are_left_out_and_names_that_begin_with_them_are_not() {
        let names: [&[u8]; 4] = [b".", b"..", b"...", b".hidden"];
        let records: Vec<u8> = names.iter().flat_map(|name| record(7, 8, name)).collect();
        let found: Vec<_> = Entries { rest: &records }.map(|entry| entry.name).collect();
        assert_eq!(found, ["...", ".hidden"]);
    }
}
