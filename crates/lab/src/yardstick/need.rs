//! How many addresses a node needs over time, so that no pod waits and the targets hold.
//!
//! 1. Each pod needs an address from its arrival, or a given wait later, to its end.
//! 2. The address then rests for the cooldown. It stays with the node, so that EC2 gives it to no
//!    other node meanwhile.
//! 3. The targets count at rest: a pod counts for them once it has been there for [`AT_REST`]. Both
//!    daemons need that long until their calls for it have ended. Addresses in cooldown count as
//!    free, as in the incumbent's documents.
//! 4. Nothing needs more than the node can have.

use std::collections::VecDeque;

use ipam::policy::{FamilyPolicy, Targets};

use super::Question;
use crate::load::NodeLoad;

/// From a change until a node is at rest again, in milliseconds.
const AT_REST: u64 = 30_000;
const PREFIX_SIZE: u64 = 16;

/// The addresses that a node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// From each moment in milliseconds on so many, ascending by time.
    pub(super) steps: Vec<(u64, u64)>,
    /// Whether the node cannot have all that pods need.
    pub(super) is_cut: bool,
}

/// What the targets want.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    targets: Targets,
    /// Addresses of a full ENI.
    eni_size: u64,
    /// No target wants more.
    at_most: u64,
}

impl Floor {
    /// The floor of a policy on a node that can have `capacity` addresses.
    pub(super) fn new(policy: FamilyPolicy, eni_size: u64, max_pods: u32, capacity: u64) -> Self {
        Self { targets: policy.targets, eni_size, at_most: capacity.min(max_pods.into()) }
    }

    /// The addresses that a node at rest holds with `n_pods` pods.
    pub(super) fn of(self, n_pods: u64) -> u64 {
        let wanted = match self.targets {
            Targets::WarmEni(warm) => n_pods + (u64::from(warm) * self.eni_size).max(1),
            Targets::WarmPrefix(warm) => n_pods + (u64::from(warm) * PREFIX_SIZE).max(1),
            Targets::Ip { warm, minimum } => (n_pods + u64::from(warm)).max(minimum.into()),
        };
        wanted.min(self.at_most)
    }
}

/// The need of `load` on a node that can have `capacity` addresses. Cost: O(pods × log pods).
pub(super) fn need(
    load: &NodeLoad,
    floor: Option<Floor>,
    capacity: u64,
    question: &Question,
) -> Need {
    let (from, until) = (load.from.as_millis(), load.until.as_millis());
    let cooldown = question.cooldown(load);
    let mut pods = Curve::default();
    let mut taken = Curve::default();
    for stay in &load.stays {
        let (begin, end) = (stay.from.as_millis() + question.wait_ms, stay.until.as_millis());
        pods.add(begin, end);
        taken.add(begin, end + cooldown);
    }
    let (pods, taken) = (pods.values(from), taken.values(from));
    let rested = least_over(&pods, AT_REST);
    let begins = if load.joined { from + AT_REST } else { from };
    let ends = load.drained.map_or(until, |at| at.as_millis());
    let floors = floor.into_iter().flat_map(|floor| {
        let within = rested.iter().map(move |(at, n)| ((*at).max(begins), floor.of(*n)));
        within.filter(move |(at, _)| *at < ends).chain([(ends.max(begins), 0)])
    });
    let floors = last_of_each(floors.collect());
    let is_cut = taken.iter().any(|(at, n)| *at < until && *n > capacity);
    let steps = highest(&taken, &floors).into_iter().filter(|(at, _)| *at < until);
    Need { steps: steps.map(|(at, n)| (at, n.min(capacity))).collect(), is_cut }
}

/// A number that changes over time: the changes, in any order.
#[derive(Debug, Default)]
struct Curve {
    changes: Vec<(u64, i64)>,
}

impl Curve {
    /// One more from `begin` to `end`, unless that is empty.
    fn add(&mut self, begin: u64, end: u64) {
        if begin < end {
            self.changes.extend([(begin, 1), (end, -1)]);
        }
    }

