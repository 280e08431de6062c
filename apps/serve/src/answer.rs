//! Answering a request: finding the file, sending it, and what comes after.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use kevent_aio::{Chain, Completion, End, Fd, Op, Open, Sendfile, Stat};
use kevent_core::Token;

use crate::connection::{IDLE, State, first_line};
use crate::exchange::{Exchange, Seek, Target};
use crate::files::OpenFile;
use crate::http::Status;
use crate::http::conditional::{Stamp, Validators};
use crate::http::mime;
use crate::http::path::{FilePath, folder_url};
use crate::http::request::{Method, Request};
use crate::http::response::{self, Context};
use crate::lister::{Job, Reader};
use crate::log::Line;
use crate::reply::Reply;
use crate::stderr::complain;
use crate::worker::Worker;

/// The file that stands for its folder.
const INDEX: &str = "index.html";

impl Worker {
    /// Begins to answer a request.
    pub(crate) fn answer(&mut self, token: Token, request: Request, line: String) {
        let keep_alive = request.keep_alive && !self.stopping;
        let refused = match &request.path {
            _ if request.method == Method::Other => Some(Status::MethodNotAllowed),
            Err(status) => Some(*status),
            Ok(_) => None,
        };
        let is_folder = request.path.as_ref().is_ok_and(FilePath::is_folder);
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.state = State::Finding;
        connection.exchange = Some(Exchange::new(Some(request), line, keep_alive));
        match refused {
            Some(status) => self.send_error(token, status),
            None => self.find(token, if is_folder { Target::Index } else { Target::File }),
        }
    }

    /// Answers what is no request, and takes no more of them.
    pub(crate) fn refuse(&mut self, token: Token, status: Status) {
        let logged = self.log.is_some();
        let Some(connection) = self.connections.get_mut(token) else { return };
        let line = if logged { first_line(&connection.input) } else { String::new() };
        connection.exchange = Some(Exchange::new(None, line, false));
        self.send_error(token, status);
    }

    /// Finds the file among those that are open, or has it opened.
    fn find(&mut self, token: Token, target: Target) {
        let Some(exchange) = self.exchange(token) else { return };
        let Some(path) = exchange.path().map(|path| path_of(path, target)) else { return };
        match self.files.get(&path).filter(|_| target != Target::Folder) {
            Some(file) => self.send_file(token, file),
            None => self.open(token, target, path),
        }
    }

    fn open(&mut self, token: Token, target: Target, path: Vec<u8>) {
        // The root is below itself as ".".
        let name = if path.is_empty() { b".".as_slice() } else { &path };
        // A fifo or a terminal must not make the opening wait.
        let kind = if target == Target::Folder { libc::O_DIRECTORY } else { 0 };
        let open = Open::new(OsStr::from_bytes(name))
            .at(Arc::clone(&self.root))
            .beneath()
            .read_only()
            .flags(libc::O_NONBLOCK | libc::O_NOCTTY | kind);
        let mut chain = Chain::new();
        let opened = chain.open(open);
        let stat = chain.statx(opened);
        chain.keep(opened);
        let version = self.files.version();
        let submitted = self.queue[self.aio].submit(chain, token.to_bits());
        let Some(exchange) = self.exchange(token) else { return };
        exchange.seek = Some(Seek { target, path, version, opened, stat });
        match submitted {
            Ok(operation) => exchange.operation = Some(operation),
            Err(_) => self.send_error(token, Status::ServiceUnavailable),
        }
    }

    /// An operation of a connection is done.
    pub(crate) fn done(&mut self, completion: Completion) {
        let token = Token::from_bits(completion.key);
        // A connection that was closed meanwhile wants nothing of it.
        let Some(exchange) = self.exchange(token) else { return };
        exchange.operation = None;
        match *completion.op {
            Op::Chain(mut chain) => self.opened(token, &mut chain, completion.result.err()),
            Op::Sendfile(transfer) => {
                exchange.sent += transfer.sent().total();
                let whole = transfer.end() == Some(End::Complete);
                self.part_sent(token, whole, completion.result.err());
            }
            _ => {}
        }
    }

