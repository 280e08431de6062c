//! Random programs with random bad luck: what the model foresees is what happens, on every backend.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kevent_core::{Queue, Wait};
use proptest::test_runner::{Config, TestRunner};

use super::super::*;
use super::model::{Fault, Line, Outcome, Seen, Trouble, foresee};
use super::program::{NAMES, Node, VARIABLES, What, chain_of, programs, variable};
use crate::backend::pool::Runner;
use crate::builder::{Builder, Choice};
use crate::engine::Aio;
use crate::operation::{self, Errno, Operation, Step};
use crate::ops::chain::bind::Doing;

/// Bad luck by plan, written down for the model.
#[derive(Default)]
struct Fate {
    /// 0 for no bad luck at all.
    seed: u64,
    /// The call at which the chain is told to end.
    abort_at: Option<u32>,
    calls: u32,
    faults: HashMap<(usize, u64), Fault>,
    cleanup_faults: HashMap<usize, Trouble>,
    /// How far each run has come: bytes as the chain knows, and as the file knows.
    progress: HashMap<(usize, u64), (usize, usize)>,
}

impl Fate {
    fn dice(&mut self, sides: u64) -> u64 {
        if self.seed == 0 {
            return u64::MAX;
        }
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        (self.seed >> 33) % sides
    }

    fn note(&mut self, chain: &Chain, trouble: Trouble, aborts: bool) {
        let live = chain.run.live.as_ref().unwrap();
        if live.cleanup {
            self.cleanup_faults.extend((!aborts).then_some((live.step, trouble)));
            return;
        }
        let key = (live.step, chain.steps[live.step].report.runs);
        let (moved, written) = self.progress.get(&key).copied().unwrap_or_default();
        self.faults.insert(key, Fault { trouble, aborts, moved, written });
    }

    /// Does what the chain asks for, or not.
    fn run(&mut self, chain: &mut Chain) -> operation::Outcome {
        self.calls += 1;
        let live = chain.run.live.as_ref().unwrap();
        let (step, cleanup) = (live.step, live.cleanup);
        if self.dice(20) == 0 {
            let errno = [libc::EIO, libc::ENOSPC, libc::EAGAIN][self.dice(3) as usize];
            self.note(chain, Trouble::Os(errno), false);
            if matches!(chain.run.live.as_ref().unwrap().doing, Doing::Close(..)) {
                // The kernel closes it also when it tells an error.
                let _ = chain.run();
            }
            return Err(Errno(errno));
        }
        let count = chain.run()?;
        if cleanup || !chain.counts_bytes() {
            return Ok(count);
        }
        let short = count > 1 && self.dice(4) == 0;
        let claimed = if short { 1 + self.dice(u64::from(count) - 1) as u32 } else { count };
        let key = (step, chain.steps[step].report.runs);
        let progress = self.progress.entry(key).or_default();
        progress.1 = progress.0 + count as usize;
        progress.0 += claimed as usize;
        Ok(claimed)
    }
}

/// A directory in which a program runs.
struct Place {
    dir: tempfile::TempDir,
    root: Fd,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "0123456789".repeat(700)).unwrap();
        fs::write(dir.path().join("b"), [7, super::program::Toy::POISON, 7]).unwrap();
        let root = Arc::new(File::open(dir.path()).unwrap());
        Place { dir, root }
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let content = |name: &&str| fs::read(self.dir.path().join(name)).ok();
        NAMES.iter().filter_map(|n| Some(((*n).to_owned(), content(n)?))).collect()
    }

    /// How many descriptors are open on its files, also on those that have no name any more.
    fn open_files(&self) -> usize {
        open_below(self.dir.path())
    }
}

fn open_below(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let at = |e: io::Result<fs::DirEntry>| fs::read_link(e.ok()?.path()).ok();
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(at);
    links.filter(|link| link.starts_with(&dir) && *link != dir).count()
}

/// By hand, with all that can happen.
fn by_hand(mut chain: Chain, fate: &mut Fate) -> (io::Result<u64>, Chain) {
    let mut step = chain.advance();
    loop {
        step = match step {
            Step::Done(result) => return (result, chain),
            Step::Again => chain.advance(),
            Step::Piece | Step::Rest => panic!("it is one thing"),
            Step::Writable => panic!("no socket is there"),
            Step::Run if fate.abort_at == Some(fate.calls) => {
                fate.abort_at = None;
                let trouble = io::ErrorKind::TimedOut;
                fate.note(&chain, Trouble::Kind(trouble), true);
                chain.abort(trouble.into())
            }
            Step::Run => {
                let outcome = fate.run(&mut chain);
                chain.complete(outcome)
            }
        };
    }
}

/// By an engine.
fn by_engine(builder: Builder, chain: Chain) -> (io::Result<u64>, Chain) {
    let mut queue = Queue::new().unwrap();
    let aio = queue.attach(builder.build().unwrap(), |completion| completion).unwrap();
    queue[aio].submit(chain, 1).unwrap();
    loop {
        if let Some(completion) = queue.next() {
            let Op::Chain(chain) = *completion.op else { panic!("a chain was submitted") };
            return (completion.result, chain);
        }
        queue.wait(Wait::from(std::time::Duration::from_secs(20))).unwrap();
    }
}

