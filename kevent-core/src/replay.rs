//! A recording as a source.

use std::fmt;
use std::io::{self, Read};
use std::time::Instant;

use crate::poll::PollSet;
use crate::record::Record;
use crate::recording::{Entry, Recording, RecordingError};
use crate::sink::Sink;
use crate::source::{Due, Source};
use crate::token::Token;

/// A source that tells what a [`Recorder`](crate::Recorder) wrote: in the same order, with the same
/// numbers, and as long after it was attached as the recording says.
///
/// In a [simulated](crate::testing::Sim) queue the times are those of the recording, to the nanosecond, and
/// a recorded day takes a moment.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::testing::Sim;
/// use kevent_core::{Queue, Record, Recorder, Replay};
///
/// // An hour that somebody has recorded.
/// let sim = Sim::new(1);
/// let mut queue: Queue<Record> = sim.queue()?;
/// let mut recorder = Recorder::new(Vec::new(), queue.clock())?;
/// sim.advance(Duration::from_secs(3600));
/// queue.wait(Duration::ZERO)?;
/// queue.post(Record::own(Record::OWN, 1, 5)).unwrap();
/// recorder.record(&queue.next_stamped().unwrap())?;
/// let file = std::io::Cursor::new(recorder.into_inner());
///
/// // And once more.
/// let sim = Sim::new(2);
/// let mut queue = sim.queue()?;
/// queue.attach(Replay::new(file)?, |record| record)?;
/// queue.wait(None)?;
/// assert_eq!(queue.next().unwrap().data, 5);
/// assert_eq!(sim.elapsed(), Duration::from_secs(3600));
/// # std::io::Result::Ok(())
/// ```
///
/// The reader is read on the queue's thread, an entry at a time: give it a file in a
/// [`BufReader`](io::BufReader), not a pipe.
///
/// If the recording is damaged or cut short, everything before that comes out. Once it has, the queue's
/// wait is an error that says where the flaw is.
pub struct Replay<R> {
    recording: Recording<R>,
    next: Next,
    at_once: bool,
    /// When it was attached first.
    begun: Option<Instant>,
    poll_set: Option<PollSet>,
    /// Told, and not taken out yet.
    undelivered: usize,
}

/// What comes next in the recording.
enum Next {
    Entry(Entry),
    Flaw(RecordingError),
    End,
}

impl<R: Read> Replay<R> {
    /// A source that tells the recording in `reader`.
    ///
    /// # Errors
    ///
    /// When that is none, or of a version that this one does not know.
    pub fn new(reader: R) -> Result<Replay<R>, RecordingError> {
        let mut recording = Recording::new(reader)?;
        let next = Next::read(&mut recording);
        let (begun, poll_set) = (None, None);
        Ok(Replay { recording, next, at_once: false, begun, poll_set, undelivered: 0 })
    }

    /// Tells everything as fast as it is taken out, whatever the times were.
    #[must_use]
    pub fn at_once(self) -> Replay<R> {
        Replay { at_once: true, ..self }
    }

    /// The recording: when it was begun.
    #[must_use]
    pub fn recording(&self) -> &Recording<R> {
        &self.recording
    }

    /// Whether everything was told and taken out, and the recording was without a flaw.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.next, Next::End) && self.undelivered == 0
    }

    /// When the next entry is due; `None` for now.
    fn due(&self, entry: &Entry) -> Option<Instant> {
        let at = self.begun?.checked_add(entry.at)?;
        let now = self.poll_set.as_ref()?.clock().turn();
        (!self.at_once && at > now).then_some(at)
    }
}

impl Next {
    fn read<R: Read>(recording: &mut Recording<R>) -> Next {
        match recording.next() {
            Some(Ok(entry)) => Next::Entry(entry),
            Some(Err(flaw)) => Next::Flaw(flaw),
            None => Next::End,
        }
    }
}

impl<R: Read + Send + 'static> Source for Replay<R> {
    type Item = Record;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.begun.get_or_insert_with(|| poll_set.clock().now());
        self.poll_set = Some(poll_set.clone());
        self.undelivered = 0;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<Due> {
        match &self.next {
            Next::Entry(entry) => Ok(self.due(entry).map_or(Due::Now, Due::At)),
            Next::Flaw(flaw) if self.undelivered == 0 => Err(flaw.clone().into()),
            Next::Flaw(_) | Next::End => Ok(Due::OnWake),
        }
    }

    fn drain(&mut self, sink: &mut impl Sink<Record>) -> io::Result<()> {
        while let Next::Entry(entry) = &self.next {
            if self.due(entry).is_some() || sink.push(Token::SOLE, entry.record).is_err() {
                break;
            }
            self.undelivered += 1;
            self.next = Next::read(&mut self.recording);
        }
        Ok(())
    }

    fn deliver(&mut self, _: Token) -> bool {
        self.undelivered = self.undelivered.saturating_sub(1);
        true
    }

    fn detach(&mut self) {
        self.poll_set = None;
    }
}

impl<R> fmt::Debug for Replay<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("undelivered", &self.undelivered).finish_non_exhaustive()
    }
}
