//! Events in a file, with their times.
//!
//! A head of 32 bytes, then entries of 48: nanoseconds since the beginning, a [`Record`], and a check of
//! both and of the entry's number, so that neither a byte that changed nor an entry that is missing or
//! stands elsewhere goes unnoticed. All numbers have their lowest byte first.

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::record::Record;
use crate::stamped::Stamped;

const MAGIC: [u8; 8] = *b"KEVENTRC";
const VERSION: u64 = 1;
const HEAD: usize = 32;
const ENTRY: usize = 8 + Record::SIZE + 8;

/// Writes the events of a queue to a file, or to whatever else takes bytes.
///
/// It writes an entry at a time: give it a [`BufWriter`](io::BufWriter).
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Queue, Record, Recorder, Recording, Timers};
///
/// let mut queue: Queue<Record> = Queue::new()?;
/// let timers = queue.attach(Timers::new(), Record::from)?;
/// queue[timers].after(Duration::from_millis(1), 7);
///
/// let mut recorder = Recorder::new(Vec::new(), queue.clock())?;
/// queue.wait(None)?;
/// while let Some(stamped) = queue.next_stamped() {
///     recorder.record(&stamped)?;
/// }
///
/// let file = recorder.into_inner();
/// let recording = Recording::new(file.as_slice())?;
/// let entries = recording.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(entries[0].record.key, 7);
/// assert!(entries[0].at >= Duration::from_millis(1));
/// # std::io::Result::Ok(())
/// ```
///
/// A program whose events are no records makes some of them:
/// `recorder.record(&stamped.map(|event| Record::own(0x100, event.number, 0)))`.
#[derive(Debug)]
pub struct Recorder<W> {
    writer: W,
    begun: Instant,
    entries: u64,
}

impl<W: Write> Recorder<W> {
    /// Begins a recording now, by the queue's clock.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn new(mut writer: W, clock: &Clock) -> io::Result<Recorder<W>> {
        writer.write_all(&head(clock.wall()))?;
        Ok(Recorder { writer, begun: clock.now(), entries: 0 })
    }

    /// Writes an event, under its number and the time at which the queue saw it. One that was seen before
    /// the recording began counts as seen then.
    ///
    /// # Errors
    ///
    /// Those of the writer. What it has taken then is a recording that ends in the middle of an entry:
    /// nothing can follow that.
    pub fn record(&mut self, stamped: &Stamped<Record>) -> io::Result<()> {
        let record = Record { sequence: stamped.sequence, ..stamped.event };
        let at = stamped.seen.saturating_duration_since(self.begun);
        let entry = encode(self.entries, &Entry { at, record });
        self.writer.write_all(&entry)?;
        self.entries += 1;
        Ok(())
    }

    /// Has the writer hand on what it holds.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Ends the recording. What the writer holds is handed on when that is dropped, or flushed.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

/// An event of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was seen, since the recording began.
    pub at: Duration,
    /// What it was. It has its number of old.
    pub record: Record,
}

/// Reads what a [`Recorder`] wrote.
///
/// An iterator of the entries. The first that can't be read is an error, and the last: what stands before
/// it is right, what stands behind it can't be relied on. A file that was cut off just where an entry ends
/// is a recording of less: it may be of a program that ended there.
///
/// It reads an entry at a time: give it a [`BufReader`](io::BufReader).
#[derive(Debug)]
pub struct Recording<R> {
    reader: R,
    began: SystemTime,
    entries: u64,
    /// The time of the last entry.
    at: Duration,
    ended: bool,
}

impl<R: Read> Recording<R> {
    /// Reads the head of a recording.
    ///
    /// # Errors
    ///
    /// When it is none, or of a version that this one does not know.
    pub fn new(mut reader: R) -> Result<Recording<R>, RecordingError> {
        let mut head = [0; HEAD];
        let got = fill(&mut reader, &mut head).map_err(|error| Flaw::unreadable(error).at(0))?;
        if !head[..got].starts_with(&MAGIC) {
            return Err(Flaw::NoRecording.at(0));
        }
        if got < HEAD {
            return Err(Flaw::CutShort { got, of: HEAD }.at(0));
        }
        let [_, version, began, check] = numbers(&head);
        if version != VERSION {
            return Err(Flaw::Version(version).at(8));
        }
        if check != Record::hash(&head[..HEAD - 8]) {
            return Err(Flaw::Damaged.at(0));
        }
        let began = SystemTime::UNIX_EPOCH + Duration::from_nanos(began);
        Ok(Recording { reader, began, entries: 0, at: Duration::ZERO, ended: false })
    }

