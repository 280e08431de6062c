//! Folders: their index, their listing, and the slash at their end.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::{folder, start, write};

#[test]
fn folder_with_an_index_is_its_index() {
    let root = folder();
    fs::create_dir(root.path().join("d")).unwrap();
    write(root.path(), "d/index.html", b"<p>index");
    write(root.path(), "index.html", b"<p>root");
    let server = start(root.path(), &[]);
    assert_eq!(server.get("/").body, b"<p>root");
    assert_eq!(server.get("/d/").body, b"<p>index");
}

#[test]
fn listing_has_what_is_served_and_escapes_it() {
    let root = folder();
    for name in ["<b>&\"x", "a b", "100%", "q?#", ".hidden"] {
        write(root.path(), name, b"x");
    }
    fs::create_dir(root.path().join("sub")).unwrap();
    let server = start(root.path(), &[]);
    let response = server.get("/");
    let page = response.text();
    assert!(response.header("content-type").unwrap().starts_with("text/html"));
    for link in ["a.txt", "sub/", "a%20b", "100%25", "q%3F%23"] {
        assert!(page.contains(&format!("{link}\"")), "no link to {link} in {page}");
    }
    assert!(page.contains("&lt;b&gt;&amp;"), "{page}");
    assert!(!page.contains("<b>") && !page.contains(".hidden"), "{page}");
}

/// As each link would be answered.
#[test]
fn listing_has_no_link_that_leads_nowhere() {
    let root = folder();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("d/e")).unwrap();
    for (name, target) in [
        ("d/up", "../a.txt"),
        ("d/folder", "e"),
        ("d/out", "../.."),
        ("d/absolute", "/etc/passwd"),
        ("d/dangling", "nothing"),
        ("d/circle", "circle"),
    ] {
        symlink(target, at(name)).unwrap();
    }
    let fifo = std::process::Command::new("mkfifo").arg(at("d/fifo")).status().unwrap();
    assert!(fifo.success());
    let server = start(root.path(), &[]);
    let response = server.get("/d/");
    let page = response.text();
    let links = page.split("<td><a href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    assert_eq!(links.collect::<Vec<_>>(), ["../", "e/", "folder/", "up"]);
    assert!(page.contains("5 B"), "a link is as long as its file: {page}");
    for (target, status) in [("up", 200), ("folder/", 200), ("e/", 200), ("out", 404)] {
        assert_eq!(server.get(&format!("/d/{target}")).status, status, "{target}");
    }
}

#[test]
fn folder_without_its_slash_is_redirected_with_its_query() {
    let root = folder();
    fs::create_dir(root.path().join("d e")).unwrap();
    let server = start(root.path(), &[]);
    let response = server.get("/d%20e?x=1&y=%20");
    assert_eq!(response.status, 301);
    let location = response.header("location").unwrap();
    assert!(location.ends_with("/d%20e/?x=1&y=%20"), "{location}");
    // No other host, whatever the path begins with.
    for target in ["//example.org/..", "//d%20e", "/%2f/d%20e"] {
        let response = server.get(target);
        let location = response.header("location").unwrap_or("/");
        assert!(!location.starts_with("//") && location.starts_with('/'), "{target}: {location}");
    }
}

#[test]
fn file_with_a_slash_is_not_found() {
    let root = folder();
    let server = start(root.path(), &[]);
    assert_eq!(server.get("/a.txt/").status, 404);
    assert_eq!(server.get("/none").status, 404);
    assert_eq!(server.get("/none/").status, 404);
}

#[test]
fn listing_of_ten_thousand_entries_stalls_nobody() {
    let root = folder();
    let many = root.path().join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..10_000 {
        fs::File::create(many.join(format!("entry-{n}"))).unwrap();
    }
    let server = start(root.path(), &["--threads", "1"]);
    let mut reader = server.connect();
    reader.send("GET /many/ HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut other = server.connect();
    for _ in 0..20 {
        assert_eq!(other.get("/a.txt").body, b"hello");
    }
    let page = reader.response().text();
    assert_eq!(page.matches("entry-9999\"").count(), 1);
    assert!(page.matches("entry-").count() >= 10_000);
}
