//! Ranges of a file (RFC 9110 section 14), and the body that carries several of them.

use std::ops::Range;

use crate::http::digits::push_decimal;

/// Ranges that one request may ask for. A request for more gets the whole file: thousands of ranges
/// are an attack, since each costs more to send than to ask for (RFC 9110 section 17.15).
pub const MAX_RANGES: usize = 32;

/// What a `Range` field selects of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The field does not count: answer as if it were not there.
    Whole,
    /// These ranges, at least one, each of at least one byte and inside the file, none overlapping.
    Ranges(Vec<Range<u64>>),
    /// None of the ranges is in the file: answer 416.
    Unsatisfiable,
}

/// What the value of a `Range` field selects of a file of `length` bytes.
///
/// A malformed value, another unit than bytes, and more than [`MAX_RANGES`] ranges are ignored, as
/// RFC 9110 section 14.2 allows; so is any range of an empty file, of which no part can be named.
/// Ranges come in the order of the request, except that ranges which overlap are sorted and merged
/// (section 15.3.7.2), so the answer is never longer than the file, but for its part heads.
///
/// ```
/// use kevent_serve::http::range::{Selection, parse};
///
/// assert_eq!(parse(b"bytes=0-4, -10", 100), Selection::Ranges(vec![0..5, 90..100]));
/// assert_eq!(parse(b"bytes=100-", 100), Selection::Unsatisfiable);
/// ```
#[must_use]
pub fn parse(value: &[u8], length: u64) -> Selection {
    let Some(specs) = specs(value).filter(|_| length > 0) else { return Selection::Whole };
    let ranges: Vec<_> = specs.into_iter().filter_map(|spec| spec.within(length)).collect();
    if ranges.is_empty() {
        return Selection::Unsatisfiable;
    }
    Selection::Ranges(without_overlaps(ranges))
}

/// One element of the field's list, before it meets a file.
enum Spec {
    /// First and last position, both included. The end of the file, when not given, is `u64::MAX`.
    Between(u64, u64),
    /// This many bytes at the end.
    Suffix(u64),
}

impl Spec {
    /// `None` when the element is malformed.
    fn parse(text: &[u8]) -> Option<Spec> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (&text[..dash], &text[dash + 1..]);
        if first.is_empty() {
            return number(last).map(Spec::Suffix);
        }
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        (first <= last).then_some(Spec::Between(first, last))
    }

    /// The bytes of a file of `length > 0` bytes, or `None` when it has none of them.
    fn within(&self, length: u64) -> Option<Range<u64>> {
        match *self {
            Spec::Between(first, last) => (first < length).then(|| first..last.min(length - 1) + 1),
            Spec::Suffix(count) => (count > 0).then(|| length - count.min(length)..length),
        }
    }
}

/// The elements of the field, or `None` when it is to be ignored.
fn specs(value: &[u8]) -> Option<Vec<Spec>> {
    let equals = value.iter().position(|&byte| byte == b'=')?;
    if !value[..equals].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for element in value[equals + 1..].split(|&byte| byte == b',') {
        let element = element.trim_ascii();
        // A recipient takes empty list elements (RFC 9110 section 5.6.1.2).
        if element.is_empty() {
            continue;
        }
        if specs.len() == MAX_RANGES {
            return None;
        }
        specs.push(Spec::parse(element)?);
    }
    (!specs.is_empty()).then_some(specs)
}

/// Digits only. A number that 64 bits don't hold is beyond the end of any file, and saturates.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let append =
        |value: u64, digit: &u8| value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, append))
}

/// The same bytes, sorted and merged if any two ranges overlap, and as they are if none do.
fn without_overlaps(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    if merged.len() == ranges.len() { ranges } else { merged }
}

/// Appends the value of a `Content-Range` field: `bytes 0-4/100`. The range is not empty.
pub(crate) fn push_content_range(out: &mut Vec<u8>, range: &Range<u64>, length: u64) {
    out.extend_from_slice(b"bytes ");
    push_decimal(out, range.start);
    out.push(b'-');
    push_decimal(out, range.end.saturating_sub(1));
    out.push(b'/');
    push_decimal(out, length);
}

/// The layout of a `multipart/byteranges` body (RFC 9110 section 14.6).
///
/// The body is, for each of [`parts`](Multipart::parts), its head and then its bytes of the file;
/// after the last one, the [`trailer`](Multipart::trailer).
///
/// ```
/// use kevent_serve::http::range::Multipart;
///
/// let body = Multipart::new(&[0..5, 90..100], 100, "text/plain", 7);
/// let heads: usize = body.parts().iter().map(|part| part.head.len()).sum();
/// assert_eq!(body.content_length(), (heads + 15 + body.trailer().len()) as u64);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    boundary: String,
    parts: Vec<Part>,
    trailer: Vec<u8>,
    content_length: u64,
}

