//! A file system that does what it is told: fails, falls short, keeps its callers waiting.
//!
//! It lives in the test's process, mounted through `/dev/fuse`, and its files in memory. Its thread has a
//! table of descriptors of its own with little more than `/dev/fuse` in it. So when the process is killed
//! the kernel closes that, and lets go of every thread that still waits for an answer. In the process's own
//! table it would stay open as long as those threads live, which is for ever: they can't be killed.
//!
//! # Safety
//!
//! The one call below passes numbers.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// How long a request may take on a busy machine to get here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a program asks of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open,
    Stat,
    Read,
    Write,
    Fsync,
    Fallocate,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It fails with that error.
    Fails(i32),
    /// No more than so many bytes are read or written.
    Short(u32),
    /// It is not answered before [`Faulty::release`].
    Waits,
}

/// What is to go wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    call: Call,
    fate: Fate,
    bytes: Range<u64>,
    times: u32,
}

impl Fault {
    /// Every such call, whatever it is about.
    pub fn always(call: Call, fate: Fate) -> Fault {
        Fault { call, fate, bytes: 0..u64::MAX, times: u32::MAX }
    }

    /// Those that touch one of these bytes.
    pub fn at(self, bytes: Range<u64>) -> Fault {
        Fault { bytes, ..self }
    }

    /// The first of them only.
    pub fn once(self) -> Fault {
        Fault { times: 1, ..self }
    }
}

/// Whether the kernel keeps what it has read of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    Pages,
    /// Every read and write is a call of its own, as it is with O_DIRECT.
    Nothing,
}

struct Node {
    content: Vec<u8>,
    cache: Cache,
}

