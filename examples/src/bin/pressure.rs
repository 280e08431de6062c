//! Tells when tasks stall for want of processor, memory or I/O. Ctrl-C ends it.
//!
//! ```text
//! cargo run -p kevent-examples --bin pressure
//! ```

use std::io;
use std::time::Duration;

use kevent_core::{Pressure, PressureLevels, PressureLimit, Queue, Resource, Stalled};

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let pressure = queue.attach(Pressure::new(), |event| event)?;
    for (key, resource) in [Resource::Cpu, Resource::Memory, Resource::Io].into_iter().enumerate() {
        let window = Duration::from_secs(2);
        let limit =
            PressureLimit { resource, stall: Stalled::Some, threshold: window / 10, window };
        queue[pressure].watch(limit, key as u64)?;
        println!("{resource:?}: {} %", PressureLevels::of_system(resource)?.some.avg10);
    }
    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            if let Some(levels) = event.levels {
                println!("{:?}: {} % of the last 10 s", event.limit.resource, levels.some.avg10);
            }
        }
    }
}
