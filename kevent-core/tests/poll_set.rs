//! What a source may rely on in the poll set.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.
// One raw call: std can't send urgent data.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kevent_core::{
    Interest, PollKey, PollSet, Queue, Ready, Sink, Source, SourceId, Token, Trigger, Wait,
};

const PATIENCE: Duration = Duration::from_secs(10);

const SILENCE: Duration = Duration::from_millis(10);

/// Tells what the poll set says, and does nothing about it.
#[derive(Default)]
struct Probe {
    poll_set: Option<PollSet>,
    seen: Vec<Ready>,
}

impl Source for Probe {
    type Item = Ready;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.poll_set = Some(poll_set.clone());
        Ok(())
    }

    fn ready(&mut self, _: PollKey, ready: Ready) {
        self.seen.push(ready);
    }

    fn drain(&mut self, sink: &mut impl Sink<Ready>) -> io::Result<()> {
        self.seen.drain(..).try_for_each(|r| sink.push(Token::SOLE, r)).expect("the ring has room");
        Ok(())
    }
}

struct Bench {
    queue: Queue<Ready>,
    probe: SourceId<Probe>,
}

impl Bench {
    fn new() -> Bench {
        let mut queue = Queue::new().unwrap();
        let probe = queue.attach(Probe::default(), |ready| ready).unwrap();
        Bench { queue, probe }
    }

    fn set(&self) -> &PollSet {
        self.queue[self.probe].poll_set.as_ref().unwrap()
    }

    fn add(&self, fd: &impl AsFd, interest: Interest, trigger: Trigger) -> io::Result<()> {
        self.set().add(fd.as_fd(), PollKey::default(), interest, trigger)
    }

    fn modify(&self, fd: &impl AsFd, interest: Interest, trigger: Trigger) -> io::Result<()> {
        self.set().modify(fd.as_fd(), PollKey::default(), interest, trigger)
    }

    /// What the next look tells, if anything within `patience`.
    fn tells(&mut self, patience: Duration) -> Option<Ready> {
        self.queue.wait(Wait::timeout(patience)).unwrap();
        self.queue.next()
    }
}

#[test]
fn level_tells_again_edge_once_and_one_shot_until_modified() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::OneShot] {
        let mut bench = Bench::new();
        let (here, mut there) = UnixStream::pair().unwrap();
        bench.add(&here, Interest::READABLE, trigger).unwrap();
        assert_eq!(bench.tells(SILENCE), None);
        there.write_all(b"x").unwrap();
        assert!(bench.tells(PATIENCE).unwrap().is_readable());
        assert_eq!(bench.tells(SILENCE).is_some(), trigger == Trigger::Level, "{trigger:?}");
        there.write_all(b"y").unwrap();
        let again = bench.tells(SILENCE).is_some();
        assert_eq!(again, trigger != Trigger::OneShot, "{trigger:?} on more data");
        bench.modify(&here, Interest::READABLE, trigger).unwrap();
        assert!(bench.tells(PATIENCE).is_some(), "{trigger:?} when modified");
        bench.set().delete(here.as_fd()).unwrap();
        assert_eq!(bench.tells(SILENCE), None);
    }
}

#[test]
fn interests_are_told_apart() {
    let mut bench = Bench::new();
    let (here, there) = UnixStream::pair().unwrap();
    bench.add(&here, Interest::WRITABLE, Trigger::Level).unwrap();
    let ready = bench.tells(PATIENCE).unwrap();
    assert!(ready.is_writable() && !ready.is_readable());
    bench.modify(&here, Interest::HALF_CLOSE, Trigger::Level).unwrap();
    assert_eq!(bench.tells(SILENCE), None);
    there.shutdown(std::net::Shutdown::Write).unwrap();
    let ready = bench.tells(PATIENCE).unwrap();
    assert!(ready.is_half_closed() && !ready.is_hung_up());
    bench.modify(&here, Interest::NONE, Trigger::Level).unwrap();
    assert_eq!(bench.tells(SILENCE), None);
    drop(there);
    assert!(bench.tells(PATIENCE).unwrap().is_hung_up(), "told without being asked for");
}

#[test]
fn what_the_kernel_does_not_take_is_an_error() {
    let bench = Bench::new();
    let (here, _there) = UnixStream::pair().unwrap();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    let (read, level) = (Interest::READABLE, Trigger::Level);
    let file = File::open("/proc/self/exe").unwrap();
    assert_eq!(kind(bench.add(&file, read, level)), ErrorKind::PermissionDenied);
    assert_eq!(kind(bench.modify(&here, read, level)), ErrorKind::NotFound);
    assert_eq!(kind(bench.set().delete(here.as_fd())), ErrorKind::NotFound);
    bench.add(&here, read, level).unwrap();
    assert_eq!(kind(bench.add(&here, read, level)), ErrorKind::AlreadyExists);
    bench.set().delete(here.as_fd()).unwrap();
    bench.set().add_exclusive(here.as_fd(), PollKey::default(), read, level).unwrap();
    assert_eq!(kind(bench.modify(&here, read, level)), ErrorKind::InvalidInput);
}

#[test]
fn urgent_data_does_not_wake_who_asked_for_readable_only() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut here, _) = listener.accept().unwrap();
    let mut reader = Bench::new();
    reader.add(&here, Interest::READABLE, Trigger::Level).unwrap();
    let mut urgent = Bench::new();
    urgent.add(&here, Interest::PRIORITY, Trigger::Level).unwrap();

    // SAFETY: two readable bytes, and a descriptor that is open.
    let sent = unsafe { libc::send(there.as_raw_fd(), b"ab".as_ptr().cast(), 2, libc::MSG_OOB) };
    assert_eq!(sent, 2);
    assert!(urgent.tells(PATIENCE).unwrap().is_priority());
    assert!(reader.tells(PATIENCE).unwrap().is_readable());
    here.read_exact(&mut [0]).unwrap();
    // The urgent byte stays, and a peer could keep the queue from sleeping with it.
    assert_eq!(reader.tells(SILENCE), None);
    assert!(urgent.tells(SILENCE).is_some());
}
