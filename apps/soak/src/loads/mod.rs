//! What is provoked, and what has to come of it: one file for each kind.

mod aio;
mod children;
mod counters;
mod files;
pub(crate) mod posts;
mod signals;
mod sockets;
mod timers;

use kevent_aio::Completion;
use kevent_core::{
    CounterEvent, Idle, Mounts, Pressure, ProcessEvent, Queue, SignalEvent, Source, TimerEvent,
};
use kevent_fs::Change;
use kevent_net::ReadyEvent;

use crate::dice::Dice;
use crate::ledger::{AskedAt, Removals, Tally};
use crate::loads::aio::AioLoad;
use crate::loads::children::ChildLoad;
use crate::loads::counters::CounterLoad;
use crate::loads::files::FileLoad;
use crate::loads::posts::Way;
use crate::loads::signals::SignalLoad;
use crate::loads::sockets::SocketLoad;
use crate::loads::timers::TimerLoad;

/// An event of the queue under test.
pub(crate) enum Event {
    Post(Way, u64),
    Timer(TimerEvent),
    Counter(CounterEvent),
    Signal(SignalEvent),
    Child(ProcessEvent),
    Socket(ReadyEvent),
    File(Change),
    Aio(Box<Completion>),
    /// Of a source that speaks when it likes, and is only there to be in the way.
    Bystander,
}

/// All loads but the posts, which need no lock.
pub(crate) struct Loads {
    dice: Dice,
    timers: TimerLoad,
    counters: CounterLoad,
    signals: SignalLoad,
    children: ChildLoad,
    sockets: SocketLoad,
    files: FileLoad,
    aio: AioLoad,
}

impl Loads {
    pub(crate) fn new(queue: &mut Queue<Event>, mut dice: Dice) -> Loads {
        attach_bystanders(queue);
        let children = ChildLoad::new(queue);
        Loads {
            timers: TimerLoad::new(queue),
            counters: CounterLoad::new(queue),
            signals: SignalLoad::new(queue, children.id),
            children,
            sockets: SocketLoad::new(queue),
            files: FileLoad::new(queue),
            aio: AioLoad::new(queue, &mut dice),
            dice,
        }
    }

    /// Does something at random. The dearer an event is, the rarer.
    pub(crate) fn act(&mut self, queue: &mut Queue<Event>, removals: &Removals) {
        let dice = &mut self.dice;
        match dice.below(100_000) {
            0..5 => self.children.act(queue, dice),
            5..300 => self.files.act(queue, dice, removals),
            300..2_000 => self.aio.act(queue, dice),
            2_000..6_000 => self.signals.act(queue, dice, removals),
            6_000..25_000 => self.sockets.act(queue, dice, removals),
            25_000..45_000 => self.counters.act(queue, dice, removals),
            _ => self.timers.act(queue, dice, removals),
        }
    }

    /// From now on nothing is provoked, and what was is to come.
    pub(crate) fn settle(&mut self, queue: &mut Queue<Event>, removals: &Removals) {
        self.timers.settle(queue, removals);
        self.sockets.settle(queue, removals);
    }

    /// `event`, for which its thread had asked at `asked`.
    pub(crate) fn told(
        &mut self,
        queue: &mut Queue<Event>,
        event: Event,
        asked: AskedAt,
        removals: &Removals,
    ) {
        match event {
            Event::Timer(event) => self.timers.told(&event, asked),
            Event::Counter(event) => self.counters.told(&event, asked),
            Event::Signal(event) => self.signals.told(&event, asked),
            Event::Child(event) => self.children.told(&event),
            Event::Socket(event) => {
                self.sockets.told(queue, &event, &mut self.dice, asked, removals);
            }
            Event::File(change) => self.files.told(&change, asked),
            Event::Aio(completion) => self.aio.told(*completion),
            Event::Post(..) | Event::Bystander => {}
        }
    }

    pub(crate) fn tallies(&self) -> [(&'static str, Tally); 7] {
        [
            ("timers", self.timers.tally),
            ("counters", self.counters.amounts.tally),
            ("signals", self.signals.amounts.tally),
            ("children", self.children.tally),
            ("bytes of sockets", self.sockets.tally),
            ("changes of files", self.files.tally),
            ("operations", self.aio.tally),
        ]
    }
}

/// Sources of which nobody can say what they have to tell.
fn attach_bystanders(queue: &mut Queue<Event>) {
    queue.attach(Idle::new(), |_| Event::Bystander).expect("idleness attaches");
    if Mounts::probe().is_ok() {
        let mounts = Mounts::new().expect("mounts are there");
        queue.attach(mounts, |_| Event::Bystander).expect("mounts attach");
    }
    queue.attach(Pressure::new(), |_| Event::Bystander).expect("pressure attaches");
}
