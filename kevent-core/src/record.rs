//! Events as plain records of 32 bytes, for C and for logs.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;

use crate::queue::Queue;
use crate::sources::counter::CounterEvent;
use crate::sources::idle::IdleEvent;
use crate::sources::mounts::MountEvent;
use crate::sources::pressure::PressureEvent;
use crate::sources::process::ProcessEvent;
use crate::sources::signal::SignalEvent;
use crate::sources::timer::{TimerEvent, TimerKind};

/// An event of any source, in 32 bytes without a pointer and without padding.
///
/// A queue of records is a queue like any other. What a source says becomes a record by [`From`]; the
/// crates kevent-net, kevent-fs and kevent-aio have that for their sources, too.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Queue, Record, Timers, UserEvents};
///
/// let mut queue: Queue<Record> = Queue::new()?;
/// let timers = queue.attach(Timers::new(), Record::from)?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, |number| Record::own(0x100, 1, number))?;
///
/// queue[timers].after(Duration::from_millis(1), 7);
/// poster.post(5).unwrap();
///
/// let mut records = Vec::new();
/// while records.len() < 2 {
///     queue.wait(None)?;
///     records.extend(std::iter::from_fn(|| queue.next_record()));
/// }
/// assert_eq!((records[0].source, records[0].data, records[0].sequence), (0x100, 5, 0));
/// assert_eq!((records[1].source, records[1].key, records[1].sequence), (Record::TIMER, 7, 1));
/// # std::io::Result::Ok(())
/// ```
///
/// In C:
///
/// ```c
/// struct kevent_record {
///     uint64_t key;
///     uint64_t data;
///     uint64_t sequence;
///     int32_t  code;
///     uint16_t source;
///     uint16_t flags;
/// };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Record {
    /// The number that the user gave to the registration; of a signal, its number.
    pub key: u64,
    /// What there is to tell, by source.
    pub data: u64,
    /// How many events came into the queue's ring before it: see [`Queue::next_record`].
    pub sequence: u64,
    /// What happened, by source.
    pub code: i32,
    /// What kind of source it is of: one of the numbers below, or the user's own from 256 on.
    pub source: u16,
    /// Marks, by source.
    pub flags: u16,
}

const _: () = assert!(size_of::<Record>() == Record::SIZE && align_of::<Record>() == 8);

/// Kinds of sources.
impl Record {
    /// [`Timers`](crate::Timers). `data` is how many more ticks had passed.
    pub const TIMER: u16 = 1;
    /// [`Signals`](crate::Signals). `code` is `si_code`. `data` is the value that was sent along, if
    /// [`HAS_VALUE`](Record::HAS_VALUE) is set; or else the sender's pid in its upper half, and in the
    /// lower one how many deliveries it stands for.
    pub const SIGNAL: u16 = 2;
    /// [`Processes`](crate::Processes). `code` is the exit code, or the signal that ended it, as the flags
    /// say; `data` is the pid.
    pub const PROCESS: u16 = 3;
    /// `kevent_net::Readiness`. `flags` is what the descriptor is ready for, in the bits of epoll(7);
    /// `data` is the registration's token.
    pub const READINESS: u16 = 4;
    /// `kevent_fs::Watcher`. `code` says what happened, `data` is the [hash](Record::hash) of the path.
    pub const CHANGE: u16 = 5;
    /// `kevent_aio::Aio`. `code` is the error's number, or 0; `data` is the result.
    pub const COMPLETION: u16 = 6;
    /// [`Counters`](crate::Counters). `data` is how much was added.
    pub const COUNTER: u16 = 7;
    /// [`Pressure`](crate::Pressure). `data` is for how many microseconds some task has stalled in all, 0 if
    /// that is not known.
    pub const PRESSURE: u16 = 8;
    /// [`Mounts`](crate::Mounts). `key` is the number of the mount, `code` 1 for mounted, 2 for unmounted and
    /// 3 for changed, `data` the [hash](Record::hash) of the place.
    pub const MOUNT: u16 = 9;
    /// [`Idle`](crate::Idle). `data` counts.
    pub const IDLE: u16 = 10;
    /// The first of the numbers that are the user's own.
    pub const OWN: u16 = 256;
}

/// Marks.
impl Record {
    /// Of a timer: it did not fire, the wall clock was set.
    pub const CLOCK_STEPPED: u16 = 1;
    /// Of a signal: `data` is the value that was sent along.
    pub const HAS_VALUE: u16 = 1;
    /// Of a signal: `code` is not known. The record stands for deliveries whose particulars were lost.
    pub const NO_CODE: u16 = 2;
    /// Of pressure: the cgroup is gone.
    pub const GONE: u16 = 1;
    /// Of a process: it ended by itself.
    pub const EXITED: u16 = 1;
    /// Of a process: a signal ended it.
    pub const KILLED: u16 = 2;
    /// Of a process: it left a core dump.
    pub const DUMPED: u16 = 4;
}

