//! What is asked of the kernel, as strace(1) counts it: the promises that speak of system calls.
//!
//! Each test runs one piece of work in a process of its own and counts what that calls between two
//! marks. Run with `--nocapture` to see the figures.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kevent_aio::{Aio, Fd, Read};
use kevent_core::{Processes, Queue, Signal, Signals, Timers, UserEvents, Wait};
use kevent_fs::Watcher;
use kevent_net::{Interest, Mode, Readiness};

/// How often each piece of work does what it is named after.
const TIMES: u64 = 100;

type Calls = BTreeMap<String, u64>;

/// The system calls of the thread that does a piece of work. `None` where nobody may be traced.
fn calls_of(work: &str) -> Option<Calls> {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log).arg(std::env::current_exe().unwrap());
    strace.args(["--exact", "work", "--ignored"]).env("WORK", work);
    let run = strace.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let Ok(run) = run.inspect_err(|error| println!("skipped: no strace: {error}")) else {
        return None;
    };
    let log = fs::read_to_string(&log).unwrap_or_default();
    if !log.contains("begin-mark") {
        let says = String::from_utf8_lossy(&run.stderr);
        assert!(says.contains("PTRACE"), "{says}");
        println!("skipped: no process may be traced: {says}");
        return None;
    }
    assert!(run.status.success(), "the work failed");
    let mut marked = log.lines().skip_while(|line| !line.contains("begin-mark"));
    let worker = marked.next().and_then(called).map(|(worker, _)| worker);
    let marked = marked.take_while(|line| !line.contains("end-mark"));
    let mut calls = Calls::new();
    for (thread, name) in marked.filter_map(called) {
        if Some(thread) == worker {
            *calls.entry(plain(name).to_owned()).or_default() += 1;
        }
    }
    println!("{work}, {TIMES} times: {calls:?}");
    Some(calls)
}

/// Who calls what on this line, which is `PID NAME(ARGUMENTS...`.
fn called(line: &str) -> Option<(&str, &str)> {
    let (thread, call) = line.split_once(' ')?;
    let (name, _) = call.trim_start().split_once('(')?;
    let is_call = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_call.then_some((thread, name))
}

/// The queue waits by either of two calls: the newer one if it takes a time.
fn plain(name: &str) -> &str {
    if matches!(name, "epoll_wait" | "epoll_pwait2") { "epoll" } else { name }
}

fn count(calls: &Calls, name: &str) -> u64 {
    calls.get(name).copied().unwrap_or(0)
}

/// None but these were called.
fn only(calls: &Calls, names: &[&str]) {
    assert!(calls.keys().all(|name| names.contains(&name.as_str())), "{calls:?}");
}

/// Stands in the log of strace.
fn mark(name: &str) {
    let _ = fs::metadata(format!("/{name}-mark"));
}

/// Not a test of its own: what the tests have counted.
#[test]
#[ignore = "is run by the others, traced"]
fn work() {
    match std::env::var("WORK").as_deref() {
        Ok("post and take") => post_and_take(),
        Ok("wake") => wake(),
        Ok("arm and cancel") => arm_and_cancel(),
        Ok("fire") => fire(),
        Ok("ready") => ready(),
        Ok("signal") => signal(),
        Ok("child") => child(),
        Ok("change") => change(),
        Ok("read") => read(),
        other => println!("skipped: nothing to do: {other:?}"),
    }
}

fn post_and_take() {
    let mut queue = Queue::new().unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |n: u64| n).unwrap();
    mark("begin");
    for n in 0..TIMES {
        poster.post(n).unwrap();
        queue.wait(None).unwrap();
        assert_eq!(queue.next(), Some(n));
    }
    mark("end");
}

