//! Without capabilities, in a user namespace, where nobody has them.

#![allow(clippy::unwrap_used)]

use std::io;
use std::process::Command;

use kevent_fs::FileSystemWatcher;

/// The test runs itself again in a user namespace, where nobody has the capabilities.
#[test]
fn missing_capability_is_unsupported_and_says_so() {
    const INSIDE: &str = "KEVENT_TEST_WITHOUT_CAPABILITY";
    if std::env::var_os(INSIDE).is_some() {
        let error = FileSystemWatcher::probe().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
        return;
    }
    let mut again = Command::new("unshare");
    again.arg("--user").arg(std::env::current_exe().unwrap());
    again.args(["--exact", "missing_capability_is_unsupported_and_says_so", "--nocapture"]);
    let Ok(done) = again.env(INSIDE, "1").output() else {
        return println!("skipped: no unshare(1)");
    };
    let text = String::from_utf8_lossy(&done.stderr);
    assert_ne!(done.status.code(), Some(101), "{text}");
    if !done.status.success() {
        println!("skipped: {text}");
    }
}
