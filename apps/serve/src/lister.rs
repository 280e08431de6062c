//! Listing folders, on a thread of its own: neither a sleeping disk nor a long page stalls anybody else.

use std::fmt;
use std::fs::{self, DirEntry, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::SystemTime;

use kevent_aio::Fd;
use kevent_core::Poster;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::http::listing::{self, Entry};
use crate::http::path::FilePath;
use crate::message::{Message, insist};
use crate::vital;

/// Folders that may wait to be listed. More are refused, and the client is told to come back.
const BACKLOG: usize = 64;

/// Entries of one folder that are listed. A page of more is of no use to anybody.
const ENTRIES_MAX: usize = 100_000;

/// Hands folders to the thread that lists them. Clones hand them to the same thread.
#[derive(Clone)]
pub struct Lister(SyncSender<Job>);

/// A folder to be listed.
pub struct Job {
    /// The folder that is served.
    pub root: Fd,
    /// The folder that is listed, which `path` led to beneath the root.
    pub folder: Fd,
    /// Its path below the root.
    pub path: FilePath,
    /// Who asked.
    pub reader: Reader,
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
            list_folders(&jobs);
            Ok(())
        })?;
        Ok(Lister(sender))
    }

    /// Has a folder listed. The page comes as [`Message::Listed`]. `false` when too many wait.
    pub fn list(&self, job: Job) -> bool {
        self.0.try_send(job).is_ok()
    }
}

fn list_folders(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let page = read(&job).map(|entries| listing::page(&job.path, entries));
        let message = Message::Listed { connection: job.reader.connection, page };
        // A connection waits for this. A thread that is gone has none.
        insist(&job.reader.poster, message);
    }
}

/// What the folder holds that can be asked for. By its descriptor and not by its name: the name was
/// resolved beneath the root, and may mean something else by now.
fn read(job: &Job) -> io::Result<Vec<Entry>> {
    let path = format!("/proc/self/fd/{}", job.folder.as_fd().as_raw_fd());
    let entries = fs::read_dir(path)?.take(ENTRIES_MAX);
    let found = entries.map(|entry| entry.map(|entry| look(job, &entry)));
    found.filter_map(Result::transpose).collect()
}

/// `None` for what is not served: devices, fifos, sockets, and links that lead to none or out of the
/// root. Also for what is gone by now.
fn look(job: &Job, entry: &DirEntry) -> Option<Entry> {
    let mut metadata = entry.metadata().ok()?;
    if metadata.is_symlink() {
        metadata = follow(job, Path::new(&entry.file_name())).ok()?;
    }
    (metadata.is_file() || metadata.is_dir()).then(|| Entry {
        name: entry.file_name(),
        is_folder: metadata.is_dir(),
        size: metadata.len(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

/// What a link leads to, as far as that is beneath the root.
fn follow(job: &Job, name: &Path) -> io::Result<Metadata> {
    let path = job.path.relative().join(name);
    let (flags, beneath) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::BENEATH);
    let found = rustix::fs::openat2(job.root.as_fd(), path, flags, Mode::empty(), beneath)?;
    File::from(found).metadata()
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for Lister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lister")
    }
}
