//! What a step's arguments are made of: constants, variables, and what earlier steps have given.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Not;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ops::Stat;

/// A step of a chain, and what it gives: `StepId<Stat>` is a step that gives a [`Stat`].
///
/// It is good for the chain that gave it, and for no other.
pub struct StepId<T> {
    pub(super) chain: u64,
    pub(super) index: usize,
    gives: PhantomData<fn() -> T>,
}

/// What a step that opens gives: a file for later steps. Nothing is ever made of this type.
#[derive(Debug)]
pub enum Opened {}

/// What a step that reads or transforms gives: bytes. Nothing is ever made of this type.
#[derive(Debug)]
pub enum Data {}

/// What a step that reads a directory gives: entries. Nothing is ever made of this type.
#[derive(Debug)]
pub enum Listing {}

/// What a step that is done for its effect gives. Nothing is ever made of this type.
#[derive(Debug)]
pub enum Effect {}

impl<T> StepId<T> {
    pub(super) fn new(chain: u64, index: usize) -> StepId<T> {
        StepId { chain, index, gives: PhantomData }
    }

    /// Where the step is in the chain, and in its [report](crate::Chain::report).
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }

    /// What the step has counted when it ran last: bytes read, written or sent, the bytes that a
    /// transform gave, the rounds of a loop, the result of an operation. 0 for the others.
    #[must_use]
    pub fn count(self) -> Operand {
        Operand(Source::Count(Reference::to(self)))
    }
}

impl StepId<Stat> {
    /// The size of the file, as that step has found it.
    #[must_use]
    pub fn size(self) -> Operand {
        Operand(Source::Size(Reference::to(self)))
    }
}

impl<T> Clone for StepId<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for StepId<T> {}

impl<T> fmt::Debug for StepId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepId({})", self.index)
    }
}

/// Tells the steps of one chain from those of another.
pub(super) fn chain_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A step or a variable, of whichever type, and its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) chain: u64,
    pub(super) index: usize,
}

impl Reference {
    pub(super) fn to<T>(step: StepId<T>) -> Reference {
        Reference { chain: step.chain, index: step.index }
    }
}

/// A number that the steps of a chain share and change: an offset that moves on, a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable(pub(super) Reference);

/// One number: a constant, a [`Variable`], or what an earlier step has [counted](StepId::count).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand(pub(super) Source);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Constant(u64),
    Variable(Reference),
    Count(Reference),
    Size(Reference),
}

impl From<u64> for Operand {
    fn from(number: u64) -> Operand {
        Operand(Source::Constant(number))
    }
}

impl From<Variable> for Operand {
    fn from(variable: Variable) -> Operand {
        Operand(Source::Variable(variable.0))
    }
}

/// A number that is worked out when a step needs it: an [`Operand`], and what is done to it, from left to
/// right.
///
/// It stays within 0 and 2⁶⁴ - 1: what would be beyond is the nearest of the two.
///
/// ```
/// use kevent_aio::{Chain, Open, Value};
///
/// let mut chain = Chain::new();
/// let file = chain.open(Open::new("log"));
/// let stat = chain.statx(file);
/// // The last four kilobytes.
/// let start = Value::from(stat.size()).minus(4096);
/// chain.read(file, start, 4096);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub(super) first: Operand,
    pub(super) then: Vec<(Change, Operand)>,
}

/// What is done to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Plus,
    Minus,
    Min,
    Max,
}

impl Value {
    /// And that added.
    #[must_use]
    pub fn plus(self, operand: impl Into<Operand>) -> Value {
        self.and(Change::Plus, operand.into())
    }

    /// Less that; 0 if that is more.
    #[must_use]
    pub fn minus(self, operand: impl Into<Operand>) -> Value {
        self.and(Change::Minus, operand.into())
    }

    /// Or that, if that is less.
    #[must_use]
    pub fn min(self, operand: impl Into<Operand>) -> Value {
        self.and(Change::Min, operand.into())
    }

    /// Or that, if that is more.
    #[must_use]
    pub fn max(self, operand: impl Into<Operand>) -> Value {
        self.and(Change::Max, operand.into())
    }

    fn and(mut self, change: Change, operand: Operand) -> Value {
        self.then.push((change, operand));
        self
    }

    /// The operands, from left to right.
    pub(super) fn operands(&self) -> impl Iterator<Item = Operand> {
        [self.first].into_iter().chain(self.then.iter().map(|(_, operand)| *operand))
    }

