//! Letting a short batch grow while others are posting.
//!
//! A reader that follows close behind a writer takes away the cache line that is just being written, again
//! and again, and both work at the speed at which a line goes back and forth: 45 ns for each post instead of
//! 10. Two threads that run on two processors settle there by themselves, because the reader then finds
//! only a few posts at a time and is soon back. One that looks elsewhere for some microseconds finds
//! hundreds, and is not back before there are hundreds again.
//!
//! So who finds a short batch watches nothing for a moment, and then takes what has come. The moment
//! gets longer as long as it pays, and rare where it does not: where nobody else posts, or nobody can because
//! all share one processor.

use std::hint;

use crate::rest::Rest;

/// So many posts in a batch are enough.
pub(crate) const ENOUGH: usize = 256;

/// So many have to come in a moment for it to have paid.
const WORTH: usize = 8;

/// The length of a moment in pauses of the processor, each of which takes 15 to 40 ns.
const SHORTEST: u32 = 32;
const LONGEST: u32 = 256;

/// Decides for each short batch of a source.
#[derive(Debug)]
pub(crate) struct Linger {
    pauses: u32,
    rest: Rest,
}

impl Linger {
    pub(crate) fn new() -> Linger {
        Linger { pauses: SHORTEST, rest: Rest::default() }
    }

    /// A batch is short. Lets a moment go by if that is likely to pay, and says whether it did: then say
    /// what [came](Linger::came). Not in the models, where no time goes by.
    #[inline]
    pub(crate) fn lingers(&mut self) -> bool {
        let lingers = self.rest.is_over() && !cfg!(kevent_loom);
        if lingers {
            (0..self.pauses).for_each(|_| hint::spin_loop());
        }
        lingers
    }

    /// So many posts came meanwhile.
    pub(crate) fn came(&mut self, posts: usize) {
        let paid = posts >= WORTH;
        self.pauses = if paid { (2 * self.pauses).min(LONGEST) } else { SHORTEST };
        self.rest.tried(paid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_get_longer_as_long_as_they_pay() {
        let mut linger = Linger::new();
        for expected in [32, 64, 128, 256, 256] {
            assert_eq!(linger.pauses, expected);
            assert!(linger.lingers());
            linger.came(WORTH);
        }
        linger.came(WORTH - 1);
        assert_eq!(linger.pauses, SHORTEST);
        assert!(!linger.lingers(), "one for nothing makes the next short batch go by");
        assert!(linger.lingers());
    }
}
