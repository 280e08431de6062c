//! Several operations at once, and one completion for as many of them as matter.

use std::fmt;
use std::io;

use io_uring::squeue::Entry;
use kevent_core::Token;

use crate::completion::Completion;
use crate::operation::{Operation, Outcome, Step};
use crate::ops::Op;

/// Operations that are submitted together and run side by side, with one completion when enough of them are
/// done.
///
/// The group is refused or accepted as a whole. It counts as one operation in flight beside its members. Its
/// completion has theirs ([`take`](Group::take)), those that were done by then, in the order in which they were
/// done; the result is how many of them succeeded. What is not among them comes on its own, as if it had been
/// submitted alone: nothing is lost, and nothing comes twice.
///
/// To cancel the group, or to be past its deadline, is to cancel what is left of it; the completion comes at
/// once, with what was done by then.
///
/// ```
/// use std::sync::Arc;
/// use kevent_aio::{Aio, Group, Op, Read};
/// use kevent_core::Queue;
///
/// let mut queue = Queue::new()?;
/// let aio = queue.attach(Aio::new()?, |completion| completion)?;
///
/// let file = Arc::new(std::fs::File::open("/proc/self/status")?);
/// let mut group = Group::all();
/// for key in 0..3 {
///     group.add(Read::new(file.clone(), key * 16, Vec::with_capacity(16)), key);
/// }
/// queue[aio].submit(group, 7).unwrap();
///
/// queue.wait(None)?;
/// let completion = queue.next().unwrap();
/// assert_eq!((completion.key, completion.result?), (7, 3));
/// let Op::Group(mut group) = *completion.op else { unreachable!() };
/// assert_eq!(group.take().iter().map(|member| member.key).sum::<u64>(), 3);
/// # std::io::Result::Ok(())
/// ```
pub struct Group {
    members: Vec<(Op, u64)>,
    enough: Enough,
    each: bool,
    begun: bool,
    /// Members that are not done, once it has begun.
    left: u32,
    succeeded: u32,
    failed: u32,
    done: Vec<Completion>,
    rest: Box<[Token]>,
}

/// When a group is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enough {
    All,
    Done(usize),
    Succeeded(usize),
}

impl Group {
    /// A group that is done when all of its members are.
    #[must_use]
    pub fn all() -> Group {
        Group::until(Enough::All)
    }

    /// A group that is done when so many of its members are, whether they have succeeded or failed; or all,
    /// if it has fewer.
    #[must_use]
    pub fn first(count: usize) -> Group {
        Group::until(Enough::Done(count))
    }

    /// A group that is done when so many of its members have succeeded, or can't any more: a quorum.
    #[must_use]
    pub fn quorum(count: usize) -> Group {
        Group::until(Enough::Succeeded(count))
    }

    fn until(enough: Enough) -> Group {
        Group {
            members: Vec::new(),
            enough,
            each: false,
            begun: false,
            left: 0,
            succeeded: 0,
            failed: 0,
            done: Vec::new(),
            rest: Box::default(),
        }
    }

    /// Every member has a completion of its own besides, which comes before that of the group. That of the
    /// group has none of them then.
    #[must_use]
    pub fn tell_each(self) -> Group {
        Group { each: true, ..self }
    }

    /// Adds an operation, with the number that its own completion carries.
    pub fn add(&mut self, op: impl Into<Op>, key: u64) -> &mut Group {
        self.members.push((op.into(), key));
        self
    }

    /// How many operations it has that were not begun.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The completions of the members that were done before the group was.
    #[must_use]
    pub fn take(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.done)
    }

    /// The members that were not done when the group was. Each comes on its own; who wants none of them any more
    /// [cancels](crate::Aio::cancel) them.
    #[must_use]
    pub fn rest(&self) -> &[Token] {
        &self.rest
    }

    /// The members, to be begun.
    pub(crate) fn begin(&mut self) -> Vec<(Op, u64)> {
        self.begun = true;
        // So many were never in flight.
        self.left = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        std::mem::take(&mut self.members)
    }

    /// Whether the completions of the members come on their own, too.
    pub(crate) fn tells_each(&self) -> bool {
        self.each
    }

    /// A member is done.
    pub(crate) fn settle(&mut self, succeeded: bool) {
        self.left = self.left.saturating_sub(1);
        *(if succeeded { &mut self.succeeded } else { &mut self.failed }) += 1;
    }

    /// Keeps the completion of a member for its own.
    pub(crate) fn keep(&mut self, completion: Completion) {
        self.done.push(completion);
    }

    /// It is done, and these are not.
    pub(crate) fn leave(&mut self, rest: Box<[Token]>) {
        self.rest = rest;
    }

    /// The result, if the group is done.
    pub(crate) fn result(&self) -> Option<u64> {
        let [left, succeeded, failed] =
            [self.left, self.succeeded, self.failed].map(|count| count as usize);
        let enough = match self.enough {
            Enough::All => false,
            Enough::Done(count) => succeeded + failed >= count,
            Enough::Succeeded(count) => succeeded >= count || succeeded + left < count,
        };
        (enough || left == 0).then_some(succeeded as u64)
    }
}

/// A group is taken apart by the engine, so that no backend ever sees one.
impl Operation for Group {
    fn check(&self) -> io::Result<()> {
        let refuse = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.begun {
            return refuse("a group runs once: build another");
        }
        self.members.iter().try_for_each(|(op, _)| match op {
            Op::Group(_) => refuse("a group can't be a member of a group: submit it beside"),
            op => op.check(),
        })
    }

    fn advance(&mut self) -> Step {
        Step::Done(Ok(0))
    }

    fn encode(&mut self) -> Option<Entry> {
        None
    }

    fn run(&mut self) -> Outcome {
        Ok(0)
    }

    fn complete(&mut self, _: Outcome) -> Step {
        Step::Done(Ok(0))
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("enough", &self.enough)
            .field("members", &self.members.len())
            .field("left", &self.left)
            .field("succeeded", &self.succeeded)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Open;

    /// A group of that many members, and the result after each that ends like that.
    fn results(mut group: Group, members: u64, ends: &[bool]) -> Vec<Option<u64>> {
        for key in 0..members {
            group.add(Open::new("/"), key);
        }
        assert_eq!(group.begin().len() as u64, members);
        let mut results = vec![group.result()];
        for succeeded in ends {
            group.settle(*succeeded);
            results.push(group.result());
        }
        results
    }

    #[test]
    fn group_is_done_when_enough_are() {
        let (yes, no) = (true, false);
        assert_eq!(results(Group::all(), 2, &[no, yes]), [None, None, Some(1)]);
        assert_eq!(results(Group::all(), 0, &[]), [Some(0)]);
        assert_eq!(results(Group::first(2), 3, &[no, yes]), [None, None, Some(1)]);
        assert_eq!(results(Group::first(9), 1, &[yes]), [None, Some(1)]);
        assert_eq!(results(Group::quorum(2), 3, &[yes, no, yes]), [None, None, None, Some(2)]);
        assert_eq!(results(Group::quorum(2), 3, &[no, no]), [None, None, Some(0)], "out of reach");
    }

    #[test]
    fn group_in_a_group_is_refused() {
        let mut outer = Group::all();
        outer.add(Group::all(), 1);
        assert_eq!(outer.check().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
