//! The files that are read, sent and copied: made once, by the round that first needs them, in the directory
//! of the run. What they hold is known, so that every peer's reading can be checked.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::sys;
use crate::group::{Result, Setting};

/// Bytes of a block, and of a page.
pub(super) const BLOCK: usize = 4096;

const MIB: u64 = 1024 * 1024;

/// How long pages may stay that nobody wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// All files hold parts of one endless stream of numbers. This is the one in that place.
fn number(place: u64) -> u64 {
    let mixed = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// `length` bytes of the stream from `at`, which is a multiple of 8.
pub(super) fn content(at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.next_multiple_of(8)];
    for (place, bytes) in (at / 8..).zip(bytes.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&number(place).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Whether those are bytes of the stream from `at`, which is a multiple of 8: looks at two numbers, one of
/// them anywhere. To look at all would cost more than to read them.
pub(super) fn is_right(at: u64, bytes: &[u8]) -> bool {
    let count = bytes.len() / 8;
    let is_right = |index: usize| {
        let found = bytes[index * 8..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        found == Some(number(at / 8 + index as u64))
    };
    count > 0 && is_right(0) && is_right(number(at ^ 7) as usize % count)
}

/// Makes what is to be at `path`, unless it is there. `make` gets another name: what a round has left
/// undone is no file.
fn make_once(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension("unfinished");
    // Perhaps there is none, or it is a file, which is made anew anyway.
    let _ = fs::remove_dir_all(&unfinished);
    make(&unfinished)?;
    Ok(fs::rename(unfinished, path)?)
}

/// Takes all of the file out of the page cache, and checks that it is.
fn chill(file: &File, length: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        fadvise(file, 0, None, Advice::DontNeed)?;
        match sys::cached_pages(file, length)? {
            0 => return Ok(()),
            // What the round before has begun to read or to write stays until that is done.
            _ if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(1)),
            pages => {
                let text = format!("{pages} pages stay in the page cache: nothing is cold here");
                return Err(text.into());
            }
        }
    }
}

/// Brings all of the file into the page cache, and checks that it is.
fn warm(file: &File, length: u64) -> Result<()> {
    let wanted = length.div_ceil(BLOCK as u64);
    let began = Instant::now();
    loop {
        match sys::cached_pages(file, length)? {
            found if found >= wanted => return Ok(()),
            // Some may leave again: what was to be cold a moment ago goes a little later.
            _ if began.elapsed() < PATIENCE => {
                let mut whole = file;
                whole.rewind()?;
                std::io::copy(&mut whole, &mut std::io::sink())?;
            }
            found => {
                let text = format!("{found} of {wanted} pages stay in the page cache");
                return Err(text.into());
            }
        }
    }
}

/// One large file.
pub(super) struct Large {
    file: File,
    pub(super) path: PathBuf,
    pub(super) length: u64,
}

impl Large {
    pub(super) fn get(setting: &Setting) -> Result<Large> {
        let path = PathBuf::from("large");
        make_once(&path, |path| {
            let mut file = File::create(path)?;
            for at in (0..large_size(setting)?).step_by(MIB as usize) {
                file.write_all(&content(at, MIB as usize))?;
            }
            // Dirty pages can't be thrown out.
            Ok(file.sync_all()?)
        })?;
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        Ok(Large { file, path, length })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.length / BLOCK as u64
    }

    pub(super) fn warm(&self) -> Result<()> {
        warm(&self.file, self.length)
    }

    pub(super) fn chill(&self) -> Result<()> {
        chill(&self.file, self.length)
    }
}

/// A gibibyte, or less if memory or disk are short: a power of two.
fn large_size(setting: &Setting) -> Result<u64> {
    let disk = rustix::fs::statvfs(".")?;
    let bound = (memory_available()? / 4).min(disk.f_bavail * disk.f_frsize / 4);
    let mut size = setting.pick(1024, 256) * MIB;
    while size > bound {
        size /= 2;
    }
    if size < 16 * MIB {
        return Err("there is too little memory or disk left for a file to read".into());
    }
    Ok(size)
}

fn memory_available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no MemAvailable")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// How a file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is in the page cache.
    Cached,
    /// Through the page cache, and it is not in there.
    Cold,
    /// Past the page cache.
    Direct,
}

/// Opens a file for reading.
pub(super) fn open(path: &Path, how: How) -> Result<File> {
    let flags = if how == How::Direct { libc::O_DIRECT } else { 0 };
    Ok(OpenOptions::new().read(true).custom_flags(flags).open(path)?)
}

