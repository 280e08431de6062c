//! The peers. Two structures by hand, that sleep in epoll until the head is due; io_uring, where the
//! kernel keeps each timer; and the libraries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use tokio::runtime::Runtime;
use tokio::time::Sleep;

use super::Timers;
use crate::group::Result;
use crate::sys;

/// An empty epoll set, to sleep in.
struct Bed(OwnedFd);

impl Bed {
    fn new() -> Result<Bed> {
        Ok(Bed(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    fn sleep_until(&self, deadline: Option<Instant>) -> Result<()> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose()?;
        let (flags, data) = (epoll::EventFlags::empty(), epoll::EventData::new_u64(0));
        epoll::wait(&self.0, &mut [epoll::Event { flags, data }], timeout.as_ref())?;
        Ok(())
    }
}

pub(super) struct Tree {
    timers: BTreeMap<(Instant, u64), u64>,
    number: u64,
    bed: Bed,
}

impl Timers for Tree {
    type Id = (Instant, u64);

    fn open() -> Result<Self> {
        Ok(Tree { timers: BTreeMap::new(), number: 0, bed: Bed::new()? })
    }

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<Self::Id> {
        self.number += 1;
        self.timers.insert((deadline, self.number), key);
        Ok((deadline, self.number))
    }

    fn cancel(&mut self, id: Self::Id) -> Result<()> {
        self.timers.remove(&id).map(|_| ()).ok_or("no such timer".into())
    }

    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()> {
        let head = self.timers.first_key_value().map(|((deadline, _), _)| *deadline);
        self.bed.sleep_until(head)?;
        let now = Instant::now();
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            fired(entry.remove());
        }
        Ok(())
    }
}

/// Cancelled timers are left in the heap, and thrown away when they come up.
pub(super) struct Heap {
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    armed: HashSet<u64>,
    bed: Bed,
}

impl Timers for Heap {
    type Id = u64;

    fn open() -> Result<Self> {
        Ok(Heap { timers: BinaryHeap::new(), armed: HashSet::new(), bed: Bed::new()? })
    }

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<u64> {
        self.timers.push(Reverse((deadline, key)));
        self.armed.insert(key);
        Ok(key)
    }

    fn cancel(&mut self, id: u64) -> Result<()> {
        if self.armed.remove(&id) { Ok(()) } else { Err("no such timer".into()) }
    }

    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()> {
        let head = self.timers.peek().map(|Reverse((deadline, _))| *deadline);
        self.bed.sleep_until(head)?;
        let now = Instant::now();
        while let Some(Reverse((deadline, key))) = self.timers.peek().copied() {
            if deadline > now {
                break;
            }
            self.timers.pop();
            if self.armed.remove(&key) {
                fired(key);
            }
        }
        Ok(())
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?)
}

pub(super) struct DelayQueue {
    timers: tokio_util::time::DelayQueue<u64>,
    runtime: Runtime,
}

impl Timers for DelayQueue {
    type Id = tokio_util::time::delay_queue::Key;

    fn open() -> Result<Self> {
        let runtime = runtime()?;
        let inside = runtime.enter();
        let timers = tokio_util::time::DelayQueue::new();
        drop(inside);
        Ok(DelayQueue { timers, runtime })
    }

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<Self::Id> {
        let _inside = self.runtime.enter();
        Ok(self.timers.insert_at(key, deadline.into()))
    }

