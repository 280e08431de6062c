//! Requests, out of bytes.
//!
//! The parser refuses whatever two recipients could read in two ways, since a proxy in front that
//! reads it the other way can be made to smuggle requests past its own rules (RFC 9112 section
//! 11.2).

use std::mem::MaybeUninit;

use crate::http::conditional::Conditions;
use crate::http::path::{self, FilePath};
use crate::http::status::Status;

/// Bytes that a whole head may have, with the empty line at its end: more are answered with 431.
pub const MAX_HEAD: usize = 16 * 1024;

/// Bytes that the request line may have, with its line break: more are answered with 414.
pub const MAX_REQUEST_LINE: usize = 8 * 1024;

/// Fields that a head may have: more are answered with 431.
pub const MAX_FIELDS: usize = 100;

/// Methods of RFC 9110 and RFC 5789 that this server knows and does not serve.
const NOT_SERVED: [&str; 7] = ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];

/// What the bytes of a connection hold so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made, once a request")]
pub enum Parsed {
    /// The start of a request: read more and ask again.
    Incomplete,
    /// A request, and how many bytes it took.
    Complete {
        /// The request.
        request: Request,
        /// The bytes to drop from the front of the buffer: never more than it has.
        consumed: usize,
    },
    /// No request that this server can answer, or can find the end of: answer with this status and
    /// close the connection. More bytes don't change that.
    Invalid(Status),
}

/// A request. It owns what it says, so the buffer may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// The file that is meant, or the status that refuses its name. The connection is not harmed by
    /// such a name.
    pub path: Result<FilePath, Status>,
    /// What followed the `?` of the request target.
    pub query: Option<Vec<u8>>,
    /// Whether the client may send another request after this one. Never true with a body.
    pub keep_alive: bool,
    /// Bytes of a body follow. The server doesn't read them: it answers and closes the connection,
    /// having shut down its writing side first, or a reset may destroy the answer on its way (RFC
    /// 9112 section 9.6). A client that expects `100 Continue` first takes that answer instead of
    /// it (RFC 9110 section 10.1.1).
    pub has_body: bool,
    /// The value of the `Range` field, for GET only: for other methods it has no meaning (RFC 9110
    /// section 14.2).
    pub range: Option<Vec<u8>>,
    /// The conditions of the request.
    pub conditions: Conditions,
}

/// The methods, as far as they differ for a server of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Send the file.
    Get,
    /// Send the head that GET would get.
    Head,
    /// A known method that files don't have: answer 405. Unknown ones are [`Parsed::Invalid`].
    Other,
}

/// Reads the first request in `buffer`.
///
/// Looks at no more than [`MAX_HEAD`] bytes. What it returns for the start of a request other than
/// [`Parsed::Incomplete`] it also returns once more bytes are there. A growing buffer is read anew
/// by each call, which costs about 3 µs for the longest head.
///
/// ```
/// use kevent_serve::http::request::{Method, Parsed, parse};
///
/// let buffer = b"GET /a.txt HTTP/1.1\r\nHost: example.org\r\n\r\nGET /b";
/// let Parsed::Complete { request, consumed } = parse(buffer) else { panic!() };
/// assert_eq!(request.method, Method::Get);
/// assert_eq!(&buffer[consumed..], b"GET /b");
/// assert_eq!(parse(&buffer[consumed..]), Parsed::Incomplete);
/// ```
#[must_use]
pub fn parse(buffer: &[u8]) -> Parsed {
    let window = Window::over(buffer);
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut raw = httparse::Request::new(&mut []);
    match raw.parse_with_uninit_headers(window.bytes, &mut fields) {
        Ok(httparse::Status::Partial) if window.exhausted => Parsed::Invalid(window.too_long),
        Ok(httparse::Status::Partial) => Parsed::Incomplete,
        Ok(httparse::Status::Complete(length)) => {
            match interpret(&raw, window.bytes.get(..length).unwrap_or_default()) {
                Ok(request) => Parsed::Complete { request, consumed: window.skipped + length },
                Err(status) => Parsed::Invalid(status),
            }
        }
        Err(httparse::Error::TooManyHeaders) => Parsed::Invalid(Status::HeaderFieldsTooLarge),
        Err(httparse::Error::Version) => Parsed::Invalid(refused_version(window.bytes)),
        Err(_) => Parsed::Invalid(Status::BadRequest),
    }
}

