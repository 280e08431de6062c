//! One registration of a file system: the part of it that is told, and what a report says of it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use kevent_core::Token;

use crate::change::{Change, ChangeKind, Kinds};
use crate::directories::Directories;
use crate::report::{Place, Report};
use crate::snapshot::{self, Directory};
use crate::sys::fanotify::Handle;

/// What says that a name is new.
const APPEARED: u64 = libc::FAN_CREATE | libc::FAN_MOVED_TO;

/// What says that a name is gone.
const VANISHED: u64 = libc::FAN_DELETE | libc::FAN_MOVED_FROM;

/// Renames that are remembered to recognise an exchange (`RENAME_EXCHANGE`).
const MEMORY: usize = 16;

pub(crate) struct Subtree {
    pub(crate) key: u64,
    /// The file system that it is on.
    pub(crate) volume: u64,
    pub(crate) directories: Directories,
    /// Where the last renames led from and to, and what they moved.
    renames: VecDeque<(PathBuf, PathBuf, Handle)>,
    /// Changes that were told and not handed to the user yet.
    pub(crate) undelivered: usize,
    /// The root is gone. The registration stands until the user was handed that.
    pub(crate) ended: bool,
}

/// Where changes are told.
pub(crate) struct Teller<'a> {
    pub(crate) token: Token,
    pub(crate) kinds: Kinds,
    pub(crate) told: &'a mut VecDeque<Change>,
}

impl Subtree {
    pub(crate) fn new(key: u64, volume: u64, directories: Directories) -> Subtree {
        let renames = VecDeque::new();
        Subtree { key, volume, directories, renames, undelivered: 0, ended: false }
    }

    pub(crate) fn reported(&mut self, report: &Report<'_>, teller: &mut Teller<'_>) {
        match (report.from, report.to, report.place) {
            (Some(from), Some(to), _) => self.renamed(from, to, report, teller),
            (_, _, Some(place)) => self.happened(place, report, teller),
            // Something without a name: a file that is open, and removed.
            _ => {}
        }
        let gone = report.is(VANISHED | libc::FAN_RENAME) && report.is(libc::FAN_ONDIR);
        if gone && self.is_root(report.from.or(report.place)) && !self.directories.leads_home() {
            self.end(teller);
        }
    }

    /// Changes were lost, and it is not known which.
    pub(crate) fn overflowed(&mut self, teller: &mut Teller<'_>) {
        self.directories.forget_all();
        self.renames.clear();
        let root = self.directories.base().to_owned();
        self.tell(root, ChangeKind::Overflow, true, teller);
        if !self.directories.leads_home() {
            self.end(teller);
        }
    }

    /// Several things may have happened to one name before the report was read. They are told in the
    /// order that leads to what is there now.
    fn happened(&mut self, place: Place<'_>, report: &Report<'_>, teller: &mut Teller<'_>) {
        let Some(path) = self.directories.path_of(place.directory, place.name) else { return };
        let (is_dir, appeared) = (report.is(libc::FAN_ONDIR), report.is(APPEARED));
        let stands =
            !report.is(VANISHED) || appeared && self.directories.stands(&path, report.target);
        if appeared {
            // Without a target two things of one name are taken for one.
            if report.is(VANISHED) && stands && report.target.is_none() {
                self.tell(path.clone(), ChangeKind::Removed, is_dir, teller);
            }
            self.tell(path.clone(), ChangeKind::Created, is_dir, teller);
        }
        for (bit, kind) in [
            (libc::FAN_ATTRIB, ChangeKind::Attributes),
            (libc::FAN_MODIFY, ChangeKind::Modified),
            (libc::FAN_CLOSE_WRITE, ChangeKind::Written),
        ] {
            if report.is(bit) {
                self.tell(path.clone(), kind, is_dir, teller);
            }
        }
        if appeared && stands {
            self.stands_now(place, report, &path, teller);
        }
        if !stands {
            self.tell(path, ChangeKind::Removed, is_dir, teller);
        }
        match report.target {
            Some(target) if is_dir && !stands => self.directories.remove(target),
            None if is_dir && report.is(VANISHED) => self.directories.forget_all(),
            _ => {}
        }
    }

