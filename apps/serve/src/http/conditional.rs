//! Conditional requests: validators of a file, and what a client's conditions make of them (RFC
//! 9110 section 13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::date;
use crate::http::digits::push_hex;

/// What `statx(2)` says of a file, as far as it tells one state of the file from another.
///
/// Times are seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The inode number: another file under the same name has another.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// When the contents changed (`stx_mtime`). Any program may set it.
    pub modified: (i64, u32),
    /// When contents or attributes changed (`stx_ctime`). No program can set it.
    pub changed: (i64, u32),
}

/// What tells a client whether its copy of a file is current.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use kevent_serve::http::conditional::{Stamp, Validators};
///
/// let now = UNIX_EPOCH + Duration::from_secs(1_000);
/// let stamp = Stamp { inode: 10, size: 255, modified: (7, 0), changed: (7, 1) };
/// let validators = Validators::new(&stamp, now);
/// assert_eq!(validators.etag(), b"\"a-ff-1a13b8600-1a13b8601\"");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    etag: Vec<u8>,
    last_modified: SystemTime,
}

impl Validators {
    /// The validators of a file in the state `stamp`, at the time `now`.
    ///
    /// The tag is strong. It tells apart any two states between which the kernel's file clock
    /// ticked (up to 10 ms before Linux 6.13; later kernels tick finer once a file's times were
    /// looked at). A modification time in the future is given as `now` (RFC 9110 section 8.8.2.1).
    #[must_use]
    pub fn new(stamp: &Stamp, now: SystemTime) -> Validators {
        let mut etag = Vec::with_capacity(64);
        etag.push(b'"');
        push_hex(&mut etag, stamp.inode);
        etag.push(b'-');
        push_hex(&mut etag, stamp.size);
        for time in [stamp.modified, stamp.changed] {
            etag.push(b'-');
            push_hex(&mut etag, nanoseconds(time));
        }
        etag.push(b'"');
        let seconds = u64::try_from(stamp.modified.0).unwrap_or(0);
        let modified = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(now);
        Validators { etag, last_modified: date::whole_seconds(modified.min(now)) }
    }

    /// The entity tag, with its quotes.
    #[must_use]
    pub fn etag(&self) -> &[u8] {
        &self.etag
    }

    /// The time of the last change, in whole seconds, not in the future.
    #[must_use]
    pub fn last_modified(&self) -> SystemTime {
        self.last_modified
    }
}

/// The time as one number. It wraps outside of the years 1678 to 2554, which only makes two states
/// 584 years apart look alike.
fn nanoseconds((seconds, nanoseconds): (i64, u32)) -> u64 {
    (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(u64::from(nanoseconds))
}

/// The conditions of a request, as they were sent. Several fields of one name are joined with
/// commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: entity tags, or `*`.
    pub if_match: Option<Vec<u8>>,
    /// `If-None-Match`: entity tags, or `*`.
    pub if_none_match: Option<Vec<u8>>,
    /// `If-Modified-Since`: a date.
    pub if_modified_since: Option<Vec<u8>>,
    /// `If-Unmodified-Since`: a date.
    pub if_unmodified_since: Option<Vec<u8>>,
    /// `If-Range`: one entity tag or a date.
    pub if_range: Option<Vec<u8>>,
}

/// What the conditions make of a GET or HEAD of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as without conditions.
    Full,
    /// Answer 304: the client's copy is current.
    NotModified,
    /// Answer 412: the file is not the one the client means.
    PreconditionFailed,
}

/// Evaluates all conditions but `If-Range`, in the order of RFC 9110 section 13.2.2.
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use kevent_serve::http::conditional::{Conditions, Outcome, Stamp, Validators, evaluate};
///
/// let validators = Validators::new(&Stamp::default(), UNIX_EPOCH);
/// let if_none_match = Some(validators.etag().to_vec());
/// let conditions = Conditions { if_none_match, ..Conditions::default() };
/// assert_eq!(evaluate(&conditions, &validators), Outcome::NotModified);
/// ```
#[must_use]
pub fn evaluate(conditions: &Conditions, validators: &Validators) -> Outcome {
    let modified_after = |time| validators.last_modified > time;
    // A tag is the better evidence: where there is one, the date is not looked at.
    let expected = match (&conditions.if_match, &conditions.if_unmodified_since) {
        (Some(tags), _) => lists(tags, &validators.etag, Comparison::Strong),
        (None, Some(value)) => date::parse(value).is_none_or(|time| !modified_after(time)),
        (None, None) => true,
    };
    let known = match (&conditions.if_none_match, &conditions.if_modified_since) {
        (Some(tags), _) => lists(tags, &validators.etag, Comparison::Weak),
        (None, Some(value)) => date::parse(value).is_some_and(|time| !modified_after(time)),
        (None, None) => false,
    };
    match (expected, known) {
        (false, _) => Outcome::PreconditionFailed,
        (true, true) => Outcome::NotModified,
        (true, false) => Outcome::Full,
    }
}

