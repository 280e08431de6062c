//! Parts of a file, and requests that depend on what the client has already.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod common;

use std::fs;
use std::path::Path;

use common::{Response, folder, pattern, start, write};

#[test]
fn one_range_is_sent_as_it_was_asked_for() {
    let root = folder();
    let content = pattern(1_000_000, 5);
    write(root.path(), "f", &content);
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("10-99999", 10, 100_000),
        ("999999-", 999_999, 1_000_000),
        ("500-", 500, 1_000_000),
        ("-1", 999_999, 1_000_000),
        ("-9999999", 0, 1_000_000),
        ("5-9999999", 5, 1_000_000),
    ] {
        let response = client.ask("GET", "/f", &format!("Range: bytes={range}\r\n"));
        assert_eq!(response.status, 206, "{range}");
        let told = format!("bytes {from}-{}/1000000", to - 1);
        assert_eq!(response.header("content-range"), Some(told.as_str()));
        assert!(response.body == content[from..to], "{range}");
    }
}

#[test]
fn several_ranges_come_as_parts() {
    let root = folder();
    let content = pattern(300_000, 5);
    write(root.path(), "f.bin", &content);
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    let response = client.ask("GET", "/f.bin", "Range: bytes=0-9,1000-200999,-5\r\n");
    assert_eq!(response.status, 206);
    let ranges = [(0, 10), (1000, 201_000), (299_995, 300_000)];
    assert_eq!(
        parts(&response),
        ranges.map(|(from, to)| {
            (format!("bytes {from}-{}/300000", to - 1), content[from..to].to_vec())
        })
    );
    assert_eq!(client.get("/a.txt").body, b"hello", "the connection is in step");
}

/// Content-Range and bytes of each part, and nothing between them.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let content_type = response.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let boundary = boundary.trim_matches('"');
    let mut rest = response.body.as_slice();
    let mut parts = Vec::new();
    rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    loop {
        rest = rest.strip_prefix(format!("--{boundary}").as_bytes()).expect("a boundary");
        if rest.starts_with(b"--") {
            assert_eq!(rest, b"--\r\n");
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").unwrap();
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap().to_owned();
        let told = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-range").then(|| value.to_owned())
        });
        let told = told.expect("a part says where it belongs");
        let (first, last) = told[6..].split_once('/').unwrap().0.split_once('-').unwrap();
        let length = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        rest = &rest[end + 4..];
        parts.push((told, rest[..length].to_vec()));
        rest = rest[length..].strip_prefix(b"\r\n").expect("a line ends the part");
    }
}

#[test]
fn range_beyond_the_end_is_refused_with_the_length() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    for range in ["5-", "99-100", "-0"] {
        let response = client.ask("GET", "/a.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!(response.status, 416, "{range}");
        assert_eq!(response.header("content-range"), Some("bytes */5"));
    }
    for nonsense in ["lines=1-2", "bytes=x-y", "bytes=3-2"] {
        let response = client.ask("GET", "/a.txt", &format!("Range: {nonsense}\r\n"));
        assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]), "{nonsense}");
    }
}

/// A tag is strong only once the file has been left alone. This one was, since it was compiled.
#[test]
fn range_of_another_version_is_the_whole_file() {
    let server = start(Path::new(env!("CARGO_MANIFEST_DIR")), &[]);
    let mut client = server.connect();
    let whole = fs::read("Cargo.toml").unwrap();
    let etag = client.get("/Cargo.toml").header("etag").unwrap().to_owned();
    let mut ask = |tag: &str| {
        client.ask("GET", "/Cargo.toml", &format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n"))
    };
    assert_eq!(ask("\"another\"").body, whole);
    assert_eq!(ask(&etag).body, whole[..1], "{etag}");
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let root = folder();
    let server = start(root.path(), &[]);
    let mut client = server.connect();
    let response = client.get("/a.txt");
    let etag = response.header("etag").unwrap().to_owned();
    let modified = response.header("last-modified").unwrap().to_owned();
    for (header, status) in [
        (format!("If-None-Match: {etag}"), 304),
        ("If-None-Match: *".to_owned(), 304),
        (format!("If-None-Match: \"x\", {etag}"), 304),
        ("If-None-Match: \"x\"".to_owned(), 200),
        (format!("If-Modified-Since: {modified}"), 304),
        ("If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT".to_owned(), 200),
        ("If-Match: \"x\"".to_owned(), 412),
        ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT".to_owned(), 412),
    ] {
        assert_eq!(
            client.ask("GET", "/a.txt", &format!("{header}\r\n")).status,
            status,
            "{header}"
        );
    }
}
