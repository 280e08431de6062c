//! Pressure as events: of the system, and of cgroups that come and go.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kevent_core::testing::Contract;
use kevent_core::{
    ChildQueue, Pressure, PressureEvent, PressureLevels, PressureLimit, Queue, Resource, Source,
    Stalled, Token, Wait,
};

const WINDOW: Duration = Duration::from_secs(2);

/// Of a few windows.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(20);

/// As little as can be.
fn limit(resource: Resource) -> PressureLimit {
    let threshold = Duration::from_micros(1);
    PressureLimit { resource, stall: Stalled::Some, threshold, window: WINDOW }
}

/// A cgroup of its own, until it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> io::Result<Cgroup> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = root()?.join(format!("kevent-{}-{number}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Cgroup(folder))
    }

    fn remove(self) {
        fs::remove_dir(&self.0).unwrap();
    }

    fn take_in(&self, process: &Child) {
        fs::write(self.0.join("cgroup.procs"), process.id().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where version 2 is mounted.
fn root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let point = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let point = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(point))
    });
    point.ok_or_else(|| io::Error::other("no cgroup2 is mounted"))
}

/// Whether the tests can do what they have to; if not, it says why.
fn has_cgroups() -> bool {
    let watched = Cgroup::new()
        .and_then(|cgroup| Pressure::new().watch_cgroup(&cgroup.0, limit(Resource::Cpu), 0));
    match watched {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: no cgroup can be watched here: {error}");
            false
        }
    }
}

fn has_pressure() -> bool {
    Pressure::probe().map_err(|error| println!("skipped: {error}")).is_ok()
}

/// Processes that compute, more of them than processors.
struct Burners(Vec<Child>);

impl Burners {
    fn new() -> Burners {
        let processors = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let burner = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Burners((0..=processors).map(burner).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn take(queue: &mut Queue<PressureEvent>) -> PressureEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no event came");
        queue.wait(deadline).unwrap();
        if let Some(event) = queue.next() {
            return event;
        }
    }
}

fn assert_silent(queue: &mut Queue<PressureEvent>) {
    let polls = queue.stats().polls;
    queue.wait(SILENCE).unwrap();
    assert_eq!(queue.next(), None);
    assert!(queue.stats().polls - polls < 5, "the wait did not sleep");
}

/// A cgroup that is removed is the one event that can be had at will.
#[test]
fn pressure_keeps_the_contract() {
    if !has_cgroups() {
        return;
    }
    let contract = Contract::new(|| (Pressure::new(), Vec::<Token>::new()))
        .provoke(|pressure, tokens, count| {
            for key in 0..count as u64 {
                let cgroup = Cgroup::new().unwrap();
                tokens.push(pressure.watch_cgroup(&cgroup.0, limit(Resource::Cpu), key).unwrap());
                cgroup.remove();
            }
        })
        .remove(|pressure, tokens| {
            tokens.drain(..).for_each(|token| assert!(pressure.unwatch(token)));
        });
    contract.check();
    contract.under_load().check();
}

#[test]
fn cgroup_that_is_removed_is_told_once_and_ends_the_watch() {
    if !has_cgroups() {
        return;
    }
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Pressure::new(), |event| event).unwrap();
    let cgroup = Cgroup::new().unwrap();
    let token = queue[id].watch_cgroup(&cgroup.0, limit(Resource::Memory), 3).unwrap();
    assert_silent(&mut queue);
    cgroup.remove();
    let event = take(&mut queue);
    assert!(event.gone);
    assert_eq!((event.token, event.key, event.levels), (token, 3, None));
    assert!(queue[id].is_empty());
    assert!(!queue[id].unwatch(token));
    assert_silent(&mut queue);
}

#[test]
fn busy_cgroup_is_told_with_its_levels_and_an_idle_one_is_silent() {
    if !has_cgroups() {
        return;
    }
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Pressure::new(), |event| event).unwrap();
    let (busy, idle) = (Cgroup::new().unwrap(), Cgroup::new().unwrap());
    let token = queue[id].watch_cgroup(&busy.0, limit(Resource::Cpu), 1).unwrap();
    queue[id].watch_cgroup(&idle.0, limit(Resource::Cpu), 2).unwrap();
    let burners = Burners::new();
    burners.0.iter().for_each(|burner| busy.take_in(burner));
    let began = Instant::now();
    let (first, second) = (take(&mut queue), take(&mut queue));
    for event in [first, second] {
        assert_eq!((event.token, event.key, event.gone), (token, 1, false));
        assert_eq!(event.limit, limit(Resource::Cpu));
        assert!(event.levels.unwrap().some.total > Duration::ZERO, "{event:?}");
    }
    assert!(began.elapsed() >= WINDOW, "two events came in one window");
    assert!(queue[id].unwatch(token));
    drop(burners);
}

