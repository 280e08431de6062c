//! A bounded mailbox into which any number of threads post and from which one takes.
//!
//! A poster takes a ticket, which is its place in the order of all posts, writes its item into the
//! slot of that ticket, and then publishes the slot. Nobody waits for anybody: a poster that stops
//! between ticket and publication hides the posts that came after its own, until it goes on, and
//! delays nobody else. The taking side stops before such a slot. It does not wait for it either: it
//! *awaits* it, which is to leave a mark in the slot, and the poster that publishes a marked slot is
//! told so ([`Posted::Awaited`]) and wakes it.
//!
//! # No wake-up is lost
//!
//! Mark and publication are read-modify-writes of one word, so one of them comes first. Is it the
//! publication, then the mark fails and the taking side sees the item; is it the mark, then the
//! poster is told, and sees all that the taking side wrote before (that it is asleep). This takes no
//! fence, and no look at a word that all posters and the taking side share.
//!
//! # Memory
//!
//! Slots come in blocks of `B`, and `places` says where the block of a ticket is. A block is taken
//! when the first ticket in it is about to be given out, and leaves its place when its last item was
//! taken; then it becomes the next block, or the spare one, or is freed. So a mailbox takes memory
//! as it fills, and one that is never full goes on in the same few cache lines.
//!
//! A slot that is published is a cache line that moves from one processor to another, and that is most of
//! what a post costs. So a slot is as small as can be, and what few want to know of an item, when it was
//! posted, lies elsewhere: in blocks of stamps that are never there if nobody asks.
//!
//! # Safety
//!
//! 1. *A ticket is given to one poster.* It is the old value of `tail`, changed by compare-exchange.
//! 2. *A slot belongs to the poster of its ticket until it is published, and to the taking side from
//!    then on*, until its block is in a place again. There is one taking side: [`Inbox`] is not
//!    `Clone` and takes by `&mut`. `state` names the ticket, so what an earlier tenant of the slot
//!    left there means nothing; a slot that was given up ([`abandoned`]) stays its poster's.
//! 3. *A block stays while a ticket of it is out.* It leaves its place when all its slots were
//!    published and taken, and the publication is the last that a poster does with a slot that is
//!    not abandoned. Abandoned ones are in blocks that stay until the mailbox itself is dropped.
//! 4. *A place holds the block of the ticket that is about to be given out, or none.* The block that
//!    was there before has tickets below `t - (places.len() - 1) * B` only, where `t` is the ticket.
//!    As `(places.len() - 1) * B` is not below the capacity, and `t` is given out only below `taken` and
//!    the capacity, these are below `taken`: that block was out of its place before `taken` said so. A
//!    poster with a stale ticket may put a fresh block there: any block serves, and the
//!    compare-exchange that would give it the ticket fails.

#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64 as Stamp;

use crate::sync::{Arc, AtomicPtr, AtomicU64, Ordering, UnsafeCell};

/// Slots in a block, unless a test wants to see the ends of more of them. For loom each is an object of
/// its own that it follows, so there are two.
const BLOCK: usize = if cfg!(kevent_loom) { 2 } else { 64 };

/// So that the places of all blocks take 4 MiB at most.
const MAX_CAPACITY: usize = 1 << 24;

/// In the word of tickets: nothing is taken any more. The ticket itself is above it.
const CLOSED: u64 = 1;
const TICKET: u64 = 2;

/// What the slot of a ticket is. At a billion posts in a second tickets last for a century, so none
/// is ever given out twice.
const fn awaited(ticket: u64) -> u64 {
    ticket << 2 | 1
}

const fn published(ticket: u64) -> u64 {
    ticket << 2 | 2
}

const fn abandoned(ticket: u64) -> u64 {
    ticket << 2 | 3
}

struct Slot<T> {
    /// One of the three above for the ticket whose turn it is; anything else is an empty slot.
    state: AtomicU64,
    item: UnsafeCell<MaybeUninit<T>>,
}

type Block<T, const B: usize> = [Slot<T>; B];

/// Keeps what it holds from sharing a cache line with anything else. Two lines, because processors
/// fetch them in pairs.
#[repr(align(128))]
struct Apart<T>(T);

