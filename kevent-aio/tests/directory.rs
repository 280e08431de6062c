//! What is done to names, on every backend and on real file systems: the same as std does, and the same
//! errors.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{
    DirEntryExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::files::{errno, file_systems, open_dir, refused, two_file_systems};
use common::{Bench, all, honest};
use kevent_aio::{FileKind, Link, Mkdir, Op, ReadDir, Rename, Symlink, Unlink};
use proptest::prelude::*;

/// All that can be seen of what is below a directory, by path.
fn snapshot(root: &Path) -> Vec<(PathBuf, u32, u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if meta.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if meta.is_dir() {
                directories.push(path.clone());
            }
            let relative = path.strip_prefix(root).unwrap().to_owned();
            found.push((relative, meta.mode(), meta.nlink(), content));
        }
    }
    found.sort();
    found
}

#[test]
fn names_change_as_std_changes_them() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let (ours, theirs) = (temporary.path().join("ours"), temporary.path().join("theirs"));
            for root in [&ours, &theirs] {
                fs::create_dir(root).unwrap();
                fs::write(root.join("file"), "content").unwrap();
                fs::write(root.join("old"), "replaced").unwrap();
                fs::create_dir(root.join("empty")).unwrap();
                fs::write(root.join("doomed"), "gone").unwrap();
            }
            let root = open_dir(&ours);
            let mut done = |op: &dyn Fn() -> Op| {
                bench.insist(op).result.expect(name);
            };
            done(&|| Mkdir::new("made").at(root.clone()).into());
            done(&|| Mkdir::new("made/deeper").at(root.clone()).mode(0o700).into());
            done(&|| Rename::new("file", "old").at(root.clone()).into());
            done(&|| Link::new("old", "made/too").at(root.clone()).into());
            done(&|| Symlink::new("../old", "made/link").at(root.clone()).into());
            done(&|| Link::new(ours.join("made/link"), ours.join("same link")).into());
            done(&|| Unlink::new("doomed").at(root.clone()).into());
            done(&|| Unlink::new("empty").at(root.clone()).dir().into());

            fs::create_dir(theirs.join("made")).unwrap();
            fs::create_dir(theirs.join("made/deeper")).unwrap();
            let mode = Permissions::from_mode(0o700);
            fs::set_permissions(theirs.join("made/deeper"), mode).unwrap();
            fs::rename(theirs.join("file"), theirs.join("old")).unwrap();
            fs::hard_link(theirs.join("old"), theirs.join("made/too")).unwrap();
            symlink("../old", theirs.join("made/link")).unwrap();
            fs::hard_link(theirs.join("made/link"), theirs.join("same link")).unwrap();
            fs::remove_file(theirs.join("doomed")).unwrap();
            fs::remove_dir(theirs.join("empty")).unwrap();
            assert_eq!(snapshot(&ours), snapshot(&theirs), "{name}");
        }
        // Whoever did it, nobody had to do it instead: what the ring was told is what was meant.
        assert_eq!(bench.aio().report().counters.fallbacks, 0, "{name}");
    }
}

/// A directory with something for every error.
fn traps(root: &Path) {
    fs::write(root.join("file"), "").unwrap();
    fs::write(root.join("other"), "").unwrap();
    fs::create_dir_all(root.join("full/inside")).unwrap();
    fs::create_dir_all(root.join("second/inside")).unwrap();
    symlink("round", root.join("round")).unwrap();
}

/// An operation, what std says of the same, and the error that both are to give.
type Case = (Box<dyn Fn() -> Op>, io::Result<()>, i32);

fn at_one_path(
    op: fn(&Path) -> Op,
    std: fn(&Path) -> io::Result<()>,
) -> impl Fn(PathBuf, i32) -> Case {
    move |path, errno| {
        let result = std(&path);
        (Box::new(move || op(&path)), result, errno)
    }
}

