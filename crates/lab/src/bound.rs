//! The least time in which the token buckets let a burst be served, and the least mean wait.
//!
//! The bound counts the fewest calls with which EC2 can give every pod of a burst an address:
//!
//! 1. Free addresses of the nodes need no call.
//! 2. Room on existing ENIs needs one AssignPrivateIpAddresses per ENI.
//! 3. New ENIs are created full and need one CreateNetworkInterface and one
//!    AttachNetworkInterface each.
//!
//! The last of n calls of an action cannot be made before (n - capacity) / refill. This holds even
//! if no call is too early and every call is for a waiting pod. Latency is not counted.
//!
//! If all nodes are ready, the scheduler spreads the pods evenly, so the calls of each node are
//! known. Existing ENIs are filled first, as the documents of the targets promise.
//!
//! If nodes join with the pods, nodes that are ready first get more pods, and the spread is
//! unknown. Then two facts hold: each call fills one ENI at most, and only existing ENIs can be
//! filled without a new one. The bound takes the split between filled and new ENIs that the buckets
//! allow soonest. This bound is looser, because it fills few nodes completely.
//!
//! The mean wait is bounded by the most pods that can have an address at each moment: those of free
//! addresses, and those of the calls for which there were tokens, the calls for most pods first. The
//! two ways to an address have buckets of their own, and both are taken as fully used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ec2_model::BucketSize;
use ec2_model::config::Throttling;
use ec2_model::request::Action;
use ipam::policy::Limits;

use crate::run::Setup;
use crate::score::millis;
use crate::spec::NodeSpec;
use crate::trace;

/// The least time in which a burst can be served, and the calls that take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The fewest calls, by action.
    pub calls: BTreeMap<Action, u64>,
    /// From the burst to the last of the calls.
    pub at_best: Duration,
    /// The mean of all pods' waits cannot be less.
    pub mean_wait: Duration,
}

/// The blocks and the room of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeCapacity {
    /// Blocks on its ENIs.
    blocks: u64,
    /// How many more blocks each ENI takes.
    room: Vec<u64>,
    /// Blocks per ENI, at least 1.
    per_eni: u64,
    /// Addresses per block.
    block_size: u64,
    /// The most pods that are scheduled to the node.
    places: u64,
}

impl NodeCapacity {
    /// `blocks` has the number of blocks on each of the node's ENIs.
    pub(crate) fn new(blocks: &[u16], limits: Limits, spec: &NodeSpec) -> Self {
        let room = |n: &u16| u64::from(limits.blocks_per_eni().saturating_sub(*n));
        Self {
            blocks: blocks.iter().map(|n| u64::from(*n)).sum(),
            room: blocks.iter().map(room).collect(),
            per_eni: u64::from(limits.blocks_per_eni()).max(1),
            block_size: limits.families(&spec.policy).policy().kind.size(),
            places: spec.n_places().into(),
        }
    }

    fn held(&self) -> u64 {
        self.blocks * self.block_size
    }

    /// For how many of so many pods the calls of each kind can bring an address.
    fn gains_for(&self, n_pods: u64, gains: &mut Gains) {
        gains.free += n_pods.min(self.held());
        let short = n_pods.saturating_sub(self.held());
        let mut room = self.room.clone();
        room.sort_unstable_by(|one, other| other.cmp(one));
        let rooms = room.into_iter().map(|room| room * self.block_size);
        gains.assigns.extend(portions(short, rooms));
        gains.enis.extend(portions(short, std::iter::repeat(self.per_eni * self.block_size)));
    }

    /// For so many pods: the number of existing ENIs to fill, and of new ENIs.
    fn calls_for(&self, n_pods: u64) -> (u64, u64) {
        let mut short = n_pods.div_ceil(self.block_size).saturating_sub(self.blocks);
        let mut room = self.room.clone();
        room.sort_unstable();
        let mut n_assigns = 0;
        while let Some(largest) = room.pop().filter(|room| short > 0 && *room > 0) {
            short = short.saturating_sub(largest);
            n_assigns += 1;
        }
        (n_assigns, short.div_ceil(self.per_eni))
    }
}

