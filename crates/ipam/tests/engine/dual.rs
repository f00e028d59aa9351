//! Dual stack: a pod has an IPv4 and an IPv6 address. A shortage of one family concerns only pods that need it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::{BlockKind, Family};
use ipam::call::{Action, CallErrorKind, Ec2Call};
use ipam::event::{Answer, RefusalCode};
use ipam::id::EniId;
use ipam::policy::{Needs, WarmSettings};
use ipam::record::Assignment;
use ipam::view::BlockUse;

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id};
use crate::node::{Node, Setup, key, limits, policy, warm_ip};

fn dual(needs: Needs) -> Setup {
    Setup { dual: Some(needs), ..warm_ip(1, 0) }
}

fn required() -> Setup {
    dual(Needs::Each)
}

fn preferred() -> Setup {
    dual(Needs::Any)
}

/// A node whose EC2 refuses some calls, after everything that succeeds has come to rest.
fn refusing(setup: Setup, refuses: fn(&Ec2Call) -> Option<CallErrorKind>) -> Node {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.refuses = refuses;
    let mut node = Node::start_with(ec2, limits("t3.small"), setup);
    node.settle();
    node
}

fn no_ipv6(call: &Ec2Call) -> Option<CallErrorKind> {
    (call.action() == Action::AssignIpv6).then_some(CallErrorKind::AccessDenied)
}

fn no_ipv4(call: &Ec2Call) -> Option<CallErrorKind> {
    let takes = matches!(call.action(), Action::Assign | Action::CreateEni);
    takes.then_some(CallErrorKind::SubnetExhausted)
}

fn families(assignment: &Assignment) -> Vec<Family> {
    assignment.ips().map(Family::of).collect()
}

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// The ENIs of the IPv4 and of the IPv6 address.
fn enis(assignment: &Assignment) -> Vec<EniId> {
    assignment.addresses.iter().map(|ip| ip.via.eni().clone()).collect()
}

fn ipv6(assignment: &Assignment) -> IpAddr {
    assignment.ips().last().unwrap()
}

fn n_ipv6_prefixes(node: &Node) -> Vec<usize> {
    let enis = node.ec2.enis.values();
    let is_ipv6 = |block: &&ipam::block::Block| block.kind() == BlockKind::V6Prefix;
    enis.map(|eni| eni.blocks.iter().filter(is_ipv6).count()).collect()
}

#[test]
fn pod_gets_an_address_of_each_family() {
    let mut node = Node::settled(limits("t3.small"), required());
    let (mut seen, mut on_secondary) = (BTreeSet::new(), 0);
    for pod in 0..9 {
        let assignment = node.run_pod(pod);
        assert_eq!(families(&assignment), BOTH);
        assert!(assignment.ips().all(|ip| seen.insert(ip)), "{assignment:?}");
        let enis = enis(&assignment);
        assert_eq!(enis[1], eni_id(PRIMARY), "IPv6 is the primary ENI's");
        on_secondary += usize::from(enis[0] != eni_id(PRIMARY));
    }
    assert_eq!((on_secondary, n_ipv6_prefixes(&node)), (6, vec![1, 0, 0]));
    let view = node.view();
    let second = view.second.unwrap();
    assert_eq!((view.counts.assigned, view.counts.total), (9, 9));
    assert_eq!((second.kind, second.counts.assigned), (BlockKind::V6Prefix, 9));
    assert_eq!(view.capacity.addresses, 9, "IPv4 decides how many pods fit");
}

#[test]
fn both_families_are_asked_for_at_the_start() {
    let mut node = Node::start(limits("t3.small"), required());
    while node.calls.iter().any(|(_, call)| call.reads()) {
        node.end_call(0);
        node.save_all();
    }
    assert_eq!(node.under_way(), ["AssignIpv6Addresses 1 IPv6 prefixes to eni-0000"]);
    node.settle();
    assert_eq!(node.ec2.n_blocks(), [2]);
}

