//! HTTP/1.1 for static files: bytes to requests, files to heads and pages.
//!
//! Nothing here reads, writes, or looks at a clock: every answer follows from the arguments. The
//! files stand in the order in which they use each other.

mod digits;
mod html;

pub mod date;
pub mod mime;
pub mod status;

pub mod path;
pub mod range;

pub mod conditional;

pub mod request;
pub mod response;

pub mod listing;

pub use status::Status;
