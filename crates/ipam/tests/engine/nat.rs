//! The wanted translation of pods' packets: which ranges it excludes, and when it is known.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::{Event, HostNat, LinkState, SourceNat};
use ipam::policy::{NatPolicy, Policy, SourceNatPolicy, SourcePorts, WarmSettings};
use ipam::record::Change;
use ipnet::Ipv4Net;

use crate::node::{Node, limits, policy, warm_ip};

fn ranges(text: &str) -> BTreeSet<Ipv4Net> {
    text.split_whitespace().map(|range| range.parse().unwrap()).collect()
}

fn show(node: &mut Node, text: &str) {
    node.send(Event::VpcRanges(ranges(text)));
}

/// The newest wanted translation. The host has taken it over, and the record is saved.
fn wanted(node: &mut Node) -> HostNat {
    let newest = node.host.clone().expect("the host network has not changed").nat;
    node.settle();
    newest
}

fn source(nat: HostNat) -> SourceNat {
    match nat {
        HostNat::Wanted(nat) => nat.source.expect("something is translated"),
        other => panic!("{other:?}"),
    }
}

fn untranslated(node: &mut Node) -> BTreeSet<Ipv4Net> {
    source(wanted(node)).untranslated
}

/// A node at rest in a VPC with these ranges.
fn in_vpc(text: &str) -> Node {
    let mut node = Node::settled(limits("m5.large"), warm_ip(2, 0));
    show(&mut node, text);
    node.settle();
    node
}

fn with_nat(change: impl FnOnce(&mut NatPolicy)) -> Policy {
    let mut policy = Policy::from(warm_ip(2, 0));
    change(&mut policy.nat);
    policy
}

fn excluding(text: &str) -> Policy {
    let source = SourceNatPolicy { ports: SourcePorts::Kept, excluded: ranges(text) };
    with_nat(|nat| nat.source = Some(source))
}

#[test]
fn nat_is_unknown_until_ranges_and_primary_are_known() {
    let mut node = Node::start(limits("m5.large"), warm_ip(2, 0));
    let reason = |node: &Node| match &node.host.as_ref().unwrap().nat {
        HostNat::Unknown(why) => (*why).to_owned(),
        other => panic!("{other:?}"),
    };
    assert!(reason(&node).contains("metadata service"));
    show(&mut node, "10.0.0.0/16");
    assert!(reason(&node).contains("primary ENI"));
    while node.calls.front().is_some() {
        node.end_call(0);
    }
    let SourceNat { address, ports, untranslated } = source(wanted(&mut node));
    let enis = node.view().enis;
    let primary = enis.iter().find(|eni| eni.primary).unwrap();
    assert_eq!(primary.primary_address, address);
    assert_eq!(ports, SourcePorts::Random);
    assert!(untranslated.is_superset(&ranges("10.0.0.0/16")), "{untranslated:?}");
}

#[test]
fn range_added_to_the_vpc_is_wanted_at_once() {
    let mut node = in_vpc("10.0.0.0/16");
    show(&mut node, "10.0.0.0/16 100.64.0.0/16");
    assert!(untranslated(&mut node).contains(&"100.64.0.0/16".parse().unwrap()));
    assert_eq!(*node.record().vpc_ranges(), ranges("10.0.0.0/16 100.64.0.0/16"));
    // An unchanged answer costs neither a save nor a sync.
    show(&mut node, "10.0.0.0/16 100.64.0.0/16");
    assert!(node.saves.is_empty() && node.host.is_none());
}