    /// The number, if it needs nobody to be known.
    pub(super) fn constant(&self) -> Option<u64> {
        match (self.first.0, self.then.as_slice()) {
            (Source::Constant(number), []) => Some(number),
            _ => None,
        }
    }

    /// Works it out.
    pub(super) fn evaluate(&self, look_up: impl Fn(Operand) -> u64) -> u64 {
        self.then.iter().fold(look_up(self.first), |value, (change, operand)| {
            let operand = look_up(*operand);
            match change {
                Change::Plus => value.saturating_add(operand),
                Change::Minus => value.saturating_sub(operand),
                Change::Min => value.min(operand),
                Change::Max => value.max(operand),
            }
        })
    }
}

impl From<Operand> for Value {
    fn from(first: Operand) -> Value {
        Value { first, then: Vec::new() }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Operand::from(number).into()
    }
}

impl From<Variable> for Value {
    fn from(variable: Variable) -> Value {
        Operand::from(variable).into()
    }
}

/// What a branch depends on, and when a loop is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub(super) test: Test,
    /// It holds if the test does not.
    pub(super) negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Succeeded(Reference),
    FailedWith(Reference, io::ErrorKind),
    Equal(Value, Value),
    Less(Value, Value),
    Holds(Reference, Vec<u8>),
}

impl Condition {
    /// The step has run, and did not fail when it ran last.
    ///
    /// A step can only have failed if the chain [goes on](crate::Stop::Never) after that.
    #[must_use]
    pub fn succeeded<T>(step: StepId<T>) -> Condition {
        Condition::of(Test::Succeeded(Reference::to(step)))
    }

    /// The step failed with such an error when it ran last.
    #[must_use]
    pub fn failed_with<T>(step: StepId<T>, kind: io::ErrorKind) -> Condition {
        Condition::of(Test::FailedWith(Reference::to(step), kind))
    }

    /// Both are the same number.
    #[must_use]
    pub fn equal(one: impl Into<Value>, other: impl Into<Value>) -> Condition {
        Condition::of(Test::Equal(one.into(), other.into()))
    }

    /// The first is less than the second.
    #[must_use]
    pub fn less(one: impl Into<Value>, other: impl Into<Value>) -> Condition {
        Condition::of(Test::Less(one.into(), other.into()))
    }

    /// The step has given these bytes: a checksum is the one that was expected.
    #[must_use]
    pub fn holds(step: StepId<Data>, bytes: impl Into<Vec<u8>>) -> Condition {
        Condition::of(Test::Holds(Reference::to(step), bytes.into()))
    }

    fn of(test: Test) -> Condition {
        Condition { test, negated: false }
    }
}

/// The opposite.
impl Not for Condition {
    type Output = Condition;

    fn not(self) -> Condition {
        Condition { negated: !self.negated, ..self }
    }
}

/// When a step is the last: of the innermost loop that it is in, which is left; of the chain, if it is
/// in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// When it fails. That ends the chain, from within a loop as well, and is the error of its completion.
    #[default]
    Error,
    /// Also when it counts 0, as a read does at the end of the file. That is no failure.
    Zero,
    /// Also when it counts less than it was asked for: a read that came to the end of the file, a file
    /// that ended before what was to be sent of it. That is no failure.
    Short,
    /// Never: the chain goes on after an error. What the step gives may be used where a
    /// [branch](crate::Chain::branch) has seen that it [succeeded](Condition::succeeded).
    Never,
}

/// When a clean-up is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// When the chain ends, whatever its end.
    Always,
    /// When it ends because a step failed, because it was cancelled, or because its time was over.
    Failed,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn value_stays_within_its_bounds(numbers in prop::collection::vec((0..4_u8, any::<u64>()), 0..20)) {
            let mut value = Value::from(7);
            let mut expected = 7_i128;
            for (change, number) in numbers {
                let other = i128::from(number);
                (value, expected) = match change {
                    0 => (value.plus(number), expected + other),
                    1 => (value.minus(number), expected - other),
                    2 => (value.min(number), expected.min(other)),
                    _ => (value.max(number), expected.max(other)),
                };
                expected = expected.clamp(0, u64::MAX.into());
            }
            let constant = |operand: Operand| match operand.0 {
                Source::Constant(number) => number,
                other => panic!("{other:?} is none"),
            };
            prop_assert_eq!(i128::from(value.evaluate(constant)), expected);
        }
    }
}
