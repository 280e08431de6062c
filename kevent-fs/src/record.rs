//! Changes as plain records.

use std::os::unix::ffi::OsStrExt;

use kevent_core::Record;

use crate::change::{Change, ChangeKind};

impl From<Change> for Record {
    /// `key` is the user's number and `data` the [hash](Record::hash) of the path, which does not fit in.
    ///
    /// `code`: 1 created, 2 removed, 3 moved, 4 modified, 5 written, 6 attributes, 7 overflow, 8 resynced,
    /// 9 not covered, 10 root gone. `flags`: 1 for a directory.
    fn from(change: Change) -> Record {
        let code = match change.kind {
            ChangeKind::Created => 1,
            ChangeKind::Removed => 2,
            ChangeKind::Moved { .. } => 3,
            ChangeKind::Modified => 4,
            ChangeKind::Written => 5,
            ChangeKind::Attributes => 6,
            ChangeKind::Overflow => 7,
            ChangeKind::Resynced => 8,
            ChangeKind::NotCovered { .. } => 9,
            ChangeKind::RootGone => 10,
        };
        let path = Record::hash(change.path.as_os_str().as_bytes());
        let flags = u16::from(change.is_dir);
        Record { code, flags, ..Record::own(Record::CHANGE, change.key, path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_tells_what_happened_and_the_path_by_its_hash() {
        let change = Change::for_test(7, "a/b", ChangeKind::Written);
        let expected = Record::own(Record::CHANGE, 7, Record::hash(b"a/b"));
        assert_eq!(Record::from(change.clone()), Record { code: 5, ..expected });
        let directory = Change { is_dir: true, kind: ChangeKind::Created, ..change };
        assert_eq!(Record::from(directory), Record { code: 1, flags: 1, ..expected });
    }
}
