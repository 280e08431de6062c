//! `KEVENT_AIO` chooses the backend. It is the process's, so each case is a process of its own.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use kevent_aio::{Aio, Choice};

/// Says what a program gets under `KEVENT_AIO=value`.
fn program_under(value: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", "program", "--nocapture", "--ignored"])
        .env("KEVENT_AIO", value)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "it is the program that the others start"]
fn program() {
    match Aio::new() {
        Ok(aio) => println!("{}", aio.report()),
        Err(error) => println!("error: {error}"),
    }
    let pool = Aio::builder().backend(Choice::Pool).build().unwrap();
    println!("by name: {}", pool.report());
}

#[test]
fn variable_chooses_where_the_program_leaves_it_open() {
    assert!(program_under("pool").contains("\nbackend: worker pool"));
    let ring = Aio::builder().backend(Choice::Uring).build();
    for value in ["uring", "auto", ""] {
        let said = program_under(value);
        match &ring {
            Ok(_) => assert!(said.contains("\nbackend: io_uring"), "{value}: {said}"),
            Err(error) => println!("skipped: {error}"),
        }
        assert!(said.contains("by name: backend: worker pool"), "{value}: {said}");
    }
}

#[test]
fn nonsense_in_the_variable_is_an_error_that_says_what_to_write() {
    let said = program_under("threads");
    assert!(
        said.contains("error: KEVENT_AIO is \"threads\"; set it to auto, uring or pool"),
        "{said}"
    );
}
