//! What people should hear.

use std::io::{self, Write};

/// One line on standard error. There is nobody to tell if that fails.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "kevent-serve: {text}");
}
