//! A bounded pool of threads that make blocking calls.
//!
//! Threads are started as jobs come, and end after a while without any. A worker owns the job that it
//! works on: the pool can go away while a call blocks, and the worker ends when that returns. How many
//! jobs wait is bounded by how many operations the engine takes.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use kevent_core::{Clock, Token, Waker};

use crate::backend::in_place::InPlace;
use crate::backend::{Done, Job};
use crate::operation::{Errno, Operation, Outcome};
use crate::ops::Op;
use crate::priority::{PRIORITIES, Priority};
use crate::sys::thread::{set_ioprio, spawn_quiet};

/// How long a thread waits for the next job before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// How a worker runs an operation. Tests have one that lies.
pub(crate) type Runner = Arc<dyn Run>;

/// Runs operations, and may be late.
pub(crate) trait Run: Send + Sync {
    /// How long to wait before the next one is run.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    fn run(&self, op: &mut Op) -> Outcome;
}

impl<F: Fn(&mut Op) -> Outcome + Send + Sync> Run for F {
    fn run(&self, op: &mut Op) -> Outcome {
        self(op)
    }
}

/// Threads that run operations.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    limit: usize,
    /// In a simulated queue no thread is started.
    in_place: Option<InPlace>,
    /// The process that made it.
    process: u32,
}

struct Shared {
    jobs: Mutex<Jobs>,
    there_is_work: Condvar,
    mailbox: Mutex<Mailbox>,
    something_is_done: Condvar,
    runner: Runner,
}

#[derive(Default)]
struct Jobs {
    waiting: Waiting,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

/// A job that a thread has done, how long it has waited for that, and how long that took.
pub(crate) struct Worked {
    pub(crate) done: Done,
    pub(crate) waited: Duration,
    pub(crate) took: Duration,
}

/// Jobs in the order in which they are begun: by priority, and among equals by age.
#[derive(Default)]
struct Waiting([VecDeque<Queued>; PRIORITIES]);

/// A job, and since when it waits.
struct Queued {
    job: Job,
    since: Instant,
}

impl Waiting {
    fn len(&self) -> usize {
        self.0.iter().map(VecDeque::len).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, job: Job) {
        let queued = Queued { since: Instant::now(), job };
        self.0[queued.job.op.priority() as usize].push_back(queued);
    }

    /// The one to begin next.
    fn pop(&mut self) -> Option<Queued> {
        self.0.iter_mut().rev().find_map(VecDeque::pop_front)
    }

    fn take(&mut self, token: Token) -> Option<Job> {
        self.0.iter_mut().find_map(|line| {
            let place = line.iter().position(|queued| queued.job.token == token)?;
            Some(line.remove(place)?.job)
        })
    }
}

/// What the workers have done, for the engine to collect.
#[derive(Default)]
struct Mailbox {
    done: VecDeque<Worked>,
    waker: Option<Waker>,
    /// Somebody waits for something to be done, and not by way of the queue.
    awaited: bool,
    closed: bool,
}

/// A panic elsewhere can't leave half a change: what happens under these locks does not panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of at most `limit` threads; none yet.
    pub(crate) fn new(limit: usize, runner: Option<Runner>) -> Pool {
        let shared = Shared {
            jobs: Mutex::default(),
            there_is_work: Condvar::new(),
            mailbox: Mutex::default(),
            something_is_done: Condvar::new(),
            runner: runner.unwrap_or_else(|| Arc::new(|op: &mut Op| op.run())),
        };
        Pool { shared: Arc::new(shared), limit, in_place: None, process: std::process::id() }
    }

    /// From now on it is in a queue with that clock. In a simulated one everything is run on the thread that asks
    /// for what is done. What a thread has by then it goes on with, and what was to be run in another
    /// simulation is begun here.
    pub(crate) fn go_by(&mut self, clock: &Clock) {
        let simulated = clock.is_simulated().then(|| InPlace::new(clock.clone()));
        let before = std::mem::replace(&mut self.in_place, simulated);
        for job in before.into_iter().flat_map(InPlace::into_jobs) {
            if let Err((job, error)) = self.start(job) {
                let done = Done { job, outcome: Err(Errno::from(error)) };
                self.shared.deliver(Worked { done, waited: Duration::ZERO, took: Duration::ZERO });
            }
        }
    }

