//! A step of the wall clock. It touches every process of the machine, so it has its own binary, and
//! the step is to the time that the clock shows already, or a blink away and back.

// One raw call: no safe interface sets the clock.
#![allow(unsafe_code)]

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use kevent_core::{Queue, TimerKind, Timers, Wait};

/// Sets the wall clock to what it shows.
fn step_the_clock() -> io::Result<()> {
    step_the_clock_by(0)
}

/// Sets the wall clock to so many milliseconds after what it shows.
fn step_the_clock_by(milliseconds: i64) -> io::Result<()> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    assert_eq!(got, 0);
    let nanoseconds = time.tv_nsec + milliseconds * 1_000_000;
    time.tv_sec += nanoseconds.div_euclid(1_000_000_000);
    time.tv_nsec = nanoseconds.rem_euclid(1_000_000_000);
    // SAFETY: `time` outlives the call.
    let set = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Both tests set the clock.
static CLOCK: Mutex<()> = Mutex::new(());

#[test]
fn wait_until_a_wall_clock_time_goes_by_the_clock_as_it_is_then() {
    let _clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let mut queue: Queue<()> = Queue::new().unwrap();
    let ms = Duration::from_millis;
    if let Err(error) = step_the_clock() {
        eprintln!("skipped: the clock can't be set: {error}");
        return;
    }
    // Set while nobody waits, and while somebody does.
    for step_before in [true, false] {
        let began = Instant::now();
        let deadline = SystemTime::now() + ms(400);
        let interrupter = queue.interrupter();
        if step_before {
            step_the_clock_by(300).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                if !step_before {
                    interrupter.interrupt();
                    step_the_clock_by(300).unwrap();
                }
            });
            while SystemTime::now() < deadline {
                assert_eq!(queue.wait(deadline).unwrap(), 0);
            }
        });
        let took = began.elapsed();
        step_the_clock_by(-300).unwrap();
        assert!((ms(90)..ms(390)).contains(&took), "by a clock set ahead by 300 ms: {took:?}");
    }
    // Set back, long before the time has come: the wait goes on.
    let deadline = SystemTime::now() + ms(500);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| step_the_clock_by(-30).unwrap());
        assert_eq!(queue.wait(deadline).unwrap(), 0);
    });
    let (shown, took) = (SystemTime::now(), began.elapsed());
    step_the_clock_by(30).unwrap();
    assert!(shown >= deadline, "it came back early: after {took:?}");
}

#[test]
fn step_of_the_wall_clock_is_an_event_of_each_wall_timer_and_they_stand_on() {
    let _clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let patience = Duration::from_secs(10);
    let mut queue = Queue::new().unwrap();
    let timers = queue.attach(Timers::new(), |event| event).unwrap();
    let due = SystemTime::now() + Duration::from_millis(100);
    let near = queue[timers].at_wall(due, 1).unwrap();
    let far = queue[timers].at_wall(due + patience * 1000, 2).unwrap();
    queue[timers].after(patience * 1000, 3);
    assert_eq!(queue.wait(Wait::poll()).unwrap(), 0);

    if let Err(error) = step_the_clock() {
        eprintln!("skipped: the clock can't be set: {error}");
        return;
    }
    assert_eq!(queue.wait(Wait::timeout(patience).at_least(2)).unwrap(), 2);
    for token in [near, far] {
        let event = queue.next().unwrap();
        assert_eq!((event.token, event.kind), (token, TimerKind::ClockStepped));
    }
    assert_eq!(queue[timers].len(), 3, "all stand on");

    // A step while nobody looks: found when the timer is set the next time.
    let nearest = queue[timers].at_wall(due - Duration::from_millis(10), 4).unwrap();
    step_the_clock().unwrap();
    assert!(queue[timers].cancel(nearest));

    let event = loop {
        queue.wait(patience).unwrap();
        match queue.next() {
            Some(event) if event.kind == TimerKind::ClockStepped => {}
            Some(event) => break event,
            None => panic!("the timer did not fire"),
        }
    };
    assert_eq!((event.token, event.kind), (near, TimerKind::Fired));
    assert!(SystemTime::now() >= due);
    assert!(queue[timers].cancel(far));
}