/// Where items are posted.
pub(crate) struct Mailbox<T, const B: usize = BLOCK> {
    places: Box<[AtomicPtr<Block<T, B>>]>,
    capacity: u64,
    posters: Apart<Posters>,
    /// Every ticket below it was taken, and the blocks before its own are out of their places.
    taken: Apart<AtomicU64>,
    /// A block that is in no place, for whoever needs one next.
    spare: Apart<AtomicPtr<Block<T, B>>>,
    /// By place, as the blocks: no two tickets that are out have the same.
    stamps: OnceLock<Box<[OnceLock<Stamps<B>>]>>,
}

/// One more than the stamp of a ticket, or zero. Only for who knows that the item is published; so
/// relaxed accesses are enough.
type Stamps<const B: usize> = Box<[Stamp; B]>;

/// What posters write and the taking side does not.
struct Posters {
    /// The next ticket and [`CLOSED`].
    tail: AtomicU64,
    /// Tickets below it were seen to fit. It is `taken` and the capacity, as some poster read it:
    /// so most need not look at the taking side's cache line.
    limit: AtomicU64,
}

// SAFETY: items go from the posting thread to the taking one, or back to the posting one, and are
// never shared between the two (facts 1 and 2).
unsafe impl<T: Send, const B: usize> Send for Mailbox<T, B> {}
// SAFETY: as above.
unsafe impl<T: Send, const B: usize> Sync for Mailbox<T, B> {}

/// What a poster has to know about its post.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// The taking side will come by.
    Unawaited,
    /// The taking side awaits just this one: wake it.
    Awaited,
}

/// Why there is no ticket.
enum Refused {
    Full,
    Closed,
}

impl<T, const B: usize> Mailbox<T, B> {
    pub(crate) fn new(capacity: NonZeroUsize) -> (Arc<Mailbox<T, B>>, Inbox<T, B>) {
        // More than all blocks of full ones, because the first and the last may be in part (fact 4).
        let capacity = capacity.get().min(MAX_CAPACITY);
        let places = (capacity.div_ceil(B) + 1).next_power_of_two();
        let mailbox = Arc::new(Mailbox {
            places: (0..places).map(|_| AtomicPtr::new(ptr::null_mut())).collect(),
            capacity: capacity as u64,
            posters: Apart(Posters {
                tail: AtomicU64::new(0),
                limit: AtomicU64::new(capacity as u64),
            }),
            taken: Apart(AtomicU64::new(0)),
            spare: Apart(AtomicPtr::new(ptr::null_mut())),
            stamps: OnceLock::new(),
        });
        let inbox =
            Inbox { mailbox: Arc::clone(&mailbox), head: 0, block: ptr::null_mut(), number: 0 };
        (mailbox, inbox)
    }

    /// Posts `item`, after all that were posted before.
    #[inline]
    pub(crate) fn post(&self, item: T) -> Result<Posted, PostError<T>> {
        self.fill(item, |_| {})
    }

    /// As [`post`](Mailbox::post), and leaves word of when that was: see [`Inbox::stamp`].
    #[inline(never)]
    pub(crate) fn post_stamped(&self, item: T, stamp: u64) -> Result<Posted, PostError<T>> {
        self.fill(item, |ticket| self.stamp(ticket).store(stamp + 1, Ordering::Relaxed))
    }

    /// Posts `item`, after `note` was told its ticket.
    #[inline]
    fn fill(&self, item: T, note: impl FnOnce(u64)) -> Result<Posted, PostError<T>> {
        let (ticket, block) = match self.ticket() {
            Ok(ticket_and_block) => ticket_and_block,
            Err(Refused::Full) => return Err(PostError::Full(item)),
            Err(Refused::Closed) => return Err(PostError::Closed(item)),
        };
        // SAFETY: the block was in its place when `ticket` was given out, and stays (facts 3, 4).
        let slot = slot_of(unsafe { &*block }, ticket);
        // SAFETY: the slot is ours (facts 1 and 2).
        unsafe { slot.write(item) };
        note(ticket);
        // Release: the item. Acquire: what the taking side wrote before its mark.
        let found = slot.state.swap(published(ticket), Ordering::AcqRel);
        if found == awaited(ticket) {
            Ok(Posted::Awaited)
        } else if found == abandoned(ticket) {
            // SAFETY: written above, and still ours (fact 2).
            Err(PostError::Closed(unsafe { slot.read() }))
        } else {
            Ok(Posted::Unawaited)
        }
    }

    /// How many items wait, about.
    pub(crate) fn len(&self) -> usize {
        let taken = self.taken.0.load(Ordering::Relaxed);
        let tail = self.posters.0.tail.load(Ordering::Relaxed) / TICKET;
        usize::try_from(tail.saturating_sub(taken)).unwrap_or(usize::MAX)
    }

