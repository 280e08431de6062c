//! The file that an operation reads or writes.

use std::os::fd::AsFd;

use crate::operation::Fd;
use crate::sys::file;

/// The file that an operation reads or writes, and what is known of it by then.
pub(crate) struct Reading {
    pub(crate) file: Fd,
    /// Not to be looked at first, whether it is in memory.
    pub(crate) cold: bool,
    /// Whether it can be read without waiting, if that is known. The ring is not for others: see
    /// [`file::takes_nowait`].
    pub(crate) nowait: Option<bool>,
}

impl Reading {
    pub(crate) fn new(file: Fd) -> Reading {
        Reading { file, cold: false, nowait: None }
    }

    /// Whether it can be read without waiting. The kernel is asked if it is not known.
    pub(crate) fn takes_nowait(&mut self) -> bool {
        *self.nowait.get_or_insert_with(|| file::takes_nowait(self.file.as_fd()))
    }
}
