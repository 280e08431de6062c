//! A copy of a tree, with the content of its files, that is kept from the changes alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kevent_fs::{Change, ChangeKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    Dir,
    File(Vec<u8>),
    /// It was told to have changed: to be read again when all is quiet.
    Stale,
}

pub(crate) type Mirror = BTreeMap<PathBuf, Copy>;

/// A file is empty when it is created, and has the content that it had until it is told to be
/// modified, wherever it is moved to.
pub(crate) fn apply(mirror: &mut Mirror, change: &Change) {
    let path = &change.path;
    match &change.kind {
        ChangeKind::Created => {
            let copy = if change.is_dir { Copy::Dir } else { Copy::File(Vec::new()) };
            let before = mirror.insert(path.clone(), copy);
            assert_eq!(before, None, "created what is known: {change:?}");
        }
        ChangeKind::Removed => {
            assert!(mirror.contains_key(path), "removed what is not known: {change:?}");
            mirror.retain(|known, _| !known.starts_with(path));
        }
        ChangeKind::Moved { from } => {
            assert!(mirror.contains_key(from), "moved what is not known: {change:?}");
            mirror.retain(|known, _| !known.starts_with(path));
            let moved = |known: PathBuf| match known.strip_prefix(from) {
                Ok(rest) => path.join(rest).components().collect(),
                Err(_) => known,
            };
            let before = std::mem::take(mirror);
            *mirror = before.into_iter().map(|(known, copy)| (moved(known), copy)).collect();
        }
        ChangeKind::Modified | ChangeKind::Written => {
            let copy = mirror.get_mut(path);
            assert!(copy.is_some(), "modified what is not known: {change:?}");
            copy.into_iter()
                .filter(|copy| **copy != Copy::Dir)
                .for_each(|copy| *copy = Copy::Stale);
        }
        _ => {}
    }
}

/// All is quiet: what was told to have changed is read again, and then all is as on the disk.
pub(crate) fn is_as_on_disk(mirror: &mut Mirror, root: &Path) {
    let mut disk = Mirror::new();
    walk(root, &mut disk);
    for (path, copy) in mirror.iter_mut().filter(|(_, copy)| **copy == Copy::Stale) {
        disk.get(path).into_iter().for_each(|now| *copy = now.clone());
    }
    assert_eq!(*mirror, disk);
}

fn walk(dir: &Path, disk: &mut Mirror) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            walk(&path, disk);
            disk.insert(path, Copy::Dir);
        } else {
            let content = fs::read(&path).unwrap();
            disk.insert(path, Copy::File(content));
        }
    }
}
