//! What is served is what the disk has: wholly old or wholly new, and new at once.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use common::{Server, folder, pattern, start, until, write};

/// Long after any thread has heard of a change, and far from any timeout.
const AT_ONCE: Duration = Duration::from_secs(2);

fn replace(root: &Path, name: &str, content: &[u8]) {
    write(root, ".new", content);
    fs::rename(root.join(".new"), root.join(name)).unwrap();
}

/// Asks until the answer is so, on several connections so that each thread is asked.
fn soon(server: &Server, target: &str, status: u16, body: Option<&[u8]>) {
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let begun = Instant::now();
    for client in &mut clients {
        until("the change is seen", || {
            let response = client.get(target);
            response.status == status && body.is_none_or(|body| body == response.body)
        });
    }
    println!("seen after {:?}", begun.elapsed());
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[test]
fn file_replaced_under_load_is_wholly_old_or_wholly_new_and_new_at_once() {
    let root = folder();
    write(root.path(), "f", &[0; 200_000]);
    let server = start(root.path(), &["--threads", "2"]);
    let written = AtomicU8::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = server.connect();
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let body = client.get("/f").body;
                    let byte = body[0];
                    assert!(body.iter().all(|b| *b == byte), "torn");
                    assert_eq!(body.len(), 200_000 - 1000 * usize::from(byte), "torn length");
                    assert!(byte >= last && byte <= written.load(Ordering::Acquire) + 1);
                    last = byte;
                }
            });
        }
        for byte in 1..20_u8 {
            replace(root.path(), "f", &vec![byte; 200_000 - 1000 * usize::from(byte)]);
            written.store(byte, Ordering::Release);
            soon(&server, "/f", 200, Some(&vec![byte; 200_000 - 1000 * usize::from(byte)]));
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn changed_created_moved_and_deleted_files_are_seen() {
    let root = folder();
    let server = start(root.path(), &["--threads", "2"]);
    soon(&server, "/a.txt", 200, Some(b"hello"));
    let before = server.get("/a.txt").header("etag").unwrap().to_owned();
    write(root.path(), "a.txt", b"HELLO");
    soon(&server, "/a.txt", 200, Some(b"HELLO"));
    assert_ne!(server.get("/a.txt").header("etag"), Some(before.as_str()), "of the same size");
    fs::create_dir(root.path().join("d")).unwrap();
    write(root.path(), "d/f", b"1");
    soon(&server, "/d/f", 200, Some(b"1"));
    write(root.path(), "d/f", b"22");
    soon(&server, "/d/f", 200, Some(b"22"));
    fs::rename(root.path().join("d"), root.path().join("e")).unwrap();
    soon(&server, "/d/f", 404, None);
    soon(&server, "/e/f", 200, Some(b"22"));
    fs::remove_file(root.path().join("a.txt")).unwrap();
    soon(&server, "/a.txt", 404, None);
}

#[test]
fn file_behind_a_symbolic_link_is_seen_to_change() {
    let root = folder();
    symlink("a.txt", root.path().join("link")).unwrap();
    let server = start(root.path(), &["--threads", "1"]);
    soon(&server, "/link", 200, Some(b"hello"));
    replace(root.path(), "a.txt", b"changed");
    soon(&server, "/link", 200, Some(b"changed"));
}

#[test]
fn folder_behind_a_symbolic_link_may_be_switched() {
    let root = folder();
    for release in ["1", "2"] {
        fs::create_dir(root.path().join(release)).unwrap();
        write(root.path(), format!("{release}/f"), release.as_bytes());
    }
    symlink("1", root.path().join("current")).unwrap();
    let server = start(root.path(), &["--threads", "1"]);
    soon(&server, "/current/f", 200, Some(b"1"));
    symlink("2", root.path().join(".next")).unwrap();
    fs::rename(root.path().join(".next"), root.path().join("current")).unwrap();
    soon(&server, "/current/f", 200, Some(b"2"));
}

#[test]
fn file_of_two_names_is_seen_to_change_by_either() {
    let root = folder();
    fs::hard_link(root.path().join("a.txt"), root.path().join("b.txt")).unwrap();
    let server = start(root.path(), &["--threads", "1"]);
    soon(&server, "/b.txt", 200, Some(b"hello"));
    write(root.path(), "a.txt", b"longer than before");
    soon(&server, "/b.txt", 200, Some(b"longer than before"));
}

#[test]
fn root_that_is_a_symbolic_link_is_watched_too() {
    let root = folder();
    let outer = tempfile::tempdir().unwrap();
    let link = outer.path().join("link");
    symlink(root.path(), &link).unwrap();
    let server = start(&link, &["--threads", "2"]);
    soon(&server, "/a.txt", 200, Some(b"hello"));
    replace(root.path(), "a.txt", b"changed");
    soon(&server, "/a.txt", 200, Some(b"changed"));
}

#[test]
fn file_truncated_while_it_is_sent_ends_its_connection_only() {
    let root = folder();
    write(root.path(), "big", &pattern(64 << 20, 1));
    let mut server = start(root.path(), &[]);
    let mut client = server.connect();
    client.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.head().header("content-length"), Some("67108864"));
    let file = fs::OpenOptions::new().write(true).open(root.path().join("big")).unwrap();
    file.set_len(1 << 20).unwrap();
    assert!(client.rest().len() < 64 << 20);
    assert!(server.is_alive());
    assert_eq!(server.get("/a.txt").status, 200);
}

#[test]
fn file_deleted_while_it_is_sent_is_sent_whole_and_not_found_after() {
    let root = folder();
    let content = pattern(64 << 20, 1);
    write(root.path(), "big", &content);
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    client.send("GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(client.head().status, 200);
    fs::remove_file(root.path().join("big")).unwrap();
    assert!(client.rest() == content);
    soon(&server, "/big", 404, None);
}

/// The folder is served by its descriptor, and the watch on it has ended.
#[test]
fn root_that_was_renamed_is_served_as_it_is() {
    let outer = tempfile::tempdir().unwrap();
    let (root, moved) = (outer.path().join("root"), outer.path().join("moved"));
    fs::create_dir(&root).unwrap();
    write(&root, "f", b"old");
    let server = start(&root, &["--threads", "2"]);
    soon(&server, "/f", 200, Some(b"old"));
    fs::rename(&root, &moved).unwrap();
    // Kept from before, or opened now: either way nobody tells of what comes.
    write(&moved, "g", b"g");
    soon(&server, "/g", 200, Some(b"g"));
    for content in [b"new", b"two", b"iii"] {
        replace(&moved, "f", content);
        soon(&server, "/f", 200, Some(content));
    }
    fs::remove_dir_all(&moved).unwrap();
    soon(&server, "/f", 404, None);
}
