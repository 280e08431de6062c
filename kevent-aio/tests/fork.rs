//! A child that drops the engine of its parent. A process of its own, with one test: a fork takes along
//! what the other threads are at.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use kevent_aio::{Aio, Choice, Op, Open, Read};
use kevent_core::Queue;

/// What became of a child that drops the engine and leaves.
fn drop_in_child(aio: Aio) -> (Aio, libc::c_int) {
    // SAFETY: the child drops a value and leaves, without running anything of the parent's at exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: takes a number. Ends the child if it hangs.
        unsafe { libc::alarm(10) };
        drop(aio);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    (aio, status)
}

/// The threads of a pool, one of which may hold any of its locks in the moment of the fork.
fn child_does_not_wait_for_threads_that_it_has_not() {
    for round in 0..200 {
        let mut aio = Aio::builder().backend(Choice::Pool).threads(4).build().unwrap();
        for key in 0..100 {
            aio.submit(Open::new("/dev/null"), key).unwrap();
        }
        assert_eq!(drop_in_child(aio).1, 0, "round {round}");
    }
}

#[test]
fn engine_dropped_by_a_forked_child_goes_on_in_the_parent() {
    let mut queue = Queue::new().unwrap();
    let id = queue.attach(Aio::new().unwrap(), |completion| completion).unwrap();
    let (reader, mut writer) = UnixStream::pair().unwrap();
    let read = Read::new(Arc::new(reader), 0, Vec::with_capacity(9));
    queue[id].submit(read, 1).unwrap();
    assert_eq!(queue.wait(kevent_core::Wait::poll()).unwrap(), 0);

    // The parent takes it out of the queue before, so that the child does not touch that.
    let aio = queue.detach(id).unwrap();
    let (aio, status) = drop_in_child(aio);
    assert_eq!(status, 0);

    let id = queue.attach(aio, |completion| completion).unwrap();
    assert_eq!(queue.wait(Duration::from_millis(30)).unwrap(), 0, "the child ended the read");
    assert_eq!(queue[id].in_flight(), 1);
    writer.write_all(b"unharmed").unwrap();
    assert_eq!(queue.wait(Duration::from_secs(20)).unwrap(), 1);
    let completion = queue.next().unwrap();
    assert_eq!(completion.result.unwrap(), 8);
    let Op::Read(read) = *completion.op else { panic!() };
    assert_eq!(read.into_buffer(), b"unharmed");
    child_does_not_wait_for_threads_that_it_has_not();
}
