//! Several operations with one completion.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Bench, honest};
use kevent_aio::{Cancel, Completion, Group, Op, Read, Started};

/// A file that is in the page cache.
fn file() -> Arc<std::fs::File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"content").unwrap();
    Arc::new(file)
}

fn read_file(file: &Arc<std::fs::File>) -> Read {
    Read::new(file.clone(), 0, Vec::with_capacity(7)).cold()
}

/// A read that ends when the other end is written to.
fn stuck() -> (Read, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    (Read::new(Arc::new(here), 0, Vec::with_capacity(1)), there)
}

fn group(completion: Completion) -> Group {
    let Op::Group(group) = *completion.op else { panic!("a group was submitted") };
    group
}

fn keys(completions: &[Completion]) -> BTreeSet<u64> {
    completions.iter().map(|completion| completion.key).collect()
}

#[test]
fn group_has_one_completion_with_those_of_all_members() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (file, mut all) = (file(), Group::all());
        for key in 0..50 {
            all.add(read_file(&file), key);
        }
        all.add(kevent_aio::Open::new("/no such file"), 50);
        bench.submit(all, 99);
        assert_eq!(bench.aio().in_flight(), 52, "{name}");
        let completion = bench.next();
        assert_eq!((completion.key, *completion.result.as_ref().unwrap()), (99, 50), "{name}");
        let members = group(completion).take();
        assert_eq!(keys(&members), (0..51).collect(), "{name}");
        for member in members {
            match *member.op {
                Op::Read(read) => assert_eq!(read.data(), b"content"),
                _ => assert!(member.result.is_err()),
            }
        }
        bench.is_silent();
        assert_eq!(bench.aio().in_flight(), 0, "{name}");
    }
}

#[test]
fn what_is_not_done_when_enough_are_comes_on_its_own() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (slow, mut there) = stuck();
        let (file, mut quorum) = (file(), Group::quorum(2));
        quorum.add(read_file(&file), 1).add(slow, 2).add(read_file(&file), 3);
        bench.submit(quorum, 99);
        let completion = bench.next();
        assert_eq!((completion.key, *completion.result.as_ref().unwrap()), (99, 2), "{name}");
        assert_eq!(keys(&group(completion).take()), [1, 3].into());
        there.write_all(b"x").unwrap();
        let late = bench.next();
        assert_eq!((late.key, late.result.unwrap()), (2, 1), "{name}");
        bench.is_silent();
    }
}

#[test]
fn losers_of_a_race_can_be_cancelled() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder.threads(1));
        let ((slow, mut there), (slower, _nobody)) = (stuck(), stuck());
        let mut race = Group::first(1);
        // Where there is one thread, which reads what never comes, the last one waits for it.
        race.add(read_file(&file()), 1).add(slow, 2).add(slower, 3);
        bench.submit(race, 99);
        let race = group(bench.next());
        assert_eq!(race.rest().len(), 2, "{name}");
        for token in race.rest() {
            assert_eq!(bench.aio().cancel(*token), Cancel::Requested, "{name}");
        }
        there.write_all(b"x").unwrap();
        let mut ends = [bench.next(), bench.next()];
        ends.sort_by_key(|end| end.key);
        assert!(ends[1].was_cancelled(), "{name}: {ends:?}");
        assert_eq!(bench.aio().in_flight(), 0);
    }
}

#[test]
fn quorum_that_is_out_of_reach_does_not_wait() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (slow, _there) = stuck();
        let mut quorum = Group::quorum(2);
        quorum.add(kevent_aio::Open::new("/no such file"), 1).add(slow, 2);
        let token = bench.submit(quorum, 99);
        let completion = bench.next();
        assert_eq!((completion.token, completion.result.unwrap()), (token, 0), "{name}");
    }
}

#[test]
fn each_member_is_told_before_the_group_if_that_is_asked_for() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (file, mut all) = (file(), Group::all().tell_each());
        for key in 0..5 {
            all.add(read_file(&file), key);
        }
        bench.submit(all, 99);
        let told: BTreeSet<_> = (0..5).map(|_| bench.next().key).collect();
        assert_eq!(told, (0..5).collect(), "{name}");
        let last = bench.next();
        assert_eq!(last.key, 99, "{name}");
        assert!(group(last).take().is_empty());
    }
}

