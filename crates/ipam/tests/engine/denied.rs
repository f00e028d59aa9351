//! EC2 refuses one action, one ENI or one subnet. Only what rests on it stops.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, Ec2Call};
use ipam::event::RefusalCode;
use ipam::policy::WarmSettings;

use crate::custom_networking::{by_eni_config, found};
use crate::ec2::{Ec2, PRIMARY, SUBNET, subnet_id};
use crate::errors::fail;
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

/// Where pods are on other ENIs than the primary one, they need the range of another subnet.
#[test]
fn eni_is_not_created_in_a_subnet_without_a_range() {
    let mut node = node_refused(no_subnets, by_eni_config(warm_ip(1, 0)));
    node.ec2.add_subnet("subnet-1", 1, &[]);
    node.change_eni_config(found(&["subnet-1"], &[]));
    node.settle();
    let refusal = node.engine.ready(node.now).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::AccessDenied);
    assert!(refusal.message.contains("DescribeSubnets"), "{}", refusal.message);
    assert!(asked_subnets(&node).is_empty());
    node.ec2.refuses = |_| None;
    node.pass(secs(75));
    assert_eq!(node.run_pod(4).device_index(), 1);
    assert_eq!(asked_subnets(&node), ["subnet-1"]);
}

fn is_create(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::CreateEni { .. })
}

/// The subnets in which ENIs were to be created, in order.
fn asked_subnets(node: &Node) -> Vec<String> {
    let asked = node.ec2.calls.iter().filter_map(|call| match call {
        Ec2Call::CreateEni { subnet, .. } => Some(subnet.to_string()),
        _ => None,
    });
    asked.collect()
}

/// A policy by tag permits the call on the ENIs that the daemon has made.
#[test]
fn assign_denied_on_one_eni_leaves_the_others() {
    let on_primary = |call: &Ec2Call| {
        let is_it = matches!(call, Ec2Call::Assign { eni, .. } if eni.as_str() == PRIMARY);
        is_it.then_some(CallErrorKind::AccessDenied)
    };
    let mut node = node_refused(on_primary, warm_ip(1, 0));
    assert!(node.engine.ready(node.now).is_ok());
    assert!(status(&node).contains("ACCESS_DENIED: AssignPrivateIpAddresses"), "{}", status(&node));
    assert!(status(&node).contains(PRIMARY), "{}", status(&node));
    // The second ENI gets more addresses by an Assign; then comes a third ENI.
    assert_eq!(indexes(&mut node, 6), [1, 1, 1, 2, 2, 2]);
    let add = node.add(6);
    let refusal = node.refused(add);
    assert_eq!(refusal.code, RefusalCode::AccessDenied);
    assert!(refusal.message.contains(PRIMARY), "{}", refusal.message);
    let asked = |node: &Node| {
        let on_primary = |call: &&Ec2Call| matches!(call, Ec2Call::Assign { eni, .. } if eni.as_str() == PRIMARY);
        node.ec2.calls.iter().filter(on_primary).count()
    };
    let before = asked(&node);
    node.pass(secs(3600));
    assert!(asked(&node) - before <= 10, "{} calls in an hour", asked(&node) - before);
    node.ec2.refuses = |_| None;
    node.pass(secs(800));
    assert_eq!(node.run_pod(7).device_index(), 0);
}

/// Another ENI goes in place of the one that may not be detached.
#[test]
fn detach_denied_on_one_eni_leaves_the_others() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    let n_first = indexes(&mut node, 9).iter().filter(|index| **index == 1).count();
    assert_eq!(n_first, 3);
    let second = node.view().enis[1].id.clone();
    assert_eq!(second.as_str(), "eni-0001");
    node.ec2.refuses = |call| {
        let is_it = matches!(call, Ec2Call::DetachEni { eni, .. } if eni.as_str() == "eni-0001");
        is_it.then_some(CallErrorKind::AccessDenied)
    };
    for pod in 0..9 {
        node.del(pod);
    }
    node.pass(secs(3600));
    let left: Vec<_> = node.view().enis.iter().map(|eni| eni.id.to_string()).collect();
    assert_eq!(left, [PRIMARY, "eni-0001"]);
}

