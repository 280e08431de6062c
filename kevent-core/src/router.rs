//! Many tasks on one queue.
//!
//! One task drives the queue: it takes out what there is, and puts each event into the inbox of whoever
//! subscribed to it. What belongs to nobody it keeps. So there is no event that has no place to go, and
//! none lies in a place where nobody looks: as long as no task drives, all stay in the queue, and
//! behind it at their sources and in the kernel.
//!
//! Locks, in the order in which they are taken: the queue's, held by the driver for a turn and by the user
//! for a [`RoutesGuard`]; the directory's; an inbox's. Nothing of the user's runs under the last two. The
//! drivers' stands alone. Tasks are woken when all are released.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_core::stream::{FusedStream, Stream};

use crate::budget::Budget;
use crate::directory::{Directory, RouterStats, Topic};
use crate::drivers::Drivers;
use crate::inbox::{self, Inbox};
use crate::queue::Queue;
use crate::source_id::SourceId;
use crate::stamped::Stamped;
use crate::stream::PollEvents;
use crate::token::Token;

/// Events that an inbox holds, unless said otherwise.
const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Hands the events of one queue to many tasks, each its own, and is the stream of those that are
/// nobody's.
///
/// Tasks subscribe by [`Routes`], which are cloned freely, and await their events from a
/// [`Subscription`]. *One task has to poll the router*, by [`next`](Router::next) or as a [`Stream`]: that
/// drives the queue. Each task gets its events in the order in which they came, and is woken once for what
/// there is, however many events that is.
///
/// What nobody subscribed to comes out of the router itself, as do
///
/// - events that found the inbox of their subscription full, because its task does not keep up: the
///   others do not wait for it, and it learns of the gap by [`Subscription::diverted`];
/// - events that lay in the inbox of a subscription when that was dropped;
/// - errors of the queue, each of which concerns one source: see [`Queue::wait`].
///
/// A router that is not polled holds everything up, and loses nothing: events stay in the queue, at
/// their sources and in the kernel.
///
/// Clones are further drivers, that stand by: when the one that drives returns to its task with an event,
/// or is dropped, the next goes on. Once it was polled, a clone is to be polled whenever its task is
/// woken, or dropped. When the last of them is, the subscriptions hand out what they have, and end.
///
/// The queue may be in an [`EventStream`](crate::EventStream), for any executor and for
/// [`block_on`](crate::block_on), or in an `AsyncQueue`, for tokio.
///
/// ```
/// use std::pin::pin;
/// use std::time::Duration;
/// use futures::future::{join, select};
/// use kevent_core::{Queue, Router, Timers, UserEvents, block_on};
///
/// let mut queue = Queue::new()?;
/// let timers = queue.attach(Timers::new(), |tick| tick.key)?;
/// let (users, poster) = UserEvents::new();
/// queue.attach(users, |n: u64| n)?;
///
/// block_on(queue, |events| async move {
///     let mut router = Router::new(events);
///     let routes = router.routes();
///     // Tasks of their own, in a program that has some.
///     let task = async |key| {
///         let mut ticks = {
///             let mut queue = routes.lock();
///             let token = queue[timers].after(Duration::from_millis(1), key);
///             routes.subscribe(timers, token)?
///         };
///         let tick = ticks.next().await.expect("the router is there");
///         assert_eq!(tick.event, key, "each gets its own");
///         std::io::Result::Ok(())
///     };
///     let tasks = pin!(join(task(1), task(2)));
///     let rest = pin!(async {
///         loop {
///             let event = router.next().await.expect("no source fails");
///             assert_eq!(event.event, 3, "nobody subscribed to posts");
///         }
///     });
///     poster.post(3).expect("there is room");
///     select(tasks, rest).await;
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct Router<Q: PollEvents> {
    hub: Arc<Hub<Q>>,
    /// Among the drivers.
    id: u64,
}

struct Hub<Q: PollEvents> {
    core: Mutex<Core<Q>>,
    /// The number of the queue.
    queue: u64,
    directory: Arc<Directory<Q::Event>>,
    drivers: Arc<Drivers>,
}

/// What only one has at a time.
struct Core<Q: PollEvents> {
    events: Q,
    key_of: Option<KeyOf<Q::Event>>,
}

type KeyOf<E> = Box<dyn FnMut(&Stamped<E>) -> Option<u64> + Send>;

impl<Q: PollEvents> Router<Q> {
    /// Routes the events of a queue.
    #[must_use]
    pub fn new(events: Q) -> Router<Q> {
        let drivers = Arc::new(Drivers::default());
        let id = drivers.join();
        let queue = events.harvest.number;
        let core = Mutex::new(Core { events, key_of: None });
        let directory = Arc::new(Directory::new(DEFAULT_CAPACITY));
        Router { hub: Arc::new(Hub { core, queue, directory, drivers }), id }
    }