    /// What the wall clock showed when the recording began.
    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// Reads the next entry; `None` at the end.
    fn read(&mut self) -> Result<Option<Entry>, Flaw> {
        let mut bytes = [0; ENTRY];
        match fill(&mut self.reader, &mut bytes).map_err(Flaw::unreadable)? {
            0 => Ok(None),
            ENTRY => {
                let entry = decode(self.entries, &bytes).ok_or(Flaw::Damaged)?;
                if entry.at < self.at {
                    return Err(Flaw::Damaged);
                }
                self.at = entry.at;
                self.entries += 1;
                Ok(Some(entry))
            }
            got => Err(Flaw::CutShort { got, of: ENTRY }),
        }
    }
}

impl<R: Read> Iterator for Recording<R> {
    type Item = Result<Entry, RecordingError>;

    fn next(&mut self) -> Option<Result<Entry, RecordingError>> {
        if self.ended {
            return None;
        }
        let offset = HEAD as u64 + self.entries * ENTRY as u64;
        let read = self.read().map_err(|flaw| flaw.at(offset)).transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

/// A recording, or the rest of one, that can't be read.
#[derive(Clone, Debug)]
pub struct RecordingError {
    /// Where in the file what can't be read begins: the head, or an entry.
    pub offset: u64,
    flaw: Flaw,
}

#[derive(Clone, Debug)]
enum Flaw {
    NoRecording,
    Version(u64),
    Damaged,
    CutShort {
        got: usize,
        of: usize,
    },
    /// Shared, for an error that is told again and again.
    Unreadable(Arc<io::Error>),
}

impl Flaw {
    fn unreadable(error: io::Error) -> Flaw {
        Flaw::Unreadable(Arc::new(error))
    }

    fn at(self, offset: u64) -> RecordingError {
        RecordingError { offset, flaw: self }
    }
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match &self.flaw {
            Flaw::NoRecording => f.write_str("this is no recording: it does not begin as one"),
            Flaw::Version(version) => write!(
                f,
                "this is a recording of version {version}, and version {VERSION} is all that can be \
                 read here"
            ),
            Flaw::Damaged => {
                write!(f, "the recording is damaged at byte {offset}; what stands before is right")
            }
            Flaw::CutShort { got, of } => write!(
                f,
                "the recording is cut short at byte {offset}: {got} of {of} bytes are there; what \
                 stands before is right"
            ),
            Flaw::Unreadable(error) => {
                write!(f, "the recording can't be read at byte {offset}: {error}")
            }
        }
    }
}

impl Error for RecordingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.flaw {
            Flaw::Unreadable(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<RecordingError> for io::Error {
    fn from(error: RecordingError) -> io::Error {
        let kind = match &error.flaw {
            Flaw::Unreadable(error) => error.kind(),
            Flaw::CutShort { .. } => io::ErrorKind::UnexpectedEof,
            Flaw::NoRecording | Flaw::Version(_) | Flaw::Damaged => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

fn head(began: SystemTime) -> [u8; HEAD] {
    let began = nanoseconds(began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..16].copy_from_slice(&VERSION.to_le_bytes());
    head[16..24].copy_from_slice(&began.to_le_bytes());
    let check = Record::hash(&head[..24]);
    head[24..].copy_from_slice(&check.to_le_bytes());
    head
}

fn encode(number: u64, entry: &Entry) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(&nanoseconds(entry.at).to_le_bytes());
    bytes[8..40].copy_from_slice(&entry.record.to_bytes());
    let check = check(number, &bytes);
    bytes[40..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// `None` when the check says that it is not what was written.
fn decode(number: u64, bytes: &[u8; ENTRY]) -> Option<Entry> {
    let [at, .., written]: [u64; ENTRY / 8] = numbers(bytes);
    if written != check(number, bytes) {
        return None;
    }
    let record = Record::from_bytes(bytes[8..40].first_chunk()?);
    Some(Entry { at: Duration::from_nanos(at), record })
}

fn check(number: u64, entry: &[u8; ENTRY]) -> u64 {
    Record::hash(&entry[..40]) ^ Record::hash(&number.to_le_bytes())
}

/// The numbers that the bytes are.
fn numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, eight) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = eight.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    }
    numbers
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads until `buffer` is full or there is no more, and says how much there was.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