#[test]
fn group_is_accepted_or_refused_as_a_whole() {
    for (_, builder) in honest() {
        let mut bench = Bench::new(builder.capacity(4));
        let file = file();
        let mut all = Group::all();
        for key in 0..4 {
            all.add(read_file(&file), key);
        }
        let refused = bench.aio().submit(all, 1).unwrap_err();
        assert_eq!(refused.error.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(bench.aio().in_flight(), 0);
        let Op::Group(mut all) = refused.op else { panic!() };
        assert_eq!(all.len(), 4, "it comes back whole");
        all.add(Read::new(file.clone(), u64::MAX, Vec::with_capacity(1)), 5);
        bench = Bench::new(common::honest().remove(0).1);
        let refused = bench.aio().submit(all, 1).unwrap_err();
        assert_eq!(refused.error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(bench.aio().in_flight(), 0);
    }
}

#[test]
fn empty_group_is_done_at_once() {
    for (_, builder) in honest() {
        assert_eq!(Bench::new(builder).complete(Group::all()).result.unwrap(), 0);
    }
}

#[test]
fn cancelled_group_comes_at_once_and_its_members_after_it() {
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (first, mut one) = stuck();
        let (second, mut two) = stuck();
        let mut all = Group::all();
        all.add(read_file(&file()), 1).add(first, 2).add(second, 3);
        let token = bench.submit(all, 99);
        while bench.aio().in_flight() > 3 {
            bench.turn();
        }
        assert_eq!(bench.aio().cancel(token), Cancel::Requested);
        let completion = bench.next();
        assert_eq!(completion.token, token, "{name}");
        assert!(completion.was_cancelled());
        assert_eq!(completion.result.as_ref().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert_eq!(keys(&group(completion).take()), [1].into());
        if name == "uring" {
            assert!(bench.next().was_cancelled() && bench.next().was_cancelled());
            continue;
        }
        // What a thread is at can't be stopped.
        one.write_all(b"x").unwrap();
        two.write_all(b"x").unwrap();
        assert_eq!(keys(&[bench.next(), bench.next()]), [2, 3].into());
    }
}

#[test]
fn deadline_of_a_group_is_that_of_its_members() {
    for (name, builder) in honest().into_iter().filter(|(name, _)| *name == "uring") {
        let mut bench = Bench::new(builder);
        let (slow, _there) = stuck();
        let mut all = Group::all();
        all.add(slow, 1);
        let deadline = Instant::now() + Duration::from_millis(20);
        bench.aio().submit_until(all, 99, deadline).unwrap();
        for key in [99, 1] {
            let completion = bench.next();
            assert_eq!(completion.key, key, "{name}");
            assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        }
    }
}

#[test]
fn abandoned_group_is_not_heard_of_nor_are_its_members() {
    for (_, builder) in honest() {
        let mut bench = Bench::new(builder);
        let (slow, mut there) = stuck();
        let mut all = Group::all();
        all.add(slow, 1).add(read_file(&file()), 2);
        let token = bench.submit(all, 99);
        assert!(bench.aio().abandon(token));
        there.write_all(b"x").unwrap();
        while bench.aio().in_flight() > 0 {
            bench.turn();
            assert!(bench.queue.next().is_none());
        }
    }
}

#[test]
fn what_is_in_memory_is_done_when_it_is_started() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(dir.path().join("f"), "content").unwrap();
    let file = Arc::new(std::fs::File::open(dir.path().join("f")).unwrap());
    for (name, builder) in honest() {
        let mut bench = Bench::new(builder);
        let read = Read::new(file.clone(), 0, Vec::with_capacity(7));
        match bench.aio().start(read, 5).unwrap() {
            Started::Done { op: Op::Read(read), result } => {
                assert_eq!((result.unwrap(), read.data()), (7, &b"content"[..]), "{name}");
                assert_eq!(bench.aio().report().counters.inline, 1);
            }
            Started::Done { .. } => panic!("a read was submitted"),
            Started::InFlight(_) => println!("skipped: this file system does not know RWF_NOWAIT"),
        }
        bench.is_silent();
        let (slow, mut there) = stuck();
        let Started::InFlight(token) = bench.aio().start(slow, 6).unwrap() else { panic!() };
        there.write_all(b"x").unwrap();
        let completion = bench.next();
        assert_eq!((completion.token, completion.key), (token, 6));
        assert_eq!(completion.result.unwrap(), 1);
    }
}
