//! Dates as HTTP writes them (RFC 9110 section 5.6.7).

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// The last second that the format can write: 9999-12-31 23:59:59.
const LAST_SECOND: u64 = 253_402_300_799;

/// The time in whole seconds, moved into what the format can write: 1970 to 9999. File systems hold
/// times far outside of that, and anyone may set them.
#[must_use]
pub fn whole_seconds(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs().min(LAST_SECOND))
}

/// The time in HTTP's format, for the `Date` field. Format it once a second, not once an answer.
///
/// ```
/// use kevent_serve::http::date::http_date;
///
/// assert_eq!(http_date(std::time::UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
/// ```
#[must_use]
pub fn http_date(time: SystemTime) -> String {
    HttpDate::from(whole_seconds(time)).to_string()
}

/// Appends the time in HTTP's format.
pub(crate) fn push_date(out: &mut Vec<u8>, time: SystemTime) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{}", HttpDate::from(whole_seconds(time)));
}

/// The time that a field's value names, in any of the three formats that recipients take.
pub(crate) fn parse(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc9110_5_6_7_all_three_formats_are_taken() {
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(time), "{text}");
        }
        assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn times_that_the_format_cannot_write_are_moved_into_it() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(http_date(before), "Thu, 01 Jan 1970 00:00:00 GMT");
        let after = UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 100);
        assert_eq!(http_date(after), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            seconds in 0..=LAST_SECOND, nanoseconds in 0..1_000_000_000u32,
        ) {
            let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
            let mut text = Vec::new();
            push_date(&mut text, time);
            prop_assert_eq!(parse(&text), Some(whole_seconds(time)));
        }

        #[test]
        fn any_bytes_are_a_date_or_none(value: Vec<u8>) {
            let _ = parse(&value);
        }
    }
}
