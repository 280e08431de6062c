//! Heads of answers, and the answers that are not files.

use std::ops::Range;
use std::time::SystemTime;

use crate::http::conditional::Validators;
use crate::http::date::push_date;
use crate::http::digits::push_decimal;
use crate::http::html;
use crate::http::range::{Multipart, push_content_range};
use crate::http::status::Status;

/// The value of the `Server` field: a name, and no version for scanners to look up.
const SERVER: &[u8] = b"kevent-serve";

/// The methods that a file has.
const ALLOW: &[u8] = b"GET, HEAD";

/// Types are not to be guessed from the bytes.
const NOSNIFF: &[u8] = b"nosniff";

/// Seconds until it is worth asking a busy server again.
const RETRY_AFTER: &[u8] = b"1";

/// What every answer has to know besides what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// The time of the answer, as [`http_date`](crate::http::date::http_date) writes it.
    pub date: &'a str,
    /// The connection stays open for another request.
    pub keep_alive: bool,
    /// The request is a HEAD: the head says what a GET would get, and no body follows.
    pub head_only: bool,
}

/// A file, as heads describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its content type: see [`content_type`](crate::http::mime::content_type).
    pub content_type: &'a str,
    /// Its size in bytes.
    pub length: u64,
    /// What identifies its state.
    pub validators: &'a Validators,
}

/// The head of an answer, while it is written.
///
/// ```
/// use kevent_serve::http::Status;
/// use kevent_serve::http::response::{Context, Head};
///
/// let context = Context { date: "Thu, 01 Jan 1970 00:00:00 GMT", keep_alive: true, head_only:
/// false }; let mut head = Head::new(Status::Ok, &context); head.field("Content-Length", b"2");
/// assert!(head.finish().ends_with(b"\r\nContent-Length: 2\r\n\r\n"));
/// ```
#[derive(Clone, Debug)]
pub struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// The status line, and the fields that each answer has.
    #[must_use]
    pub fn new(status: Status, context: &Context<'_>) -> Head {
        let mut head = Head { bytes: Vec::with_capacity(512) };
        // Whatever the client speaks, the version is the server's own (RFC 9110 section 6.2).
        head.bytes.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(&mut head.bytes, u64::from(status.code()));
        head.bytes.push(b' ');
        head.bytes.extend_from_slice(status.reason().as_bytes());
        head.bytes.extend_from_slice(b"\r\n");
        head.field("Date", context.date.as_bytes());
        head.field("Server", SERVER);
        // HTTP/1.0 needs to be told of a connection that stays; HTTP/1.1 is not harmed.
        head.field("Connection", if context.keep_alive { b"keep-alive" } else { b"close" });
        head
    }

    /// Adds a field. Control characters in the value become spaces, so no value can end its line
    /// and begin a field of its own.
    pub fn field(&mut self, name: &str, value: &[u8]) {
        self.written(name, |out| {
            let harmless = |byte: u8| if byte.is_ascii_control() { b' ' } else { byte };
            out.extend(value.iter().copied().map(harmless));
        });
    }

    /// Adds a field with a number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.written(name, |out| push_decimal(out, value));
    }

    /// Adds a field with a time.
    pub fn time(&mut self, name: &str, value: SystemTime) {
        self.written(name, |out| push_date(out, value));
    }

    /// The head with the empty line that ends it. The body comes next.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }

    fn written(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        value(&mut self.bytes);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// The type was guessed from the name. It is the best guess there is: a browser that guesses from the
    /// bytes could take an upload of somebody for a page of this site.
    fn content_type(&mut self, content_type: &[u8]) {
        self.field("Content-Type", content_type);
        self.field("X-Content-Type-Options", NOSNIFF);
    }

    fn validators(&mut self, validators: &Validators) {
        self.time("Last-Modified", validators.last_modified());
        self.field("ETag", validators.etag());
        self.field("Accept-Ranges", b"bytes");
    }
}

/// The head for a whole file (200). Its bytes follow, unless the context says HEAD.
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use kevent_serve::http::conditional::{Stamp, Validators};
/// use kevent_serve::http::date::http_date;
/// use kevent_serve::http::response::{Context, File, file_head};
///
/// let validators = Validators::new(&Stamp::default(), UNIX_EPOCH);
/// let file = File { content_type: "image/png", length: 10, validators: &validators };
/// let date = http_date(UNIX_EPOCH);
/// let head = file_head(&Context { date: &date, keep_alive: true, head_only: false }, &file);
/// assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
/// ```
#[must_use]
pub fn file_head(context: &Context<'_>, file: &File<'_>) -> Vec<u8> {
    let mut head = Head::new(Status::Ok, context);
    head.content_type(file.content_type.as_bytes());
    head.number("Content-Length", file.length);
    head.validators(file.validators);
    head.finish()
}

