//! pidfd_open(2): a process as a descriptor, which is readable once the process has ended.
//!
//! # Safety
//!
//! Every call below passes a descriptor that it owns and memory that it owns.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::unsupported::{is_missing_call, unsupported};

/// One process. Unlike its number, never another one.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    /// # Errors
    ///
    /// `NotFound` when there is no such process, `Unsupported` when the kernel, or a filter around
    /// the program, has no pidfd_open(2).
    pub(crate) fn open(pid: u32) -> io::Result<PidFd> {
        let flags: libc::c_uint = 0;
        // SAFETY: takes numbers only. One that is no pid is refused.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, flags) };
        if fd < 0 {
            return Err(explain(io::Error::last_os_error(), pid));
        }
        // SAFETY: the kernel has just made it, close-on-exec, and nobody else knows it.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal to the process.
    pub(crate) fn send_signal(&self, signal: i32) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        let (info, flags) = (std::ptr::null::<libc::siginfo_t>(), 0 as libc::c_uint);
        // SAFETY: without a siginfo the kernel makes one.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, flags) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// How the process ended, if it is a child of this one that nobody has waited for yet. It is left
    /// to whoever means to.
    pub(crate) fn peek_exit(&self) -> Option<ExitStatus> {
        // SAFETY: zero is a value of each of its fields.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let fd = self.0.as_raw_fd() as libc::id_t;
        // SAFETY: `info` is written.
        let done = unsafe { libc::waitid(libc::P_PIDFD, fd, &raw mut info, how) };
        // Without a child that has ended the kernel leaves the signal's number zero: waitid(2).
        if done != 0 || info.si_signo != libc::SIGCHLD {
            return None;
        }
        // SAFETY: waitid(2) fills it in for a child that has ended.
        let status = unsafe { info.si_status() };
        // As wait(2) packs it, which is what std unpacks.
        Some(ExitStatus::from_raw(match info.si_code {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_DUMPED => status | 0x80,
            _ => status,
        }))
    }
}

fn explain(error: io::Error, pid: u32) -> io::Error {
    if is_missing_call(&error) {
        let needs = "pidfd_open(2): Linux 5.3, and a seccomp filter that allows it";
        return unsupported("watching processes", needs);
    }
    let (kind, text) = match error.raw_os_error() {
        // A thread that does not lead its process is answered with EINVAL, or ENOENT by later kernels.
        Some(libc::ESRCH | libc::ENOENT) => {
            (io::ErrorKind::NotFound, format!("no process has the pid {pid}"))
        }
        Some(libc::EINVAL) => {
            (io::ErrorKind::InvalidInput, format!("{pid} is not the pid of a process"))
        }
        _ => return error,
    };
    io::Error::new(kind, text)
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_without_pidfds_is_unsupported() {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let error = explain(io::Error::from_raw_os_error(errno), 1);
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn shortage_of_descriptors_is_told_as_it_is() {
        let error = explain(io::Error::from_raw_os_error(libc::EMFILE), 1);
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    }
}
