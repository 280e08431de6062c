//! Whatever an engine is busy with, everything else that can go on goes on.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kevent_aio::{Aio, Choice, Op, Open, Sendfile};
use kevent_core::Queue;

/// Operations that are under way all the time: more than one turn collects.
const OPENS: u64 = 4000;

#[test]
fn completions_that_never_end_do_not_keep_a_transfer_from_going_on() {
    let builder = Aio::builder().backend(Choice::Uring).capacity(2 * OPENS as usize);
    let Ok(aio) = builder.build() else {
        println!("skipped: no ring can be had here");
        return;
    };
    // A smaller one would be full before the engine has given out all that is done.
    let mut queue = Queue::with_capacity(8192.try_into().unwrap()).unwrap();
    let aio = queue.attach(aio, |completion| completion).unwrap();
    // The kernel is done with these as soon as they are submitted.
    let open = || Open::new("/no-such-file");
    for key in 0..OPENS {
        queue[aio].submit(open(), key).unwrap();
    }

    let (socket, mut client) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let receiver = thread::spawn(move || {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got.len()
    });
    let length = 1_000_000;
    let transfer = Sendfile::bytes(Arc::new(socket), vec![0; length]);
    queue[aio].submit(transfer, OPENS).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut opens = 0;
    let sent = 'sent: loop {
        queue.wait(Duration::from_secs(1)).unwrap();
        while let Some(completion) = queue.next() {
            if matches!(*completion.op, Op::Sendfile(_)) {
                break 'sent completion.result.unwrap();
            }
            queue[aio].submit(open(), completion.key).unwrap();
            opens += 1;
        }
        assert!(Instant::now() < deadline, "{opens} files were opened, and nothing was sent");
    };
    assert_eq!(sent, length as u64);
    drop(queue);
    assert_eq!(receiver.join().unwrap(), length);
}
