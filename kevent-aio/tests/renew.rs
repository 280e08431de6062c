//! Chains that run again, with other files.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

mod common;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kevent_aio::{
    Chain, Data, Op, Open, Opened, Read, StepId, StepResult, Stop, Transform, Unlink, Variable,
    When,
};

use common::{Bench, engines};

/// Runs it once.
fn run(bench: &mut Bench, chain: Chain) -> (io::Result<u64>, Chain) {
    let completion = bench.complete(chain);
    (completion.result, Chain::try_from(*completion.op).unwrap())
}

/// Copies a file in pieces of 3 bytes, puts an end to the copy, and reads that from the start.
struct Copying {
    chain: Chain,
    from: StepId<Opened>,
    to: StepId<Opened>,
    position: Variable,
    all: StepId<Data>,
}

fn copying() -> Copying {
    let mut chain = Chain::new();
    let from = chain.open(Open::new("nowhere"));
    let to = chain.open(Open::new("nowhere"));
    let position = chain.variable(0);
    chain.repeat(100, |chain| {
        let piece = chain.read(from, position, 3);
        chain.stop(piece, Stop::Zero);
        let written = chain.write(to, position, piece);
        chain.add(position, written.count());
    });
    chain.write(to, position, "end".to_owned());
    let all = chain.read(to, 0, 100);
    chain.keep(to);
    Copying { chain, from, to, position, all }
}

fn writable(path: &Path) -> Open {
    Open::new(path).read_write().create(0o600)
}

#[test]
fn renewed_chain_does_with_other_files_what_it_did() {
    for builder in engines() {
        let (mut bench, dir) = (Bench::new(builder), tempfile::tempdir().unwrap());
        let Copying { mut chain, from, to, position, all } = copying();
        for content in ["something", "", "of another length"] {
            fs::write(dir.path().join("from"), content).unwrap();
            let copy = dir.path().join(format!("copy{}", content.len()));
            chain.renew().unwrap();
            chain.reopen(from, Open::new(dir.path().join("from")));
            chain.reopen(to, writable(&copy));
            let (result, done) = run(&mut bench, chain);
            chain = done;
            let expected = format!("{content}end");
            assert_eq!(result.unwrap() as usize, 2 * content.len() + 3 + expected.len());
            assert_eq!(chain.data(all).unwrap(), expected.as_bytes());
            assert_eq!(chain.number(position), Some(content.len() as u64));
            assert_eq!((chain.cleanups().len(), chain.failed().is_none()), (1, true));
            let read = chain.report().nth(3).unwrap();
            assert_eq!(read.moved as usize, content.len(), "the report is of the last run");
            assert_eq!(fs::read_to_string(copy).unwrap(), expected);
            // Nobody takes that of the second run.
            assert!(content.is_empty() || chain.take_file(to).is_some());
        }
    }
}

#[test]
fn what_a_renewed_chain_has_not_come_to_gives_nothing() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let mut chain = Chain::new();
        let file = chain.open(Open::new("/proc/self/status"));
        let (stat, data) = (chain.statx(file), chain.read(file, 0, 10));
        let (result, mut chain) = run(&mut bench, chain);
        assert_eq!(result.unwrap(), 10);
        assert!(chain.stat(stat).is_some() && chain.data(data).is_some());
        chain.renew().unwrap();
        assert!(chain.stat(stat).is_none() && chain.data(data).is_none());
        chain.reopen(file, Open::new("/nowhere"));
        let (result, mut chain) = run(&mut bench, chain);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(chain.stat(stat).is_none() && chain.take_data(data).is_none());
        assert!(chain.report().skip(1).all(|step| matches!(step.result, StepResult::NotRun)));
        chain.renew().unwrap();
        chain.reopen(file, Open::new("/proc/self/status"));
        assert_eq!(run(&mut bench, chain).0.unwrap(), 10, "a failure is forgotten");
    }
}

/// Fails for good.
struct Broken;

impl Transform for Broken {
    fn feed(&mut self, _: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        Err(io::Error::other("broken"))
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn chain_with_a_step_that_is_done_once_is_not_renewed_and_left_as_it_was() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let file = Arc::new(fs::File::open("/proc/self/status").unwrap());
        let mut chain = Chain::new();
        let read = chain.operation(Read::new(file, 0, Vec::with_capacity(5)));
        chain.renew().expect("it has not run");
        let (result, mut chain) = run(&mut bench, chain);
        result.unwrap();
        let text = chain.renew().unwrap_err().to_string();
        assert!(text.contains("step 0 (Read)"), "{text}");
        let Some(Op::Read(read)) = chain.take_op(read) else { panic!("it is gone") };
        assert_eq!(read.data(), b"Name:");

        let mut chain = Chain::new();
        let file = chain.open(Open::new("/proc/self/status"));
        let piece = chain.read(file, 0, 5);
        let stream = chain.transform(Broken);
        chain.feed(stream, piece);
        chain.finish(stream);
        let (result, mut chain) = run(&mut bench, chain);
        assert!(result.is_err() && chain.renew().is_err());
        assert_eq!(chain.data(piece).unwrap(), b"Name:");

        let mut chain = Chain::new();
        let gone = chain.defer(Unlink::new("/nowhere"), When::Always);
        let (_, mut chain) = run(&mut bench, chain);
        chain.renew().expect("it has only a name");
        let (_, mut chain) = run(&mut bench, chain);
        assert_eq!(chain.cleanups().len(), 1);
        drop(chain.take_op(gone));
        assert!(chain.renew().is_err());
    }
}

#[test]
fn renewed_chain_that_has_changed_is_checked_again() {
    for builder in engines() {
        let mut bench = Bench::new(builder);
        let mut chain = Chain::new();
        let file = chain.open(Open::new("/proc/self/status"));
        chain.close(file);
        let (result, mut chain) = run(&mut bench, chain);
        result.unwrap();
        chain.renew().unwrap();
        chain.reopen(file, Open::new("with\0zero"));
        let refused = bench.aio().submit(chain, 1).unwrap_err();
        let mut chain = Chain::try_from(refused.op).unwrap();
        chain.reopen(file, Open::new("/proc/self/status"));
        let (result, mut chain) = run(&mut bench, chain);
        result.unwrap();
        let refused = bench.aio().submit(chain, 1).unwrap_err();
        chain = Chain::try_from(refused.op).unwrap();
        chain.renew().unwrap();
        chain.statx(file);
        let refused = bench.aio().submit(chain, 1).unwrap_err();
        assert!(refused.to_string().contains("step 2 (Statx)"), "{refused}");
    }
}
