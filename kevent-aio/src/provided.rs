//! Buffers that the kernel has, to receive into whichever of them is next.
//!
//! It takes them from a ring of entries that is shared with it, and a completion names the one that it has filled.
//! Those are then the user's, and come back to their pool when he drops them; from there they are lent again.
//!
//! # Safety
//!
//! The kernel writes to a buffer from the moment at which it is lent until a completion names it. So long the
//! buffer is in `lent`, and in nobody's hands. The entries stand until they are unregistered or the io_uring has
//! nothing at work; where it has, all of this is leaked.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::buffers::{Buffer, Buffers};

/// Where the entries begin: at a page, of whatever size.
const ALIGN: usize = 65_536;

/// As many entries as a ring of them can have.
const MOST: usize = 1 << 15;

/// The pools of which the kernel has buffers, each in the place that its name gives.
#[derive(Default)]
pub(crate) struct Provided(Vec<Option<Group>>);

/// The buffers of one pool that the kernel has.
struct Group {
    pool: Buffers,
    name: Arc<u16>,
    entries: Entries,
    /// Each in the place that its number gives.
    lent: Vec<Option<Buffer>>,
    /// How many these are.
    count: usize,
}

impl Provided {
    /// The name of a pool that the kernel knows.
    pub(crate) fn name_of(&self, pool: &Buffers) -> Option<Arc<u16>> {
        let group = self.0.iter().flatten().find(|group| group.pool.is_same(pool))?;
        Some(Arc::clone(&group.name))
    }

    /// Makes a pool known, by `register`, which is told the address of the entries, how many they are, and the name.
    pub(crate) fn insert(
        &mut self,
        pool: &Buffers,
        register: impl FnOnce(u64, u16, u16) -> std::io::Result<()>,
    ) -> Option<Arc<u16>> {
        let free = self.0.iter().position(Option::is_none);
        let place = free.unwrap_or(self.0.len());
        let name = u16::try_from(place).ok()?;
        let entries = Entries::new(pool.count().next_power_of_two().min(MOST))?;
        register(entries.start.as_ptr() as u64, entries.count, name).ok()?;
        let mut lent = Vec::new();
        lent.resize_with(pool.count(), || None);
        let name = Arc::new(name);
        let mut group =
            Group { pool: pool.clone(), name: Arc::clone(&name), entries, lent, count: 0 };
        group.lend();
        if place == self.0.len() {
            self.0.push(None);
        }
        self.0[place] = Some(group);
        Some(name)
    }

    /// The pools into which nobody receives any more.
    pub(crate) fn unused(&self) -> Vec<u16> {
        let groups = self.0.iter().flatten();
        groups
            .filter(|group| Arc::strong_count(&group.name) == 1)
            .map(|group| *group.name)
            .collect()
    }

    /// The kernel knows that pool no more.
    pub(crate) fn remove(&mut self, name: u16) {
        if let Some(group) = self.0.get_mut(usize::from(name)) {
            *group = None;
        }
    }

    /// The buffer that the kernel has filled with so many bytes; the next is lent in its place.
    pub(crate) fn take(&mut self, name: u16, number: u16, len: usize) -> Option<Buffer> {
        let group = self.0.get_mut(usize::from(name))?.as_mut()?;
        let mut buffer = group.lent.get_mut(usize::from(number))?.take()?;
        group.count -= 1;
        buffer.grow(len);
        group.lend();
        Some(buffer)
    }

    /// Lends what has come back.
    pub(crate) fn lend(&mut self) {
        self.0.iter_mut().flatten().for_each(Group::lend);
    }
}

impl Group {
    fn lend(&mut self) {
        while self.count < usize::from(self.entries.count) {
            let Some(mut buffer) = self.pool.take() else { break };
            let Some(place) = self.lent.get_mut(usize::from(buffer.number())) else { break };
            self.entries.publish(&mut buffer);
            *place = Some(buffer);
            self.count += 1;
        }
        self.pool.set_lent(self.count);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.pool.set_lent(0);
    }
}

/// The ring of entries from which the kernel takes buffers.
struct Entries {
    start: NonNull<BufRingEntry>,
    layout: Layout,
    /// How many; a power of two.
    count: u16,
    /// Where the next goes, modulo their number. The kernel reads on up to here.
    tail: u16,
}

// SAFETY: the memory is owned, and written to by its owner only.
unsafe impl Send for Entries {}

impl Entries {
    fn new(count: usize) -> Option<Entries> {
        let layout = Layout::array::<BufRingEntry>(count).ok()?.align_to(ALIGN).ok()?;
        let count = u16::try_from(count).ok()?;
        // SAFETY: the layout is not empty, as no pool is.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Entries { start: start.cast(), layout, count, tail: 0 })
    }

    /// Gives the kernel a buffer. There are never more with it than entries.
    fn publish(&mut self, buffer: &mut Buffer) {
        buffer.clear();
        let number = buffer.number();
        let room = buffer.room();
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: it is below `count`, so this is within the ring.
        let entry = unsafe { self.start.as_ptr().add(at) };
        // SAFETY: the kernel reads an entry only once the tail has passed it, and is done with this one. Zeroes
        // are an entry, too.
        let entry = unsafe { &mut *entry };
        entry.set_addr(room.as_mut_ptr() as u64);
        entry.set_len(u32::try_from(room.len()).unwrap_or(u32::MAX));
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring begins with an entry.
        let tail = unsafe { BufRingEntry::tail(self.start.as_ptr()) };
        // SAFETY: these are two aligned bytes of the ring, which the kernel reads and only these lines write. They
        // lie in the part of the first entry that is nobody else's.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody has it any more: see the top.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) };
    }
}
