//! Operations that wait until the writes before them are done.

use kevent_core::Token;

/// Who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Barriers(Vec<Barrier>);

#[derive(Debug)]
struct Barrier {
    waiting: Token,
    behind: Vec<Token>,
}

impl Barriers {
    /// `waiting` is to go on when all of these are done, of which there is one at least.
    pub(crate) fn insert(&mut self, waiting: Token, behind: Vec<Token>) {
        self.0.push(Barrier { waiting, behind });
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That one is done: says who can go on. (Some may have been cancelled since.)
    pub(crate) fn done(&mut self, token: Token) -> impl Iterator<Item = Token> {
        self.0.iter_mut().for_each(|barrier| barrier.behind.retain(|other| *other != token));
        let (free, waiting) =
            std::mem::take(&mut self.0).into_iter().partition(|barrier| barrier.behind.is_empty());
        self.0 = waiting;
        let free: Vec<Barrier> = free;
        free.into_iter().map(|barrier| barrier.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_all_are_done() {
        let [one, two, three, four] = [1, 2, 3, 4].map(Token::from_bits);
        let mut barriers = Barriers::default();
        barriers.insert(three, vec![one, two]);
        barriers.insert(four, vec![one, three]);
        let done = |barriers: &mut Barriers, token| barriers.done(token).collect::<Vec<_>>();
        assert_eq!(done(&mut barriers, one), []);
        assert_eq!(done(&mut barriers, two), [three]);
        assert_eq!(done(&mut barriers, three), [four]);
        assert!(barriers.is_empty());
    }
}
