//! Folders whose changes nobody tells, because they are not watched.

/// Paths below the root. None of them is below another, and there are never many.
#[derive(Debug, Default)]
pub struct Untold(Vec<Box<[u8]>>);

/// With more folders than this, it is the root whose changes are not told.
const FOLDERS_MAX: usize = 64;

impl Untold {
    /// Adds the folder at `path`. What is untold now and was told before: that folder, or the root
    /// when there are too many of them; nothing when it was below one of them.
    pub fn add<'a>(&mut self, path: &'a [u8]) -> Option<&'a [u8]> {
        if self.has(path) {
            return None;
        }
        self.0.retain(|folder| !is_below(folder, path));
        if self.0.len() >= FOLDERS_MAX {
            return self.add(b"");
        }
        self.0.push(path.into());
        Some(path)
    }

    /// Whether changes at `path` are not told.
    pub fn has(&self, path: &[u8]) -> bool {
        self.0.iter().any(|folder| is_below(path, folder))
    }
}

/// Whether `path` is `folder`, or below it. The root is the empty path, and above everything.
pub fn is_below(path: &[u8], folder: &[u8]) -> bool {
    let rest = path.strip_prefix(folder);
    folder.is_empty() || rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_has_what_is_below_it_and_nothing_else() {
        let mut untold = Untold::default();
        assert_eq!(untold.add(b"a"), Some(b"a".as_slice()));
        for (path, is_untold) in [("a", true), ("a/b/c", true), ("ab", false), ("b/a", false)] {
            assert_eq!(untold.has(path.as_bytes()), is_untold, "{path}");
        }
    }

    #[test]
    fn folder_stands_for_those_below_it() {
        let mut untold = Untold::default();
        for path in ["a/b", "a/c", "a"] {
            assert_eq!(untold.add(path.as_bytes()), Some(path.as_bytes()));
        }
        assert_eq!(untold.add(b"a/d"), None);
        assert_eq!(untold.add(b"a"), None);
        assert_eq!(untold.0.len(), 1);
    }

    #[test]
    fn root_stands_for_too_many() {
        let mut untold = Untold::default();
        let added =
            |untold: &mut Untold, n| untold.add(format!("a/{n}").as_bytes()).map(<[u8]>::len);
        for n in 0..FOLDERS_MAX {
            assert!(added(&mut untold, n).is_some_and(|length| length > 0));
        }
        assert!(!untold.has(b"elsewhere"));
        assert_eq!(added(&mut untold, FOLDERS_MAX), Some(0));
        assert_eq!(added(&mut untold, FOLDERS_MAX + 1), None);
        assert!(untold.has(b"elsewhere"));
        assert_eq!(untold.0.len(), 1);
    }
}
