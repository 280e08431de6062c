//! The calls on sockets. None of them waits, but for `accept` and `connect` on a blocking socket.
//!
//! # Safety
//!
//! Every call below passes descriptors that are borrowed, so open, and memory that is borrowed for as
//! long as the call takes.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::address::RawAddress;
use crate::operation::{Errno, Outcome};
use crate::sys::file::status_flags;
use crate::sys::{once, retry};

/// Whether calls on it say EAGAIN instead of waiting.
pub(crate) fn is_nonblocking(socket: BorrowedFd<'_>) -> bool {
    status_flags(socket).is_ok_and(|flags| flags & libc::O_NONBLOCK != 0)
}

/// accept4(2), with its `SOCK_*` flags.
pub(crate) fn accept(listener: BorrowedFd<'_>, peer: &mut RawAddress, flags: i32) -> Outcome {
    let fd = listener.as_raw_fd();
    retry(|| {
        let (address, length) = peer.room();
        // SAFETY: `peer` has the room that it says, and outlives the call.
        unsafe { libc::accept4(fd, address, length, flags).into() }
    })
}

/// getpeername(2).
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Result<RawAddress, Errno> {
    let mut peer = RawAddress::blank();
    let (address, length) = peer.room();
    // SAFETY: `peer` has the room that it says, and outlives the call.
    once(|| unsafe { libc::getpeername(socket.as_raw_fd(), address, length).into() })?;
    Ok(peer)
}

/// connect(2). One that a signal interrupts goes on by itself. The call that follows one which went on
/// without the caller tells how that ended.
pub(crate) fn connect(socket: BorrowedFd<'_>, to: &RawAddress) -> Outcome {
    let (address, length) = to.parts();
    // SAFETY: `to` is as long as it says, and outlives the call.
    once(|| unsafe { libc::connect(socket.as_raw_fd(), address, length).into() })
}

/// Begins connect(2), and does not wait for its end: EINPROGRESS. The socket is as blocking after it as
/// before it.
pub(crate) fn begin_connect(socket: BorrowedFd<'_>, to: &RawAddress) -> Outcome {
    let flags = status_flags(socket)?;
    if flags & libc::O_NONBLOCK != 0 {
        return connect(socket, to);
    }
    set_status_flags(socket, flags | libc::O_NONBLOCK)?;
    let outcome = connect(socket, to);
    set_status_flags(socket, flags)?;
    outcome
}

fn set_status_flags(fd: BorrowedFd<'_>, flags: i32) -> Outcome {
    // SAFETY: this command takes a number.
    once(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags).into() })
}

/// recvfrom(2) without waiting, whatever mode the socket is in. `from`, if it is wanted, is where the
/// data came from.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    room: &mut [MaybeUninit<u8>],
    flags: i32,
    mut from: Option<&mut RawAddress>,
) -> Outcome {
    let (fd, flags) = (socket.as_raw_fd(), flags | libc::MSG_DONTWAIT);
    let (pointer, len) = (room.as_mut_ptr().cast(), room.len());
    retry(|| {
        let (address, length) = match &mut from {
            Some(from) => from.room(),
            None => (ptr::null_mut(), ptr::null_mut()),
        };
        // SAFETY: `room` and `from` are writable for their lengths.
        unsafe { libc::recvfrom(fd, pointer, len, flags, address, length) as i64 }
    })
}

/// sendto(2) without waiting, whatever mode the socket is in, and without SIGPIPE. Without an address it
/// goes to where the socket is connected.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    data: &[u8],
    flags: i32,
    to: Option<&RawAddress>,
) -> Outcome {
    let (fd, flags) = (socket.as_raw_fd(), flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    let (pointer, len) = (data.as_ptr().cast(), data.len());
    let (address, length) = to.map_or((ptr::null(), 0), RawAddress::parts);
    // SAFETY: `data` and `to` are readable for their lengths.
    retry(|| unsafe { libc::sendto(fd, pointer, len, flags, address, length) as i64 })
}

/// Whether what comes is datagrams, which may be empty: not the end.
pub(crate) fn is_datagram(socket: BorrowedFd<'_>) -> bool {
    let mut kind: i32 = 0;
    let mut length = size_of::<i32>() as libc::socklen_t;
    let (pointer, length) = ((&raw mut kind).cast(), &raw mut length);
    let fd = socket.as_raw_fd();
    // SAFETY: the kind is as long as it says, and both outlive the call.
    let asked = once(|| unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, pointer, length).into()
    });
    asked.is_ok() && !matches!(kind, libc::SOCK_STREAM | libc::SOCK_SEQPACKET)
}

/// shutdown(2), with one of `SHUT_*`.
pub(crate) fn shutdown(socket: BorrowedFd<'_>, how: i32) -> Outcome {
    // SAFETY: takes numbers only.
    retry(|| unsafe { libc::shutdown(socket.as_raw_fd(), how).into() })
}

/// Whether a connection can be accepted, or accepting fails.
pub(crate) fn is_readable(socket: BorrowedFd<'_>) -> bool {
    poll(socket, libc::POLLIN)
}

/// Whether a connect has ended, well or badly.
pub(crate) fn is_writable(socket: BorrowedFd<'_>) -> bool {
    poll(socket, libc::POLLOUT)
}

/// Looks whether `fd` is ready for one of `events`, or broken, or no file that can be waited for.
fn poll(fd: BorrowedFd<'_>, events: i16) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    retry(|| unsafe { libc::poll(&raw mut poll, 1, 0).into() }) != Ok(0)
}
