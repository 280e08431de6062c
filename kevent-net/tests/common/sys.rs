//! The system calls that std does not make (std::io::pipe is newer than our Rust).

#![allow(clippy::unwrap_used)] // Helpers of tests.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The answer of a system call, or a failed test.
fn must(answer: libc::c_int) -> libc::c_int {
    assert!(answer >= 0, "{}", io::Error::last_os_error());
    answer
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor that the kernel just made for it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A pipe: where to read and where to write.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two.
    must(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) });
    (own(ends[0]), own(ends[1]))
}

pub fn eventfd() -> OwnedFd {
    // SAFETY: the call takes no memory.
    own(must(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }))
}

/// A duplicate of `fd` under the number `number`, which nobody may use.
pub fn duplicate_as(fd: &impl AsFd, number: RawFd) -> OwnedFd {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the caller says that nobody owns `number`, so nothing is closed by this.
    own(must(unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) }))
}

/// Makes closing the TCP socket reset its connection.
pub fn reset_on_close(socket: &impl AsFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = libc::socklen_t::try_from(size_of_val(&linger)).unwrap();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `linger` is as long as `size` says and is copied before the call returns.
    must(unsafe { libc::setsockopt(fd, level, name, (&raw const linger).cast(), size) });
}

/// Sends one byte of urgent data.
pub fn send_urgent(socket: &impl AsFd) {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the one byte lives for the whole program.
    let sent = unsafe { libc::send(fd, b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

/// Lets the process have as many descriptors as its hard limit allows, and says how many.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call.
    must(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) });
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` lives through the call.
    must(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) });
    limit.rlim_cur
}

/// Lets the process have `count` descriptors and no more.
pub fn set_descriptor_limit(count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: `limit` lives through the call.
    must(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) });
}

/// Makes a system call fail with `errno` in this thread from now on, as under a seccomp filter.
pub fn refuse(call: libc::c_long, errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        // The number of the call, which `seccomp_data` begins with.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1, // If it is another, skip a line.
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: passes numbers. Without new privileges a filter needs none.
    must(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    // SAFETY: the filter and its program live through the call.
    must(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    });
}
