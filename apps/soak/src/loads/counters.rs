//! Counters: what is added comes out, unless the counter is removed.

use kevent_core::{Adder, CounterEvent, Counters, Queue, SourceId, Token};

use crate::dice::Dice;
use crate::ledger::{Amounts, AskedAt, Removals};
use crate::loads::Event;

pub(crate) struct CounterLoad {
    id: SourceId<Counters>,
    counters: Vec<Option<(Token, Adder)>>,
    pub(crate) amounts: Amounts,
}

/// So much may be on its way.
const MOST: u64 = 2_000;

impl CounterLoad {
    pub(crate) fn new(queue: &mut Queue<Event>) -> CounterLoad {
        let id = queue.attach(Counters::new(), Event::Counter).expect("counters attach");
        CounterLoad { id, counters: (0..16).map(|_| None).collect(), amounts: Amounts::default() }
    }

    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, dice: &mut Dice, removals: &Removals) {
        let place = dice.below(self.counters.len());
        let source = &mut queue[self.id];
        match &self.counters[place] {
            None => {
                let made = if dice.once_in(2) { source.sum(0) } else { source.semaphore(0) };
                self.counters[place] = Some(made.expect("a counter"));
            }
            Some((token, _)) if dice.once_in(200) => {
                assert!(source.remove(*token));
                self.amounts.remove(*token, removals.removed());
                self.counters[place] = None;
            }
            Some((token, adder)) if self.amounts.tally.outstanding() < MOST => {
                let amount = 1 + dice.roll() % 4;
                self.amounts.add(*token, amount);
                adder.add(amount).expect("there is room for it");
            }
            Some(_) => {}
        }
    }

    pub(crate) fn told(&mut self, event: &CounterEvent, asked: AskedAt) {
        self.amounts.told(event.token, event.value, asked);
    }
}
