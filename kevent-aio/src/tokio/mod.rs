//! Files for tokio (feature `tokio`).
//!
//! [`Engine`] is one [`Aio`](crate::Aio) for all tasks. [`File`] reads and writes at a place, with buffers that
//! it is given and gives back; [`Cursor`] is a file with a position, for whatever takes tokio's
//! `AsyncRead`, `AsyncWrite` and `AsyncSeek`. What is in the page cache is read in the first poll.
//!
//! ```
//! use kevent_aio::tokio::{Engine, File};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
//! let engine = Engine::new()?;
//! let file = File::open(&engine, "/proc/self/status").await?;
//! let (count, buffer) = file.read_at(Vec::with_capacity(4096), 0).await;
//! assert_eq!(count?, buffer.len());
//! assert!(buffer.starts_with(b"Name:"));
//! # std::io::Result::Ok(())
//! # })?;
//! # std::io::Result::Ok(())
//! ```

mod slot;

mod hub;

mod desk;

mod readable;

mod driver;

mod engine;

mod file;

mod cursor;

pub use cursor::Cursor;
pub use engine::{Engine, Finished};
pub use file::{BufResult, File};
