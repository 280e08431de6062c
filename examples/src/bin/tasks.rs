//! A thousand tasks on one queue, each with events of its own.
//!
//! ```text
//! cargo run -p kevent-examples --bin tasks
//! ```
//!
//! Each task arms a timer and awaits it by its token; one awaits what is posted. The main task drives the
//! queue, and gets what nobody subscribed to.

use std::io;
use std::time::Duration;

use kevent_core::{AsyncQueue, Queue, Router, Routes, SourceId, TimerEvent, Timers, UserEvents};
use tokio::task::JoinSet;

enum Event {
    Tick(TimerEvent),
    Text(&'static str),
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let timers = queue.attach(Timers::new(), Event::Tick)?;
    let (users, poster) = UserEvents::new();
    let users = queue.attach(users, Event::Text)?;
    queue[timers].after(Duration::from_millis(5), 4_242);

    let mut router = Router::new(AsyncQueue::new(queue)?);
    let routes = router.routes();
    let mut texts = routes.subscribe_source(users)?;
    let reader = tokio::spawn(async move {
        while let Some(stamped) = texts.next().await {
            if let Event::Text(text) = stamped.event {
                return Some(text);
            }
        }
        None
    });
    let mut sleepers = JoinSet::new();
    for key in 0..1_000 {
        sleepers.spawn(sleep(routes.clone(), timers, key));
    }
    // From any task, and from any thread.
    poster.post("posted to one of them").map_err(io::Error::other)?;

    let mut keys = 0;
    while !sleepers.is_empty() {
        tokio::select! {
            Some(key) = sleepers.join_next() => keys += key??,
            stamped = router.next() => match stamped?.event {
                Event::Tick(tick) => println!("nobody waited for timer {}", tick.key),
                Event::Text(text) => println!("nobody waited for {text:?}"),
            },
        }
    }
    println!("all have slept: {keys}");
    println!("{}", reader.await?.unwrap_or("nothing was posted"));
    Ok(())
}

/// Waits for a timer of its own, and says its key.
async fn sleep(
    routes: Routes<AsyncQueue<Event>>,
    timers: SourceId<Timers>,
    key: u64,
) -> io::Result<u64> {
    let mut ticks = {
        // Nothing is routed meanwhile: the timer can't fire before there is a subscription to it.
        let mut queue = routes.lock();
        let token = queue[timers].after(Duration::from_millis(10 + key % 20), key);
        routes.subscribe(timers, token)?
    };
    match ticks.next().await.map(|stamped| stamped.event) {
        Some(Event::Tick(tick)) => Ok(tick.key),
        _ => Err(io::Error::other("the router is gone")),
    }
}
