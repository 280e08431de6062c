//! From options to running threads.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kevent_aio::{Aio, Fd};
use kevent_core::{Queue, Signals, UserEvents};
use kevent_fs::{Kinds, Watcher};

use crate::control::{Control, SIGNALS};
use crate::limits::{self, Share};
use crate::lister::Lister;
use crate::log::Log;
use crate::message::{Message, insist};
use crate::options::Options;
use crate::stderr::complain;
use crate::vital;
use crate::worker::{Setup, Worker};

/// Everything that is needed to serve, so that nothing is missing once clients come.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Opens the root and the log, listens, and makes a worker for each thread.
    ///
    /// # Errors
    ///
    /// What could not be had, and why.
    pub fn new(options: &Options) -> Result<Server, Failure> {
        let root = open_root(options)?;
        let sockets = listen(&options.listen)?;
        let addresses = sockets
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<_>>()
            .map_err(Failure::because("the address that is listened on"))?;
        let log = match &options.log {
            Some(target) => Some(Log::open(target).map_err(Failure::because("the log"))?),
            None => None,
        };
        let lister = Lister::start().map_err(Failure::because("the thread that reads folders"))?;
        let threads = options.threads.get();
        let watcher = watch(options);
        let mut share = Share::of(limits::descriptors(), threads);
        if watcher.is_none() {
            share.files = 0;
        }
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (users, poster) = UserEvents::new();
            let setup = Setup {
                root: Arc::clone(&root),
                listeners: clones(&sockets).map_err(Failure::because("a thread's listeners"))?,
                users,
                poster,
                overrun: Arc::new(AtomicBool::new(false)),
                aio: aio(options, share).map_err(Failure::because("file I/O"))?,
                lister: lister.clone(),
                log: log.clone(),
                share,
            };
            let worker = Queue::new()
                .and_then(|queue| Worker::new(queue, setup))
                .map_err(Failure::because("a thread's queue (more threads than descriptors?)"))?;
            workers.push(worker);
        }
        let mut server = Server { workers, addresses };
        server.give_control(options, watcher)?;
        Ok(server)
    }

    /// The first thread hears signals and watches the folder.
    fn give_control(&mut self, options: &Options, watcher: Option<Watcher>) -> Result<(), Failure> {
        let peers = self.workers.iter().map(Worker::peer).collect();
        let control = Control::new(peers, options.root.clone(), options.log.clone());
        let signals = Signals::new(SIGNALS).map_err(Failure::because("signals"))?;
        match self.workers.first_mut() {
            Some(first) => {
                first.take_control(control, signals, watcher).map_err(Failure::because("signals"))
            }
            None => Ok(()),
        }
    }

    /// Where clients are accepted.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until a signal ends it: the first worker on this thread, the others on their own. A
    /// worker that fails ends the process.
    ///
    /// # Errors
    ///
    /// When a thread can't be started.
    pub fn run(self) -> Result<(), Failure> {
        let mut workers = self.workers.into_iter();
        let Some(first) = workers.next() else { return Ok(()) };
        let control = first.peer().poster;
        let others = (1..)
            .zip(workers)
            .map(|(n, worker)| {
                let control = control.clone();
                vital::spawn(format!("serve-{n}"), move || {
                    worker.run()?;
                    insist(&control, Message::Ended);
                    Ok(())
                })
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(Failure::because("a thread"))?;
        vital::run("serve-0", || first.run());
        for other in others {
            // A failed one has ended the process.
            let _ = other.join();
        }
        Ok(())
    }
}

fn open_root(options: &Options) -> Result<Fd, Failure> {
    let in_context = |error| Failure { what: format!("ROOT `{}`", options.root.display()), error };
    let root = File::open(&options.root).map_err(in_context)?;
    if !root.metadata().map_err(in_context)?.is_dir() {
        let error = io::Error::other("is not a folder; name the folder that is to be served");
        return Err(in_context(error));
    }
    Ok(Arc::new(root))
}

fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Failure> {
    let listen = |address: &SocketAddr| {
        kevent_net::socket::listen(*address)
            .map(TcpListener::from)
            .map_err(|error| Failure { what: format!("listening on {address}"), error })
    };
    addresses.iter().map(listen).collect()
}

fn clones(sockets: &[TcpListener]) -> io::Result<Vec<TcpListener>> {
    sockets.iter().map(TcpListener::try_clone).collect()
}

fn aio(options: &Options, share: Share) -> io::Result<Aio> {
    let builder = Aio::builder().capacity(share.operations());
    options.aio.into_iter().fold(builder, kevent_aio::Builder::backend).build()
}

/// The watch on the root. Without one nothing may be kept open, and everything works all the same.
fn watch(options: &Options) -> Option<Watcher> {
    // Also attributes: a file that may no longer be read is not served from a descriptor kept open.
    let kinds = Kinds::default() | Kinds::ATTRIBUTES;
    let watched =
        Watcher::new().map(|watcher| watcher.with_kinds(kinds)).and_then(|mut watcher| {
            watcher.watch_tree(&options.root, 0)?;
            Ok(watcher)
        });
    watched
        .inspect_err(|error| {
            complain(&format!(
                "ROOT is not watched, so files are opened for each request: {error}"
            ));
        })
        .ok()
}

/// Why the server can't serve.
#[derive(Debug)]
pub struct Failure {
    what: String,
    error: io::Error,
}

impl Failure {
    fn because(what: &'static str) -> impl Fn(io::Error) -> Failure {
        move |error| Failure { what: what.to_owned(), error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
