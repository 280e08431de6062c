//! Recording a queue's events, and feeding them back. One of the tests sends a signal to this process.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io::{Cursor, ErrorKind};
use std::num::NonZeroUsize;
use std::process::Command;
use std::time::{Duration, Instant};

use kevent_core::testing::Sim;
use kevent_core::{
    Entry, Queue, Record, Recorder, Recording, Replay, Signal, Signals, Timers, UserEvents,
};
use proptest::prelude::*;

const HEAD: usize = 32;
const ENTRY: usize = 48;

/// Records what comes out of a simulated queue, which posts these numbers after those delays.
fn recorded(posts: &[(u64, u64)]) -> Vec<u8> {
    let sim = Sim::new(1);
    let mut queue: Queue<Record> = sim.queue().unwrap();
    let mut recorder = Recorder::new(Vec::new(), queue.clock()).unwrap();
    for (delay, number) in posts {
        sim.advance(Duration::from_nanos(*delay));
        queue.wait(Duration::ZERO).unwrap();
        queue.post(Record::own(Record::OWN, *number, !*number)).unwrap();
        recorder.record(&queue.next_stamped().unwrap()).unwrap();
    }
    recorder.into_inner()
}

/// What was recorded.
fn expected(posts: &[(u64, u64)]) -> Vec<Entry> {
    let mut at = 0;
    let entries = (0..).zip(posts).map(|(sequence, (delay, number))| {
        at += delay;
        let record = Record { sequence, ..Record::own(Record::OWN, *number, !*number) };
        Entry { at: Duration::from_nanos(at), record }
    });
    entries.collect()
}

/// Plays a recording in a simulated queue of that capacity, to the end or to the flaw.
fn played(file: Vec<u8>, capacity: usize) -> (Vec<Entry>, Option<std::io::Error>) {
    let sim = Sim::new(2);
    let mut queue = sim.queue_with_capacity(NonZeroUsize::new(capacity).unwrap()).unwrap();
    let replay = match Replay::new(Cursor::new(file)) {
        Ok(replay) => replay,
        Err(error) => return (Vec::new(), Some(error.into())),
    };
    let replay = queue.attach(replay, |record| record).unwrap();
    let mut entries = Vec::new();
    while !queue[replay].is_finished() {
        if let Err(error) = queue.wait(None) {
            assert_eq!(queue.len(), 0, "all that is right comes out before");
            return (entries, Some(error));
        }
        while let Some(record) = queue.next() {
            entries.push(Entry { at: sim.elapsed(), record });
        }
    }
    (entries, None)
}

fn posts() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let delay = prop_oneof![Just(0), 1_u64..1000, 1_u64..1 << 50];
    prop::collection::vec((delay, any::<u64>()), 0..20)
}