    fn cancel(&mut self, id: Self::Id) -> Result<()> {
        let _inside = self.runtime.enter();
        self.timers.try_remove(&id).map(|_| ()).ok_or("no such timer".into())
    }

    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()> {
        let timers = &mut self.timers;
        let mut some = false;
        self.runtime.block_on(poll_fn(|context| {
            while let Poll::Ready(Some(expired)) = timers.poll_expired(context) {
                fired(expired.into_inner());
                some = true;
            }
            if some { Poll::Ready(()) } else { Poll::Pending }
        }));
        Ok(())
    }
}

/// A boxed `Sleep` for each timer, and a waker for each that says which one it was: less than a task
/// for each would cost.
pub(super) struct Sleeps {
    sleeps: slab::Slab<(Pin<Box<Sleep>>, u64)>,
    due: Arc<Due>,
    runtime: Runtime,
}

#[derive(Default)]
struct Due {
    list: Mutex<Vec<usize>>,
    waiting: Mutex<Option<Waker>>,
}

struct SleepOver {
    slot: usize,
    due: Arc<Due>,
}

impl Wake for SleepOver {
    fn wake(self: Arc<Self>) {
        let mut list = self.due.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(self.slot);
        let mut waiting = self.due.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Timers for Sleeps {
    type Id = usize;

    fn open() -> Result<Self> {
        Ok(Sleeps { sleeps: slab::Slab::new(), due: Arc::default(), runtime: runtime()? })
    }

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<usize> {
        let _inside = self.runtime.enter();
        let sleep = Box::pin(tokio::time::sleep_until(deadline.into()));
        let slot = self.sleeps.insert((sleep, key));
        let waker = Waker::from(Arc::new(SleepOver { slot, due: Arc::clone(&self.due) }));
        let (sleep, _) = self.sleeps.get_mut(slot).ok_or("gone")?;
        match sleep.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Ok(slot),
            Poll::Ready(()) => {
                waker.wake();
                Ok(slot)
            }
        }
    }

    fn cancel(&mut self, id: usize) -> Result<()> {
        self.sleeps.try_remove(id).map(|_| ()).ok_or("no such timer".into())
    }

    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()> {
        let due = &self.due;
        let list = self.runtime.block_on(poll_fn(|context| {
            let mut waiting = due.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = Some(context.waker().clone());
            drop(waiting);
            let mut list = due.list.lock().unwrap_or_else(PoisonError::into_inner);
            if list.is_empty() { Poll::Pending } else { Poll::Ready(std::mem::take(&mut *list)) }
        }));
        for slot in list {
            if let Some((_, key)) = self.sleeps.try_remove(slot) {
                fired(key);
            }
        }
        Ok(())
    }
}

pub(super) struct Calloop {
    event_loop: calloop::EventLoop<'static, Vec<u64>>,
    due: Vec<u64>,
}

impl Timers for Calloop {
    type Id = calloop::RegistrationToken;

    fn open() -> Result<Self> {
        Ok(Calloop { event_loop: calloop::EventLoop::try_new()?, due: Vec::new() })
    }

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<Self::Id> {
        use calloop::timer::{TimeoutAction, Timer};
        let fire = move |_, (): &mut (), due: &mut Vec<u64>| {
            due.push(key);
            TimeoutAction::Drop
        };
        let handle = self.event_loop.handle();
        let armed = handle.insert_source(Timer::from_deadline(deadline), fire);
        Ok(armed.map_err(|error| error.to_string())?)
    }

    fn cancel(&mut self, id: Self::Id) -> Result<()> {
        self.event_loop.handle().remove(id);
        Ok(())
    }

    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()> {
        self.event_loop.dispatch(None::<Duration>, &mut self.due)?;
        self.due.drain(..).for_each(fired);
        Ok(())
    }
}

pub(super) struct Uring {
    ring: sys::Uring,
    number: u64,
    /// Where the two clocks meet: an `Instant` does not tell the kernel's time.
    start: (Instant, Timespec),
}

/// Below it are numbers of timers.
const REMOVAL: u64 = 1 << 63;

impl Timers for Uring {
    type Id = u64;

    fn open() -> Result<Self> {
        let ring = sys::Uring::new(0)?;
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Ok(Uring { ring, number: 0, start: (Instant::now(), clock) })
    }

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<u64> {
        let (start, clock) = self.start;
        let time = Duration::try_from(clock)? + deadline.saturating_duration_since(start);
        self.number += 1;
        // What is told is the key; what is removed is the number. The low half is the key.
        let id = (self.number & 0x7fff_ffff) << 32 | (key & 0xffff_ffff);
        self.ring.timeout_at(time.as_secs(), time.subsec_nanos(), id)?;
        Ok(id)
    }

    fn cancel(&mut self, id: u64) -> Result<()> {
        Ok(self.ring.cancel_timeout(id, REMOVAL)?)
    }

    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()> {
        self.ring.wait(1)?;
        while let Some(completion) = self.ring.next() {
            if completion.key != REMOVAL && completion.result == -libc::ETIME {
                fired(completion.key & 0xffff_ffff);
            }
        }
        Ok(())
    }
}
