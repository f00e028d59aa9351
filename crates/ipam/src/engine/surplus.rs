//! Gives back what has been surplus for long enough.

use std::time::Duration;

use super::Engine;
use crate::call::{Action, Ask, Ec2Call};
use crate::eni::Stage;
use crate::id::EniId;
use crate::plan::Surplus;
use crate::retry::Subject;
use crate::time::Timestamp;

/// A whole ENI costs five calls and ten seconds to come back, so it is kept so many times longer
/// than a block.
pub(super) const ENIS_STAY_LONGER: u32 = 10;
/// What is wanted again within that time, or within so many times the delay, was missed.
const MISSED_WITHIN: Duration = Duration::from_secs(600);
const MISSED_WITHIN_DELAYS: u32 = 4;
/// The delay is never longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// How much has been surplus since when: as much as it was at its least in that time.
///
/// Hysteresis that learns: what is wanted again soon after it was given back stays twice as long
/// the next time, so a load that comes and goes makes ever fewer calls.
#[derive(Debug, Clone)]
pub(super) struct Ripening {
    surplus: Option<(Timestamp, usize)>,
    shortest: Duration,
    delay: Duration,
    /// When something was last given back that has not been missed yet.
    given_at: Option<Timestamp>,
}

impl Ripening {
    pub(super) fn new(shortest: Duration) -> Self {
        Self { surplus: None, shortest, delay: shortest, given_at: None }
    }

    fn observe(&mut self, n: usize, now: Timestamp) {
        let (since, least) = self.surplus.unwrap_or((now, n));
        self.surplus = (n > 0).then(|| (since, least.min(n)));
    }

    /// How much may go back now; that much is done with.
    fn take_ripe(&mut self, now: Timestamp) -> usize {
        let delay = self.delay;
        let Some((_, n)) = self.surplus.take_if(|(since, _)| *since + delay <= now) else {
            return 0;
        };
        if self.given_at.is_some_and(|at| at + self.missed_within() <= now) {
            self.delay = (self.delay / 2).max(self.shortest);
        }
        self.given_at = Some(now);
        n
    }

    pub(super) fn ripe_at(&self) -> Option<Timestamp> {
        self.surplus.map(|(since, _)| since + self.delay)
    }

    /// The pool grows again.
    pub(super) fn miss(&mut self, now: Timestamp) {
        let within = self.missed_within();
        if self.given_at.take_if(|at| now < *at + within).is_some() {
            self.delay = (self.delay * 2).min(LONGEST.max(self.shortest));
        }
    }

    fn missed_within(&self) -> Duration {
        MISSED_WITHIN.max(self.delay * MISSED_WITHIN_DELAYS)
    }
}

impl Engine {
    pub(super) fn shrink(&mut self, surplus: &Surplus, now: Timestamp) {
        let n_blocks = surplus.blocks.iter().map(|(_, ask)| usize::from(ask.count())).sum();
        self.surplus_enis.observe(surplus.enis.len(), now);
        self.surplus_blocks.observe(n_blocks, now);
        // What is thought to be of no use may carry what EC2 does not describe yet.
        if !self.enis_look.is_certain() {
            return;
        }
        // An ENI that cannot be detached at present would serve nobody meanwhile.
        let may_leave = self.action_hold(Action::DetachEni, now).is_none();
        let n_enis = if may_leave { self.surplus_enis.take_ripe(now) } else { 0 };
        for eni in surplus.enis.iter().take(n_enis) {
            self.drain(eni, now);
        }
        let mut left = self.surplus_blocks.take_ripe(now);
        for (eni, ask) in &surplus.blocks {
            let n = ask.count().min(u16::try_from(left).unwrap_or(u16::MAX));
            left -= usize::from(n);
            self.give_back(eni, ask.with_count(n), now);
        }
    }

    pub(super) fn drain(&mut self, eni: &EniId, now: Timestamp) {
        if let Some(stage) = self.stage_mut(eni)
            && let Stage::Attached { bond, .. } = stage
        {
            *stage = Stage::Draining { bond: bond.clone() };
            self.advance(eni, now);
        }
    }

    fn give_back(&mut self, eni: &EniId, ask: Ask, now: Timestamp) {
        let action = ask.unassign_action();
        let subject = Subject::Eni(eni.clone(), action);
        // Its surplus of both kinds takes two calls, hence two turns.
        if self.is_busy(eni)
            || self.retries.hold(&subject, now).is_some()
            || self.action_hold(action, now).is_some()
        {
            return;
        }
        let Some(found) = self.pool.enis.get(eni) else { return };
        let blocks = found.idle_blocks(ask, self.policy.cooldown, now);
        if !blocks.is_empty() {
            self.set_leaving(eni, &blocks, true);
            self.start(Ec2Call::Unassign { eni: eni.clone(), blocks }, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: u64 = 30;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    fn ripening() -> Ripening {
        Ripening::new(Duration::from_secs(DELAY))
    }

    #[test]
    fn what_was_surplus_all_the_time_is_ripe() {
        let check = |observed: &[(u64, usize)], second: u64, ripe: usize| {
            let mut ripening = ripening();
            for (second, n) in observed {
                ripening.observe(*n, at(*second));
            }
            assert_eq!(ripening.take_ripe(at(second)), ripe, "{observed:?} at {second}");
        };
        check(&[], 100, 0);
        check(&[(0, 5)], 29, 0);
        check(&[(0, 5)], 30, 5);
        check(&[(0, 5), (10, 2), (20, 9)], 30, 2);
        check(&[(0, 5), (10, 0), (20, 9)], 30, 0);
        check(&[(0, 5), (10, 0), (20, 9)], 50, 9);
    }

    /// Gives back as soon as that is ripe, and misses it `missed` seconds later; returns how long
    /// it took to be ripe.
    fn give_and_miss(ripening: &mut Ripening, start: u64, missed: Option<u64>) -> u64 {
        ripening.observe(1, at(start));
        let ripe_at = ripening.ripe_at().unwrap();
        assert_eq!(ripening.take_ripe(ripe_at), 1);
        if let Some(missed) = missed {
            ripening.miss(at(ripe_at.as_millis() / 1000 + missed));
        }
        ripe_at.as_millis() / 1000 - start
    }

    #[test]
    fn what_is_missed_stays_longer_and_what_is_not_shorter() {
        let mut ripening = ripening();
        let delays: Vec<_> =
            (0..9).map(|day| give_and_miss(&mut ripening, day * 86_400, Some(5))).collect();
        assert_eq!(delays, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        let delays: Vec<_> =
            (10..19).map(|day| give_and_miss(&mut ripening, day * 86_400, None)).collect();
        assert_eq!(delays, [3600, 3600, 1800, 900, 450, 225, 112, 56, 30]);
    }

    #[test]
    fn a_growth_long_after_misses_nothing() {
        let mut ripening = ripening();
        give_and_miss(&mut ripening, 0, Some(601));
        assert_eq!(give_and_miss(&mut ripening, 86_400, None), DELAY);
    }
}
