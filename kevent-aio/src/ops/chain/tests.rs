//! Chains by themselves, driven by hand: ended at each point where they can be.

mod model;
mod program;
mod random;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::*;
use crate::operation::{Errno, Operation, Step};
use crate::ops::Open;

/// How many descriptors of this process are open on that file.
fn open_on(path: &Path) -> usize {
    let path = path.canonicalize().unwrap();
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    entries.filter(|e| fs::read_link(e.as_ref().unwrap().path()).is_ok_and(|at| at == path)).count()
}

/// What happens to the steps that a backend is given.
#[derive(Clone, Copy)]
enum Fate {
    /// They are done.
    Done,
    /// The one of that number, and no other, is not done because the chain is aborted.
    AbortedAt(u32),
    /// The one of that number, and no other, fails.
    FailsAt(u32),
}

/// Drives a chain to its end, and counts what it gave to the backend.
fn drive(chain: &mut Chain, fate: Fate) -> (io::Result<u64>, u32) {
    let mut given = 0;
    let mut step = chain.advance();
    loop {
        step = match (step, fate) {
            (Step::Done(result), _) => return (result, given),
            (Step::Writable, _) => chain.abort(io::ErrorKind::TimedOut.into()),
            (Step::Again, _) => chain.advance(),
            (Step::Piece | Step::Rest, _) => panic!("it is one thing"),
            (Step::Run, Fate::AbortedAt(at)) if at == given => {
                given += 1;
                chain.abort(io::ErrorKind::TimedOut.into())
            }
            (Step::Run, Fate::FailsAt(at)) if at == given => {
                given += 1;
                chain.complete(Err(Errno(libc::EIO)))
            }
            (Step::Run, _) => {
                given += 1;
                let outcome = Operation::run(chain);
                chain.complete(outcome)
            }
        };
    }
}

/// Two files, each used, one closed by a step and one at the end; socket traffic in between.
fn build(dir: &Path, socket: Fd) -> Chain {
    let mut chain = Chain::new();
    let from = chain.open(Open::new(dir.join("from")));
    let to = chain.open(Open::new(dir.join("to")).read_write().create(0o600));
    let stat = chain.statx(from);
    let data = chain.read(from, 0, 100);
    chain.write(to, 0, data);
    chain.fdatasync(to);
    chain.sendfile(socket, to, Span::whole(stat), Header::bytes("head"));
    chain.close(from);
    chain
}

struct Bench {
    dir: tempfile::TempDir,
    socket: Fd,
    peer: UnixStream,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        fs::write(dir.path().join("from"), "hello").unwrap();
        fs::write(dir.path().join("to"), "").unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        Bench { dir, socket: Arc::new(socket), peer }
    }

    fn chain(&self) -> Chain {
        build(self.dir.path(), self.socket.clone())
    }

    fn leaks(&self) -> usize {
        ["from", "to"].iter().map(|name| open_on(&self.dir.path().join(name))).sum()
    }
}

/// The chain's steps that are on the backend when nothing goes wrong: two opens, a write, a sync and
/// two closes; and the read or the send where the file system can't do them inline.
fn points() -> u32 {
    let bench = Bench::new();
    let mut chain = bench.chain();
    let (result, given) = drive(&mut chain, Fate::Done);
    assert_eq!(result.unwrap(), 5 + 5 + 9);
    assert_eq!(bench.leaks(), 0);
    let mut got = [0; 9];
    (&bench.peer).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"headhello");
    assert!(given >= 6);
    given
}

#[test]
fn aborted_at_any_point_it_leaves_no_file_open_and_says_where() {
    for at in 0..points() {
        let bench = Bench::new();
        let mut chain = bench.chain();
        let (result, _) = drive(&mut chain, Fate::AbortedAt(at));
        assert_eq!(bench.leaks(), 0, "at {at}");
        // The last is the clean-up of the file that no step closes. That goes on.
        if let Err(error) = result {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let (failed, _) = chain.failed().unwrap();
            let not_run = |step: &StepReport| matches!(step.result, StepResult::NotRun);
            assert!(chain.report().skip(failed + 1).all(not_run), "{chain:?}");
        } else {
            assert_eq!(at + 1, points());
        }
    }
}

