//! Random delays, for latency and for staleness.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// A random delay between two bounds, with an optional tail up to a third bound.
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
    /// Uniform between `min_ms` and `max_ms` milliseconds; `min_ms` if `max_ms` is less.
    #[must_use]
    pub const fn between(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms, tail_permille: 0, tail_max_ms: 0 }
    }

    /// Always `ms` milliseconds.
    #[must_use]
    pub const fn exactly(ms: u64) -> Self {
        Self::between(ms, ms)
    }

    /// In `permille` of 1,000 cases longer: uniform between the upper bound and `max_ms`
    /// milliseconds.
    #[must_use]
    pub const fn with_tail(self, permille: u16, max_ms: u64) -> Self {
        Self { tail_permille: permille, tail_max_ms: max_ms, ..self }
    }

    /// No delay is shorter.
    #[must_use]
    pub const fn shortest(self) -> Duration {
        Duration::from_millis(self.min_ms)
    }

    /// One delay. Draws no number if both bounds are equal and there is no tail.
    pub fn sample(self, rng: &mut Rng) -> Duration {
        let (from, to) = if rng.chance(self.tail_permille) {
            (self.max_ms, self.tail_max_ms)
        } else {
            (self.min_ms, self.max_ms)
        };
        let width = to.saturating_sub(from);
        let extra = if width == 0 { 0 } else { rng.below(width.saturating_add(1)) };
        Duration::from_millis(from.saturating_add(extra))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_samples_stay_within_bounds() {
        let mut rng = Rng::new(7);
        let delay = Delay::between(10, 20).with_tail(500, 100);
        let samples: Vec<Duration> = (0..1000).map(|_| delay.sample(&mut rng)).collect();
        let in_tail = samples.iter().filter(|it| **it > Duration::from_millis(20)).count();
        assert!(samples.iter().all(|it| (10..=100).contains(&it.as_millis())));
        assert!((400..600).contains(&in_tail), "{in_tail}");
        assert!(samples.iter().all(|it| *it >= delay.shortest()));
        assert_eq!(Delay::default().sample(&mut rng), Duration::ZERO);
        assert_eq!(Delay::exactly(5).sample(&mut rng), Duration::from_millis(5));
    }

    #[test]
    fn fixed_delay_draws_no_number() {
        let (mut one, mut other) = (Rng::new(1), Rng::new(1));
        Delay::exactly(5).sample(&mut one);
        assert_eq!(one.below(100), other.below(100));
    }
}