/// A call that was not answered yet.
type Held = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Default)]
struct State {
    /// By their numbers, which begin after that of the root.
    files: Vec<Node>,
    numbers: HashMap<Vec<u8>, u64>,
    faults: Vec<Fault>,
    held: Vec<Held>,
    /// Who is held is to be answered.
    release: bool,
    /// The file system is gone.
    over: bool,
    /// How many descriptors are open.
    open: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic of a test, too: others wait for answers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers who is held, whenever that is wanted.
    fn answer(&self) {
        let mut state = self.lock();
        while !state.over {
            if std::mem::take(&mut state.release) {
                for answer in std::mem::take(&mut state.held) {
                    answer(&mut state);
                }
                self.changed.notify_all();
            }
            let wait = self.changed.wait_while(state, |state| !state.release && !state.over);
            state = wait.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does what a call asks for, or what fate has for it: `act` gets the most bytes, or the error.
    fn serve(
        &self,
        call: Call,
        bytes: Range<u64>,
        act: impl FnOnce(&mut State, Result<u32, Errno>) + Send + 'static,
    ) {
        let mut state = self.lock();
        match state.fate(call, &bytes) {
            None => act(&mut state, Ok(u32::MAX)),
            Some(Fate::Short(most)) => act(&mut state, Ok(most)),
            Some(Fate::Fails(errno)) => act(&mut state, Err(Errno::from_i32(errno))),
            Some(Fate::Waits) => {
                state.held.push(Box::new(|state| act(state, Ok(u32::MAX))));
            }
        }
        self.changed.notify_all();
    }
}

impl State {
    fn fate(&mut self, call: Call, bytes: &Range<u64>) -> Option<Fate> {
        let touched =
            |fault: &Fault| fault.bytes.start < bytes.end && bytes.start < fault.bytes.end;
        let mut faults = self.faults.iter_mut();
        let fault = faults.find(|f| f.call == call && f.times > 0 && touched(f))?;
        fault.times -= 1;
        Some(fault.fate)
    }

    fn node(&mut self, number: u64) -> Result<&mut Node, Errno> {
        let index = number.checked_sub(INodeNo::ROOT.0 + 1).ok_or(Errno::EISDIR)?;
        self.files.get_mut(index as usize).ok_or(Errno::ENOENT)
    }

    fn add(&mut self, name: &[u8], node: Node) -> u64 {
        self.files.push(node);
        let number = INodeNo::ROOT.0 + self.files.len() as u64;
        self.numbers.insert(name.to_vec(), number);
        number
    }

    fn attributes(&mut self, number: u64) -> Result<FileAttr, Errno> {
        let directory = number == INodeNo::ROOT.0;
        let size = if directory { 0 } else { self.node(number)?.content.len() as u64 };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn open(&mut self, number: u64) -> Result<FopenFlags, Errno> {
        let cache = self.node(number)?.cache;
        self.open += 1;
        Ok(match cache {
            Cache::Pages => FopenFlags::FOPEN_KEEP_CACHE,
            // Without the second the kernel lets one write at a time through to us.
            Cache::Nothing => {
                FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
            }
        })
    }

    fn read(&mut self, number: u64, bytes: &Range<u64>, most: u32) -> Result<&[u8], Errno> {
        let content = &self.node(number)?.content;
        let end = content.len().min(bytes.end as usize);
        let begin = end.min(bytes.start as usize);
        Ok(&content[begin..end.min(begin.saturating_add(most as usize))])
    }

    fn write(&mut self, number: u64, offset: u64, data: &[u8], most: u32) -> Result<u32, Errno> {
        let content = &mut self.node(number)?.content;
        let data = &data[..data.len().min(most as usize)];
        let end = offset as usize + data.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(data);
        Ok(data.len() as u32)
    }
}

/// The file system, mounted. Dropping it answers everybody and unmounts it.
pub struct Faulty {
    shared: Arc<Shared>,
    root: TempDir,
}

impl Faulty {
    /// A new one; `None` where none can be mounted.
    pub fn mount() -> Option<Faulty> {
        let shared = Arc::new(Shared::default());
        let root = tempfile::tempdir().unwrap();
        let (point, server) = (root.path().to_owned(), shared.clone());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            leave_descriptors_behind();
            let mut config = Config::default();
            config.mount_options = vec![MountOption::FSName("kevent-faulty".into())];
            match Session::new(Server(server.clone()), &point, &config) {
                Ok(session) => {
                    tell.send(Ok(())).unwrap();
                    // Answers go to a descriptor that only this thread and its children have.
                    thread::spawn(move || server.answer());
                    let _ = session.run();
                }
                Err(error) => tell.send(Err(error)).unwrap(),
            }
        });
        if let Err(error) = told.recv().unwrap() {
            println!("skipped: no FUSE file system can be mounted here: {error}");
            return None;
        }
        Some(Faulty { shared, root })
    }

    /// A new file.
    pub fn file(&self, name: &str, content: &[u8], cache: Cache) -> PathBuf {
        let node = Node { content: content.to_vec(), cache };
        self.shared.lock().add(name.as_bytes(), node);
        self.path(name)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What a file has on the server.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let mut state = self.shared.lock();
        let number = state.numbers[name.as_bytes()];
        state.node(number).unwrap().content.clone()
    }

    /// Cuts a file off, on the server, where the kernel does not see it at once.
    pub fn truncate(&self, name: &str, length: usize) {
        let mut state = self.shared.lock();
        let number = state.numbers[name.as_bytes()];
        state.node(number).unwrap().content.truncate(length);
    }

    /// From now on these go wrong, and no others.
    pub fn faults(&self, faults: &[Fault]) {
        self.shared.lock().faults = faults.to_vec();
    }

    /// Waits until so many calls wait for an answer.
    pub fn wait_held(&self, count: usize) {
        self.wait("calls that wait", count, |state| state.held.len());
    }

    /// Waits until so many descriptors are open.
    pub fn wait_open(&self, count: usize) {
        self.wait("open files", count, |state| state.open);
    }

    fn wait(&self, what: &str, count: usize, now: impl Fn(&State) -> usize) {
        let state = self.shared.lock();
        let wait = self.shared.changed.wait_timeout_while(state, PATIENCE, |s| now(s) != count);
        let found = now(&wait.unwrap().0);
        assert_eq!(found, count, "{what}");
    }

    /// How many calls wait for an answer.
    pub fn held(&self) -> usize {
        self.shared.lock().held.len()
    }

    /// Answers whoever waits, and lets nobody else wait.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.faults.retain(|fault| !matches!(fault.fate, Fate::Waits));
        state.release = true;
        self.shared.changed.notify_all();
        drop(self.shared.changed.wait_while(state, |state| state.release));
    }