    /// A name is new, and what has it is there.
    fn stands_now(
        &mut self,
        place: Place<'_>,
        report: &Report<'_>,
        path: &Path,
        teller: &mut Teller<'_>,
    ) {
        let is_dir = report.is(libc::FAN_ONDIR);
        if let (Some(target), true) = (report.target, is_dir) {
            self.directories.put(target, place.directory, place.name);
        }
        if report.is(libc::FAN_MOVED_TO) {
            self.arrived(path.to_owned(), is_dir, teller);
        }
    }

    fn renamed(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        report: &Report<'_>,
        teller: &mut Teller<'_>,
    ) {
        let is_dir = report.is(libc::FAN_ONDIR);
        let old = self.directories.path_of(from.directory, from.name);
        let new = self.directories.path_of(to.directory, to.name);
        match (report.target, is_dir) {
            (Some(target), true) if new.is_some() => {
                self.directories.put(target, to.directory, to.name);
            }
            (Some(target), true) => self.directories.remove(target),
            (None, true) => self.directories.forget_all(),
            (_, false) => {}
        }
        match (old, new) {
            (Some(old), Some(new)) if self.is_exchange(&old, &new, report.target) => {
                // Told as a rename, it would take away what the first half has brought to `old`.
                self.tell(new.clone(), ChangeKind::Created, is_dir, teller);
                self.arrived(new, is_dir, teller);
            }
            (Some(old), Some(new)) => {
                self.tell(new, ChangeKind::Moved { from: old }, is_dir, teller);
            }
            (Some(old), None) => self.tell(old, ChangeKind::Removed, is_dir, teller),
            (None, Some(new)) => {
                self.directories.forget_outside();
                self.tell(new.clone(), ChangeKind::Created, is_dir, teller);
                self.arrived(new, is_dir, teller);
            }
            (None, None) => {}
        }
    }

    /// The kernel tells an exchange as two renames, one there and one back, of two things.
    fn is_exchange(&mut self, from: &Path, to: &Path, target: Option<&[u8]>) -> bool {
        let Some(target) = target else { return false };
        let exchange = self.renames.iter().any(|(earlier_from, earlier_to, moved)| {
            earlier_from == to && earlier_to == from && **moved != *target
        });
        if self.renames.len() >= MEMORY {
            self.renames.pop_front();
        }
        self.renames.push_back((from.to_owned(), to.to_owned(), target.into()));
        exchange
    }

    /// Something came that was elsewhere before: its content is new, and what a directory holds.
    fn arrived(&mut self, path: PathBuf, is_dir: bool, teller: &mut Teller<'_>) {
        if !is_dir {
            return self.tell(path, ChangeKind::Modified, false, teller);
        }
        let mut todo = vec![path];
        while let Some(path) = todo.pop() {
            // What is gone again is reported.
            let Ok(directory) = Directory::open(&path, false) else { continue };
            for (name, found) in directory.list().unwrap_or_default() {
                let path = path.join(&name);
                self.tell(path.clone(), ChangeKind::Created, found.is_dir(), teller);
                if found.is_dir() {
                    todo.push(path);
                } else if has_content(&directory, &name) {
                    self.tell(path, ChangeKind::Modified, false, teller);
                }
            }
        }
    }

    /// Whether the root may be meant: it has that name, in a directory that is not below it.
    fn is_root(&mut self, place: Option<Place<'_>>) -> bool {
        place.is_some_and(|place| {
            self.directories.base().file_name().is_none_or(|name| name == place.name)
                && self.directories.path_of(place.directory, place.name).is_none()
        })
    }

    fn end(&mut self, teller: &mut Teller<'_>) {
        let root = self.directories.base().to_owned();
        self.tell(root, ChangeKind::RootGone, true, teller);
        self.ended = true;
        self.directories.forget_all();
    }

    fn tell(&mut self, path: PathBuf, kind: ChangeKind, is_dir: bool, teller: &mut Teller<'_>) {
        if teller.kinds.want(&kind) && !self.ended {
            let (token, key) = (teller.token, self.key);
            teller.told.push_back(Change { token, key, path, kind, is_dir });
            self.undelivered += 1;
        }
    }
}

fn has_content(directory: &Directory, name: &OsStr) -> bool {
    let stat: io::Result<_> = directory.look(name);
    stat.is_ok_and(|stat| stat.is_some_and(|stat| snapshot::has_content(&stat)))
}
