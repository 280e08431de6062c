//! The sources that need nothing but the kernel, one file each.

pub(crate) mod timer;
pub(crate) mod user;
