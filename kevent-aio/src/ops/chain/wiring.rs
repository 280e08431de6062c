//! How the result of one step gets into a later one.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::operation::Fd;
use crate::ops::payload::Payload;
use crate::ops::{Open, Stat};

/// A step of a chain, and what it gives: `StepId<Stat>` is a step that gives a [`Stat`].
///
/// It is good for the chain that gave it, and for no other.
pub struct StepId<T> {
    pub(super) chain: u64,
    pub(super) index: usize,
    gives: PhantomData<fn() -> T>,
}

/// What a step that opens gives: a file for later steps. Nothing is ever made of this type.
#[derive(Debug)]
pub enum Opened {}

/// What a step that reads gives: bytes. Nothing is ever made of this type.
#[derive(Debug)]
pub enum Data {}

/// What a step that is done for its effect gives. Nothing is ever made of this type.
#[derive(Debug)]
pub enum Effect {}

impl<T> StepId<T> {
    pub(super) fn new(chain: u64, index: usize) -> StepId<T> {
        StepId { chain, index, gives: PhantomData }
    }

    /// Where the step is in the chain, and in its [report](crate::Chain::report).
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }
}

impl<T> Clone for StepId<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for StepId<T> {}

impl<T> fmt::Debug for StepId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepId({})", self.index)
    }
}

/// Tells the steps of one chain from those of another.
pub(super) fn chain_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Which part of a file a chain sends.
pub struct Span(pub(super) SpanKind);

pub(super) enum SpanKind {
    Known { offset: u64, length: u64 },
    FromStat(StepId<Stat>, FromStat<Range<u64>>),
}

/// What makes something of the metadata, when it is known.
type FromStat<T> = Box<dyn FnOnce(&Stat) -> T + Send>;

impl Span {
    /// As many bytes as the file had when that step looked, from the beginning: what a header that
    /// tells the length has promised.
    #[must_use]
    pub fn whole(stat: StepId<Stat>) -> Span {
        Span::from_stat(stat, |stat| 0..stat.size)
    }

    /// These bytes.
    #[must_use]
    pub fn range(range: Range<u64>) -> Span {
        let length = range.end.saturating_sub(range.start);
        Span(SpanKind::Known { offset: range.start, length })
    }

    /// From this byte up to where the file ends when the transfer gets there.
    #[must_use]
    pub fn to_end(offset: u64) -> Span {
        Span(SpanKind::Known { offset, length: super::Sendfile::TO_END })
    }

    /// The bytes that `choose` names when that step has looked: the last 500, or none.
    #[must_use]
    pub fn from_stat(
        stat: StepId<Stat>,
        choose: impl FnOnce(&Stat) -> Range<u64> + Send + 'static,
    ) -> Span {
        Span(SpanKind::FromStat(stat, Box::new(choose)))
    }
}

/// What a chain sends before a file.
pub struct Header(pub(super) HeaderKind);

pub(super) enum HeaderKind {
    Known(Payload),
    FromStat(StepId<Stat>, FromStat<Payload>),
}

impl Header {
    /// Nothing.
    #[must_use]
    pub fn none() -> Header {
        Header::bytes(Payload::default())
    }

    /// These bytes.
    #[must_use]
    pub fn bytes(bytes: impl Into<Payload>) -> Header {
        Header(HeaderKind::Known(bytes.into()))
    }

    /// The bytes that `write` makes of what that step has found: the length, the time.
    #[must_use]
    pub fn from_stat<P: Into<Payload>>(
        stat: StepId<Stat>,
        write: impl FnOnce(&Stat) -> P + Send + 'static,
    ) -> Header {
        Header(HeaderKind::FromStat(stat, Box::new(|stat| write(stat).into())))
    }
}

/// What a chain writes to a file.
#[derive(Clone, Debug)]
pub enum Content {
    /// What that step has read.
    Of(StepId<Data>),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl From<StepId<Data>> for Content {
    fn from(step: StepId<Data>) -> Content {
        Content::Of(step)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Content::Bytes(bytes)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content::Bytes(text.into())
    }
}

/// A step as it was asked for. Files and data are named by the index of the step that gives them.
pub(super) enum Spec {
    Open(Box<Open>),
    Statx {
        file: usize,
    },
    Read {
        file: usize,
        offset: u64,
        length: usize,
    },
    Write {
        file: usize,
        offset: u64,
        content: Content,
    },
    Fsync {
        file: usize,
    },
    Fdatasync {
        file: usize,
    },
    Fallocate {
        file: usize,
        offset: u64,
        length: u64,
    },
    Sendfile {
        socket: Fd,
        file: usize,
        span: Span,
        header: Header,
    },
    Send {
        socket: Fd,
        bytes: Payload,
    },
    Close {
        file: usize,
    },
    /// It has been begun, and what it was made of has gone into the operation.
    Begun,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            SpanKind::Known { offset, length } => write!(f, "Span({length} bytes at {offset})"),
            SpanKind::FromStat(stat, _) => write!(f, "Span(by {stat:?})"),
        }
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            HeaderKind::Known(bytes) => write!(f, "Header({bytes:?})"),
            HeaderKind::FromStat(stat, _) => write!(f, "Header(by {stat:?})"),
        }
    }
}