/// Two threads throw one event to and fro, each asleep in its queue meanwhile.
fn wake() {
    let (there, here) = (UserEvents::new(), UserEvents::new());
    let mut queue = Queue::new().unwrap();
    queue.attach(here.0, |n: u64| n).unwrap();
    let answer = here.1;
    let other = thread::spawn(move || {
        let mut queue = Queue::new().unwrap();
        queue.attach(there.0, |n: u64| n).unwrap();
        while queue.wait(None).is_ok() {
            let Some(n) = queue.next() else { continue };
            answer.post(n).unwrap();
            if n == TIMES {
                return;
            }
        }
    });
    let mut throw = |n| {
        there.1.post(n).unwrap();
        while queue.is_empty() {
            queue.wait(None).unwrap();
        }
        assert_eq!(queue.next(), Some(n));
    };
    throw(0);
    mark("begin");
    (1..TIMES).for_each(&mut throw);
    mark("end");
    throw(TIMES);
    other.join().unwrap();
}

fn arm_and_cancel() {
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |tick| tick).unwrap();
    queue.wait(Wait::poll()).unwrap();
    mark("begin");
    for n in 0..TIMES {
        let token = queue[timers].after(Duration::from_secs(3600), n);
        assert!(queue[timers].cancel(token));
    }
    mark("end");
}

fn fire() {
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |tick| tick).unwrap();
    mark("begin");
    for n in 0..TIMES {
        queue[timers].after(Duration::from_millis(1 + n), n);
    }
    let mut fired = 0;
    while fired < TIMES {
        queue.wait(None).unwrap();
        fired += std::iter::from_fn(|| queue.next()).count() as u64;
    }
    mark("end");
}

fn ready() {
    let mut queue = Queue::new().unwrap();
    let readiness = queue.attach(Readiness::new(), |event| event).unwrap();
    let pairs: Vec<_> = (0..TIMES).map(|_| UnixStream::pair().unwrap()).collect();
    for (key, (near, far)) in (0..).zip(&pairs) {
        queue[readiness].register(near, Interest::READABLE, Mode::Edge, key).unwrap();
        (&mut &*far).write_all(b"x").unwrap();
    }
    mark("begin");
    let mut taken = 0;
    while taken < TIMES {
        queue.wait(None).unwrap();
        taken += std::iter::from_fn(|| queue.next()).count() as u64;
    }
    mark("end");
}

fn signal() {
    let mut queue = Queue::new().unwrap();
    queue.attach(Signals::new([Signal::USR1]).unwrap(), |signal| signal).unwrap();
    let target = std::process::id().to_string();
    let script = format!("for _ in $(seq {TIMES}); do kill -USR1 {target}; read _; done");
    let mut shell = Command::new("bash");
    let mut shell = shell.args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    let mut acknowledge = shell.stdin.take().unwrap();
    mark("begin");
    for _ in 0..TIMES {
        queue.wait(None).unwrap();
        assert!(queue.next().is_some());
        acknowledge.write_all(b"\n").unwrap();
    }
    mark("end");
    assert!(shell.wait().unwrap().success());
}

fn child() {
    let mut queue = Queue::new().unwrap();
    let processes = queue.attach(Processes::new(), |exit| exit).unwrap();
    let children = (0..TIMES).map(|_| {
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        // Ends with the child.
        io::copy(&mut child.stdout.take().unwrap(), &mut io::sink()).unwrap();
        child
    });
    let children: Vec<_> = children.collect();
    mark("begin");
    for (key, child) in (0..).zip(children) {
        queue[processes].watch_child(child, key).unwrap();
    }
    let mut taken = 0;
    while taken < TIMES {
        queue.wait(None).unwrap();
        taken += std::iter::from_fn(|| queue.next()).count() as u64;
    }
    mark("end");
}