    /// When there will be something to reap although nobody wakes the queue.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.in_place.as_ref().and_then(InPlace::due)
    }

    /// Whom to wake when something is done; nobody without a waker.
    pub(crate) fn set_waker(&self, waker: Option<Waker>) {
        lock(&self.shared.mailbox).waker = waker;
    }

    /// Takes `job` in.
    ///
    /// # Errors
    ///
    /// When there is no thread and none can be started; the job comes back.
    pub(crate) fn start(&mut self, job: Job) -> Result<(), (Job, io::Error)> {
        if let Some(in_place) = &mut self.in_place {
            in_place.start(job, self.shared.runner.delay());
            return Ok(());
        }
        let mut jobs = lock(&self.shared.jobs);
        let token = job.token;
        jobs.waiting.push(job);
        let wanted = jobs.waiting.len() > jobs.idle && jobs.threads < self.limit;
        if wanted {
            // Under the lock: another submitter's count is right, and the new thread waits for it.
            if let Err(error) = self.start_thread(&mut jobs) {
                if jobs.threads == 0 {
                    return match jobs.waiting.take(token) {
                        Some(job) => Err((job, error)),
                        None => Ok(()),
                    };
                }
            }
        }
        // Who is at work looks for the next job by itself, and to wake nobody is a system call as well.
        let wakes = jobs.idle > 0;
        drop(jobs);
        if wakes {
            self.shared.there_is_work.notify_one();
        }
        Ok(())
    }

    fn start_thread(&self, jobs: &mut Jobs) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        spawn_quiet(Builder::new().name("kevent-aio".to_owned()), move || shared.work())?;
        jobs.threads += 1;
        Ok(())
    }

    /// Takes a job back that no thread has begun.
    pub(crate) fn take_back(&mut self, token: Token) -> Option<Job> {
        if let Some(in_place) = &mut self.in_place {
            if let Some(job) = in_place.take_back(token) {
                return Some(job);
            }
        }
        let mut jobs = lock(&self.shared.jobs);
        jobs.waiting.take(token)
    }

    /// What was done first of what was not collected yet.
    pub(crate) fn reap(&mut self) -> Option<Worked> {
        if let Some(mut job) = self.in_place.as_mut().and_then(InPlace::take_due) {
            let outcome = self.shared.runner.run(&mut job.op);
            let done = Done { job, outcome };
            return Some(Worked { done, waited: Duration::ZERO, took: Duration::ZERO });
        }
        lock(&self.shared.mailbox).done.pop_front()
    }
}

impl Pool {
    /// Waits until something was done that was not collected yet, or for so long.
    pub(crate) fn wait(&self, limit: Duration) {
        let mut mailbox = lock(&self.shared.mailbox);
        mailbox.awaited = true;
        let nothing = |mailbox: &mut Mailbox| mailbox.done.is_empty();
        let done = &self.shared.something_is_done;
        let waited = done.wait_timeout_while(mailbox, limit, nothing);
        waited.unwrap_or_else(PoisonError::into_inner).0.awaited = false;
    }
}

impl Shared {
    /// What a thread does.
    fn work(&self) {
        let mut priority = Priority::Normal;
        while let Some(Queued { mut job, since }) = self.next_job() {
            let delay = self.runner.delay();
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
            if std::mem::replace(&mut priority, job.op.priority()) != priority {
                set_ioprio(priority.ioprio());
            }
            let begun = Instant::now();
            // What is the user's, a transform of his own, may panic. That is an error of the step.
            let run = AssertUnwindSafe(|| self.run(&mut job.op));
            let outcome = catch_unwind(run).unwrap_or(Some(Err(Errno(libc::EIO))));
            let Some(outcome) = outcome else { continue };
            let (waited, took) = (begun.saturating_duration_since(since), begun.elapsed());
            self.deliver(Worked { done: Done { job, outcome }, waited, took });
        }
    }

    /// Runs an operation, as many of its steps as it has for a thread. `None` if the pool went away in
    /// between: then it is not begun with the next.
    fn run(&self, op: &mut Op) -> Option<Outcome> {
        loop {
            let outcome = self.runner.run(op);
            if let Some(outcome) = op.go_on(outcome) {
                return Some(outcome);
            }
            if lock(&self.mailbox).closed {
                return None;
            }
        }
    }