/// The part of the buffer that a request may take.
struct Window<'a> {
    bytes: &'a [u8],
    /// Bytes in front of it: empty lines, which some clients send after a body (RFC 9112 section
    /// 2.2).
    skipped: usize,
    /// It is as large as it may become: a request that is not complete in it is too long.
    exhausted: bool,
    /// What to answer then.
    too_long: Status,
}

impl Window<'_> {
    fn over(buffer: &[u8]) -> Window<'_> {
        let head = &buffer[..buffer.len().min(MAX_HEAD)];
        let skipped = head.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
        let bytes = &head[skipped..];
        if let Some((line, _)) = bytes.split_at_checked(MAX_REQUEST_LINE) {
            if !line.contains(&b'\n') {
                let too_long = Status::UriTooLong;
                return Window { bytes: line, skipped, exhausted: true, too_long };
            }
        }
        let exhausted = head.len() == MAX_HEAD;
        Window { bytes, skipped, exhausted, too_long: Status::HeaderFieldsTooLarge }
    }
}

/// Tells a version that this server doesn't speak from a line that has none.
fn refused_version(bytes: &[u8]) -> Status {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let version =
        line.splitn(3, |&byte| byte == b' ').nth(2).and_then(|v| v.strip_prefix(b"HTTP/"));
    match version {
        Some([digit, ..]) if digit.is_ascii_digit() => Status::VersionNotSupported,
        _ => Status::BadRequest,
    }
}

/// Makes a request of what httparse took apart. `head` is all of its bytes.
fn interpret(raw: &httparse::Request<'_, '_>, head: &[u8]) -> Result<Request, Status> {
    // httparse takes a bare line feed as the end of a line; a proxy in front may not.
    if head.split(|&byte| byte == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r")) {
        return Err(Status::BadRequest);
    }
    let mut fields = Fields::default();
    for field in raw.headers.iter() {
        fields.add(field.name, field.value);
    }
    let http_1_1 = raw.version == Some(1);
    fields.check_host(http_1_1)?;
    let has_body = fields.has_body(http_1_1)?;
    let name = raw.method.unwrap_or_default();
    let method = match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        other if NOT_SERVED.contains(&other) => Method::Other,
        _ => return Err(Status::NotImplemented),
    };
    let (path, query) = split_target(raw.path.unwrap_or_default().as_bytes(), name)?;
    Ok(Request {
        method,
        path: path::resolve(path),
        query: query.map(<[u8]>::to_vec),
        keep_alive: !has_body && !fields.close && (http_1_1 || fields.keep_alive),
        has_body,
        range: fields.range.filter(|_| method == Method::Get),
        conditions: fields.conditions,
    })
}

/// Path and query of a request target, in one of the forms of RFC 9112 section 3.2.
fn split_target<'a>(
    target: &'a [u8],
    method: &str,
) -> Result<(&'a [u8], Option<&'a [u8]>), Status> {
    if target == b"*" && method == "OPTIONS" {
        return Ok((b"/", None));
    }
    let target = if target.starts_with(b"/") { target } else { after_authority(target)? };
    // A fragment is the client's own business and never sent (RFC 9110 section 4.2.5).
    if target.contains(&b'#') {
        return Err(Status::BadRequest);
    }
    let mut halves = target.splitn(2, |&byte| byte == b'?');
    let path = halves.next().unwrap_or_default();
    Ok((if path.is_empty() { b"/" } else { path }, halves.next()))
}

/// Path and query of an absolute URL. Its host is ignored: this server has one site.
fn after_authority(target: &[u8]) -> Result<&[u8], Status> {
    let scheme_end = target.windows(3).position(|window| window == b"://");
    let (scheme, rest) =
        scheme_end.and_then(|at| target.split_at_checked(at)).ok_or(Status::BadRequest)?;
    let known = [&b"http"[..], b"https"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
    let rest = &rest[3..];
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    // An empty host is invalid (RFC 9110 section 4.2.1).
    if known && end > 0 { Ok(&rest[end..]) } else { Err(Status::BadRequest) }
}

/// The fields that this server reads.
#[derive(Default)]
struct Fields<'a> {
    hosts: Vec<&'a [u8]>,
    content_lengths: Vec<&'a [u8]>,
    transfer_codings: Option<Vec<u8>>,
    close: bool,
    keep_alive: bool,
    range: Option<Vec<u8>>,
    conditions: Conditions,
}

