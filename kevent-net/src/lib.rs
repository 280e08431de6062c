//! Readiness of sockets, pipes and anything else that epoll takes, as events of a kevent queue; and
//! what comes in on sockets, already received.
//!
//! [`Readiness`] is lent file descriptors and says when they can be read or written; reading and
//! writing stay with whoever owns them. It works everywhere. [`Receiver`] has a share in sockets and
//! gives out what they receive, by io_uring, where that is allowed. The types of std and of `mio` serve
//! alike, and so does whatever implements [`AsFd`](std::os::fd::AsFd). [`socket`] has the few steps
//! around non-blocking TCP that are easy to get wrong.
//!
//! ```
//! use std::io::{Read, Write};
//! use kevent_core::Queue;
//! use kevent_net::{Interest, Mode, Readiness};
//!
//! let (mut here, mut there) = std::os::unix::net::UnixStream::pair()?;
//! here.set_nonblocking(true)?;
//!
//! let mut queue = Queue::new()?;
//! let readiness = queue.attach(Readiness::new(), |event| event)?;
//! queue[readiness].register(&here, Interest::READABLE, Mode::Level, 7)?;
//!
//! there.write_all(b"hello")?;
//! queue.wait(None)?;
//! let event = queue.next().unwrap();
//! assert_eq!(event.key, 7);
//! assert!(event.ready.is_readable());
//!
//! let mut buffer = [0; 16];
//! assert_eq!(here.read(&mut buffer)?, 5);
//! # std::io::Result::Ok(())
//! ```

mod received;
mod registration;
mod registrations;
mod requests;
mod uring;

mod readiness;
mod receiver;
mod record;
pub mod socket;

pub use crate::readiness::{Readiness, ReadinessChange, ReadyEvent};
pub use crate::received::{ReceiveEvent, Received};
pub use crate::receiver::Receiver;
pub use crate::registration::Mode;
pub use crate::uring::Buffer;
pub use kevent_core::{Interest, Ready};
