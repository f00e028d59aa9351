//! What EC2's refusals have taught of this instance.

use std::collections::BTreeSet;

use super::inventory::AUDIT;
use crate::place::Place;
use crate::pool::Pool;
use crate::time::Timestamp;

/// Limits that EC2's refusals have shown. Forgotten after a day, since they may change.
#[derive(Debug, Clone)]
pub(super) struct Learnt {
    since: Timestamp,
    /// The most ENIs that the instance takes, foreign ones included.
    pub(super) enis: u16,
    /// The most blocks that a new ENI may carry for EC2 to attach it; more can be put on it later.
    pub(super) create_at_most: u16,
    /// Places that are taken, though not by an ENI that we know.
    pub(super) taken_places: BTreeSet<Place>,
}

impl Learnt {
    pub(super) fn nothing(now: Timestamp) -> Self {
        let taken_places = BTreeSet::new();
        Self { since: now, enis: u16::MAX, create_at_most: u16::MAX, taken_places }
    }

    /// Takes in that `n` ENIs are attached. The refusal may have been counted from an outdated describe.
    pub(super) fn allow_enis(&mut self, n: u16) {
        self.enis = self.enis.max(n);
    }

    /// Forgets everything once a day.
    pub(super) fn forget_if_old(&mut self, pool: &mut Pool, now: Timestamp) {
        if self.since + AUDIT <= now {
            self.forget(pool, now);
        }
    }

    /// Forgets everything, also what refusals have taught of each ENI.
    pub(super) fn forget(&mut self, pool: &mut Pool, now: Timestamp) {
        *self = Self::nothing(now);
        pool.enis.values_mut().for_each(|eni| eni.refused.clear());
    }
}