    /// The value from each moment on, ascending by time. The first moment is `from`; what was
    /// before counts as if it was there at `from`.
    fn values(mut self, from: u64) -> Vec<(u64, u64)> {
        self.changes.sort_unstable();
        let mut value: i64 = 0;
        let mut values = vec![(from, 0)];
        for (at, change) in self.changes {
            value += change;
            let n = u64::try_from(value).unwrap_or(0);
            values.push((at.max(from), n));
        }
        last_of_each(values)
    }
}

/// Keeps the last value of each moment, and only where the value changes.
fn last_of_each(values: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut kept: Vec<(u64, u64)> = Vec::new();
    for (at, n) in values {
        if kept.last().is_some_and(|(last, _)| *last == at) {
            kept.pop();
        }
        if kept.last().is_none_or(|(_, last)| *last != n) {
            kept.push((at, n));
        }
    }
    kept
}

/// The least value over the last `span` milliseconds. Before the first moment, the value was what it
/// is at that moment.
fn least_over(values: &[(u64, u64)], span: u64) -> Vec<(u64, u64)> {
    let ends = values.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
    let pieces: Vec<(u64, u64, u64)> =
        values.iter().zip(ends).map(|((at, n), end)| (*at, end, *n)).collect();
    let later = values.iter().skip(1).map(|(at, _)| at + span);
    let mut moments: Vec<u64> = values.iter().map(|(at, _)| *at).chain(later).collect();
    moments.sort_unstable();
    moments.dedup();
    let (mut window, mut next) = (VecDeque::<(u64, u64)>::new(), 0);
    let least = moments.into_iter().map(|now| {
        while let Some((_, end, n)) = pieces.get(next).filter(|(at, _, _)| *at <= now) {
            while window.back().is_some_and(|(_, last)| last >= n) {
                window.pop_back();
            }
            window.push_back((*end, *n));
            next += 1;
        }
        // A piece that ends where the window begins is no longer in it.
        while window.front().is_some_and(|(end, _)| *end <= now.saturating_sub(span)) {
            window.pop_front();
        }
        (now, window.front().map_or(0, |(_, n)| *n))
    });
    last_of_each(least.collect())
}

/// The higher one of two curves, each 0 before its first moment.
fn highest(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut moments: Vec<u64> = one.iter().chain(other).map(|(at, _)| *at).collect();
    moments.sort_unstable();
    moments.dedup();
    let at = |curve: &[(u64, u64)], now: u64| {
        let n_begun = curve.partition_point(|(at, _)| *at <= now);
        n_begun.checked_sub(1).map_or(0, |last| curve[last].1)
    };
    last_of_each(moments.into_iter().map(|now| (now, at(one, now).max(at(other, now)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_over_a_span_rises_late_and_falls_at_once() {
        let check = |values: &[(u64, u64)], expect: &[(u64, u64)]| {
            assert_eq!(least_over(values, 10), expect, "{values:?}");
        };
        check(&[(0, 5)], &[(0, 5)]);
        check(&[(0, 5), (20, 7)], &[(0, 5), (30, 7)]);
        check(&[(0, 5), (20, 3)], &[(0, 5), (20, 3)]);
        check(&[(0, 5), (20, 9), (25, 7), (40, 8)], &[(0, 5), (30, 7), (50, 8)]);
        check(&[(0, 5), (20, 9), (25, 4), (27, 9)], &[(0, 5), (25, 4), (37, 9)]);
    }

    #[test]
    fn highest_of_two_curves_has_no_repeats() {
        let found = highest(&[(0, 1), (10, 4), (20, 0)], &[(5, 2), (15, 3)]);
        assert_eq!(found, [(0, 1), (5, 2), (10, 4), (20, 3)]);
    }

    #[test]
    fn curve_before_its_start_counts_from_there() {
        let mut curve = Curve::default();
        curve.add(3, 8);
        curve.add(5, 6);
        curve.add(9, 9);
        assert_eq!(curve.values(4), [(4, 1), (5, 2), (6, 1), (8, 0)]);
    }
}
