//! Timers: what each costs, and how late they are, with many of them pending.

mod kevent;
mod peers;

use std::time::{Duration, Instant};

use crate::group::{Bound, Goal, Group, Metric, Peer, Result, Sample, Setting, Topic};
use crate::measure::{self, Random};

pub(crate) const TOPIC: Topic = Topic { name: "timers", title: "Timers", groups, helper: None };

/// Who keeps timers. Every peer's part is this.
trait Timers: Sized + 'static {
    /// Names an armed timer.
    type Id;

    fn open() -> Result<Self>;

    fn arm(&mut self, deadline: Instant, key: u64) -> Result<Self::Id>;

    fn cancel(&mut self, id: Self::Id) -> Result<()>;

    /// Waits until timers are due, and tells their keys.
    fn turn(&mut self, fired: &mut impl FnMut(u64)) -> Result<()>;
}

/// What is to be done.
#[derive(Clone, Copy)]
enum Shape {
    Costs,
    Lateness,
}

fn peer<T: Timers>(name: &'static str, shape: Shape) -> Peer {
    let run = match shape {
        Shape::Costs => costs::<T>,
        Shape::Lateness => lateness::<T>,
    };
    Peer { name, run }
}

/// With a million timers two of the peers would take minutes to cancel them, or to arm them.
fn everyone(shape: Shape, pending: usize) -> Vec<Peer> {
    let mut all = vec![
        peer::<kevent::Kevent>("kevent", shape),
        peer::<peers::DelayQueue>("tokio-util DelayQueue", shape),
        peer::<peers::Sleeps>("tokio sleep", shape),
        peer::<peers::Tree>("BTreeMap + epoll", shape),
        peer::<peers::Heap>("BinaryHeap + epoll", shape),
    ];
    if pending <= 1_000 {
        all.push(peer::<peers::Calloop>("calloop", shape));
        all.push(peer::<peers::Uring>("io_uring TIMEOUT", shape));
    }
    all
}

const COSTS: &[Metric] = &[
    Metric { name: "arm", unit: "ns" },
    Metric { name: "cancel", unit: "ns" },
    Metric { name: "expire", unit: "ns" },
    Metric { name: "arm again", unit: "ns" },
];
const LATE: &[Metric] =
    &[Metric { name: "late, p50", unit: "us" }, Metric { name: "late, p99", unit: "us" }];

fn groups() -> Vec<Group> {
    let goal = |metric, limit| Goal { metric, who: "kevent", bound: Bound::AtMost(limit) };
    let mut groups = Vec::new();
    for (name, words, pending) in
        [("1e3", "1,000", 1_000), ("1e5", "100,000", 100_000), ("1e6", "1,000,000", 1_000_000)]
    {
        let costs = [goal(0, 35.0), goal(1, 90.0), goal(2, 75.0)];
        groups.push(Group {
            name: format!("timers/{name}"),
            title: format!("{words} timers, what each costs"),
            about: "So many timers within a minute are armed, from none on, then cancelled in random \
                    order, then armed again, where each takes the place of another. So many are armed \
                    for the near future and harvested in one go once all are due. CPU time, after one \
                    pass as warm-up.",
            metrics: COSTS,
            peers: everyone(Shape::Costs, pending),
            size: pending,
            goals: if pending == 100_000 { costs.into() } else { vec![] },
        });
        let mut goals = vec![goal(0, 30.0)];
        goals.extend((pending == 1_000_000).then(|| goal(1, 250.0)));
        groups.push(Group {
            name: format!("timers/late-{name}"),
            title: format!("How late a timer is while {words} are pending"),
            about: "Every half of a millisecond a timer is due while many others are pending, up to a \
                    minute ahead. The loop's thread has no timer slack.",
            metrics: LATE,
            peers: everyone(Shape::Lateness, pending),
            size: pending,
            goals,
        });
    }
    groups
}

