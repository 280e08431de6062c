//! What of the engine can't be seen from outside.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use kevent_core::Queue;

use super::*;
use crate::completion::Completion;
use crate::ops::Read;

/// An engine on a pool of one thread, with what that makes of the operations.
fn queue_with_pool(
    run: impl Fn(&mut Op) -> Outcome + Send + Sync + 'static,
) -> (Queue<Completion>, kevent_core::SourceId<Aio>) {
    let mut queue = Queue::new().unwrap();
    let aio = Aio::assemble(None, None, Pool::new(1, Some(Arc::new(run))), 1000);
    let id = queue.attach(aio, |completion| completion).unwrap();
    (queue, id)
}

#[test]
fn error_that_says_cancelled_is_the_operations_own_when_nobody_cancelled() {
    for errno in [libc::ECANCELED, libc::EINTR] {
        let (mut queue, id) = queue_with_pool(move |_| Err(Errno(errno)));
        let file = Arc::new(std::fs::File::open("/dev/null").unwrap());
        queue[id].submit(crate::ops::Fsync::new(file), 1).unwrap();
        let completion = next(&mut queue);
        assert!(!completion.was_cancelled());
        assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(errno));
    }
}

#[test]
fn panic_on_a_thread_of_the_pool_fails_the_operation_and_nothing_else() {
    // Of the only thread, so that it has to be there for the next.
    let (mut queue, id) = queue_with_pool(|op| {
        assert!(matches!(op, Op::Open(_)), "a test panics");
        op.run()
    });
    let file = Arc::new(std::fs::File::open("/dev/null").unwrap());
    for _ in 0..3 {
        queue[id].submit(crate::ops::Fsync::new(file.clone()), 1).unwrap();
        queue[id].submit(crate::ops::Open::new("/dev/null"), 2).unwrap();
        let failed = next(&mut queue);
        assert_eq!((failed.key, failed.result.unwrap_err().raw_os_error()), (1, Some(libc::EIO)));
        assert!(next(&mut queue).result.is_ok());
    }
    assert_eq!((queue[id].on_pool, queue[id].in_flight()), (0, 0));
}

#[test]
fn what_a_thread_has_begun_comes_out_in_a_simulated_queue_too() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (mut queue, id) = queue_with_pool(move |op| {
        let _ = released.lock().unwrap().recv();
        op.run()
    });
    queue[id].submit(crate::ops::Open::new("/dev/null"), 1).unwrap();
    let aio = queue.detach(id).unwrap();
    let sim = kevent_core::testing::Sim::new(1);
    let mut queue = sim.queue().unwrap();
    let id = queue.attach(aio, |completion| completion).unwrap();
    drop(release);
    let patience = Instant::now() + Duration::from_secs(20);
    while queue.wait(kevent_core::Wait::poll()).unwrap() == 0 {
        assert!(Instant::now() < patience, "it is lost");
        std::thread::yield_now();
    }
    assert!(queue.next().unwrap().result.is_ok());
    assert_eq!((queue[id].on_pool, queue[id].in_flight()), (0, 0));
}

#[test]
fn engine_knows_how_many_operations_the_pool_has() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (mut queue, id) = queue_with_pool(move |op| {
        let _ = released.lock().unwrap().recv();
        op.run()
    });
    let opens = (0..5).map(|key| queue[id].submit(crate::ops::Open::new("/dev/null"), key));
    let tokens: Vec<_> = opens.map(Result::unwrap).collect();
    assert_eq!(queue[id].on_pool, 5);
    // The first may have begun.
    for token in tokens {
        queue[id].cancel(token);
    }
    assert!(queue[id].on_pool <= 1);
    drop(release);
    (0..5).for_each(|_| drop(next(&mut queue)));
    assert_eq!((queue[id].on_pool, queue[id].in_flight()), (0, 0));
}

#[test]
fn deadline_of_what_is_done_in_time_is_forgotten() {
    let (mut queue, id) = queue_with_pool(Operation::run);
    let later = Instant::now() + Duration::from_secs(3600);
    queue[id].submit_until(crate::ops::Open::new("/dev/null"), 1, later).unwrap();
    assert_eq!(queue[id].deadlines.len(), 1);
    next(&mut queue).result.unwrap();
    assert!(queue[id].deadlines.is_empty());
}

/// An engine that takes far more than its ring holds.
fn queue_with_small_ring() -> Option<(Queue<Completion>, kevent_core::SourceId<Aio>)> {
    let ring = match Uring::new(8) {
        Ok(ring) => ring,
        Err(refusal) => {
            println!("skipped: {refusal}");
            return None;
        }
    };
    let mut queue = Queue::new().unwrap();
    let aio = Aio::assemble(Some(ring), None, Pool::new(1, None), 1000);
    let id = queue.attach(aio, |completion| completion).unwrap();
    Some((queue, id))
}

fn next(queue: &mut Queue<Completion>) -> Completion {
    loop {
        if let Some(completion) = queue.next() {
            return completion;
        }
        queue.wait(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn what_the_ring_has_no_room_for_waits_its_turn() {
    let Some((mut queue, id)) = queue_with_small_ring() else { return };
    let (reader, mut writer) = UnixStream::pair().unwrap();
    let reader = Arc::new(reader);
    for key in 0..500 {
        let read = Read::new(reader.clone(), 0, Vec::with_capacity(1));
        queue[id].submit(read, key).unwrap();
    }
    queue.wait(kevent_core::Wait::poll()).unwrap();
    assert!(!queue[id].backlog.is_empty(), "the ring is not small enough");
    writer.write_all(&[7; 500]).unwrap();
    for _ in 0..500 {
        let completion = next(&mut queue);
        assert_eq!((completion.result.unwrap(), completion.way), (1, Way::Ring));
    }
    assert_eq!(queue[id].in_flight(), 0);
}

#[test]
fn cancelled_while_waiting_for_room_and_on_the_ring_alike() {
    let Some((mut queue, id)) = queue_with_small_ring() else { return };
    let (reader, _writer) = UnixStream::pair().unwrap();
    let reader = Arc::new(reader);
    let mut tokens = Vec::new();
    for key in 0..200 {
        let read = Read::new(reader.clone(), 0, Vec::with_capacity(1));
        tokens.push(queue[id].submit(read, key).unwrap());
    }
    queue.wait(kevent_core::Wait::poll()).unwrap();
    for token in tokens {
        assert_eq!(queue[id].cancel(token), Cancel::Requested);
    }
    for _ in 0..200 {
        assert!(next(&mut queue).was_cancelled());
    }
    assert_eq!(queue[id].in_flight(), 0);
    drop(queue);
    assert_eq!(Arc::strong_count(&reader), 1);
}
