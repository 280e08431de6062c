//! File systems mounted and unmounted, as events.
//!
//! The kernel says that the table of mounts has changed, and not how: `/proc/…/mountinfo` is read
//! again and compared with what it was.
//!
//! Its poll handler forgets the news as soon as anybody has asked: `POLLPRI` is there once. A loop
//! around the queue asks by merely looking whether the queue is readable, and the queue would find
//! nothing. But the file is always readable, so an edge-triggered entry for that is told at each
//! wake-up, which is what comes with a change, whoever asked before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::poll::{Interest, PollKey, PollSet, Ready, Trigger};
use crate::sink::{Full, Sink};
use crate::source::{Due, Source};
use crate::token::Token;
use crate::unsupported::unsupported;

/// The table of the namespace that the calling thread is in.
const TABLE: &str = "/proc/thread-self/mountinfo";

/// A source of changes in the table of mounted file systems.
///
/// ```
/// use kevent_core::{MountEvent, Mounts, Queue};
///
/// let mut queue = Queue::new()?;
/// let mounts = queue.attach(Mounts::new()?, |event: MountEvent| event)?;
/// for mount in queue[mounts].iter() {
///     println!("{:?} at {}", mount.fs_type, mount.mount_point.display());
/// }
///
/// # if false {
/// queue.wait(None)?;
/// while let Some(event) = queue.next() {
///     match event {
///         MountEvent::Mounted(mount) => println!("new: {}", mount.mount_point.display()),
///         MountEvent::Unmounted(mount) => println!("gone: {}", mount.mount_point.display()),
///         MountEvent::Changed { before, now } => println!("{before:?} is now {now:?}"),
///     }
/// }
/// # }
/// # std::io::Result::Ok(())
/// ```
///
/// What may surprise:
///
/// - It is the table of one mount namespace: that of the thread which makes the source, at that
///   time. A container sees its own mounts, and no paths outside of its root.
/// - What happens between two looks of the queue is told as its outcome: a file system that came
///   and went says nothing. What was unmounted is told first, from the leaves, then what changed,
///   then what is new, from the root.
/// - The kernel uses numbers again. A mount that has taken the place of an equal one (the same
///   number, device, root, type and source) between two looks is told as changed, or not at all
///   where nothing differs.
/// - How mounts propagate (`shared`, `private`) is not told.
///
/// It takes one descriptor. Each change costs reading the whole table.
///
/// Source: `/proc/pid/mountinfo` in proc_pid_mountinfo(5).
#[derive(Debug)]
pub struct Mounts {
    table: File,
    /// As of the last look, by number.
    known: BTreeMap<u32, Arc<Mount>>,
    /// Since that look there was news.
    changed: bool,
    /// What that look found and the ring has not taken yet.
    untold: VecDeque<MountEvent>,
}

/// A mounted file system, as one line of the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// Its number, which may be used again once it is unmounted.
    pub id: u32,
    /// The number of the mount that it is mounted on. That one may be outside of the table.
    pub parent: u32,
    /// Major and minor number of the device: `st_dev` of the files on it.
    pub device: (u32, u32),
    /// The folder within the file system that is mounted; `/` unless it is a bind mount.
    pub root: PathBuf,
    /// Where it is mounted, from the root of the process.
    pub mount_point: PathBuf,
    /// The type of the file system, such as `ext4` or `fuse.sshfs`.
    pub fs_type: OsString,
    /// What is mounted, in the words of the file system: a device, a server, anything.
    pub source: OsString,
    /// Options of this mount, separated by commas.
    pub options: OsString,
    /// Options of the file system, whatever mount it is seen through.
    pub super_options: OsString,
}

impl Mount {
    /// One of no table, for tests: see [`testing::Sim::inject`](crate::testing::Sim::inject).
    #[must_use]
    pub fn for_test(id: u32, mount_point: impl Into<PathBuf>) -> Mount {
        Mount {
            id,
            parent: 0,
            device: (0, 0),
            root: PathBuf::from("/"),
            mount_point: mount_point.into(),
            fs_type: OsString::new(),
            source: OsString::new(),
            options: OsString::new(),
            super_options: OsString::new(),
        }
    }
}

/// The table of mounts has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountEvent {
    /// A file system was mounted.
    Mounted(Arc<Mount>),
    /// A file system was unmounted: this is what was known of it.
    Unmounted(Arc<Mount>),
    /// It was moved, or mounted again with other options.
    Changed {
        /// What it was.
        before: Arc<Mount>,
        /// What it is.
        now: Arc<Mount>,
    },
}

