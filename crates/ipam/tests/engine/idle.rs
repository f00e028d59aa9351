//! A node without events makes no calls and sleeps, whatever its targets are.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::Ec2Call;
use ipam::event::Event;
use ipam::policy::Limits;
use proptest::prelude::*;

use crate::node::{Node, Setup};
use crate::settings::{FreeBlocks, cases_of_cost, ec2, free_blocks, instance_limits, policies};

const HOUR: Duration = Duration::from_secs(3600);
/// Within this time after the last pod has come or gone, a pool has found its size.
const SETTLED_AFTER: Duration = HOUR;
/// The most wakes of an idle node in an hour.
const WAKES_AN_HOUR: usize = 2;
/// The most calls in an hour of a node whose subnets lack the blocks that it wants. Every two minutes it asks
/// both subnets for both kinds of block. After each refusal it describes how many addresses are free.
/// Before a create the ENIs and the subnets are described, if that is five minutes ago.
const CALLS_AN_HOUR_IN_VAIN: usize = 30 * 2 * 2 * 2 + 12 * 2;

#[derive(Debug, Clone)]
struct IdleCase {
    limits: Limits,
    policy: Setup,
    second_subnet: bool,
    /// How many pods come.
    n_pods: usize,
    /// The share of them that goes again, in tenths.
    gone: usize,
}

fn cases() -> impl Strategy<Value = IdleCase> {
    let kinds = vec![
        BlockKind::V4Address,
        BlockKind::V4Prefix,
        BlockKind::V4Address,
        BlockKind::V4Prefix,
        BlockKind::V6Prefix,
    ];
    let pods = (prop_oneof![Just(0), 1..12_usize, 12..70_usize], 0..=10_usize);
    (instance_limits(), policies(kinds), any::<bool>(), pods).prop_map(
        |(limits, policy, second_subnet, (n_pods, gone))| IdleCase {
            limits,
            policy,
            second_subnet,
            n_pods,
            gone,
        },
    )
}

/// A node on which the pods of the case have come and gone, and the pool has found its size.
fn settled(case: &IdleCase, free_blocks: FreeBlocks) -> Node {
    let ec2 = ec2(case.limits, free_blocks, case.second_subnet.then_some(free_blocks));
    let mut node = Node::start_with(ec2, case.limits, case.policy.clone());
    node.settle();
    for pod in 0..case.n_pods {
        node.add(pod);
        node.settle();
    }
    for pod in 0..case.n_pods * case.gone / 10 {
        node.del(pod);
        node.settle();
    }
    node.pass(SETTLED_AFTER);
    node
}

/// Lets `span` pass. Returns how often the node woke.
fn sleep(node: &mut Node, span: Duration) -> usize {
    let end = node.now + span;
    let mut n_wakes = 0;
    while let Some(at) = node.engine.wake_at().filter(|at| *at <= end) {
        assert!(at > node.now, "the engine wakes in the past");
        node.now = at;
        node.send(Event::Tick);
        node.settle();
        n_wakes += 1;
    }
    node.now = end;
    n_wakes
}

proptest! {
    #![proptest_config(cases_of_cost(1))]

    /// For 18 hours the node makes no calls and writes nothing. It wakes at most [`WAKES_AN_HOUR`] times in
    /// each hour. In the 20 hours after that it makes its daily describe and leak search, and no changes.
    #[test]
    fn idle_node_makes_no_calls_and_sleeps(case in cases()) {
        let mut node = settled(&case, FreeBlocks::PLENTY);
        let (n_calls, n_log) = (node.ec2.calls.len(), node.log.len());
        for hour in 1..=18 {
            let n_wakes = sleep(&mut node, HOUR);
            let asked: Vec<_> = node.ec2.calls[n_calls..].iter().map(ToString::to_string).collect();
            prop_assert!(asked.is_empty(), "in hour {}: {:?}", hour, asked);
            prop_assert!(n_wakes <= WAKES_AN_HOUR, "{} times in hour {}", n_wakes, hour);
        }
        sleep(&mut node, 20 * HOUR);
        let asked = &node.ec2.calls[n_calls..];
        prop_assert!(asked.iter().all(Ec2Call::reads), "the node makes changes: {:?}", asked);
        let is_audit = |call: &&Ec2Call| matches!(call, Ec2Call::DescribeEnis);
        let n_audits = asked.iter().filter(is_audit).count();
        let of_subnets = asked.iter().filter(|call| matches!(call, Ec2Call::DescribeSubnets));
        let n_subnets = of_subnets.count();
        let n_searches = asked.len() - n_audits - n_subnets;
        prop_assert!((1..=2).contains(&n_subnets), "{} describes of subnets in 20 hours", n_subnets);
        prop_assert!((1..=2).contains(&n_audits), "{} audits in 20 hours", n_audits);
        prop_assert!((0..=2).contains(&n_searches), "{} searches in 20 hours", n_searches);
        prop_assert_eq!(node.log.len(), n_log);
    }

    /// A node that cannot get the blocks that it wants asks again, but rarely.
    #[test]
    fn unavailable_blocks_are_requested_rarely(case in cases(), free_blocks in free_blocks()) {
        let mut node = settled(&case, free_blocks);
        let (n_calls, n_log) = (node.ec2.calls.len(), node.log.len());
        for hour in 1..=3 {
            sleep(&mut node, HOUR);
            let n = node.ec2.calls.len() - n_calls;
            prop_assert!(n <= hour * CALLS_AN_HOUR_IN_VAIN, "{n} calls in {hour} hours");
        }
        // Each failed call writes its intent and its end.
        prop_assert!(node.log.len() - n_log <= 2 * (node.ec2.calls.len() - n_calls));
    }
}
