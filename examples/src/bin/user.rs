//! Events that the threads of a program post to its queue.
//!
//! ```text
//! cargo run -p kevent-examples --bin user
//! ```
//!
//! Three threads add up a third of the numbers each, and report how far they are. The main thread
//! sleeps in the queue, as it would for sockets and timers at the same time, and prints.

use std::io;
use std::thread;

use kevent_core::{Poster, Queue, UserEvents};

const WORKERS: u64 = 3;
const NUMBERS: u64 = 3_000_000;

enum Event {
    Progress { worker: u64, percent: u64 },
    Done { worker: u64, sum: u64 },
}

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let (users, poster) = UserEvents::new();
    queue.attach(users, |event| event)?;
    for worker in 0..WORKERS {
        let poster = poster.clone();
        thread::spawn(move || add_up(worker, &poster));
    }

    let (mut working, mut total) = (WORKERS, 0);
    while working > 0 {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            match event {
                Event::Progress { worker, percent } => println!("worker {worker}: {percent} %"),
                Event::Done { worker, sum } => {
                    println!("worker {worker}: the sum is {sum}");
                    working -= 1;
                    total += sum;
                }
            }
        }
    }
    println!("total: {total}");
    Ok(())
}

/// The sum of every third number, in four steps.
fn add_up(worker: u64, poster: &Poster<Event>) {
    let mut sum = 0;
    for step in 1..=4 {
        let numbers = NUMBERS * (step - 1) / 4..NUMBERS * step / 4;
        sum += numbers.filter(|number| number % WORKERS == worker).sum::<u64>();
        post(poster, Event::Progress { worker, percent: step * 25 });
    }
    post(poster, Event::Done { worker, sum });
}

/// The error has the event in it: one could try again if the mailbox was full, or drop it.
fn post(poster: &Poster<Event>, event: Event) {
    if let Err(error) = poster.post(event) {
        eprintln!("an event was not posted: {error}");
    }
}
