//! Changes of files: what each costs to hear of, and what it costs to watch a tree.

mod kevent;
mod peers;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::group::{Bound, Goal, Group, Metric, Peer, Result, Sample, Setting, Topic};
use crate::measure;
use crate::runner;

pub(crate) const TOPIC: Topic =
    Topic { name: "watch", title: "Changes of files", groups, helper: Some(write_files) };

/// Who hears of changes. Every peer's part is this.
trait Watch: Sized + 'static {
    /// Watches a directory and all below it.
    fn open(root: &Path) -> Result<Self>;

    /// Waits for changes and tells them, until the file [`LAST`] was written and closed.
    fn hear_all(&mut self) -> Result<()>;
}

/// The file that ends a burst.
const LAST: &str = "last";

/// Each file is created, written and closed.
const CHANGES: usize = 3;

/// What is to be done.
#[derive(Clone, Copy)]
enum Shape {
    SetUp,
    Drain,
    Burst,
}

fn peer<W: Watch>(name: &'static str, shape: Shape) -> Peer {
    let run = match shape {
        Shape::SetUp => set_up::<W>,
        Shape::Drain => drain::<W>,
        Shape::Burst => burst::<W>,
    };
    Peer { name, run }
}

const RAW: &str = "inotify";
const RAW_PATHS: &str = "inotify, paths";

fn groups() -> Vec<Group> {
    let goal = |who, bound| Goal { metric: 0, who, bound };
    let both = |shape| {
        [
            peer::<kevent::Kevent>("kevent", shape),
            peer::<peers::Names>(RAW, shape),
            peer::<peers::Paths>(RAW_PATHS, shape),
        ]
    };
    let notify = |shape| [peer::<peers::Notify>("notify", shape)];
    let late = [
        peer::<kevent::Gathered>("kevent, gathered", Shape::Burst),
        peer::<peers::Late>("inotify, read 2 ms late", Shape::Burst),
    ];
    vec![
        Group {
            name: "watch/drain".into(),
            title: "Changes that lie ready".into(),
            about: "Files are created, written and closed in one directory of a tmpfs while nobody \
                    listens: three changes each. CPU time to hear of them. (notify listens in a \
                    thread of its own, at once.)",
            metrics: &[Metric { name: "CPU per change", unit: "ns" }],
            peers: both(Shape::Drain).into(),
            size: 4_000,
            goals: vec![goal("kevent", Bound::Times(1.1, &[RAW_PATHS]))],
        },
        Group {
            name: "watch/burst".into(),
            title: "A burst from another process".into(),
            about: "The same by another process, on another processor, while the listener listens. \
                    CPU time of the listener.",
            metrics: &[
                Metric { name: "CPU per change", unit: "ns" },
                Metric { name: "writer's CPU per file", unit: "ns" },
            ],
            peers: both(Shape::Burst).into_iter().chain(late).chain(notify(Shape::Burst)).collect(),
            size: 4_000,
            goals: vec![
                goal("kevent", Bound::Times(1.1, &[RAW_PATHS])),
                goal("kevent, gathered", Bound::AtMost(450.0)),
            ],
        },
        Group {
            name: "watch/set-up".into(),
            title: "A tree is watched".into(),
            about: "CPU time to watch 1,111 directories of a tmpfs, with the walk through them.",
            metrics: &[Metric { name: "CPU per directory", unit: "us" }],
            peers: both(Shape::SetUp).into_iter().chain(notify(Shape::SetUp)).collect(),
            size: 10,
            goals: vec![goal("kevent", Bound::Times(1.1, &[RAW_PATHS]))],
        },
    ]
}

/// A directory in memory, removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Directory> {
        let path = PathBuf::from(format!("/dev/shm/kevent-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes `count` files, and then the last one.
fn write_into(directory: &Path, count: usize) -> Result<()> {
    for number in 0..count {
        fs::write(directory.join(number.to_string()), "content")?;
    }
    Ok(fs::write(directory.join(LAST), "content")?)
}

fn drain<W: Watch>(setting: &Setting) -> Result<Sample> {
    let count = setting.pick(setting.size, 50);
    let mut costs = Vec::new();
    for _ in 0..setting.pick(4, 2) {
        let directory = Directory::new()?;
        let mut watch = W::open(&directory.0)?;
        write_into(&directory.0, count)?;
        let (cost, ()) = measure::cpu_of(|| watch.hear_all())?;
        costs.push(cost / ((count + 1) * CHANGES) as f64);
    }
    // The first is warm-up.
    costs.remove(0);
    Ok(vec![measure::quantile(&mut costs, 0.5)])
}

fn burst<W: Watch>(setting: &Setting) -> Result<Sample> {
    let count = setting.pick(setting.size, 50);
    let [here, there] = measure::two_cpus()?;
    measure::pin(here)?;
    let directory = Directory::new()?;
    let mut watch = W::open(&directory.0)?;
    let mut writer = runner::helper_command(TOPIC.name)?
        .arg(&directory.0)
        .args([count.to_string(), there.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let (cost, ()) = measure::cpu_of(|| watch.hear_all())?;
    let mut said = String::new();
    writer.stdout.take().ok_or("no output")?.read_to_string(&mut said)?;
    writer.wait()?;
    let files = (count + 1) as f64;
    let writers: f64 = said.trim().parse()?;
    Ok(vec![Some(cost / files / CHANGES as f64), Some(writers / files)])
}

/// The other process: `DIRECTORY COUNT PROCESSOR`. Says what processor time it took.
fn write_files(arguments: &[String]) -> Result<()> {
    let [directory, count, cpu] = arguments else { return Err("wrong arguments".into()) };
    measure::pin(cpu.parse()?)?;
    let (cost, ()) = measure::cpu_of(|| write_into(Path::new(directory), count.parse()?))?;
    println!("{cost}");
    Ok(())
}

fn set_up<W: Watch>(setting: &Setting) -> Result<Sample> {
    let directory = Directory::new()?;
    let directories = make_tree(&directory.0, setting.pick(setting.size, 3), 3)?;
    let mut costs = Vec::new();
    for _ in 0..setting.pick(4, 2) {
        let (cost, _) = measure::cpu_of(|| W::open(&directory.0))?;
        costs.push(cost / directories as f64 / 1e3);
    }
    costs.remove(0);
    Ok(vec![measure::quantile(&mut costs, 0.5)])
}

/// Directories in directories. Says how many, the root included.
fn make_tree(root: &Path, width: usize, depth: usize) -> Result<usize> {
    let mut count = 1;
    for number in (0..width).take_while(|_| depth > 0) {
        let below = root.join(number.to_string());
        fs::create_dir(&below)?;
        count += make_tree(&below, width, depth - 1)?;
    }
    Ok(count)
}
