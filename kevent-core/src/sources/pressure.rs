//! Pressure on memory, processor and I/O, as events.
//!
//! The kernel measures how long tasks stall for want of each (PSI, pressure stall information). A
//! trigger is a threshold written into one of its files, which the kernel then compares by itself:
//! nothing is polled.
//!
//! Its poll handler forgets the news as soon as anybody has asked: `POLLPRI` is there once. A loop
//! around the queue asks by merely looking whether the queue is readable, and the queue would find
//! nothing. But the file is always readable, so an edge-triggered entry for that is told at each
//! wake-up, whoever asked before. See [`Pressure::ready`] for what to make of it.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::poll::{Interest, PollKey, PollSet, Ready, Trigger};
use crate::sink::Sink;
use crate::source::{Due, Source};
use crate::table::Table;
use crate::token::Token;
use crate::unsupported::unsupported;

/// What there may be too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Processor time.
    Cpu,
    /// Memory: tasks reclaim pages, or wait for some to be read back.
    Memory,
    /// Input and output of block devices.
    Io,
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
            Resource::Io => "io",
        }
    }
}

/// Whose stalls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stalled {
    /// Time in which at least one task stalled.
    Some,
    /// Time in which all that had something to do stalled: nothing got on. (Of the whole system,
    /// this is always zero for [`Resource::Cpu`].)
    Full,
}

/// How much pressure is an event: stalls of `threshold` in all within any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PressureLimit {
    /// What there may be too little of.
    pub resource: Resource,
    /// Whose stalls count.
    pub stall: Stalled,
    /// So much stalled time, in microseconds; more than none, and the window at most.
    pub threshold: Duration,
    /// Within that time, in microseconds: 500 ms to 10 s. Without `CAP_SYS_RESOURCE` it must be a
    /// multiple of 2 s.
    pub window: Duration,
}

/// A source of events when tasks stall for want of memory, processor or I/O: time to shed load,
/// before the kernel has to kill.
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{Pressure, PressureEvent, PressureLimit, Queue, Resource, Source, Stalled};
///
/// # fn main() -> std::io::Result<()> {
/// if let Err(error) = Pressure::probe() {
///     println!("{error}");
///     return Ok(());
/// }
/// let mut queue = Queue::new()?;
/// let pressure = queue.attach(Pressure::new(), |event: PressureEvent| event)?;
/// let limit = PressureLimit {
///     resource: Resource::Memory,
///     stall: Stalled::Some,
///     threshold: Duration::from_millis(200),
///     window: Duration::from_secs(2),
/// };
/// queue[pressure].watch(limit, 7)?;
///
/// queue.wait(Duration::from_millis(1))?;
/// if let Some(event) = queue.next() {
///     assert_eq!(event.key, 7);
///     println!("{:?}", event.levels);
/// }
/// # Ok(())
/// # }
/// ```
///
/// What may surprise:
///
/// - While the pressure lasts there is an event about every window, and never two in one. Its end
///   is no event: if none came for a window, it is over.
/// - A cgroup that is watched and removed says so, once: [`PressureEvent::gone`].
/// - In a queue whose descriptor is waited for elsewhere, a watch of a cgroup may also speak when
///   somebody else's trigger on the same file does. The kernel then does not tell which.
/// - Each watch takes one descriptor, and a moment of the kernel's to compare. Ending one waits for
///   the kernel to let go of it, which may take some milliseconds.
///
/// Linux 5.2 with `CONFIG_PSI`, and 6.4 for programs without `CAP_SYS_RESOURCE`.
///
/// Source: Documentation/accounting/psi.rst in the kernel.
#[derive(Default)]
pub struct Pressure {
    watches: Table<Watch>,
    /// Those that may have something, each once.
    ready: VecDeque<Token>,
    poll_set: Option<PollSet>,
}

struct Watch {
    key: u64,
    limit: PressureLimit,
    file: File,
    /// It is new in its set, whose first word on it says nothing.
    new: bool,
    /// It is among those that are ready.
    queued: bool,
    /// Its cgroup was removed.
    gone: bool,
    /// So many events of it are in the ring. The last one of a cgroup that is gone ends the watch.
    in_ring: usize,
}

