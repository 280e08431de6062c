//! The name of one registration.

use std::fmt;

/// Names one registration of one source.
///
/// A token carries the slot of the registration and the generation of that slot's tenant. A slot is
/// used again, a generation is not (it wraps after 2³² registrations of one table), so a late event
/// or a late call for a registration that is gone is recognised instead of hitting its successor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    slot: u32,
    generation: u32,
}

impl Token {
    /// The token of a source that has no registrations to tell apart.
    pub const SOLE: Token = Token { slot: 0, generation: 0 };

    #[inline]
    pub(crate) const fn new(slot: u32, generation: u32) -> Token {
        Token { slot, generation }
    }

    /// The token as one number, for logs and for interfaces that carry 64 bits.
    #[must_use]
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The token that [`to_bits`](Token::to_bits) made a number of.
    #[must_use]
    #[inline]
    pub fn from_bits(bits: u64) -> Token {
        Token { slot: bits as u32, generation: (bits >> 32) as u32 }
    }

    /// The slot, which is unique among the registrations that stand at one time.
    #[must_use]
    #[inline]
    pub fn slot(self) -> u32 {
        self.slot
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}v{})", self.slot, self.generation)
    }
}