#[test]
fn create_refused_in_one_subnet_tries_the_next() {
    for kind in [
        CallErrorKind::AccessDenied,
        CallErrorKind::Rejected,
        CallErrorKind::NotFound,
        CallErrorKind::Lasting,
        CallErrorKind::InUse,
    ] {
        let mut ec2 = Ec2::new(limits("t3.small"));
        for (id, byte, free) in [("subnet-1", 1, 900), ("subnet-2", 2, 800)] {
            ec2.add_subnet(id, byte, &[("kubernetes.io/role/cni", "1")]);
            ec2.subnet(id).facts.free_addresses = Some(free);
        }
        ec2.subnet(SUBNET).facts.free_addresses = Some(700);
        let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(0, 0));
        node.settle();
        assert_eq!(indexes(&mut node, 3), [0; 3]);
        let add = node.add(3);
        fail(&mut node, is_create, kind);
        node.settle();
        assert_eq!(node.granted(add).device_index(), 1, "{kind:?}");
        assert!(node.view().enis[1].subnet == subnet_id("subnet-2"), "{kind:?}");
        assert!(status(&node).contains("subnet-1"), "{kind:?}: {}", status(&node));
    }
}

#[test]
fn refusal_names_every_subnet_that_refuses() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.add_subnet("subnet-1", 1, &[("kubernetes.io/role/cni", "1")]);
    ec2.refuses = |call| match call {
        Ec2Call::CreateEni { subnet, .. } if subnet.as_str() == SUBNET => {
            Some(CallErrorKind::AccessDenied)
        }
        Ec2Call::CreateEni { .. } => Some(CallErrorKind::Lasting),
        _ => None,
    };
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(0, 0));
    node.settle();
    indexes(&mut node, 3);
    let add = node.add(3);
    node.settle();
    let refusal = node.refused(add).clone();
    assert_eq!(refusal.code, RefusalCode::AccessDenied, "{}", refusal.message);
    for subnet in [SUBNET, "subnet-1"] {
        let named = format!("CreateNetworkInterface in {subnet}");
        assert!(refusal.message.contains(&named), "{}", refusal.message);
    }
    let mut asked = asked_subnets(&node);
    asked.sort();
    assert_eq!(asked, [SUBNET, "subnet-1"], "each subnet is asked once");
    node.ec2.refuses = |_| None;
    node.pass(secs(75));
    node.run_pod(4);
}

/// A quota, a tag policy or a missing group needs a person.
#[test]
fn lasting_refusal_has_its_code_and_few_calls() {
    let no_create = |call: &Ec2Call| is_create(call).then_some(CallErrorKind::Lasting);
    let mut node = node_refused(no_create, warm_ip(0, 0));
    indexes(&mut node, 3);
    for pod in 3..40 {
        let add = node.add(pod);
        node.settle();
        let refusal = node.refused(add);
        assert_eq!(refusal.code, RefusalCode::Ec2Refuses);
        let names_the_cause = refusal.message.contains("until somebody removes the cause");
        assert!(names_the_cause, "{}", refusal.message);
        node.pass(secs(1));
    }
    assert_eq!(asked_subnets(&node).len(), 1);
    node.pass(secs(3600));
    let add = node.add(40);
    node.settle();
    node.refused(add);
    assert!(asked_subnets(&node).len() <= 3, "nobody waits for most of the hour");
}

#[test]
fn subnet_with_too_few_addresses_gets_one_create_at_a_time() {
    let n_asked_at_once = |n_free: u16| {
        let mut ec2 = Ec2::new(limits("m5.xlarge"));
        ec2.subnet(SUBNET).n_addresses = n_free + 14;
        ec2.subnet(SUBNET).facts.free_addresses = Some(u32::from(n_free) + 14);
        let policy = Setup { grow_delay: Duration::from_millis(50), ..warm_ip(14, 0) };
        let mut node = Node::start_with(ec2, limits("m5.xlarge"), policy);
        node.pass(secs(1));
        assert_eq!(node.ec2.n_blocks(), [14]);
        for pod in 0..40 {
            node.add(pod);
        }
        node.pass_unsettled(secs(1));
        node.calls.iter().filter(|(_, call)| is_create(call)).count()
    };
    assert_eq!((n_asked_at_once(100), n_asked_at_once(15), n_asked_at_once(0)), (3, 1, 1));
}