fn at_two_paths(
    op: fn(&Path, &Path) -> Op,
    std: fn(&Path, &Path) -> io::Result<()>,
) -> impl Fn(PathBuf, PathBuf, i32) -> Case {
    move |from, to, errno| {
        let result = std(&from, &to);
        (Box::new(move || op(&from, &to)), result, errno)
    }
}

fn cases(root: &Path) -> Vec<Case> {
    let at = |path: &str| root.join(path);
    let mkdir = at_one_path(|path| Mkdir::new(path).into(), |path| fs::create_dir(path));
    let unlink = at_one_path(|path| Unlink::new(path).into(), |path| fs::remove_file(path));
    let rmdir = at_one_path(|path| Unlink::new(path).dir().into(), |path| fs::remove_dir(path));
    let soft = at_one_path(|path| Symlink::new("any", path).into(), |path| symlink("any", path));
    let rename = at_two_paths(|a, b| Rename::new(a, b).into(), |a, b| fs::rename(a, b));
    let link = at_two_paths(|a, b| Link::new(a, b).into(), |a, b| fs::hard_link(a, b));
    vec![
        mkdir(at("full"), libc::EEXIST),
        mkdir(at("none/new"), libc::ENOENT),
        mkdir(at("file/new"), libc::ENOTDIR),
        mkdir(at("round/new"), libc::ELOOP),
        mkdir(at(&"x".repeat(256)), libc::ENAMETOOLONG),
        unlink(at("none"), libc::ENOENT),
        unlink(at("full"), libc::EISDIR),
        rmdir(at("full"), libc::ENOTEMPTY),
        rmdir(at("file"), libc::ENOTDIR),
        soft(at("file"), libc::EEXIST),
        soft(at("file/new"), libc::ENOTDIR),
        rename(at("none"), at("new"), libc::ENOENT),
        rename(at("file"), at("full"), libc::EISDIR),
        rename(at("full"), at("file"), libc::ENOTDIR),
        rename(at("full"), at("second"), libc::ENOTEMPTY),
        rename(at("full"), at("full/inside/new"), libc::EINVAL),
        link(at("file"), at("other"), libc::EEXIST),
        link(at("full"), at("new"), libc::EPERM),
        link(at("none"), at("new"), libc::ENOENT),
    ]
}

#[test]
fn errors_are_those_of_std() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            traps(temporary.path());
            let before = snapshot(temporary.path());
            for (make, std, expected) in cases(temporary.path()) {
                let completion = bench.insist(&make);
                let what = format!("{name}: {:?}", completion.op);
                assert_eq!(errno(completion.result), Some(expected), "{what}");
                assert_eq!(errno(std), Some(expected), "{what}");
            }
            assert_eq!(snapshot(temporary.path()), before, "{name}: nothing has happened");
        }
    }
}

#[test]
fn other_file_systems_are_out_of_reach() {
    let Some([disk, memory]) = two_file_systems() else { return };
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        fs::write(disk.path().join("file"), "").unwrap();
        let [here, there] = [open_dir(&disk), open_dir(&memory)];
        let rename = Rename::new("file", "file").from_at(here.clone()).to_at(there.clone());
        let link = Link::new("file", "file").from_at(here).to_at(there);
        assert_eq!(errno(bench.complete(rename).result), Some(libc::EXDEV), "{name}");
        assert_eq!(errno(bench.complete(link).result), Some(libc::EXDEV), "{name}");
    }
}

#[test]
fn two_directories_are_told_apart() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let temporary = tempfile::tempdir().unwrap();
        for side in ["left", "right"] {
            fs::create_dir(temporary.path().join(side)).unwrap();
            fs::write(temporary.path().join(side).join("file"), side).unwrap();
        }
        let [left, right] = ["left", "right"].map(|side| open_dir(temporary.path().join(side)));
        let read = |path: &str| fs::read_to_string(temporary.path().join(path)).unwrap();
        let link = Link::new("file", "linked").from_at(left.clone()).to_at(right.clone());
        bench.complete(link).result.unwrap();
        assert_eq!(read("right/linked"), "left", "{name}");
        let rename = Rename::new("file", "moved").from_at(right).to_at(left);
        bench.complete(rename).result.unwrap();
        assert_eq!(read("left/moved"), "right", "{name}");
    }
}

