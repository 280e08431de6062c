//! The parts of `kevent-serve`, a static file server on one event queue per thread.
//!
//! A library for the sake of its tests: what it offers changes with the program.

#![forbid(unsafe_code)]
#![allow(missing_docs)] // Documented for whoever reads the program; nobody else calls it.

pub mod answer;
pub mod clients;
pub mod connection;
pub mod control;
pub mod exchange;
pub mod files;
pub mod http;
pub mod idle;
pub mod limits;
pub mod lister;
pub mod log;
pub mod message;
pub mod options;
pub mod reply;
pub mod server;
#[cfg(test)]
mod simulated;
pub mod stderr;
pub mod untold;
pub mod vital;
pub mod worker;
