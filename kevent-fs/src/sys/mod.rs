//! System calls that no crate wraps.

pub(crate) mod fanotify;