impl Bound {
    /// The bound of a burst. `there` are the nodes at its start; joining nodes take their capacity
    /// from `joining` in turn.
    ///
    /// `None` if nothing is throttled, or if the trace has anything but staying pods and joining
    /// nodes at time zero: pods that end, move or come later need other calls.
    pub(crate) fn of_burst(
        setup: &Setup,
        mut there: Vec<NodeCapacity>,
        joining: &[NodeCapacity],
    ) -> Option<Self> {
        let (mut n_pods, mut n_joining) = (0, 0);
        for step in &setup.trace {
            match step.action {
                _ if !step.at.is_zero() => return None,
                trace::TraceAction::Create { pods, life: None } => n_pods += u64::from(pods),
                trace::TraceAction::Join { nodes } => n_joining += nodes,
                trace::TraceAction::Create { life: Some(_), .. }
                | trace::TraceAction::Delete { .. }
                | trace::TraceAction::Roll { .. }
                | trace::TraceAction::Drain { .. }
                | trace::TraceAction::Occupy { .. }
                | trace::TraceAction::Vacate { .. } => return None,
            }
        }
        if n_pods == 0 || setup.vpc.throttling != Throttling::Documented {
            return None;
        }
        if n_joining == 0 {
            return Some(Self::spread_evenly(&there, n_pods));
        }
        there.extend(
            (0..n_joining).zip(joining.iter().cycle()).map(|(_, capacity)| capacity.clone()),
        );
        Some(Self::spread_anyhow(&there, n_pods))
    }

    fn spread_evenly(capacities: &[NodeCapacity], n_pods: u64) -> Self {
        let calls = capacities.iter().zip(evenly(capacities, n_pods));
        let calls = calls.map(|(capacity, n_here)| capacity.calls_for(n_here));
        let (n_assigns, n_enis) = calls.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        let mut gains = Gains::default();
        for (capacity, n_here) in capacities.iter().zip(evenly(capacities, n_pods)) {
            capacity.gains_for(n_here, &mut gains);
        }
        Self { mean_wait: gains.mean_wait(n_pods), ..Self::of_calls(n_assigns, n_enis) }
    }

    fn spread_anyhow(capacities: &[NodeCapacity], n_pods: u64) -> Self {
        let held: u64 = capacities.iter().map(NodeCapacity::held).sum();
        let largest =
            capacities.iter().map(|capacity| capacity.per_eni * capacity.block_size).max();
        let n_fills = n_pods.saturating_sub(held).div_ceil(largest.unwrap_or(1));
        let open =
            capacities.iter().flat_map(|capacity| &capacity.room).filter(|room| **room > 0).count();
        let n_open = u64::try_from(open).expect("usize is at most 64 bits wide");
        let splits = (0..=n_open.min(n_fills)).map(|n| Self::of_calls(n, n_fills - n));
        let fastest = splits.min_by_key(|split| split.at_best);
        let rooms = capacities.iter().flat_map(|capacity| {
            capacity.room.iter().map(|room| room * capacity.block_size).filter(|room| *room > 0)
        });
        let per_eni = std::iter::repeat(largest.unwrap_or(1));
        let enis = portions(n_pods.saturating_sub(held), per_eni).collect();
        let gains = Gains { free: held, assigns: rooms.collect(), enis };
        let mean_wait = gains.mean_wait(n_pods);
        Self { mean_wait, ..fastest.expect("there is one without assigns") }
    }

    /// The bound for this number of filled and of new ENIs.
    fn of_calls(n_assigns: u64, n_enis: u64) -> Self {
        let calls = BTreeMap::from([
            (Action::AssignPrivateIpAddresses, n_assigns),
            (Action::CreateNetworkInterface, n_enis),
            (Action::AttachNetworkInterface, n_enis),
        ]);
        let at_best = calls.iter().map(|(action, n)| time_for(*action, *n)).max();
        Self { calls, at_best: at_best.unwrap_or_default(), mean_wait: Duration::ZERO }
    }
}

/// For how many pods the single calls can bring an address.
#[derive(Debug, Default)]
struct Gains {
    /// Pods that need no call.
    free: u64,
    /// Of each assignment to an ENI that is there.
    assigns: Vec<u64>,
    /// Of each new ENI.
    enis: Vec<u64>,
}

