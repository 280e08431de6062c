//! The run's directory: for files that many rounds share. Rounds work in it.
//!
//! It may hold a gibibyte, so it is to go away however the run ends. A process of its own sees to that: it
//! makes the directory, waits for the end of a pipe that only the run writes to, and removes it. The kernel
//! closes that pipe also for a run that was killed.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::group::Result;

/// What the process that keeps the directory is started with.
const KEEP: &str = "--keep";
/// What it answers when the directory is there.
const MADE: &str = "made";

/// How often it tries to remove it: a round that was killed with the run may not have ended yet.
const ATTEMPTS: usize = 50;

/// A directory in the current one, removed with all that is in it when this is dropped.
pub(crate) struct Scratch {
    path: PathBuf,
    keeper: Child,
}

impl Scratch {
    pub(crate) fn make() -> Result<Scratch> {
        let path = std::env::current_dir()?.join(format!("kevent-bench-{}", std::process::id()));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(KEEP).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        // What ends the run from the keyboard is sent to the whole group: not to the one who cleans up.
        let mut keeper = command.process_group(0).spawn()?;
        let mut answer = String::new();
        BufReader::new(keeper.stdout.take().ok_or("no output")?).read_line(&mut answer)?;
        let scratch = Scratch { path, keeper };
        match answer.trim() {
            MADE => Ok(scratch),
            error => {
                Err(format!("can't make {} for files: {error}", scratch.path.display()).into())
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The process that makes `directory`, says so, and removes it when its standard input ends.
pub(crate) fn keep(directory: &Path) -> Result<()> {
    let made = fs::create_dir(directory);
    let answer = made.as_ref().map_or_else(io::Error::to_string, |()| MADE.into());
    // A run that was killed before does not hear it.
    let _ = writeln!(io::stdout(), "{answer}");
    if made.is_err() {
        return Ok(());
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    for _ in 1..ATTEMPTS {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(fs::remove_dir_all(directory)?)
}
