//! Readiness as a plain record.

use kevent_core::Record;

use crate::readiness::ReadyEvent;

impl From<ReadyEvent> for Record {
    /// `key` is the user's number, `data` the [token](kevent_core::Token::to_bits), and `flags` what the
    /// descriptor is ready for, in the bits of epoll(7).
    fn from(event: ReadyEvent) -> Record {
        // The highest bit that is ever told is that of `EPOLLRDHUP`, 0x2000.
        let flags = event.ready.bits() as u16;
        let data = event.token.to_bits();
        Record { flags, ..Record::own(Record::READINESS, event.key, data) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use kevent_core::Queue;

    use super::*;
    use crate::{Interest, Mode, Readiness};

    #[test]
    fn record_has_key_token_and_flags() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut queue: Queue<Record> = Queue::new().unwrap();
        let readiness = queue.attach(Readiness::new(), Record::from).unwrap();
        let interest = Interest::READABLE;
        let token = queue[readiness].register(&here, interest, Mode::Level, 7).unwrap();
        there.write_all(b"hello").unwrap();
        there.shutdown(std::net::Shutdown::Write).unwrap();
        queue.wait(None).unwrap();
        let expected = Record::own(Record::READINESS, 7, token.to_bits());
        assert_eq!(queue.next_record(), Some(Record { flags: 0x2001, ..expected }));
    }
}
