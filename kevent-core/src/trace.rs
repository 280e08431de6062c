//! Spans of `tracing`, if that feature is on. Nothing, if it is not.

#[cfg(feature = "tracing")]
mod spans {
    use tracing::trace_span;

    /// Ends when it is dropped.
    pub(crate) struct EnteredSpan(#[allow(dead_code)] tracing::span::EnteredSpan);

    impl EnteredSpan {
        pub(crate) fn end(self) {}
    }

    /// A wait that asks the sources, from its begin to its end.
    pub(crate) fn wait() -> EnteredSpan {
        EnteredSpan(trace_span!(target: "kevent", "wait").entered())
    }

    /// A look at the kernel, with the sleep.
    pub(crate) fn look() -> EnteredSpan {
        EnteredSpan(trace_span!(target: "kevent", "look").entered())
    }

    /// One source moves what it has into the ring.
    pub(crate) fn drain(source: impl FnOnce() -> &'static str) -> EnteredSpan {
        EnteredSpan(trace_span!(target: "kevent", "drain", source = source()).entered())
    }
}

#[cfg(not(feature = "tracing"))]
mod spans {
    /// Ends when it is dropped.
    pub(crate) struct NoSpan;

    impl NoSpan {
        pub(crate) fn end(self) {}
    }

    #[inline]
    pub(crate) fn wait() -> NoSpan {
        NoSpan
    }

    #[inline]
    pub(crate) fn look() -> NoSpan {
        NoSpan
    }

    #[inline]
    pub(crate) fn drain(_: impl FnOnce() -> &'static str) -> NoSpan {
        NoSpan
    }
}

pub(crate) use spans::{drain, look, wait};
