//! The security groups and the subnet of the primary ENI may change while the daemon runs.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::call::{CallErrorKind, Ec2Call};
use ipam::eni_config::EniConfigAnswer;
use ipam::event::{Event, MetadataEni, Reason, RefusalCode};
use ipam::id::{EniId, SecurityGroupId};

use crate::custom_networking::{by_eni_config, found};
use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, security_groups};
use crate::node::{Node, OURS, limits, warm_ip};

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

/// So many pods need three ENIs.
const PODS: usize = 32;

/// A node with pods on two ENIs of ours beside the primary one, and what `others` adds before the start.
fn busy_node(others: impl FnOnce(&mut Ec2)) -> Node {
    let mut ec2 = Ec2::new(limits("m5.xlarge"));
    others(&mut ec2);
    let mut node = Node::start_with(ec2, limits("m5.xlarge"), warm_ip(0, 0));
    for pod in 0..PODS {
        node.run_pod(pod);
    }
    node.pass(secs(3600));
    assert_eq!(changed(&node), []);
    node
}

/// The ENIs whose groups a call has set, in the order of the calls.
fn changed(node: &Node) -> Vec<EniId> {
    let eni = |call: &Ec2Call| match call {
        Ec2Call::SetSecurityGroups { eni, .. } => Some(eni.clone()),
        _ => None,
    };
    node.ec2.calls.iter().filter_map(eni).collect()
}

/// `n` minutes pass. The true metadata are read in each.
fn pass_minutes(node: &mut Node, n: u64) {
    for _ in 0..n {
        node.pass(secs(60));
        node.hint(node.metadata());
        node.settle();
    }
}

fn groups_of(node: &Node, eni: &EniId) -> BTreeSet<SecurityGroupId> {
    node.ec2.enis[eni].security_groups.clone()
}

/// Our ENIs, which are those with our tag.
fn ours(node: &Node) -> Vec<EniId> {
    let is_ours = |tags: &std::collections::BTreeMap<String, String>| {
        tags.get(OURS.0).is_some_and(|value| value == OURS.1)
    };
    let enis = node.ec2.enis.values().filter(|eni| is_ours(&eni.tags));
    enis.map(|eni| eni.id.clone()).collect()
}

#[test]
fn changed_groups_reach_our_enis_in_three_minutes() {
    let mut node = busy_node(|_| {});
    assert_eq!(ours(&node).len(), 2);
    set_groups(&mut node, PRIMARY, &["sg-2", "sg-3"]);
    pass_minutes(&mut node, 3);
    for eni in ours(&node) {
        assert_eq!(groups_of(&node, &eni), security_groups(&["sg-2", "sg-3"]), "{eni}");
    }
    assert_eq!(changed(&node), ours(&node), "one call for each");
    assert!(node.view().other_groups.is_empty());
    let has = security_groups(&["sg-1"]);
    let is_it = |(call, why): &(Ec2Call, Reason)| {
        matches!(call, Ec2Call::SetSecurityGroups { .. })
            && *why == Reason::OtherGroups { has: has.clone() }
    };
    assert!(node.reasons.iter().any(is_it));
    // Nothing more follows.
    pass_minutes(&mut node, 30);
    assert_eq!(changed(&node).len(), ours(&node).len());
}

/// Without the metadata service the audit finds the change.
#[test]
fn changed_groups_are_found_by_the_daily_describe() {
    let mut node = busy_node(|_| {});
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    node.pass(secs(26 * 3600));
    assert_eq!(changed(&node), ours(&node));
}

#[test]
fn eni_whose_groups_somebody_changed_gets_them_back() {
    let mut node = busy_node(|_| {});
    let eni = ours(&node)[0].clone();
    set_groups(&mut node, eni.as_str(), &["sg-9"]);
    pass_minutes(&mut node, 3);
    assert_eq!(groups_of(&node, &eni), security_groups(&["sg-1"]));
}

