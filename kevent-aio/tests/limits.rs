//! Limits of the process, from the start and in mid-life: results are right, nothing is lost, nothing
//! hangs. A limit is the process's, so each case is a process of its own.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Bench, honest};
use kevent_aio::{Aio, Choice, Fsync, Op, Open, Read, Write};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A user without privileges: limits don't hold for root.
const NOBODY: u32 = 65534;

/// Runs one of the cases below as a process, once with each choice for [`Aio::new`].
fn process(case: &str, user: Option<u32>) {
    for choice in ["auto", "pool"] {
        process_with(choice, case, user);
    }
}

fn process_with(choice: &str, case: &str, user: Option<u32>) {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(&program);
    command.env("KEVENT_AIO", choice);
    command.args(["--exact", case, "--nocapture", "--ignored"]).current_dir("/");
    if let Some(user) = user {
        if let Err(error) = Command::new("true").uid(user).gid(user).status() {
            return println!("skipped: no other user can be had: {error}");
        }
        command.uid(user).gid(user);
    }
    let output = match command.stderr(Stdio::piped()).output() {
        Ok(output) => output,
        // A folder on the way may be its owner's alone.
        Err(error) => return println!("skipped: {} as {user:?}: {error}", program.display()),
    };
    let (said, why) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{case}: {}\n{said}\n{why}", output.status);
    assert!(said.contains("1 passed"), "{case} did not run: {said}");
    said.lines().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
}

fn limit(resource: Resource, most: u64) {
    let limits = Rlimit { current: Some(most), ..getrlimit(resource) };
    setrlimit(resource, limits).unwrap();
}

/// Writes, syncs and reads, more than one at a time.
fn everything_works(bench: &mut Bench, case: &str) {
    let file: Arc<File> = Arc::new(tempfile::tempfile().unwrap());
    for key in 0..100 {
        bench.submit(Write::new(file.clone(), key * 3, format!("{key:03}")), key);
    }
    for _ in 0..100 {
        assert_eq!(bench.next().result.unwrap(), 3, "{case}");
    }
    bench.complete(Fsync::new(file.clone())).result.unwrap();
    for key in 0..100 {
        bench.submit(Read::new(file.clone(), key * 3, Vec::with_capacity(3)).cold(), key);
    }
    for _ in 0..100 {
        let completion = bench.next();
        let Op::Read(read) = *completion.op else { panic!() };
        assert_eq!(read.data(), format!("{:03}", completion.key).as_bytes(), "{case}");
    }
    assert_eq!(bench.aio().in_flight(), 0);
}

#[test]
fn locked_memory_of_8_mib_or_none_will_do() {
    process("case_memory_of_8_mib", Some(NOBODY));
    process("case_no_memory", Some(NOBODY));
}

#[test]
#[ignore = "is run by the test above, as a process of its own"]
fn case_memory_of_8_mib() {
    memory(8 << 20);
}

#[test]
#[ignore = "is run by the test above, as a process of its own"]
fn case_no_memory() {
    memory(0);
}

fn memory(most: u64) {
    limit(Resource::Memlock, most);
    let mut bench = Bench::around(Aio::builder().capacity(32_768).build().unwrap());
    let case = format!("{most} bytes, {}", bench.aio().report());
    everything_works(&mut bench, &case);
    // As many as the engine may have.
    let zero: Arc<File> = Arc::new(File::open("/dev/zero").unwrap());
    for key in 0..32_768 {
        bench.submit(Read::new(zero.clone(), 0, Vec::with_capacity(8)).cold(), key);
    }
    let mut keys = vec![false; 32_768];
    for _ in 0..32_768 {
        let completion = bench.next();
        assert_eq!(completion.result.unwrap(), 8, "{case}");
        assert!(!std::mem::replace(&mut keys[completion.key as usize], true), "{case}");
    }
}

#[test]
fn descriptors_used_up_fail_what_opens_and_nothing_else() {
    process("case_no_descriptors", None);
}

#[test]
#[ignore = "is run by the test above, as a process of its own"]
fn case_no_descriptors() {
    let mut bench = Bench::around(Aio::new().unwrap());
    let status: Arc<File> = Arc::new(File::open("/proc/self/status").unwrap());
    let before = getrlimit(Resource::Nofile).current.unwrap();
    let mut hold = Vec::new();
    limit(Resource::Nofile, 100);
    while let Ok(file) = File::open("/dev/null") {
        hold.push(file);
    }
    for key in 0..20 {
        bench.submit(Open::new("/dev/null"), key);
        bench.submit(Read::new(status.clone(), 0, Vec::with_capacity(5)).cold(), 100 + key);
    }
    for _ in 0..40 {
        let completion = bench.next();
        match *completion.op {
            Op::Open(_) => {
                let errno = completion.result.unwrap_err().raw_os_error();
                assert_eq!(errno, Some(libc::EMFILE));
            }
            Op::Read(read) => assert_eq!(read.data(), b"Name:"),
            other => panic!("not submitted: {other:?}"),
        }
    }
    // No ring can be had now.
    assert!(Aio::builder().backend(Choice::Uring).build().is_err());
    // And when there are some again, it goes on.
    hold.truncate(1);
    bench.complete(Open::new("/dev/null")).result.unwrap();
    drop(hold);
    limit(Resource::Nofile, before);
    everything_works(&mut bench, "descriptors again");
}

