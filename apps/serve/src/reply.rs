//! What to send for a file, given what was asked of it. Nothing here is sent.

use std::collections::VecDeque;
use std::ops::Range;

use crate::files::OpenFile;
use crate::http::Status;
use crate::http::conditional::{Outcome, evaluate, range_applies};
use crate::http::range::{self, Multipart, Selection};
use crate::http::request::Request;
use crate::http::response::{self, Context, File};

/// A response: a status for the log, and what goes out, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: Status,
    pub parts: VecDeque<Part>,
}

/// Bytes, then a range of the file, then bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub before: Vec<u8>,
    pub range: Range<u64>,
    pub after: Vec<u8>,
}

impl Reply {
    /// A response that is all in memory.
    pub fn of_bytes(status: Status, bytes: Vec<u8>) -> Reply {
        Reply { status, parts: VecDeque::from([Part::new(bytes, 0..0)]) }
    }

    /// The response to a GET or HEAD of `file`. `seed` is a number that nobody can guess.
    pub fn to(request: &Request, file: &OpenFile, context: &Context<'_>, seed: u64) -> Reply {
        let described = File {
            content_type: &file.content_type,
            length: file.size,
            validators: &file.validators,
        };
        match evaluate(&request.conditions, &file.validators) {
            Outcome::Full => {}
            Outcome::NotModified => {
                let head = response::not_modified(context, &file.validators);
                return Reply::of_bytes(Status::NotModified, head);
            }
            Outcome::PreconditionFailed => {
                let page = response::error_page(context, Status::PreconditionFailed);
                return Reply::of_bytes(Status::PreconditionFailed, page);
            }
        }
        let asked =
            request.range.as_ref().filter(|_| range_applies(&request.conditions, &file.validators));
        match asked.map_or(Selection::Whole, |value| range::parse(value, file.size)) {
            Selection::Whole => {
                let body = if context.head_only { 0..0 } else { 0..file.size };
                let head = response::file_head(context, &described);
                Reply { status: Status::Ok, parts: VecDeque::from([Part::new(head, body)]) }
            }
            Selection::Unsatisfiable => {
                let page = response::range_not_satisfiable(context, file.size);
                Reply::of_bytes(Status::RangeNotSatisfiable, page)
            }
            Selection::Ranges(ranges) => Reply::of_ranges(&described, &ranges, context, seed),
        }
    }

    fn of_ranges(
        file: &File<'_>,
        ranges: &[Range<u64>],
        context: &Context<'_>,
        seed: u64,
    ) -> Reply {
        let status = Status::PartialContent;
        if let [range] = ranges {
            let head = response::range_head(context, file, range);
            return Reply { status, parts: VecDeque::from([Part::new(head, range.clone())]) };
        }
        let body = Multipart::new(ranges, file.length, file.content_type, seed);
        let mut head = response::multipart_head(context, file, &body);
        let mut parts: VecDeque<Part> = body
            .parts()
            .iter()
            .map(|part| {
                let mut before = std::mem::take(&mut head);
                before.extend_from_slice(&part.head);
                Part::new(before, part.range.clone())
            })
            .collect();
        if let Some(last) = parts.back_mut() {
            last.after = body.trailer().to_vec();
        }
        Reply { status, parts }
    }
}

impl Part {
    fn new(before: Vec<u8>, range: Range<u64>) -> Part {
        Part { before, range, after: Vec::new() }
    }
}
