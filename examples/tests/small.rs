//! What the small examples print.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use common::Running;
use kevent_core::{Pressure, Source};

fn output(command: &mut Command) -> String {
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn timers_come_in_their_order_and_the_cancelled_one_does_not() {
    let text = output(&mut Command::new(env!("CARGO_BIN_EXE_timer")));
    let once = text.find("50 ms are over").unwrap();
    assert!(once < text.find("it is time").unwrap());
    assert!(text.contains("tick, "));
    assert!(!text.contains("cancelled"));
}

#[test]
fn timer_change_and_signal_come_out_of_one_queue() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_together"));
    let mut running = Running::start(command.current_dir(&folder));
    assert_eq!(running.line(), "a second is over, 0 were missed");
    fs::write(folder.path().join("file"), "text").unwrap();
    while running.line() != "Created ./file" {}
    running.send("-INT");
    assert!(running.end().success());
}

/// The one that is promised to compile is this file.
#[test]
fn readme_shows_the_example_as_it_is() {
    let readme = include_str!("../../README.md");
    let source = include_str!("../src/bin/together.rs");
    let program = source.split_once("\n\n").unwrap().1;
    assert!(readme.contains(&format!("```rust\n{program}```")));
}

#[test]
fn signals_are_told_with_their_sender_until_the_one_that_ends() {
    let mut running = Running::start(&mut Command::new(env!("CARGO_BIN_EXE_signal")));
    assert!(running.line().starts_with("process "));
    for (name, says) in [("-USR1", "SIGUSR1 from process "), ("-TERM", "SIGTERM from process ")] {
        running.send(name);
        let line = running.line();
        assert!(line.starts_with(says), "{line:?}");
    }
    assert_eq!(running.line(), "", "it has ended");
}

#[test]
fn each_child_tells_how_it_ended() {
    let text = output(&mut Command::new(env!("CARGO_BIN_EXE_process")));
    for status in 0..3 {
        assert!(text.contains(&format!("child {status}: exit status: {status}")), "{text}");
    }
}

#[test]
fn changes_of_a_folder_are_printed_until_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watch"));
    let mut running = Running::start(command.arg(&root));
    assert!(running.line().starts_with("watching "));
    fs::write(root.join("a"), "text").unwrap();
    assert_eq!(running.line(), format!("Created {}", root.join("a").display()));
    fs::rename(root.join("a"), root.join("b")).unwrap();
    let moved = format!("{} is now {}", root.join("a").display(), root.join("b").display());
    while running.line() != moved {}
    fs::remove_dir_all(&root).unwrap();
    while !running.line().is_empty() {}
}

#[test]
fn file_is_sent_between_its_header_and_its_trailer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_ne_bytes).collect();
    fs::write(&path, &content).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sendfile"));
    let mut running = Running::start(command.arg(&path));
    let address = running.address();
    for _ in 0..2 {
        let mut got = Vec::new();
        TcpStream::connect(address).unwrap().read_to_end(&mut got).unwrap();
        assert!(got == [b"-- begin --\n", content.as_slice(), b"-- end --\n"].concat());
        assert_eq!(running.line(), format!("sent {} bytes", content.len() + 22));
    }
}

#[test]
fn copy_is_whole_and_says_what_each_step_has_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let content = [b"0123456789".repeat(40_000), b"end".to_vec()].concat();
    fs::write(path("from"), &content).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_copy"));
    let text = output(command.arg(path("from")).arg(path("to")));
    assert!(text.contains("Read: 5 times, 400003 bytes, Done(0)"), "{text}");
    assert!(text.contains("cleaned up behind step 0: Ok(0)"), "{text}");
    assert!(fs::read(path("to")).unwrap() == content);
    assert!(!path("to.tmp").exists());
}

