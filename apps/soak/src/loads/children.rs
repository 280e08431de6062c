//! Child processes: the end of each is told once, and how it ended, unless it is taken back.

use std::process::Command;

use kevent_core::{ProcessEvent, Processes, Queue, SourceId, Token};

use crate::dice::Dice;
use crate::ledger::{Once, Tally};
use crate::loads::Event;

pub(crate) struct ChildLoad {
    pub(crate) id: SourceId<Processes>,
    /// With whether they end well.
    children: Once<(Token, bool)>,
    pub(crate) tally: Tally,
}

impl ChildLoad {
    pub(crate) fn new(queue: &mut Queue<Event>) -> ChildLoad {
        let id = queue.attach(Processes::new(), Event::Child).expect("processes attach");
        ChildLoad { id, children: Once::new(4), tally: Tally::default() }
    }

    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, dice: &mut Dice) {
        let place = self.children.pick(dice);
        let processes = &mut queue[self.id];
        if let Some((token, _)) = self.children.get(place) {
            // None: its event is in the hands of a thread.
            if let Some(mut child) = processes.unwatch(*token) {
                child.wait().expect("the child is ours again");
                self.children.empty(place);
                self.tally.taken_back += 1;
            }
            return;
        }
        let good = dice.once_in(2);
        let child = Command::new(if good { "true" } else { "false" }).spawn().expect("a child");
        self.children.fill(place, |key| {
            (processes.watch_child(child, key).expect("a child can be watched"), good)
        });
        self.tally.provoked += 1;
    }

    pub(crate) fn told(&mut self, event: &ProcessEvent) {
        let (token, good) =
            self.children.take(event.key).expect("once, and not after it was unwatched");
        assert_eq!(token, event.token);
        assert_eq!(event.exit.map(|exit| exit.success()), Some(good));
        self.tally.told += 1;
    }
}
