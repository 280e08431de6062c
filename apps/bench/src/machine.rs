//! Where and when it was measured.

use std::fs;
use std::process::Command;
use std::time::{Instant, SystemTime};

use serde::Serialize;

/// The machine and the run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) revision: Option<String>,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    pub(crate) seconds: u64,
    /// The part of the processors' time that went elsewhere: to other programs, or to other guests
    /// of the host, during the run.
    pub(crate) other_load: Option<f64>,
    #[serde(skip)]
    began: (Instant, Option<Ticks>),
}

/// Time of all processors so far, in clock ticks.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    busy: f64,
    stolen: f64,
    all: f64,
}

impl Machine {
    /// Asks, and begins to watch the load.
    pub(crate) fn ask(rounds: usize, quick: bool) -> Machine {
        let system = rustix::system::uname();
        Machine {
            date: httpdate::fmt_http_date(SystemTime::now()),
            revision: revision(),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib.div_ceil(1024 * 1024)),
            kernel: system.release().to_string_lossy().into_owned(),
            rounds,
            quick,
            seconds: 0,
            other_load: None,
            began: (Instant::now(), Ticks::now()),
        }
    }

    /// The run is over.
    pub(crate) fn finish(&mut self) {
        self.seconds = self.began.0.elapsed().as_secs();
        self.other_load = other_load(self.began.1, Ticks::now());
    }
}

impl Ticks {
    fn now() -> Option<Ticks> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let line = text.lines().next()?;
        let ticks: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal: see proc_stat(5).
        let all: f64 = ticks.get(..8)?.iter().sum();
        Some(Ticks { busy: all - ticks[3] - ticks[4] - ticks[7], stolen: ticks[7], all })
    }
}

/// What neither this process nor its children used.
fn other_load(before: Option<Ticks>, after: Option<Ticks>) -> Option<f64> {
    let (before, after) = (before?, after?);
    let own: f64 = {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // utime, stime, cutime, cstime: see proc_pid_stat(5). The name before may have blanks.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        fields.get(11..15)?.iter().filter_map(|n| n.parse::<f64>().ok()).sum()
    };
    let other = after.busy - before.busy - own + after.stolen - before.stolen;
    Some((other / (after.all - before.all)).max(0.0))
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What was measured, if this runs in its repository.
fn revision() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
