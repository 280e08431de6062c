//! How to make an engine.

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::backend::pool::{Pool, Runner};
use crate::backend::uring::Uring;
use crate::buffers::Buffers;
use crate::engine::Aio;
use crate::report::Refusal;

/// Operations in flight, unless said otherwise.
const DEFAULT_CAPACITY: usize = 1024;

/// Threads of the pool at most, unless said otherwise: as many as a disk's queue makes use of.
const DEFAULT_THREADS: usize = 32;

/// The name of the variable that chooses the backend where the program leaves it open.
const VARIABLE: &str = "KEVENT_AIO";

/// Which backend is to do the work that would block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// io_uring where it can be had, else the pool. The environment variable `KEVENT_AIO`, set to
    /// `uring`, `pool` or `auto`, decides if it is set.
    #[default]
    Auto,
    /// io_uring, and an error without it.
    Uring,
    /// Threads.
    Pool,
}

/// How an [`Aio`] is to be made.
///
/// ```
/// use kevent_aio::{Aio, Choice, Way};
///
/// let aio = Aio::builder().backend(Choice::Pool).capacity(64).threads(4).build()?;
/// assert_eq!(aio.report().backend, Way::Pool);
/// # std::io::Result::Ok(())
/// ```
pub struct Builder {
    choice: Choice,
    capacity: usize,
    threads: usize,
    buffers: Option<Buffers>,
    pub(crate) runner: Option<Runner>,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            choice: Choice::Auto,
            capacity: DEFAULT_CAPACITY,
            threads: DEFAULT_THREADS,
            buffers: None,
            runner: None,
        }
    }

    /// Which backend. [`Choice::Auto`] unless said otherwise.
    #[must_use]
    pub fn backend(self, choice: Choice) -> Builder {
        Builder { choice, ..self }
    }

    /// How many operations may be in flight, those counted whose completion was not taken yet. 1,024
    /// unless said otherwise, at least 1.
    #[must_use]
    pub fn capacity(self, operations: usize) -> Builder {
        Builder { capacity: operations.max(1), ..self }
    }

    /// How many threads the pool has at most. They are started when they are needed. 32 unless said
    /// otherwise, at least 1.
    ///
    /// With the pool for a backend, a read of a pipe, a socket or a terminal holds one of them until
    /// something comes: as many such reads as there are threads stop all others.
    #[must_use]
    pub fn threads(self, threads: usize) -> Builder {
        Builder { threads: threads.max(1), ..self }
    }

    /// Makes these buffers known to the kernel, where there is a ring: reads into them and writes from them then
    /// cost less. Their pages stay in memory, which counts against the limit of locked memory (`ulimit -l`). If
    /// that is too low they serve all the same, and [`Report::knows_buffers`](crate::Report::knows_buffers)
    /// is false.
    ///
    /// ```
    /// use std::num::NonZero;
    /// use kevent_aio::{Aio, Buffers};
    ///
    /// let buffers = Buffers::new(NonZero::new(64).unwrap(), NonZero::new(4096).unwrap())?;
    /// let aio = Aio::builder().buffers(&buffers).build()?;
    /// println!("known to the kernel: {}", aio.report().knows_buffers);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn buffers(self, buffers: &Buffers) -> Builder {
        Builder { buffers: Some(buffers.clone()), ..self }
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// `Unsupported`, saying why and what to do, when io_uring was asked for by name and can't be had.
    /// `InvalidInput` when `KEVENT_AIO` says something that it can't mean.
    pub fn build(self) -> io::Result<Aio> {
        let choice = if self.choice == Choice::Auto { from_environment()? } else { self.choice };
        let (mut ring, refusal) = match choice {
            Choice::Pool => (None, None),
            Choice::Auto | Choice::Uring => match Uring::new(self.capacity) {
                Ok(ring) => (Some(ring), None),
                Err(refusal) if choice == Choice::Uring => return Err(no_ring(&refusal)),
                Err(refusal) => (None, Some(refusal)),
            },
        };
        if let (Some(ring), Some(buffers)) = (&mut ring, &self.buffers) {
            // Too much memory to lock, mostly. It goes without.
            let _ = ring.register_buffers(buffers);
        }
        let pool = Pool::new(self.threads, self.runner);
        Ok(Aio::assemble(ring, refusal, pool, self.capacity))
    }
}

impl Aio {
    /// An engine on io_uring, or on a pool of threads where that can't be had. The environment
    /// variable `KEVENT_AIO` (`uring`, `pool` or `auto`) chooses.
    ///
    /// # Errors
    ///
    /// Only when that variable asks for what can't be had, or for nonsense: see [`Builder::build`].
    pub fn new() -> io::Result<Aio> {
        Aio::builder().build()
    }

    /// An engine made to measure.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }
}

fn no_ring(refusal: &Refusal) -> io::Error {
    let remedy = refusal.remedy();
    let text = format!(
        "io_uring was asked for and can't be had: {refusal}; {remedy}, or leave the choice open \
         (Choice::Auto, {VARIABLE}=auto)"
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

fn from_environment() -> io::Result<Choice> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(Choice::Auto) };
    if value.is_empty() {
        return Ok(Choice::Auto);
    }
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let text = format!("{VARIABLE} is {value:?}; set it to {UnknownChoice}, or unset it");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// As the environment and command lines write it: `auto`, `uring` or `pool`.
impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Choice, UnknownChoice> {
        match text {
            "auto" => Ok(Choice::Auto),
            "uring" => Ok(Choice::Uring),
            "pool" => Ok(Choice::Pool),
            _ => Err(UnknownChoice),
        }
    }
}

/// Not a word for a [`Choice`]. It prints those that are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownChoice;

impl fmt::Display for UnknownChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, uring or pool")
    }
}

impl std::error::Error for UnknownChoice {}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("choice", &self.choice)
            .field("capacity", &self.capacity)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}