/// On the pool, with bad luck.
fn by_pool(chain: Chain, fate: &mut Fate) -> (io::Result<u64>, Chain) {
    let shared = Arc::new(Mutex::new(std::mem::take(fate)));
    let of_worker = Arc::clone(&shared);
    let runner: Runner = Arc::new(move |op: &mut Op| match op {
        Op::Chain(chain) => of_worker.lock().unwrap().run(chain),
        other => panic!("{other:?} was not submitted"),
    });
    let mut builder = Aio::builder().backend(Choice::Pool);
    builder.runner = Some(runner);
    let done = by_engine(builder, chain);
    std::mem::swap(fate, &mut shared.lock().unwrap());
    done
}

fn seen(program: &[Node], place: &Place, result: &io::Result<u64>, chain: &mut Chain) -> Seen {
    let outcome = |result: &StepResult| -> Option<Outcome> {
        match result {
            StepResult::NotRun => None,
            StepResult::Done(count) => Some(Ok(*count)),
            StepResult::Failed(error) => Some(Err(error.into())),
        }
    };
    let line = |s: &StepReport| Line { runs: s.runs, moved: s.moved, result: outcome(&s.result) };
    let cleanup =
        |c: &CleanupReport| (c.step, c.result.as_ref().map(|count| *count).map_err(Trouble::from));
    let mut kept = Vec::new();
    keepers(program, &mut kept);
    kept.retain(|step| chain.take_file(StepId::new(chain.number, *step)).is_some());
    let data = |at| chain.data(StepId::new(chain.number, at)).map(|data| (at, data.to_vec()));
    let mut seen = Seen {
        lines: chain.report().map(line).collect(),
        cleanups: chain.cleanups().map(cleanup).collect(),
        failure: result.as_ref().err().map(Trouble::from),
        failed: chain.failed().map(|(at, _)| at),
        moved: chain.moved(),
        data: (0..chain.steps.len()).filter_map(data).collect(),
        variables: (0..VARIABLES).map(|v| chain.number(variable(chain, v)).unwrap()).collect(),
        files: place.files(),
        kept,
    };
    writers(program, &mut seen.data);
    seen
}

fn keepers(program: &[Node], found: &mut Vec<usize>) {
    for node in program {
        match &node.what {
            What::Open { keep: true, .. } => found.push(node.id),
            What::Loop { body, .. } => keepers(body, found),
            What::Branch { then, other, .. } => {
                keepers(then, found);
                keepers(other, found);
            }
            _ => {}
        }
    }
}

/// A write keeps its own bytes where others have what they give. Nobody can ask it for them.
fn writers(program: &[Node], data: &mut BTreeMap<usize, Vec<u8>>) {
    for node in program {
        match &node.what {
            What::Write { .. } => drop(data.remove(&node.id)),
            What::Loop { body, .. } => writers(body, data),
            What::Branch { then, other, .. } => {
                writers(then, data);
                writers(other, data);
            }
            _ => {}
        }
    }
}

type Driver = fn(Chain, &mut Fate) -> (io::Result<u64>, Chain);

/// Runs random programs, and compares. Those that are refused must not have done anything.
fn compare(cases: u32, drive: Driver, with_luck: bool, with_abort: bool) {
    let accepted = Cell::new(0);
    let cold = Cell::new(false);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let inputs = (programs(), 1..u64::MAX, 0..12_u32);
    let run = runner.run(&inputs, |(program, seed, abort_at)| {
        let place = Place::new();
        let before = place.files();
        cold.set(with_luck || !cold.get());
        let chain = chain_of(&program, &place.root, cold.get());
        if chain.check().is_err() {
            return Ok(());
        }
        accepted.set(accepted.get() + 1);
        let abort_at = with_abort.then_some(abort_at);
        let mut fate = Fate { seed: if with_luck { seed } else { 0 }, abort_at, ..Fate::default() };
        let steps = chain.steps.len();
        let (result, mut chain) = drive(chain, &mut fate);
        let mut real = seen(&program, &place, &result, &mut chain);
        drop(chain);
        let mut model = foresee(&program, steps, &before, &fate.faults, &fate.cleanup_faults);
        for seen in [&mut real, &mut model] {
            seen.data.retain(|_, data| !data.is_empty());
            seen.kept.sort_unstable();
        }
        proptest::prop_assert_eq!(real, model);
        proptest::prop_assert_eq!(place.open_files(), 0);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    assert!(accepted.get() > cases / 4, "only {} of {cases} programs made sense", accepted.get());
}

#[test]
fn programs_do_what_the_model_foresees() {
    compare(300, by_hand, false, false);
}

#[test]
fn programs_with_bad_luck_do_what_the_model_foresees() {
    compare(600, by_hand, true, false);
}

#[test]
fn programs_that_are_told_to_end_clean_up_as_the_model_foresees() {
    compare(400, by_hand, true, true);
}

#[test]
fn programs_on_the_pool_do_what_the_model_foresees_with_bad_luck_and_without() {
    compare(100, by_pool, true, false);
    compare(100, |chain, _| by_engine(Aio::builder().backend(Choice::Pool), chain), false, false);
}

#[test]
fn programs_on_the_ring_do_what_the_model_foresees() {
    if let Err(error) = Aio::builder().backend(Choice::Uring).build() {
        println!("skipped: {error}");
        return;
    }
    compare(150, |chain, _| by_engine(Aio::builder().backend(Choice::Uring), chain), false, false);
}
