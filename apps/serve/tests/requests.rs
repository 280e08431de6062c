//! What is asked for is answered, whole and in order, however the request comes.

#![allow(clippy::unwrap_used)] // Helpers of tests.

mod common;

use common::{Client, folder, pattern, start, write};

const SIZES: [usize; 5] = [0, 1, 4096, 70_000, (3 << 20) + 1];

#[test]
fn files_of_every_size_come_whole_on_one_connection() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    for size in SIZES {
        let content = pattern(size, 1);
        let name = format!("/{size}.bin");
        write(root.path(), &name[1..], &content);
        for _ in 0..2 {
            let response = client.get(&name);
            assert_eq!((response.status, response.body == content), (200, true), "{size}");
            let head = client.ask("HEAD", &name, "");
            assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
        }
    }
}

#[test]
fn names_are_found_whatever_is_in_them() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    for (name, target) in [
        ("with space", "/with%20space"),
        ("Grüße-日本", "/Gr%C3%BC%C3%9Fe-%E6%97%A5%E6%9C%AC"),
        ("100%", "/100%25"),
        ("a+b", "/a+b"),
        ("a#b", "/a%23b"),
        ("a?b", "/a%3Fb"),
        ("%41", "/%2541"),
    ] {
        write(root.path(), name, name.as_bytes());
        let response = client.get(target);
        assert_eq!((response.status, response.text().as_str()), (200, name));
    }
    assert_eq!(client.get("/a.txt?query=1").status, 200);
}

#[test]
fn content_type_follows_the_name() {
    let root = folder();
    let server = start(root.path(), &[]);
    for (name, expected) in [
        ("a.html", "text/html"),
        ("a.css", "text/css"),
        ("a.png", "image/png"),
        ("a.json", "application/json"),
        ("none", "application/octet-stream"),
    ] {
        write(root.path(), name, b"x");
        let response = server.get(&format!("/{name}"));
        let content_type = response.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with(expected), "{name}: {content_type}");
    }
}

#[test]
fn hundred_requests_share_one_connection() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/a.txt").body, b"hello");
    }
}

#[test]
fn http_1_0_closes_unless_asked_to_keep_alive() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response();
        assert_eq!(response.body, b"hello");
        assert_eq!(response.header("connection"), Some("keep-alive"));
    }
    client.send("GET /a.txt HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().body, b"hello");
    client.assert_closed();
}

#[test]
fn connection_close_is_honoured() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    let response = client.ask("GET", "/a.txt", "Connection: close\r\n");
    assert_eq!(response.header("connection"), Some("close"));
    client.assert_closed();
}

#[test]
fn fifty_requests_in_one_write_are_answered_in_order() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut requests = String::new();
    let mut contents = Vec::new();
    for n in 0..50_u64 {
        let content = pattern(if n % 7 == 3 { 600_000 } else { n as usize * 11 }, n);
        write(root.path(), format!("f{n}"), &content);
        contents.push(content);
        requests += &format!("GET /f{n} HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    let mut client = server.connect();
    client.send(requests);
    for (n, content) in contents.iter().enumerate() {
        assert!(client.response().body == *content, "answer {n} is another file's");
    }
}

#[test]
fn request_that_comes_byte_by_byte_is_answered() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    for byte in b"GET /a.txt HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.response().body, b"hello");
}

#[test]
fn two_requests_may_be_split_at_any_place() {
    let root = folder();
    write(root.path(), "b.txt", b"world!");
    let server = start(root.path(), &[]);
    let both = "GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\nHEAD /b.txt HTTP/1.1\r\nHost: h\r\n\r\n\
                GET /b.txt HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    for split in 0..both.len() {
        client.send(&both[..split]);
        client.send(&both[split..]);
        assert_eq!(client.response().body, b"hello", "split at {split}");
        assert_eq!(client.head().header("content-length"), Some("6"));
        assert_eq!(client.response().body, b"world!");
    }
}

#[test]
fn client_that_closes_its_writing_side_gets_the_whole_answer() {
    let root = folder();
    let content = pattern(8 << 20, 3);
    write(root.path(), "big", &content);
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\nGET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    client.finish();
    assert_eq!(client.response().body, b"hello");
    assert!(client.response().body == content);
    client.assert_closed();
}

#[test]
fn answers_without_a_body_leave_the_connection_in_step() {
    let root = folder();
    std::fs::create_dir(root.path().join("d")).unwrap();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    let etag = client.get("/a.txt").header("etag").unwrap().to_owned();
    let none_match = format!("If-None-Match: {etag}\r\n");
    for (method, target, headers, status) in [
        ("HEAD", "/a.txt", "", 200),
        ("HEAD", "/none", "", 404),
        ("HEAD", "/", "", 200),
        ("HEAD", "/d", "", 301),
        ("GET", "/a.txt", none_match.as_str(), 304),
        ("HEAD", "/a.txt", none_match.as_str(), 304),
        ("GET", "/d", "", 301),
        ("GET", "/none", "", 404),
        ("GET", "/a.txt", "Range: bytes=9-\r\n", 416),
        ("GET", "/a.txt", "If-Match: \"x\"\r\n", 412),
        ("DELETE", "/a.txt", "", 405),
    ] {
        let response = client.ask(method, target, headers);
        assert_eq!(response.status, status, "{method} {target}");
        if response.header("connection") == Some("close") {
            client.assert_closed();
            client = server.connect();
        }
        assert_eq!(client.get("/a.txt").body, b"hello", "after {method} {target}");
    }
}

#[test]
fn bad_requests_are_refused_by_what_is_wrong_with_them() {
    let root = folder();
    let server = start(root.path(), &[]);
    let long = "x".repeat(40_000);
    for (request, status) in [
        ("rubbish\r\n\r\n".to_owned(), 400),
        ("GET /a.txt HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"), 431),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), 505),
        ("DELETE /a.txt HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 405),
    ] {
        let mut client: Client = server.connect();
        client.send(&request);
        let response = client.response();
        assert_eq!(response.status, status, "{:.60}", request);
        if status == 405 {
            assert_eq!(response.header("allow"), Some("GET, HEAD"));
        }
        assert_eq!(server.get("/a.txt").status, 200);
    }
}
