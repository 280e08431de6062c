//! The sources that need nothing but the kernel, one file each.

pub(crate) mod child;
pub(crate) mod counter;
pub(crate) mod handler;
pub(crate) mod idle;
pub(crate) mod mounts;
pub(crate) mod pressure;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod timer;
pub(crate) mod user;