impl<'a> Fields<'a> {
    fn add(&mut self, name: &str, value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("Host") {
            self.hosts.push(value);
        } else if is("Connection") {
            self.add_connection_options(value);
        } else if is("Content-Length") {
            self.content_lengths.push(value);
        } else if is("Transfer-Encoding") {
            join(&mut self.transfer_codings, value);
        } else if is("Range") {
            join(&mut self.range, value);
        } else if is("If-Match") {
            join(&mut self.conditions.if_match, value);
        } else if is("If-None-Match") {
            join(&mut self.conditions.if_none_match, value);
        } else if is("If-Modified-Since") {
            join(&mut self.conditions.if_modified_since, value);
        } else if is("If-Unmodified-Since") {
            join(&mut self.conditions.if_unmodified_since, value);
        } else if is("If-Range") {
            join(&mut self.conditions.if_range, value);
        }
    }

    fn add_connection_options(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// One host in HTTP/1.1, at most one in HTTP/1.0, that looks like one (RFC 9112 section 3.2).
    fn check_host(&self, http_1_1: bool) -> Result<(), Status> {
        let may_stand_in_host = |byte: &u8| {
            byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte) || !byte.is_ascii()
        };
        match self.hosts.as_slice() {
            [] if !http_1_1 => Ok(()),
            [host] if host.iter().all(may_stand_in_host) => Ok(()),
            _ => Err(Status::BadRequest),
        }
    }

    /// Whether a body follows. Where its length can be doubted, the request is refused (RFC 9112
    /// section 6.3), a repeated `Content-Length` included.
    fn has_body(&self, http_1_1: bool) -> Result<bool, Status> {
        match (self.content_lengths.as_slice(), &self.transfer_codings) {
            ([], None) => Ok(false),
            ([], Some(codings)) if http_1_1 => check_codings(codings).map(|()| true),
            ([digits], None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                Ok(digits.iter().any(|&digit| digit != b'0'))
            }
            _ => Err(Status::BadRequest),
        }
    }
}

/// Accepts `chunked` alone. The end of a body can't be found unless that is the last coding, and
/// others are unknown here (RFC 9112 section 6.1).
fn check_codings(codings: &[u8]) -> Result<(), Status> {
    let mut from_last = codings.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let chunked = from_last.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    match (chunked, from_last.next()) {
        (true, None) => Ok(()),
        (true, Some(_)) => Err(Status::NotImplemented),
        (false, _) => Err(Status::BadRequest),
    }
}

