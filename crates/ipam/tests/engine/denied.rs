//! EC2 refuses one action, one ENI or one subnet. Only what rests on it stops.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, Ec2Call};
use ipam::event::RefusalCode;
use ipam::policy::{Placement, WarmSettings};

use crate::ec2::{Ec2, subnet_id};
use crate::node::{Node, OnEni as _, Setup, limits, policy, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn no_subnets(call: &Ec2Call) -> Option<CallErrorKind> {
    matches!(call, Ec2Call::DescribeSubnets).then_some(CallErrorKind::AccessDenied)
}

/// A node whose EC2 refuses some calls from the start.
fn node_refused(refuses: fn(&Ec2Call) -> Option<CallErrorKind>, policy: Setup) -> Node {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.refuses = refuses;
    let mut node = Node::start_with(ec2, limits("t3.small"), policy);
    node.settle();
    node
}

fn indexes(node: &mut Node, n_pods: usize) -> Vec<u16> {
    (0..n_pods).map(|pod| node.run_pod(pod).device_index()).collect()
}

fn status(node: &Node) -> String {
    node.view().blocked.join("\n")
}

#[test]
fn pods_are_served_though_subnets_are_denied() {
    let mut node = node_refused(no_subnets, warm_ip(1, 0));
    assert_eq!(node.engine.ready(node.now), Ok(()));
    assert_eq!(indexes(&mut node, 5), [0, 0, 0, 1, 1]);
    assert!(status(&node).contains("ACCESS_DENIED: DescribeSubnets"), "{}", status(&node));
    let noted = node.record();
    assert_eq!(noted.enis().len(), 2, "both ENIs are on record");
    node.restart();
    node.settle();
    node.run_pod(5);

    let ipv6 = policy(BlockKind::V6Prefix, WarmSettings::default());
    let mut node = node_refused(no_subnets, ipv6);
    assert_eq!(indexes(&mut node, 2), [0, 0]);
}

/// The metadata service may show no range, or that of another subnet.
#[test]
fn subnets_denied_without_a_range_are_the_cause() {
    for range in [None, Some("10.9.0.0/16".parse().unwrap())] {
        let mut node = node_refused(no_subnets, warm_ip(0, 0));
        node.boot.node.subnet_cidr = range;
        node.restart_without_record();
        node.settle();
        let add = node.add(1);
        let refusal = node.refused(add);
        assert_eq!(refusal.code, RefusalCode::AccessDenied);
        assert!(refusal.message.contains("DescribeSubnets"), "{}", refusal.message);
        let created = node.ec2.calls.iter().any(|call| matches!(call, Ec2Call::CreateEni { .. }));
        assert!(!created, "a new ENI could not be used either");
        node.ec2.refuses = |_| None;
        node.pass(secs(75));
        node.run_pod(2);
    }
}

/// The primary ENI serves, and what is missing for others is named.
#[test]
fn eni_is_not_created_in_a_subnet_without_a_range() {
    let placement = Placement::Custom { subnets: vec![subnet_id("subnet-1")], groups: [].into() };
    let mut node = node_refused(no_subnets, Setup { placement, ..warm_ip(0, 0) });
    node.ec2.add_subnet("subnet-1", 1, &[]);
    assert_eq!(indexes(&mut node, 3), [0; 3]);
    let add = node.add(3);
    let refusal = node.refused(add);
    assert_eq!(refusal.code, RefusalCode::AccessDenied);
    assert!(refusal.message.contains("DescribeSubnets"), "{}", refusal.message);
    node.ec2.refuses = |_| None;
    node.pass(secs(75));
    assert_eq!(node.run_pod(4).device_index(), 1);
}