/// An answer that was cut off between two lines looks like this.
#[test]
fn range_missing_for_a_while_stays_untranslated() {
    let mut node = in_vpc("10.0.0.0/16 100.64.0.0/16");
    for shown in ["10.0.0.0/16", "", "10.0.0.0/16"] {
        show(&mut node, shown);
        node.pass(Duration::from_secs(290));
        assert!(node.host.is_none(), "{:?}", node.host);
    }
    show(&mut node, "10.0.0.0/16 100.64.0.0/16");
    node.pass(Duration::from_secs(290));
    show(&mut node, "10.0.0.0/16");
    assert!(node.host.is_none(), "{:?}", node.host);
    // Only now has no answer shown it for ten minutes.
    node.pass(Duration::from_secs(600));
    show(&mut node, "10.0.0.0/16");
    assert!(!untranslated(&mut node).contains(&"100.64.0.0/16".parse().unwrap()));
    assert_eq!(*node.record().vpc_ranges(), ranges("10.0.0.0/16"));
}

/// The subnets of the node's own ENIs are in the VPC, whatever is shown.
#[test]
fn own_subnets_are_never_translated() {
    let mut node = in_vpc("192.168.0.0/16");
    show(&mut node, "192.168.0.0/16 172.16.0.0/16");
    let untranslated = untranslated(&mut node);
    assert!(untranslated.iter().any(|range| range.to_string().starts_with("10.")));
}

#[test]
fn restart_without_metadata_wants_the_ranges_on_record() {
    let mut node = in_vpc("10.0.0.0/16 100.64.0.0/16");
    node.restart();
    while node.calls.front().is_some() {
        node.end_call(0);
    }
    assert!(untranslated(&mut node).is_superset(&ranges("10.0.0.0/16 100.64.0.0/16")));
}

#[test]
fn ranges_that_cannot_be_saved_are_wanted_and_saved_later() {
    let mut node = in_vpc("10.0.0.0/16");
    show(&mut node, "10.0.0.0/16 100.64.0.0/16");
    let (seq, changes) = node.saves.pop_front().unwrap();
    let expected = Change::VpcRanges { ranges: ranges("10.0.0.0/16 100.64.0.0/16") };
    assert_eq!(changes, [expected]);
    node.send(Event::Saved { seq, result: Err("disk full".to_owned()) });
    assert!(node.saves.is_empty(), "a failed save is not repeated at once");
    assert!(source(node.host.clone().unwrap().nat).untranslated.len() > 1);
    node.pass(Duration::from_secs(120));
    assert_eq!(*node.record().vpc_ranges(), ranges("10.0.0.0/16 100.64.0.0/16"));
}

#[test]
fn other_nat_settings_take_effect_at_once() {
    let mut node = in_vpc("10.0.0.0/16");
    node.change_policy(excluding("198.51.100.0/24"));
    let SourceNat { ports, untranslated, .. } = source(wanted(&mut node));
    assert_eq!(ports, SourcePorts::Kept);
    assert!(untranslated.is_superset(&ranges("10.0.0.0/16 198.51.100.0/24")));
    node.change_policy(with_nat(|nat| nat.source = None));
    assert!(matches!(wanted(&mut node), HostNat::Wanted(nat) if nat.source.is_none()));
    node.change_policy(with_nat(|nat| nat.by_main_table = ranges("203.0.113.0/24")));
    let HostNat::Wanted(nat) = wanted(&mut node) else { panic!("it is known") };
    assert_eq!(nat.by_main_table, ranges("203.0.113.0/24"));
}

/// Then no range and no address is needed.
#[test]
fn nat_outside_the_node_is_known_from_the_start() {
    let node = Node::start(limits("m5.large"), with_nat(|nat| nat.source = None));
    let HostNat::Wanted(nat) = node.host.unwrap().nat else { panic!("it is known") };
    assert!(nat.source.is_none() && nat.node_ports);
}

#[test]
fn pods_on_ipv6_are_not_translated() {
    let setup = policy(BlockKind::V6Prefix, WarmSettings::default());
    let mut node = Node::start(limits("m5.large"), setup);
    show(&mut node, "10.0.0.0/16");
    assert_eq!(node.host.as_ref().unwrap().nat, HostNat::Absent);
    node.end_sync(&LinkState::Ready);
}