impl Gains {
    /// The least mean wait of `n_pods` pods.
    fn mean_wait(self, n_pods: u64) -> Duration {
        let assigned = |n| time_for(Action::AssignPrivateIpAddresses, n);
        let attached = |n| {
            let created = time_for(Action::CreateNetworkInterface, n);
            created.max(time_for(Action::AttachNetworkInterface, n))
        };
        let mut gains = by_time(self.assigns, assigned);
        gains.extend(by_time(self.enis, attached));
        gains.sort_unstable();
        let mut left = n_pods.saturating_sub(self.free);
        let mut waited_ms = 0;
        for (at, gain) in gains {
            let served = gain.min(left);
            left -= served;
            waited_ms += served * millis(at);
        }
        Duration::from_millis(waited_ms / n_pods.max(1))
    }
}

/// When each gain comes at best, the highest first.
fn by_time(mut gains: Vec<u64>, at: impl Fn(u64) -> Duration) -> Vec<(Duration, u64)> {
    gains.sort_unstable_by(|one, other| other.cmp(one));
    (1..).map(at).zip(gains).collect()
}

/// `n` cut into portions of these sizes, the last one smaller.
fn portions(n: u64, sizes: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let portion = |left: &mut u64, size: u64| {
        let portion = size.min(*left);
        *left -= portion;
        (portion > 0).then_some(portion)
    };
    sizes.scan(n, portion)
}

/// How many pods the scheduler gives each node. The next pod goes to the node with the fewest pods
/// that has a place.
fn evenly(capacities: &[NodeCapacity], n_pods: u64) -> Vec<u64> {
    let mut pods = vec![0; capacities.len()];
    let with_places = capacities.iter().enumerate().filter(|(_, capacity)| capacity.places > 0);
    let mut open: BTreeSet<(u64, usize)> = with_places.map(|(node, _)| (0, node)).collect();
    for _ in 0..n_pods {
        let Some((n, node)) = open.pop_first() else { break };
        pods[node] = n + 1;
        if n + 1 < capacities[node].places {
            open.insert((n + 1, node));
        }
    }
    pods
}

fn time_for(action: Action, n_calls: u64) -> Duration {
    let BucketSize { capacity, per_second } = BucketSize::of(action);
    Duration::from_millis(n_calls.saturating_sub(capacity) * 1000 / per_second)
}

#[cfg(test)]
mod tests {
    use ipam::block::BlockKind;

    use super::*;
    use crate::scenario::{Scenario, Size};

    const LIMITS: Limits = Limits { enis: 4, addresses_per_eni: 15, prefixes: true };

    /// The scenario `join` on m5.xlarge nodes, which have these limits.
    fn setup(kind: BlockKind) -> Setup {
        let cases = Scenario::named("join").unwrap().cases(Size::Small);
        let mut setups = cases.into_iter().map(|case| case.setup);
        setups.find(|setup| setup.node_specs[0].policy.families.policy().kind == kind).unwrap()
    }

    fn capacity(blocks: &[u16], kind: BlockKind) -> NodeCapacity {
        NodeCapacity::new(blocks, LIMITS, &setup(kind).node_specs[0])
    }

    #[test]
    fn burst_needs_fewest_possible_calls() {
        let check = |blocks: &[u16], n_pods, expect| {
            let capacity = capacity(blocks, BlockKind::V4Address);
            assert_eq!(capacity.calls_for(n_pods), expect, "{blocks:?}");
        };
        check(&[14], 14, (0, 0));
        check(&[14], 15, (0, 1));
        check(&[14], 46, (0, 3));
        check(&[0], 14, (1, 0));
        check(&[0], 15, (1, 1));
        check(&[10, 3], 24, (1, 0));
        check(&[10, 3], 25, (2, 0));
        assert_eq!(capacity(&[1], BlockKind::V4Prefix).calls_for(16), (0, 0));
        assert_eq!(capacity(&[1], BlockKind::V4Prefix).calls_for(17), (1, 0));
    }

    #[test]
    fn slowest_bucket_determines_bound() {
        let bound = Bound::spread_evenly(&vec![capacity(&[14], BlockKind::V4Address); 500], 23_000);
        assert_eq!(bound.calls[&Action::CreateNetworkInterface], 1500);
        // (1500 - 50) / 5 for AttachNetworkInterface; (1500 - 100) / 5 for the creation.
        assert_eq!(bound.at_best, Duration::from_secs(290));
        let bound = Bound::spread_evenly(&vec![capacity(&[1], BlockKind::V4Prefix); 500], 23_000);
        assert_eq!(bound.calls[&Action::AssignPrivateIpAddresses], 500);
        assert_eq!(bound.at_best, Duration::from_secs(80));
    }