#[test]
fn removal_of_a_cgroup_is_told_after_the_pressure_that_waits_in_the_ring() {
    if !has_cgroups() {
        return;
    }
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Pressure::new(), |event| event).unwrap();
    let cgroup = Cgroup::new().unwrap();
    queue[id].watch_cgroup(&cgroup.0, limit(Resource::Cpu), 1).unwrap();
    let burners = Burners::new();
    burners.0.iter().for_each(|burner| cgroup.take_in(burner));
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1, "the cgroup is busy");
    drop(burners);
    cgroup.remove();
    let events = queue.wait(Wait::timeout(PATIENCE).at_least(2)).unwrap();
    let gone: Vec<_> = std::iter::from_fn(|| queue.next()).map(|event| event.gone).collect();
    assert_eq!(gone.len(), events);
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 1, "{gone:?}");
    assert!(gone[events - 1], "{gone:?}");
    assert!(queue[id].is_empty());
}

/// The queue is looked at from outside before it looks itself, which takes the kernel's flag away.
#[test]
fn pressure_of_the_system_is_seen_through_queues_around_the_queue() {
    if !has_pressure() {
        return;
    }
    let mut inner = Queue::new().unwrap();
    let id = inner.attach(Pressure::new(), |event| event).unwrap();
    let mut queue = Queue::new().unwrap();
    let child = queue.attach(ChildQueue::new(inner), |event| event).unwrap();
    let _burners = Burners::new();
    queue[child][id].watch(limit(Resource::Cpu), 9).unwrap();
    // The first word on a new watch says nothing, here as anywhere.
    assert_silent(&mut queue);
    for _ in 0..2 {
        let event = take(&mut queue);
        assert_eq!((event.key, event.gone), (9, false));
    }
}

#[test]
fn watch_goes_on_in_the_next_queue() {
    if !has_cgroups() {
        return;
    }
    let (cgroup, mut queue) = (Cgroup::new().unwrap(), Queue::new().unwrap());
    let mut source = Pressure::new();
    source.watch_cgroup(&cgroup.0, limit(Resource::Io), 1).unwrap();
    let id = queue.attach(source, |event| event).unwrap();
    assert_silent(&mut queue);
    let source = queue.detach(id).unwrap();
    cgroup.remove();
    assert_silent(&mut queue);
    queue.attach(source, |event| event).unwrap();
    assert!(take(&mut queue).gone);
}

#[test]
fn what_can_not_be_watched_is_refused_with_a_reason() {
    if !has_pressure() {
        return;
    }
    let mut pressure = Pressure::new();
    let long = PressureLimit { window: Duration::from_secs(11), ..limit(Resource::Io) };
    assert_eq!(pressure.watch(long, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let odd = PressureLimit { window: Duration::from_millis(2001), ..limit(Resource::Io) };
    match pressure.watch(odd, 0) {
        Ok(token) => assert!(pressure.unwatch(token), "with CAP_SYS_RESOURCE any window will do"),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
        }
    }
    let error = pressure.watch_cgroup("/no/such", limit(Resource::Io), 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such"), "{error}");
    let error = pressure.watch_cgroup(Path::new("/proc"), limit(Resource::Io), 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("CONFIG_PSI"), "{error}");
    assert!(pressure.is_empty());
}

#[test]
fn levels_of_the_system_can_be_asked() {
    if !has_pressure() {
        return;
    }
    for resource in [Resource::Cpu, Resource::Memory, Resource::Io] {
        let levels = PressureLevels::of_system(resource).unwrap();
        assert!((0.0..=100.0).contains(&levels.some.avg10), "{levels:?}");
        assert!(levels.some.total >= levels.full.total, "{levels:?}");
    }
}