/// Memory for so many blocks, into which the kernel may read past the page cache: each begins with a page. (It
/// need begin with a sector only; but a block that lies in two pages takes the kernel, and the disk, a fifth
/// longer, and not all peers are to be handed such ones.)
///
/// Vectors can't be asked for that. But those that the allocator cuts from its heap one after another begin at
/// ever another place of the page, so one of 256 will do.
pub(super) fn page_aligned(count: usize) -> Result<Vec<Vec<u8>>> {
    let (mut aligned, mut others) = (Vec::new(), Vec::new());
    while aligned.len() < count {
        let memory: Vec<u8> = Vec::with_capacity(BLOCK);
        let list =
            if memory.as_ptr().addr().is_multiple_of(BLOCK) { &mut aligned } else { &mut others };
        list.push(memory);
        if others.len() > 1000 * count {
            return Err("the allocator has no memory that begins with a page".into());
        }
    }
    Ok(aligned)
}

/// A file that is read or sent as a whole.
pub(super) struct Item {
    pub(super) path: PathBuf,
    /// Where its content begins in the stream.
    pub(super) at: u64,
    pub(super) length: usize,
}

impl Item {
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length && is_right(self.at, bytes)
    }

    fn make(&self) -> Result<()> {
        Ok(fs::write(&self.path, content(self.at, self.length))?)
    }
}

/// Several files, made together.
pub(super) struct Files {
    pub(super) root: PathBuf,
    /// Below the root, each with a hundred of the items.
    pub(super) directories: Vec<PathBuf>,
    pub(super) items: Vec<Item>,
}

/// How many files are in a directory.
pub(super) const EACH: usize = 100;

/// The most that a small file has.
pub(super) const SMALL: usize = BLOCK;

impl Files {
    /// A tree of ten thousand small files, of different lengths.
    pub(super) fn small(setting: &Setting) -> Result<Files> {
        let directories = setting.pick(100, 4);
        // Multiples of 8 and at least 8, so that each has a number to look at.
        let length = |index: u64| (number(index) as usize % (SMALL / 8) + 1) * 8;
        Files::get("small", directories, SMALL, length)
    }

    /// A hundred files of a mebibyte, in one directory.
    pub(super) fn of_a_mebibyte() -> Result<Files> {
        Files::get("mebibytes", 1, MIB as usize, |_| MIB as usize)
    }

    fn get(
        root: &str,
        directories: usize,
        most: usize,
        length: impl Fn(u64) -> usize,
    ) -> Result<Files> {
        let files = |root: &Path| {
            let directories: Vec<_> = (0..directories).map(|n| root.join(n.to_string())).collect();
            let paths = directories.iter().flat_map(|d| (0..EACH).map(|n| d.join(n.to_string())));
            let item = |(index, path)| {
                let index = index as u64;
                Item { path, at: index * most as u64, length: length(index) }
            };
            let items = paths.enumerate().map(item).collect();
            Files { root: root.to_owned(), directories, items }
        };
        make_once(Path::new(root), |root| files(root).make())?;
        Ok(files(Path::new(root)))
    }

    fn make(&self) -> Result<()> {
        fs::create_dir(&self.root)?;
        self.directories.iter().try_for_each(fs::create_dir)?;
        self.items.iter().try_for_each(Item::make)?;
        Ok(rustix::fs::syncfs(File::open(&self.root)?)?)
    }

    /// Those that are in that directory.
    pub(super) fn items_of(&self, directory: usize) -> &[Item] {
        self.items.get(directory * EACH..(directory + 1) * EACH).unwrap_or_default()
    }

    /// Where the copy below `to` of something below the root is.
    pub(super) fn copy_of(&self, path: &Path, to: &Path) -> Result<PathBuf> {
        Ok(to.join(path.strip_prefix(&self.root)?))
    }

    pub(super) fn warm(&self) -> Result<()> {
        self.each(warm)
    }

    /// The contents only: names, lengths and places on the disk stay known to the kernel.
    pub(super) fn chill(&self) -> Result<()> {
        self.each(chill)
    }

    fn each(&self, what: impl Fn(&File, u64) -> Result<()>) -> Result<()> {
        let mut items = self.items.iter();
        items.try_for_each(|item| what(&File::open(&item.path)?, item.length as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_told_from_that_of_another_place_and_from_none() {
        let bytes = content(4096, 100);
        assert!(is_right(4096, &bytes) && is_right(4104, &bytes[8..]));
        assert!(!is_right(8192, &bytes) && !is_right(4096, &[0; 100]) && !is_right(4096, &[]));
    }

    #[test]
    fn memory_for_direct_reads_begins_with_a_page() {
        let kept = page_aligned(128).unwrap();
        assert!(kept.iter().all(|memory| memory.as_ptr().addr() % BLOCK == 0));
        assert!(kept.iter().all(|memory| memory.capacity() == BLOCK));
    }
}
