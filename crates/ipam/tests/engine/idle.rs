//! A node to which nothing happens asks nothing of EC2 and sleeps, whatever its targets are.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::Ec2Call;
use ipam::event::Event;
use ipam::policy::Limits;
use proptest::prelude::*;

use crate::node::{Node, Setup};
use crate::settings::{Left, cases_of_cost, ec2, instance_limits, left, policies};

const HOUR: Duration = Duration::from_secs(3600);
/// After the last pod has come or gone, a pool has found its size.
const SETTLED_AFTER: Duration = HOUR;
/// How often a node at rest wakes in an hour, at most.
const WAKES_AN_HOUR: usize = 2;
/// How many calls a node makes in an hour, at most, whose subnets have not what it wants: every two
/// minutes it asks both subnets for both kinds of block, and after each refusal reads how many are
/// free.
const CALLS_AN_HOUR_IN_VAIN: usize = 30 * 2 * 2 * 2;

#[derive(Debug, Clone)]
struct Scene {
    limits: Limits,
    policy: Setup,
    second_subnet: bool,
    /// Pods that come, and of those the share that goes again, in tenths.
    n_pods: usize,
    gone: usize,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let kinds = vec![
        BlockKind::V4Address,
        BlockKind::V4Prefix,
        BlockKind::V4Address,
        BlockKind::V4Prefix,
        BlockKind::V6Prefix,
    ];
    let pods = (prop_oneof![Just(0), 1..12_usize, 12..70_usize], 0..=10_usize);
    (instance_limits(), policies(kinds), any::<bool>(), pods).prop_map(
        |(limits, policy, second_subnet, (n_pods, gone))| Scene {
            limits,
            policy,
            second_subnet,
            n_pods,
            gone,
        },
    )
}

/// A node on which the pods of the scene have come and gone, and the pool has found its size.
fn settled(scene: &Scene, left: Left) -> Node {
    let ec2 = ec2(scene.limits, left, scene.second_subnet.then_some(left));
    let mut node = Node::start_with(ec2, scene.limits, scene.policy.clone());
    node.settle();
    for pod in 0..scene.n_pods {
        node.add(pod);
        node.settle();
    }
    for pod in 0..scene.n_pods * scene.gone / 10 {
        node.del(pod);
        node.settle();
    }
    node.pass(SETTLED_AFTER);
    node
}

/// Lets `span` pass and returns how often the node woke.
fn sleep(node: &mut Node, span: Duration) -> usize {
    let end = node.now + span;
    let mut n_wakes = 0;
    while let Some(at) = node.engine.wake_at().filter(|at| *at <= end) {
        assert!(at > node.now, "woken for the past");
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

    /// In 19 hours nothing is asked of EC2 or written, in any one of them the node wakes at most
    /// [`WAKES_AN_HOUR`] times; in the day after it reads its ENIs once and those of the cluster that
    /// nobody holds, and changes nothing.
    #[test]
    fn idle_node_makes_no_calls_and_sleeps(scene in scenes()) {
        let mut node = settled(&scene, Left::PLENTY);
        let (n_calls, n_log) = (node.ec2.calls.len(), node.log.len());
        for hour in 1..=18 {
            let n_wakes = sleep(&mut node, HOUR);
            let asked: Vec<_> = node.ec2.calls[n_calls..].iter().map(ToString::to_string).collect();
            prop_assert!(asked.is_empty(), "in hour {}: {:?}", hour, asked);
            prop_assert!(n_wakes <= WAKES_AN_HOUR, "{} times in hour {}", n_wakes, hour);
        }
        sleep(&mut node, 20 * HOUR);
        let asked = &node.ec2.calls[n_calls..];
        prop_assert!(asked.iter().all(Ec2Call::reads), "it changes something: {:?}", asked);
        let is_audit = |call: &&Ec2Call| matches!(call, Ec2Call::DescribeEnis);
        let n_audits = asked.iter().filter(is_audit).count();
        let n_searches = asked.len() - n_audits;
        prop_assert!((1..=2).contains(&n_audits), "{} audits in 20 hours", n_audits);
        prop_assert!((0..=2).contains(&n_searches), "{} searches in 20 hours", n_searches);
        prop_assert_eq!(node.log.len(), n_log);
    }

    /// A node that cannot have what it wants asks again, but with patience.
    #[test]
    fn unavailable_blocks_are_requested_rarely(scene in scenes(), left in left()) {
        let mut node = settled(&scene, left);
        let (n_calls, n_log) = (node.ec2.calls.len(), node.log.len());
        for hour in 1..=3 {
            sleep(&mut node, HOUR);
            let n = node.ec2.calls.len() - n_calls;
            prop_assert!(n <= hour * CALLS_AN_HOUR_IN_VAIN, "{n} calls in {hour} hours");
        }
        // An intent and its end for each call in vain.
        prop_assert!(node.log.len() - n_log <= 2 * (node.ec2.calls.len() - n_calls));
    }
}
