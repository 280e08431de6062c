//! Real-time signals, of which each one is queued: as many are told as were sent.
//!
//! The main thread sends them to the process, and so runs their handlers before it comes back from
//! that: no signal is on its way when its registration is removed, which would end the process.

use std::process;

use kevent_core::{Processes, Queue, Signal, SignalEvent, Signals, SourceId, Token};

use crate::dice::Dice;
use crate::ledger::{Amounts, AskedAt, Removals};
use crate::loads::Event;

pub(crate) struct SignalLoad {
    id: SourceId<Signals>,
    processes: SourceId<Processes>,
    /// This process, to send signals to.
    myself: Token,
    signals: Vec<(Signal, Option<Token>)>,
    pub(crate) amounts: Amounts,
}

/// So many may be on their way.
const MOST: u64 = 500;

impl SignalLoad {
    pub(crate) fn new(queue: &mut Queue<Event>, processes: SourceId<Processes>) -> SignalLoad {
        let signals = Signals::new([]).expect("a source of signals");
        let id = queue.attach(signals, Event::Signal).expect("signals attach");
        let myself =
            queue[processes].watch_pid(process::id(), u64::MAX).expect("this process runs");
        let signals = (1..=4).filter_map(Signal::realtime).map(|signal| (signal, None)).collect();
        SignalLoad { id, processes, myself, signals, amounts: Amounts::default() }
    }

    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, dice: &mut Dice, removals: &Removals) {
        let place = dice.below(self.signals.len());
        let (signal, registered) = &mut self.signals[place];
        match registered {
            None => *registered = Some(queue[self.id].add(*signal).expect("nobody has it")),
            Some(token) if dice.once_in(200) => {
                assert!(queue[self.id].remove(*token));
                self.amounts.remove(*token, removals.removed());
                *registered = None;
            }
            Some(token) if self.amounts.tally.outstanding() < MOST => {
                self.amounts.add(*token, 1);
                queue[self.processes].kill(self.myself, *signal).expect("a signal to myself");
            }
            Some(_) => {}
        }
    }

    pub(crate) fn told(&mut self, event: &SignalEvent, asked: AskedAt) {
        self.amounts.told(event.token, event.count as u64, asked);
    }
}