    /// A ticket, and the block with its slot.
    fn ticket(&self) -> Result<(u64, *mut Block<T, B>), Refused> {
        let mut tail = self.posters.0.tail.load(Ordering::Relaxed);
        loop {
            let ticket = tail / TICKET;
            if tail & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            if !self.has_room(ticket) {
                return Err(Refused::Full);
            }
            // Before the ticket is taken, so that every ticket has its block.
            let block = self.block(ticket);
            // Release: for whoever closes the mailbox, and then looks at the slots of all tickets.
            match self.posters.0.tail.compare_exchange_weak(
                tail,
                tail + TICKET,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok((ticket, block)),
                Err(newer) => tail = newer,
            }
        }
    }

    fn has_room(&self, ticket: u64) -> bool {
        // Acquire, here and below: blocks that were taken are out of their places (fact 4).
        if ticket < self.posters.0.limit.load(Ordering::Acquire) {
            return true;
        }
        let limit = self.taken.0.load(Ordering::Acquire) + self.capacity;
        if ticket < limit {
            // Another poster may have read more meanwhile: then somebody reads it once more.
            self.posters.0.limit.store(limit, Ordering::Release);
        }
        ticket < limit
    }

    /// The place of the block `number`.
    fn place(&self, number: u64) -> &AtomicPtr<Block<T, B>> {
        &self.places[self.index(number)]
    }

    fn index(&self, number: u64) -> usize {
        // Their number is a power of two: this is a mask.
        number as usize & (self.places.len() - 1)
    }

    /// Where the stamp of `ticket` is.
    fn stamp(&self, ticket: u64) -> &Stamp {
        let places = || (0..self.places.len()).map(|_| OnceLock::new()).collect();
        let place = &self.stamps.get_or_init(places)[self.index(ticket / B as u64)];
        let stamps = place.get_or_init(|| Box::new([const { Stamp::new(0) }; B]));
        &stamps[ticket as usize % B]
    }

    /// The block of `ticket`, which is put in its place if there is none.
    fn block(&self, ticket: u64) -> *mut Block<T, B> {
        let place = self.place(ticket / B as u64);
        let block = place.load(Ordering::Acquire);
        if block.is_null() { self.install(place) } else { block }
    }

    #[cold]
    fn install(&self, place: &AtomicPtr<Block<T, B>>) -> *mut Block<T, B> {
        let mut block = self.spare.0.swap(ptr::null_mut(), Ordering::Acquire);
        if block.is_null() {
            block = new_block();
        }
        match put(place, block) {
            Ok(()) => block,
            Err(theirs) => {
                self.keep(block);
                theirs
            }
        }
    }

    /// Makes `block`, which is in no place and has no items, the spare one.
    fn keep(&self, block: *mut Block<T, B>) {
        let older = self.spare.0.swap(block, Ordering::AcqRel);
        // SAFETY: a block is in one place only, and `older` was in none but this.
        unsafe { free(older) };
    }
}

/// Puts `block` into an empty place, or says what is there.
fn put<T>(place: &AtomicPtr<T>, block: *mut T) -> Result<(), *mut T> {
    // Release: what was read from the block, and written into it. Acquire: likewise of theirs.
    place.compare_exchange(ptr::null_mut(), block, Ordering::Release, Ordering::Acquire).map(|_| ())
}

fn slot_of<T, const B: usize>(block: &Block<T, B>, ticket: u64) -> &Slot<T> {
    &block[ticket as usize % B]
}

/// Made slot by slot where it is to lie: a stack may have no room for it.
fn new_block<T, const B: usize>() -> *mut Block<T, B> {
    let slots: Box<[Slot<T>]> = (0..B).map(|_| Slot::new()).collect();
    slots.try_into().map_or_else(|_| unreachable!("B slots"), Box::<Block<T, B>>::into_raw)
}

/// Frees a block, and forgets its items, if it has any.
///
/// # Safety
///
/// `block` is null, or of [`new_block`] and nobody else's.
unsafe fn free<T, const B: usize>(block: *mut Block<T, B>) {
    if !block.is_null() {
        // SAFETY: as the caller promises.
        drop(unsafe { Box::from_raw(block) });
    }
}

