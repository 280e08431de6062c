//! Runs a program as a container would whose seccomp filter refuses io_uring:
//!
//! ```sh
//! without-io-uring PROGRAM [ARGUMENT...]
//! ```
//!
//! # Safety
//!
//! Two calls of prctl(2). The filter that is passed lives until the call returns; the kernel copies it.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: without-io-uring PROGRAM [ARGUMENT...]");
        return ExitCode::from(2);
    };
    if let Err(error) = refuse_io_uring() {
        eprintln!("without-io-uring: the kernel does not take the filter: {error}");
        return ExitCode::FAILURE;
    }
    // Returns only when there is nothing to run. The filter passes to whatever is.
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("without-io-uring: {}: {error}", program.to_string_lossy());
    ExitCode::FAILURE
}

/// Has the three system calls of io_uring fail with EPERM, in this process and all that come from it.
fn refuse_io_uring() -> io::Result<()> {
    // One number for all architectures that Rust runs Linux on; 425 setup, 426 enter, 427 register.
    const FIRST: u32 = libc::SYS_io_uring_setup as u32;
    const LAST: u32 = libc::SYS_io_uring_register as u32;
    let code = |bits: u32| bits as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        // The number of the system call is the first word of what the filter looks at.
        step(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0, 0, 0),
        step(code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K), 0, 2, FIRST),
        step(code(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K), 1, 0, LAST),
        step(code(libc::BPF_RET | libc::BPF_K), 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(code(libc::BPF_RET | libc::BPF_K), 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let (mode, program) = (libc::SECCOMP_MODE_FILTER, &raw const program);
    // SAFETY: `program` points to `len` instructions, which the kernel only reads.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, program) })
}

fn check(done: i32) -> io::Result<()> {
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
