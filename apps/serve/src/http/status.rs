//! The status codes this server answers with.

/// A status code (RFC 9110 section 15).
///
/// ```
/// use kevent_serve::http::Status;
///
/// assert_eq!(Status::NotFound.code(), 404);
/// assert_eq!(Status::NotFound.reason(), "Not Found");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 200: the whole file, or a page.
    Ok,
    /// 206: the ranges that were asked for.
    PartialContent,
    /// 301: the same folder, with its slash.
    MovedPermanently,
    /// 304: the client's copy is current.
    NotModified,
    /// 400: not a request that HTTP allows.
    BadRequest,
    /// 403: the file is there and the server may not read it.
    Forbidden,
    /// 404: nothing under this name that the server shows.
    NotFound,
    /// 405: neither GET nor HEAD.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    RequestTimeout,
    /// 412: the client's condition does not hold.
    PreconditionFailed,
    /// 414: the request line is longer than the server reads.
    UriTooLong,
    /// 416: all ranges lie beyond the end of the file.
    RangeNotSatisfiable,
    /// 431: the head is longer, or has more fields, than the server reads.
    HeaderFieldsTooLarge,
    /// 500: the server, or the disk under it, failed.
    InternalServerError,
    /// 501: a method or transfer coding that this server has never heard of.
    NotImplemented,
    /// 503: too busy.
    ServiceUnavailable,
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported,
}

impl Status {
    /// The number on the status line.
    #[must_use]
    pub fn code(self) -> u16 {
        self.parts().0
    }

    /// The words for people, as RFC 9110 writes them.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.parts().1
    }

    fn parts(self) -> (u16, &'static str) {
        match self {
            Status::Ok => (200, "OK"),
            Status::PartialContent => (206, "Partial Content"),
            Status::MovedPermanently => (301, "Moved Permanently"),
            Status::NotModified => (304, "Not Modified"),
            Status::BadRequest => (400, "Bad Request"),
            Status::Forbidden => (403, "Forbidden"),
            Status::NotFound => (404, "Not Found"),
            Status::MethodNotAllowed => (405, "Method Not Allowed"),
            Status::RequestTimeout => (408, "Request Timeout"),
            Status::PreconditionFailed => (412, "Precondition Failed"),
            Status::UriTooLong => (414, "URI Too Long"),
            Status::RangeNotSatisfiable => (416, "Range Not Satisfiable"),
            Status::HeaderFieldsTooLarge => (431, "Request Header Fields Too Large"),
            Status::InternalServerError => (500, "Internal Server Error"),
            Status::NotImplemented => (501, "Not Implemented"),
            Status::ServiceUnavailable => (503, "Service Unavailable"),
            Status::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }
}
