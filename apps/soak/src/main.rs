//! Random events of all kinds through one queue, every one of them accounted for.
//!
//! `kevent-soak [--seed N] [--threads N] [EVENTS]` plays rounds until so many events were told, a
//! million unless it is said. In each round a new queue has all sources at once. They are registered,
//! changed and removed at random, in all modes, while other threads post; one thread harvests or several
//! do. In the end every event was told once, or its registration was removed before; whatever else
//! happens is a panic, and the program ends with the seed that repeats it, as far as threads can be
//! repeated.

mod dice;
mod ledger;
mod loads;
mod round;

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::panic;
use std::process;
use std::time::Instant;

use kevent_core::Order;

use crate::dice::Dice;
use crate::ledger::Tally;
use crate::round::Terms;

/// The most events of one round.
const ROUND: u64 = 1_000_000;

struct Arguments {
    events: u64,
    seed: u64,
    /// At random in each round, unless it is said.
    threads: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { events, seed, threads } = arguments()?;
    end_with_the_first_panic();
    let begun = Instant::now();
    let mut dice = Dice::new(seed);
    let mut totals = BTreeMap::<&str, Tally>::new();
    let told = |totals: &BTreeMap<_, Tally>| totals.values().map(|tally| tally.told).sum::<u64>();
    while told(&totals) < events {
        let left = events - told(&totals);
        let terms = terms(&mut dice, left.clamp(1_000, ROUND), threads);
        println!("{:>10.1?} {:>11} told, next {terms:?}", begun.elapsed(), told(&totals));
        for (name, tally) in round::play(&terms) {
            *totals.entry(name).or_default() += tally;
        }
    }
    println!("{:<24}{:>12}{:>12}{:>12}", "", "provoked", "told", "taken back");
    for (name, Tally { provoked, told, taken_back }) in &totals {
        println!("{name:<24}{provoked:>12}{told:>12}{taken_back:>12}");
    }
    println!("{} events in {:.1?}, all accounted for", told(&totals), begun.elapsed());
    Ok(())
}

fn terms(dice: &mut Dice, events: u64, threads: Option<usize>) -> Terms {
    let random = [1, 1, 2, 3, 4, 8][dice.below(6)];
    Terms {
        seed: dice.roll(),
        events,
        threads: threads.unwrap_or(random).max(1),
        capacity: NonZeroUsize::MIN.saturating_add([15, 63, 1023, 4095][dice.below(4)]),
        order: if dice.once_in(3) { Order::Strict } else { Order::BySource },
    }
}

fn arguments() -> Result<Arguments, lexopt::Error> {
    use lexopt::prelude::*;
    let mut arguments = Arguments { events: ROUND, seed: 1, threads: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => arguments.seed = parser.value()?.parse()?,
            Long("threads") => arguments.threads = Some(parser.value()?.parse()?),
            Value(events) => arguments.events = events.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(arguments)
}

/// The other threads would wait for ever for one that is gone.
fn end_with_the_first_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        process::abort();
    }));
}
