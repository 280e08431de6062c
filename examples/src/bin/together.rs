//! One queue for everything: a timer, signals, and the changes of the current folder.
//!
//! ```text
//! cargo run -p kevent-examples --bin together
//! ```

use std::time::Duration;

use kevent_core::{Queue, Signal, SignalEvent, Signals, TimerEvent, Timers};
use kevent_fs::{Change, Watcher};

enum Event {
    Tick(TimerEvent),
    Signal(SignalEvent),
    Changed(Change),
}

fn main() -> std::io::Result<()> {
    let mut queue = Queue::new()?;
    let timers = queue.attach(Timers::new(), Event::Tick)?;
    let watcher = queue.attach(Watcher::new()?, Event::Changed)?;
    queue.attach(Signals::new([Signal::INT])?, Event::Signal)?;

    queue[timers].every(Duration::from_secs(1), 1);
    queue[watcher].watch_tree(".", 2)?;
    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            match event {
                Event::Tick(tick) => println!("a second is over, {} were missed", tick.missed),
                Event::Changed(change) => println!("{:?} {}", change.kind, change.path.display()),
                Event::Signal(signal) => {
                    println!("{}", signal.signal);
                    return Ok(());
                }
            }
        }
    }
}
