//! Children: each tells when it has ended, and how. There is no SIGCHLD handler and no zombie.
//!
//! ```text
//! cargo run -p kevent-examples --bin process
//! ```

use std::io;
use std::process::Command;

use kevent_core::{Processes, Queue};

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let processes = queue.attach(Processes::new(), |event| event)?;
    for status in 0..3 {
        let child = Command::new("sh").args(["-c", &format!("exit {status}")]).spawn()?;
        queue[processes].watch_child(child, status)?;
    }
    while !queue[processes].is_empty() {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            match event.exit {
                Some(exit) => println!("child {}: {exit}", event.key),
                None => println!("child {}: ended", event.key),
            }
        }
    }
    Ok(())
}
