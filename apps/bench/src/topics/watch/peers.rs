//! The peers: inotify by hand in three ways, and notify.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use notify::Watcher;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::{LAST, Watch};
use crate::group::Result;

/// A tree of watches, and the directory that each is of.
struct Inotify {
    fd: OwnedFd,
    directories: HashMap<i32, PathBuf>,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl Inotify {
    fn open(root: &Path, buffer: usize) -> Result<Inotify> {
        let mut inotify = Inotify {
            fd: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            directories: HashMap::new(),
            buffer: vec![MaybeUninit::uninit(); buffer].into(),
        };
        inotify.add(root.to_owned())?;
        Ok(inotify)
    }

    fn add(&mut self, directory: PathBuf) -> Result<()> {
        let wanted = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR;
        let watch = inotify::add_watch(&self.fd, &directory, wanted)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.add(entry.path())?;
            }
        }
        self.directories.insert(watch, directory);
        Ok(())
    }

    /// Waits, rests, and gives each event to `tell`, until the last file was written.
    fn hear_all(
        &mut self,
        rest: Option<Duration>,
        mut tell: impl FnMut(&HashMap<i32, PathBuf>, &inotify::Event<'_>),
    ) -> Result<()> {
        let mut reader = inotify::Reader::new(&self.fd, &mut self.buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    tell(&self.directories, &event);
                    let written = event.events().contains(ReadFlags::CLOSE_WRITE);
                    if written && event.file_name().is_some_and(|n| n.to_bytes() == LAST.as_bytes())
                    {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], None)?;
                    rest.into_iter().for_each(std::thread::sleep);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Looks at the name and knows the directory's number: the least that can be done.
pub(super) struct Names(Inotify);

impl Watch for Names {
    fn open(root: &Path) -> Result<Self> {
        Ok(Names(Inotify::open(root, 64 * 1024)?))
    }

    fn hear_all(&mut self) -> Result<()> {
        self.0.hear_all(None, |_, event| {
            black_box(event);
        })
    }
}

fn make_path(directories: &HashMap<i32, PathBuf>, event: &inotify::Event<'_>) {
    let name = event.file_name().map_or(OsStr::new(""), |name| OsStr::from_bytes(name.to_bytes()));
    black_box(directories.get(&event.wd()).map(|directory| directory.join(name)));
}

/// Makes a path of each event, as kevent and notify do.
pub(super) struct Paths(Inotify);

impl Watch for Paths {
    fn open(root: &Path) -> Result<Self> {
        Ok(Paths(Inotify::open(root, 64 * 1024)?))
    }

    fn hear_all(&mut self) -> Result<()> {
        self.0.hear_all(None, make_path)
    }
}

/// Lets a burst gather for a while before it reads.
pub(super) struct Late(Inotify);

impl Watch for Late {
    fn open(root: &Path) -> Result<Self> {
        Ok(Late(Inotify::open(root, 256 * 1024)?))
    }

    fn hear_all(&mut self) -> Result<()> {
        self.0.hear_all(Some(Duration::from_millis(2)), make_path)
    }
}

pub(super) struct Notify {
    _watcher: notify::RecommendedWatcher,
    events: mpsc::Receiver<notify::Result<notify::Event>>,
}

impl Watch for Notify {
    fn open(root: &Path) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(sender)?;
        watcher.watch(root, notify::RecursiveMode::Recursive)?;
        Ok(Notify { _watcher: watcher, events })
    }

    fn hear_all(&mut self) -> Result<()> {
        use notify::event::{AccessKind, AccessMode, EventKind};
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        loop {
            let event = self.events.recv()??;
            if event.kind == written && event.paths.iter().any(|path| path.ends_with(LAST)) {
                return Ok(());
            }
        }
    }
}
