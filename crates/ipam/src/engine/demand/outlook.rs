//! What a waiting pod may hope for, in each family of the node.

use crate::block::Family;
use crate::time::Timestamp;

/// Which waiting pods may expect addresses.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Outlook {
    /// One for each family of the node, IPv4 first; never empty.
    pub(in crate::engine) families: Vec<FamilyOutlook>,
}

/// Which waiting pods may expect an address of one family.
#[derive(Debug, Clone)]
pub(in crate::engine) struct FamilyOutlook {
    pub(in crate::engine) family: Family,
    /// Addresses for this many waiters, the first ones, are here or under way.
    pub(in crate::engine) n_served: usize,
    /// The ends of the cooldowns of further addresses.
    pub(in crate::engine) rest_ends: Vec<Timestamp>,
    /// When an obstacle passes.
    pub(in crate::engine) passes_at: Option<Timestamp>,
}

/// Why a waiting Add is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Shortage {
    /// An address of each family is here or under way for it, but late.
    Late,
    /// No address of this family is under way for it, but one here rests until then. The waiters before it get those
    /// that rest less long.
    Resting(Family, Timestamp),
    /// No address of this family is here or under way for it.
    Nothing(Family),
}

impl Outlook {
    /// Whether the waiter at `place` may expect an address of each family by `patience`.
    pub(super) fn promises_each(&self, place: usize, patience: Timestamp) -> bool {
        self.families.iter().all(|family| family.is_worth_waiting(place, patience))
    }

    /// Whether the waiter at `place` may expect an address of any family by `patience`.
    pub(super) fn promises_any(&self, place: usize, patience: Timestamp) -> bool {
        self.families.iter().any(|family| family.is_worth_waiting(place, patience))
    }

    /// The shortage of the first family that the waiter at `place` may not expect.
    pub(in crate::engine) fn shortage(&self, place: usize) -> Shortage {
        let short = self.families.iter().find(|family| !family.is_served(place));
        short.map_or(Shortage::Late, |short| match short.rested_at(place) {
            Some(at) => Shortage::Resting(short.family, at),
            None => Shortage::Nothing(short.family),
        })
    }
}

impl FamilyOutlook {
    /// Whether an address for the waiter at `place` is here or under way.
    fn is_served(&self, place: usize) -> bool {
        place < self.n_served
    }

    /// When the resting address that the waiter at `place` would get has rested; `None` if those before it need
    /// all.
    fn rested_at(&self, place: usize) -> Option<Timestamp> {
        place.checked_sub(self.n_served).and_then(|n| self.rest_ends.get(n)).copied()
    }

    fn is_worth_waiting(&self, place: usize, patience: Timestamp) -> bool {
        self.is_served(place)
            || self.rested_at(place).is_some_and(|at| at <= patience)
            || self.passes_at.is_some_and(|at| at <= patience)
    }
}
