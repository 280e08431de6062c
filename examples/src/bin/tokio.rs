//! The events of a queue, awaited in a tokio task.
//!
//! ```text
//! cargo run -p kevent-examples --bin tokio
//! ```

use std::io;
use std::time::Duration;

use kevent_core::{AsyncQueue, Queue, TimerEvent, Timers, UserEvents};

enum Event {
    Tick(TimerEvent),
    Text(&'static str),
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let timers = queue.attach(Timers::new(), Event::Tick)?;
    let (users, poster) = UserEvents::new();
    queue.attach(users, Event::Text)?;
    queue[timers].after(Duration::from_millis(20), 7);

    let task = tokio::spawn(async move {
        let mut queue = AsyncQueue::new(queue)?;
        for _ in 0..2 {
            match queue.next().await? {
                Event::Tick(tick) => println!("timer {}", tick.key),
                Event::Text(text) => println!("{text}"),
            }
        }
        io::Result::Ok(())
    });
    // From any task, and from any thread.
    poster.post("posted by a task").map_err(io::Error::other)?;
    task.await?
}