#[test]
fn chain_reports_each_step_and_sends_header_and_file() {
    let text = output(Command::new(env!("CARGO_BIN_EXE_chain")).arg("Cargo.toml"));
    let steps = ["Open: Done", "Statx: Done", "Sendfile: Done", "Close: Done"];
    assert!(steps.iter().zip(text.lines()).all(|(says, line)| line.starts_with(says)), "{text}");
    let size = fs::metadata("Cargo.toml").unwrap().len();
    assert!(text.ends_with(&format!("the file has {size} bytes\n")), "{text}");
}

#[test]
fn cold_reads_are_measured_by_every_way() {
    // On a disk, if the build is: a temporary directory in memory has no cold files.
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all(&vec![7; 4 << 20]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_buffered"));
    let text = output(command.arg(file.path()).arg("500"));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("500 reads of 4096 bytes"));
    let ways = lines.skip(1).map(|line| line.split("  ").next().unwrap()).collect::<Vec<_>>();
    assert_eq!(ways, ["pread", "io_submit", "kevent, ring", "kevent, pool"]);
    let pool = text.lines().last().unwrap();
    let numbers = pool.split_whitespace().skip(2).map(|n| n.parse().unwrap()).collect::<Vec<u64>>();
    assert!(numbers.len() == 3 && numbers[0] > 0, "{pool}");
}

#[test]
fn processes_add_to_one_counter() {
    let text = output(&mut Command::new(env!("CARGO_BIN_EXE_counter")));
    assert!(text.ends_with("sum: 21\n"), "{text}");
}

#[test]
fn sessions_time_out_after_their_messages_and_the_queue_is_idle_in_between() {
    let text = output(&mut Command::new(env!("CARGO_BIN_EXE_sessions")));
    let at = |line| text.find(line).unwrap_or_else(|| panic!("no {line:?} in {text:?}"));
    for (message, timeout) in [("left: 0", "left: timed out"), ("right: 1", "right: timed out")] {
        assert!(at(message) < at("nothing to do") && at("nothing to do") < at(timeout), "{text}");
    }
}

#[test]
fn pressure_is_told_per_resource() {
    if let Err(error) = Pressure::probe() {
        println!("skipped: {error}");
        return;
    }
    let mut running = Running::start(&mut Command::new(env!("CARGO_BIN_EXE_pressure")));
    for resource in ["Cpu: ", "Memory: ", "Io: "] {
        let line = running.line();
        assert!(line.starts_with(resource) && line.ends_with(" %"), "{line:?}");
    }
}

/// In a mount namespace of its own, which `nsenter` joins.
#[test]
fn mounts_are_told_as_they_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().to_str().unwrap();
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|it| it.success()) {
        println!("skipped: no mount namespace can be had here");
        return;
    }
    let mut command = Command::new("unshare");
    let mut running = Running::start(command.args(["--mount", env!("CARGO_BIN_EXE_mounts")]));
    assert!(running.line().ends_with(" are mounted"));
    let pid = running.pid().to_string();
    let in_it = |command: &[&str]| {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--mount", "--target", &pid]).args(command);
        assert!(nsenter.status().unwrap().success(), "{command:?}");
    };
    in_it(&["mount", "-t", "tmpfs", "a thing", point]);
    assert_eq!(running.line(), format!("mounted \"a thing\" at {point}"));
    in_it(&["umount", point]);
    assert_eq!(running.line(), format!("unmounted {point}"));
}

#[test]
fn events_are_awaited_in_a_task() {
    let text = output(&mut Command::new(env!("CARGO_BIN_EXE_tokio")));
    assert_eq!(text, "posted by a task\ntimer 7\n");
}

#[test]
fn asynchronous_function_runs_without_a_runtime() {
    let text = output(&mut Command::new(env!("CARGO_BIN_EXE_block_on")));
    assert_eq!(text, "posted by a thread\ntick 1\ntick 2\ntick 3\n");
}

#[test]
fn each_of_a_thousand_tasks_gets_its_own_event() {
    let text = output(&mut Command::new(env!("CARGO_BIN_EXE_tasks")));
    let keys: u64 = (0..1_000).sum();
    let says =
        format!("nobody waited for timer 4242\nall have slept: {keys}\nposted to one of them\n");
    assert_eq!(text, says);
}
