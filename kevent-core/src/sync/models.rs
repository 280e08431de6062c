//! What [loom](https://docs.rs/loom) tries in every order that the memory model allows, with two
//! or three preemptions: the mailbox, the doorbell, both as the queue uses them, and in [`shared`] the
//! whole queue that several threads harvest.
//!
//! ```text
//! RUSTFLAGS="--cfg kevent_loom" cargo test -p kevent-core --release --lib sync::models
//! ```
//!
//! A wake-up that is lost shows as a deadlock; a slot that two threads use at a time, a block that
//! leaks and one that is used after it was freed are found by loom's own cells and counts.
//!
//! Of each word loom (0.7) remembers the last access only when it looks for orders to try: a thread
//! that reads a word and then changes it hides that another one had read it before. So who looks
//! yields first ([`others_may_go_first`]); without that most orders are never tried.
//!
//! The ring has no model: one thread at a time has it, so it has no orders to try.

mod shared;

use std::num::NonZeroUsize;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::doorbell::{Doorbell, Was};
use crate::mailbox::{Inbox, Mailbox, PostError, Posted};
use crate::sync::{Arc, AtomicU64, Ordering};

/// Blocks of two: so few posts see their ends.
type Small = Mailbox<Item, 2>;

fn model(run: impl Fn() + Sync + Send + 'static) {
    model_with(3, run);
}