impl<T> Slot<T> {
    fn new() -> Slot<T> {
        Slot { state: AtomicU64::new(0), item: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Writes the item; what was there is forgotten.
    ///
    /// # Safety
    ///
    /// The slot is the caller's.
    unsafe fn write(&self, item: T) {
        // SAFETY: as the caller promises.
        self.item.with_mut(|place| unsafe { place.write(MaybeUninit::new(item)) });
    }

    /// Takes the item out.
    ///
    /// # Safety
    ///
    /// The slot is the caller's, and has an item.
    unsafe fn read(&self) -> T {
        // SAFETY: as the caller promises.
        self.item.with_mut(|place| unsafe { place.cast::<T>().read() })
    }
}

impl<T, const B: usize> Drop for Mailbox<T, B> {
    fn drop(&mut self) {
        // The inbox is gone: it has a share of the mailbox. So no item is left.
        for place in self.places.iter().chain([&self.spare.0]) {
            // SAFETY: a block is in one place only, and there are no posters any more.
            unsafe { free(place.load(Ordering::Relaxed)) };
        }
    }
}

/// The one end of a mailbox at which items are taken. Dropping it closes the mailbox.
pub(crate) struct Inbox<T, const B: usize = BLOCK> {
    mailbox: Arc<Mailbox<T, B>>,
    /// The ticket whose item is next.
    head: u64,
    /// The block `number`, once it was seen in its place: that of `head`, or the one before, if that
    /// was taken to its end.
    block: *mut Block<T, B>,
    number: u64,
}

// SAFETY: as for `Mailbox`; the block that it points to is the mailbox's.
unsafe impl<T: Send, const B: usize> Send for Inbox<T, B> {}

impl<T, const B: usize> Inbox<T, B> {
    /// Whether an item is there to be taken.
    pub(crate) fn has_mail(&mut self) -> bool {
        self.next_published().is_some()
    }

    /// How many items wait, about.
    pub(crate) fn len(&self) -> usize {
        self.mailbox.len()
    }

    /// The stamp of the oldest item. One that was posted without may have that of an item before it.
    pub(crate) fn stamp(&mut self) -> Option<u64> {
        self.next_published()?;
        self.mailbox.stamp(self.head).load(Ordering::Relaxed).checked_sub(1)
    }

    /// Hands items to `take`, oldest first, until there is no more, or one is given back.
    pub(crate) fn take_while(&mut self, mut take: impl FnMut(T) -> Result<(), T>) {
        while let Some(slot) = self.next_published() {
            // SAFETY: `next_published` gives the slot of `head`, which is ours (fact 2), and its block
            // is in its place as long as `head` is in it.
            let slot = unsafe { &*slot };
            // SAFETY: as above; and `head` has not been here before.
            let item = unsafe { slot.read() };
            // Before the call: if that panics, the item is gone all the same.
            self.head += 1;
            if let Err(item) = take(item) {
                // SAFETY: as above.
                unsafe { slot.write(item) };
                self.head -= 1;
                break;
            }
        }
        // Only here, after a look at the slot of `head`: that takes finished blocks out first.
        if self.mailbox.taken.0.load(Ordering::Relaxed) != self.head {
            // Release: the reads of the slots are over, and finished blocks are out of their places.
            self.mailbox.taken.0.store(self.head, Ordering::Release);
        }
    }

    /// Asks the poster of the next item to say so: see [`Posted::Awaited`]. `false` when that item
    /// is there already.
    pub(crate) fn await_mail(&mut self) -> bool {
        // Also if the mark is there from before: the poster has to see what we wrote since.
        !self.has_mail() && self.mark(self.head, awaited(self.head))
    }

    /// Leaves a mark for the poster of `ticket`. `false` when he has published.
    fn mark(&self, ticket: u64, mark: u64) -> bool {
        let block = self.mailbox.block(ticket);
        // SAFETY: nobody but us takes the block of a ticket that was not taken out of its place.
        let state = &slot_of(unsafe { &*block }, ticket).state;
        // Acquire: the item, if the answer is no. Release: what we wrote before the mark.
        let found = state.load(Ordering::Acquire);
        found != published(ticket)
            && state.compare_exchange(found, mark, Ordering::Release, Ordering::Acquire).is_ok()
    }

    /// The slot of the next item, if that is published.
    #[inline]
    fn next_published(&mut self) -> Option<*const Slot<T>> {
        if self.head / B as u64 != self.number {
            self.retire();
        }
        if self.block.is_null() {
            self.block = self.mailbox.place(self.number).load(Ordering::Acquire);
        }
        // SAFETY: null, or the block of `head` in its place, where it stays until `retire`.
        let slot = slot_of(unsafe { self.block.as_ref() }?, self.head);
        // Acquire: the item.
        let is_published = slot.state.load(Ordering::Acquire) == published(self.head);
        is_published.then_some(ptr::from_ref(slot))
    }

    /// Takes the block that was taken to its end out of its place, for the next one's.
    #[inline(never)]
    fn retire(&mut self) {
        let block = std::mem::replace(&mut self.block, ptr::null_mut());
        // Whoever needs this place acquires `taken` first, which is released after this.
        self.mailbox.place(self.number).store(ptr::null_mut(), Ordering::Relaxed);
        self.number += 1;
        if put(self.mailbox.place(self.number), block).is_err() {
            self.mailbox.keep(block);
        }
    }
}

impl<T, const B: usize> Drop for Inbox<T, B> {
    /// Closes the mailbox. Posters whose tickets are out but not published get their items back.
    fn drop(&mut self) {
        let tail = self.mailbox.posters.0.tail.fetch_or(CLOSED, Ordering::Acquire);
        for ticket in self.head..tail / TICKET {
            if self.mark(ticket, abandoned(ticket)) {
                continue;
            }
            let block = self.mailbox.block(ticket);
            // SAFETY: as in `mark`.
            let slot = slot_of(unsafe { &*block }, ticket);
            // SAFETY: it is published, and no block is out of its place from here on (facts 2, 3).
            drop(unsafe { slot.read() });
        }
    }
}

impl<T, const B: usize> fmt::Debug for Inbox<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("waiting", &self.len()).finish_non_exhaustive()
    }
}

