//! A backend that lies, to find out what a program makes of the bad luck that it will have one day.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::pool::Run;
use crate::builder::{Builder, Choice};
use crate::operation::{Errno, Operation, Outcome};
use crate::ops::Op;

/// Makes `builder` one of an engine that lies: reads and writes are short, operations fail with
/// EAGAIN or EIO and say nothing of it, are late, and overtake each other. The same seed gives the
/// same lies, though not to the same operations if several threads are at it.
///
/// A count that is shorter than what was done is what a short read or write of a file is: the bytes
/// beyond it are read or written again. So every retry loop that is right stays right. What is done at
/// once, without blocking, is done honestly: say [`Read::cold`](crate::Read::cold) of what is to be lied
/// about.
///
/// In a queue of a [`Sim`](kevent_core::testing::Sim) it is late by made-up time, and two runs with one
/// seed are the same. An honest engine takes no time there.
///
/// ```
/// use kevent_aio::{Aio, testing};
///
/// let aio = testing::lying(Aio::builder(), 7).build()?;
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub fn lying(builder: Builder, seed: u64) -> Builder {
    let liar = Liar { state: AtomicU64::new(seed) };
    let mut builder = builder.backend(Choice::Pool);
    builder.runner = Some(Arc::new(liar));
    builder
}

/// Runs operations, more or less.
struct Liar {
    state: AtomicU64,
}

impl Run for Liar {
    fn delay(&self) -> Duration {
        Duration::from_micros(self.dice(200))
    }

    fn run(&self, op: &mut Op) -> Outcome {
        match self.dice(16) {
            0 => Err(Errno(libc::EAGAIN)),
            1 => Err(Errno(libc::EIO)),
            lie => {
                let outcome = op.run();
                let short = lie < 6 && counts_bytes(op);
                outcome.map(
                    |n| if short && n > 1 { 1 + self.dice(u64::from(n) - 1) as u32 } else { n },
                )
            }
        }
    }
}

impl Liar {
    /// The next number below `sides`: splitmix64, which is enough to be surprised.
    fn dice(&self, sides: u64) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }
}

/// Whether the outcome is a count that may be shorter.
fn counts_bytes(op: &Op) -> bool {
    match op {
        Op::Read(_) | Op::Write(_) | Op::ReadVectored(_) | Op::WriteVectored(_) => true,
        Op::Chain(chain) => chain.counts_bytes(),
        _ => false,
    }
}
