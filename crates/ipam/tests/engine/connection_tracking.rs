//! New ENIs remember idle connections for as long as the primary ENI does, or as the policy says.

use std::time::Duration;

use ipam::call::Ec2Call;
use ipam::connection_tracking::ConnectionTracking;

use crate::ec2::{Ec2, PRIMARY, eni_id};
use crate::node::{Node, Setup, limits, warm_ip};

fn set(ec2: &mut Ec2, tracking: ConnectionTracking) {
    ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().connection_tracking = tracking;
}

/// The time-outs with which ENIs were created, in the order of the calls.
fn asked(node: &Node) -> Vec<ConnectionTracking> {
    let asked = node.ec2.calls.iter().filter_map(|call| match call {
        Ec2Call::CreateEni { connection_tracking, .. } => Some(*connection_tracking),
        _ => None,
    });
    asked.collect()
}

#[test]
fn new_eni_has_the_primary_enis_time_outs() {
    let tcp = |tcp_established| ConnectionTracking {
        tcp_established: Some(tcp_established),
        ..ConnectionTracking::default()
    };
    let mut ec2 = Ec2::new(limits("m5.large"));
    set(&mut ec2, tcp(350));
    let mut node = Node::start_with(ec2, limits("m5.large"), warm_ip(0, 0));
    node.settle();
    for pod in 0..10 {
        node.run_pod(pod);
    }
    assert_eq!(asked(&node), [tcp(350)]);
    // The describe before a create shows the change.
    node.pass(Duration::from_secs(3600));
    set(&mut node.ec2, tcp(900));
    for pod in 10..19 {
        node.run_pod(pod);
    }
    assert_eq!(asked(&node), [tcp(350), tcp(900)]);
    let own = node.ec2.enis.values().filter(|eni| eni.id != eni_id(PRIMARY));
    let own: Vec<_> = own.map(|eni| eni.connection_tracking).collect();
    assert_eq!(own, [tcp(350), tcp(900)], "an ENI that exists keeps its own");
}

#[test]
fn new_eni_has_the_types_time_outs_if_the_primary_has() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(0, 0));
    for pod in 0..10 {
        node.run_pod(pod);
    }
    assert_eq!(asked(&node), [ConnectionTracking::default()]);
}

/// Each time-out by itself. A change of the policy holds for the next ENI.
#[test]
fn time_outs_of_the_policy_override_the_primary_enis() {
    let tracking = |tcp_established, udp| ConnectionTracking {
        tcp_established,
        udp,
        ..ConnectionTracking::default()
    };
    let setup = |connection_tracking| Setup { connection_tracking, ..warm_ip(0, 0) };
    let mut ec2 = Ec2::new(limits("m5.large"));
    set(&mut ec2, tracking(Some(350), Some(45)));
    let mut node = Node::start_with(ec2, limits("m5.large"), setup(tracking(Some(600), None)));
    node.settle();
    for pod in 0..10 {
        node.run_pod(pod);
    }
    assert_eq!(asked(&node), [tracking(Some(600), Some(45))]);
    node.change_policy(setup(tracking(None, Some(31))));
    for pod in 10..19 {
        node.run_pod(pod);
    }
    assert_eq!(asked(&node)[1..], [tracking(Some(350), Some(31))]);
}
