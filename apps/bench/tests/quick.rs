//! Every topic runs, with every peer, and says so in all three ways. The figures mean nothing here.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_kevent-bench");

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH).args(arguments).output().expect("the bench starts")
}

/// Runs a topic, and checks that each of its goals is judged and none of its peers failed.
fn runs(topic: &str) {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().to_str().unwrap();
    let output = bench(&[topic, "--quick", "--rounds", "2", "--out", path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let lines = fs::read_to_string(out.path().join("results.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["kind"], "machine");
    let rounds: Vec<_> = lines.iter().filter(|line| line["kind"] == "rounds").collect();
    assert!(!rounds.is_empty());
    for line in rounds {
        assert!(line["group"].as_str().unwrap().starts_with(topic), "{line}");
        if needs_two_processors(&line["failure"]) {
            println!("skipped: {} has one processor only", line["group"]);
            continue;
        }
        assert_eq!(line["failure"], Value::Null, "{line}");
        let values = line["values"].as_array().unwrap();
        assert!(values.len() == 2 && values.iter().all(Value::is_number), "{line}");
    }
    let page = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("A quick run"));
}

fn needs_two_processors(failure: &Value) -> bool {
    failure.as_str().is_some_and(|text| text.contains("two processors"))
}

#[test]
fn user_runs() {
    runs("user");
}

#[test]
fn readiness_runs() {
    runs("readiness");
}

#[test]
fn timers_runs() {
    runs("timers");
}

#[test]
fn watch_runs() {
    runs("watch");
}

#[test]
fn aio_runs() {
    runs("aio");
}

#[test]
fn echo_runs() {
    runs("echo");
}

#[test]
fn memory_runs() {
    runs("memory");
}

#[test]
fn all_topics_have_a_test_here() {
    let output = bench(&["--list"]);
    let list = String::from_utf8(output.stdout).unwrap();
    let topics = list.lines().filter(|line| !line.starts_with(' '));
    let names: Vec<_> = topics.filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["user", "readiness", "timers", "watch", "aio", "echo", "memory"]);
}

#[test]
fn name_that_does_not_exist_is_told_and_nothing_is_written() {
    let out = tempfile::tempdir().unwrap();
    let output = bench(&["usre", "--out", out.path().to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--list"));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn directory_that_can_not_be_made_is_told() {
    let out = tempfile::tempdir().unwrap();
    let mut run = Command::new(BENCH);
    run.args(["memory", "--quick", "--out"]).arg(out.path()).current_dir("/proc/self");
    let output = run.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("can't make") && said.contains("(os error"), "{said}");
}

#[test]
fn run_that_is_killed_leaves_no_files_behind() {
    let place = tempfile::tempdir().unwrap();
    let is_empty = || fs::read_dir(place.path()).unwrap().next().is_none();
    let mut run = Command::new(BENCH);
    run.args(["timers", "--quick", "--rounds", "1000", "--out"]);
    run.arg(place.path().join("out")).current_dir(place.path()).stdout(Stdio::null());
    let mut run = run.spawn().unwrap();
    wait_until(|| fs::read_dir(place.path()).unwrap().count() == 2);
    run.kill().unwrap();
    run.wait().unwrap();
    fs::remove_dir_all(place.path().join("out")).unwrap();
    wait_until(is_empty);
}

fn wait_until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(20), "that takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}
