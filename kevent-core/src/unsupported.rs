//! How every source says that the kernel lacks what it needs.

use std::io;

/// An error of the kind `Unsupported`: `what` is what was asked for, `needs` what is missing and
/// what to do about it.
pub(crate) fn unsupported(what: &str, needs: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{what} needs {needs}"))
}

/// Whether a system call failed because the kernel does not have it. A seccomp filter that is older
/// than the call may say EPERM for it, so this is only for calls that never do themselves.
pub(crate) fn is_missing_call(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}
