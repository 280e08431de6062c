//! The ends of processes as events.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::forbid;
use kevent_core::{ChildQueue, ProcessEvent, Processes, Queue, Signal, Source, SourceId, Wait};

const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough for an event that should not come.
const SILENCE: Duration = Duration::from_millis(30);

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// A child that ends when its standard input is closed, or it is killed.
fn lingering() -> Child {
    sh("read line").stdin(Stdio::piped()).spawn().unwrap()
}

fn queue_of(capacity: usize) -> (Queue<ProcessEvent>, SourceId<Processes>) {
    let mut queue = Queue::with_capacity(NonZeroUsize::new(capacity).unwrap()).unwrap();
    let id = queue.attach(Processes::new(), |event| event).unwrap();
    (queue, id)
}

fn take(queue: &mut Queue<ProcessEvent>, count: usize) -> Vec<ProcessEvent> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while events.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} processes ended", events.len());
        queue.wait(deadline).unwrap();
        events.extend(std::iter::from_fn(|| queue.next()));
    }
    assert_eq!(events.len(), count, "more ended than there were");
    events
}

fn take_one(queue: &mut Queue<ProcessEvent>) -> ProcessEvent {
    take(queue, 1).remove(0)
}

fn is_silent(queue: &mut Queue<ProcessEvent>) -> bool {
    queue.wait(SILENCE).unwrap();
    queue.next().is_none()
}

/// Whether the process is there, running or as a zombie.
fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn exit_code_comes_with_key_and_pid_and_the_zombie_is_gone() {
    let (mut queue, id) = queue_of(4);
    let child = sh("exit 42").spawn().unwrap();
    let pid = child.id();
    let token = queue[id].watch_child(child, 9).unwrap();
    let event = take_one(&mut queue);
    assert_eq!((event.token, event.key, event.pid), (token, 9, pid));
    assert_eq!(event.exit.unwrap().code(), Some(42));
    assert!(!exists(pid), "a zombie was left");
    assert!(queue[id].is_empty(), "the watch ends with its event");
}

#[test]
fn child_killed_by_a_signal_says_which() {
    let (mut queue, id) = queue_of(4);
    let token = queue[id].watch_child(lingering(), 0).unwrap();
    queue[id].kill(token, Signal::TERM).unwrap();
    assert_eq!(take_one(&mut queue).exit.unwrap().signal(), Some(Signal::TERM.as_raw()));
    let error = queue[id].kill(token, Signal::TERM).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn child_that_has_ended_can_not_be_signalled_while_its_event_waits() {
    let (mut queue, id) = queue_of(4);
    let token = queue[id].watch_child(sh("exit 0").spawn().unwrap(), 0).unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
    let error = queue[id].kill(token, Signal::TERM).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("has ended"), "{error}");
}

#[test]
fn last_output_of_an_ended_child_can_be_read() {
    let (mut queue, id) = queue_of(4);
    let child = sh("echo last words").stdout(Stdio::piped()).spawn().unwrap();
    queue[id].watch_child(child, 0).unwrap();
    let mut child = take_one(&mut queue).into_child().unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(output, "last words\n");
    assert!(child.wait().unwrap().success(), "std remembers the status");
}

#[test]
fn child_that_was_waited_for_before_is_told_at_once() {
    let (mut queue, id) = queue_of(4);
    let mut child = sh("exit 5").spawn().unwrap();
    child.wait().unwrap();
    queue[id].watch_child(child, 0).unwrap();
    assert_eq!(take_one(&mut queue).exit.unwrap().code(), Some(5));
}