/// One part of a [`Multipart`] body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What goes out before the bytes: the boundary and the part's own fields.
    pub head: Vec<u8>,
    /// The bytes of the file that follow.
    pub range: Range<u64>,
}

impl Multipart {
    /// Lays out a body of these ranges, as [`parse`] gives them, of a file of `length` bytes.
    ///
    /// `seed` makes the boundary: a number that the author of a file can't know beforehand, so that
    /// no file holds its own boundary.
    #[must_use]
    pub fn new(ranges: &[Range<u64>], length: u64, content_type: &str, seed: u64) -> Multipart {
        let boundary = format!("kevent-serve-{seed:016x}");
        let part = |(index, range): (usize, &Range<u64>)| {
            let mut head = Vec::with_capacity(160);
            // The line break before a boundary belongs to the boundary (RFC 2046 section 5.1.1).
            head.extend_from_slice(if index == 0 { b"--" } else { b"\r\n--" });
            head.extend_from_slice(boundary.as_bytes());
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(content_type.as_bytes());
            head.extend_from_slice(b"\r\nContent-Range: ");
            push_content_range(&mut head, range, length);
            head.extend_from_slice(b"\r\n\r\n");
            Part { head, range: range.clone() }
        };
        let parts: Vec<Part> = ranges.iter().enumerate().map(part).collect();
        let trailer = format!("\r\n--{boundary}--\r\n").into_bytes();
        let content_length = parts.iter().fold(trailer.len() as u64, |total, part| {
            let bytes = part.range.end.saturating_sub(part.range.start);
            total.saturating_add(part.head.len() as u64).saturating_add(bytes)
        });
        Multipart { boundary, parts, trailer, content_length }
    }

    /// What separates the parts, for the `Content-Type` of the answer.
    #[must_use]
    pub fn boundary(&self) -> &str {
        &self.boundary
    }

    /// The parts, in the order in which they are sent.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What goes out after the last part.
    #[must_use]
    pub fn trailer(&self) -> &[u8] {
        &self.trailer
    }