    #[test]
    fn mean_wait_takes_the_calls_for_most_pods_first() {
        let check = |free, assigns: &[u64], enis: &[u64], n_pods, expect_ms| {
            let gains = Gains { free, assigns: assigns.to_vec(), enis: enis.to_vec() };
            assert_eq!(gains.mean_wait(n_pods), Duration::from_millis(expect_ms));
        };
        check(10, &[], &[], 10, 0);
        // A full bucket of 100 serves at once. The 101st call waits for 200 ms, the 102nd for 400.
        check(0, &[1; 100], &[], 100, 0);
        check(0, &[1; 102], &[], 102, (200 + 400) / 102);
        // The call for 200 pods is among the first 100, and one for a single pod waits.
        check(0, &[vec![1; 100], vec![200]].concat(), &[], 300, 200 / 300);
        // Of ENIs the 51st waits for 200 ms: fewer can be attached than created at once.
        check(0, &[], &[10; 51], 510, 200 * 10 / 510);
        // Either way serves all.
        check(0, &[10], &[10], 10, 0);
    }

    #[test]
    fn mean_wait_of_a_burst_counts_full_enis_before_the_last_ones() {
        let bound = Bound::spread_evenly(&vec![capacity(&[14], BlockKind::V4Address); 500], 23_000);
        // Of 46 pods a node, 14 wait for nothing. 1,000 ENIs bring 14 addresses each, then 500
        // bring 4 each. The nth ENI comes after (n - 50) / 5 seconds.
        let full: u64 = (1..=950).map(|n| 14 * n * 200).sum();
        let last: u64 = (951..=1_450).map(|n| 4 * n * 200).sum();
        let expect = Duration::from_millis((full + last) / 23_000);
        assert_eq!((bound.at_best.as_secs(), bound.mean_wait), (290, expect));
    }

    #[test]
    fn full_node_leaves_its_pods_to_others() {
        let large = capacity(&[14], BlockKind::V4Address);
        let small = NodeCapacity { places: 3, ..large.clone() };
        let none = NodeCapacity { places: 0, ..large.clone() };
        assert_eq!(evenly(&[large.clone(), small, none, large], 12), [5, 3, 0, 4]);
    }

    #[test]
    fn joining_nodes_take_fastest_split_of_calls() {
        let check = |blocks: &[&[u16]], n_pods, n_assigns, n_enis, at_best_ms| {
            let capacities = blocks.iter().map(|blocks| capacity(blocks, BlockKind::V4Address));
            let bound = Bound::spread_anyhow(&capacities.collect::<Vec<_>>(), n_pods);
            assert_eq!(bound.calls[&Action::AssignPrivateIpAddresses], n_assigns);
            assert_eq!(bound.calls[&Action::AttachNetworkInterface], n_enis);
            assert_eq!(bound.at_best, Duration::from_millis(at_best_ms));
        };
        // 215 full ENIs. One more assign, or one more new ENI, takes longer.
        check(&[&[0][..]; 150], 3_000, 132, 83, 6_600);
        // All joining nodes are filled, and that is still the shortest.
        check(&[&[0][..]; 150], 14_000, 150, 850, 160_000);
        // Free addresses need no call, and full ENIs take no more.
        check(&[&[14, 4], &[14], &[0]], 32, 0, 0, 0);
        check(&[&[14, 14], &[14]], 42 + 28, 0, 2, 0);
    }

    #[test]
    fn only_burst_at_start_has_bound() {
        let mut setup = setup(BlockKind::V4Address);
        let joining = [capacity(&[0], BlockKind::V4Address)];
        let bound = |setup: &Setup| Bound::of_burst(setup, Vec::new(), &joining);
        let calls = bound(&setup).unwrap().calls;
        // 600 pods on 30 nodes.
        assert_eq!(calls.values().max(), Some(&43));
        for action in [
            trace::TraceAction::Delete { pods: 1 },
            trace::TraceAction::Create { pods: 1, life: Some(Duration::from_secs(1)) },
        ] {
            setup.trace.push(trace::TraceStep { at: Duration::ZERO, action });
            assert_eq!(bound(&setup), None);
            setup.trace.pop();
        }
        setup.trace[0].at = Duration::from_secs(1);
        assert_eq!(bound(&setup), None);
    }
}