fn change() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = Queue::new().unwrap();
    let watcher = queue.attach(Watcher::new().unwrap(), |change| change).unwrap();
    queue[watcher].watch(folder.path(), 0).unwrap();
    for n in 0..TIMES {
        File::create(folder.path().join(n.to_string())).unwrap();
    }
    mark("begin");
    let mut taken = 0;
    while taken < TIMES {
        queue.wait(None).unwrap();
        let created = std::iter::from_fn(|| queue.next())
            .filter(|change| change.kind == kevent_fs::ChangeKind::Created);
        taken += created.count() as u64;
    }
    mark("end");
}

fn read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, vec![1; 4096]).unwrap();
    let file: Fd = Arc::new(File::open(&path).unwrap());
    let mut queue = Queue::new().unwrap();
    let aio = queue.attach(Aio::new().unwrap(), |completion| completion).unwrap();
    mark("begin");
    for key in 0..TIMES {
        queue[aio].submit(Read::new(file.clone(), 0, Vec::with_capacity(4096)), key).unwrap();
        queue.wait(None).unwrap();
        assert_eq!(queue.next().unwrap().result.unwrap(), 4096);
    }
    mark("end");
}

/// A fresh queue looks once.
const LOOK: u64 = 1;

#[test]
fn event_that_is_there_is_taken_without_a_system_call() {
    let Some(calls) = calls_of("post and take") else { return };
    only(&calls, &["epoll"]);
    assert!(count(&calls, "epoll") <= LOOK);
}

#[test]
fn sleeper_is_woken_by_one_write_and_wakes_in_one_call() {
    let Some(calls) = calls_of("wake") else { return };
    only(&calls, &["write", "epoll"]);
    assert!(count(&calls, "write") <= TIMES);
    assert!(count(&calls, "epoll") <= TIMES + TIMES / 2);
}

#[test]
fn timer_is_armed_and_cancelled_without_a_system_call() {
    let Some(calls) = calls_of("arm and cancel") else { return };
    only(&calls, &[]);
}

#[test]
fn timer_that_fires_costs_the_wait_and_nothing_else() {
    let Some(calls) = calls_of("fire") else { return };
    only(&calls, &["epoll"]);
    assert!(count(&calls, "epoll") <= TIMES + LOOK);
}

#[test]
fn ready_descriptors_come_many_by_one_call() {
    let Some(calls) = calls_of("ready") else { return };
    only(&calls, &["epoll"]);
    assert!(count(&calls, "epoll") <= 2);
}

#[test]
fn hot_read_is_one_call() {
    let Some(calls) = calls_of("read") else { return };
    only(&calls, &["preadv2", "epoll", "fcntl"]);
    assert_eq!(count(&calls, "preadv2"), TIMES);
    // Once: is the file open with O_DIRECT?
    assert_eq!(count(&calls, "fcntl"), 1);
    // Tracing makes each turn long, so the kernel is looked at after few of them.
    assert!(count(&calls, "epoll") <= TIMES / 2 + LOOK);
}

/// The memory allocator's calls, of which there are few.
const MEMORY: [&str; 4] = ["mprotect", "mmap", "munmap", "brk"];

#[test]
fn changes_of_files_come_many_by_one_read() {
    let Some(mut calls) = calls_of("change") else { return };
    calls.retain(|name, _| !MEMORY.contains(&name.as_str()));
    only(&calls, &["read", "epoll"]);
    assert!(calls.values().sum::<u64>() <= 4);
}

#[test]
fn signal_costs_its_handler_and_one_wait() {
    let Some(calls) = calls_of("signal") else { return };
    // The handler, when it runs on this thread: whose process it is, one write, and its return. The
    // other write is what this test answers with.
    only(&calls, &["epoll", "getpid", "write", "rt_sigreturn", "read"]);
    assert!(count(&calls, "read") <= TIMES + 1);
    assert!(count(&calls, "epoll") <= 2 * TIMES);
}

#[test]
fn child_that_has_ended_is_reaped_by_one_call() {
    let Some(calls) = calls_of("child") else { return };
    assert!(count(&calls, "waitid") <= TIMES, "{calls:?}");
}
