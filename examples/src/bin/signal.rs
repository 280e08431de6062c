//! Signals as events: who sent them, and how often. SIGTERM and Ctrl-C end it.
//!
//! ```text
//! cargo run -p kevent-examples --bin signal
//! kill -USR1 PID
//! ```

use std::io;

use kevent_core::{Queue, Signal, Signals};

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let wanted = [Signal::USR1, Signal::TERM, Signal::INT];
    queue.attach(Signals::new(wanted)?, |event| event)?;
    println!("process {}", std::process::id());
    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            match event.pid {
                Some(pid) => println!("{} from process {pid}", event.signal),
                None => println!("{}", event.signal),
            }
            if event.signal != Signal::USR1 {
                // The signals do what they did before once the source is dropped.
                return Ok(());
            }
        }
    }
}
