//! Rounds: every peer once, each in a process of its own, in an order that rotates.
//!
//! A process for each round keeps what one peer does to allocator, processor mask or timer slack
//! from the next, gives every round another address layout (which otherwise favours one peer for a
//! whole run), and lets one that hangs be ended.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::group::{Group, Result, Sample, Setting, Topic};
use crate::stats::Summary;
use crate::sys;

/// What a process that does one round is started with.
pub(crate) const ROUND: &str = "--round";
/// What a process that helps a round is started with.
pub(crate) const HELPER: &str = "--helper";

/// How long one round of one peer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A group and what came out.
pub(crate) struct Measured {
    pub(crate) group: Group,
    pub(crate) topic: &'static str,
    /// For each peer, for each round.
    samples: Vec<Vec<Option<Sample>>>,
    /// For each peer, why it has no figures.
    pub(crate) failures: Vec<Option<String>>,
}

impl Measured {
    /// Runs all rounds of one group, in that directory.
    pub(crate) fn run(
        topic: &'static str,
        group: Group,
        rounds: usize,
        quick: bool,
        directory: &Path,
    ) -> Measured {
        let count = group.peers.len();
        let mut measured =
            Measured { group, topic, samples: vec![vec![]; count], failures: vec![None; count] };
        for round in 0..rounds {
            for turn in 0..count {
                measured.run_peer((turn + round) % count, quick, directory);
            }
        }
        measured
    }

    /// Runs one round of a peer, unless it failed before.
    fn run_peer(&mut self, peer: usize, quick: bool, directory: &Path) {
        let sample = if self.failures[peer].is_some() {
            None
        } else {
            match run_round(&self.group.name, self.group.peers[peer].name, quick, directory) {
                Ok(sample) => Some(sample),
                Err(error) => {
                    self.failures[peer] = Some(error.to_string());
                    None
                }
            }
        };
        self.samples[peer].push(sample);
    }

    pub(crate) fn peer(&self, name: &str) -> Option<usize> {
        self.group.peers.iter().position(|peer| peer.name == name)
    }

    /// What the peer measured in each round.
    pub(crate) fn series(&self, peer: usize, metric: usize) -> Vec<Option<f64>> {
        let rounds = self.samples[peer].iter();
        rounds.map(|sample| sample.as_ref()?.get(metric).copied().flatten()).collect()
    }

    /// The middle of what the peer measured; `None` when it measured nothing.
    pub(crate) fn summary(&self, peer: usize, metric: usize) -> Option<Summary> {
        Summary::of(self.series(peer, metric).into_iter().flatten())
    }

    /// In each round, what one peer takes for what another takes.
    pub(crate) fn ratios(&self, peer: usize, other: usize, metric: usize) -> Vec<f64> {
        let pairs = self.series(peer, metric).into_iter().zip(self.series(other, metric));
        pairs.filter_map(|(value, other)| Some(value? / other?)).collect()
    }
}

fn run_round(group: &str, peer: &str, quick: bool, directory: &Path) -> Result<Sample> {
    let mut command = this_program()?;
    command.args([ROUND, group, peer]).current_dir(directory);
    if quick {
        command.arg("--quick");
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let answer = answer(&mut command.spawn()?)?;
    Ok(serde_json::from_str(&answer)?)
}

/// What a process says until its end, or why it does not.
fn answer(child: &mut Child) -> Result<String> {
    let process = Pid::from_child(child);
    let end = pidfd_open(process, PidfdFlags::empty())?;
    let deadline = Instant::now() + PATIENCE;
    // What it writes fits into a pipe, so it can end before anything is read.
    while poll_end(&end, deadline)? == 0 {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!("took more than {} s", PATIENCE.as_secs()).into());
        }
    }
    let (mut said, mut complaints) = (String::new(), String::new());
    child.stdout.take().ok_or("no output")?.read_to_string(&mut said)?;
    child.stderr.take().ok_or("no output")?.read_to_string(&mut complaints)?;
    let status = child.wait()?;
    if status.success() { Ok(said) } else { Err(format!("{status}: {}", complaints.trim()).into()) }
}

fn poll_end(end: &impl std::os::fd::AsFd, deadline: Instant) -> Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left)?;
    match poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok(0),
        done => Ok(done?),
    }
}

/// The process of one round: measures, and prints what it measured.
pub(crate) fn round(topics: &[Topic], group: &str, peer: &str, quick: bool) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut groups = topics.iter().flat_map(|topic| (topic.groups)());
    let group = groups.find(|g| g.name == group).ok_or("no such group")?;
    let peer = group.peers.iter().find(|p| p.name == peer).ok_or("no such peer in the group")?;
    sys::keep_memory();
    let sample = (peer.run)(&Setting { peer: peer.name, size: group.size, quick })?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

/// The process of a topic's helper.
pub(crate) fn helper(topics: &[Topic], topic: &str, arguments: &[String]) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let topic = topics.iter().find(|t| t.name == topic).ok_or("no such topic")?;
    topic.helper.ok_or("the topic has no helper")?(arguments)
}

/// A command that starts a helper of `topic`.
pub(crate) fn helper_command(topic: &str) -> Result<Command> {
    let mut command = this_program()?;
    command.args([HELPER, topic]);
    Ok(command)
}

fn this_program() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}
