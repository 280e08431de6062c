//! Small files: read, and copied with the directories that they are in.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::calls::{Calls, Std, StdCopy};
use super::files::{Files, Item};
use super::kevent::{Chains, Copies, Ops, Pool, Usual};
use super::runtimes::{CompioOpener, TokioOpener};
use super::work::{CPU, Copier, Cost, METRICS, Opener, Pass, WALL, median_cost};
use crate::group::{Bound, Goal, Group, Peer, Result, Sample, Setting};
use crate::measure::Random;

const STD: &str = "std";
const COPIES_BY_8: &str = "std::fs::copy, 8 threads";
const CALLS: &str = "calls by hand";

/// Whether the contents are in the page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    Cached,
    Cold,
}

pub(super) fn groups() -> Vec<Group> {
    use Contents::{Cached, Cold};
    vec![
        small("aio/small-cached", "Small cached files: open, read, close", Cached),
        small("aio/small-cold", "Small cold files: open, read, close", Cold),
        tree("aio/tree-cached", "A tree of small cached files, copied", Cached),
        tree("aio/tree-cold", "A tree of small cold files, copied", Cold),
    ]
}

fn small(name: &str, title: &str, contents: Contents) -> Group {
    let peer = |name, [cached, cold]: [fn(&Setting) -> Result<Sample>; 2]| {
        let run = if contents == Contents::Cached { cached } else { cold };
        Peer { name, run }
    };
    Group {
        name: name.into(),
        title: title.into(),
        about: "10,000 files of 8 bytes to 4 KiB, a hundred in each directory, in random order. An \
                operation is a file: one open, one read that has room for more than there is, one close. \
                Where files are worked on at a time, 32 are. Cold are the contents only: names, lengths \
                and places on the disk are known to the kernel.",
        metrics: METRICS,
        peers: vec![
            peer("kevent", read::<Chains<Usual>>()),
            peer("kevent, operations", read::<Ops>()),
            peer("kevent, pool", read::<Chains<Pool>>()),
            peer(STD, read::<Std<1>>()),
            peer("std, 8 threads", read::<Std<8>>()),
            peer("tokio::fs", read::<TokioOpener>()),
            peer("compio", read::<CompioOpener>()),
        ],
        size: 0,
        goals: vec![match contents {
            Contents::Cached => goal(CPU, 1.0, &[STD]),
            Contents::Cold => goal(WALL, 0.4, &[STD]),
        }],
    }
}

fn tree(name: &str, title: &str, contents: Contents) -> Group {
    let peer = |name, [cached, cold]: [fn(&Setting) -> Result<Sample>; 2]| {
        let run = if contents == Contents::Cached { cached } else { cold };
        Peer { name, run }
    };
    Group {
        name: name.into(),
        title: title.into(),
        about: "10,000 files of 8 bytes to 4 KiB in 100 directories are copied to where there is nothing \
                yet. An operation is a file; the directories are made meanwhile. Every peer is told what \
                the tree has in it. Copies are not brought to the disk. Cold are the contents only.",
        metrics: METRICS,
        peers: vec![
            peer("kevent", copy::<Copies<Usual>>()),
            peer("kevent, pool", copy::<Copies<Pool>>()),
            peer(CALLS, copy::<Calls>()),
            peer("std::fs::copy", copy::<StdCopy<1>>()),
            peer(COPIES_BY_8, copy::<StdCopy<8>>()),
        ],
        size: 0,
        goals: vec![goal(WALL, 1.0, &[COPIES_BY_8]), goal(CPU, 1.1, &[CALLS])],
    }
}

fn goal(metric: usize, times: f64, others: &'static [&'static str]) -> Goal {
    Goal { metric, who: "kevent", bound: Bound::Times(times, others) }
}

fn read<O: Opener>() -> [fn(&Setting) -> Result<Sample>; 2] {
    [
        |setting| read_files::<O>(setting, Contents::Cached),
        |setting| read_files::<O>(setting, Contents::Cold),
    ]
}

fn read_files<O: Opener>(setting: &Setting, contents: Contents) -> Result<Sample> {
    let files = Arc::new(Files::small(setting)?);
    let mut opener = O::open(&files)?;
    let mut order: Vec<_> = (0..files.items.len() as u64).collect();
    Random::new().shuffle(&mut order);
    let cost = median_cost(setting, || {
        prepare(&files, contents)?;
        let pass = Pass::new(order.clone());
        let cost = Cost::of(order.len(), || opener.read(&pass))?;
        pass.finish()?;
        Ok(cost)
    })?;
    Ok(cost.sample())
}

fn prepare(files: &Files, contents: Contents) -> Result<()> {
    match contents {
        Contents::Cached => files.warm(),
        Contents::Cold => files.chill(),
    }
}

fn copy<C: Copier>() -> [fn(&Setting) -> Result<Sample>; 2] {
    [
        |setting| copy_tree::<C>(setting, Contents::Cached),
        |setting| copy_tree::<C>(setting, Contents::Cold),
    ]
}

fn copy_tree<C: Copier>(setting: &Setting, contents: Contents) -> Result<Sample> {
    let files = Arc::new(Files::small(setting)?);
    let mut copier = C::open()?;
    prepare(&files, contents)?;
    let to = PathBuf::from(format!("copy-{}", std::process::id()));
    fs::create_dir(&to)?;
    let cost = Cost::of(files.items.len(), || copier.copy(&files, &to))?;
    files.items.iter().try_for_each(|item| check(&files, item, &to))?;
    Ok(cost.sample())
}

/// Whether the file was copied, with all that is in it. Then empties the copy, for many are made. (To
/// remove it would make it ten times as dear to create the next files, for half a minute: ext4 looks at
/// every inode that was freed a short while ago.)
fn check(files: &Files, item: &Item, to: &Path) -> Result<()> {
    let copy = files.copy_of(&item.path, to)?;
    if !item.is(&fs::read(&copy)?) {
        return Err(format!("{} is not what was to be copied", copy.display()).into());
    }
    OpenOptions::new().write(true).truncate(true).open(copy)?;
    Ok(())
}
