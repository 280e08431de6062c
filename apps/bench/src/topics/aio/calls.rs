//! The peers that make plain calls, which block, by one thread or several.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::sendfile;
use rustix::io::Errno;

use super::files::{Files, Item, SMALL};
use super::probe::Probe;
use super::work::{Copier, Opener, Pass, PathSender, Sender, Stream, Streams};
use crate::group::Result;

/// Opens, reads and closes one file after another with the standard library.
fn read_files(files: &Files, pass: &Pass) -> Result<()> {
    // Longer than any of the files: one read gives all.
    let mut memory = [0; SMALL + 1];
    while let Some(piece) = pass.take() {
        let count = File::open(&files.items[piece.place as usize].path)?.read(&mut memory)?;
        pass.read_file(files, piece, &memory[..count])?;
    }
    Ok(())
}

/// The same by so many threads.
pub(super) struct Std<const THREADS: usize>(Arc<Files>);

impl<const THREADS: usize> Opener for Std<THREADS> {
    fn open(files: &Arc<Files>) -> Result<Self> {
        Ok(Std(Arc::clone(files)))
    }

    fn read(&mut self, pass: &Arc<Pass>) -> Result<()> {
        by_threads::<THREADS>(|| read_files(&self.0, pass))
    }
}

/// Has that done by so many threads; by this one if one is enough.
fn by_threads<const THREADS: usize>(work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    if THREADS == 1 {
        return work();
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })
}

/// `std::fs::copy` by so many threads, which take whole directories.
pub(super) struct StdCopy<const THREADS: usize>;

impl<const THREADS: usize> Copier for StdCopy<THREADS> {
    fn open() -> Result<Self> {
        Ok(StdCopy)
    }

    fn copy(&mut self, files: &Arc<Files>, to: &Path) -> Result<()> {
        by_directory::<THREADS>(files, to, |item, to| {
            fs::copy(&item.path, to)?;
            Ok(())
        })
    }
}

/// The calls that it takes and no more, by one thread.
pub(super) struct Calls;

impl Copier for Calls {
    fn open() -> Result<Self> {
        Ok(Calls)
    }

    fn copy(&mut self, files: &Arc<Files>, to: &Path) -> Result<()> {
        by_directory::<1>(files, to, |item, to| {
            let mut memory = [0; SMALL + 1];
            let count = File::open(&item.path)?.read(&mut memory)?;
            File::create_new(to)?.write_all_at(&memory[..count], 0)?;
            Ok(())
        })
    }
}

/// Makes the directories, and in each what `copy` makes of the files.
fn by_directory<const THREADS: usize>(
    files: &Files,
    to: &Path,
    copy: impl Fn(&Item, &Path) -> Result<()> + Sync,
) -> Result<()> {
    let pass = Pass::new((0..files.directories.len() as u64).collect());
    by_threads::<THREADS>(|| {
        while let Some(piece) = pass.take() {
            let from = &files.directories[piece.place as usize];
            fs::create_dir(files.copy_of(from, to)?)?;
            for item in files.items_of(piece.place as usize) {
                copy(item, &files.copy_of(&item.path, to)?)?;
            }
        }
        Ok(())
    })
}

/// sendfile(2), until all is in the socket.
fn send_all(socket: &TcpStream, file: &File, mut at: u64, length: u64) -> Result<()> {
    let end = at + length;
    while at < end {
        let left = (end - at) as usize;
        // The call moves `at`.
        if sendfile(socket, file, Some(&mut at), left)? == 0 {
            return Err("the file is shorter than what is to be sent".into());
        }
    }
    Ok(())
}

/// One transfer after another to a socket that blocks.
pub(super) struct Sendfile {
    socket: TcpStream,
    file: File,
}

impl Sender for Sendfile {
    fn open(socket: TcpStream, file: File) -> Result<Self> {
        Ok(Sendfile { socket, file })
    }

    fn send(&mut self, at: u64, length: u64) -> Result<()> {
        send_all(&self.socket, &self.file, at, length)
    }
}

/// Open, send, close, for one file after another.
pub(super) struct SendPaths(TcpStream);

impl PathSender for SendPaths {
    fn open(socket: TcpStream) -> Result<Self> {
        Ok(SendPaths(socket))
    }

    fn send(&mut self, items: &[Item]) -> Result<()> {
        items
            .iter()
            .try_for_each(|item| send_all(&self.0, &File::open(&item.path)?, 0, item.length as u64))
    }
}

/// An epoll loop that sends to each socket that takes data, as many servers do.
pub(super) struct EpollLoop;

/// The name of the probe's doorbell; streams count from zero.
const DOORBELL: u64 = u64::MAX;

/// The most that one call sends: then it is the next one's turn.
const CHUNK: u64 = 1024 * 1024;

impl Streams for EpollLoop {
    fn send(mut streams: Vec<Stream>, probe: &Probe) -> Result<Vec<Duration>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, stream) in streams.iter().enumerate() {
            stream.socket.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream.socket, data, epoll::EventFlags::OUT)?;
        }
        let doorbell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let data = epoll::EventData::new_u64(DOORBELL);
        epoll::add(&epoll, &doorbell, data, epoll::EventFlags::IN)?;
        let posts = Arc::new(SegQueue::new());
        let (bell, mail) = (Arc::clone(&doorbell), Arc::clone(&posts));
        let _probing = probe.start(move |now: Instant| {
            mail.push(now);
            let _ = rustix::io::write(&bell, &1_u64.to_ne_bytes());
        });
        let take_posts = || std::iter::from_fn(|| posts.pop()).map(|post| post.elapsed());
        let (mut waits, mut left) = (Vec::new(), streams.len());
        let mut events = Vec::with_capacity(64);
        while left > 0 {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                if event.data.u64() == DOORBELL {
                    rustix::io::read(&doorbell, &mut [0; 8])?;
                    waits.extend(take_posts());
                } else if send_some(&mut streams[event.data.u64() as usize])? {
                    epoll::delete(&epoll, &streams[event.data.u64() as usize].socket)?;
                    left -= 1;
                }
            }
        }
        // Those that wait still have waited until now.
        waits.extend(take_posts());
        Ok(waits)
    }
}

/// Sends what the socket takes now. Says whether that was the last.
fn send_some(stream: &mut Stream) -> Result<bool> {
    let count = stream.length.min(CHUNK);
    match sendfile(&stream.socket, &stream.file, Some(&mut stream.at), count as usize) {
        Ok(0) => return Err("the file is shorter than what is to be sent".into()),
        Ok(sent) => stream.length -= sent as u64,
        Err(Errno::AGAIN) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(stream.length == 0)
}