#[test]
fn groups_of_enis_that_are_not_ours_stay() {
    let no_manage = ("node.k8s.amazonaws.com/no_manage", "true");
    let other = ("node.k8s.amazonaws.com/instance_id", "i-0fedcba9876543210");
    for tags in [&[OURS, no_manage][..], &[other], &[]] {
        let mut node = busy_node(|ec2| {
            let eni = ec2.attach_foreign(3, tags);
            ec2.enis.get_mut(&eni).unwrap().security_groups = security_groups(&["sg-own"]);
        });
        let eni = eni_id("eni-0001");
        set_groups(&mut node, PRIMARY, &["sg-2"]);
        pass_minutes(&mut node, 10);
        assert_eq!(groups_of(&node, &eni), security_groups(&["sg-own"]), "{tags:?}");
        assert!(!changed(&node).is_empty() && !changed(&node).contains(&eni), "{tags:?}");
        assert!(!changed(&node).contains(&eni_id(PRIMARY)));
        // Its pods have other groups, which nobody but a user can change.
        let serves = tags.is_empty();
        let view = node.view();
        let named = view.blocked.iter().any(|why| why.starts_with("eni-0001: its security groups"));
        assert_eq!(named, serves, "{:?}", view.blocked);
        assert!(view.other_groups.is_empty());
    }
}

#[test]
fn groups_that_an_eni_config_names_are_not_replaced() {
    let mut node = Node::settled(limits("m5.xlarge"), by_eni_config(warm_ip(1, 0)));
    let groups = security_groups(&["sg-pods"]);
    node.change_eni_config(found(&[SUBNET], &["sg-pods"]));
    node.settle();
    for pod in 0..PODS {
        node.run_pod(pod);
    }
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    pass_minutes(&mut node, 5);
    assert_eq!(changed(&node), []);
    assert!(ours(&node).iter().all(|eni| groups_of(&node, eni) == groups));
    assert!(node.view().other_groups.is_empty());
    // Without an ENIConfig nobody knows which groups they are to have.
    node.change_eni_config(EniConfigAnswer::Missing { name: "default".to_owned() });
    pass_minutes(&mut node, 1);
    assert_eq!(changed(&node), []);
    // An ENIConfig without groups leaves the primary ENI's in force.
    node.change_eni_config(found(&[SUBNET], &[]));
    pass_minutes(&mut node, 1);
    assert_eq!(changed(&node), ours(&node));
}

/// EC2 may show the state before a change once more, even after it has shown the change.
#[test]
fn groups_in_one_describe_alone_change_nothing() {
    let mut node = busy_node(|_| {});
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    pass_minutes(&mut node, 1);
    node.pass(secs(60));
    node.hint(node.metadata());
    node.end_call(0);
    node.save_all();
    assert_eq!(node.under_way(), [""; 0], "the first describe shows it");
    set_groups(&mut node, PRIMARY, &["sg-1"]);
    node.pass(secs(20));
    assert_eq!(changed(&node), []);
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    pass_minutes(&mut node, 15);
    assert_eq!(changed(&node), ours(&node));
}

#[test]
fn denied_change_of_groups_is_named_and_rare() {
    let mut node = busy_node(|_| {});
    let denies = |call: &Ec2Call| {
        let is_it = matches!(call, Ec2Call::SetSecurityGroups { .. });
        is_it.then_some(CallErrorKind::AccessDenied)
    };
    node.ec2.refuses = denies;
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    pass_minutes(&mut node, 5);
    let n_ours = ours(&node).len();
    assert_eq!(changed(&node).len(), n_ours);
    let view = node.view();
    assert_eq!(view.other_groups.len(), n_ours);
    let denied = view.blocked.iter().find(|why| why.starts_with("ACCESS_DENIED")).unwrap();
    assert!(denied.contains("ModifyNetworkInterfaceAttribute"), "{denied}");
    let phrase = "its security groups are sg-1, and the primary ENI's are sg-2";
    assert!(view.blocked.iter().any(|why| why.contains(phrase)), "{:?}", view.blocked);
    // Everything else goes on: an ENI with the old groups serves, and others are made and marked.
    for pod in PODS..PODS + 18 {
        node.run_pod(pod);
    }
    let before = changed(&node).len();
    node.pass(secs(24 * 3600));
    let n_calls = changed(&node).len() - before;
    assert!((15..=25 * n_ours).contains(&n_calls), "{n_calls} calls in a day");
    // Once the role may do it, the groups follow within the hour.
    node.ec2.refuses = |_| None;
    node.pass(secs(75 * 60));
    assert!(node.view().other_groups.is_empty(), "{:?}", node.view().other_groups);
    for eni in ours(&node) {
        assert_eq!(groups_of(&node, &eni), security_groups(&["sg-2"]));
    }
}

