//! Numbers by chance that come again with their seed.

/// A stream of numbers that look like chance, and are the same whenever the seed is.
///
/// For tests. Nobody who watches it for a while fails to guess the next number.
///
/// ```
/// use kevent_core::testing::Dice;
///
/// let (mut one, mut other) = (Dice::new(7), Dice::new(7));
/// assert_eq!(one.below(1000), other.below(1000));
/// assert!(["north", "south"].contains(one.pick(&["north", "south"]).unwrap()));
/// ```
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of that seed.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next 64 bits: splitmix64, of which each seed has a stream of its own.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`; 0 if there are none.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.bits().checked_rem(sides).unwrap_or(0)
    }

    /// Heads, once in two times.
    pub fn flip(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    /// One of `list`; nothing if that is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len() as u64) as usize)
    }

    /// Puts `list` into any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_and_every_order_comes_up_about_as_often() {
        let mut dice = Dice::new(1);
        let mut sides = [0; 6];
        let mut orders = std::collections::HashMap::new();
        for _ in 0..6000 {
            sides[dice.below(6) as usize] += 1;
            let mut list = [1, 2, 3];
            dice.shuffle(&mut list);
            *orders.entry(list).or_insert(0) += 1;
        }
        assert_eq!(orders.len(), 6);
        let all = sides.into_iter().chain(orders.into_values());
        assert!(all.into_iter().all(|count| (850..1150).contains(&count)));
    }

    #[test]
    fn nothing_is_picked_of_nothing() {
        let mut dice = Dice::new(1);
        assert_eq!((dice.below(0), dice.pick::<u8>(&[])), (0, None));
    }
}
