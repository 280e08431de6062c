//! A counter that another process adds to: this program again, with the counter as its standard input.
//!
//! ```text
//! cargo run -p kevent-examples --bin counter
//! ```

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use kevent_core::{Adder, Counters, Queue};

const CHILDREN: u64 = 3;

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("add") {
        return Adder::adopt(io::stdin())?.add(7);
    }
    let mut queue = Queue::new()?;
    let counters = queue.attach(Counters::new(), |event| event)?;
    let (_, adder) = queue[counters].sum(1)?;
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        let stdin = Stdio::from(adder.as_fd().try_clone_to_owned()?);
        children.push(Command::new(std::env::current_exe()?).arg("add").stdin(stdin).spawn()?);
    }
    let mut sum = 0;
    while sum < 7 * CHILDREN {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            sum += event.value;
            println!("{} were added", event.value);
        }
    }
    println!("sum: {sum}");
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}