/// Whether `If-Range` lets a `Range` field count: without it, or when it names this very state of
/// the file (RFC 9110 section 13.1.5). Otherwise the client's part is of another state, and it gets
/// all.
#[must_use]
pub fn range_applies(conditions: &Conditions, validators: &Validators) -> bool {
    let Some(value) = &conditions.if_range else { return true };
    // A weak tag begins with `W/`, so equality is the strong comparison. A date has no quotes.
    *value == validators.etag || date::parse(value) == Some(validators.last_modified)
}

/// How two tags are compared (RFC 9110 section 8.8.3.2). Ours are strong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag matches nothing.
    Strong,
    /// A weak tag matches as a strong one does.
    Weak,
}

/// Whether a list of entity tags, or `*`, holds `etag`. What follows a malformed element is not
/// read.
fn lists(list: &[u8], etag: &[u8], comparison: Comparison) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        let Some((tag, weak, after)) = next_tag(rest) else { return false };
        if tag == etag && (!weak || comparison == Comparison::Weak) {
            return true;
        }
        rest = after;
    }
}

/// The tag at the start of `text` with its quotes, whether it is weak, and what follows it. A comma
/// may stand inside the quotes.
fn next_tag(text: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let (opaque, weak) = match text.strip_prefix(b"W/") {
        Some(opaque) => (opaque, true),
        None => (text, false),
    };
    let inside = opaque.strip_prefix(b"\"")?;
    let end = inside.iter().position(|&byte| byte == b'"')?;
    let (tag, after) = opaque.split_at_checked(end + 2)?;
    matches!(after, [] | [b' ' | b'\t' | b',', ..]).then_some((tag, weak, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODIFIED: i64 = 784_111_777;
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const TAG: &str = "\"1-2-ae1b47f2bea0a00-0\"";

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn stamp() -> Stamp {
        Stamp { inode: 1, size: 2, modified: (MODIFIED, 5), changed: (0, 0) }
    }

    fn validators() -> Validators {
        let validators = Validators::new(&stamp(), now());
        Validators { etag: TAG.into(), ..validators }
    }

    fn some(value: &str) -> Option<Vec<u8>> {
        Some(value.into())
    }

    fn none_match(value: &str) -> Outcome {
        let conditions = Conditions { if_none_match: some(value), ..Conditions::default() };
        evaluate(&conditions, &validators())
    }

    fn matches(value: &str) -> Outcome {
        let conditions = Conditions { if_match: some(value), ..Conditions::default() };
        evaluate(&conditions, &validators())
    }

    fn modified_since(value: &str) -> Outcome {
        let conditions = Conditions { if_modified_since: some(value), ..Conditions::default() };
        evaluate(&conditions, &validators())
    }

    fn if_range(value: &str) -> bool {
        let conditions = Conditions { if_range: some(value), ..Conditions::default() };
        range_applies(&conditions, &validators())
    }

    #[test]
    fn without_conditions_the_answer_is_full() {
        assert_eq!(evaluate(&Conditions::default(), &validators()), Outcome::Full);
        assert!(range_applies(&Conditions::default(), &validators()));
    }

    #[test]
    fn every_change_of_the_file_changes_the_tag() {
        let stamps = [
            stamp(),
            Stamp { inode: 2, ..stamp() },
            Stamp { size: 3, ..stamp() },
            Stamp { modified: (MODIFIED, 6), ..stamp() },
            Stamp { modified: (MODIFIED + 1, 5), ..stamp() },
            Stamp { changed: (0, 1), ..stamp() },
        ];
        let mut tags: Vec<_> =
            stamps.iter().map(|stamp| Validators::new(stamp, now()).etag).collect();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), stamps.len());
    }

    #[test]
    fn rfc9110_8_8_2_1_last_modified_is_never_in_the_future() {
        let stamp = Stamp { modified: (i64::MAX, 0), ..stamp() };
        assert_eq!(Validators::new(&stamp, now()).last_modified(), now());
        let stamp = Stamp { modified: (i64::MIN, 0), ..stamp };
        assert_eq!(Validators::new(&stamp, now()).last_modified(), UNIX_EPOCH);
    }

    #[test]
    fn rfc9110_13_1_2_a_known_tag_is_not_modified() {
        assert_eq!(none_match(TAG), Outcome::NotModified);
        assert_eq!(none_match("\"other\""), Outcome::Full);
        assert_eq!(none_match(&format!("\"a,b\",W/\"c\" ,\t{TAG}, \"d\"")), Outcome::NotModified);
        assert_eq!(none_match(" * "), Outcome::NotModified);
    }

    #[test]
    fn rfc9110_13_1_2_none_match_compares_weakly() {
        assert_eq!(none_match(&format!("W/{TAG}")), Outcome::NotModified);
    }

    #[test]
    fn malformed_tags_match_nothing() {
        let bare = TAG.trim_matches('"');
        for value in [
            "",
            ",",
            bare,
            &TAG[1..],
            &TAG[..5],
            "w/\"x\"",
            &format!("x, {TAG}"),
            "\"",
            &format!("{TAG}x"),
            &format!("*, {TAG}"),
            "W/",
            "\"a\"\"b\"",
        ] {
            assert_eq!(none_match(value), Outcome::Full, "{value}");
        }
    }

    #[test]
    fn rfc9110_13_1_1_match_compares_strongly() {
        assert_eq!(matches(TAG), Outcome::Full);
        assert_eq!(matches("*"), Outcome::Full);
        assert_eq!(matches("\"other\""), Outcome::PreconditionFailed);
        assert_eq!(matches(&format!("W/{TAG}")), Outcome::PreconditionFailed);
    }

    #[test]
    fn rfc9110_13_1_3_modified_since_compares_whole_seconds() {
        assert_eq!(modified_since(THEN), Outcome::NotModified);
        assert_eq!(modified_since(AFTER), Outcome::NotModified);
        assert_eq!(modified_since(BEFORE), Outcome::Full);
    }

    #[test]
    fn rfc9110_13_1_3_an_invalid_date_is_ignored() {
        for value in ["", "yesterday", "784111777", &format!("{THEN}, {THEN}")] {
            assert_eq!(modified_since(value), Outcome::Full, "{value}");
        }
    }

    #[test]
    fn rfc9110_13_1_4_unmodified_since_refuses_what_changed() {
        for (value, outcome) in [
            (THEN, Outcome::Full),
            (BEFORE, Outcome::PreconditionFailed),
            ("yesterday", Outcome::Full),
        ] {
            let conditions =
                Conditions { if_unmodified_since: some(value), ..Conditions::default() };
            assert_eq!(evaluate(&conditions, &validators()), outcome, "{value}");
        }
    }

    #[test]
    fn rfc9110_13_2_2_tags_take_precedence_over_dates() {
        let conditions = Conditions {
            if_none_match: some("\"other\""),
            if_modified_since: some(THEN),
            if_match: some(TAG),
            if_unmodified_since: some(BEFORE),
            ..Conditions::default()
        };
        assert_eq!(evaluate(&conditions, &validators()), Outcome::Full);
    }

    #[test]
    fn rfc9110_13_2_2_a_failed_match_comes_before_not_modified() {
        let conditions = Conditions {
            if_match: some("\"other\""),
            if_none_match: some(TAG),
            ..Conditions::default()
        };
        assert_eq!(evaluate(&conditions, &validators()), Outcome::PreconditionFailed);
    }

    #[test]
    fn rfc9110_13_1_5_a_range_applies_to_this_very_state() {
        assert!(if_range(TAG));
        assert!(if_range(THEN));
    }

    #[test]
    fn rfc9110_13_1_5_a_range_of_another_state_does_not_apply() {
        for value in
            [BEFORE, AFTER, "\"other\"", "*", "", &format!("W/{TAG}"), &format!("{TAG}, {TAG}")]
        {
            assert!(!if_range(value), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_evaluated(value: Vec<u8>, stamp: (u64, u64, i64, u32)) {
            let stamp = Stamp {
                inode: stamp.0, size: stamp.1, modified: (stamp.2, stamp.3), changed: (stamp.2, 0),
            };
            let validators = Validators::new(&stamp, now());
            let value = Some(value);
            let conditions = Conditions {
                if_match: value.clone(),
                if_none_match: value.clone(),
                if_modified_since: value.clone(),
                if_unmodified_since: value.clone(),
                if_range: value,
            };
            let _ = evaluate(&conditions, &validators);
            let _ = range_applies(&conditions, &validators);
        }

        #[test]
        fn a_client_that_returns_both_validators_is_not_sent_the_file_again(
            inode: u64, size: u64, seconds: i64, nanoseconds in 0..1_000_000_000u32,
        ) {
            let stamp = Stamp { inode, size, modified: (seconds, nanoseconds), changed: (0, 0) };
            let validators = Validators::new(&stamp, now());
            let mut modified = Vec::new();
            date::push_date(&mut modified, validators.last_modified());
            let by_date =
                Conditions { if_modified_since: Some(modified.clone()), ..Conditions::default() };
            prop_assert_eq!(evaluate(&by_date, &validators), Outcome::NotModified);
            let by_tag = Conditions {
                if_none_match: Some(validators.etag().to_vec()),
                ..Conditions::default()
            };
            prop_assert_eq!(evaluate(&by_tag, &validators), Outcome::NotModified);
            let part = Conditions { if_range: Some(modified), ..Conditions::default() };
            prop_assert!(range_applies(&part, &validators));
        }
    }
}
