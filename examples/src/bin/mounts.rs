//! File systems as they are mounted and unmounted. Ctrl-C ends it.
//!
//! ```text
//! cargo run -p kevent-examples --bin mounts
//! ```

use std::io;

use kevent_core::{MountEvent, Mounts, Queue};

fn main() -> io::Result<()> {
    let mut queue = Queue::new()?;
    let mounts = queue.attach(Mounts::new()?, |event| event)?;
    println!("{} are mounted", queue[mounts].iter().count());
    loop {
        queue.wait(None)?;
        while let Some(event) = queue.next() {
            match event {
                MountEvent::Mounted(mount) => {
                    println!("mounted {:?} at {}", mount.source, mount.mount_point.display());
                }
                MountEvent::Unmounted(mount) => {
                    println!("unmounted {}", mount.mount_point.display());
                }
                MountEvent::Changed { now, .. } => {
                    println!("changed {}", now.mount_point.display());
                }
            }
        }
    }
}
