//! An asynchronous function that waits for the events of a queue, without a runtime.
//!
//! ```text
//! cargo run -p kevent-examples --bin block_on
//! ```
//!
//! The main thread runs it, and sleeps in the queue whenever it waits. In somebody else's executor the same
//! function runs with an `EventStream::new(queue)`.

use std::io;
use std::thread;
use std::time::Duration;

use kevent_core::{EventStream, Queue, SourceId, TimerEvent, Timers, UserEvents, block_on};

enum Event {
    Tick(TimerEvent),
    Text(&'static str),
}

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let timers = queue.attach(Timers::new(), Event::Tick)?;
    let (users, poster) = UserEvents::new();
    queue.attach(users, Event::Text)?;
    thread::spawn(move || poster.post("posted by a thread"));
    block_on(queue, |events| talk(events, timers))?
}

async fn talk(mut events: EventStream<Event>, timers: SourceId<Timers>) -> io::Result<()> {
    let text = loop {
        if let Event::Text(text) = events.next().await? {
            break text;
        }
    };
    println!("{text}");
    for key in 1..=3 {
        events[timers].after(Duration::from_millis(10), key);
        if let Event::Tick(tick) = events.next().await? {
            println!("tick {}", tick.key);
        }
    }
    Ok(())
}
