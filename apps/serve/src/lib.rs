//! The parts of `kevent-serve`, a static file server, as a library, so that tests can reach them.

pub mod http;
