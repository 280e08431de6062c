//! Which operations go first.

/// How urgent an operation is, to the disk and to the pool.
///
/// The disk's scheduler goes by it where it has one that does (bfq, and mq-deadline); the threads of the pool take
/// what is more urgent first, in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Only when nobody else wants the disk: class "idle" of ionice(1).
    Idle,
    /// As the program itself.
    #[default]
    Normal,
    /// Before the others: the highest level of class "best effort" of ionice(1).
    High,
}

/// How many there are.
pub(crate) const PRIORITIES: usize = 3;

impl Priority {
    /// As ioprio_set(2) has it. Zero is the program's own.
    pub(crate) fn ioprio(self) -> u16 {
        const SHIFT: u16 = 13;
        match self {
            Priority::Idle => 3 << SHIFT,
            Priority::Normal => 0,
            Priority::High => 2 << SHIFT,
        }
    }
}
