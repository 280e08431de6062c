//! Spans of `tracing`, if that feature is on. Nothing, if it is not.

#[cfg(feature = "tracing")]
mod spans {
    use tracing::span::EnteredSpan;
    use tracing::trace_span;

    /// A wait that asks the sources, from its begin to its end.
    pub(crate) fn wait() -> EnteredSpan {
        trace_span!(target: "kevent", "wait").entered()
    }

    /// A look at the kernel, with the sleep.
    pub(crate) fn look() -> EnteredSpan {
        trace_span!(target: "kevent", "look").entered()
    }

    /// One source moves what it has into the ring.
    pub(crate) fn drain(source: &'static str) -> EnteredSpan {
        trace_span!(target: "kevent", "drain", source).entered()
    }
}

#[cfg(not(feature = "tracing"))]
mod spans {
    /// Ends when it is dropped.
    pub(crate) struct NoSpan;

    #[inline]
    pub(crate) fn wait() -> NoSpan {
        NoSpan
    }

    #[inline]
    pub(crate) fn look() -> NoSpan {
        NoSpan
    }

    #[inline]
    pub(crate) fn drain(_: &'static str) -> NoSpan {
        NoSpan
    }
}

pub(crate) use spans::{drain, look, wait};