#[test]
fn pod_waits_for_the_family_that_is_under_way() {
    for setup in [required(), preferred()] {
        let mut node = Node::start(limits("t3.small"), setup);
        let request = node.add(0);
        while node.answer(request).is_none() {
            node.save_all();
            match node.calls.is_empty() {
                true => node.end_sync(&ipam::event::LinkState::Ready),
                false => drop(node.end_call(0)),
            }
        }
        assert_eq!(families(node.granted(request)), BOTH);
    }
}

#[test]
fn shortage_of_ipv6_refuses_pods_that_need_both() {
    let mut node = refusing(required(), no_ipv6);
    let refusal = node.engine.ready(node.now).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::AccessDenied);
    let request = node.add(0);
    node.settle();
    let refusal = node.refused(request);
    assert_eq!(refusal.code, RefusalCode::AccessDenied);
    assert!(refusal.message.starts_with("no free IPv6 address: 0 of 0"), "{}", refusal.message);
    // IPv4 keeps to its targets all the same, and gets no address for pods that wait in vain.
    let n_calls = node.ec2.n_mutating();
    for pod in 1..9 {
        node.add(pod);
    }
    node.settle();
    assert_eq!((node.counts().free, node.ec2.n_mutating()), (1, n_calls));
    assert!(node.engine.record().assignments().is_empty());
    node.ec2.refuses = |_| None;
    node.pass(Duration::from_secs(3600));
    assert_eq!(families(&node.run_pod(1)), BOTH);
}

#[test]
fn shortage_of_ipv6_delays_no_pod_that_may_start_without() {
    let mut node = refusing(preferred(), no_ipv6);
    assert_eq!(node.engine.ready(node.now), Ok(()));
    let request = node.add(0);
    node.save_all();
    assert_eq!(families(node.granted(request)), [Family::V4], "it waits for no call");
    node.ec2.refuses = |_| None;
    node.pass(Duration::from_secs(3600));
    assert_eq!(families(&node.run_pod(1)), BOTH);
    assert_eq!(families(&node.run_pod(0)), [Family::V4], "a pod keeps what it has");
}

#[test]
fn shortage_of_ipv4_leaves_pods_one_family_if_they_may() {
    let mut node = refusing(required(), no_ipv4);
    let request = node.add(0);
    node.settle();
    let refusal = node.refused(request);
    assert_eq!(refusal.code, RefusalCode::SubnetExhausted);
    assert!(refusal.message.starts_with("no free IPv4 address: 0 of 0"), "{}", refusal.message);

    let mut node = refusing(preferred(), no_ipv4);
    assert_eq!(node.engine.ready(node.now), Ok(()));
    let request = node.add(0);
    node.settle();
    assert_eq!(families(node.granted(request)), [Family::V6]);
}

#[test]
fn what_a_pod_needs_changes_while_the_daemon_runs() {
    let mut node = refusing(required(), no_ipv6);
    let request = node.add(0);
    node.settle();
    assert_eq!(node.refused(request).code, RefusalCode::AccessDenied);
    node.change_policy(preferred());
    assert_eq!(families(&node.run_pod(0)), [Family::V4]);
    node.change_policy(required());
    let request = node.add(1);
    node.settle();
    assert_eq!(node.refused(request).code, RefusalCode::AccessDenied);
    assert_eq!(families(&node.run_pod(0)), [Family::V4], "it has started already");
}

/// A pod that needs both families is refused for IPv6 first: without it, the pod asks for no IPv4 address.
#[test]
fn pod_without_any_family_is_refused() {
    let refuses = |call: &Ec2Call| no_ipv4(call).or_else(|| no_ipv6(call));
    let codes = [RefusalCode::AccessDenied, RefusalCode::SubnetExhausted];
    for (setup, code) in [required(), preferred()].into_iter().zip(codes) {
        let mut node = refusing(setup, refuses);
        let request = node.add(0);
        node.settle();
        assert_eq!(node.refused(request).code, code);
        let blocked = node.view().blocked.join("; ");
        assert!(blocked.contains("SUBNET_EXHAUSTED"), "status has both: {blocked}");
        assert!(blocked.contains("ACCESS_DENIED"), "status has both: {blocked}");
    }
}

