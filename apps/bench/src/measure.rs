//! Clocks, processors, and the loop around what is measured.

use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

use crate::group::{Result, Setting};

/// The processor time that this process has used, all threads together, in nanoseconds.
pub(crate) fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Processor time in nanoseconds that `work` takes of this process.
pub(crate) fn cpu_of<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let before = cpu_time();
    let result = work()?;
    Ok((cpu_time() - before, result))
}

/// Processor time in nanoseconds of one operation, of which each call of `turn` does `operations`.
///
/// The clock is a system call of its own, so it is looked at between batches that last about a
/// millisecond each; their median keeps out what interrupts and other guests of the host do. A tenth
/// of the time is warm-up.
pub(crate) fn cpu_per_operation(
    setting: &Setting,
    operations: usize,
    mut turn: impl FnMut() -> Result<()>,
) -> Result<f64> {
    let time = setting.pick(Duration::from_millis(100), Duration::from_millis(2));
    let mut turns = 1_u32;
    let started = Instant::now();
    while started.elapsed() < time / 10 {
        let began = Instant::now();
        (0..turns).try_for_each(|_| turn())?;
        if began.elapsed() < Duration::from_millis(1) {
            turns = turns.saturating_mul(2);
        }
    }
    let mut batches = Vec::new();
    let started = Instant::now();
    while started.elapsed() < time {
        let (cost, ()) = cpu_of(|| (0..turns).try_for_each(|_| turn()))?;
        batches.push(cost / f64::from(turns) / operations as f64);
    }
    quantile(&mut batches, 0.5).ok_or("there was no time to measure anything".into())
}

/// The value that `part` of the sorted values are below: the median for 0.5.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * part).round() as usize).copied()
}

/// Keeps this thread, and those that it starts from now on, on one processor.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Two processors that this thread may use; ask before it is pinned to one.
pub(crate) fn two_cpus() -> Result<[usize; 2]> {
    match cpus()?.as_slice() {
        [first, second, ..] => Ok([*first, *second]),
        _ => Err("this takes two processors".into()),
    }
}

/// The processors that this process may use.
pub(crate) fn cpus() -> Result<Vec<usize>> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
}

/// Takes away the 50 us by which the kernel may let sleeps of this thread run over.
pub(crate) fn no_timer_slack() -> Result<()> {
    Ok(rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))?)
}

/// Random numbers, always the same ones: no peer is lucky.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    /// Below `limit`, by xorshift64*.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % limit
    }

    pub(crate) fn pick<'i, T>(&mut self, items: &'i [T]) -> Result<&'i T> {
        Ok(items
            .get(self.below(items.len().max(1) as u64) as usize)
            .ok_or("nothing to pick from")?)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
