//! Cold random reads through the page cache: who makes the program wait, and for how long.
//!
//! ```text
//! cargo run --release -p kevent-examples --bin buffered FILE [READS]
//! ```
//!
//! Reads pages of `FILE`, none of them twice, after it was taken out of the page cache: one after the other
//! by pread(2); with 32 at a time by the kernel's own asynchronous I/O, which without O_DIRECT reads while
//! the program submits; and by kevent. `waits` is the time that submitting took, in which a program can do
//! nothing else: the longest of all, and together. A larger file, on a slower disk, shows more of it.

mod kernel_aio;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kevent_aio::{Aio, Choice, Op, Read};
use kevent_core::{Queue, Wait};
use rustix::fs::{Advice, fadvise};

use kernel_aio::KernelAio;

const PAGE: usize = 4096;

/// Reads at a time.
const DEPTH: usize = 32;

/// The time that a program waited where it can't do anything else.
#[derive(Default)]
struct Waits {
    longest: Duration,
    together: Duration,
}

impl Waits {
    fn in_call<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let answer = call();
        let took = begun.elapsed();
        self.longest = self.longest.max(took);
        self.together += took;
        answer
    }
}

/// Places in a file, in an order that no read-ahead guesses.
fn offsets(pages: u64, reads: u64) -> impl Iterator<Item = u64> {
    // A prime that does not divide the number of pages: no page comes twice.
    let step = [7919, 7907].into_iter().find(|step| pages % step != 0).unwrap_or(1);
    (0..reads).map(move |n| n * step % pages * PAGE as u64)
}

fn by_pread(file: &File, offsets: impl Iterator<Item = u64>) -> io::Result<Waits> {
    let (mut waits, mut page) = (Waits::default(), vec![0; PAGE]);
    for offset in offsets {
        waits.in_call(|| file.read_exact_at(&mut page, offset))?;
    }
    Ok(waits)
}

fn by_io_submit(file: &File, mut offsets: impl Iterator<Item = u64>) -> io::Result<Waits> {
    let (mut waits, mut aio, mut in_flight) = (Waits::default(), KernelAio::new(DEPTH)?, 0);
    loop {
        while aio.has_room() {
            let Some(offset) = offsets.next() else { break };
            waits.in_call(|| aio.submit(file, offset))?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(waits);
        }
        in_flight -= aio.reap()?;
    }
}

fn by_kevent(
    choice: Choice,
    file: &Arc<File>,
    mut offsets: impl Iterator<Item = u64>,
) -> io::Result<Waits> {
    let mut queue = Queue::new()?;
    let aio = queue.attach(Aio::builder().backend(choice).build()?, |completion| completion)?;
    let mut waits = Waits::default();
    let mut buffers = Vec::new();
    loop {
        while queue[aio].in_flight() < DEPTH {
            let Some(offset) = offsets.next() else { break };
            let buffer = buffers.pop().unwrap_or_default();
            let read = Read::new(file.clone(), offset, buffer).up_to(PAGE).cold();
            waits.in_call(|| queue[aio].submit(read, 0))?;
        }
        if queue[aio].in_flight() == 0 {
            return Ok(waits);
        }
        // Hands over what was submitted, and does not wait for it.
        waits.in_call(|| queue.wait(Wait::poll()))?;
        if queue.is_empty() {
            queue.wait(None)?;
        }
        while let Some(completion) = queue.next() {
            completion.result?;
            if let Op::Read(read) = *completion.op {
                buffers.push(read.into_buffer());
            }
        }
    }
}

/// Takes the file out of the page cache, reads, and prints a line.
fn measure(
    name: &str,
    file: &File,
    reads: u64,
    read: impl FnOnce() -> io::Result<Waits>,
) -> io::Result<()> {
    fadvise(file, 0, None, Advice::DontNeed)?;
    let begun = Instant::now();
    match read() {
        Ok(Waits { longest, together }) => {
            let (rate, micros) =
                (reads as f64 / begun.elapsed().as_secs_f64(), longest.as_micros());
            println!("{name:<14}{rate:>12.0}{micros:>14}{:>14}", together.as_millis());
        }
        // Some containers refuse io_submit(2), others io_uring.
        Err(error) => println!("{name:<14}{error}"),
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or_else(|| io::Error::other("which FILE is to be read?"))?;
    let file = Arc::new(File::open(path)?);
    let pages = file.metadata()?.len() / PAGE as u64;
    let reads = arguments.next().map_or(Ok(10_000), |text| text.parse());
    let reads = reads.map_err(io::Error::other)?.min(pages);
    file.sync_all()?;
    // Nothing is read but what was asked for.
    fadvise(&file, 0, None, Advice::Random)?;

    println!("{reads} reads of {PAGE} bytes");
    println!("{:<14}{:>12}{:>14}{:>14}", "", "reads/s", "waits max us", "waits all ms");
    let cold = || offsets(pages, reads);
    measure("pread", &file, reads, || by_pread(&file, cold()))?;
    measure("io_submit", &file, reads, || by_io_submit(&file, cold()))?;
    measure("kevent, ring", &file, reads, || by_kevent(Choice::Uring, &file, cold()))?;
    measure("kevent, pool", &file, reads, || by_kevent(Choice::Pool, &file, cold()))
}
