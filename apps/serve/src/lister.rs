//! Reading folders, on a thread of its own: a folder on a sleeping disk stalls nobody else.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use kevent_aio::Fd;
use kevent_core::Poster;

use crate::control::insist;
use crate::http::listing::Entry;
use crate::vital;
use crate::worker::Message;

/// Folders that may wait to be read. More are refused, and the client is told to come back.
const BACKLOG: usize = 64;

/// Entries of one folder that are listed. A page of more is of no use to anybody.
const ENTRIES_MAX: usize = 100_000;

/// Hands folders to the thread that reads them. Clones hand them to the same thread.
#[derive(Clone)]
pub struct Lister(SyncSender<Job>);

struct Job {
    folder: Fd,
    reader: Reader,
}

/// Who wants to know.
#[derive(Debug)]
pub struct Reader {
    /// The queue of the thread that asked.
    pub poster: Poster<Message>,
    /// The connection, as that thread names it.
    pub connection: u64,
}

impl Lister {
    /// Starts the thread. It ends when the last `Lister` is gone.
    ///
    /// # Errors
    ///
    /// When the process may start no more threads.
    pub fn start() -> io::Result<Lister> {
        let (sender, jobs) = sync_channel(BACKLOG);
        vital::spawn("lister".into(), move || {
            read_folders(&jobs);
            Ok(())
        })?;
        Ok(Lister(sender))
    }

    /// Has `folder` read. The answer comes as [`Message::Listed`]. `false` when too many wait.
    pub fn read(&self, folder: Fd, reader: Reader) -> bool {
        self.0.try_send(Job { folder, reader }).is_ok()
    }
}

fn read_folders(jobs: &Receiver<Job>) {
    while let Ok(Job { folder, reader }) = jobs.recv() {
        let entries = read(&folder);
        let message = Message::Listed { connection: reader.connection, entries };
        // A connection waits for this. A thread that is gone has none.
        insist(&reader.poster, message);
    }
}

/// What the folder holds that is open to the public. By its descriptor and not by its name: the name
/// was resolved beneath the root, and may mean something else by now.
fn read(folder: &Fd) -> io::Result<Vec<Entry>> {
    let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)?.take(ENTRIES_MAX) {
        let entry = entry?;
        // Gone since the folder was read: not there.
        let Ok(metadata) = entry.metadata() else { continue };
        entries.push(Entry {
            name: entry.file_name(),
            is_folder: metadata.is_dir(),
            size: metadata.len(),
            modified: metadata.modified().unwrap_or(std::time::SystemTime::UNIX_EPOCH),
        });
    }
    Ok(entries)
}

impl fmt::Debug for Lister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lister")
    }
}