    fn opened(&mut self, token: Token, chain: &mut Chain, error: Option<io::Error>) {
        let Some(seek) = self.exchange(token).and_then(|exchange| exchange.seek.take()) else {
            return;
        };
        let found = chain.take_file(seek.opened).zip(chain.stat(seek.stat));
        let status = match (seek.target, found) {
            (Target::Folder, Some((fd, _))) => return self.list(token, Arc::new(fd)),
            (_, Some((fd, stat))) if stat.is_file() => {
                let changes_are_told = self.tells_changes(&seek.path, &fd, &stat);
                let file = Arc::new(self.describe(&seek.path, Arc::new(fd), &stat));
                if changes_are_told {
                    self.files.insert(&seek.path, &file, seek.version);
                }
                return self.send_file(token, file);
            }
            (Target::File, Some((_, stat))) if stat.is_dir() => return self.redirect(token),
            // A device, a fifo, a socket.
            (_, Some(_)) => Status::NotFound,
            (_, None) => status_of(error.as_ref(), &seek.path),
        };
        if seek.target == Target::Index && status == Status::NotFound {
            return self.find(token, Target::Folder);
        }
        self.send_error(token, status);
    }

    fn describe(&self, path: &[u8], fd: Fd, stat: &Stat) -> OpenFile {
        let stamp = Stamp {
            inode: stat.ino,
            size: stat.size,
            modified: split(stat.mtime_ns),
            changed: split(stat.ctime_ns),
        };
        OpenFile {
            fd,
            size: stat.size,
            validators: Validators::new(&stamp, self.clock.time),
            content_type: mime::content_type(Path::new(OsStr::from_bytes(path))).into_owned(),
        }
    }

    /// Whether every change of the file at `path` will be told under that path. The watch tells the
    /// name by which a file was changed: through a symbolic link or another hard link that is not
    /// the name that was asked for.
    fn tells_changes(&self, path: &[u8], file: &OwnedFd, stat: &Stat) -> bool {
        stat.nlink == 1 && self.is_real_path(path, file)
    }

    /// Whether `path` leads to `file` without a symbolic link. Asks for the names that the kernel has
    /// in memory, which waits for no disk.
    fn is_real_path(&self, path: &[u8], file: &OwnedFd) -> bool {
        let name = |fd: BorrowedFd<'_>| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        match (name(self.root.as_fd()), name(file.as_fd())) {
            (Ok(root), Ok(real)) => real == root.join(OsStr::from_bytes(path)),
            _ => false,
        }
    }

    fn list(&mut self, token: Token, folder: Fd) {
        let Some(path) = self.exchange(token).and_then(|exchange| exchange.path()).cloned() else {
            return;
        };
        let reader = Reader { poster: self.poster.clone(), connection: token.to_bits() };
        if !self.lister.list(Job { root: Arc::clone(&self.root), folder, path, reader }) {
            self.send_error(token, Status::ServiceUnavailable);
        }
    }

    /// The folder that a connection asked for was listed.
    pub(crate) fn listed(&mut self, token: Token, page: io::Result<String>) {
        let Some(path) = self.exchange(token).and_then(|exchange| exchange.path()).cloned() else {
            return;
        };
        match page {
            Ok(html) => {
                let Some(context) = self.context(token) else { return };
                let page = response::page(&context, &html);
                self.send(token, Reply::of_bytes(Status::Ok, page));
            }
            Err(error) => {
                let name = path.relative().as_os_str().as_bytes();
                let status = status_of(Some(&error), name);
                self.send_error(token, status);
            }
        }
    }

    fn redirect(&mut self, token: Token) {
        let Some(request) = self.exchange(token).and_then(|exchange| exchange.request.as_ref())
        else {
            return;
        };
        let Ok(path) = &request.path else { return };
        let location = folder_url(path, request.query.as_deref());
        let Some(context) = self.context(token) else { return };
        let head = response::redirect(&context, &location);
        self.send(token, Reply::of_bytes(Status::MovedPermanently, head));
    }

    fn send_error(&mut self, token: Token, status: Status) {
        let Some(context) = self.context(token) else { return };
        let page = response::error_page(&context, status);
        self.send(token, Reply::of_bytes(status, page));
    }

    fn send_file(&mut self, token: Token, file: Arc<OpenFile>) {
        let seed = self.seed();
        let Some(context) = self.context(token) else { return };
        let exchange = self.connections.get(token).and_then(|c| c.exchange.as_ref());
        let Some(request) = exchange.and_then(|exchange| exchange.request.as_ref()) else { return };
        let reply = Reply::to(request, &file, &context, seed);
        if let Some(exchange) = self.exchange(token) {
            exchange.file = Some(file);
        }
        self.send(token, reply);
    }

    fn context(&self, token: Token) -> Option<Context<'_>> {
        let exchange = self.connections.get(token)?.exchange.as_ref()?;
        Some(Context {
            date: &self.clock.date,
            keep_alive: exchange.keep_alive,
            head_only: exchange.is_head(),
        })
    }

    fn send(&mut self, token: Token, reply: Reply) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.state = State::Sending;
        connection.timer.progress = 0;
        if let Some(exchange) = &mut connection.exchange {
            exchange.status = reply.status;
            exchange.parts = reply.parts;
        }
        self.set_deadline(token, now + IDLE);
        self.send_next(token);
    }

    /// Sends the next part; one at a time, so a connection has one operation under way.
    fn send_next(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let socket: Fd = connection.stream.clone();
        let Some(exchange) = &mut connection.exchange else { return };
        let Some(part) = exchange.parts.pop_front() else { return self.sent(token) };
        let transfer = match &exchange.file {
            Some(file) if !part.range.is_empty() => {
                let length = part.range.end - part.range.start;
                Sendfile::new(socket, Arc::clone(&file.fd), part.range.start, length)
                    .header(part.before)
                    .trailer(part.after)
            }
            _ => Sendfile::bytes(socket, part.before),
        };
        match self.queue[self.aio].submit(transfer, token.to_bits()) {
            Ok(operation) => {
                if let Some(exchange) = self.exchange(token) {
                    exchange.operation = Some(operation);
                }
            }
            // Nothing was sent of it, and nothing else can be.
            Err(_) => self.close(token),
        }
    }

    fn part_sent(&mut self, token: Token, whole: bool, error: Option<io::Error>) {
        if whole {
            return self.send_next(token);
        }
        let Some(exchange) = self.exchange(token) else { return };
        let client_left = error.as_ref().is_some_and(is_clients_doing);
        if let (Some(error), false) = (error, client_left) {
            let path = exchange.path().map(|path| path.relative().display().to_string());
            complain(&format!("cannot read {}: {error}", path.unwrap_or_default()));
        }
        if exchange.sent == 0 && exchange.file.take().is_some() && !client_left {
            return self.send_error(token, Status::InternalServerError);
        }
        // The client was promised more than there is: only the end of the connection tells him.
        self.close(token);
    }

    /// A response is out.
    fn sent(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(exchange) = connection.exchange.take() else { return };
        connection.state = State::Reading;
        let peer = connection.peer;
        self.write_line(peer, &exchange);
        if !exchange.keep_alive {
            return self.begin_lingering(token);
        }
        self.set_deadline(token, self.now + IDLE);
        self.read(token);
    }

    /// Ends a request that is not answered, or not to the end.
    pub(crate) fn cut(&mut self, peer: SocketAddr, mut exchange: Exchange) {
        if let Some(operation) = exchange.operation {
            let aio = &mut self.queue[self.aio];
            if let Some(Op::Sendfile(transfer)) = aio.get(operation) {
                exchange.sent += transfer.sent().total();
            }
            aio.cancel(operation);
            aio.abandon(operation);
        }
        self.write_line(peer, &exchange);
    }

    fn write_line(&mut self, peer: SocketAddr, exchange: &Exchange) {
        let Some(log) = &mut self.log else { return };
        log.line(&Line {
            peer,
            now: self.clock.time,
            request: &exchange.line,
            status: exchange.status.code(),
            bytes: exchange.sent,
        });
    }

    fn exchange(&mut self, token: Token) -> Option<&mut Exchange> {
        self.connections.get_mut(token)?.exchange.as_mut()
    }
}

