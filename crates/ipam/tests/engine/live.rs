//! Policy and limits that change while the engine runs, and the reasons of its calls.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{Action, Ec2Call};
use ipam::event::{Event, Reason};
use ipam::policy::{Limits, WarmSettings};

use crate::node::{Node, OnEni as _, Setup, limits, policy, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A node that serves `n` pods and has settled.
fn with_pods(setup: Setup, n: usize) -> Node {
    let mut node = Node::settled(limits("m5.large"), setup);
    for pod in 0..n {
        node.run_pod(pod);
    }
    node.pass(secs(3600));
    node
}

#[test]
fn other_targets_take_effect_at_once_both_ways() {
    let mut node = with_pods(warm_ip(2, 0), 3);
    assert_eq!(node.counts().free, 2);
    node.change_policy(warm_ip(9, 0));
    node.settle();
    assert_eq!(node.counts().free, 9);
    node.change_policy(warm_ip(1, 0));
    node.pass(secs(3600));
    assert_eq!(node.counts().free, 1);
}

#[test]
fn lower_max_eni_gives_an_idle_eni_back() {
    let mut node = with_pods(warm_ip(14, 0), 1);
    assert_eq!(node.ec2.n_blocks().len(), 2);
    node.change_policy(Setup { max_enis: Some(1), ..warm_ip(2, 0) });
    node.pass(secs(7200));
    assert_eq!(node.ec2.n_blocks().len(), 1);
    node.change_policy(Setup { max_enis: None, ..warm_ip(14, 0) });
    node.pass(secs(60));
    assert_eq!(node.ec2.n_blocks().len(), 2);
}

/// Addresses that rest already rest as long as the newest policy says.
#[test]
fn other_cooldown_holds_for_resting_addresses() {
    let setup = |cooldown| Setup { cooldown, max_enis: Some(1), ..warm_ip(9, 9) };
    let mut node = with_pods(setup(secs(300)), 9);
    let address = node.view().assignments.values().next().unwrap().address();
    let key = node.record().owner(address).unwrap().clone();
    let request = node.request();
    node.send(Event::Del { request, key });
    node.settle();
    assert_eq!((node.counts().cooling, node.counts().free), (1, 0));
    node.pass(secs(40));
    node.change_policy(setup(secs(30)));
    node.settle();
    assert_eq!((node.counts().cooling, node.counts().free), (0, 1));
    assert_eq!(node.run_pod(70).address(), address);
}

#[test]
fn other_limits_take_effect_at_once() {
    let mut node = with_pods(warm_ip(100, 0), 0);
    assert_eq!(node.ec2.n_blocks(), [9, 9, 9]);
    node.ec2.limits = Limits { enis: 4, addresses_per_eni: 15, prefixes: true };
    node.change_limits(node.ec2.limits);
    node.pass(secs(60));
    assert_eq!(node.ec2.n_blocks(), [14, 14, 14, 14]);
    assert_eq!(node.view().limits, node.ec2.limits);
}

#[test]
fn prefixes_replace_single_addresses_without_a_restart() {
    let mut node = with_pods(warm_ip(2, 0), 1);
    let settings = WarmSettings { warm_ip: 5, ..WarmSettings::default() };
    node.change_policy(policy(BlockKind::V4Prefix, settings));
    node.pass(secs(3600));
    let view = node.view();
    assert_eq!((view.kind, view.counts.prefixes), (BlockKind::V4Prefix, 1));
    assert_eq!(view.counts.assigned, 1, "the pod keeps its address");
}

/// The reasons of the calls of one action, in their order.
fn reasons(node: &Node, action: Action) -> Vec<String> {
    let calls = node.reasons.iter().filter(|(call, _)| call.action() == action);
    calls.map(|(_, why)| why.to_string()).collect()
}

#[test]
fn every_call_says_why_it_is_made() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(12, 0));
    assert_eq!(node.reasons[0].1, Reason::Start);
    assert_eq!(reasons(&node, Action::CreateEni), ["0 free, 12 wanted, 0 pods wait"]);
    assert_eq!(reasons(&node, Action::AttachEni), ["the ENI is new"]);
    node.change_policy(warm_ip(2, 0));
    node.pass(secs(3600));
    let drained = ["5 free, 2 wanted, for 300 s"];
    assert_eq!(reasons(&node, Action::DetachEni), drained);
    assert_eq!(reasons(&node, Action::DeleteEni), drained);
    let describes = reasons(&node, Action::DescribeEnis);
    assert!(describes.iter().all(|why| !why.is_empty()), "{describes:?}");
}

#[test]
fn pods_that_wait_are_named_as_the_reason() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(1, 0));
    node.run_pod(0);
    for pod in 1..4 {
        node.add(pod);
    }
    node.settle();
    let assigns = node.reasons.iter().filter(|(call, _)| matches!(call, Ec2Call::Assign { .. }));
    let waiting = assigns.filter_map(|(_, why)| match why {
        Reason::Short { waiting, .. } => Some(*waiting),
        _ => None,
    });
    assert!(waiting.max() >= Some(1), "{:?}", node.reasons);
}

#[test]
fn connections_are_forgotten_once_in_each_rest() {
    let check = |cooldown: u64, expect: &[u64]| {
        let setup = Setup { cooldown: secs(cooldown), max_enis: Some(1), ..warm_ip(2, 2) };
        let mut node = Node::settled(limits("m5.large"), setup);
        node.run_pod(0);
        node.pass(secs(100));
        let released_at = node.now;
        node.del(0);
        node.pass(secs(600));
        let after =
            node.forgotten_connections.iter().map(|(at, _)| at.since(released_at).as_secs());
        assert_eq!(after.collect::<Vec<_>>(), expect, "cooldown {cooldown} s");
    };
    check(30, &[10]);
    check(300, &[10]);
    // Five seconds before the end at the latest.
    check(12, &[7]);
    check(5, &[0]);
    // Too short.
    check(4, &[]);
    check(0, &[]);
}

#[test]
fn connections_of_many_addresses_are_forgotten_together() {
    let setup = Setup { max_enis: Some(1), ..warm_ip(9, 9) };
    let mut node = with_pods(setup, 6);
    for pod in 0..6 {
        node.del(pod);
        node.pass(Duration::from_millis(300));
    }
    node.pass(secs(60));
    let sizes: Vec<_> =
        node.forgotten_connections.iter().map(|(_, addresses)| addresses.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 6);
    assert!(sizes.len() <= 2, "{sizes:?}");
}