#[test]
fn file_that_grows_beyond_the_limit_is_an_error_and_does_not_kill_the_process() {
    process("case_file_size", None);
}

#[test]
#[ignore = "is run by the test above, as a process of its own"]
fn case_file_size() {
    // The signal's default is to end the process. Nobody has changed that here.
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file: Arc<File> = Arc::new(tempfile::tempfile().unwrap());
        limit(Resource::Fsize, 10_000);
        let errno = bench.complete(Write::new(file.clone(), 10_000, "x")).result.unwrap_err();
        assert_eq!(errno.raw_os_error(), Some(libc::EFBIG), "{name}");
        let count = bench.complete(Write::new(file.clone(), 9_990, vec![7; 100])).result.unwrap();
        assert_eq!(count, 10, "{name}: what there is room for is written");
        assert_eq!(file.metadata().unwrap().len(), 10_000, "{name}");
        let errno = bench.complete(kevent_aio::Fallocate::new(file, 0, 20_000)).result;
        assert_eq!(errno.unwrap_err().raw_os_error(), Some(libc::EFBIG), "{name}");
        everything_works(&mut bench, name);
    }
}

/// The ring makes such a write on the submitting thread, which the kernel sends SIGXFSZ as it does the
/// caller of pwrite(2). That is the program's to ignore, as here.
#[test]
fn file_that_grows_beyond_the_limit_by_direct_writes_is_an_error_to_who_ignores_the_signal() {
    let program = std::env::current_exe().unwrap();
    let script = r#"trap '' XFSZ; exec "$0" --exact case_file_size_direct --ignored"#;
    // What it prints goes into a pipe: a file would be too long for its limit.
    let output = Command::new("sh").arg("-c").arg(script).arg(program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "is run by the test above, as a process of its own"]
fn case_file_size_direct() {
    let named = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut options = File::options();
    options.write(true).custom_flags(libc::O_DIRECT);
    let file: Arc<File> = match options.open(named.path()) {
        Ok(file) => Arc::new(file),
        Err(error) => return println!("skipped: no O_DIRECT here: {error}"),
    };
    limit(Resource::Fsize, 8192);
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let errno = bench.complete(Write::new(file.clone(), 8192, vec![1; 4096])).result;
        assert_eq!(errno.unwrap_err().raw_os_error(), Some(libc::EFBIG), "{name}");
    }
}

#[test]
fn threads_that_can_not_be_had_fail_what_needs_them_and_lose_nothing() {
    process("case_no_threads", Some(NOBODY));
}

#[test]
#[ignore = "is run by the test above, as a process of its own"]
fn case_no_threads() {
    let before = getrlimit(Resource::Nproc).current;
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file: Arc<File> = Arc::new(tempfile::tempfile().unwrap());
        limit(Resource::Nproc, 1);
        for key in 0..100 {
            bench.submit(Write::new(file.clone(), key * 3, format!("{key:03}")), key);
        }
        let mut written = vec![0; 300];
        for _ in 0..100 {
            let completion = bench.next();
            match completion.result {
                Ok(count) => {
                    let at = completion.key as usize * 3;
                    written[at..at + 3]
                        .copy_from_slice(format!("{:03}", completion.key).as_bytes());
                    assert_eq!(count, 3, "{name}");
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{name}"),
            }
        }
        let mut there = vec![0; file.metadata().unwrap().len() as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut there, 0).unwrap();
        assert!(written.starts_with(&there), "{name}");
        setrlimit(Resource::Nproc, Rlimit { current: before, ..getrlimit(Resource::Nproc) })
            .unwrap();
        everything_works(&mut bench, name);
    }
}

#[test]
fn children_of_the_program_come_and_go_while_operations_are_in_flight() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let file: Arc<File> = Arc::new(tempfile::tempfile().unwrap());
        for round in 0..10 {
            for key in 0..20 {
                bench.submit(Write::new(file.clone(), key * 3, format!("{key:03}")), key);
            }
            bench.turn();
            let status = Command::new("true").status().unwrap();
            assert!(status.success(), "{name}, {round}");
            (0..20).for_each(|_| assert_eq!(bench.next().result.unwrap(), 3, "{name}, {round}"));
        }
        everything_works(&mut bench, name);
    }
}

#[test]
fn completions_that_nobody_takes_for_long_are_all_there_in_the_end() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.capacity(5000));
        let zero: Arc<File> = Arc::new(File::open("/dev/zero").unwrap());
        // More than come out of one wait, and than go onto the ring in one call.
        for key in 0..5000 {
            bench.submit(Read::new(zero.clone(), 0, Vec::with_capacity(8)).cold(), key);
            if key % 7 == 0 {
                bench.turn();
            }
        }
        let refused = bench.aio().submit(Read::new(zero.clone(), 0, Vec::new()), 0).unwrap_err();
        assert_eq!(refused.error.kind(), std::io::ErrorKind::WouldBlock, "{name}");
        let mut keys = vec![false; 5000];
        for _ in 0..5000 {
            let completion = bench.next();
            assert_eq!(completion.result.unwrap(), 8, "{name}");
            assert!(!std::mem::replace(&mut keys[completion.key as usize], true), "{name}");
        }
        bench.is_silent();
    }
}