/// Adds the value of one more field of the same name (RFC 9110 section 5.3). Where the name allows
/// only one, what comes of it is malformed, as it should be.
fn join(values: &mut Option<Vec<u8>>, value: &[u8]) {
    match values {
        None => *values = Some(value.to_vec()),
        Some(values) => {
            values.extend_from_slice(b", ");
            values.extend_from_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request for `/` with these fields besides `Host`.
    fn with(fields: &str) -> Parsed {
        parse(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())
    }

    /// The same in HTTP/1.0, without `Host`.
    fn old(fields: &str) -> Parsed {
        parse(format!("GET / HTTP/1.0\r\n{fields}\r\n").as_bytes())
    }

    fn target(method: &str, target: &str) -> Parsed {
        parse(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
    }

    #[track_caller]
    fn request(parsed: Parsed) -> Request {
        match parsed {
            Parsed::Complete { request, .. } => request,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn relative(parsed: Parsed) -> String {
        request(parsed).path.unwrap().relative().to_str().unwrap().to_owned()
    }

    const BAD: Parsed = Parsed::Invalid(Status::BadRequest);

    #[test]
    fn a_request_says_all_that_the_server_reads() {
        let text = "GET /a%20b/?q=1 HTTP/1.1\r\nhost: example.org:80\r\nRANGE: bytes=0-1\r\n\
            If-Match: *\r\nIf-None-Match: \"a\"\r\nIf-Modified-Since: b\r\n\
            If-Unmodified-Since: c\r\nIf-Range: \"d\"\r\nX-Other: e\r\n\r\n";
        let expected = Request {
            method: Method::Get,
            path: path::resolve(b"/a%20b/"),
            query: Some(b"q=1".to_vec()),
            keep_alive: true,
            has_body: false,
            range: Some(b"bytes=0-1".to_vec()),
            conditions: Conditions {
                if_match: Some(b"*".to_vec()),
                if_none_match: Some(b"\"a\"".to_vec()),
                if_modified_since: Some(b"b".to_vec()),
                if_unmodified_since: Some(b"c".to_vec()),
                if_range: Some(b"\"d\"".to_vec()),
            },
        };
        assert_eq!(
            parse(text.as_bytes()),
            Parsed::Complete { request: expected, consumed: text.len() }
        );
    }

    #[test]
    fn pipelined_requests_are_taken_one_by_one() {
        let buffer = b"GET /a HTTP/1.0\r\n\r\nHEAD /b HTTP/1.0\r\n\r\nGET";
        let Parsed::Complete { request, consumed } = parse(buffer) else { panic!() };
        assert_eq!((request.method, consumed), (Method::Get, 19));
        let Parsed::Complete { request, consumed } = parse(&buffer[19..]) else { panic!() };
        assert_eq!((request.method, consumed), (Method::Head, 20));
        assert_eq!(parse(&buffer[39..]), Parsed::Incomplete);
    }

    #[test]
    fn rfc9112_2_2_empty_lines_before_a_request_are_skipped() {
        let buffer = b"\r\n\r\nGET / HTTP/1.0\r\n\r\n";
        assert!(
            matches!(parse(buffer), Parsed::Complete { consumed, .. } if consumed == buffer.len())
        );
        assert_eq!(parse(b"\r\n\r"), Parsed::Incomplete);
    }

    #[test]
    fn empty_lines_without_end_are_refused() {
        assert_eq!(parse(&b"\r\n".repeat(8192)), Parsed::Invalid(Status::HeaderFieldsTooLarge));
        assert_eq!(parse(&b"\r\n".repeat(8191)), Parsed::Incomplete);
    }

    #[test]
    fn rfc9112_2_2_a_bare_line_feed_is_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\nContent-Length: 5\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(parse(text.as_bytes()), BAD, "{text:?}");
        }
    }

    #[test]
    fn rfc9112_2_2_a_bare_carriage_return_is_refused() {
        assert_eq!(with("X: a\rb\r\n"), BAD);
        assert_eq!(parse(b"GET / HTTP/1.1\rHost: a\r\n\r\n"), BAD);
    }

    #[test]
    fn rfc9112_5_1_whitespace_before_the_colon_is_refused() {
        assert_eq!(with("X : a\r\n"), BAD);
        assert_eq!(with("Content-Length\t: 5\r\n"), BAD);
    }

    #[test]
    fn rfc9112_5_2_a_folded_line_is_refused() {
        assert_eq!(with("X: a\r\n b\r\n"), BAD);
        assert_eq!(parse(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"), BAD);
    }

    #[test]
    fn rfc9110_5_5_control_characters_in_a_value_are_refused() {
        assert_eq!(with("X: a\0b\r\n"), BAD);
        assert_eq!(with("X: a\x7fb\r\n"), BAD);
    }

    #[test]
    fn rfc9112_3_2_http_1_1_has_exactly_one_host() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), BAD);
        assert_eq!(with("Host: a\r\n"), BAD);
        assert_eq!(old("Host: a\r\nhost: b\r\n"), BAD);
        assert!(request(old("")).path.is_ok());
    }

    #[test]
    fn rfc9112_3_2_a_host_looks_like_one() {
        let host = |host| parse(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        for valid in ["", "a", "a.b:80", "127.0.0.1:8080", "[::1]:80", "a_b%20", "bücher.example"]
        {
            request(host(valid));
        }
        for invalid in ["a b", "a/b", "a@b", "a,b", "a?b", "a\tb", "<a>"] {
            assert_eq!(host(invalid), BAD, "{invalid}");
        }
    }

    #[test]
    fn rfc9110_2_5_other_versions_are_not_supported() {
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3"] {
            let text = format!("GET / {version}\r\nHost: a\r\n\r\n");
            let refused = Parsed::Invalid(Status::VersionNotSupported);
            assert_eq!(parse(text.as_bytes()), refused, "{version}");
        }
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(parse(preface), Parsed::Invalid(Status::VersionNotSupported));
    }

    #[test]
    fn rfc9112_3_a_request_line_that_is_none_is_refused() {
        for line in [
            "GET /",
            "GET",
            "GET / x HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / http/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "G\0T / HTTP/1.1",
            "GET / FTP/1.1",
            "GET /\tHTTP/1.1",
            "/ HTTP/1.1",
            "GET /\u{1} HTTP/1.1",
        ] {
            let text = format!("{line}\r\nHost: a\r\n\r\n");
            assert_eq!(parse(text.as_bytes()), BAD, "{line}");
        }
    }

    #[test]
    fn a_tls_client_hello_is_refused_at_once() {
        assert_eq!(parse(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]), BAD);
    }

    #[test]
    fn rfc9110_9_1_known_methods_differ_from_unknown_ones() {
        assert_eq!(request(target("GET", "/")).method, Method::Get);
        assert_eq!(request(target("HEAD", "/")).method, Method::Head);
        for method in NOT_SERVED {
            assert_eq!(request(target(method, "/")).method, Method::Other, "{method}");
        }
        for method in ["get", "BREW", "G", "GETT", "PROPFIND"] {
            assert_eq!(target(method, "/"), Parsed::Invalid(Status::NotImplemented), "{method}");
        }
    }

    #[test]
    fn rfc9112_3_2_1_origin_form_splits_at_the_first_question_mark() {
        let parsed = request(target("GET", "/a?b?c=/../d"));
        assert_eq!(parsed.query.as_deref(), Some(&b"b?c=/../d"[..]));
        assert_eq!(relative(target("GET", "/a?b")), "a");
        assert_eq!(relative(target("GET", "//host/a")), "host/a");
    }

    #[test]
    fn rfc9112_3_2_2_absolute_form_is_accepted_and_its_host_ignored() {
        assert_eq!(relative(target("GET", "http://b.example:80/x/y?z")), "x/y");
        assert_eq!(relative(target("GET", "HTTPS://b.example")), "");
        let parsed = request(target("GET", "http://b.example?z"));
        assert_eq!((parsed.path, parsed.query), (Ok(FilePath::root()), Some(b"z".to_vec())));
        for invalid in ["http:///x", "http://", "ftp://a/", "://a/", "http:/a", "a", "x/http://a/"]
        {
            assert_eq!(target("GET", invalid), BAD, "{invalid}");
        }
    }

    #[test]
    fn rfc9112_3_2_3_authority_form_is_refused() {
        assert_eq!(target("GET", "a.example:443"), BAD);
        assert_eq!(target("CONNECT", "a.example:443"), BAD);
    }

    #[test]
    fn rfc9112_3_2_4_asterisk_form_is_for_options() {
        assert_eq!(request(target("OPTIONS", "*")).method, Method::Other);
        assert_eq!(target("GET", "*"), BAD);
    }

    #[test]
    fn rfc9110_4_2_5_a_fragment_is_refused() {
        assert_eq!(target("GET", "/a#b"), BAD);
        assert_eq!(target("GET", "http://a#b"), BAD);
    }

    #[test]
    fn a_refused_path_leaves_the_connection_usable() {
        let parsed = request(target("GET", "/.git/config"));
        assert_eq!(parsed.path, Err(Status::NotFound));
        assert!(parsed.keep_alive);
    }

    #[test]
    fn rfc9112_9_3_http_1_1_persists_unless_closed() {
        assert!(request(with("")).keep_alive);
        assert!(request(with("Connection: keep-alive\r\n")).keep_alive);
        for value in
            ["close", "CLOSE", "keep-alive, close", "upgrade ,\tClose", "x\r\nConnection: close"]
        {
            let parsed = request(with(&format!("Connection: {value}\r\n")));
            assert!(!parsed.keep_alive, "{value}");
        }
        assert!(request(with("Connection: closed, x-close\r\n")).keep_alive);
    }

    #[test]
    fn rfc9112_9_3_http_1_0_closes_unless_asked_to_persist() {
        assert!(!request(old("")).keep_alive);
        assert!(request(old("Connection: Keep-Alive\r\n")).keep_alive);
        assert!(!request(old("Connection: Keep-Alive, close\r\n")).keep_alive);
    }

    #[test]
    fn rfc9112_6_3_a_body_closes_the_connection() {
        for fields in ["Content-Length: 5\r\n", "Transfer-Encoding: Chunked\r\n"] {
            let parsed = request(with(fields));
            assert!(parsed.has_body && !parsed.keep_alive, "{fields}");
        }
        let parsed = request(with("Content-Length: 000\r\n"));
        assert!(!parsed.has_body && parsed.keep_alive);
        let enormous = format!("Content-Length: {}\r\n", "9".repeat(40));
        assert!(request(with(&enormous)).has_body);
    }

    #[test]
    fn rfc9112_6_3_a_doubtful_length_is_refused() {
        for value in [
            "",
            "-1",
            "+1",
            "1a",
            "0x10",
            "1 2",
            "5, 5",
            "5\r\nContent-Length: 6",
            "5\r\nContent-Length: 5",
            "\u{663}",
        ] {
            assert_eq!(with(&format!("Content-Length: {value}\r\n")), BAD, "{value}");
        }
    }

    #[test]
    fn rfc9112_6_1_length_and_coding_together_are_refused() {
        assert_eq!(with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), BAD);
        assert_eq!(with("Transfer-Encoding: chunked\r\ncontent-length: 0\r\n"), BAD);
    }

    #[test]
    fn rfc9112_6_1_a_coding_in_http_1_0_is_refused() {
        assert_eq!(old("Transfer-Encoding: chunked\r\n"), BAD);
    }

    #[test]
    fn rfc9112_6_1_codings_other_than_chunked() {
        let coding = |value: &str| with(&format!("Transfer-Encoding: {value}\r\n"));
        for doubtful in [
            "",
            "gzip",
            "identity",
            "chunked, gzip",
            "xchunked",
            "chunked;a",
            "chunked\r\nTransfer-Encoding: identity",
        ] {
            assert_eq!(coding(doubtful), BAD, "{doubtful}");
        }
        let unknown = Parsed::Invalid(Status::NotImplemented);
        assert_eq!(coding("gzip, chunked"), unknown);
        assert_eq!(coding("gzip\r\nTransfer-Encoding: chunked"), unknown);
    }

    #[test]
    fn rfc9110_14_2_a_range_is_for_get() {
        let text = "HEAD / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n";
        assert_eq!(request(parse(text.as_bytes())).range, None);
    }

    #[test]
    fn rfc9110_5_3_fields_of_one_name_are_joined() {
        let parsed = request(with("If-None-Match: \"a\"\r\nX: y\r\nif-none-match: \"b\"\r\n"));
        assert_eq!(parsed.conditions.if_none_match.as_deref(), Some(&b"\"a\", \"b\""[..]));
    }

    #[test]
    fn rfc9112_3_a_long_request_line_is_answered_with_414() {
        // "GET /", " HTTP/1.1" and the line break are 16 bytes.
        let longest = "a".repeat(MAX_REQUEST_LINE - 16);
        // The name is longer than a file's may be, but the line is not.
        let parsed = request(target("GET", &format!("/{longest}")));
        assert_eq!(parsed.path, Err(Status::NotFound));
        let refused = Parsed::Invalid(Status::UriTooLong);
        assert_eq!(target("GET", &format!("/{longest}a")), refused);
        let unfinished = format!("GET /{}", "a".repeat(MAX_REQUEST_LINE));
        assert_eq!(parse(unfinished.as_bytes()), refused);
    }

    #[test]
    fn rfc6585_5_a_large_head_is_answered_with_431() {
        let refused = Parsed::Invalid(Status::HeaderFieldsTooLarge);
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        let value = "x".repeat(MAX_HEAD - rest);
        request(with(&format!("X: {value}\r\n")));
        assert_eq!(with(&format!("X: {value}x\r\n")), refused);
        let unfinished = format!("GET / HTTP/1.1\r\nX: {value}xxxxxxxxxxxxxxxxxxxx");
        assert_eq!(parse(unfinished.as_bytes()), refused);
    }

    #[test]
    fn rfc6585_5_too_many_fields_are_answered_with_431() {
        request(with(&"X: y\r\n".repeat(MAX_FIELDS - 1)));
        let refused = Parsed::Invalid(Status::HeaderFieldsTooLarge);
        assert_eq!(with(&"X: y\r\n".repeat(MAX_FIELDS)), refused);
    }

    /// Requests that are valid, or nearly so.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let field = prop::sample::select(vec![
            "Host: a",
            "Host: b",
            "Connection: close",
            "Content-Length: 3",
            "Content-Length: x",
            "Transfer-Encoding: chunked",
            "Range: bytes=0-1",
            "If-None-Match: \"a\"",
            "X:",
            "X : y",
            " folded",
            "Accept: */*",
        ]);
        let line = prop::sample::select(vec![
            "GET / HTTP/1.1",
            "GET /a/%2e%2e?b HTTP/1.1",
            "HEAD http://h/a HTTP/1.0",
            "PUT /a HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "BREW / HTTP/1.1",
            "GET / HTTP/2.0",
            "\r\n\r\nGET / HTTP/1.0",
            "GET /",
        ]);
        let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
        (line, prop::collection::vec(field, 0..5), end).prop_map(|(line, fields, end)| {
            let mut lines = vec![line];
            lines.extend(fields);
            format!("{}{end}{end}", lines.join(end)).into_bytes()
        })
    }

    /// The same with a few bytes changed.
    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        (plausible(), edits).prop_map(|(mut bytes, edits)| {
            for (index, byte) in edits {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes
        })
    }

    /// A verdict never changes as more bytes come in.
    fn check_growing(bytes: &[u8]) -> Result<(), TestCaseError> {
        let mut verdict = Parsed::Incomplete;
        for length in 0..=bytes.len() {
            let parsed = parse(&bytes[..length]);
            if let Parsed::Complete { consumed, .. } = parsed {
                prop_assert!(consumed <= length);
            }
            if verdict != Parsed::Incomplete {
                prop_assert_eq!(&verdict, &parsed, "at {}", length);
            }
            verdict = parsed;
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_the_same_however_they_arrive(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            check_growing(&bytes)?;
        }

        #[test]
        fn nearly_valid_requests_are_judged_the_same_however_they_arrive(bytes in mutated()) {
            check_growing(&bytes)?;
        }

        #[test]
        fn a_valid_request_is_incomplete_until_its_last_byte(
            path in "/[a-z%20/.]{0,20}", value in "[ -~]{0,40}", tail: Vec<u8>,
        ) {
            let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");
            for split in 0..text.len() {
                prop_assert_eq!(parse(&text.as_bytes()[..split]), Parsed::Incomplete);
            }
            let whole = parse(text.as_bytes());
            let complete =
                matches!(whole, Parsed::Complete { consumed, .. } if consumed == text.len());
            prop_assert!(complete);
            let followed = [text.as_bytes(), &tail].concat();
            prop_assert_eq!(parse(&followed), whole);
        }

        #[test]
        fn a_request_with_a_body_never_keeps_the_connection(bytes in plausible()) {
            if let Parsed::Complete { request, .. } = parse(&bytes) {
                prop_assert!(!(request.has_body && request.keep_alive));
            }
        }

        #[test]
        fn large_heads_are_judged_the_same_however_they_arrive(
            line in 0..2 * MAX_REQUEST_LINE, value in 0..2 * MAX_HEAD, split in 0..4 * MAX_HEAD,
        ) {
            let (line, value) = ("a".repeat(line), "b".repeat(value));
            let text = format!("GET /{line} HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");
            let start = parse(&text.as_bytes()[..split.min(text.len())]);
            prop_assert!(start == Parsed::Incomplete || start == parse(text.as_bytes()));
        }
    }
}
