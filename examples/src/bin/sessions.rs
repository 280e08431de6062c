//! A queue in a queue for each session, whose events carry its name; and what is done when all is quiet.
//!
//! ```text
//! cargo run -p kevent-examples --bin sessions
//! ```

use std::io;
use std::time::Duration;

use kevent_core::{ChildQueue, Idle, Poster, Queue, Timers, UserEvents};

enum Session {
    Message(u32),
    Timeout,
}

enum Event {
    Session { name: &'static str, event: Session },
    Idle,
}

/// A session knows nothing of the others, nor of where its events go.
fn session() -> io::Result<(ChildQueue<Session>, Poster<u32>)> {
    let mut queue = Queue::new()?;
    let (messages, poster) = UserEvents::new();
    queue.attach(messages, Session::Message)?;
    let timers = queue.attach(Timers::new(), |_| Session::Timeout)?;
    queue[timers].after(Duration::from_millis(20), 0);
    Ok((ChildQueue::new(queue), poster))
}

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    queue.attach(Idle::new(), |_| Event::Idle)?;
    let mut open = 0;
    for name in ["left", "right"] {
        let (session, poster) = session()?;
        queue.attach(session, move |event| Event::Session { name, event })?;
        poster.post(open).map_err(io::Error::other)?;
        open += 1;
    }
    while open > 0 {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            match event {
                Event::Session { name, event: Session::Message(n) } => println!("{name}: {n}"),
                Event::Session { name, event: Session::Timeout } => {
                    println!("{name}: timed out");
                    open -= 1;
                }
                Event::Idle => println!("nothing to do"),
            }
        }
    }
    Ok(())
}