impl Pressure {
    /// A source that watches nothing yet.
    #[must_use]
    pub fn new() -> Pressure {
        Pressure::default()
    }

    /// Watches the whole system. `key` comes back in the event.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a limit that can't be; the message says what can. `Unsupported` when the
    /// kernel does not measure pressure. `PermissionDenied` when it lets this program not ask. When
    /// the process may open no more descriptors.
    pub fn watch(&mut self, limit: PressureLimit, key: u64) -> io::Result<Token> {
        let path = PathBuf::from(format!("/proc/pressure/{}", limit.resource.name()));
        self.insert(&path, limit, key)
    }

    /// Watches the tasks of a cgroup (version 2), by its folder. `key` comes back in the event.
    ///
    /// # Errors
    ///
    /// As [`watch`](Pressure::watch); and `NotFound` when there is no such folder.
    pub fn watch_cgroup(
        &mut self,
        folder: impl AsRef<Path>,
        limit: PressureLimit,
        key: u64,
    ) -> io::Result<Token> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            let text = format!("there is no cgroup {}", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        self.insert(&folder.join(format!("{}.pressure", limit.resource.name())), limit, key)
    }

    /// Ends a watch. No event of it comes out any more, not even one that is in the ring. `false`
    /// when it has ended before.
    pub fn unwatch(&mut self, token: Token) -> bool {
        if self.watches.remove(token).is_none() {
            return false;
        }
        self.ready.retain(|ready| *ready != token);
        true
    }

    /// How many watches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether there is no watch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    fn insert(&mut self, path: &Path, limit: PressureLimit, key: u64) -> io::Result<Token> {
        let file = open(path, limit)?;
        let watch = Watch { key, limit, file, new: true, queued: false, gone: false, in_ring: 0 };
        self.watches.try_insert_with(|token| {
            self.poll_set.as_ref().map_or(Ok(()), |poll_set| watch.arm(poll_set, token))?;
            Ok(watch)
        })
    }

    /// Whether news was told to somebody else than the queue, perhaps.
    fn is_exported(&self) -> bool {
        self.poll_set.as_ref().is_some_and(|poll_set| poll_set.waker().is_exported())
    }
}

impl Watch {
    fn arm(&self, poll_set: &PollSet, token: Token) -> io::Result<()> {
        poll_set.add(
            self.file.as_fd(),
            token.into(),
            Interest::READABLE | Interest::PRIORITY,
            Trigger::Edge,
        )
    }

    fn event(&self, token: Token) -> PressureEvent {
        let Watch { key, limit, gone, .. } = *self;
        // Reading from a cgroup that is gone fails; nor is it worth an error elsewhere.
        PressureEvent { token, key, limit, gone, levels: PressureLevels::read(&self.file).ok() }
    }
}

impl Source for Pressure {
    type Item = PressureEvent;

    fn probe() -> io::Result<()> {
        let window = Duration::from_secs(2);
        let limit = PressureLimit {
            resource: Resource::Memory,
            stall: Stalled::Some,
            threshold: window,
            window,
        };
        Pressure::new().watch(limit, 0).map(drop)
    }

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        self.poll_set = Some(poll_set.clone());
        for (token, watch) in self.watches.iter() {
            watch.arm(poll_set, token)?;
        }
        Ok(())
    }

    /// Being readable means nothing; it is so always. With `PRIORITY` the trigger has fired.
    /// Without, this is the first word on a new entry, or the wake-up of another trigger on the
    /// file of a cgroup; or the news was told to a loop around the queue, and then it is to be
    /// believed.
    fn ready(&mut self, key: PollKey, ready: Ready) {
        let exported = self.is_exported();
        let Some(token) = self.watches.find(key) else { return };
        let Some(watch) = self.watches.get_mut(token) else { return };
        let new = std::mem::replace(&mut watch.new, false);
        if watch.gone || !ready.is_priority() && (new || !exported) {
            return;
        }
        watch.gone |= ready.is_error();
        if !watch.queued {
            watch.queued = true;
            self.ready.push_back(token);
        }
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.ready.is_empty() { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<PressureEvent>) -> io::Result<()> {
        while let Some(token) = self.ready.front().copied() {
            if let Some(watch) = self.watches.get_mut(token) {
                if sink.room() == 0 || sink.push(token, watch.event(token)).is_err() {
                    break;
                }
                watch.in_ring += 1;
                watch.queued = false;
            }
            self.ready.pop_front();
        }
        Ok(())
    }

    fn deliver(&mut self, token: Token) -> bool {
        let Some(watch) = self.watches.get_mut(token) else { return false };
        watch.in_ring = watch.in_ring.saturating_sub(1);
        if watch.gone && watch.in_ring == 0 && !watch.queued {
            self.watches.remove(token);
        }
        true
    }

    fn detach(&mut self) {
        self.poll_set = None;
        // The next set has a first word on each, too. That a cgroup is gone, it says again.
        let tokens: Vec<_> = self.watches.iter().map(|(token, _)| token).collect();
        for token in tokens {
            if let Some(watch) = self.watches.get_mut(token) {
                (watch.new, watch.gone, watch.in_ring) = (true, false, 0);
            }
        }
    }
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits: Vec<_> = self.watches.iter().map(|(_, watch)| watch.limit).collect();
        f.debug_struct("Pressure").field("limits", &limits).finish_non_exhaustive()
    }
}

