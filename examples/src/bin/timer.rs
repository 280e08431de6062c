//! Timers: one after a while, one at a time of day, one periodic, one cancelled.
//!
//! ```text
//! cargo run -p kevent-examples --bin timer
//! ```

use std::io;
use std::time::{Duration, SystemTime};

use kevent_core::{Queue, TimerKind, Timers};

const TICK: u64 = 1;
const ONCE: u64 = 2;
const TIME_OF_DAY: u64 = 3;
const NEVER: u64 = 4;

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let timers = queue.attach(Timers::new(), |event| event)?;

    queue[timers].every(Duration::from_millis(20), TICK);
    queue[timers].after(Duration::from_millis(50), ONCE);
    queue[timers].at_wall(SystemTime::now() + Duration::from_millis(90), TIME_OF_DAY)?;
    let never = queue[timers].after(Duration::from_millis(30), NEVER);
    queue[timers].cancel(never);

    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            match (event.kind, event.key) {
                // Whoever sets the clock moves the time of day. The timer says so, and counts on.
                (TimerKind::ClockStepped, _) => println!("the clock was set"),
                (_, TICK) => println!("tick, {} missed", event.missed),
                (_, ONCE) => println!("50 ms are over"),
                (_, TIME_OF_DAY) => {
                    println!("it is time");
                    return Ok(());
                }
                (_, key) => println!("{key} was cancelled, and yet here it is"),
            }
        }
    }
}
