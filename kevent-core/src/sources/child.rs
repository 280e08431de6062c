//! A queue in a queue.
//!
//! The inner queue's own descriptor is all that the outer one waits for. It is readable when
//! something is there and at the inner sources' next deadline, so neither queue has to know how the
//! other sleeps.

use std::fmt;
use std::io;
use std::ops::{Index, IndexMut};
use std::os::fd::AsFd;

use crate::poll::{Interest, PollKey, PollSet, Trigger};
use crate::queue::Queue;
use crate::ring::Taken;
use crate::sink::{Full, Sink};
use crate::source::{Due, Source};
use crate::source_id::SourceId;
use crate::table::Table;
use crate::token::Token;
use crate::wait::Wait;

/// A source of the events of another queue: a group of sources as one.
///
/// The child's sources are reached through it by index, and its methods by
/// [`queue_mut`](ChildQueue::queue_mut).
///
/// ```
/// use std::time::Duration;
/// use kevent_core::{ChildQueue, Queue, TimerEvent, Timers, UserEvents};
///
/// enum Session {
///     Timeout(TimerEvent),
///     Message(&'static str),
/// }
///
/// let mut session = Queue::new()?;
/// let timers = session.attach(Timers::new(), Session::Timeout)?;
/// let (messages, poster) = UserEvents::new();
/// session.attach(messages, Session::Message)?;
///
/// let mut queue = Queue::new()?;
/// let child = queue.attach(ChildQueue::new(session), |event| event)?;
/// queue[child][timers].after(Duration::from_secs(20), 1);
/// poster.post("hello").unwrap();
///
/// queue.wait(None)?;
/// assert!(matches!(queue.next(), Some(Session::Message("hello"))));
/// # std::io::Result::Ok(())
/// ```
///
/// What may surprise:
///
/// - The sources of the child share what the child is given. One turn moves at most as many events
///   as the child's ring holds, however much its sources flood, so its capacity is the whole
///   group's share; among themselves they take turns as in any queue. While the outer ring is full
///   the child's own goes on to fill.
/// - An event is confirmed when the outer queue delivers it, and by the child's source: a
///   registration that is removed while its event is in the outer ring takes it back as anywhere
///   else.
/// - Sequence is kept within the child; [`Queue::next`] on the child itself takes events that then
///   do not come out of the outer queue.
/// - Each batch that the child had waiting costs a `write(2)` and each new deadline a
///   `timerfd_settime(2)`: see [`Queue`] on its descriptor. A child never sleeps, so its
///   [`Idle`](crate::Idle) never speaks: attach that to the outer queue.
/// - Queues nest five deep, another loop around the outermost included. That is what epoll(7)
///   allows.
pub struct ChildQueue<E> {
    queue: Queue<E>,
    /// What was moved into the outer ring, under the token it has there: which source of the child,
    /// and which of that source's registrations, is to confirm it.
    moved: Table<(Token, Token)>,
}

impl<E: Send + 'static> ChildQueue<E> {
    /// A source of what comes out of `queue`, which may have any number of sources, before and
    /// later.
    #[must_use]
    pub fn new(queue: Queue<E>) -> ChildQueue<E> {
        ChildQueue { queue, moved: Table::new() }
    }

    /// The child, to look at.
    #[must_use]
    pub fn queue(&self) -> &Queue<E> {
        &self.queue
    }

    /// The child, to attach sources to it and to detach them.
    #[must_use]
    pub fn queue_mut(&mut self) -> &mut Queue<E> {
        &mut self.queue
    }

    /// The queue again, for itself. What [`Queue::detach`] says holds for events that the outer
    /// ring had: they are lost, and to the child's sources they were handed out.
    #[must_use]
    pub fn into_inner(self) -> Queue<E> {
        self.queue
    }

    /// Moves what is in the child's ring.
    fn move_events(&mut self, sink: &mut impl Sink<E>) {
        while sink.room() > 0 {
            let Some(taken) = self.queue.take_unconfirmed() else { return };
            let Taken { source, token, event, seen, sequence } = taken;
            let moved = self.moved.insert((source, token));
            if let Err(Full(event)) = sink.push(moved, event) {
                self.moved.remove(moved);
                return self.queue.put_back(Taken { source, token, event, seen, sequence });
            }
        }
    }
}

impl<E: Send + 'static> Source for ChildQueue<E> {
    type Item = E;

    fn attach(&mut self, poll_set: &PollSet) -> io::Result<()> {
        let fd = self.queue.as_fd();
        let added = poll_set.add(fd, PollKey::default(), Interest::READABLE, Trigger::Level);
        added.map_err(|error| {
            if error.raw_os_error() != Some(libc::ELOOP) {
                return error;
            }
            let text =
                "queues nest five deep (EP_MAX_NESTS in epoll_ctl(2)): attach this one higher up";
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    fn flush(&mut self) -> io::Result<Due> {
        Ok(if self.queue.is_empty() { Due::OnWake } else { Due::Now })
    }

    fn drain(&mut self, sink: &mut impl Sink<E>) -> io::Result<()> {
        // What was left in the ring first. The look that left it has left the descriptor readable,
        // too, so the next turn is a look again.
        let looked =
            if self.queue.is_empty() { self.queue.wait(Wait::poll()).map(drop) } else { Ok(()) };
        // A source that fails does not keep back what the others had.
        self.move_events(sink);
        looked
    }

    fn deliver(&mut self, token: Token) -> bool {
        let moved = self.moved.remove(token);
        moved.is_some_and(|(source, token)| self.queue.confirm(source, token))
    }

    fn detach(&mut self) {
        // The ring that they are in is out of reach now. Their sources go on as if they had been taken:
        // they count what lies in a ring.
        for (source, token) in self.moved.drain() {
            self.queue.confirm(source, token);
        }
    }
}

/// The child's sources, as [`Queue`] has them by index.
impl<E: 'static, S: Source> Index<SourceId<S>> for ChildQueue<E> {
    type Output = S;

    fn index(&self, id: SourceId<S>) -> &S {
        &self.queue[id]
    }
}

impl<E: 'static, S: Source> IndexMut<SourceId<S>> for ChildQueue<E> {
    fn index_mut(&mut self, id: SourceId<S>) -> &mut S {
        &mut self.queue[id]
    }
}

impl<E> fmt::Debug for ChildQueue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildQueue")
            .field("queue", &self.queue)
            .field("moved", &self.moved.len())
            .finish_non_exhaustive()
    }
}
