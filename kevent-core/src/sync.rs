//! What threads share and wake each other by: atomics, cells and locks of std, and of the kernel an epoll
//! set. Or those of loom, and a model of the set, when the models are built.
//!
//! `--cfg kevent_loom` swaps them. The code that is modelled names neither: what loom tries in every order
//! is the code that runs. The models themselves are in [`models`], and how to run them is said there.

#[cfg(not(kevent_loom))]
mod real {
    pub(crate) use crate::sys::epoll::wait;
    pub(crate) use crate::sys::eventfd::{EventFd, Gong};
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, fence};
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

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
    pub(crate) use super::kernel::{EventFd, Gong, wait};
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, fence};
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};

    use loom::sync::atomic::Ordering;

    /// A byte that is stored by a swap. After a plain store loom (0.7) lets the storing thread read what
    /// another one's swap has put there before, as if that could have come between; what a swap has
    /// found it knows to be older.
    #[derive(Debug)]
    pub(crate) struct AtomicU8(loom::sync::atomic::AtomicU8);

    impl AtomicU8 {
        pub(crate) fn new(value: u8) -> AtomicU8 {
            AtomicU8(loom::sync::atomic::AtomicU8::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u8 {
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: u8, order: Ordering) {
            self.0.swap(value, order);
        }

        pub(crate) fn swap(&self, value: u8, order: Ordering) -> u8 {
            self.0.swap(value, order)
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u8,
            new: u8,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u8, u8> {
            self.0.compare_exchange(current, new, success, failure)
        }
    }
}

pub(crate) use real::*;
pub(crate) use std::sync::atomic::Ordering;

#[cfg(kevent_loom)]
mod kernel;
#[cfg(all(kevent_loom, test))]
mod models;
