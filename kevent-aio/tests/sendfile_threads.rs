//! A thousand clients that do not read: what they cost. Alone in its process, because it counts the
//! threads of that.

#![allow(clippy::unwrap_used)] // In helpers of tests, too.
#![allow(unsafe_code)] // setrlimit(2): nothing safe is at hand.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use kevent_aio::{Aio, Choice, Sendfile};
use kevent_core::Queue;

const CLIENTS: u64 = 1000;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Raises the soft limit of open files to the hard one, and says what that is.
fn open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    limit.rlim_cur
}

#[test]
fn a_thousand_stalled_clients_take_no_thread() {
    if open_files() < 2 * CLIENTS + 100 {
        println!("skipped: too few open files are allowed");
        return;
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 1_000_000]).unwrap();
    let file = Arc::new(file);
    for choice in [Choice::Uring, Choice::Pool] {
        let Ok(engine) = Aio::builder().backend(choice).build() else {
            println!("skipped: {choice:?} can't be had here");
            continue;
        };
        let mut queue = Queue::new().unwrap();
        let aio = queue.attach(engine, |completion| completion).unwrap();
        let before = threads();
        let mut clients = Vec::new();
        for key in 0..CLIENTS {
            let (server, client) = UnixStream::pair().unwrap();
            server.set_nonblocking(true).unwrap();
            clients.push(client);
            queue[aio]
                .submit(Sendfile::new(Arc::new(server), file.clone(), 0, 1_000_000), key)
                .unwrap();
        }
        assert_eq!(queue.wait(Duration::from_millis(100)).unwrap(), 0);
        assert_eq!(queue[aio].in_flight() as u64, CLIENTS);
        assert_eq!(threads(), before);
        // They go away, and each transfer ends.
        drop(clients);
        let mut ended = 0;
        while ended < CLIENTS {
            assert!(queue.wait(Duration::from_secs(10)).unwrap() > 0);
            while let Some(completion) = queue.next() {
                assert!(completion.result.is_err());
                ended += 1;
            }
        }
    }
}
