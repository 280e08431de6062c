//! Completions as plain records.

use kevent_core::Record;

use crate::completion::Completion;

impl From<Completion> for Record {
    /// `key` is the user's number. `code` is 0 and `data` the result; or `code` is the number of the error
    /// (`EIO` of one that has none). `flags`: 1 if it was cancelled.
    ///
    /// The operation goes, with its buffers and descriptors: whoever wants them makes the record himself.
    fn from(completion: Completion) -> Record {
        let (code, data) = match completion.result {
            Ok(count) => (0, count),
            Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), 0),
        };
        let flags = u16::from(completion.cancelled);
        Record { code, flags, ..Record::own(Record::COMPLETION, completion.key, data) }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::ops::Open;

    #[test]
    fn record_has_the_result_or_the_errors_number() {
        let record = |result| Record::from(Completion::for_test(7, Open::new("/"), result));
        let expected = Record::own(Record::COMPLETION, 7, 0);
        assert_eq!(record(Ok(5)), Record { data: 5, ..expected });
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(record(Err(full)), Record { code: libc::ENOSPC, ..expected });
        let other = io::Error::other("a chain that ended");
        assert_eq!(record(Err(other)), Record { code: libc::EIO, ..expected });
    }
}