/// For models of so many steps that three preemptions take minutes.
fn model_with(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

fn others_may_go_first() {
    thread::yield_now();
}

/// An item that loom misses if it is never dropped, and notices if it is dropped twice.
#[derive(Debug)]
struct Item {
    number: u64,
    _alive: Arc<()>,
}

fn item(number: u64) -> Item {
    Item { number, _alive: Arc::new(()) }
}

fn mailbox(capacity: usize) -> (Arc<Small>, Inbox<Item, 2>) {
    Mailbox::new(NonZeroUsize::new(capacity).unwrap())
}

/// Takes what is there and says how many it was. Items of the same tens come in order.
fn take(inbox: &mut Inbox<Item, 2>, last: &mut [u64; 3]) -> u64 {
    let mut taken = 0;
    others_may_go_first();
    inbox.take_while(|item| {
        let last = &mut last[item.number as usize / 10];
        assert!(item.number > *last, "out of order");
        *last = item.number;
        taken += 1;
        Ok(())
    });
    taken
}

fn take_one(inbox: &mut Inbox<Item, 2>) -> u64 {
    let mut taken = 0;
    inbox.take_while(|item| {
        if taken == 1 {
            return Err(item);
        }
        taken = 1;
        Ok(())
    });
    taken
}

/// Posts two items and says how many were given back.
fn post_two(mailbox: &Small, first: u64) -> u64 {
    let mut refused = 0;
    for number in first..first + 2 {
        if let Err(error) = mailbox.post(item(number)) {
            assert_eq!(error.into_inner().number, number);
            refused += 1;
        }
    }
    refused
}

#[test]
fn every_post_is_taken_once_in_order_or_given_back() {
    model_with(2, || {
        let (mailbox, mut inbox) = mailbox(3);
        let theirs = Arc::clone(&mailbox);
        let poster = thread::spawn(move || post_two(&theirs, 11));
        let theirs = Arc::clone(&mailbox);
        let other = thread::spawn(move || post_two(&theirs, 21));
        let mut last = [0; 3];
        let early = take(&mut inbox, &mut last);
        let refused = poster.join().unwrap() + other.join().unwrap();
        let late = take(&mut inbox, &mut last);
        assert_eq!(early + late + refused, 4);
        assert!(early > 0 || refused == 1, "three fit, and only three");
    });
}

#[test]
fn room_that_was_taken_is_used_again() {
    model(|| {
        let (mailbox, mut inbox) = mailbox(2);
        let theirs = Arc::clone(&mailbox);
        // Two ahead: so it is the poster who needs the next block, and the one before is kept.
        assert_eq!(post_two(&mailbox, 1), 0);
        let poster = thread::spawn(move || {
            // Six through a mailbox of two: three blocks in two places.
            let mut posted = 2;
            for number in 3..7 {
                others_may_go_first();
                posted += u64::from(theirs.post(item(number)).is_ok());
            }
            posted
        });
        let mut taken = 0;
        for _ in 0..6 {
            others_may_go_first();
            taken += take_one(&mut inbox);
        }
        let posted = poster.join().unwrap();
        taken += take(&mut inbox, &mut [0; 3]);
        assert_eq!(taken, posted);
        assert!(mailbox.post(item(9)).is_ok());
        assert!(inbox.has_mail());
    });
}

#[test]
fn item_that_is_refused_on_its_way_out_is_taken_later() {
    model(|| {
        let (mailbox, mut inbox) = mailbox(4);
        let theirs = Arc::clone(&mailbox);
        let poster = thread::spawn(move || post_two(&theirs, 11) + post_two(&theirs, 13));
        others_may_go_first();
        inbox.take_while(Err);
        assert_eq!(poster.join().unwrap(), 0);
        inbox.take_while(Err);
        assert_eq!(take(&mut inbox, &mut [0; 3]), 4);
    });
}

#[test]
fn closing_drops_or_gives_back_each_post_once() {
    model_with(2, || {
        let (mailbox, mut inbox) = mailbox(4);
        let theirs = Arc::clone(&mailbox);
        let poster = thread::spawn(move || post_two(&theirs, 11));
        let other = thread::spawn(move || post_two(&mailbox, 21));
        take(&mut inbox, &mut [0; 3]);
        others_may_go_first();
        drop(inbox);
        poster.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn closed_mailbox_takes_nothing() {
    model(|| {
        let (mailbox, inbox) = mailbox(4);
        let closing = thread::spawn(move || {
            others_may_go_first();
            drop(inbox);
        });
        let _ = mailbox.post(item(1));
        closing.join().unwrap();
        assert!(matches!(mailbox.post(item(2)), Err(PostError::Closed(_))));
    });
}

#[test]
fn awaited_poster_sees_what_was_written_before_the_last_mark() {
    model(|| {
        let (mailbox, mut inbox) = mailbox(4);
        let word = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&word);
        let poster = thread::spawn(move || match mailbox.post(item(1)).unwrap() {
            Posted::Awaited => Some(theirs.load(Ordering::Relaxed)),
            Posted::Unawaited => None,
        });
        let marks = [1, 2].map(|n| {
            word.store(n, Ordering::Relaxed);
            others_may_go_first();
            inbox.await_mail()
        });
        let seen = poster.join().unwrap();
        match marks {
            [_, true] => assert_eq!(seen, Some(2)),
            [true, false] => assert!(seen >= Some(1)),
            [false, false] => assert_eq!(seen, None),
        }
    });
}

#[derive(Default)]
struct EventFd {
    written: u64,
    /// As many as the epoll set has told, edge by edge.
    told: u64,
}

/// The eventfd and who sleeps on it, in loom's words.
struct Bell {
    doorbell: Doorbell,
    eventfd: Mutex<EventFd>,
    readable: Condvar,
}

impl Bell {
    fn new() -> Arc<Bell> {
        Arc::new(Bell {
            doorbell: Doorbell::new(),
            eventfd: Mutex::default(),
            readable: Condvar::new(),
        })
    }

    fn wake(&self) {
        if self.doorbell.wake() == Was::Asleep {
            self.eventfd.lock().unwrap().written += 1;
            self.readable.notify_one();
        }
    }

    /// epoll_wait(2).
    fn wait(&self) {
        let mut eventfd = self.eventfd.lock().unwrap();
        while eventfd.told == eventfd.written {
            eventfd = self.readable.wait(eventfd).unwrap();
        }
        eventfd.told = eventfd.written;
    }

    fn rings(&self) -> u64 {
        self.eventfd.lock().unwrap().written
    }

    /// Sleeps until `look` finds something, the way in which a queue does it. Says how often.
    fn sleep(&self, spin: bool, mut look: impl FnMut() -> bool) -> u64 {
        for sleeps in 1.. {
            self.doorbell.fall_asleep();
            let found = look();
            if !found && !(spin && self.was_woken_while_spinning()) {
                self.wait();
            }
            self.doorbell.wake_up();
            if found || look() {
                return sleeps;
            }
        }
        unreachable!()
    }

    fn was_woken_while_spinning(&self) -> bool {
        if !self.doorbell.start_spinning() {
            return true;
        }
        self.doorbell.spin_is_over() || !self.doorbell.stop_spinning()
    }
}

/// A source of somebody else: a word that is looked at without any ordering of its own.
fn no_wake_up_is_lost(spin: bool) {
    model(move || {
        let bell = Bell::new();
        let mail = Arc::new(AtomicU64::new(0));
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let (bell, mail) = (Arc::clone(&bell), Arc::clone(&mail));
                thread::spawn(move || {
                    mail.fetch_add(1, Ordering::Relaxed);
                    bell.wake();
                })
            })
            .collect();
        let sleeps = bell.sleep(spin, || mail.load(Ordering::Relaxed) == 2);
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        assert!(bell.rings() <= sleeps, "rung twice in one sleep");
    });
}

#[test]
fn doorbell_loses_no_wake_up_and_rings_once_for_each_sleep() {
    no_wake_up_is_lost(false);
}

#[test]
fn spinning_thread_loses_no_wake_up() {
    no_wake_up_is_lost(true);
}

/// Posters wake only a thread that awaits just their slot.
fn no_post_is_slept_over(spin: bool) {
    model(move || {
        let bell = Bell::new();
        let (mailbox, mut inbox) = mailbox(4);
        let posters: Vec<_> = [11, 21]
            .into_iter()
            .map(|number| {
                let (bell, mailbox) = (Arc::clone(&bell), Arc::clone(&mailbox));
                thread::spawn(move || {
                    if mailbox.post(item(number)).unwrap() == Posted::Awaited {
                        bell.wake();
                    }
                })
            })
            .collect();
        let mut taken = 0;
        let mut sleeps = 0;
        while taken < 2 {
            sleeps += bell.sleep(spin, || match bell.doorbell.is_asleep() {
                true => !inbox.await_mail(),
                false => inbox.has_mail(),
            });
            taken += take(&mut inbox, &mut [0; 3]);
        }
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        assert!(bell.rings() <= sleeps, "rung twice in one sleep");
    });
}

#[test]
fn mailbox_and_doorbell_lose_no_wake_up() {
    no_post_is_slept_over(false);
}

#[test]
fn mailbox_and_spinning_thread_lose_no_wake_up() {
    no_post_is_slept_over(true);
}