#[test]
fn exchange_swaps_and_no_replace_replaces_nothing() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let root = open_dir(&temporary);
            fs::write(temporary.path().join("file"), "was file").unwrap();
            fs::create_dir(temporary.path().join("dir")).unwrap();
            let rename = || Rename::new("file", "dir").at(root.clone());
            let before = snapshot(temporary.path());
            let refused = bench.complete(rename().no_replace()).result;
            assert_eq!(errno(refused), Some(libc::EEXIST), "{name}");
            assert_eq!(snapshot(temporary.path()), before, "{name}");
            bench.complete(rename().exchange()).result.unwrap();
            assert_eq!(fs::read(temporary.path().join("dir")).unwrap(), b"was file", "{name}");
            assert!(temporary.path().join("file").is_dir(), "{name}");
            let onto_nothing = Rename::new("file", "new").at(root.clone());
            let refused = bench.complete(onto_nothing.exchange()).result;
            assert_eq!(errno(refused), Some(libc::ENOENT), "{name}");
            let free = Rename::new("file", "new").at(root.clone()).no_replace();
            bench.complete(free).result.unwrap();
            assert!(temporary.path().join("new").is_dir(), "{name}");
        }
    }
}

#[test]
fn whiteout_takes_the_place_of_what_was_renamed() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            fs::write(temporary.path().join("file"), "").unwrap();
            let rename = Rename::new("file", "new").at(open_dir(&temporary)).whiteout();
            match bench.complete(rename).result.map_err(|e| e.raw_os_error()) {
                Err(Some(libc::EINVAL | libc::EPERM)) => {
                    println!("skipped: {name}: no whiteouts here");
                    continue;
                }
                result => result.unwrap(),
            };
            let left = temporary.path().join("file").symlink_metadata().unwrap();
            assert!(left.file_type().is_char_device() && left.rdev() == 0, "{name}");
        }
    }
}

#[test]
fn file_without_a_name_gets_one() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut options = File::options();
        let options = options.write(true).custom_flags(libc::O_TMPFILE);
        let Ok(mut file) = options.open(temporary.path()) else {
            println!("skipped: {name}: no files without names here");
            continue;
        };
        io::Write::write_all(&mut file, b"published").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let path = temporary.path().join("named");
        let link = Link::new(format!("/proc/self/fd/{number}"), &path).follow();
        bench.complete(link).result.unwrap();
        assert_eq!(fs::read(path).unwrap(), b"published", "{name}");
    }
}

#[test]
fn paths_that_no_kernel_takes_are_refused_at_once() {
    for (_, builder) in honest() {
        let mut bench = Bench::new(builder);
        let bad = "zero\0byte";
        let ops: [Op; 8] = [
            Mkdir::new(bad).into(),
            Unlink::new(bad).into(),
            Rename::new(bad, "fine").into(),
            Rename::new("fine", bad).into(),
            Link::new(bad, "fine").into(),
            Link::new("fine", bad).into(),
            Symlink::new(bad, "fine").into(),
            Symlink::new("fine", bad).into(),
        ];
        for op in ops {
            assert!(refused(&mut bench, op).contains("zero byte"));
        }
        let both = Rename::new("a", "b").exchange();
        assert!(refused(&mut bench, both.no_replace()).contains("one or the other"));
    }
}

/// Entries by name: inode, kind, and how often they were found.
type Listing = BTreeMap<OsString, (u64, FileKind, usize)>;