#[test]
fn pod_may_start_with_one_family_when_its_patience_ends() {
    let throttled =
        |call: &Ec2Call| (call.action() == Action::AssignIpv6).then_some(CallErrorKind::Throttled);
    let mut node = refusing(preferred(), throttled);
    let request = node.add(0);
    node.settle();
    assert_eq!(node.answer(request), None, "EC2 may grant the prefix in time");
    node.pass(Duration::from_secs(11));
    assert_eq!(families(node.granted(request)), [Family::V4]);
    let request = node.add(1);
    node.settle();
    node.ec2.refuses = |_| None;
    node.pass(Duration::from_secs(11));
    assert_eq!(families(node.granted(request)), BOTH);

    let mut node = refusing(required(), throttled);
    let request = node.add(0);
    node.pass(Duration::from_secs(11));
    assert_eq!(node.refused(request).code, RefusalCode::Throttled);
}

#[test]
fn full_ipv6_limit_of_an_eni_is_not_that_of_ipv4() {
    let refuses = |call: &Ec2Call| {
        (call.action() == Action::AssignIpv6).then_some(CallErrorKind::AddressLimit)
    };
    let mut node = refusing(preferred(), refuses);
    for pod in 0..9 {
        assert_eq!(families(&node.run_pod(pod)), [Family::V4]);
    }
}

#[test]
fn both_addresses_rest_and_ipv6_never_comes_again() {
    let mut node = Node::settled(limits("t3.small"), Setup { max_enis: Some(1), ..required() });
    let mut seen = BTreeSet::new();
    for pod in 0..20 {
        let assignment = node.run_pod(pod);
        assert!(seen.insert(ipv6(&assignment)));
        let request = node.del(pod);
        node.settle();
        assert_eq!(node.answer(request), Some(&Answer::Released(Some(assignment.clone()))));
        let cooling = node.record().cooling().clone();
        assert!(assignment.ips().all(|ip| cooling.contains_key(&ip)), "{cooling:?}");
        node.pass(Duration::from_secs(40));
    }
    let ipv4 = seen.len() - 20;
    assert_eq!((ipv4, n_ipv6_prefixes(&node)), (0, vec![1]));
}

#[test]
fn gc_releases_both_addresses() {
    let mut node = Node::settled(limits("t3.small"), required());
    let (kept, dead) = (node.run_pod(0), node.run_pod(1));
    let request = node.gc(&[0]);
    node.settle();
    assert_eq!(node.answer(request), Some(&Answer::Collected(vec![(key(1), dead)])));
    let owners: BTreeSet<_> = node.record().owners().keys().copied().collect();
    assert_eq!(owners, kept.ips().collect());
}

#[test]
fn restart_keeps_both_addresses() {
    let mut node = Node::settled(limits("t3.small"), required());
    let before: Vec<_> = (0..5).map(|pod| node.run_pod(pod)).collect();
    node.restart();
    node.settle();
    let after: Vec<_> = (0..5).map(|pod| node.run_pod(pod)).collect();
    assert_eq!(after, before);
    let next = node.run_pod(5);
    let taken: BTreeSet<_> = before.iter().flat_map(Assignment::ips).collect();
    assert!(next.ips().all(|ip| !taken.contains(&ip)), "{next:?}");
}

#[test]
fn start_without_ec2_serves_both_families() {
    let mut node =
        Node::settled(limits("t3.small"), Setup { cooldown: Duration::ZERO, ..dual(Needs::Each) });
    node.run_pod(0);
    node.pass(Duration::from_secs(60));
    node.restart();
    node.pass_unsettled(Duration::from_secs(1));
    node.end_sync(&ipam::event::LinkState::Ready);
    let request = node.add(1);
    node.save_all();
    assert_eq!(families(node.granted(request)), BOTH);
}

