//! Nothing outside ROOT is served, and nothing that is no file.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use common::{folder, start, write};

#[test]
fn no_spelling_of_a_path_leads_out_of_root() {
    let outer = tempfile::tempdir().unwrap();
    write(outer.path(), "secret", b"SECRET");
    let root = outer.path().join("root");
    std::fs::create_dir_all(root.join("d")).unwrap();
    write(&root, ".hidden", b"SECRET");
    let server = start(&root, &[]);
    for target in [
        "/../secret",
        "/d/../../secret",
        "/%2e%2e/secret",
        "/%2E%2E%2Fsecret",
        "/d/..%2f..%2fsecret",
        "/..%5csecret",
        "//../secret",
        "/./../secret",
        "http://h/../secret",
        "http://h/%2e%2e/secret",
        "/.hidden",
        "/%2ehidden",
        "/secret%00",
        "/%00/../secret",
    ] {
        let response = server.get(target);
        assert!([400, 403, 404].contains(&response.status), "{target}: {}", response.status);
        assert!(!response.text().contains("SECRET"), "{target} leaks");
    }
}

#[test]
fn symbolic_links_are_followed_inside_root_only() {
    let outer = tempfile::tempdir().unwrap();
    write(outer.path(), "secret", b"SECRET");
    let root = outer.path().join("root");
    std::fs::create_dir_all(root.join("d")).unwrap();
    write(&root, "d/f", b"inside");
    symlink("../secret", root.join("out")).unwrap();
    symlink("..", root.join("outfolder")).unwrap();
    symlink(outer.path().join("secret"), root.join("absolute")).unwrap();
    symlink(root.join("d/f"), root.join("absolute-inside")).unwrap();
    symlink("d/f", root.join("in")).unwrap();
    symlink("d", root.join("infolder")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let server = start(&root, &[]);
    for target in ["/out", "/outfolder/secret", "/outfolder/", "/outfolder", "/absolute", "/loop"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    assert_eq!(server.get("/absolute-inside").status, 404, "an absolute one leads to /");
    assert_eq!(server.get("/in").body, b"inside");
    assert_eq!(server.get("/infolder/f").body, b"inside");
    assert_eq!(server.get("/infolder").status, 301);
}

#[test]
fn fifo_socket_and_device_are_not_served_and_hang_nothing() {
    let root = folder();
    let path = |name: &str| root.path().join(name);
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(path("socket")).unwrap();
    let node = Command::new("mknod").arg(path("zero")).args(["c", "1", "5"]).output();
    if !node.is_ok_and(|made| made.status.success()) {
        println!("skipped: device nodes need root");
    }
    let server = start(root.path(), &["--threads", "1"]);
    for name in ["fifo", "socket", "zero"] {
        assert_eq!(server.get(&format!("/{name}")).status, 404, "{name}");
        assert_eq!(server.get(&format!("/{name}/")).status, 404, "{name}/");
    }
    assert_eq!(server.get("/a.txt").status, 200);
}