    /// The next job; `None` when there was none for a while, or never will be.
    fn next_job(&self) -> Option<Queued> {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(queued) = jobs.waiting.pop() {
                return Some(queued);
            }
            if jobs.closed {
                break;
            }
            jobs.idle += 1;
            let (again, waited) =
                self.there_is_work.wait_timeout(jobs, IDLE).unwrap_or_else(PoisonError::into_inner);
            jobs = again;
            jobs.idle -= 1;
            if waited.timed_out() && jobs.waiting.is_empty() {
                break;
            }
        }
        jobs.threads -= 1;
        None
    }

    fn deliver(&self, worked: Worked) {
        let mut mailbox = lock(&self.mailbox);
        if mailbox.closed {
            drop(mailbox);
            let Done { mut job, outcome } = worked.done;
            // Nobody collects it: what the operation has opened is closed with it.
            let _ = job.op.complete(outcome);
            return;
        }
        mailbox.done.push_back(worked);
        // The first says it for those that come before it is collected.
        let waker = if mailbox.done.len() == 1 { mailbox.waker.clone() } else { None };
        let awaited = mailbox.awaited;
        drop(mailbox);
        if awaited {
            self.something_is_done.notify_one();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Pool {
    /// Gives up what no thread has begun, and does not wait for what one has.
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A forked child drops its copy, without the threads: one may have held a lock.
            return;
        }
        let mut mailbox = lock(&self.shared.mailbox);
        mailbox.closed = true;
        let done = std::mem::take(&mut mailbox.done);
        drop(mailbox);
        let mut jobs = lock(&self.shared.jobs);
        jobs.closed = true;
        let waiting = std::mem::take(&mut jobs.waiting);
        drop(jobs);
        self.shared.there_is_work.notify_all();
        for Worked { done: Done { mut job, outcome }, .. } in done {
            let _ = job.op.complete(outcome);
        }
        drop(waiting);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = lock(&self.shared.jobs);
        f.debug_struct("Pool")
            .field("limit", &self.limit)
            .field("threads", &jobs.threads)
            .field("waiting", &jobs.waiting.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::ops::Open;

    /// How many descriptors of this process are open on that file.
    fn open_on(path: &Path) -> usize {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        entries.filter(|e| std::fs::read_link(e.path()).is_ok_and(|at| at == path)).count()
    }

    #[test]
    fn jobs_begin_in_order_on_no_more_threads_than_allowed() {
        for limit in [1, 3] {
            let mut pool = Pool::new(limit, None);
            let mut start = |bits| {
                let op = Box::new(Op::from(Open::new("/dev/null")));
                assert!(pool.start(Job { token: Token::from_bits(bits), op }).is_ok());
                assert!(lock(&pool.shared.jobs).threads <= limit);
            };
            (0..100).for_each(&mut start);
            let mut done = Vec::new();
            while done.len() < 100 {
                done.extend(pool.reap().map(|worked| worked.done));
                std::thread::yield_now();
            }
            let order = done.iter().map(|done| done.job.token.to_bits());
            assert!(limit > 1 || order.eq(0..100));
        }
    }

    #[test]
    fn pool_that_goes_away_ends_what_runs_closes_what_that_opened_and_begins_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("file");
        std::fs::write(&path, "").unwrap();
        let ran = Arc::new(AtomicU32::new(0));
        let (begun, wait_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let gate = Mutex::new((begun, released));
        let counter = Arc::clone(&ran);
        let runner: Runner = Arc::new(move |op: &mut Op| {
            let gate = lock(&gate);
            gate.0.send(()).unwrap();
            let _ = gate.1.recv();
            counter.fetch_add(1, Ordering::Relaxed);
            op.run()
        });
        let mut pool = Pool::new(1, Some(runner));
        for bits in 0..3 {
            let op = Box::new(Op::from(Open::new(&path)));
            assert!(pool.start(Job { token: Token::from_bits(bits), op }).is_ok());
        }
        wait_begun.recv().unwrap();
        drop(pool);
        drop(release);
        // The thread has the last hold on the runner, and that on the counter.
        while Arc::strong_count(&ran) > 1 {
            std::thread::yield_now();
        }
        assert_eq!((ran.load(Ordering::Relaxed), open_on(&path)), (1, 0));
    }
}
