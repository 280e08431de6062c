//! What only one thread does for all: it hears signals, watches the folder, and tells the others.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kevent_core::{PostError, Poster, Signal, SignalEvent};
use kevent_fs::{Change, ChangeKind};

use crate::log::Log;
use crate::message::{Invalid, Message, insist};
use crate::options::LogTarget;
use crate::stderr::complain;
use crate::untold::Untold;

/// The signals that the server answers.
pub const SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// How to reach a thread.
#[derive(Clone, Debug)]
pub struct Peer {
    pub poster: Poster<Message>,
    /// Set when a change could not be posted because the thread is far behind: it then forgets all.
    pub overrun: Arc<AtomicBool>,
}

/// Tells every thread, its own included, what signals and changes mean.
pub struct Control {
    threads: Vec<Peer>,
    root: PathBuf,
    log: Option<LogTarget>,
    untold: Untold,
    stopping: bool,
}

impl Control {
    /// A control that speaks to `threads`.
    pub fn new(threads: Vec<Peer>, root: PathBuf, log: Option<LogTarget>) -> Control {
        Control { threads, root, log, untold: Untold::default(), stopping: false }
    }

    /// How many threads it speaks to.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Does what a signal asks for.
    pub fn signal(&mut self, event: &SignalEvent) {
        if event.signal == Signal::HUP {
            self.reopen_log();
        } else if self.stopping {
            // The user insists.
            std::process::exit(1);
        } else {
            self.stopping = true;
            self.tell(|| Message::Stop);
        }
    }

    /// A log that can't be opened anew goes on where it is.
    fn reopen_log(&self) {
        // Only what has a name can be something else by now.
        let Some(target @ LogTarget::File(path)) = &self.log else { return };
        match Log::open(target) {
            Ok(file) => self.tell(|| Message::Reopen(file.clone())),
            Err(error) => complain(&format!("the log stays as it is: {}: {error}", path.display())),
        }
    }

    /// Has every thread forget what a change below the root made untrue.
    pub fn changed(&mut self, change: &Change) {
        let path = self.below_root(&change.path);
        match &change.kind {
            ChangeKind::Moved { from } => {
                self.forget(self.below_root(from), change.is_dir);
                self.forget(path, change.is_dir);
            }
            ChangeKind::NotCovered { reason } => {
                let folder = change.path.display();
                self.untold(&path, &format!("{folder} is not watched: {reason}"));
            }
            ChangeKind::RootGone => self.untold(b"", "ROOT is gone or has another name"),
            ChangeKind::Overflow => self.tell(|| Message::Invalid(Invalid::Tree(Vec::new()))),
            _ => self.forget(path, change.is_dir),
        }
    }

    /// Changes below `path` are not told. Said once, and no more when the root stands for many.
    fn untold(&mut self, path: &[u8], why: &str) {
        let Some(folder) = self.untold.add(path) else { return };
        let what = if folder.is_empty() { "All files are" } else { "Its files are" };
        complain(&format!("{why}. {what} opened anew each time"));
        self.tell(|| Message::Invalid(Invalid::Untold(folder.to_vec())));
    }

    fn forget(&self, path: Vec<u8>, is_dir: bool) {
        self.tell(|| {
            let path = path.clone();
            Message::Invalid(if is_dir { Invalid::Tree(path) } else { Invalid::File(path) })
        });
    }

    fn below_root(&self, path: &Path) -> Vec<u8> {
        path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_bytes().to_vec()
    }

    fn tell(&self, message: impl Fn() -> Message) {
        for peer in &self.threads {
            match peer.poster.post(message()) {
                Ok(()) => {}
                Err(PostError::Full(Message::Invalid(Invalid::File(_) | Invalid::Tree(_)))) => {
                    peer.overrun.store(true, Ordering::Release);
                    // It may have emptied its mailbox and looked for the mark just before that.
                    // This wakes it then; and if the mailbox is full still, it has yet to look.
                    let _ = peer.poster.post(message());
                }
                // A thread empties its mailbox in one go, so this ends with its next turn. Its own
                // mailbox this thread can't fill: a turn posts less than that holds.
                Err(PostError::Full(message)) => insist(&peer.poster, message),
                Err(_) => {}
            }
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}
