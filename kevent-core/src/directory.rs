//! Who gets which event.
//!
//! It has a lock of its own, which nobody holds while he does anything else: so whoever has the queue to
//! himself may subscribe meanwhile, and a subscription may be dropped anywhere.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::inbox::{self, Inbox};
use crate::stamped::Stamped;
use crate::token::Token;

/// What may be subscribed to. An event goes to the first of those that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// A key of the user's own.
    Key(u64),
    /// One registration of one source.
    Registration { source: Token, token: Token },
    /// Whatever comes from one source.
    Source(Token),
}

/// The inboxes of a router's subscriptions.
#[derive(Debug)]
pub(crate) struct Directory<E>(Mutex<Entries<E>>);

#[derive(Debug)]
struct Entries<E> {
    inboxes: HashMap<Topic, Arc<Inbox<E>>>,
    /// How many events a new inbox holds.
    capacity: NonZeroUsize,
    /// What lay in the inboxes of subscriptions that were dropped. New events are asked for only when
    /// this is empty: so it never holds more than those inboxes did.
    left: VecDeque<Stamped<E>>,
    /// No event will come any more.
    closed: bool,
    stats: RouterStats,
}

impl<E> Directory<E> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Directory<E> {
        Directory(Mutex::new(Entries {
            inboxes: HashMap::new(),
            capacity,
            left: VecDeque::new(),
            closed: false,
            stats: RouterStats::default(),
        }))
    }

    pub(crate) fn set_capacity(&self, capacity: NonZeroUsize) {
        self.lock().capacity = capacity;
    }

    /// An inbox for what is of `topic` from here on.
    pub(crate) fn subscribe(&self, topic: Topic) -> io::Result<Arc<Inbox<E>>> {
        let mut entries = self.lock();
        if entries.closed {
            return Err(nobody_drives());
        }
        if entries.inboxes.contains_key(&topic) {
            return Err(is_taken());
        }
        let inbox = Arc::new(Inbox::new(entries.capacity.get()));
        entries.inboxes.insert(topic, Arc::clone(&inbox));
        Ok(inbox)
    }

    /// What is of `topic` goes to nobody from here on. Says whether events are left in the inbox.
    pub(crate) fn unsubscribe(&self, topic: Topic) -> bool {
        let mut entries = self.lock();
        let Some(inbox) = entries.inboxes.remove(&topic) else { return false };
        let mut left = inbox.empty();
        entries.stats.left += left.len() as u64;
        entries.left.append(&mut left);
        !entries.left.is_empty()
    }

    /// Puts an event into its inbox, and says who is to be woken for it. It comes back if it has none,
    /// or one that is full.
    pub(crate) fn route(
        &self,
        event: Stamped<E>,
        key: Option<u64>,
    ) -> Result<Option<Waker>, Stamped<E>> {
        let mut entries = self.lock();
        let Entries { inboxes, stats, .. } = &mut *entries;
        let (source, token) = (event.source, event.token);
        let by_key = key.and_then(|key| inboxes.get(&Topic::Key(key)));
        let inbox = by_key
            .or_else(|| inboxes.get(&Topic::Registration { source, token }))
            .or_else(|| inboxes.get(&Topic::Source(source)));
        let Some(inbox) = inbox else {
            stats.unclaimed += 1;
            return Err(event);
        };
        let put = inbox.put(event);
        *(if put.is_ok() { &mut stats.routed } else { &mut stats.diverted }) += 1;
        put
    }

    /// An event of a subscription that was dropped.
    pub(crate) fn take_left(&self) -> Option<Stamped<E>> {
        self.lock().left.pop_front()
    }

    /// No event will come any more.
    pub(crate) fn close(&self) {
        let mut entries = self.lock();
        entries.closed = true;
        let inboxes = std::mem::take(&mut entries.inboxes);
        drop(entries);
        // A waker may do anything: never with the lock held.
        inbox::wake_each(inboxes.values().filter_map(|inbox| inbox.close()));
    }

    pub(crate) fn stats(&self) -> RouterStats {
        let entries = self.lock();
        RouterStats { subscriptions: entries.inboxes.len(), ..entries.stats }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<E>> {
        // A panic leaves nothing half done: there is none, but for want of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a [`Router`](crate::Router) counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterStats {
    /// Subscriptions that there are now.
    pub subscriptions: usize,
    /// Events that were put into the inbox of a subscription.
    pub routed: u64,
    /// Events that nobody had subscribed to.
    pub unclaimed: u64,
    /// Events that found their inbox full.
    pub diverted: u64,
    /// Events that lay in the inbox of a subscription when that was dropped. They are of the `routed`,
    /// too.
    pub left: u64,
}

fn is_taken() -> io::Error {
    let text = "there is a subscription to this already; drop it first, or hand it on";
    io::Error::new(io::ErrorKind::AlreadyExists, text)
}

fn nobody_drives() -> io::Error {
    let text =
        "the router is gone: no task would drive the queue; keep it, or a clone, and poll it";
    io::Error::new(io::ErrorKind::NotConnected, text)
}
