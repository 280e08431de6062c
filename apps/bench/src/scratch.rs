//! The run's directory: for files that many rounds share. Rounds work in it.
//!
//! It may hold a gibibyte, so it is to go away however the run ends. A process of its own sees to that:
//! it waits for the end of a pipe that only the run writes to, and the kernel closes that pipe also for a
//! run that was killed.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::group::Result;

/// What the process that removes the directory is started with.
const SWEEP: &str = "--sweep";

/// How often it tries to: a round that was killed with the run may not have ended yet.
const ATTEMPTS: usize = 50;

/// A directory in the current one, removed with all that is in it when this is dropped.
pub(crate) struct Scratch {
    path: PathBuf,
    sweeper: Child,
}

impl Scratch {
    pub(crate) fn make() -> Result<Scratch> {
        let path = std::env::current_dir()?.join(format!("kevent-bench-{}", std::process::id()));
        let failed = |error| format!("can't make {}, for files: {error}", path.display());
        fs::create_dir(&path).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SWEEP).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null());
        // What ends the run from the keyboard is sent to the whole group: not to the one who cleans up.
        match command.process_group(0).spawn() {
            Ok(sweeper) => Ok(Scratch { path, sweeper }),
            Err(error) => {
                fs::remove_dir(&path)?;
                Err(error.into())
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}

/// The process that removes `directory` when its standard input ends.
pub(crate) fn sweep(directory: &Path) -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for _ in 1..ATTEMPTS {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(fs::remove_dir_all(directory)?)
}