#[test]
fn aborted_before_it_has_begun_it_has_done_nothing() {
    let bench = Bench::new();
    let mut chain = bench.chain();
    let step = chain.abort(io::ErrorKind::TimedOut.into());
    assert!(matches!(step, Step::Done(Err(e)) if e.kind() == io::ErrorKind::TimedOut));
    assert!(chain.report().all(|step| matches!(step.result, StepResult::NotRun)));
    assert!(chain.failed().is_none());
}

#[test]
fn failing_at_any_point_but_a_close_it_leaves_no_file_open() {
    // A close that fails has closed nevertheless, as the kernel does it; here nobody has.
    for at in 0..points() - 2 {
        let bench = Bench::new();
        let mut chain = bench.chain();
        let (result, _) = drive(&mut chain, Fate::FailsAt(at));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
        assert!(chain.failed().is_some());
        assert_eq!(bench.leaks(), 0, "at {at}");
    }
}

#[test]
fn a_chain_that_is_dropped_on_its_way_closes_what_it_has_opened() {
    let bench = Bench::new();
    let mut chain = bench.chain();
    assert!(matches!(chain.advance(), Step::Run));
    let outcome = Operation::run(&mut chain);
    assert!(matches!(chain.complete(outcome), Step::Run));
    assert_eq!(bench.leaks(), 1);
    drop(chain);
    assert_eq!(bench.leaks(), 0);
}

#[test]
fn a_file_that_is_cut_between_looking_and_sending_fails_the_step() {
    let bench = Bench::new();
    let path = bench.dir.path().join("from");
    fs::write(&path, "0123456789").unwrap();
    let mut chain = Chain::new();
    let file = chain.open(Open::new(&path));
    let stat = chain.statx(file);
    let cut = path.clone();
    let header = Header::from_stat(stat, move |_| {
        File::options().write(true).open(&cut).unwrap().set_len(4).unwrap();
        ""
    });
    let sent = chain.sendfile(bench.socket.clone(), file, Span::whole(stat), header);
    let (result, _) = drive(&mut chain, Fate::Done);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(chain.sent(sent).unwrap().body, 4);
    assert_eq!((chain.moved(), open_on(&path)), (4, 0));
}

#[test]
fn aborted_while_it_cleans_up_it_goes_on_with_that() {
    let bench = Bench::new();
    let path = bench.dir.path().join("from");
    let mut chain = Chain::new();
    let file = chain.open(Open::new(&path));
    chain.fsync(file);
    chain.close(file);
    assert!(matches!(chain.advance(), Step::Run));
    let outcome = Operation::run(&mut chain);
    assert!(matches!(chain.complete(outcome), Step::Run));
    assert!(matches!(chain.complete(Err(Errno(libc::EIO))), Step::Run), "the clean-up");
    assert!(matches!(chain.abort(io::ErrorKind::TimedOut.into()), Step::Run));
    assert_eq!(open_on(&path), 1, "closing is left to a backend");
    let outcome = Operation::run(&mut chain);
    let step = chain.complete(outcome);
    assert!(matches!(step, Step::Done(Err(e)) if e.raw_os_error() == Some(libc::EIO)));
    let closed: Vec<_> = chain.cleanups().collect();
    assert!(matches!(closed[..], [CleanupReport { step: 0, result: Ok(0), .. }]), "{closed:?}");
    assert_eq!(open_on(&path), 0);
}

#[test]
fn a_clean_up_that_fails_does_not_fail_the_chain() {
    let bench = Bench::new();
    let mut chain = Chain::new();
    chain.open(Open::new(bench.dir.path().join("from")));
    assert!(matches!(chain.advance(), Step::Run));
    let outcome = Operation::run(&mut chain);
    assert!(matches!(chain.complete(outcome), Step::Run));
    assert!(Operation::run(&mut chain).is_ok());
    assert!(matches!(chain.complete(Err(Errno(libc::EIO))), Step::Done(Ok(0))));
    assert!(chain.failed().is_none());
}

