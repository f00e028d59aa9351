//! Seeded chance: the only source of randomness in the model.
//!
//! The generator is SplitMix64. Its stream is part of what a seed means, so it must never change:
//! [`rand_xoshiro`] promises that for its generators, and a test holds the first numbers.

use std::time::Duration;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// A stream of numbers that follows from its seed alone.
#[derive(Debug, Clone)]
pub(crate) struct Dice(SplitMix64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn next_wide(&mut self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }

    /// A number in `0..end`, 0 if `end` is 0. The bias is below 2^-32 for any range used here.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// An index below `len`, which must not be 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        let len = u64::try_from(len).expect("usize is at most 64 bits wide");
        usize::try_from(self.below(len)).expect("below a usize")
    }

    /// True in `permille` of 1,000 cases. Draws nothing where the answer is certain, so that a
    /// switch that is off does not shift the stream.
    pub(crate) fn chance(&mut self, permille: u16) -> bool {
        permille > 0 && self.below(1000) < u64::from(permille)
    }
}

/// A random length of time: between two bounds, and now and then up to a third.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    min_ms: u64,
    max_ms: u64,
    #[serde(default)]
    tail_permille: u16,
    #[serde(default)]
    tail_max_ms: u64,
}

impl Delay {
    /// Evenly between `min_ms` and `max_ms` milliseconds; `min_ms` if `max_ms` is less.
    #[must_use]
    pub const fn between(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms, tail_permille: 0, tail_max_ms: 0 }
    }

    /// Always `ms` milliseconds.
    #[must_use]
    pub const fn exactly(ms: u64) -> Self {
        Self::between(ms, ms)
    }

    /// In `permille` of 1,000 cases longer: between the upper bound and `max_ms` milliseconds.
    #[must_use]
    pub const fn with_tail(self, permille: u16, max_ms: u64) -> Self {
        Self { tail_permille: permille, tail_max_ms: max_ms, ..self }
    }

    pub(crate) fn roll(self, dice: &mut Dice) -> Duration {
        let (from, to) = if dice.chance(self.tail_permille) {
            (self.max_ms, self.tail_max_ms)
        } else {
            (self.min_ms, self.max_ms)
        };
        let width = to.saturating_sub(from);
        let extra = if width == 0 { 0 } else { dice.below(width.saturating_add(1)) };
        Duration::from_millis(from.saturating_add(extra))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source of the numbers: the generator's reference implementation, `splitmix64.c` by S. Vigna.
    #[test]
    fn stream_of_a_seed_never_changes() {
        let mut dice = Dice::new(1_477_776_061_723_855_037);
        let first = [(); 3].map(|()| dice.next());
        let expect =
            [1_985_237_415_132_408_290, 2_979_275_885_539_914_483, 13_511_426_838_097_143_398];
        assert_eq!(first, expect);
    }

    #[test]
    fn delays_stay_in_their_bounds() {
        let mut dice = Dice::new(7);
        let delay = Delay::between(10, 20).with_tail(500, 100);
        let rolls: Vec<Duration> = (0..1000).map(|_| delay.roll(&mut dice)).collect();
        let in_tail = rolls.iter().filter(|roll| **roll > Duration::from_millis(20)).count();
        assert!(rolls.iter().all(|roll| (10..=100).contains(&roll.as_millis())));
        assert!((400..600).contains(&in_tail), "{in_tail}");
        assert_eq!(Delay::default().roll(&mut dice), Duration::ZERO);
        assert_eq!(Delay::exactly(5).roll(&mut dice), Duration::from_millis(5));
    }

    #[test]
    fn certainty_draws_nothing() {
        let (mut one, mut other) = (Dice::new(1), Dice::new(1));
        assert!(!one.chance(0));
        Delay::exactly(5).roll(&mut one);
        assert_eq!(one.next(), other.next());
    }
}
