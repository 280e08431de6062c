//! Prints what changes in a folder and below it, until it is removed.
//!
//! ```text
//! cargo run -p kevent-examples --bin watch FOLDER
//! ```

use std::io;

use kevent_core::Queue;
use kevent_fs::{ChangeKind, Watcher};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    let mut watcher = Watcher::new()?;
    watcher.watch_tree(&folder, 0)?;
    let mut queue = Queue::new()?;
    queue.attach(watcher, |change| change)?;
    println!("watching {}", folder.to_string_lossy());
    loop {
        queue.wait(None)?;
        while let Some(change) = queue.next() {
            let path = change.path.display();
            match &change.kind {
                ChangeKind::Moved { from } => println!("{} is now {path}", from.display()),
                // Not an error: it says what the events do not tell.
                ChangeKind::NotCovered { reason } => println!("not watched: {path}: {reason}"),
                ChangeKind::RootGone => return Ok(()),
                kind => println!("{kind:?} {path}"),
            }
        }
    }
}
