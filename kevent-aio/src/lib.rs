//! Asynchronous I/O as a source of a kevent queue.
//!
//! One operation, one file in `ops`, up to three ways to be done: at once if that does not block, by
//! io_uring, or on a pool of threads. [`Aio`] chooses, and any refusal of io_uring leads to the pool.
//!
//! ```
//! use std::sync::Arc;
//! use kevent_aio::{Aio, Op, Open, Read};
//! use kevent_core::Queue;
//!
//! let mut queue = Queue::new()?;
//! let aio = queue.attach(Aio::new()?, |completion| completion)?;
//!
//! queue[aio].submit(Open::new("/proc/self/status"), 1)?;
//! loop {
//!     queue.wait(None)?;
//!     let Some(completion) = queue.next() else { continue };
//!     completion.result?;
//!     match *completion.op {
//!         Op::Open(mut open) => {
//!             let file = Arc::new(open.take().expect("a file that was opened"));
//!             queue[aio].submit(Read::new(file, 0, Vec::with_capacity(4096)), 2)?;
//!         }
//!         Op::Read(read) => {
//!             assert!(read.into_buffer().starts_with(b"Name:"));
//!             break;
//!         }
//!         _ => unreachable!("nothing else was submitted"),
//!     }
//! }
//! # std::io::Result::Ok(())
//! ```
//!
//! Inside tokio the feature `tokio` has files to await, in the module of that name.

#[cfg(not(target_os = "linux"))]
compile_error!("kevent-aio drives io_uring and Linux's own calls: it runs on Linux only");

mod address;
mod backend;
mod barriers;
mod buffer;
mod buffers;
mod builder;
mod completion;
mod engine;
mod fixed;
mod flight;
mod meter;
mod operation;
mod ops;
mod priority;
mod provided;
mod reading;
mod recent;
mod record;
mod report;
mod slice;
mod sockets;
mod sys;
pub mod testing;
#[cfg(feature = "tokio")]
pub mod tokio;
mod ways;

pub use crate::address::Address;
pub use crate::buffer::Memory;
pub use crate::buffers::{Buffer, Buffers};
pub use crate::builder::{Builder, Choice, UnknownChoice};
pub use crate::completion::{Abandoned, Cancel, Completion, Started, SubmitError};
pub use crate::engine::Aio;
pub use crate::meter::{Class, Latencies};
pub use crate::operation::Fd;
pub use crate::ops::{
    Accept, AcceptMany, Advice, Advise, Chain, CleanupReport, Close, Condition, Connect, Content,
    CopyRange, Data, DirEntry, Effect, End, Entries, Fallocate, Fdatasync, FileKind, Fsync, Group,
    Header, Link, Listing, Mkdir, Op, Open, Opened, Operand, Payload, Read, ReadDir, ReadVectored,
    Recv, RecvFrom, RecvMany, Reflink, Rename, Send, SendTo, Sendfile, Sent, Shutdown, Socket,
    Span, Stat, Statx, StepId, StepReport, StepResult, Stop, StreamId, Symlink, Transform,
    Truncate, Unlink, Value, Variable, When, Write, WriteVectored,
};
#[cfg(feature = "transforms")]
pub use crate::ops::{Blake3, Crc32c, Gzip};
pub use crate::priority::Priority;
pub use crate::report::{Call, Counters, Refusal, Report, Way};