proptest! {
    #[test]
    fn what_was_recorded_is_what_is_read_and_played(posts in posts(), capacity in 1_usize..30) {
        let file = recorded(&posts);
        prop_assert_eq!(file.len(), HEAD + posts.len() * ENTRY);
        let read: Result<Vec<_>, _> = Recording::new(file.as_slice()).unwrap().collect();
        prop_assert_eq!(read.unwrap(), expected(&posts));
        let (entries, error) = played(file, capacity);
        prop_assert!(error.is_none());
        prop_assert_eq!(entries, expected(&posts));
    }

    #[test]
    fn all_before_a_flaw_is_played_and_then_the_flaw_is_told_with_its_place(
        posts in posts().prop_filter("not empty", |posts| !posts.is_empty()),
        place: prop::sample::Index,
        flip in 1_u8..,
        cut: bool,
    ) {
        let mut file = recorded(&posts);
        let place = place.index(file.len());
        if cut {
            file.truncate(place);
        } else {
            file[place] ^= flip;
        }
        let (entries, error) = played(file, 7);
        let whole = place.saturating_sub(HEAD) / ENTRY;
        prop_assert_eq!(&entries, &expected(&posts)[..whole]);
        if cut && place >= HEAD && (place - HEAD) % ENTRY == 0 {
            prop_assert!(error.is_none(), "it ends where an entry ends, which nobody can tell");
        } else {
            let text = error.unwrap().to_string();
            let flaw = format!("at byte {}", HEAD + whole * ENTRY);
            let in_head = ["no recording", "of version", "at byte 0"];
            let says = if place < HEAD {
                in_head.iter().any(|what| text.contains(what))
            } else {
                text.contains(&flaw)
            };
            prop_assert!(says, "{}", text);
        }
    }

    #[test]
    fn entry_that_is_missing_or_stands_elsewhere_is_noticed(
        posts in prop::collection::vec(any::<u32>().prop_map(|n| (0, n.into())), 3..20),
        which: prop::sample::Index,
    ) {
        let file = recorded(&posts);
        let which = which.index(posts.len() - 2);
        let at = HEAD + which * ENTRY;
        let mut missing = file.clone();
        missing.drain(at..at + ENTRY);
        let mut swapped = file;
        swapped[at..at + 2 * ENTRY].rotate_left(ENTRY);
        for file in [missing, swapped] {
            let (entries, error) = played(file, 100);
            prop_assert_eq!(&entries, &expected(&posts)[..which]);
            prop_assert_eq!(error.unwrap().kind(), ErrorKind::InvalidData);
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let text = |file: &[u8]| Recording::new(file).unwrap_err().to_string();
    assert!(text(b"GIF89a").contains("no recording"));
    assert!(text(&[]).contains("no recording"));
    let mut file = recorded(&[(1, 1), (2, 2)]);
    file[8] = 9;
    assert!(text(&file).contains("version 9"));
    file[8] = 1;
    file.truncate(HEAD + ENTRY + 10);
    let error = Recording::new(file.as_slice()).unwrap().nth(1).unwrap().unwrap_err();
    assert_eq!(error.offset, (HEAD + ENTRY) as u64);
    assert!(error.to_string().contains("cut short at byte 80: 10 of 48"), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn flaw_is_told_again_until_the_source_is_detached() {
    let mut file = recorded(&[(1, 1)]);
    file.pop();
    let sim = Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let replay = Replay::new(Cursor::new(file)).unwrap();
    let replay = queue.attach(replay, |record| record).unwrap();
    for _ in 0..3 {
        assert_eq!(queue.wait(None).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    assert!(!queue.detach(replay).unwrap().is_finished());
    assert_eq!(queue.wait(Duration::from_secs(1)).unwrap(), 0);
}

#[test]
fn recording_is_played_as_fast_as_it_is_taken_if_that_is_wanted() {
    let posts: Vec<_> = (0..100).map(|n| (1 << 40, n)).collect();
    let replay = Replay::new(Cursor::new(recorded(&posts))).unwrap().at_once();
    let begun = Instant::now();
    let mut queue = Queue::with_capacity(NonZeroUsize::new(8).unwrap()).unwrap();
    let replay = queue.attach(replay, |record| record).unwrap();
    let mut numbers = Vec::new();
    while !queue[replay].is_finished() {
        queue.wait(Duration::from_secs(20)).unwrap();
        numbers.extend(std::iter::from_fn(|| queue.next()).map(|record| record.sequence));
    }
    assert!(numbers.into_iter().eq(0..100));
    assert!(begun.elapsed() < Duration::from_secs(20), "it took the times of the recording");
}

/// A queue of timers, posts and a signal, as it really was.
fn real_run() -> (Vec<u8>, Vec<Record>) {
    let mut queue: Queue<Record> = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), Record::from).unwrap();
    let (users, poster) = UserEvents::new();
    queue.attach(users, |number| Record::own(Record::OWN, 1, number)).unwrap();
    queue.attach(Signals::new([Signal::USR2]).unwrap(), Record::from).unwrap();
    let mut recorder = Recorder::new(Vec::new(), queue.clock()).unwrap();

    let removed = queue[timers].after(Duration::ZERO, 99);
    queue[timers].after(Duration::ZERO, 1);
    queue[timers].every(Duration::from_millis(2), 2);
    queue.wait(None).unwrap();
    queue[timers].cancel(removed);
    let thread = std::thread::spawn(move || (0..5).for_each(|n| poster.post(n).unwrap()));
    let us = std::process::id().to_string();
    let kill = Command::new("sh").args(["-c", "kill -USR2 $0", &us]).spawn().unwrap();
    let mut seen: Vec<Record> = Vec::new();
    let is_there = |seen: &[Record], source, count| {
        seen.iter().filter(|record| record.source == source).count() >= count
    };
    while !is_there(&seen, Record::OWN, 5)
        || !is_there(&seen, Record::SIGNAL, 1)
        || !is_there(&seen, Record::TIMER, 5)
    {
        queue.wait(Duration::from_secs(20)).unwrap();
        while let Some(stamped) = queue.next_stamped() {
            recorder.record(&stamped).unwrap();
            seen.push(Record { sequence: stamped.sequence, ..stamped.event });
        }
    }
    thread.join().unwrap();
    kill.wait_with_output().unwrap();
    (recorder.into_inner(), seen)
}

#[test]
fn real_run_is_played_again_in_a_simulation() {
    let (file, seen) = real_run();
    assert!(seen[0].sequence > 0, "an event was withheld, and its number is missing");
    for capacity in [1, 1000] {
        let (entries, error) = played(file.clone(), capacity);
        assert!(error.is_none(), "{error:?}");
        let again: Vec<_> = entries.iter().map(|entry| entry.record).collect();
        assert_eq!(again, seen);
    }
    let read = Recording::new(file.as_slice()).unwrap();
    let age = read.began().elapsed().unwrap();
    assert!(age < Duration::from_secs(3600), "{age:?}");
    let (entries, _) = played(file.clone(), 1000);
    assert_eq!(entries, read.collect::<Result<Vec<_>, _>>().unwrap(), "each at its time");
}
