//! A peer that is gone raises no SIGPIPE. A process of its own, since Rust ignores the signal and this
//! test undoes that: raised once, it would end the process.

#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)]

mod common;

use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use common::{Bench, honest};
use kevent_aio::{Op, Send, SendTo, Sendfile};

#[test]
fn sends_to_a_peer_that_is_gone_are_errors_and_raise_no_signal() {
    // SAFETY: sets a disposition, which no handler is part of.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        for nonblocking in [false, true] {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_nonblocking(nonblocking).unwrap();
            let near = Arc::new(near);
            // One that waits for room when the peer goes, and others that come too late.
            bench.submit(Send::new(near.clone(), vec![0; 4 << 20]).all(), 1);
            bench.turn();
            drop(far);
            let late: [Op; 2] = [
                Send::new(near.clone(), "late").into(),
                Sendfile::bytes(near.clone(), "late").into(),
            ];
            let completions = [bench.next()].into_iter();
            let completions: Vec<_> =
                completions.chain(late.map(|op| bench.complete(op))).collect();
            for completion in completions {
                let errno = completion.result.unwrap_err().raw_os_error();
                assert_eq!(errno, Some(libc::EPIPE), "{name}");
            }
        }
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0"));
        let gone = far.unwrap().local_addr().unwrap();
        let completion = bench.complete(SendTo::new(Arc::new(near), gone, "to nobody"));
        assert_eq!(completion.result.unwrap(), 9, "{name}: who sends a datagram is not told");
    }
}