/// The head for one range of a file (206). The bytes of the range follow.
#[must_use]
pub fn range_head(context: &Context<'_>, file: &File<'_>, range: &Range<u64>) -> Vec<u8> {
    let mut head = Head::new(Status::PartialContent, context);
    head.content_type(file.content_type.as_bytes());
    head.number("Content-Length", range.end.saturating_sub(range.start));
    head.written("Content-Range", |out| push_content_range(out, range, file.length));
    head.validators(file.validators);
    head.finish()
}

/// The head for several ranges of a file (206). The parts of `body` follow.
#[must_use]
pub fn multipart_head(context: &Context<'_>, file: &File<'_>, body: &Multipart) -> Vec<u8> {
    let mut head = Head::new(Status::PartialContent, context);
    // A Content-Range here would be read as that of the whole body (RFC 9110 section 15.3.7.2).
    head.written("Content-Type", |out| {
        out.extend_from_slice(b"multipart/byteranges; boundary=");
        out.extend_from_slice(body.boundary().as_bytes());
    });
    head.field("X-Content-Type-Options", NOSNIFF);
    head.number("Content-Length", body.content_length());
    head.validators(file.validators);
    head.finish()
}

/// The answer that the client's copy is current (304). It has no body.
#[must_use]
pub fn not_modified(context: &Context<'_>, validators: &Validators) -> Vec<u8> {
    let mut head = Head::new(Status::NotModified, context);
    // The tag says it all: more metadata should not be sent (RFC 9110 section 15.4.5).
    head.field("ETag", validators.etag());
    head.finish()
}

/// The answer that all ranges lie beyond the end of a file of `length` bytes (416).
#[must_use]
pub fn range_not_satisfiable(context: &Context<'_>, length: u64) -> Vec<u8> {
    let mut head = Head::new(Status::RangeNotSatisfiable, context);
    head.written("Content-Range", |out| {
        out.extend_from_slice(b"bytes */");
        push_decimal(out, length);
    });
    with_page(context, head, &status_page(Status::RangeNotSatisfiable))
}

/// The answer that sends the client to `location` for good (301).
#[must_use]
pub fn redirect(context: &Context<'_>, location: &[u8]) -> Vec<u8> {
    let mut head = Head::new(Status::MovedPermanently, context);
    head.field("Location", location);
    with_page(context, head, &status_page(Status::MovedPermanently))
}

/// The answer that something is wrong, with a page that says so to people.
///
/// With [`Status::MethodNotAllowed`] it names the methods that are (RFC 9110 section 15.5.6), with
/// [`Status::ServiceUnavailable`] it says when to come back (section 10.2.3).
#[must_use]
pub fn error_page(context: &Context<'_>, status: Status) -> Vec<u8> {
    let mut head = Head::new(status, context);
    if status == Status::MethodNotAllowed {
        head.field("Allow", ALLOW);
    }
    if status == Status::ServiceUnavailable {
        head.field("Retry-After", RETRY_AFTER);
    }
    with_page(context, head, &status_page(status))
}

/// A page of the server's own making, such as a listing (200).
#[must_use]
pub fn page(context: &Context<'_>, html: &str) -> Vec<u8> {
    with_page(context, Head::new(Status::Ok, context), html)
}

fn with_page(context: &Context<'_>, mut head: Head, html: &str) -> Vec<u8> {
    head.field("Content-Type", b"text/html; charset=utf-8");
    head.number("Content-Length", html.len() as u64);
    let mut answer = head.finish();
    if !context.head_only {
        answer.extend_from_slice(html.as_bytes());
    }
    answer
}

/// A page for people. It repeats nothing of the request, so nobody can put words into it.
fn status_page(status: Status) -> String {
    let (code, reason) = (status.code(), status.reason());
    let text = explanation(status);
    html::page(
        reason,
        &format!(
            "<h1>{reason}</h1>\n<p>{text}</p>\n<footer>{code} &middot; kevent-serve</footer>\n"
        ),
    )
}