    /// Gives events keys, to [subscribe](Routes::subscribe_key) by. The function is called for each, with
    /// the queue locked.
    #[must_use]
    pub fn key_by(
        self,
        key_of: impl FnMut(&Stamped<Q::Event>) -> Option<u64> + Send + 'static,
    ) -> Router<Q> {
        self.hub.core().key_of = Some(Box::new(key_of));
        self
    }

    /// How many events the inbox of each subscription holds from now on: 1,024 unless said otherwise.
    /// An inbox takes memory for what lies in it.
    #[must_use]
    pub fn inboxes(self, capacity: NonZeroUsize) -> Router<Q> {
        self.hub.directory.set_capacity(capacity);
        self
    }

    /// For the tasks: to subscribe, and to reach the queue.
    #[must_use]
    pub fn routes(&self) -> Routes<Q> {
        Routes(Arc::clone(&self.hub))
    }

    /// Drives the queue until there is an event that is nobody's. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Queue::wait`].
    pub async fn next(&mut self) -> io::Result<Stamped<Q::Event>> {
        poll_fn(|cx| self.poll_drive(cx)).await
    }

    fn poll_drive(&mut self, cx: &Context<'_>) -> Poll<io::Result<Stamped<Q::Event>>> {
        // Both are dropped after the lock: they run what is not ours.
        let _waker_before;
        let mut wakes = Wakes::default();
        let mut core = self.hub.core();
        _waker_before = self.hub.drivers.begin(self.id);
        let driven = self.hub.drive(&mut core, &mut wakes);
        if driven.is_pending() {
            wakes.tasks.extend(self.hub.drivers.stand_by(self.id, cx.waker().clone()));
        } else {
            wakes.next_driver = Some(Arc::clone(&self.hub.drivers));
        }
        driven
    }
}

impl<Q: PollEvents> Hub<Q> {
    fn core(&self) -> MutexGuard<'_, Core<Q>> {
        // A panic in a function that makes an event of an item, or a key of an event, can lose that one,
        // and no more.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts events into their inboxes until there is one without, or no more for now.
    fn drive(&self, core: &mut Core<Q>, wakes: &mut Wakes) -> Poll<io::Result<Stamped<Q::Event>>> {
        if let Some(event) = self.directory.take_left() {
            return Poll::Ready(Ok(event));
        }
        let waker = Waker::from(Arc::clone(&self.drivers));
        loop {
            let event = ready!(core.events.poll_stamped(&mut Context::from_waker(&waker)))?;
            let key = core.key_of.as_mut().and_then(|key_of| key_of(&event));
            match self.directory.route(event, key) {
                Ok(waker) => wakes.tasks.extend(waker),
                Err(event) => return Poll::Ready(Ok(event)),
            }
        }
    }
}

/// Those who are to be woken when the turn is over, however it ends.
#[derive(Default)]
struct Wakes {
    tasks: Vec<Waker>,
    next_driver: Option<Arc<Drivers>>,
}

impl Drop for Wakes {
    fn drop(&mut self) {
        inbox::wake_each(self.tasks.drain(..));
        if let Some(drivers) = &self.next_driver {
            drivers.call();
        }
    }
}

/// Never ends. An error concerns one source, and the stream goes on: see [`Queue::wait`].
impl<Q: PollEvents> Stream for Router<Q> {
    type Item = io::Result<Stamped<Q::Event>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_drive(cx).map(Some)
    }
}

impl<Q: PollEvents> FusedStream for Router<Q> {
    fn is_terminated(&self) -> bool {
        false
    }
}

/// Another driver, that stands by.
impl<Q: PollEvents> Clone for Router<Q> {
    fn clone(&self) -> Self {
        Router { hub: Arc::clone(&self.hub), id: self.hub.drivers.join() }
    }
}

impl<Q: PollEvents> Drop for Router<Q> {
    fn drop(&mut self) {
        if self.hub.drivers.leave(self.id) {
            self.hub.directory.close();
        }
    }
}

impl<Q: PollEvents> fmt::Debug for Router<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("stats", &self.hub.directory.stats()).finish_non_exhaustive()
    }
}

/// The way of tasks to a [`Router`] and its queue. Clones are of the same router.
pub struct Routes<Q: PollEvents>(Arc<Hub<Q>>);