    /// The size of the whole body: part heads, ranges and trailer.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        self.content_length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(value: &str, length: u64) -> Vec<Range<u64>> {
        match parse(value.as_bytes(), length) {
            Selection::Ranges(ranges) => ranges,
            other => panic!("{value} of {length}: {other:?}"),
        }
    }

    fn one(range: Range<u64>) -> Vec<Range<u64>> {
        vec![range]
    }

    #[test]
    fn rfc9110_14_1_2_first_and_last_position_are_included() {
        assert_eq!(ranges("bytes=0-499", 10_000), one(0..500));
        assert_eq!(ranges("bytes=9999-9999", 10_000), one(9_999..10_000));
    }

    #[test]
    fn rfc9110_14_1_2_an_open_range_goes_to_the_end() {
        assert_eq!(ranges("bytes=9500-", 10_000), one(9_500..10_000));
        assert_eq!(ranges("bytes=0-", 10_000), one(0..10_000));
    }

    #[test]
    fn rfc9110_14_1_2_a_suffix_counts_from_the_end() {
        assert_eq!(ranges("bytes=-500", 10_000), one(9_500..10_000));
        assert_eq!(ranges("bytes=-20000", 10_000), one(0..10_000));
    }

    #[test]
    fn rfc9110_14_1_2_a_last_position_beyond_the_end_is_the_end() {
        assert_eq!(ranges("bytes=5-99999", 10), one(5..10));
        assert_eq!(ranges("bytes=5-99999999999999999999999999", 10), one(5..10));
    }

    #[test]
    fn rfc9110_14_1_units_match_in_any_case() {
        assert_eq!(ranges("Bytes=1-2", 10), one(1..3));
    }

    #[test]
    fn rfc9110_14_2_several_ranges_keep_their_order() {
        assert_eq!(ranges("bytes=90-94, 0-4,-1", 100), vec![90..95, 0..5, 99..100]);
        assert_eq!(ranges("bytes=5-9,0-4", 100), vec![5..10, 0..5]);
    }

    #[test]
    fn rfc9110_5_6_1_2_empty_list_elements_are_skipped() {
        assert_eq!(ranges("bytes=, 0-0 ,\t,2-2,", 10), vec![0..1, 2..3]);
    }

    #[test]
    fn rfc9110_15_3_7_2_overlapping_ranges_are_merged() {
        assert_eq!(ranges("bytes=50-99,0-59", 100), one(0..100));
        assert_eq!(ranges("bytes=90-,10-19,15-29", 100), vec![10..30, 90..100]);
        assert_eq!(ranges("bytes=0-0,0-0", 100), one(0..1));
    }

    #[test]
    fn rfc9110_14_2_what_is_malformed_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=5-4",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes =1-2",
            "bytes=--5",
            "lines=1-2",
            "=1-2",
            "bytes=0-1,x",
            "bytes=0-1, bytes=2-3",
            "bytes=99999999999999999999999-5",
        ] {
            assert_eq!(parse(value.as_bytes(), 100), Selection::Whole, "{value}");
        }
    }

    #[test]
    fn rfc9110_15_5_17_ranges_all_beyond_the_end_are_unsatisfiable() {
        for value in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=200-,300-400"] {
            assert_eq!(parse(value.as_bytes(), 100), Selection::Unsatisfiable, "{value}");
        }
    }

    #[test]
    fn rfc9110_14_2_satisfiable_ranges_are_served_without_the_others() {
        assert_eq!(ranges("bytes=100-,5-6,-0", 100), one(5..7));
    }

    #[test]
    fn an_empty_file_has_no_ranges() {
        for value in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(parse(value.as_bytes(), 0), Selection::Whole, "{value}");
        }
    }

    #[test]
    fn rfc9110_17_15_a_bomb_of_ranges_gets_the_whole_file() {
        let list = |count: usize| {
            let specs: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 2, n * 2)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert_eq!(ranges(&list(MAX_RANGES), 10_000).len(), MAX_RANGES);
        assert_eq!(parse(list(MAX_RANGES + 1).as_bytes(), 10_000), Selection::Whole);
    }

    #[test]
    fn the_largest_length_does_not_overflow() {
        assert_eq!(ranges("bytes=0-", u64::MAX), one(0..u64::MAX));
        assert_eq!(ranges("bytes=-18446744073709551615", u64::MAX), one(0..u64::MAX));
    }

    #[test]
    fn rfc9110_14_6_a_multipart_body_reads_as_written_there() {
        let file = b"0123456789";
        let body = Multipart::new(&[0..2, 7..10], 10, "text/plain", 0xabc);
        let mut bytes = Vec::new();
        for part in body.parts() {
            bytes.extend_from_slice(&part.head);
            bytes.extend_from_slice(&file[part.range.start as usize..part.range.end as usize]);
        }
        bytes.extend_from_slice(body.trailer());
        let expected = "--kevent-serve-0000000000000abc\r\n\
            Content-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
            \r\n--kevent-serve-0000000000000abc\r\n\
            Content-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789\
            \r\n--kevent-serve-0000000000000abc--\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!(body.content_length(), expected.len() as u64);
    }

    proptest! {
        #[test]
        fn any_value_gives_ranges_inside_the_file(
            value in "bytes=([0-9]{0,3}-[0-9]{0,3},? ?){1,6}",
            length in 0..1000u64,
        ) {
            if let Selection::Ranges(ranges) = parse(value.as_bytes(), length) {
                prop_assert!(!ranges.is_empty() && ranges.len() <= MAX_RANGES);
                prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= length));
                let mut sorted = ranges.clone();
                sorted.sort_by_key(|range| range.start);
                prop_assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
            }
        }

        #[test]
        fn merging_loses_and_adds_no_byte(
            specs in prop::collection::vec((0..64u64, 0..64u64), 1..8),
        ) {
            let list: Vec<_> = specs.iter().map(|(a, b)| format!("{}-{}", a, a + b)).collect();
            let value = format!("bytes={}", list.join(","));
            let asked = |n: u64| specs.iter().any(|(a, b)| (*a..=a + b).contains(&n));
            let Selection::Ranges(ranges) = parse(value.as_bytes(), 100) else { panic!("{value}") };
            for n in 0..100 {
                prop_assert_eq!(ranges.iter().any(|range| range.contains(&n)), asked(n));
            }
        }

        #[test]
        fn any_bytes_are_parsed_or_ignored(value: Vec<u8>, length: u64) {
            let _ = parse(&value, length);
        }

        #[test]
        fn a_multipart_body_is_as_long_as_its_pieces(
            bounds in prop::collection::vec((0..1u64 << 40, 1..1u64 << 20), 2..MAX_RANGES),
            seed: u64,
        ) {
            let ranges: Vec<_> = bounds.iter().map(|(start, size)| *start..start + size).collect();
            let body = Multipart::new(&ranges, 1 << 41, "image/png", seed);
            let pieces = body.parts().iter()
                .map(|part| part.head.len() as u64 + part.range.end - part.range.start)
                .sum::<u64>();
            prop_assert_eq!(body.content_length(), pieces + body.trailer().len() as u64);
        }
    }
}