#[test]
fn a_write_that_moves_nothing_fails_the_step() {
    let bench = Bench::new();
    let mut chain = Chain::new();
    let file = chain.open(Open::new(bench.dir.path().join("new")).write_only().create(0o600));
    chain.write(file, 0, "some");
    assert!(matches!(chain.advance(), Step::Run));
    let outcome = Operation::run(&mut chain);
    assert!(matches!(chain.complete(outcome), Step::Run));
    assert!(matches!(chain.complete(Ok(0)), Step::Run), "the clean-up");
    let (at, failed) = chain.failed().unwrap();
    let StepResult::Failed(error) = &failed.result else { panic!("{failed:?}") };
    assert_eq!((at, error.kind()), (1, io::ErrorKind::WriteZero));
}

#[test]
fn told_to_end_behind_its_last_step_it_has_succeeded() {
    let mut chain = Chain::new();
    let count = chain.variable(0);
    let round = |chain: &mut Chain| {
        chain.add(count, 1);
    };
    chain.branch(Condition::equal(0, 0), |chain| (0..63).for_each(|_| round(chain)), round);
    let step = match chain.advance() {
        Step::Again => chain.abort(io::ErrorKind::TimedOut.into()),
        step => step,
    };
    assert!(matches!(step, Step::Done(Ok(0))), "{step:?}");
    assert_eq!(chain.number(count), Some(63));
}

#[test]
fn told_to_end_before_another_round_it_has_not_succeeded() {
    let mut chain = Chain::new();
    let count = chain.variable(0);
    chain.repeat(9, |chain| {
        (0..63).for_each(|_| {
            chain.add(count, 1);
        });
        chain.leave_if(Condition::equal(count, 126));
    });
    assert!(matches!(chain.advance(), Step::Again));
    assert!(matches!(chain.abort(io::ErrorKind::TimedOut.into()), Step::Done(Err(_))));
}

#[test]
fn what_was_deferred_is_left_to_the_process_that_runs_the_chain() {
    for (ours, left) in [(true, false), (false, true)] {
        let bench = Bench::new();
        let path = bench.dir.path().join("from");
        let mut chain = Chain::new();
        chain.defer(crate::ops::Unlink::new(&path), When::Failed);
        let file = chain.open(Open::new(&path));
        chain.fsync(file);
        assert!(matches!(chain.advance(), Step::Run));
        // As a forked child has it.
        chain.run.process = if ours { std::process::id() } else { 0 };
        drop(chain);
        assert_eq!(path.exists(), left);
    }
}

#[test]
fn clean_up_that_was_begun_is_done_by_the_drop_and_one_that_is_done_is_not() {
    for done in [false, true] {
        let bench = Bench::new();
        let path = bench.dir.path().join("from");
        let mut chain = Chain::new();
        chain.defer(crate::ops::Unlink::new(&path), When::Always);
        assert!(matches!(chain.advance(), Step::Run), "the clean-up");
        if done {
            let outcome = Operation::run(&mut chain);
            assert!(matches!(chain.complete(outcome), Step::Done(Ok(0))));
            fs::write(&path, "somebody else's").unwrap();
        }
        drop(chain);
        assert_eq!(path.exists(), done);
    }
}

#[test]
fn transform_that_has_panicked_says_nothing_more() {
    struct Fragile;
    impl Transform for Fragile {
        fn feed(&mut self, _: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
            panic!("a test's own panic")
        }
        fn finish(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
            output.push(0);
            Ok(())
        }
    }
    let bench = Bench::new();
    let mut chain = Chain::new();
    let stream = chain.transform(Fragile);
    let file = chain.open(Open::new(bench.dir.path().join("from")));
    let data = chain.read(file, 0, 9);
    let fed = chain.feed(stream, data);
    chain.stop(fed, Stop::Never);
    let digest = chain.finish(stream);
    let (result, _) = drive(&mut chain, Fate::Done);
    assert!(result.unwrap_err().to_string().contains("has panicked"));
    assert_eq!(chain.failed().map(|(at, _)| at), Some(digest.index()));
}