#[test]
fn stopped_child_has_not_ended() {
    let (mut queue, id) = queue_of(4);
    let token = queue[id].watch_child(lingering(), 0).unwrap();
    queue[id].kill(token, Signal::STOP).unwrap();
    assert!(is_silent(&mut queue));
    queue[id].kill(token, Signal::CONT).unwrap();
    assert!(is_silent(&mut queue));
    queue[id].kill(token, Signal::KILL).unwrap();
    assert_eq!(take_one(&mut queue).exit.unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn process_that_is_no_child_ends_without_status() {
    let (mut queue, id) = queue_of(4);
    // A grandchild, which the shell leaves behind, and which ends when its input does.
    let mut shell = sh("exec 3<&0; (read line <&3) >/dev/null & echo $!")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = shell.stdin.take().unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    shell.wait().unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    queue[id].watch_pid(pid, 3).unwrap();
    assert!(is_silent(&mut queue), "it runs");
    drop(input);
    let event = take_one(&mut queue);
    assert_eq!((event.key, event.pid, event.exit), (3, pid, None));
    assert!(event.into_child().is_none());
}

#[test]
fn own_child_watched_by_pid_has_a_status_and_is_left_to_its_owner() {
    let (mut queue, id) = queue_of(4);
    for (script, code, signal) in [("exit 7", Some(7), None), ("kill -9 $$", None, Some(9))] {
        let mut child = sh(script).spawn().unwrap();
        queue[id].watch_pid(child.id(), 0).unwrap();
        let exit = take_one(&mut queue).exit.expect("the status of a child");
        assert_eq!((exit.code(), exit.signal()), (code, signal));
        assert_eq!(child.wait().unwrap(), exit, "the same status once more");
    }
}

/// Where the system keeps core files, the status says so.
#[test]
fn status_of_a_core_dump_by_pid_is_the_one_that_wait_gives() {
    let folder = std::env::temp_dir().join(format!("kevent-core-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (mut queue, id) = queue_of(4);
    let mut child = sh("ulimit -c unlimited; kill -ABRT $$").current_dir(&folder).spawn().unwrap();
    queue[id].watch_pid(child.id(), 0).unwrap();
    let exit = take_one(&mut queue).exit.unwrap();
    assert_eq!(exit.signal(), Some(Signal::ABRT.as_raw()));
    assert_eq!(child.wait().unwrap(), exit);
    if !exit.core_dumped() {
        println!("skipped: this system keeps no core files");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A queue that somebody else waits for has to say so by itself.
#[test]
fn child_that_had_ended_before_makes_the_queue_readable() {
    let (inner, id) = queue_of(4);
    let mut queue = Queue::new().unwrap();
    let inner = queue.attach(ChildQueue::new(inner), |event| event).unwrap();
    assert!(is_silent(&mut queue));
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    queue[inner][id].watch_child(child, 5).unwrap();
    let began = Instant::now();
    assert_eq!(take_one(&mut queue).key, 5);
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn pid_of_no_process_is_refused() {
    let mut source = Processes::new();
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let error = source.watch_pid(child.id(), 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&child.id().to_string()), "{error}");
    for pid in [0, u32::MAX] {
        let error = source.watch_pid(pid, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    assert!(source.is_empty());
}

#[test]
fn unwatched_child_comes_back_running_and_its_end_is_silent() {
    let (mut queue, id) = queue_of(4);
    let token = queue[id].watch_child(lingering(), 0).unwrap();
    let mut child = queue[id].unwatch(token).unwrap();
    assert!(queue[id].unwatch(token).is_none(), "only once");
    assert!(child.try_wait().unwrap().is_none(), "it runs");
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(is_silent(&mut queue));
}

#[test]
fn child_whose_event_is_in_the_ring_comes_back_with_its_pipes() {
    let (mut queue, id) = queue_of(4);
    let child = sh("echo words").stdout(Stdio::piped()).spawn().unwrap();
    let token = queue[id].watch_child(child, 0).unwrap();
    queue.wait(Wait::timeout(PATIENCE)).unwrap();
    assert_eq!(queue.len(), 1, "the event is in the ring");
    let mut child = queue[id].unwatch(token).unwrap();
    assert!(queue.next().is_none());
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(output, "words\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn hundred_children_at_once_each_end_once() {
    let (mut queue, id) = queue_of(8);
    for key in 0..100_u64 {
        let child = sh(&format!("exit {key}")).spawn().unwrap();
        queue[id].watch_child(child, key).unwrap();
    }
    let events = take(&mut queue, 100);
    assert!(events.iter().all(|e| e.exit.unwrap().code() == i32::try_from(e.key).ok()));
    let keys: BTreeSet<u64> = events.iter().map(|event| event.key).collect();
    assert_eq!(keys.len(), 100);
    assert!(is_silent(&mut queue));
}

#[test]
fn watches_before_attaching_and_across_queues_lose_nothing() {
    let mut source = Processes::new();
    source.watch_child(sh("exit 1").spawn().unwrap(), 1).unwrap();
    let mut ended = sh("exit 2").spawn().unwrap();
    ended.wait().unwrap();
    source.watch_child(ended, 2).unwrap();
    let mut first = Queue::new().unwrap();
    let id = first.attach(source, |event| event).unwrap();
    first.wait(Wait::timeout(PATIENCE).at_least(2)).unwrap();
    assert_eq!(first.len(), 2);
    let source = first.detach(id).unwrap();
    assert!(first.next().is_none());
    let mut second = Queue::new().unwrap();
    second.attach(source, |event| event).unwrap();
    let codes = take(&mut second, 2).into_iter().map(|e| (e.key, e.exit.unwrap().code()));
    assert_eq!(codes.collect::<BTreeSet<_>>(), [(1, Some(1)), (2, Some(2))].into());
    assert!(is_silent(&mut first), "and the queue that was left sleeps");
}

#[test]
fn ended_child_has_one_event_in_the_ring_though_its_pidfd_speaks_again() {
    let (mut queue, id) = queue_of(4);
    // Once when it ends, and by later kernels once more when it was waited for.
    queue[id].watch_child(sh("exit 0").spawn().unwrap(), 0).unwrap();
    assert_eq!(queue.wait(PATIENCE).unwrap(), 1);
    assert_eq!(queue.wait(Wait::timeout(SILENCE).at_least(2)).unwrap(), 1);
}

#[test]
fn detached_source_can_come_back_to_the_same_queue() {
    let (mut queue, id) = queue_of(4);
    let token = queue[id].watch_child(lingering(), 0).unwrap();
    let source = queue.detach(id).unwrap();
    source.kill(token, Signal::TERM).unwrap();
    assert!(is_silent(&mut queue));
    queue.attach(source, |event| event).unwrap();
    assert_eq!(take_one(&mut queue).exit.unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn kernel_without_pidfds_is_unsupported_and_the_child_comes_back() {
    Processes::probe().unwrap();
    let on_a_thread_of_its_own = || {
        if let Err(error) = forbid(libc::SYS_pidfd_open) {
            println!("skipped: no seccomp filter can be set here: {error}");
            return;
        }
        assert_eq!(Processes::probe().unwrap_err().kind(), io::ErrorKind::Unsupported);
        let mut source = Processes::new();
        let error = source.watch_child(lingering(), 0).unwrap_err();
        assert_eq!(error.error().kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("pidfd_open(2)"), "{error}");
        assert!(error.into_child().wait().unwrap().code().is_some());
        let error = source.watch_pid(std::process::id(), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(source.is_empty());
    };
    thread::spawn(on_a_thread_of_its_own).join().unwrap();
}

#[test]
fn dropped_source_leaves_no_zombies_in_whatever_order_its_children_end() {
    let (mut queue, id) = queue_of(4);
    let ends: Vec<_> = (0..3)
        .map(|key| {
            let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
            let child = sh("read line").stdin(std::os::fd::OwnedFd::from(reader)).spawn().unwrap();
            let pid = child.id();
            queue[id].watch_child(child, key).unwrap();
            (pid, writer)
        })
        .collect();
    drop(queue);
    for (pid, writer) in ends.into_iter().rev() {
        assert!(exists(pid), "a dropped source kills nobody");
        drop(writer);
        wait_until("an ended child is waited for", || !exists(pid));
    }
}

#[test]
fn dropped_source_closes_the_pipes_of_its_children() {
    let mut source = Processes::new();
    let child = lingering();
    let pid = child.id();
    source.watch_child(child, 0).unwrap();
    drop(source);
    wait_until("a child that reads the end of its input is waited for", || !exists(pid));
}
