//! How long a surplus must last before it goes back.

use std::time::Duration;

use crate::time::Timestamp;

/// If the pool grows again within this time, the surplus that went back was missed.
const MISSED_WITHIN: Duration = Duration::from_secs(600);
/// The same within this many times the delay, if that is longer.
const MISSED_WITHIN_DELAYS: u32 = 4;
/// The longest learnt delay.
const LONGEST: Duration = Duration::from_secs(3600);

/// The least surplus since a moment, and the delay after which it goes back.
///
/// The delay is learnt. When a surplus that went back is soon missed, the next one stays twice as long. So a
/// load that comes and goes makes ever fewer calls. The policy's delay is an argument, since it may change.
#[derive(Debug, Clone, Default)]
pub(super) struct Hysteresis {
    surplus: Option<(Timestamp, usize)>,
    /// The learnt delay. The policy's delay counts if it is longer.
    learnt: Duration,
    /// When a surplus last went back, if it has not been missed yet.
    given_at: Option<Timestamp>,
}

impl Hysteresis {
    pub(super) fn observe(&mut self, n: usize, now: Timestamp) {
        let (since, least) = self.surplus.unwrap_or((now, n));
        self.surplus = (n > 0).then(|| (since, least.min(n)));
    }

    /// How much may go back now, and for how long it has been surplus. The surplus is counted anew from `now`.
    pub(super) fn take_ripe(&mut self, shortest: Duration, now: Timestamp) -> (usize, Duration) {
        let delay = self.delay(shortest);
        let Some((since, n)) = self.surplus.take_if(|(since, _)| *since + delay <= now) else {
            return (0, Duration::ZERO);
        };
        if self.given_at.is_some_and(|at| at + missed_within(delay) <= now) {
            self.learnt = delay / 2;
        }
        self.given_at = Some(now);
        (n, now.since(since))
    }

    /// When the present surplus may go back.
    pub(super) fn ripe_at(&self, shortest: Duration) -> Option<Timestamp> {
        self.surplus.map(|(since, _)| since + self.delay(shortest))
    }

    /// Takes in that the pool grows again.
    pub(super) fn miss(&mut self, shortest: Duration, now: Timestamp) {
        let delay = self.delay(shortest);
        if self.given_at.take_if(|at| now < *at + missed_within(delay)).is_some() {
            self.learnt = (delay * 2).min(LONGEST.max(shortest));
        }
    }

    fn delay(&self, shortest: Duration) -> Duration {
        self.learnt.max(shortest)
    }
}

fn missed_within(delay: Duration) -> Duration {
    MISSED_WITHIN.max(delay * MISSED_WITHIN_DELAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: u64 = 30;
    const SHORTEST: Duration = Duration::from_secs(DELAY);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn least_surplus_over_the_delay_is_ripe() {
        let check = |observed: &[(u64, usize)], second: u64, ripe: (usize, u64)| {
            let mut hysteresis = Hysteresis::default();
            for (second, n) in observed {
                hysteresis.observe(*n, at(*second));
            }
            let (n, lasted) = hysteresis.take_ripe(SHORTEST, at(second));
            assert_eq!((n, lasted.as_secs()), ripe, "{observed:?} at {second}");
        };
        check(&[], 100, (0, 0));
        check(&[(0, 5)], 29, (0, 0));
        check(&[(0, 5)], 30, (5, 30));
        check(&[(0, 5)], 47, (5, 47));
        check(&[(0, 5), (10, 2), (20, 9)], 30, (2, 30));
        check(&[(0, 5), (10, 0), (20, 9)], 30, (0, 0));
        check(&[(0, 5), (10, 0), (20, 9)], 50, (9, 30));
    }

    /// Gives the surplus back as soon as it may go, and misses it `missed` seconds later. Returns how many
    /// seconds it took until it could go.
    fn give_and_miss(hysteresis: &mut Hysteresis, start: u64, missed: Option<u64>) -> u64 {
        hysteresis.observe(1, at(start));
        let ripe_at = hysteresis.ripe_at(SHORTEST).unwrap();
        assert_eq!(hysteresis.take_ripe(SHORTEST, ripe_at).0, 1);
        if let Some(missed) = missed {
            hysteresis.miss(SHORTEST, at(ripe_at.as_millis() / 1000 + missed));
        }
        ripe_at.as_millis() / 1000 - start
    }

    #[test]
    fn delay_doubles_when_missed_and_halves_when_not() {
        let mut hysteresis = Hysteresis::default();
        let delays: Vec<_> =
            (0..9).map(|day| give_and_miss(&mut hysteresis, day * 86_400, Some(5))).collect();
        assert_eq!(delays, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        let delays: Vec<_> =
            (10..19).map(|day| give_and_miss(&mut hysteresis, day * 86_400, None)).collect();
        assert_eq!(delays, [3600, 3600, 1800, 900, 450, 225, 112, 56, 30]);
    }

    #[test]
    fn growth_long_after_a_return_misses_nothing() {
        let mut hysteresis = Hysteresis::default();
        give_and_miss(&mut hysteresis, 0, Some(601));
        assert_eq!(give_and_miss(&mut hysteresis, 86_400, None), DELAY);
    }
}
