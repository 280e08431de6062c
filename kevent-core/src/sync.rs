//! The atomics and cells that threads share, from std, or from loom when the models are built.
//!
//! `--cfg kevent_loom` swaps them. The code that is modelled names neither: what loom tries in every order
//! is the code that runs. The models themselves are in [`models`], and how to run them is said there.

#[cfg(not(kevent_loom))]
mod real {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, fence};

    /// A cell that its owner keeps from being used twice at a time, in loom's words.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with_mut<R>(&self, use_it: impl FnOnce(*mut T) -> R) -> R {
            use_it(self.0.get())
        }
    }
}

#[cfg(kevent_loom)]
mod real {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, fence};
}

pub(crate) use real::*;
pub(crate) use std::sync::atomic::Ordering;

#[cfg(all(kevent_loom, test))]
mod models;