fn costs<T: Timers>(setting: &Setting) -> Result<Sample> {
    let count = setting.pick(setting.size, 200);
    let mut random = Random::new();
    // Few timers are armed often, for the clock to have something to see.
    let passes = (setting.pick(20_000, 200) / count).max(1);
    let mut costs = [const { Vec::new() }; 4];
    for pass in 0..=passes {
        let mut timers = T::open()?;
        let (armed, ids) = arm(&mut timers, count, &mut random)?;
        let cancelled = cancel(&mut timers, ids, &mut random)?;
        let (armed_again, _) = arm(&mut timers, count, &mut random)?;
        // Its memory is warm for the next: page faults are not what this is about.
        drop(timers);
        let expired = let_expire(&mut T::open()?, count, &mut random)?;
        let measured = [armed, cancelled, expired, armed_again];
        // The first pass is warm-up.
        if pass > 0 {
            costs.iter_mut().zip(measured).for_each(|(costs, cost)| costs.push(cost));
        }
    }
    let per_timer =
        |mut costs: Vec<f64>| measure::quantile(&mut costs, 0.5).map(|cost| cost / count as f64);
    Ok(costs.into_iter().map(per_timer).collect())
}

fn arm<T: Timers>(timers: &mut T, count: usize, random: &mut Random) -> Result<(f64, Vec<T::Id>)> {
    let minute = Duration::from_secs(60);
    let deadlines = deadlines(Instant::now() + minute, count, minute, random);
    let mut ids = Vec::with_capacity(count);
    let (cost, ()) = measure::cpu_of(|| {
        for (key, deadline) in deadlines.into_iter().enumerate() {
            ids.push(timers.arm(deadline, key as u64)?);
        }
        Ok(())
    })?;
    Ok((cost, ids))
}

fn cancel<T: Timers>(timers: &mut T, mut ids: Vec<T::Id>, random: &mut Random) -> Result<f64> {
    random.shuffle(&mut ids);
    let (cost, ()) = measure::cpu_of(|| ids.into_iter().try_for_each(|id| timers.cancel(id)))?;
    Ok(cost)
}

fn let_expire<T: Timers>(timers: &mut T, count: usize, random: &mut Random) -> Result<f64> {
    // Long enough for all to be armed before the first is due.
    let near = Duration::from_micros(count as u64 * 2) + Duration::from_millis(2);
    let deadlines = deadlines(Instant::now() + near, count, near, random);
    let mut ids = Vec::with_capacity(count);
    for (key, deadline) in deadlines.into_iter().enumerate() {
        ids.push(timers.arm(deadline, key as u64)?);
    }
    std::thread::sleep(near * 2);
    let mut fired = 0;
    let (cost, ()) = measure::cpu_of(|| {
        while fired < count {
            timers.turn(&mut |_| fired += 1)?;
        }
        Ok(())
    })?;
    if fired == count { Ok(cost) } else { Err(format!("{fired} of {count} fired").into()) }
}

/// Times between `from` and `from + spread`, in random order.
fn deadlines(from: Instant, count: usize, spread: Duration, random: &mut Random) -> Vec<Instant> {
    let spread = spread.as_nanos() as u64;
    (0..count).map(|_| from + Duration::from_nanos(random.below(spread))).collect()
}

fn lateness<T: Timers>(setting: &Setting) -> Result<Sample> {
    measure::no_timer_slack()?;
    let count = setting.pick(setting.size, 200);
    let (probes, step) = (setting.pick(1_000, 10), Duration::from_micros(500));
    let mut timers = T::open()?;
    let mut random = Random::new();
    // It takes its time to arm a million, and none of these should be due before the probes are.
    let lead = Duration::from_micros(count as u64 * 2) + Duration::from_millis(5);
    let start = Instant::now() + lead;
    let rest = start + step * (probes as u32 + 1);
    let mut ids = Vec::with_capacity(count);
    for deadline in deadlines(rest, count, Duration::from_secs(60), &mut random) {
        ids.push(timers.arm(deadline, u64::MAX)?);
    }
    let due: Vec<Instant> = (0..probes as u32).map(|probe| start + step * probe).collect();
    for (key, deadline) in due.iter().enumerate() {
        ids.push(timers.arm(*deadline, key as u64)?);
    }
    let mut late = Vec::with_capacity(probes);
    while late.len() < probes {
        timers.turn(&mut |key| {
            if let Some(due) = due.get(key as usize) {
                late.push(due.elapsed().as_nanos() as f64 / 1e3);
            }
        })?;
    }
    Ok(vec![measure::quantile(&mut late, 0.5), measure::quantile(&mut late, 0.99)])
}