/// What a status means for the reader, and what may help.
fn explanation(status: Status) -> &'static str {
    match status {
        Status::Ok | Status::PartialContent | Status::NotModified => "",
        Status::MovedPermanently => "This page has another address.",
        Status::BadRequest => "The server could not understand the request.",
        Status::Forbidden => "The server is not allowed to read this file.",
        Status::NotFound => "There is nothing at this address. Is it spelled right?",
        Status::MethodNotAllowed => "Files can only be read here.",
        Status::RequestTimeout => "The request took too long to arrive.",
        Status::PreconditionFailed => "The file has changed since you last saw it.",
        Status::UriTooLong => "This address is too long.",
        Status::RangeNotSatisfiable => "The file is shorter than the part that was asked for.",
        Status::HeaderFieldsTooLarge => "The request is too large. Clearing cookies may help.",
        Status::InternalServerError => "The server failed to read this file.",
        Status::NotImplemented => "The server does not know what was asked of it.",
        Status::ServiceUnavailable => "The server is busy. Try again in a moment.",
        Status::VersionNotSupported => "The server speaks HTTP/1.0 and HTTP/1.1.",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::http::conditional::Stamp;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const GET: Context<'_> = Context { date: DATE, keep_alive: true, head_only: false };

    const ERRORS: [Status; 13] = [
        Status::BadRequest,
        Status::Forbidden,
        Status::NotFound,
        Status::MethodNotAllowed,
        Status::RequestTimeout,
        Status::PreconditionFailed,
        Status::UriTooLong,
        Status::RangeNotSatisfiable,
        Status::HeaderFieldsTooLarge,
        Status::InternalServerError,
        Status::NotImplemented,
        Status::ServiceUnavailable,
        Status::VersionNotSupported,
    ];

    fn validators() -> Validators {
        let stamp = Stamp { inode: 1, size: 10, modified: (784_111_777, 0), changed: (0, 9) };
        Validators::new(&stamp, UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    fn text(answer: Vec<u8>) -> String {
        String::from_utf8(answer).unwrap()
    }

    /// Status code, fields and body, as a client that is no friend of ours reads them.
    fn read(answer: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut fields = [httparse::EMPTY_HEADER; 20];
        let mut response = httparse::Response::new(&mut fields);
        let length = response.parse(answer).unwrap().unwrap();
        let owned = |field: &httparse::Header<'_>| {
            (field.name.to_owned(), String::from_utf8(field.value.to_vec()).unwrap())
        };
        let fields = response.headers.iter().map(owned).collect();
        (response.code.unwrap(), fields, answer[length..].to_vec())
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
        fields.iter().find(|field| field.0 == name).map(|field| field.1.as_str())
    }

    #[test]
    fn a_file_has_this_head() {
        let validators = validators();
        let file = File { content_type: "text/plain", length: 10, validators: &validators };
        let etag = text(validators.etag().to_vec());
        let expected = format!(
            "HTTP/1.1 200 OK\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            Server: kevent-serve\r\n\
            Connection: keep-alive\r\n\
            Content-Type: text/plain\r\n\
            X-Content-Type-Options: nosniff\r\n\
            Content-Length: 10\r\n\
            Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            ETag: {etag}\r\n\
            Accept-Ranges: bytes\r\n\r\n"
        );
        assert_eq!(text(file_head(&GET, &file)), expected);
    }

    #[test]
    fn guessed_type_is_not_guessed_again() {
        let validators = validators();
        let file = File { content_type: "text/plain", length: 10, validators: &validators };
        for head in [file_head(&GET, &file), range_head(&GET, &file, &(0..1))] {
            assert_eq!(value(&read(&head).1, "X-Content-Type-Options"), Some("nosniff"));
        }
    }

    #[test]
    fn rfc9110_10_2_3_busy_server_says_when_to_come_back() {
        for status in ERRORS {
            let (_, fields, _) = read(&error_page(&GET, status));
            let says = value(&fields, "Retry-After").is_some();
            assert_eq!(says, status == Status::ServiceUnavailable);
        }
    }

    #[test]
    fn rfc9110_9_3_2_head_gets_the_same_head_without_the_body() {
        for status in ERRORS {
            let full = text(error_page(&GET, status));
            let head = text(error_page(&Context { head_only: true, ..GET }, status));
            assert!(
                head.ends_with("\r\n\r\n") && full.starts_with(&head) && full.len() > head.len()
            );
        }
    }

    #[test]
    fn rfc9110_15_3_7_1_one_range_names_itself_in_the_head() {
        let validators = validators();
        let file = File { content_type: "text/plain", length: 10, validators: &validators };
        let (code, fields, _) = read(&range_head(&GET, &file, &(2..5)));
        assert_eq!(code, 206);
        assert_eq!(value(&fields, "Content-Range"), Some("bytes 2-4/10"));
        assert_eq!(value(&fields, "Content-Length"), Some("3"));
        assert_eq!(value(&fields, "Content-Type"), Some("text/plain"));
        assert!(value(&fields, "ETag").is_some());
    }

    #[test]
    fn rfc9110_15_3_7_2_several_ranges_have_no_range_in_the_head() {
        let validators = validators();
        let file = File { content_type: "text/plain", length: 10, validators: &validators };
        let body = Multipart::new(&[0..2, 7..10], 10, "text/plain", 1);
        let (code, fields, _) = read(&multipart_head(&GET, &file, &body));
        assert_eq!(code, 206);
        assert_eq!(value(&fields, "Content-Range"), None);
        let content_type = format!("multipart/byteranges; boundary={}", body.boundary());
        assert_eq!(value(&fields, "Content-Type"), Some(content_type.as_str()));
        assert_eq!(
            value(&fields, "Content-Length"),
            Some(body.content_length().to_string().as_str())
        );
    }

    #[test]
    fn rfc9110_15_4_5_not_modified_has_the_tag_and_no_body() {
        let (code, fields, body) = read(&not_modified(&GET, &validators()));
        assert_eq!((code, body.len()), (304, 0));
        let names: Vec<_> = fields.iter().map(|field| field.0.as_str()).collect();
        assert_eq!(names, ["Date", "Server", "Connection", "ETag"]);
    }

    #[test]
    fn rfc9110_15_5_17_an_unsatisfiable_range_is_told_the_length() {
        let (code, fields, _) = read(&range_not_satisfiable(&GET, 10));
        assert_eq!(code, 416);
        assert_eq!(value(&fields, "Content-Range"), Some("bytes */10"));
    }

    #[test]
    fn rfc9110_15_5_6_a_method_not_allowed_is_told_which_are() {
        let (_, fields, _) = read(&error_page(&GET, Status::MethodNotAllowed));
        assert_eq!(value(&fields, "Allow"), Some("GET, HEAD"));
        let (_, fields, _) = read(&error_page(&GET, Status::NotFound));
        assert_eq!(value(&fields, "Allow"), None);
    }

    #[test]
    fn rfc9112_9_6_the_answer_says_whether_the_connection_closes() {
        for (keep_alive, expected) in [(true, "keep-alive"), (false, "close")] {
            let context = Context { keep_alive, ..GET };
            let (_, fields, _) = read(&error_page(&context, Status::NotFound));
            assert_eq!(value(&fields, "Connection"), Some(expected));
        }
    }

    #[test]
    fn rfc9110_10_2_2_a_redirect_names_the_place() {
        let (code, fields, _) = read(&redirect(&GET, b"/a%20b/?x"));
        assert_eq!((code, value(&fields, "Location")), (301, Some("/a%20b/?x")));
    }

    #[test]
    fn every_page_is_as_long_as_its_head_says() {
        let mut answers: Vec<_> = ERRORS.iter().map(|status| error_page(&GET, *status)).collect();
        answers.extend([redirect(&GET, b"/"), range_not_satisfiable(&GET, 1), page(&GET, "<p>ü")]);
        for answer in answers {
            let (_, fields, body) = read(&answer);
            assert_eq!(value(&fields, "Content-Length"), Some(body.len().to_string().as_str()));
            assert_eq!(value(&fields, "Content-Type"), Some("text/html; charset=utf-8"));
            assert_eq!(value(&fields, "Date"), Some(DATE));
        }
    }

    #[test]
    fn every_error_has_words_for_people() {
        for status in ERRORS {
            let answer = text(error_page(&GET, status));
            assert!(answer.starts_with(&format!(
                "HTTP/1.1 {} {}\r\n",
                status.code(),
                status.reason()
            )));
            assert!(answer.contains(status.reason()) && answer.contains(explanation(status)));
            assert!(!explanation(status).is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_value_can_begin_a_field_of_its_own(location: Vec<u8>) {
            let plain = redirect(&Context { head_only: true, ..GET }, b"");
            let answer = redirect(&Context { head_only: true, ..GET }, &location);
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(lines(&answer), lines(&plain));
            prop_assert_eq!(answer.len(), plain.len() + location.len());
        }
    }
}