impl<Q: PollEvents> Routes<Q> {
    /// The queue, to register and to remove, or to look at. As long as the guard lives no event is
    /// routed: who registers something and subscribes to it meanwhile misses nothing.
    ///
    /// The driver, and others who want the queue, wait for the guard to be dropped. So take nothing out,
    /// and don't wait with it.
    #[must_use]
    pub fn lock(&self) -> RoutesGuard<'_, Q> {
        RoutesGuard(self.0.core())
    }

    /// Subscribes to the events of one registration of a source. To drop the subscription does not remove
    /// the registration, nor does the subscription end when the registration is removed.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when somebody did; `NotConnected` when no [`Router`] is left that would drive the
    /// queue; `InvalidInput` when the source is another queue's.
    pub fn subscribe<S>(
        &self,
        source: SourceId<S>,
        token: Token,
    ) -> io::Result<Subscription<Q::Event>> {
        self.subscribe_to(Topic::Registration { source: self.own(source)?, token })
    }

    /// Subscribes to what comes from a source, but for those of its registrations that have a
    /// subscription of their own.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Routes::subscribe).
    pub fn subscribe_source<S>(&self, source: SourceId<S>) -> io::Result<Subscription<Q::Event>> {
        self.subscribe_to(Topic::Source(self.own(source)?))
    }

    /// Subscribes to the events to which [`Router::key_by`] gives that key, whatever their source.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Routes::subscribe).
    pub fn subscribe_key(&self, key: u64) -> io::Result<Subscription<Q::Event>> {
        self.subscribe_to(Topic::Key(key))
    }

    /// The token of a source, which is unique in its queue only.
    fn own<S>(&self, source: SourceId<S>) -> io::Result<Token> {
        if source.queue() == self.0.queue { Ok(source.token()) } else { Err(another_queue()) }
    }

    fn subscribe_to(&self, topic: Topic) -> io::Result<Subscription<Q::Event>> {
        Ok(Subscription {
            inbox: self.0.directory.subscribe(topic)?,
            topic,
            directory: Arc::clone(&self.0.directory),
            drivers: Arc::clone(&self.0.drivers),
            budget: Budget::new(),
            ended: false,
        })
    }

    /// What the router counted.
    #[must_use]
    pub fn stats(&self) -> RouterStats {
        self.0.directory.stats()
    }
}

impl<Q: PollEvents> Clone for Routes<Q> {
    fn clone(&self) -> Self {
        Routes(Arc::clone(&self.0))
    }
}

impl<Q: PollEvents> fmt::Debug for Routes<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The queue of a [`Router`] while one has it for himself: see [`Routes::lock`].
pub struct RoutesGuard<'r, Q: PollEvents>(MutexGuard<'r, Core<Q>>);

impl<Q: PollEvents> Deref for RoutesGuard<'_, Q> {
    type Target = Queue<Q::Event>;

    fn deref(&self) -> &Queue<Q::Event> {
        &self.0.events
    }
}

impl<Q: PollEvents> DerefMut for RoutesGuard<'_, Q> {
    fn deref_mut(&mut self) -> &mut Queue<Q::Event> {
        &mut self.0.events
    }
}

impl<Q: PollEvents> fmt::Debug for RoutesGuard<'_, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoutesGuard").field(&**self).finish()
    }
}

/// The events of one registration, one source or one key, for one task: see [`Routes::subscribe`].
///
/// When it is dropped, the events that it has not handed out, and those that come later, go to the
/// [`Router`].
pub struct Subscription<E> {
    inbox: Arc<Inbox<E>>,
    topic: Topic,
    directory: Arc<Directory<E>>,
    drivers: Arc<Drivers>,
    budget: Budget,
    /// It has said so.
    ended: bool,
}

impl<E> Subscription<E> {
    /// The next event, with what the queue knows of it. Cancel safe. `None` when the router is gone: no
    /// more will come.
    ///
    /// A task that takes one event after the other lets others run now and then, also when there is
    /// always one.
    pub async fn next(&mut self) -> Option<Stamped<E>> {
        poll_fn(|cx| self.poll_take(cx)).await
    }

    /// How many events wait here for the task.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inbox.len()
    }

    /// Whether no event waits here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of its events found its [inbox](Router::inboxes) full, and went to the [`Router`] instead.
    #[must_use]
    pub fn diverted(&self) -> u64 {
        self.inbox.diverted()
    }

    fn poll_take(&mut self, cx: &Context<'_>) -> Poll<Option<Stamped<E>>> {
        ready!(self.budget.take(cx));
        let polled = self.inbox.poll_take(cx);
        match &polled {
            Poll::Pending => self.budget.refill(),
            Poll::Ready(event) => self.ended = event.is_none(),
        }
        polled
    }
}

impl<E> Stream for Subscription<E> {
    type Item = Stamped<E>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Stamped<E>>> {
        self.get_mut().poll_take(cx)
    }
}

impl<E> FusedStream for Subscription<E> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl<E> Drop for Subscription<E> {
    fn drop(&mut self) {
        if self.directory.unsubscribe(self.topic) {
            self.drivers.call();
        }
    }
}

impl<E> fmt::Debug for Subscription<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.topic)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

fn another_queue() -> io::Error {
    let text = "that source is attached to another queue; subscribe at that one's router";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