impl Mounts {
    /// A source of changes from now on.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is no `/proc`. When the process may open no more descriptors.
    pub fn new() -> io::Result<Mounts> {
        let table = File::open(TABLE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                unsupported("watching mounts", "the proc file system at /proc: mount it there")
            }
            _ => error,
        })?;
        let known = BTreeMap::new();
        let mut source = Mounts { table, known, changed: false, untold: VecDeque::new() };
        source.look()?;
        source.untold.clear();
        Ok(source)
    }

    /// What is mounted, as of the last look of the queue.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.known.values().map(Arc::as_ref)
    }

    /// Reads the table and keeps what is different.
    fn look(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        self.table.rewind()?;
        self.table.read_to_end(&mut text)?;
        let table = parse(&text)?;
        self.untold.extend(compare(&mut self.known, table));
        Ok(())
    }
}

impl Source for Mounts {
    type Item = MountEvent;

    fn probe() -> io::Result<()> {
        Mounts::new().map(drop)
    }

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        // It is told at once, and so the first turn finds what has changed since the source was
        // made.
        poll_set.add(self.table.as_fd(), PollKey::default(), Interest::READABLE, Trigger::Edge)
    }

    fn ready(&mut self, _: PollKey, _: Ready) {
        self.changed = true;
    }

    fn flush(&mut self) -> io::Result<Due> {
        let silent = self.untold.is_empty() && !self.changed;
        Ok(if silent { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<MountEvent>) -> io::Result<()> {
        loop {
            while let Some(event) = self.untold.pop_front() {
                if let Err(Full(event)) = sink.push(Token::SOLE, event) {
                    self.untold.push_front(event);
                    return Ok(());
                }
            }
            // Not before all is told of the last look, so that what is kept has an end.
            if !std::mem::take(&mut self.changed) {
                return Ok(());
            }
            self.look()?;
        }
    }
}

/// Brings `known` up to `table`, and says what is different.
fn compare(
    known: &mut BTreeMap<u32, Arc<Mount>>,
    table: BTreeMap<u32, Mount>,
) -> impl Iterator<Item = MountEvent> {
    let mut before = std::mem::take(known);
    let (mut unmounted, mut changed, mut mounted) = (Vec::new(), Vec::new(), Vec::new());
    for (id, mount) in table {
        let now = match before.remove(&id) {
            Some(before) if *before == mount => before,
            Some(before) => {
                let (same, now) = (before.identity() == mount.identity(), Arc::new(mount));
                if same {
                    changed.push(MountEvent::Changed { before, now: Arc::clone(&now) });
                } else {
                    unmounted.push(before);
                    mounted.push(Arc::clone(&now));
                }
                now
            }
            None => {
                let now = Arc::new(mount);
                mounted.push(Arc::clone(&now));
                now
            }
        };
        known.insert(id, now);
    }
    unmounted.extend(before.into_values());
    sort_from_the_root(&mut unmounted);
    sort_from_the_root(&mut mounted);
    let unmounted = unmounted.into_iter().rev().map(MountEvent::Unmounted);
    unmounted.chain(changed).chain(mounted.into_iter().map(MountEvent::Mounted))
}

/// Puts each mount after that which it is mounted on.
fn sort_from_the_root(mounts: &mut [Arc<Mount>]) {
    let parents: HashMap<u32, u32> = mounts.iter().map(|mount| (mount.id, mount.parent)).collect();
    mounts.sort_by_cached_key(|mount| {
        let up = |id: &u32| parents.get(id).copied();
        // No more steps than mounts, should two ever be mounted on each other.
        std::iter::successors(Some(mount.id), up).take(parents.len()).count()
    });
}

impl Mount {
    /// What stays as it is for as long as it is mounted.
    fn identity(&self) -> (u32, (u32, u32), &Path, &OsStr, &OsStr) {
        (self.id, self.device, &self.root, &self.fs_type, &self.source)
    }

    /// One line, without its end.
    fn parse(line: &[u8]) -> Option<Mount> {
        // What is in doubt is escaped, so a space always separates.
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let root = PathBuf::from(unescape(fields.next()?));
        let mount_point = PathBuf::from(unescape(fields.next()?));
        let options = unescape(fields.next()?);
        // So many fields for propagation as there are.
        fields.by_ref().find(|field| *field == b"-")?;
        let fs_type = unescape(fields.next()?);
        let source = unescape(fields.next()?);
        let super_options = unescape(fields.next()?);
        Some(Mount {
            id,
            parent,
            device,
            root,
            mount_point,
            fs_type,
            source,
            options,
            super_options,
        })
    }
}

/// The whole table, by number.
fn parse(text: &[u8]) -> io::Result<BTreeMap<u32, Mount>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mount = Mount::parse(line).ok_or_else(|| {
                let text =
                    format!("{TABLE} has a line that is none: {:?}", OsStr::from_bytes(line));
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            Ok((mount.id, mount))
        })
        .collect()
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Space, tab, newline, backslash and `#` come as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.first_chunk::<3>().filter(|_| *first == b'\\').and_then(octal);
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &[u8] =
        b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";

    #[test]
    fn line_of_the_manual_is_understood() {
        let mount = Mount::parse(LINE).unwrap();
        assert_eq!((mount.id, mount.parent, mount.device), (36, 35, (98, 0)));
        assert_eq!(mount.root, PathBuf::from("/mnt1"));
        assert_eq!(mount.mount_point, PathBuf::from("/mnt 2"));
        assert_eq!(mount.options, "rw,noatime");
        assert_eq!((mount.fs_type, mount.source), ("ext3".into(), "/dev/root".into()));
        assert_eq!(mount.super_options, "rw,errors=continue");
    }

    #[test]
    fn source_may_be_empty_and_propagation_absent() {
        let mount = Mount::parse(b"1 1 0:2 / / rw - tmpfs  rw").unwrap();
        assert_eq!((mount.source, mount.super_options), ("".into(), "rw".into()));
    }

    fn mount(id: u32, parent: u32, point: &str) -> Mount {
        let (mount_point, root) = (PathBuf::from(point), PathBuf::from("/"));
        let [fs_type, source, options, super_options] =
            ["tmpfs", "none", "rw", "rw"].map(OsString::from);
        let device = (0, id + 100);
        Mount { id, parent, device, root, mount_point, fs_type, source, options, super_options }
    }

    fn table(mounts: &[Mount]) -> BTreeMap<u32, Mount> {
        mounts.iter().map(|mount| (mount.id, mount.clone())).collect()
    }

    fn story(known: &mut BTreeMap<u32, Arc<Mount>>, mounts: &[Mount]) -> Vec<String> {
        compare(known, table(mounts))
            .map(|event| match event {
                MountEvent::Mounted(mount) => format!("+{}", mount.id),
                MountEvent::Unmounted(mount) => format!("-{}", mount.id),
                MountEvent::Changed { now, .. } => format!("={}", now.id),
            })
            .collect()
    }

    #[test]
    fn tree_is_told_from_the_root_and_unmounted_from_the_leaves() {
        let mut known = BTreeMap::new();
        let tree = [mount(9, 1, "/a"), mount(5, 9, "/a/b"), mount(7, 5, "/a/b/c")];
        assert_eq!(story(&mut known, &tree), ["+9", "+5", "+7"]);
        assert_eq!(story(&mut known, &tree), [""; 0]);
        assert_eq!(story(&mut known, &[]), ["-7", "-5", "-9"]);
    }

    #[test]
    fn number_that_is_used_again_is_another_mount_and_one_that_moved_is_the_same() {
        let mut known = BTreeMap::new();
        story(&mut known, &[mount(1, 1, "/"), mount(2, 1, "/a")]);
        let moved = Mount { mount_point: "/b".into(), ..mount(2, 1, "/a") };
        assert_eq!(story(&mut known, &[mount(1, 1, "/"), moved]), ["=2"]);
        let other = Mount { device: (0, 7), ..mount(2, 1, "/b") };
        assert_eq!(story(&mut known, &[mount(1, 1, "/"), other]), ["-2", "+2"]);
    }

    proptest! {
        #[test]
        fn names_of_any_bytes_survive(name in prop::collection::vec(1_u8..=255, 0..40)) {
            let mut escaped = Vec::new();
            for byte in &name {
                match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                        escaped.extend(format!("\\{byte:03o}").bytes());
                    }
                    byte => escaped.push(*byte),
                }
            }
            prop_assert_eq!(unescape(&escaped), OsString::from_vec(name));
        }

        /// Whatever the text: an answer, and no panic.
        #[test]
        fn any_text_is_a_table_or_none(
            text in prop::collection::vec(any::<u8>(), 0..200),
            cut in 0..LINE.len(),
        ) {
            let _ = parse(&text);
            let complete = LINE.len() - "rw,errors=continue".len();
            prop_assert_eq!(parse(&LINE[..cut]).is_err(), (1..complete).contains(&cut));
        }

        /// What was told, applied to what was known, is what there is.
        #[test]
        fn story_leads_from_table_to_table(
            tables in prop::collection::vec(
                prop::collection::btree_map(0_u32..12, (0_u32..12, 0_u32..3), 0..12),
                1..6,
            ),
        ) {
            let mut known = BTreeMap::new();
            let mut told: BTreeMap<u32, Arc<Mount>> = BTreeMap::new();
            for lines in tables {
                let line = |(id, (parent, kind))| {
                    (id, Mount { device: (0, kind), ..mount(id, parent, "/") })
                };
                let now: BTreeMap<_, _> = lines.into_iter().map(line).collect();
                for event in compare(&mut known, now.clone()) {
                    match event {
                        MountEvent::Mounted(mount) => {
                            prop_assert!(told.insert(mount.id, mount).is_none());
                        }
                        MountEvent::Unmounted(mount) => {
                            prop_assert_eq!(told.remove(&mount.id), Some(mount));
                        }
                        MountEvent::Changed { before, now } => {
                            prop_assert_eq!(told.insert(now.id, now), Some(before));
                        }
                    }
                }
                prop_assert_eq!(&told, &known);
                prop_assert!(told.values().map(|mount| (**mount).clone()).eq(now.into_values()));
            }
        }
    }
}
