//! What the token buckets allow at best.
//!
//! The fewest calls are counted with which EC2 gives the pods of a burst their addresses: what
//! nodes have free is used, then what fits on the ENIs they have (one AssignPrivateIpAddresses for
//! each), then new ENIs that carry what they can from the start (one CreateNetworkInterface and
//! one AttachNetworkInterface for each). Nobody can make the last of n calls of an action before
//! (n - capacity) / refill, even if no call is ever made too soon, and none for anything but
//! waiting pods. Latency is not counted.
//!
//! Where all nodes are ready, the scheduler spreads the pods evenly, and the calls of each node are
//! known; ENIs that are there go first, as the documents of the targets promise. Where nodes join
//! with the pods, those that are ready first take more, and the pods may be spread anyhow. What
//! holds then is that each of these calls brings one ENI full at most, and no ENI but those that
//! are there can be filled without a new one: of all ways to split that number of ENIs into filled
//! and new ones the one counts that the buckets let end first. That is further from what can be
//! reached, as it fills few nodes to the brim.

use std::collections::BTreeMap;
use std::time::Duration;

use ec2_model::BucketSize;
use ec2_model::config::Throttling;
use ec2_model::request::Action;
use ipam::policy::{Limits, Mode};

use crate::run::Setup;
use crate::trace;

const PREFIX_SIZE: u64 = 16;

/// The least time in which a burst can be served, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The calls that are needed.
    pub calls: BTreeMap<Action, u64>,
    /// From the burst to the last of them.
    pub at_best: Duration,
}

/// What one node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stock {
    /// Blocks on its ENIs.
    blocks: u64,
    /// How many more each ENI takes.
    room: Vec<u64>,
}

impl Stock {
    /// `blocks` are those on each of its ENIs.
    pub(crate) fn new(blocks: &[u16], limits: Limits) -> Self {
        let room = |n: &u16| u64::from(limits.blocks_per_eni().saturating_sub(*n));
        Self {
            blocks: blocks.iter().map(|n| u64::from(*n)).sum(),
            room: blocks.iter().map(room).collect(),
        }
    }

    /// The ENIs to be filled and the new ENIs for so many blocks.
    fn calls_for(&self, n_blocks: u64, per_eni: u64) -> (u64, u64) {
        let mut short = n_blocks.saturating_sub(self.blocks);
        let mut room = self.room.clone();
        room.sort_unstable();
        let mut n_assigns = 0;
        while let Some(largest) = room.pop().filter(|room| short > 0 && *room > 0) {
            short = short.saturating_sub(largest);
            n_assigns += 1;
        }
        (n_assigns, short.div_ceil(per_eni.max(1)))
    }
}

impl Bound {
    /// Of a trace that is nothing but pods that stay and nodes that join, all at its start; `None`
    /// for others, and if nothing is throttled. Pods that end, move or come later need other
    /// calls. `stocks` is what the nodes hold by then.
    pub(crate) fn of_burst(setup: &Setup, limits: Limits, stocks: &[Stock]) -> Option<Self> {
        let (mut n_pods, mut n_joining) = (0, 0);
        for step in &setup.trace {
            match step.action {
                _ if !step.at.is_zero() => return None,
                trace::Action::Create { pods, life: None } => n_pods += u64::from(pods),
                trace::Action::Join { nodes } => n_joining += u64::from(nodes),
                trace::Action::Create { life: Some(_), .. }
                | trace::Action::Delete { .. }
                | trace::Action::Roll { .. }
                | trace::Action::Drain { .. }
                | trace::Action::Occupy { .. }
                | trace::Action::Vacate { .. } => return None,
            }
        }
        if n_pods == 0 || setup.world.throttling != Throttling::Documented {
            return None;
        }
        let block_size = match setup.node.policy.mode {
            Mode::Prefix if limits.prefixes => PREFIX_SIZE,
            Mode::Prefix | Mode::SecondaryIp | Mode::Ipv6 => 1,
        };
        let per_eni = u64::from(limits.blocks_per_eni()).max(1);
        Some(match n_joining {
            0 => Self::spread_evenly(stocks, n_pods, block_size, per_eni),
            _ => Self::spread_anyhow(stocks, n_joining, n_pods.div_ceil(block_size), per_eni),
        })
    }

    fn spread_evenly(stocks: &[Stock], n_pods: u64, block_size: u64, per_eni: u64) -> Self {
        let n_nodes = u64::try_from(stocks.len()).expect("usize is at most 64 bits wide");
        let (mut n_assigns, mut n_enis) = (0, 0);
        for (place, stock) in (0..).zip(stocks) {
            let n_more = u64::from(place < n_pods.checked_rem(n_nodes).unwrap_or(0));
            let n_here = n_pods.checked_div(n_nodes).unwrap_or(0) + n_more;
            let (assigns, enis) = stock.calls_for(n_here.div_ceil(block_size), per_eni);
            (n_assigns, n_enis) = (n_assigns + assigns, n_enis + enis);
        }
        Self::of_calls(n_assigns, n_enis)
    }