#[test]
fn lost_record_regains_both_addresses_of_a_link() {
    let mut node = Node::settled(limits("t3.small"), required());
    let pods: Vec<_> = (0..5).map(|pod| node.run_pod(pod)).collect();
    for (pod, assignment) in pods.iter().enumerate() {
        node.links.extend(assignment.ips().map(|ip| (ip, key(pod))));
    }
    node.restart_without_record();
    node.settle();
    node.pass(Duration::from_secs(60));
    for (pod, before) in pods.iter().enumerate() {
        let record = node.record();
        let found = &record.assignments()[&key(pod).by_link()];
        assert_eq!(found.addresses, before.addresses);
    }
    assert_eq!(node.view().quarantined.len(), 0);
}

#[test]
fn pods_keep_what_they_have_when_the_families_change() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let ipv4 = node.run_pod(0);
    node.restart_with(required());
    node.settle();
    let both = node.run_pod(1);
    assert_eq!((node.run_pod(0), families(&both)), (ipv4.clone(), BOTH.to_vec()));
    node.restart_with(warm_ip(1, 0));
    node.pass(Duration::from_secs(3600));
    assert_eq!((node.run_pod(0), node.run_pod(1)), (ipv4, both));
    assert_eq!(families(&node.run_pod(2)), [Family::V4]);
    assert_eq!(n_ipv6_prefixes(&node)[0], 1, "the prefix of the family before stays");
}

/// An earlier version of the record holds pods with one address. The present one has always been a list.
#[test]
fn record_reads_what_it_writes_of_two_addresses() {
    let mut node = Node::settled(limits("t3.small"), required());
    let assignment = node.run_pod(0);
    let text = serde_json::to_string(&assignment).unwrap();
    assert_eq!(serde_json::from_str::<Assignment>(&text).unwrap(), assignment);
    let addresses = text.matches("\"address\":").count();
    assert_eq!(addresses, 2, "{text}");
}

/// Each family keeps to its own targets.
#[test]
fn warm_targets_are_those_of_ipv4() {
    for (kind, warm, free) in [
        (BlockKind::V4Address, WarmSettings { warm_ip: 5, ..WarmSettings::default() }, 5),
        (BlockKind::V4Address, WarmSettings { warm_eni: 2, ..WarmSettings::default() }, 6),
        (BlockKind::V4Prefix, WarmSettings { warm_prefix: 2, ..WarmSettings::default() }, 32),
    ] {
        let setup = Setup { dual: Some(Needs::Each), ..policy(kind, warm) };
        let mut node = Node::settled(limits("t3.small"), setup);
        node.pass(Duration::from_secs(60));
        assert_eq!(node.counts().free, free, "{kind:?}");
        node.run_pod(0);
        node.del(0);
        node.pass(Duration::from_secs(3600));
        assert_eq!(node.counts().free, free, "{kind:?}");
        let view = node.view();
        let ipv6 = |eni: &ipam::view::EniView| -> Vec<BlockUse> {
            let blocks = eni.blocks.iter().filter(|(block, _)| block.family() == Family::V6);
            blocks.map(|(_, used)| used.clone()).collect()
        };
        assert_eq!(ipv6(&view.enis[0]).len(), 1);
        assert!(view.enis[1..].iter().all(|eni| ipv6(eni).is_empty()));
    }
}

/// The IPv4 subnet has nothing left while pods run: only new pods are concerned.
#[test]
fn exhausted_subnet_leaves_running_pods_alone() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_addresses = 2;
    let mut node = Node::start_with(
        ec2,
        limits("t3.small"),
        Setup { dual: Some(Needs::Any), ..warm_ip(0, 0) },
    );
    node.settle();
    let first = node.run_pod(0);
    let second = node.run_pod(1);
    let third = node.run_pod(2);
    assert_eq!([&first, &second].map(families), [BOTH.to_vec(), BOTH.to_vec()]);
    assert_eq!(families(&third), [Family::V6]);
    assert_eq!((node.run_pod(0), node.run_pod(1)), (first, second));
}