/// Reads one batch into `listing`; `false` at the end.
fn read_batch(bench: &mut Bench, dir: &Arc<File>, room: usize, listing: &mut Listing) -> bool {
    let make = || ReadDir::new(dir.clone(), Vec::with_capacity(room)).into();
    let completion = bench.insist(make);
    let Op::ReadDir(read_dir) = completion.op else { panic!("it was submitted") };
    assert_eq!(completion.result.unwrap(), read_dir.entries().count() as u64);
    for entry in read_dir.entries() {
        let found = (entry.ino, entry.kind, 0);
        listing.entry(entry.name.to_owned()).or_insert(found).2 += 1;
    }
    let found = read_dir.entries().count();
    assert_eq!(read_dir.into_buffer().capacity(), room, "the buffer comes back as it was");
    found > 0
}

fn read_all(bench: &mut Bench, dir: &Arc<File>, room: usize) -> Listing {
    let mut listing = Listing::new();
    while read_batch(bench, dir, room, &mut listing) {}
    listing
}

/// What std finds, each once.
fn listed_by_std(path: &Path) -> Listing {
    let entries = fs::read_dir(path).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let kinds = [
            (kind.is_file(), FileKind::File),
            (kind.is_dir(), FileKind::Dir),
            (kind.is_symlink(), FileKind::Symlink),
            (kind.is_fifo(), FileKind::Fifo),
            (kind.is_socket(), FileKind::Socket),
            (kind.is_char_device(), FileKind::CharDevice),
            (kind.is_block_device(), FileKind::BlockDevice),
        ];
        let kind = kinds.into_iter().find(|(is, _)| *is).unwrap().1;
        (entry.file_name(), (entry.ino(), kind, 1))
    });
    entries.collect()
}

#[test]
fn ten_thousand_names_come_out_complete_in_small_batches() {
    for temporary in file_systems() {
        for n in 0..10_000_u32 {
            // Some not UTF-8, some as long as names get.
            let mut name = format!("{n} ").into_bytes();
            name.extend((n % 3 == 0).then_some(0xff));
            name.resize(if n % 1000 == 0 { 255 } else { name.len() }, b'x');
            File::create(temporary.path().join(OsString::from_vec(name))).unwrap();
        }
        let expected = listed_by_std(temporary.path());
        assert_eq!(expected.len(), 10_000);
        for (name, builder) in all() {
            let mut bench = Bench::new(builder);
            for room in [280, 1000, 32 * 1024] {
                let found = read_all(&mut bench, &open_dir(&temporary), room);
                assert!(found == expected, "{name}: {} of 10000, by {room}", found.len());
            }
        }
    }
}

#[test]
fn kinds_are_those_of_the_files() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let at = |name: &str| temporary.path().join(name);
            fs::write(at("file"), "").unwrap();
            fs::create_dir(at("dir")).unwrap();
            symlink("nowhere", at("link")).unwrap();
            let _socket = UnixListener::bind(at("socket")).unwrap();
            let made = Command::new("mkfifo").arg(at("fifo")).status().unwrap();
            assert!(made.success());
            let found = read_all(&mut bench, &open_dir(&temporary), 300);
            assert_eq!(found, listed_by_std(temporary.path()), "{name}");
            assert_eq!(found.len(), 5, "{name}");
        }
        let found = read_all(&mut bench, &open_dir("/dev"), 4096);
        assert_eq!(found[&OsString::from("null")].1, FileKind::CharDevice, "{name}");
    }
}

#[test]
fn empty_directory_is_at_its_end_at_once() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let dir = open_dir(&temporary);
            assert!(read_all(&mut bench, &dir, 280).is_empty(), "{name}");
            assert!(read_all(&mut bench, &dir, 280).is_empty(), "{name}: and stays there");
        }
    }
}