    /// `n_joining` nodes come with one empty ENI each.
    fn spread_anyhow(stocks: &[Stock], n_joining: u64, n_blocks: u64, per_eni: u64) -> Self {
        let held: u64 = stocks.iter().map(|stock| stock.blocks).sum();
        let n_fills = n_blocks.saturating_sub(held).div_ceil(per_eni);
        let open = stocks.iter().flat_map(|stock| &stock.room).filter(|room| **room > 0).count();
        let n_open = n_joining + u64::try_from(open).expect("usize is at most 64 bits wide");
        let splits = (0..=n_open.min(n_fills)).map(|n| Self::of_calls(n, n_fills - n));
        splits.min_by_key(|split| split.at_best).expect("there is one without assigns")
    }

    /// So many ENIs that are there are filled, and so many new ones come.
    fn of_calls(n_assigns: u64, n_enis: u64) -> Self {
        let calls = BTreeMap::from([
            (Action::AssignPrivateIpAddresses, n_assigns),
            (Action::CreateNetworkInterface, n_enis),
            (Action::AttachNetworkInterface, n_enis),
        ]);
        let at_best = calls.iter().map(|(action, n)| time_for(*action, *n)).max();
        Self { calls, at_best: at_best.unwrap_or_default() }
    }
}

fn time_for(action: Action, n_calls: u64) -> Duration {
    let BucketSize { capacity, per_second } = BucketSize::of(action);
    Duration::from_millis(n_calls.saturating_sub(capacity) * 1000 / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { enis: 4, addresses_per_eni: 15, prefixes: true };

    #[test]
    fn calls_are_those_that_nobody_can_save() {
        let check = |blocks: &[u16], n_blocks, expect| {
            assert_eq!(Stock::new(blocks, LIMITS).calls_for(n_blocks, 14), expect, "{blocks:?}");
        };
        check(&[14], 14, (0, 0));
        check(&[14], 15, (0, 1));
        check(&[14], 46, (0, 3));
        check(&[0], 14, (1, 0));
        check(&[0], 15, (1, 1));
        check(&[10, 3], 24, (1, 0));
        check(&[10, 3], 25, (2, 0));
    }

    #[test]
    fn the_slowest_bucket_counts() {
        let stocks = vec![Stock::new(&[14], LIMITS); 500];
        let bound = Bound::spread_evenly(&stocks, 23_000, 1, 14);
        assert_eq!(bound.calls[&Action::CreateNetworkInterface], 1500);
        // (1500 - 50) / 5 for AttachNetworkInterface; (1500 - 100) / 5 for the creation.
        assert_eq!(bound.at_best, Duration::from_secs(290));
        let stocks = vec![Stock::new(&[1], LIMITS); 500];
        let bound = Bound::spread_evenly(&stocks, 23_000, 16, 14);
        assert_eq!(bound.calls[&Action::AssignPrivateIpAddresses], 500);
        assert_eq!(bound.at_best, Duration::from_secs(80));
    }

    #[test]
    fn joining_nodes_are_filled_as_the_buckets_like_it_best() {
        let check = |stocks: &[Stock], n_joining, n_blocks, n_assigns, n_enis, at_best_ms| {
            let bound = Bound::spread_anyhow(stocks, n_joining, n_blocks, 14);
            assert_eq!(bound.calls[&Action::AssignPrivateIpAddresses], n_assigns);
            assert_eq!(bound.calls[&Action::AttachNetworkInterface], n_enis);
            assert_eq!(bound.at_best, Duration::from_millis(at_best_ms));
        };
        // 215 ENIs full; one assign more, or one new ENI more, and it takes longer.
        check(&[], 150, 3_000, 132, 83, 6_600);
        // All that join are filled, and that is still the shortest.
        check(&[], 150, 14_000, 150, 850, 160_000);
        // What is held needs no call; the buckets give the first hundred at once.
        let stocks = [Stock::new(&[14, 4], LIMITS), Stock::new(&[14], LIMITS)];
        check(&stocks, 3, 32, 0, 0, 0);
        check(&stocks, 0, 32 + 28, 0, 2, 0);
    }

    #[test]
    fn only_what_happens_at_once_has_a_bound() {
        let mut setup = crate::scenario::Scenario::named("join")
            .expect("it is there")
            .cases(crate::scenario::Size::Small)
            .remove(0)
            .setup;
        assert!(Bound::of_burst(&setup, LIMITS, &[]).is_some());
        for action in [
            trace::Action::Delete { pods: 1 },
            trace::Action::Create { pods: 1, life: Some(Duration::from_secs(1)) },
        ] {
            setup.trace.push(trace::Step { at: Duration::ZERO, action });
            assert_eq!(Bound::of_burst(&setup, LIMITS, &[]), None);
            setup.trace.pop();
        }
        setup.trace[0].at = Duration::from_secs(1);
        assert_eq!(Bound::of_burst(&setup, LIMITS, &[]), None);
    }
}