/// Tasks have stalled as much as the limit says; or the cgroup is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PressureEvent {
    /// The watch.
    pub token: Token,
    /// What it was made under.
    pub key: u64,
    /// Its limit.
    pub limit: PressureLimit,
    /// The cgroup was removed, and with it the watch.
    pub gone: bool,
    /// How it was when the event went into the ring. `None` if the kernel did not say.
    pub levels: Option<PressureLevels>,
}

impl PressureEvent {
    /// One of no watch, for tests: see [`testing::Sim::inject`](crate::testing::Sim::inject). Nothing is
    /// known of the levels.
    #[must_use]
    pub fn for_test(key: u64, limit: PressureLimit) -> PressureEvent {
        PressureEvent { token: Token::SOLE, key, limit, gone: false, levels: None }
    }
}

/// How much tasks have stalled lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PressureLevels {
    /// Time in which at least one task stalled.
    pub some: PressureLevel,
    /// Time in which all that had something to do stalled.
    pub full: PressureLevel,
}

/// A share of time, in percent, as averages that follow the last 10, 60 and 300 seconds; the kernel
/// renews them every 2 s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PressureLevel {
    /// Percent of the last 10 s.
    pub avg10: f32,
    /// Percent of the last 60 s.
    pub avg60: f32,
    /// Percent of the last 300 s.
    pub avg300: f32,
    /// All there was since the system started, or the cgroup was made. In microseconds.
    pub total: Duration,
}

impl PressureLevels {
    /// The levels of the whole system, now.
    ///
    /// # Errors
    ///
    /// `Unsupported` when the kernel does not measure pressure.
    pub fn of_system(resource: Resource) -> io::Result<PressureLevels> {
        let path = PathBuf::from(format!("/proc/pressure/{}", resource.name()));
        File::open(&path).and_then(|file| Self::read(&file)).map_err(|error| explain(error, &path))
    }

    fn read(file: &File) -> io::Result<PressureLevels> {
        // Two lines of 80 characters at most.
        let mut text = [0; 512];
        let got = file.read_at(&mut text, 0)?;
        Ok(PressureLevels::parse(&String::from_utf8_lossy(&text[..got])))
    }

    /// Takes what it understands. A line that is not there is zero, as `full` of cpu in some
    /// kernels.
    fn parse(text: &str) -> PressureLevels {
        let mut levels = PressureLevels::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let level = match words.next() {
                Some("some") => &mut levels.some,
                Some("full") => &mut levels.full,
                _ => continue,
            };
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                match name {
                    "avg10" => level.avg10 = value.parse().unwrap_or_default(),
                    "avg60" => level.avg60 = value.parse().unwrap_or_default(),
                    "avg300" => level.avg300 = value.parse().unwrap_or_default(),
                    "total" => {
                        level.total = Duration::from_micros(value.parse().unwrap_or_default());
                    }
                    _ => {}
                }
            }
        }
        levels
    }
}