impl Record {
    /// The size of a record.
    pub const SIZE: usize = 32;

    /// A record of a source of the user's own. Its kind should be [`Record::OWN`] or above.
    #[must_use]
    pub const fn own(source: u16, key: u64, data: u64) -> Record {
        Record { key, data, sequence: 0, code: 0, source, flags: 0 }
    }

    /// The record byte by byte: its fields in their order, each with the lowest byte first, on every
    /// machine.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Record::SIZE] {
        let mut bytes = [0; Record::SIZE];
        bytes[..8].copy_from_slice(&self.key.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.data.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.code.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.source.to_le_bytes());
        bytes[30..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    /// The record that [`to_bytes`](Record::to_bytes) made bytes of. Any bytes are a record.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Record::SIZE]) -> Record {
        // The last eight bytes are the last three fields: the lowest byte of each comes first.
        let number = |at: usize| {
            bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let rest = number(24);
        Record {
            key: number(0),
            data: number(8),
            sequence: number(16),
            code: rest as i32,
            source: (rest >> 32) as u16,
            flags: (rest >> 48) as u16,
        }
    }

    /// A number for what does not fit into a record, such as a path: the same on every machine and in
    /// every version. (FNV-1a, which is no secret: whoever wants to can make two paths of one number.)
    #[must_use]
    pub fn hash(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

impl From<TimerEvent> for Record {
    fn from(event: TimerEvent) -> Record {
        let flags = match event.kind {
            TimerKind::Fired => 0,
            TimerKind::ClockStepped => Record::CLOCK_STEPPED,
        };
        Record { flags, ..Record::own(Record::TIMER, event.key, event.missed) }
    }
}

impl From<SignalEvent> for Record {
    fn from(event: SignalEvent) -> Record {
        let deliveries = u32::try_from(event.count).unwrap_or(u32::MAX);
        let sender = u64::from(event.pid.unwrap_or(0)) << 32 | u64::from(deliveries);
        let (data, value) = match event.value {
            Some(value) => (value.address() as u64, Record::HAS_VALUE),
            None => (sender, 0),
        };
        let flags = value | if event.code.is_none() { Record::NO_CODE } else { 0 };
        // A signal's number is positive.
        let key = u64::from(event.signal.as_raw().unsigned_abs());
        let code = event.code.unwrap_or(0);
        Record { code, flags, ..Record::own(Record::SIGNAL, key, data) }
    }
}

impl From<ProcessEvent> for Record {
    /// The child goes with the event: whoever wants its pipes takes them before.
    fn from(event: ProcessEvent) -> Record {
        let (code, flags) = match event.exit.map(|exit| (exit.code(), exit.signal(), exit)) {
            Some((Some(code), ..)) => (code, Record::EXITED),
            Some((None, Some(signal), exit)) if exit.core_dumped() => {
                (signal, Record::KILLED | Record::DUMPED)
            }
            Some((None, Some(signal), _)) => (signal, Record::KILLED),
            Some((None, None, _)) | None => (0, 0),
        };
        Record { code, flags, ..Record::own(Record::PROCESS, event.key, event.pid.into()) }
    }
}

impl From<CounterEvent> for Record {
    fn from(event: CounterEvent) -> Record {
        Record::own(Record::COUNTER, event.key, event.value)
    }
}

impl From<PressureEvent> for Record {
    fn from(event: PressureEvent) -> Record {
        let stalled = event.levels.map_or(0, |levels| levels.some.total.as_micros());
        let flags = if event.gone { Record::GONE } else { 0 };
        let stalled = u64::try_from(stalled).unwrap_or(u64::MAX);
        Record { flags, ..Record::own(Record::PRESSURE, event.key, stalled) }
    }
}

impl From<MountEvent> for Record {
    fn from(event: MountEvent) -> Record {
        let (code, mount) = match &event {
            MountEvent::Mounted(mount) => (1, mount),
            MountEvent::Unmounted(mount) => (2, mount),
            MountEvent::Changed { now, .. } => (3, now),
        };
        let place = Record::hash(mount.mount_point.as_os_str().as_bytes());
        Record { code, ..Record::own(Record::MOUNT, mount.id.into(), place) }
    }
}

impl From<IdleEvent> for Record {
    fn from(event: IdleEvent) -> Record {
        Record::own(Record::IDLE, 0, event.count)
    }
}

impl Queue<Record> {
    /// As [`next`](Queue::next), with the record's number filled in.
    ///
    /// What is [replayed](crate::Replay) has its number from the queue in which it was recorded: take that
    /// by `next`.
    pub fn next_record(&mut self) -> Option<Record> {
        let stamped = self.next_stamped()?;
        Some(Record { sequence: stamped.sequence, ..stamped.event })
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::sources::mounts::Mount;
    use crate::sources::pressure::{PressureLimit, Resource, Stalled};
    use crate::sources::signal::Signal;

    fn record() -> impl Strategy<Value = Record> {
        any::<(u64, u64, u64, i32, u16, u16)>().prop_map(
            |(key, data, sequence, code, source, flags)| Record {
                key,
                data,
                sequence,
                code,
                source,
                flags,
            },
        )
    }

    proptest! {
        #[test]
        fn record_is_its_bytes(record in record(), bytes: [u8; 32]) {
            prop_assert_eq!(Record::from_bytes(&record.to_bytes()), record);
            prop_assert_eq!(Record::from_bytes(&bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn bytes_of_a_record_are_the_same_on_every_machine() {
        let record =
            Record { key: 1, data: 2, sequence: 3, code: -2, source: 0x0405, flags: 0x0607 };
        let mut expected = [0; 32];
        (expected[0], expected[8], expected[16]) = (1, 2, 3);
        expected[24..].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 5, 4, 7, 6]);
        assert_eq!(record.to_bytes(), expected);
        assert_eq!(Record::hash(b"foobar"), 0x8594_4171_f739_67e8, "as published");
    }

    #[test]
    fn events_keep_in_a_record_what_they_tell() {
        let timer = TimerEvent { missed: 4, ..TimerEvent::for_test(9, Instant::now()) };
        let expected = Record { data: 4, ..Record::own(Record::TIMER, 9, 0) };
        assert_eq!(Record::from(timer), expected);
        let stepped = TimerEvent { kind: TimerKind::ClockStepped, ..timer };
        assert_eq!(Record::from(stepped), Record { flags: Record::CLOCK_STEPPED, ..expected });

        let mut signal = SignalEvent::for_test(Signal::TERM);
        let expected = Record { flags: Record::NO_CODE, ..Record::own(Record::SIGNAL, 15, 1) };
        assert_eq!(Record::from(signal), expected);
        (signal.code, signal.pid) = (Some(-6), Some(77));
        let expected = Record { code: -6, ..Record::own(Record::SIGNAL, 15, 77 << 32 | 1) };
        assert_eq!(Record::from(signal), expected);

        let process = |raw| Record::from(ProcessEvent::for_test(3, 44, raw));
        let expected = Record::own(Record::PROCESS, 3, 44);
        let [exited, killed, dumped] = [7 << 8, 9, 6 | 0x80].map(ExitStatus::from_raw);
        assert_eq!(process(None), expected);
        assert_eq!(process(Some(exited)), Record { code: 7, flags: Record::EXITED, ..expected });
        assert_eq!(process(Some(killed)), Record { code: 9, flags: Record::KILLED, ..expected });
        let flags = Record::KILLED | Record::DUMPED;
        assert_eq!(process(Some(dumped)), Record { code: 6, flags, ..expected });
    }
    #[test]
    fn events_of_the_system_keep_in_a_record_what_they_tell() {
        let counter = Record::from(CounterEvent::for_test(9, 4));
        assert_eq!(counter, Record::own(Record::COUNTER, 9, 4));
        assert_eq!(Record::from(IdleEvent::for_test(4)), Record::own(Record::IDLE, 0, 4));

        let second = Duration::from_secs(1);
        let limit = PressureLimit {
            resource: Resource::Memory,
            stall: Stalled::Some,
            threshold: second,
            window: second,
        };
        let pressure = PressureEvent::for_test(9, limit);
        let expected = Record::own(Record::PRESSURE, 9, 0);
        assert_eq!(Record::from(pressure), expected);
        let gone = PressureEvent { gone: true, ..pressure };
        assert_eq!(Record::from(gone), Record { flags: Record::GONE, ..expected });

        let [before, now] = ["/a", "/b"].map(|place| Arc::new(Mount::for_test(9, place)));
        let record =
            |code, place| Record { code, ..Record::own(Record::MOUNT, 9, Record::hash(place)) };
        assert_eq!(Record::from(MountEvent::Mounted(before.clone())), record(1, b"/a"));
        assert_eq!(Record::from(MountEvent::Unmounted(before.clone())), record(2, b"/a"));
        assert_eq!(Record::from(MountEvent::Changed { before, now }), record(3, b"/b"));
    }
}
