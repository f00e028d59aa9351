//! The security groups and the subnet of the primary ENI may change while the daemon runs.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::call::{CallErrorKind, Ec2Call};
use ipam::event::RefusalCode;
use ipam::id::SecurityGroupId;

use crate::ec2::{Ec2, PRIMARY, eni_id, security_groups};
use crate::node::{Node, limits, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A node with a full primary ENI, some minutes after its start. EC2 refuses new ENIs with the old group.
fn full_node(minutes: u64) -> Node {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    for pod in 0..3 {
        node.run_pod(pod);
    }
    node.pass(secs(minutes * 60));
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    node.ec2.refuses = |call| {
        let gone = security_groups(&["sg-1"]);
        let names_it = |groups: &BTreeSet<SecurityGroupId>| !groups.is_disjoint(&gone);
        let is_it =
            matches!(call, Ec2Call::CreateEni { security_groups, .. } if names_it(security_groups));
        is_it.then_some(CallErrorKind::Lasting)
    };
    node
}

fn set_groups(node: &mut Node, eni: &str, groups: &[&str]) {
    node.ec2.enis.get_mut(&eni_id(eni)).unwrap().security_groups = security_groups(groups);
}

#[test]
fn primary_eni_is_described_before_a_create() {
    let mut node = full_node(6);
    let add = node.add(3);
    node.settle();
    node.granted(add);
    let asked: Vec<_> = node.ec2.calls.iter().filter(|call| is_create(call)).collect();
    assert!(
        matches!(asked[..], [Ec2Call::CreateEni { security_groups: groups, .. }]
            if *groups == security_groups(&["sg-2"])),
        "{asked:?}"
    );
}

fn is_create(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::CreateEni { .. })
}

/// The describe is too recent to be made again before the create.
#[test]
fn refused_security_group_is_read_again_at_once() {
    let mut node = full_node(0);
    let add = node.add(3);
    node.settle();
    assert_eq!(node.refused(add).code, RefusalCode::Ec2Refuses);
    node.run_pod(4);
    assert_eq!(node.ec2.calls.iter().filter(|call| is_create(call)).count(), 2);
}

/// While EC2 does not describe anything, what is known has to do.
#[test]
fn create_goes_on_while_describes_are_refused() {
    let mut node = full_node(6);
    node.ec2.refuses = |call| call.reads().then_some(CallErrorKind::AccessDenied);
    node.run_pod(3);
}

/// A describe costs a token of EC2, so creates that follow one another share one.
#[test]
fn creates_in_a_row_share_a_describe() {
    let mut ec2 = Ec2::new(limits("m5.xlarge"));
    ec2.limits = limits("m5.xlarge");
    let mut node = Node::start_with(ec2, limits("m5.xlarge"), warm_ip(0, 0));
    for pod in 0..14 {
        node.run_pod(pod);
    }
    node.pass(secs(3600));
    let n_reads = |node: &Node| node.ec2.calls.iter().filter(|call| call.reads()).count();
    let before = n_reads(&node);
    for pod in 14..44 {
        node.run_pod(pod);
    }
    assert_eq!(node.ec2.calls.iter().filter(|call| is_create(call)).count(), 3);
    let reads = node.reasons.iter().filter(|(call, _)| call.reads());
    assert_eq!(n_reads(&node) - before, 2, "{:?}", reads.collect::<Vec<_>>());
}