#[test]
fn directory_that_changes_loses_none_of_the_names_that_stay() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            let at = |n: u32, what: &str| temporary.path().join(format!("{n} {what}"));
            for n in 0..300 {
                File::create(at(n, "stays")).unwrap();
                File::create(at(n, "goes")).unwrap();
            }
            let dir = open_dir(&temporary);
            let (mut found, mut changed) = (Listing::new(), 0);
            while read_batch(&mut bench, &dir, 500, &mut found) {
                for n in (changed..changed + 10).filter(|n| *n < 300) {
                    fs::remove_file(at(n, "goes")).unwrap();
                    File::create(at(n, "comes")).unwrap();
                }
                changed += 10;
            }
            assert!(changed >= 100, "{name}: it changed while it was read");
            let stays = |listing: &Listing| {
                let mut listing = listing.clone();
                listing.retain(|name, _| name.to_str().is_some_and(|name| name.ends_with("stays")));
                listing
            };
            assert_eq!(stays(&found), stays(&listed_by_std(temporary.path())), "{name}");
            assert!(found.values().all(|(_, _, times)| *times == 1), "{name}: none twice");
        }
    }
}

#[test]
fn two_readers_of_one_directory_share_its_entries() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let temporary = tempfile::tempdir().unwrap();
        for n in 0..1000 {
            File::create(temporary.path().join(n.to_string())).unwrap();
        }
        let dir = open_dir(&temporary);
        let mut found = Listing::new();
        for key in 0..4 {
            bench.submit(ReadDir::new(dir.clone(), Vec::with_capacity(1000)), key);
        }
        let mut in_flight = 4;
        while in_flight > 0 {
            let completion = bench.next();
            let Op::ReadDir(read_dir) = completion.op else { panic!() };
            for entry in read_dir.entries() {
                let entry = (entry.name.to_owned(), (entry.ino, entry.kind, 1));
                assert!(found.insert(entry.0, entry.1).is_none(), "{name}: twice");
            }
            if completion.result.unwrap() == 0 {
                in_flight -= 1;
            } else {
                bench.submit(read_dir, completion.key);
            }
        }
        assert_eq!(found, listed_by_std(temporary.path()), "{name}");
    }
}

#[test]
fn what_is_no_directory_has_no_entries() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        let temporary = tempfile::tempdir().unwrap();
        let mut fails = |file: &Arc<File>| {
            // What an earlier batch found is gone, too.
            let make = || ReadDir::new(file.clone(), vec![1; 500]).into();
            let completion = bench.insist(make);
            let Op::ReadDir(read_dir) = &completion.op else { panic!() };
            assert_eq!(read_dir.entries().count(), 0, "{name}");
            errno(completion.result)
        };
        fs::write(temporary.path().join("file"), "").unwrap();
        assert_eq!(fails(&open_dir(temporary.path().join("file"))), Some(libc::ENOTDIR), "{name}");
        let path_only = File::options().read(true).custom_flags(libc::O_PATH).open(&temporary);
        assert_eq!(fails(&Arc::new(path_only.unwrap())), Some(libc::EBADF), "{name}");
        fs::create_dir(temporary.path().join("gone")).unwrap();
        let gone = open_dir(temporary.path().join("gone"));
        fs::remove_dir(temporary.path().join("gone")).unwrap();
        assert_eq!(fails(&gone), Some(libc::ENOENT), "{name}");
        let small = ReadDir::new(gone, Vec::with_capacity(279));
        assert!(refused(&mut bench, small).contains("at least"), "{name}");
    }
}

#[test]
fn long_name_behind_the_dots_is_not_taken_for_the_end() {
    for (name, builder) in all() {
        let mut bench = Bench::new(builder);
        for temporary in file_systems() {
            File::create(temporary.path().join("x".repeat(255))).unwrap();
            // The dots fit, and then nothing more does.
            let found = read_all(&mut bench, &open_dir(&temporary), 280);
            assert_eq!(found, listed_by_std(temporary.path()), "{name}");
        }
    }
}

/// A change of names, by numbers into a few of them.
#[derive(Clone, Copy, Debug)]
enum Change {
    Mkdir(usize),
    Unlink(usize),
    Rmdir(usize),
    Rename(usize, usize),
    Link(usize, usize),
    Symlink(usize, usize),
}

