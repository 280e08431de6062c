//! Whether to watch for a wake-up for a moment before sleeping in the kernel, and for how long.
//!
//! A thread on another processor that is woken by the kernel comes back after tens of microseconds: an
//! interrupt, and often a processor that has to leave its own sleep. One that watches the doorbell is
//! back in a tenth of a microsecond, and the waking one is spared a system call. But watching costs all
//! that it lasts when nobody comes; and where both share a processor nobody can come meanwhile.
//!
//! So a thread spins only if whoever woke it last ran on another processor, and after every spin for
//! nothing it lets more sleeps go by before the next ([`Rest`]).

use std::hint;
use std::time::{Duration, Instant};

use crate::rest::Rest;
use crate::sys::cpu;
use crate::waker::Waker;

/// Looks at the doorbell between two at the clock. A look and its pause take about 20 ns.
const LOOKS: u32 = 32;

/// Decides for each sleep of a queue.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// How long a spin may last. Zero: there is none.
    limit: Duration,
    rest: Rest,
}

impl Spin {
    pub(crate) fn set_limit(&mut self, limit: Duration) {
        *self = Spin { limit, ..Spin::default() };
    }

    /// Spins if that is likely to pay, at most for `timeout`, of which it takes away how long that was.
    /// Says whether the thread was woken meanwhile. If not, it is as asleep as before.
    ///
    /// To be called by a thread that has fallen asleep ([`Waker::fall_asleep`]) and found nothing
    /// since. What has no waker, as a descriptor, waits until the spin is over.
    pub(crate) fn is_woken(&mut self, waker: &Waker, timeout: &mut Option<Duration>) -> bool {
        if self.limit.is_zero() || !self.pays(waker.last_cpu(), cpu::current()) {
            return false;
        }
        if !waker.doorbell().start_spinning() {
            // It rings: the kernel knows.
            return false;
        }
        let begun = Instant::now();
        let limit = timeout.map_or(self.limit, |timeout| timeout.min(self.limit));
        let woken = watch(waker, begun, limit) || !waker.doorbell().stop_spinning();
        self.rest.tried(woken);
        *timeout = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        woken
    }

    /// Whether to spin now, if the thread runs `here`, and `last` woke it.
    fn pays(&mut self, last: Option<u32>, here: Option<u32>) -> bool {
        last.is_some() && last != here && self.rest.is_over()
    }
}

fn watch(waker: &Waker, begun: Instant, limit: Duration) -> bool {
    while begun.elapsed() < limit {
        for _ in 0..LOOKS {
            if waker.doorbell().spin_is_over() {
                return true;
            }
            hint::spin_loop();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const HERE: Option<u32> = Some(0);
    const THERE: Option<u32> = Some(1);

    fn spin() -> Spin {
        let mut spin = Spin::default();
        spin.set_limit(Duration::from_micros(5));
        spin
    }

    #[test]
    fn who_shares_the_processor_or_is_unknown_is_not_waited_for() {
        let mut spin = spin();
        assert!(!spin.pays(HERE, HERE));
        assert!(!spin.pays(None, HERE));
        assert!(!spin.pays(None, None));
        assert!(spin.pays(THERE, HERE));
    }

    #[test]
    fn spin_that_finds_nobody_gives_back_the_rest_of_the_time() {
        let waker = Waker::new(Clock::real()).unwrap();
        let mut spin = spin();
        // No processor has this number: it is another one than ours.
        waker.note_cpu(Some(1 << 20));
        waker.fall_asleep();
        let mut timeout = Some(Duration::from_secs(1));
        assert!(!spin.is_woken(&waker, &mut timeout));
        assert!(timeout < Some(Duration::from_secs(1)), "time has passed");
        assert!(waker.is_asleep(), "and it still wants to be woken");
    }
}