    /// Ends without answering anybody, as a server does that is killed.
    pub fn die(&self) {
        // By force: that ends the connection first. It may be gone already.
        let _ = unmount(self.root.path(), UnmountFlags::FORCE | UnmountFlags::DETACH);
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.die();
        self.release();
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
    }
}

/// Gives the calling thread, and those that it starts, an empty table of descriptors.
fn leave_descriptors_behind() {
    let unshare = libc::CLOSE_RANGE_UNSHARE as libc::c_int;
    // SAFETY: closes numbers of a copy that is this thread's alone; it owns none of them.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, unshare) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Attributes and names are asked for each time.
const NOT_KEPT: Duration = Duration::ZERO;

struct Server(Arc<Shared>);

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // As many bytes in one call as other network file systems have.
        let _ = config.set_max_write(128 * 1024);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.0.lock();
        let number = state.numbers.get(name.as_bytes()).copied().ok_or(Errno::ENOENT);
        match number.and_then(|number| state.attributes(number)) {
            Ok(attributes) => reply.entry(&NOT_KEPT, &attributes, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.0.serve(Call::Stat, 0..1, move |state, fate| {
            match fate.and_then(|_| state.attributes(ino.0)) {
                Ok(attributes) => reply.attr(&NOT_KEPT, &attributes),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.lock();
        if let (Some(size), Ok(node)) = (size, state.node(ino.0)) {
            node.content.resize(size as usize, 0);
        }
        match state.attributes(ino.0) {
            Ok(attributes) => reply.attr(&NOT_KEPT, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.serve(Call::Open, 0..1, move |state, fate| {
            match fate.and_then(|_| state.open(ino.0)) {
                Ok(flags) => reply.opened(FileHandle(0), flags),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let name = name.as_bytes().to_vec();
        self.0.serve(Call::Open, 0..1, move |state, fate| {
            if let Err(errno) = fate {
                return reply.error(errno);
            }
            let node = Node { content: Vec::new(), cache: Cache::Pages };
            let number = state.add(&name, node);
            match (state.attributes(number), state.open(number)) {
                (Ok(attributes), Ok(flags)) => {
                    reply.created(&NOT_KEPT, &attributes, Generation(0), FileHandle(0), flags);
                }
                (Err(errno), _) | (_, Err(errno)) => reply.error(errno),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = offset..offset + u64::from(size);
        self.0.serve(Call::Read, bytes.clone(), move |state, fate| {
            match fate.and_then(|most| state.read(ino.0, &bytes, most)) {
                Ok(data) => reply.data(data),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (data, bytes) = (data.to_vec(), offset..offset + data.len() as u64);
        self.0.serve(Call::Write, bytes, move |state, fate| {
            match fate.and_then(|most| state.write(ino.0, offset, &data, most)) {
                Ok(count) => reply.written(count),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.serve(Call::Fsync, 0..1, move |_, fate| match fate {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        self.0.serve(Call::Fallocate, offset..offset + length, move |state, fate| {
            match fate.and_then(|_| state.node(ino.0)) {
                Ok(node) => {
                    let length = node.content.len().max((offset + length) as usize);
                    node.content.resize(length, 0);
                    reply.ok();
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().open -= 1;
        self.0.changed.notify_all();
        reply.ok();
    }
}
