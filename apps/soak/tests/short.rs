//! The soak itself, for seconds instead of an hour. Its own process, because it takes signals.

use std::process::Command;

fn soak(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_kevent-soak")).args(arguments).output();
    let output = output.expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{failed}");
    assert!(said.contains("all accounted for"), "{said}");
}

#[test]
fn every_event_is_accounted_for_where_one_thread_has_the_queue() {
    soak(&["--threads", "1", "--seed", "11", "500000"]);
}

#[test]
fn every_event_is_accounted_for_where_threads_share_the_queue() {
    soak(&["--threads", "3", "--seed", "12", "500000"]);
}
