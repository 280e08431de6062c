//! What fanotify reports, as it lies in the buffer.
//!
//! A report is a head (`struct fanotify_event_metadata`) and records behind it, each with a type and a
//! length: what was changed, by its handle, and where, by the handle of a directory and a name.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;

/// A directory, by its handle, and the name of an entry; "." is the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a [u8],
    pub(crate) name: &'a OsStr,
}

/// What happened, of equal kind to the same thing since it was last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report<'a> {
    pub(crate) mask: u64,
    /// The file system.
    pub(crate) volume: u64,
    /// What was changed, by its handle, where the kernel says that.
    pub(crate) target: Option<&'a [u8]>,
    pub(crate) place: Option<Place<'a>>,
    /// Of a rename: where it was.
    pub(crate) from: Option<Place<'a>>,
    /// Of a rename: where it is.
    pub(crate) to: Option<Place<'a>>,
}

impl Report<'_> {
    /// Whether any of these bits is set.
    pub(crate) fn is(&self, bits: u64) -> bool {
        self.mask & bits != 0
    }
}

/// The report that `bytes` begin with, and its length. None when they are no whole report.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Report<'_>, usize)> {
    let (length, _) = bytes.split_first_chunk()?;
    let length = u32::from_ne_bytes(*length) as usize;
    let whole = bytes.get(..length)?;
    let (head, _) = whole.get(6..)?.split_first_chunk()?;
    let (mask, _) = whole.get(8..)?.split_first_chunk()?;
    let mut report = Report { mask: u64::from_ne_bytes(*mask), ..Report::default() };
    let mut records = whole.get(u16::from_ne_bytes(*head) as usize..)?;
    while let Some((&[kind, _, low, high], _)) = records.split_first_chunk() {
        let length = usize::from(u16::from_ne_bytes([low, high])).max(4);
        let record = records.get(4..length)?;
        take_in(&mut report, kind, record);
        records = &records[length..];
    }
    Some((report, length))
}

fn take_in<'a>(report: &mut Report<'a>, kind: u8, record: &'a [u8]) {
    let Some((volume, record)) = record.split_first_chunk::<8>() else { return };
    let Some((length, _)) = record.split_first_chunk() else { return };
    let length = 8_usize.saturating_add(u32::from_ne_bytes(*length) as usize);
    let Some((handle, name)) = record.split_at_checked(length) else { return };
    let name = CStr::from_bytes_until_nul(name).map_or(&b"."[..], CStr::to_bytes);
    let place = Some(Place { directory: handle, name: OsStr::from_bytes(name) });
    match kind {
        libc::FAN_EVENT_INFO_TYPE_FID => report.target = Some(handle),
        libc::FAN_EVENT_INFO_TYPE_DFID_NAME => report.place = place,
        libc::FAN_EVENT_INFO_TYPE_DFID => report.place = place,
        libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => report.from = place,
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => report.to = place,
        _ => return,
    }
    let [a, b, c, d, e, f, g, h] = *volume;
    let low = u32::from_ne_bytes([a, b, c, d]);
    report.volume = u64::from(u32::from_ne_bytes([e, f, g, h])) << 32 | u64::from(low);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let length = (12 + handle.len() + name.len()) as u16;
        let mut bytes = vec![kind, 0];
        bytes.extend(length.to_ne_bytes());
        bytes.extend([1_i32.to_ne_bytes(), (-1_i32).to_ne_bytes()].concat());
        bytes.extend(handle);
        bytes.extend(name);
        bytes
    }

    fn handle(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_ne_bytes(), &7_i32.to_ne_bytes(), bytes].concat()
    }

    fn whole(mask: u64, records: &[Vec<u8>]) -> Vec<u8> {
        let records = records.concat();
        let mut bytes = ((24 + records.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend(24_u16.to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend([(-1_i32).to_ne_bytes(), 9_i32.to_ne_bytes()].concat());
        bytes.extend(records);
        bytes
    }

    #[test]
    fn rename_has_two_places_and_a_target() {
        let [a, b, c] = [b"aaaa", b"bbbb", b"cccc"].map(|bytes| handle(bytes));
        let mut bytes = whole(
            libc::FAN_RENAME,
            &[
                record(libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, &a, b"old\0"),
                record(libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, &b, b"new\0\0\0\0"),
                record(99, &a, b""),
                record(libc::FAN_EVENT_INFO_TYPE_FID, &c, b""),
            ],
        );
        let length = bytes.len();
        bytes.extend([1, 2, 3]);
        let place = |directory, name: &'static str| Some(Place { directory, name: name.as_ref() });
        let report = Report {
            mask: libc::FAN_RENAME,
            volume: 0xffff_ffff_0000_0001,
            target: Some(&c),
            place: None,
            from: place(&a, "old"),
            to: place(&b, "new"),
        };
        assert_eq!(parse(&bytes), Some((report, length)));
        assert!(report.is(libc::FAN_RENAME) && !report.is(libc::FAN_CREATE));
    }

    #[test]
    fn report_without_records_is_one() {
        let bytes = whole(libc::FAN_Q_OVERFLOW, &[]);
        let report = Report { mask: libc::FAN_Q_OVERFLOW, ..Report::default() };
        assert_eq!(parse(&bytes), Some((report, 24)));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            length in 0_u32..100,
            head in 0_u16..40,
        ) {
            let mut bytes = [&length.to_ne_bytes()[..], &[3, 0], &head.to_ne_bytes(), &bytes].concat();
            bytes.extend([0; 8]);
            if let Some((_, taken)) = parse(&bytes) {
                prop_assert!(taken >= 16 && taken <= bytes.len());
            }
        }

        #[test]
        fn records_of_any_bytes_do_no_harm(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let bytes = whole(1, &records);
            let _ = parse(&bytes);
        }
    }
}
