//! A thread that fails ends the process, in words.
//!
//! No client can make a thread fail, so here is a process of the tests' own: this program, started
//! once more with a word in its environment that says which test is to fail.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

use std::env;
use std::io;
use std::process::{Command, Output};
use std::thread;

use kevent_serve::vital;

const FAILING: &str = "KEVENT_SERVE_FAILING_TEST";

/// Runs the test of that name in a process of its own, in which it is to fail.
fn failing(test: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(FAILING, test).output().unwrap()
}

fn is_to_fail(test: &str) -> bool {
    env::var_os(FAILING).is_some_and(|failing| failing == test)
}

fn assert_ended(output: &Output, line: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{text}");
}

#[test]
fn thread_that_panics_ends_the_process_and_is_named() {
    let test = "thread_that_panics_ends_the_process_and_is_named";
    if is_to_fail(test) {
        vital::spawn("serve-1".into(), || panic!("a bug")).unwrap();
        loop {
            thread::park(); // As a thread does that waits for clients.
        }
    }
    let line = "kevent-serve: thread serve-1 failed, which ends the server: it panicked";
    assert_ended(&failing(test), line);
}

#[test]
fn thread_that_fails_ends_the_process_and_says_why() {
    let test = "thread_that_fails_ends_the_process_and_says_why";
    if is_to_fail(test) {
        let _waits = vital::spawn("serve-1".into(), || {
            loop {
                thread::park();
            }
        });
        vital::run("serve-0", || Err(io::Error::other("no queue")));
        unreachable!("it has ended");
    }
    let line = "kevent-serve: thread serve-0 failed, which ends the server: no queue";
    assert_ended(&failing(test), line);
}

#[test]
fn thread_that_finishes_ends_nothing() {
    vital::spawn("serve-1".into(), || Ok(())).unwrap().join().unwrap();
}
