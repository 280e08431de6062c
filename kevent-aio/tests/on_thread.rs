//! Chains of which a thread of the pool does several steps.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kevent_aio::{Chain, Mkdir, Open};

use common::{Bench, engines};

/// As the kernel has it.
const O_NONBLOCK: i32 = 0o4000;
const ECANCELED: i32 = 125;

/// A directory with a FIFO in it.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        assert!(Command::new("mkfifo").arg(site.at("fifo")).status().unwrap().success());
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn new(path: &Path) -> Open {
    Open::new(path).write_only().create_new(0o600)
}

/// Makes a file, opens the FIFO by a thread, which waits there for a writer, and then makes a directory.
fn waiting(site: &Site) -> Chain {
    let mut chain = Chain::new();
    chain.open(new(&site.at("file")));
    chain.open(Open::new(site.at("fifo")).create(0o600));
    chain.operation(Mkdir::new(site.at("dir")));
    chain
}

/// The other end of the FIFO, as soon as the chain waits for it; `None` if it never does, because it was
/// given up before.
fn writer(site: &Site) -> Option<File> {
    let mut how = OpenOptions::new();
    how.write(true).custom_flags(O_NONBLOCK);
    (0..1000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        how.open(site.at("fifo")).ok()
    })
}

/// Waits until the thread has done the first step and is at the FIFO.
fn let_it_begin(bench: &mut Bench, site: &Site) {
    bench.turn();
    while !site.at("file").exists() {
        std::thread::yield_now();
    }
}

#[test]
fn small_file_is_made_written_and_closed_with_one_job() {
    for builder in engines() {
        let (mut bench, site) = (Bench::new(builder), Site::new());
        let mut chain = Chain::new();
        let file = chain.open(new(&site.at("file")));
        chain.write(file, 0, "hello".to_owned());
        chain.close(file);
        assert_eq!(bench.complete(chain).result.unwrap(), 5);
        assert_eq!(fs::read_to_string(site.at("file")).unwrap(), "hello");
        let counters = bench.aio().report().counters;
        assert_eq!((counters.pool, counters.ring), (1, 0));
    }
}

#[test]
fn chain_that_is_cancelled_on_a_thread_begins_no_further_step_there() {
    for builder in engines() {
        let (mut bench, site) = (Bench::new(builder), Site::new());
        let token = bench.submit(waiting(&site), 1);
        let_it_begin(&mut bench, &site);
        bench.aio().cancel(token);
        // A thread goes on with what is over at once: that is to take its time.
        std::thread::sleep(Duration::from_millis(5));
        let writer = writer(&site);
        let completion = bench.next();
        assert!(completion.was_cancelled());
        assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(ECANCELED));
        assert!(!site.at("dir").exists());
        let error = writer.map(|mut writer| writer.write(b"x").unwrap_err().kind());
        assert!(error.is_none_or(|error| error == io::ErrorKind::BrokenPipe), "it was closed");
    }
}

#[test]
fn engine_that_goes_away_has_its_threads_begin_no_further_step() {
    for builder in engines() {
        let (mut bench, site) = (Bench::new(builder), Site::new());
        bench.submit(waiting(&site), 1);
        let_it_begin(&mut bench, &site);
        drop(bench);
        if let Some(mut writer) = writer(&site) {
            // Until the thread has dropped the chain, and closed the FIFO with it.
            let broken = |e: io::Error| e.kind() == io::ErrorKind::BrokenPipe;
            while !writer.write(b"x").is_err_and(broken) {}
        }
        assert!(!site.at("dir").exists());
        assert_eq!(File::open(site.at("file")).unwrap().read(&mut [0]).unwrap(), 0);
    }
}