fn path_of(path: &FilePath, target: Target) -> Vec<u8> {
    let mut bytes = path.relative().as_os_str().as_bytes().to_vec();
    if target == Target::Index {
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(INDEX.as_bytes());
    }
    bytes
}

/// What a client is told when a file can't be opened.
fn status_of(error: Option<&io::Error>, path: &[u8]) -> Status {
    match error.and_then(io::Error::raw_os_error) {
        // Also what leads out of the root (EXDEV), and what is no file to be opened (ENXIO).
        Some(
            libc::ENOENT
            | libc::ENOTDIR
            | libc::ENAMETOOLONG
            | libc::EXDEV
            | libc::ELOOP
            | libc::ENXIO
            | libc::ENODEV,
        ) => Status::NotFound,
        Some(libc::EACCES | libc::EPERM) => Status::Forbidden,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Status::ServiceUnavailable,
        _ => {
            let error = error.map_or_else(|| String::from("no result"), io::Error::to_string);
            complain(&format!("{}: {error}", String::from_utf8_lossy(path)));
            Status::InternalServerError
        }
    }
}

/// A client that went away is nobody's trouble.
fn is_clients_doing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
    )
}

/// Nanoseconds since 1970 as seconds and nanoseconds, as the kernel has them.
fn split(ns: i128) -> (i64, u32) {
    const SECOND: i128 = 1_000_000_000;
    let seconds = i64::try_from(ns.div_euclid(SECOND)).unwrap_or(i64::MAX);
    (seconds, ns.rem_euclid(SECOND) as u32)
}