/// Why an event could not be posted, with the event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PostError<T> {
    /// As many posts wait as the mailbox holds: the queue's thread does not keep up.
    Full(T),
    /// The source, or its queue, is gone.
    Closed(T),
}

impl<T> PostError<T> {
    /// The event that was not posted.
    pub fn into_inner(self) -> T {
        match self {
            PostError::Full(event) | PostError::Closed(event) => event,
        }
    }
}

impl<T> fmt::Debug for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Full(_) => "Full(..)",
            PostError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Full(_) => "the mailbox is full",
            PostError::Closed(_) => "the source of user events is gone",
        })
    }
}

impl<T> std::error::Error for PostError<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::thread;

    fn mailbox<T, const B: usize>(
        capacity: usize,
    ) -> (crate::sync::Arc<Mailbox<T, B>>, Inbox<T, B>) {
        Mailbox::new(NonZeroUsize::new(capacity).unwrap())
    }

    /// Takes at most `count` items.
    fn take<T, const B: usize>(inbox: &mut Inbox<T, B>, count: usize) -> Vec<T> {
        let mut taken = Vec::new();
        inbox.take_while(|item| {
            if taken.len() == count {
                return Err(item);
            }
            taken.push(item);
            Ok(())
        });
        taken
    }

    fn blocks<T, const B: usize>(mailbox: &Mailbox<T, B>) -> usize {
        let all = mailbox.places.iter().chain([&mailbox.spare.0]);
        all.filter(|place| !place.load(Ordering::Relaxed).is_null()).count()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Post(Arc<u16>),
        Take(usize),
        Await,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => any::<u16>().prop_map(|n| Step::Post(Arc::new(n))),
            2 => (0_usize..9).prop_map(Step::Take),
            1 => Just(Step::Await),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against a model: whatever the order of steps, it holds what a queue of that bound holds,
        /// in its order, gives back what it refuses, says who is awaited, and drops what is left.
        #[test]
        fn mailbox_is_a_bounded_queue(
            capacity in 1_usize..9,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let (mailbox, mut inbox) = mailbox::<_, 3>(capacity);
            let mut model = VecDeque::new();
            let mut awaited = false;
            for step in &steps {
                match step {
                    Step::Post(item) if model.len() == capacity => {
                        let refused = mailbox.post(Arc::clone(item));
                        prop_assert_eq!(refused, Err(PostError::Full(Arc::clone(item))));
                    }
                    Step::Post(item) => {
                        let expected = if awaited { Posted::Awaited } else { Posted::Unawaited };
                        prop_assert_eq!(mailbox.post(Arc::clone(item)), Ok(expected));
                        model.push_back(Arc::clone(item));
                        awaited = false;
                    }
                    Step::Take(count) => {
                        let count = (*count).min(model.len());
                        let expected: Vec<_> = model.drain(..count).collect();
                        prop_assert_eq!(take(&mut inbox, count), expected);
                    }
                    Step::Await => {
                        awaited = model.is_empty();
                        prop_assert_eq!(inbox.await_mail(), awaited);
                    }
                }
                prop_assert_eq!(inbox.len(), model.len());
                prop_assert_eq!(inbox.has_mail(), !model.is_empty());
            }
            drop((mailbox, inbox, model));
            for step in steps {
                if let Step::Post(item) = step {
                    prop_assert_eq!(Arc::strong_count(&item), 1, "dropped once");
                }
            }
        }
    }

    #[test]
    fn posts_of_many_threads_come_once_and_in_the_order_of_each() {
        const EACH: usize = 300;
        let (mailbox, mut inbox) = mailbox::<_, 4>(16);
        let posting: Vec<_> = (0..3)
            .map(|thread| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    for n in 0..EACH {
                        let mut item = Box::new((thread, n));
                        while let Err(error) = mailbox.post(item) {
                            item = error.into_inner();
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut expected = [0; 3];
        while expected != [EACH; 3] {
            for item in take(&mut inbox, usize::MAX) {
                let (thread, n) = *item;
                assert_eq!(n, expected[thread]);
                expected[thread] += 1;
            }
            thread::yield_now();
        }
        posting.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!inbox.has_mail());
    }

    #[test]
    fn closing_under_posters_drops_each_item_once() {
        for _ in 0..20 {
            let (mailbox, mut inbox) = mailbox::<_, 4>(1000);
            let alive = Arc::new(());
            let posting: Vec<_> = (0..2)
                .map(|_| {
                    let (mailbox, alive) = (mailbox.clone(), Arc::clone(&alive));
                    thread::spawn(move || {
                        while !matches!(mailbox.post(Arc::clone(&alive)), Err(PostError::Closed(_)))
                        {
                        }
                    })
                })
                .collect();
            while take(&mut inbox, 5).is_empty() {
                thread::yield_now();
            }
            drop(inbox);
            posting.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(Arc::strong_count(&alive), 1);
        }
    }

    #[test]
    fn memory_comes_as_it_fills_and_goes_when_it_is_empty() {
        let (mailbox, mut inbox) = mailbox::<u64, 4>(1000);
        assert_eq!(blocks(&mailbox), 0);
        for n in 0..1000 {
            let _ = mailbox.post(n).unwrap();
        }
        assert_eq!(blocks(&mailbox), 250);
        assert_eq!(take(&mut inbox, 1000).len(), 1000);
        assert!(!inbox.has_mail());
        assert!(blocks(&mailbox) <= 2, "one in use and a spare one");
    }

    #[test]
    fn mailbox_that_is_never_full_goes_on_in_the_same_block() {
        let (mailbox, mut inbox) = mailbox::<u64, 4>(1000);
        for n in 0..1000 {
            let _ = mailbox.post(n).unwrap();
            assert_eq!(take(&mut inbox, 9), [n]);
        }
        assert_eq!(blocks(&mailbox), 1);
    }

    #[test]
    fn panic_of_who_takes_loses_no_other_item() {
        let (mailbox, mut inbox) = mailbox::<_, 2>(4);
        let item = Arc::new(());
        for _ in 0..4 {
            let _ = mailbox.post(Arc::clone(&item)).unwrap();
        }
        for left in [3, 2] {
            let taking = || inbox.take_while(|_| panic!("with an item in hand"));
            assert!(catch_unwind(AssertUnwindSafe(taking)).is_err());
            assert_eq!(Arc::strong_count(&item), 1 + left);
        }
        assert_eq!(take(&mut inbox, 9).len(), 2);
        assert!((0..4).all(|_| mailbox.post(Arc::clone(&item)).is_ok()), "there is room again");
    }

    #[test]
    fn large_items_need_no_large_stack() {
        let small = thread::Builder::new().stack_size(128 * 1024);
        let posting = small.spawn(|| {
            let (mailbox, mut inbox) = mailbox::<[u8; 4096], 64>(1);
            let _ = mailbox.post([7; 4096]).unwrap();
            take(&mut inbox, 1).len()
        });
        assert_eq!(posting.unwrap().join().unwrap(), 1);
    }
}
