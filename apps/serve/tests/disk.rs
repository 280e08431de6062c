//! Files that can't be read: that is said, and nobody else is troubled.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Server, command, folder, launch, pattern, ways, write};

/// strace(1) has every read of these files fail, once they are open. What the ring reads it does not
/// see; but whatever is read has to pass sendfile(2), or is asked for without waiting first.
fn start_with_failing_reads(root: &Path, way: &str) -> Server {
    let mut command = Command::new("strace");
    // The server is our child, and strace its grandchild that ends with it.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    for name in ["small", "large"] {
        command.arg("-P").arg(root.join(name));
    }
    command.args(["-e", "inject=preadv2,preadv,pread64,read,readv,sendfile:error=EIO"]);
    command.arg(env!("CARGO_BIN_EXE_kevent-serve"));
    command.args(["--listen", "127.0.0.1:0", "--threads", "1", "--aio", way]).arg(root);
    command.stdout(Stdio::piped());
    launch(command)
}

fn may_trace() -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let may = traced.is_ok_and(|output| output.status.success());
    if !may {
        println!("skipped: no strace, or no permission to trace");
    }
    may
}

#[test]
fn file_that_cannot_be_read_is_an_error_and_the_others_are_served() {
    if !may_trace() {
        return;
    }
    let root = folder();
    write(root.path(), "small", &pattern(4_000, 1));
    write(root.path(), "large", &pattern(3_000_000, 2));
    for way in ways() {
        let server = start_with_failing_reads(root.path(), way);
        assert_eq!(server.get("/a.txt").status, 200);
        assert_eq!(server.get("/small").status, 500, "{way}");
        assert_eq!(server.get("/large").status, 500, "{way}");
        let descriptors = server.descriptors();
        let mut client = server.connect();
        for _ in 0..3 {
            for name in ["/small", "/large"] {
                assert_eq!(client.get(name).status, 500, "{way} {name}");
            }
            assert_eq!(client.get("/a.txt").body, b"hello", "{way}");
        }
        drop(client);
        server.gives_back_all_but(descriptors);
    }
}

/// Nobody, on every Linux system.
const NOBODY: u32 = 65534;

#[test]
fn file_that_may_not_be_read_is_forbidden() {
    let root = folder();
    write(root.path(), "secret", b"x");
    fs::create_dir(root.path().join("closed")).unwrap();
    for (name, mode) in [(".", 0o755), ("a.txt", 0o644), ("secret", 0), ("closed", 0)] {
        fs::set_permissions(root.path().join(name), Permissions::from_mode(mode)).unwrap();
    }
    let mut command = command(root.path(), &[]);
    if fs::read(root.path().join("secret")).is_ok() {
        // This is root, who may read everything.
        command.uid(NOBODY);
    }
    if let Err(error) = Command::new(command.get_program()).uid(NOBODY).arg("--version").output() {
        println!("skipped: another user may not run the program here: {error}");
        return;
    }
    let server = launch(command);
    assert_eq!(server.get("/a.txt").status, 200);
    for target in ["/secret", "/closed/", "/closed/file"] {
        assert_eq!(server.get(target).status, 403, "{target}");
    }
}
