//! One event queue for a Linux program.
//!
//! > Every source is a file descriptor that says "I have something", and a `drain` that puts it in
//! > the ring.
//!
//! A [`Queue`] has one place where it sleeps, one bounded ring of the user's own events, and any
//! number of sources. Those that need nothing but the kernel are here: [`Timers`], [`Signals`],
//! [`Processes`], [`Counters`], [`Pressure`] and [`Mounts`]; [`UserEvents`], and [`HandlerEvents`]
//! from signal handlers; [`ChildQueue`], a queue in a queue; and [`Idle`]. The crates kevent-net,
//! kevent-fs and kevent-aio bring sockets, file-system watches and asynchronous I/O, in the same
//! way in which anybody brings a source: by the trait [`Source`].
//!
//! # Events in tasks
//!
//! A thread that has nothing else to do calls [`Queue::wait`], and that is the fastest. Where events are to be
//! awaited instead, somebody sleeps on the queue for the task:
//!
//! | where the task runs | the queue is in | who sleeps |
//! |---|---|---|
//! | on this thread, which runs nothing else | [`block_on`] | the thread |
//! | in tokio | `AsyncQueue` (feature `tokio`) | a thread of tokio's |
//! | in any other executor | [`EventStream`] | a thread of the stream's |
//!
//! Each is a [`Stream`](futures_core::Stream). A [`Router`] around one of them hands its events to many tasks.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "kevent makes one whole of what Linux has (epoll, timerfd, pidfd, io_uring): it runs on Linux only"
);

mod attached;
mod block_on;
mod budget;
mod changes;
mod clock;
mod descriptors;
mod dice;
mod directory;
mod doorbell;
mod drivers;
mod flow;
mod harvest;
mod histogram;
mod inbox;
mod interrupt;
mod linger;
mod mailbox;
mod mask;
mod meter;
mod numbers;
mod pace;
mod poll;
mod queue;
mod record;
mod recording;
mod registry;
mod replay;
mod rest;
mod ring;
mod router;
mod script;
mod shared;
mod sink;
mod source;
mod source_id;
mod sources;
mod spin;
mod stall;
mod stamped;
mod stats;
mod stream;
mod sync;
mod sys;
mod table;
pub mod testing;
mod token;
#[cfg(feature = "tokio")]
mod tokio;
mod trace;
mod unsupported;
mod wait;
mod waiter;
mod waker;
mod wall;
mod watch;
mod wheel;

pub use crate::attached::SourceError;
pub use crate::block_on::block_on;
pub use crate::changes::{Changed, Changes};
pub use crate::clock::Clock;
pub use crate::directory::RouterStats;
pub use crate::flow::{Flow, Merge, Overflow, SourceStats};
pub use crate::histogram::Histogram;
pub use crate::interrupt::Interrupter;
pub use crate::mailbox::PostError;
pub use crate::mask::SignalMask;
pub use crate::poll::{Interest, PollKey, PollSet, Ready, Trigger};
pub use crate::queue::Queue;
pub use crate::record::Record;
pub use crate::recording::{Entry, Recorder, Recording, RecordingError};
pub use crate::registry::Order;
pub use crate::replay::Replay;
pub use crate::router::{Router, Routes, RoutesGuard, Subscription};
pub use crate::shared::{QueueGuard, SharedQueue};
pub use crate::sink::{Full, Sink};
pub use crate::source::{Due, Source};
pub use crate::source_id::SourceId;
pub use crate::sources::child::ChildQueue;
pub use crate::sources::counter::{Adder, CounterEvent, Counters};
pub use crate::sources::handler::{HandlerEvents, HandlerPoster};
pub use crate::sources::idle::{Idle, IdleEvent};
pub use crate::sources::mounts::{Mount, MountEvent, Mounts};
pub use crate::sources::pressure::{
    Pressure, PressureEvent, PressureLevel, PressureLevels, PressureLimit, Resource, Stalled,
};
pub use crate::sources::process::{ProcessEvent, Processes, WatchError};
pub use crate::sources::signal::{Signal, SignalEvent, SignalValue, Signals};
pub use crate::sources::timer::{TimerChange, TimerEvent, TimerKind, Timers};
pub use crate::sources::user::{Poster, UserEvents};
pub use crate::stall::{Stall, StallMonitor};
pub use crate::stamped::Stamped;
pub use crate::stats::{Snapshot, Stats};
pub use crate::stream::{EventStream, PollEvents};
pub use crate::table::Table;
pub use crate::token::Token;
#[cfg(feature = "tokio")]
pub use crate::tokio::AsyncQueue;
pub use crate::wait::Wait;
pub use crate::waker::Waker;
