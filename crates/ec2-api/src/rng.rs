//! The one random number generator of the models and of simulations around them.
//!
//! The generator is SplitMix64. Recorded seeds and reports depend on its exact numbers. [`rand_xoshiro`]
//! promises that they never change, and a test holds the first of them.

use std::time::Duration;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// A stream of random numbers. The same seed gives the same numbers.
#[derive(Debug, Clone)]
pub struct Rng(SplitMix64);

impl Rng {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    /// Stream number `stream` of `seed`. Streams of one seed do not depend on each other.
    #[must_use]
    pub fn with_stream(seed: u64, stream: u64) -> Self {
        let mut mixed = Self::new(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self::new(mixed.next())
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "the stream has no end")]
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The next 128 bits.
    pub fn next_wide(&mut self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }

    /// A number below `end`; 0 if `end` is 0. The bias is below 2^-32 for any `end` up to 2^32.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// An index below `len`, which must not be 0.
    pub fn index(&mut self, len: usize) -> usize {
        let len = u64::try_from(len).expect("usize is at most 64 bits wide");
        usize::try_from(self.below(len)).expect("below a usize")
    }

    /// One of `among`, which must not be empty.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.index(among.len())]
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True in `permille` of 1,000 cases. It draws no number if `permille` is 0, so a switch that
    /// is off does not change the numbers that follow.
    pub fn chance(&mut self, permille: u16) -> bool {
        permille > 0 && self.below(1000) < u64::from(permille)
    }

    /// At least 0 and below 1.
    pub fn unit(&mut self) -> f64 {
        let bits = u32::try_from(self.next() >> 32).expect("32 bits are left");
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }

    /// `span`, and up to `share` of it more.
    pub fn jittered(&mut self, span: Duration, share: f64) -> Duration {
        span + span.mul_f64(self.unit() * share)
    }

    /// An exponentially distributed gap: the time between independent events.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// The items in random order.
    pub fn shuffled<T>(&mut self, items: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut items: Vec<T> = items.into_iter().collect();
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source of the numbers: the generator's reference implementation, `splitmix64.c` by S. Vigna.
    #[test]
    fn stream_of_a_seed_never_changes() {
        let mut rng = Rng::new(1_477_776_061_723_855_037);
        let first = [(); 3].map(|()| rng.next());
        let expect =
            [1_985_237_415_132_408_290, 2_979_275_885_539_914_483, 13_511_426_838_097_143_398];
        assert_eq!(first, expect);
    }

    #[test]
    fn same_seed_and_stream_give_same_numbers() {
        let draw = |seed, stream| {
            let mut rng = Rng::with_stream(seed, stream);
            (0..4).map(|_| rng.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn impossible_chance_draws_no_number() {
        let (mut one, mut other) = (Rng::new(1), Rng::new(1));
        assert!(!one.chance(0));
        assert_eq!(one.next(), other.next());
    }

    #[test]
    fn samples_stay_within_bounds() {
        let mut rng = Rng::with_stream(7, 0);
        let second = Duration::from_secs(1);
        for _ in 0..1000 {
            assert!((0.0..1.0).contains(&rng.unit()));
            assert!((second..second * 3 / 2).contains(&rng.jittered(second, 0.5)));
        }
        let mean = (0..1000).map(|_| rng.exponential(second)).sum::<Duration>() / 1000;
        assert!((second * 9 / 10..second * 11 / 10).contains(&mean), "{mean:?}");
        let mut shuffled = rng.shuffled(0..50);
        assert_ne!(shuffled, (0..50).collect::<Vec<_>>());
        shuffled.sort_unstable();
        assert_eq!(shuffled, (0..50).collect::<Vec<_>>());
    }
}
