//! Files of a watched folder: that each was created, and removed, is told once.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kevent_core::{Queue, SourceId, Token};
use kevent_fs::{Change, ChangeKind, Watcher};
use tempfile::TempDir;

use crate::dice::Dice;
use crate::ledger::{AskedAt, Removals, RemovedAt, Tally};
use crate::loads::Event;

pub(crate) struct FileLoad {
    id: SourceId<Watcher>,
    dir: TempDir,
    watched: Option<Token>,
    files: Vec<Option<(PathBuf, State)>>,
    made: u64,
    removed: HashMap<Token, RemovedAt>,
    pub(crate) tally: Tally,
}

/// What was told of a file, and what is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Created,
    Standing,
    Removed,
}

impl FileLoad {
    pub(crate) fn new(queue: &mut Queue<Event>) -> FileLoad {
        let watcher = Watcher::new().expect("a watcher");
        let id = queue.attach(watcher, Event::File).expect("a watcher attaches");
        let dir = tempfile::tempdir().expect("a folder of our own");
        let (files, removed) = ((0..32).map(|_| None).collect(), HashMap::new());
        FileLoad { id, dir, watched: None, files, made: 0, removed, tally: Tally::default() }
    }

    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, dice: &mut Dice, removals: &Removals) {
        let source = &mut queue[self.id];
        let Some(token) = self.watched else {
            self.watched = Some(source.watch(self.dir.path(), 0).expect("a watch"));
            return;
        };
        if dice.once_in(500) {
            assert!(source.unwatch(token));
            self.removed.insert(token, removals.removed());
            self.watched = None;
            self.tally.taken_back += self.tally.outstanding();
            for (path, _) in self.files.iter_mut().filter_map(Option::take) {
                let _ = fs::remove_file(path);
            }
            return;
        }
        let place = dice.below(self.files.len());
        match &mut self.files[place] {
            None => {
                self.made += 1;
                let path = self.dir.path().join(format!("{place}-{}", self.made));
                File::create(&path).expect("a new file");
                self.files[place] = Some((path, State::Created));
                self.tally.provoked += 1;
            }
            Some((path, state @ State::Standing)) => {
                fs::remove_file(path).expect("the file is there");
                *state = State::Removed;
                self.tally.provoked += 1;
            }
            Some(_) => {}
        }
    }

    pub(crate) fn told(&mut self, change: &Change, asked: AskedAt) {
        if let Some(at) = self.removed.get(&change.token) {
            assert!(at.permits(asked), "{change:?} came after its folder was unwatched");
            return;
        }
        let (expected, then) = match change.kind {
            ChangeKind::Created => (State::Created, Some(State::Standing)),
            ChangeKind::Removed => (State::Removed, None),
            ChangeKind::Overflow => panic!("{} changes are too many", self.tally.outstanding()),
            _ => return,
        };
        let file = &mut self.files[place_of(&change.path)];
        assert_eq!(*file, Some((change.path.clone(), expected)), "{change:?} came twice");
        *file = then.map(|state| (change.path.clone(), state));
        self.tally.told += 1;
    }
}

fn place_of(path: &Path) -> usize {
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name that was given here");
    let (place, _) = name.split_once('-').expect("a name that was given here");
    place.parse().expect("a number")
}