impl PressureLimit {
    /// As the kernel reads it.
    fn command(&self) -> io::Result<String> {
        let PressureLimit { stall, threshold, window, .. } = *self;
        if !(Duration::from_millis(500)..=Duration::from_secs(10)).contains(&window) {
            let text = format!("a window is 500 ms to 10 s, not {window:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if threshold.as_micros() == 0 || threshold > window {
            let text = format!("a threshold is 1 us to {window:?}, its window, not {threshold:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let stall = match stall {
            Stalled::Some => "some",
            Stalled::Full => "full",
        };
        Ok(format!("{stall} {} {}\0", threshold.as_micros(), window.as_micros()))
    }
}

/// Opens one of the kernel's files and sets its trigger. It takes one for each time that it is
/// opened.
fn open(path: &Path, limit: PressureLimit) -> io::Result<File> {
    let command = limit.command()?;
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = opened.map_err(|error| explain(error, path))?;
    file.write_all(command.as_bytes()).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => {
            let text = format!(
                "the kernel takes no window of {:?} from this program: without CAP_SYS_RESOURCE it is a \
                 multiple of 2 s",
                limit.window
            );
            io::Error::new(io::ErrorKind::InvalidInput, text)
        }
        _ => explain(error, path),
    })?;
    Ok(file)
}

fn explain(error: io::Error, path: &Path) -> io::Error {
    let path = path.display();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP) => unsupported(
            "watching pressure",
            &format!(
                "{path}: Linux 5.2 with CONFIG_PSI, started with psi=1 where it is off by default; for \
                 cgroups, version 2 of them"
            ),
        ),
        Some(libc::EPERM | libc::EACCES | libc::EROFS) => {
            let text = format!(
                "{path} can't be written: before Linux 6.4 that takes CAP_SYS_RESOURCE, and in a \
                 container a file that is not read-only"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(threshold: Duration, window: Duration) -> PressureLimit {
        PressureLimit { resource: Resource::Io, stall: Stalled::Full, threshold, window }
    }

    #[test]
    fn limit_is_written_in_microseconds() {
        let limit = limit(Duration::from_micros(1_500), Duration::from_secs(2));
        assert_eq!(limit.command().unwrap(), "full 1500 2000000\0");
    }

    #[test]
    fn limits_that_can_not_be_are_refused_with_what_can() {
        let second = Duration::from_secs(1);
        for (threshold, window, says) in [
            (second, Duration::from_millis(499), "500 ms to 10 s"),
            (second, Duration::from_micros(10_000_001), "500 ms to 10 s"),
            (Duration::from_nanos(999), second, "1 us to 1s"),
            (second + Duration::from_micros(1), second, "1 us to 1s"),
        ] {
            let error = limit(threshold, window).command().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn levels_are_read_as_the_kernel_writes_them() {
        let levels = PressureLevels::parse(
            "some avg10=0.91 avg60=100.00 avg300=2.84 total=4575098705\n\
             full avg10=0.00 avg60=0.50 avg300=0.00 total=7\n",
        );
        assert_eq!((levels.some.avg10, levels.some.avg60, levels.some.avg300), (0.91, 100.0, 2.84));
        assert_eq!(levels.some.total, Duration::from_micros(4_575_098_705));
        assert_eq!((levels.full.avg60, levels.full.total), (0.5, Duration::from_micros(7)));
        assert_eq!(PressureLevels::parse("some avg10=x\nnone\n\u{0}"), PressureLevels::default());
    }

    #[test]
    fn what_the_kernel_lacks_is_unsupported_and_what_it_forbids_is_denied() {
        let of = |errno| explain(io::Error::from_raw_os_error(errno), Path::new("/p")).kind();
        for errno in [libc::ENOENT, libc::EOPNOTSUPP] {
            assert_eq!(of(errno), io::ErrorKind::Unsupported);
        }
        for errno in [libc::EPERM, libc::EACCES, libc::EROFS] {
            assert_eq!(of(errno), io::ErrorKind::PermissionDenied);
        }
        let error = explain(io::Error::from_raw_os_error(libc::EMFILE), Path::new("/p"));
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    }
}