const NAMES: [&str; 6] = ["a", "b", "c", "a/a", "a/b", "b/c"];

impl Change {
    fn any() -> impl Strategy<Value = Change> {
        let name = || 0..NAMES.len();
        prop_oneof![
            name().prop_map(Change::Mkdir),
            name().prop_map(Change::Unlink),
            name().prop_map(Change::Rmdir),
            (name(), name()).prop_map(|(a, b)| Change::Rename(a, b)),
            (name(), name()).prop_map(|(a, b)| Change::Link(a, b)),
            (name(), name()).prop_map(|(a, b)| Change::Symlink(a, b)),
        ]
    }

    fn op(self, root: &Arc<File>) -> Op {
        match self {
            Change::Mkdir(a) => Mkdir::new(NAMES[a]).at(root.clone()).into(),
            Change::Unlink(a) => Unlink::new(NAMES[a]).at(root.clone()).into(),
            Change::Rmdir(a) => Unlink::new(NAMES[a]).at(root.clone()).dir().into(),
            Change::Rename(a, b) => Rename::new(NAMES[a], NAMES[b]).at(root.clone()).into(),
            Change::Link(a, b) => Link::new(NAMES[a], NAMES[b]).at(root.clone()).into(),
            Change::Symlink(a, b) => Symlink::new(NAMES[a], NAMES[b]).at(root.clone()).into(),
        }
    }

    fn by_std(self, root: &Path) -> io::Result<()> {
        let at = |name: usize| root.join(NAMES[name]);
        match self {
            Change::Mkdir(a) => fs::create_dir(at(a)),
            Change::Unlink(a) => fs::remove_file(at(a)),
            Change::Rmdir(a) => fs::remove_dir(at(a)),
            Change::Rename(a, b) => fs::rename(at(a), at(b)),
            Change::Link(a, b) => fs::hard_link(at(a), at(b)),
            Change::Symlink(a, b) => symlink(NAMES[a], at(b)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_changes_end_as_those_of_std(changes in prop::collection::vec(Change::any(), 1..30)) {
        for (name, builder) in all() {
            let mut bench = Bench::new(builder);
            let [ours, theirs] = [(); 2].map(|()| tempfile::tempdir().unwrap());
            for root in [&ours, &theirs] {
                fs::write(root.path().join("c"), "content").unwrap();
            }
            let root = open_dir(&ours);
            for change in &changes {
                let result = bench.insist(|| change.op(&root)).result;
                let (result, std) = (result.map(|_| ()), change.by_std(theirs.path()));
                let errno = |result: io::Result<()>| result.map_err(|e| e.raw_os_error());
                prop_assert_eq!(errno(result), errno(std), "{}: {:?}", name, change);
            }
            prop_assert_eq!(snapshot(ours.path()), snapshot(theirs.path()), "{}", name);
        }
    }
}

#[test]
fn cancelled_change_was_made_or_not_as_its_completion_says() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.threads(2));
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = open_dir(&temporary);
        let mut tokens = Vec::new();
        for key in 0..500 {
            tokens.push(bench.submit(Mkdir::new(key.to_string()).at(root.clone()), key));
            // Some are with the backend by then, some are not.
            if key % 50 == 20 {
                bench.turn();
            }
        }
        for token in tokens.iter().step_by(2).rev() {
            bench.aio().cancel(*token);
        }
        let mut cancelled = 0;
        for _ in 0..500 {
            let completion = bench.next();
            let made = temporary.path().join(completion.key.to_string()).is_dir();
            assert_eq!(completion.result.is_ok(), made, "{name}: {completion:?}");
            assert_eq!(completion.was_cancelled(), !made, "{name}: {completion:?}");
            cancelled += usize::from(!made);
        }
        assert!(cancelled <= 250, "{name}: others were cancelled, too");
        assert_eq!(Arc::strong_count(&root), 1, "{name}: the operations have let go of it");
    }
}