/// EC2 no longer knows the group that the primary ENI had at the last describe.
#[test]
fn group_gone_before_the_call_is_read_again() {
    let mut node = busy_node(|_| {});
    node.ec2.refuses = |call| {
        let gone = security_groups(&["sg-2"]);
        let names_it = matches!(call, Ec2Call::SetSecurityGroups { security_groups, .. }
            if !security_groups.is_disjoint(&gone));
        names_it.then_some(CallErrorKind::Lasting)
    };
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    while !node.under_way().iter().any(|call| call.ends_with("with sg-2")) {
        node.pass_unsettled(secs(1));
        node.hint(node.metadata());
        while node.calls.front().is_some_and(|(_, call)| call.reads()) {
            node.end_call(0);
            node.save_all();
        }
    }
    set_groups(&mut node, PRIMARY, &["sg-3"]);
    node.settle();
    node.pass(secs(60));
    for eni in ours(&node) {
        assert_eq!(groups_of(&node, &eni), security_groups(&["sg-3"]));
    }
}

/// Metadata that show other groups than EC2 cost one describe, and nothing else.
#[test]
fn wrong_groups_in_metadata_change_nothing() {
    let mut node = busy_node(|_| {});
    let n_reads = |node: &Node| node.ec2.calls.iter().filter(|call| call.reads()).count();
    let before = n_reads(&node);
    for _ in 0..60 {
        node.pass(secs(60));
        let shown = node.metadata().into_iter().map(|(id, blocks)| {
            let security_groups = security_groups(&["sg-wrong"]);
            (id, MetadataEni { blocks, security_groups })
        });
        node.send(Event::Hint(shown.collect()));
        node.settle();
    }
    assert_eq!(n_reads(&node) - before, 1);
    assert_eq!(changed(&node), []);
}

/// Pods that come meanwhile are served first, on the same ENI too.
#[test]
fn pods_come_before_a_change_of_groups() {
    let mut node = busy_node(|_| {});
    set_groups(&mut node, PRIMARY, &["sg-2"]);
    pass_minutes(&mut node, 2);
    // The second describe has yet to come.
    assert_eq!(changed(&node), []);
    node.pass_unsettled(secs(15));
    let add = node.add(PODS);
    node.save_all();
    while !node.calls.is_empty() {
        node.end_call(0);
        node.save_all();
    }
    let eni = node.granted(add).addresses.first().via.eni().clone();
    let on_eni = node.ec2.calls.iter().rev().filter(|call| call.eni() == Some(&eni));
    let order: Vec<_> = on_eni.take(2).collect();
    assert!(
        matches!(order[..], [Ec2Call::SetSecurityGroups { .. }, Ec2Call::Assign { .. }]),
        "{order:?}"
    );
}

/// The process dies while EC2 has the call.
#[test]
fn restart_amid_a_change_of_groups_ends_it() {
    for reaches_ec2 in [false, true] {
        let mut node = busy_node(|_| {});
        set_groups(&mut node, PRIMARY, &["sg-2"]);
        pass_minutes(&mut node, 2);
        node.pass_unsettled(secs(15));
        assert!(node.under_way()[0].starts_with("Describe"), "{:?}", node.under_way());
        node.end_call(0);
        node.save_all();
        assert!(node.under_way()[0].ends_with("with sg-2"), "{:?}", node.under_way());
        if reaches_ec2 {
            let (_, call) = node.calls[0].clone();
            node.ec2.execute(&call).unwrap();
        }
        node.restart();
        assert_eq!(node.record().intents().len(), 1);
        node.pass(secs(60));
        assert!(node.record().intents().is_empty());
        assert_eq!(groups_of(&node, &ours(&node)[0]), security_groups(&["sg-2"]));
    }
}
