//! Prefixes for containers beside the pods: the pool gives them up, and neither pods nor EC2 get them.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::block::{Block, BlockKind};
use ipam::event::RefusalCode;
use ipam::kernel_report::AddressedLink;
use ipam::policy::{Limits, Targets, WarmSettings};

use crate::ec2::{Ec2, PRIMARY, eni_id, mac_of};
use crate::node::{Node, OnEni as _, Setup, key, limits, policy};

const HOURS: Duration = Duration::from_secs(30 * 3600);

fn delegating(n: u16) -> Setup {
    let prefixes = policy(BlockKind::V4Prefix, WarmSettings::default());
    Setup { delegated_prefixes: Some(n), ..prefixes }
}

/// The delegated prefixes that `ipamd status` shows, the primary ENI's first.
fn shown(node: &Node) -> Vec<Block> {
    node.view().enis.into_iter().flat_map(|eni| eni.delegated).collect()
}

fn of_pods(node: &Node) -> BTreeSet<Block> {
    node.view().enis.into_iter().flat_map(|eni| eni.blocks.into_keys()).collect()
}

fn at_ec2(node: &Node) -> BTreeSet<Block> {
    node.ec2.enis.values().flat_map(|eni| eni.blocks.clone()).collect()
}

#[test]
fn delegated_prefix_comes_beside_the_warm_one() {
    let node = Node::settled(limits("m5.large"), delegating(1));
    let delegated = shown(&node);
    assert_eq!((delegated.len(), of_pods(&node).len()), (1, 1));
    assert!(!of_pods(&node).contains(&delegated[0]));
    assert_eq!(at_ec2(&node).len(), 2);
    let asked: Vec<_> = node.reasons.iter().map(|(call, _)| call.to_string()).collect();
    let assigns = asked.iter().filter(|call| call.starts_with("AssignPrivate")).count();
    assert_eq!(assigns, 1, "one call brings both: {asked:?}");
    assert_eq!((node.counts().delegated, node.counts().total, node.counts().free), (1, 16, 16));
}

/// There is room for one prefix, and other containers have it.
#[test]
fn node_with_delegated_prefixes_alone_is_not_ready() {
    let room = Limits { enis: 1, addresses_per_eni: 2, prefixes: true };
    let node = Node::settled(room, delegating(1));
    assert_eq!((shown(&node).len(), of_pods(&node).len()), (1, 0));
    let refusal = node.engine.ready(node.now).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::EniLimit, "{refusal:?}");
}

/// A host without pods holds one prefix more than its containers use.
#[test]
fn host_for_one_pod_holds_one_prefix_beside_the_delegated() {
    let mut node = Node::settled(limits("m5.large"), Setup { max_pods: 1, ..delegating(2) });
    node.pass(HOURS);
    assert_eq!((shown(&node).len(), at_ec2(&node).len()), (2, 3));
}

#[test]
fn ipv6_prefix_is_delegated_beside_the_pods_one() {
    let setup = policy(BlockKind::V6Prefix, WarmSettings::default());
    let mut node =
        Node::settled(limits("m5.large"), Setup { delegated_prefixes: Some(1), ..setup });
    let delegated = shown(&node);
    assert_eq!((delegated.len(), of_pods(&node).len()), (1, 1));
    assert_eq!(delegated[0].kind(), BlockKind::V6Prefix);
    let address = node.run_pod(1).address();
    assert!(!delegated[0].contains(address), "{address}");
}

#[test]
fn pods_get_no_address_of_a_delegated_prefix() {
    let mut node = Node::settled(limits("t3.small"), delegating(2));
    let delegated = shown(&node);
    assert_eq!(delegated.len(), 2);
    // A t3.small has room for nine prefixes.
    let adds: Vec<_> = (0..8 * 16).map(|pod| node.add(pod)).collect();
    node.pass(HOURS);
    let served = adds.iter().filter(|add| {
        let Some(ipam::event::Answer::Granted(granted)) = node.answer(**add) else { return false };
        assert!(delegated.iter().all(|prefix| !prefix.contains(granted.address())));
        true
    });
    assert_eq!(served.count(), 7 * 16);
    assert_eq!(shown(&node), delegated);
}

#[test]
fn delegated_prefix_outlasts_restarts_and_idle_days() {
    let mut node = Node::settled(limits("m5.large"), delegating(1));
    let delegated = shown(&node);
    for _ in 0..3 {
        node.restart();
        node.pass(HOURS);
        assert_eq!(shown(&node), delegated);
    }
    // The next boot.
    node.boot.node.boot = ipam::id::BootId("another boot".to_owned());
    node.restart();
    node.pass(HOURS);
    assert_eq!(shown(&node), delegated);
    assert!(at_ec2(&node).contains(&delegated[0]));
}

#[test]
fn unset_number_leaves_delegated_prefixes() {
    let mut node = Node::settled(limits("m5.large"), delegating(1));
    let delegated = shown(&node);
    let unset = policy(BlockKind::V4Prefix, WarmSettings::default());
    node.change_policy(unset.clone());
    node.pass(HOURS);
    assert_eq!(shown(&node), delegated);
    node.restart_with(policy(BlockKind::V4Address, WarmSettings::default()));
    node.pass(HOURS);
    assert_eq!(shown(&node), delegated, "a pool of single addresses keeps it too");
}

#[test]
fn lowered_number_gives_prefixes_back_after_a_rest() {
    let mut node = Node::settled(limits("m5.large"), delegating(2));
    let delegated = shown(&node);
    node.change_policy(delegating(0));
    node.settle();
    assert_eq!(shown(&node), []);
    assert_eq!(node.counts().cooling, 32, "containers may still use them");
    assert!(delegated.iter().all(|prefix| at_ec2(&node).contains(prefix)));
    node.pass(HOURS);
    assert_eq!(at_ec2(&node).len(), 1, "the warm target wants one");
}

#[test]
fn lowered_number_takes_the_highest_prefix() {
    let mut node = Node::settled(limits("m5.large"), delegating(2));
    let delegated = shown(&node);
    node.change_policy(delegating(1));
    node.settle();
    assert_eq!(shown(&node), delegated[..1]);
}

#[test]
fn prefix_with_a_pod_is_not_delegated() {
    let mut node = Node::settled(limits("m5.large"), delegating(0));
    let address = node.run_pod(1).address();
    node.change_policy(delegating(1));
    node.pass(HOURS);
    let delegated = shown(&node);
    assert_eq!(delegated.len(), 1);
    assert!(!delegated[0].contains(address));
}

#[test]
fn waiting_pods_come_before_a_delegation() {
    let mut ec2 = Ec2::new(limits("m5.large"));
    ec2.subnet(crate::ec2::SUBNET).n_prefixes = 1;
    let mut node = Node::start_with(ec2, limits("m5.large"), delegating(1));
    let add = node.add(1);
    node.settle();
    node.granted(add);
    assert_eq!(shown(&node), []);
    let blocked = node.view().blocked;
    assert!(blocked.iter().any(|line| line.contains("still to come")), "{blocked:?}");
}

#[test]
fn eni_with_a_delegated_prefix_stays() {
    // The primary ENI is full of pods when the prefix is asked for.
    let setup = Setup { targets: Targets::Ip { warm: 1, minimum: 0 }, ..delegating(0) };
    let mut node = Node::settled(limits("t3.small"), setup.clone());
    for pod in 0..3 * 16 {
        node.run_pod(pod);
    }
    node.change_policy(Setup { delegated_prefixes: Some(1), ..setup });
    node.pass(HOURS);
    let delegated = shown(&node);
    assert!(!node.ec2.enis[&eni_id(PRIMARY)].blocks.contains(&delegated[0]));
    for pod in 0..3 * 16 {
        node.del(pod);
    }
    node.pass(HOURS);
    assert_eq!(shown(&node), delegated);
    assert!(at_ec2(&node).contains(&delegated[0]));
}

#[test]
fn lost_record_leads_to_the_same_prefix() {
    let mut node = Node::settled(limits("m5.large"), delegating(1));
    let delegated = shown(&node);
    node.restart_without_record();
    node.pass(HOURS);
    assert_eq!(shown(&node), delegated);
}

#[test]
fn delegation_counts_once_it_is_on_record() {
    let mut node = Node::start(limits("m5.large"), delegating(1));
    for _ in 0..1000 {
        let is_noted = |(_, changes): &(_, Vec<ipam::record::Change>)| {
            changes.iter().any(|it| matches!(it, ipam::record::Change::Delegated { .. }))
        };
        if node.saves.iter().any(is_noted) {
            break;
        }
        if !node.saves.is_empty() {
            node.end_save(Ok(()));
        } else if !node.calls.is_empty() {
            node.end_call(0);
        } else {
            node.end_sync(&ipam::event::LinkState::Ready);
        }
    }
    assert_eq!(shown(&node), []);
    node.end_save(Err("disk full".to_owned()));
    assert_eq!(shown(&node), []);
    node.pass(Duration::from_secs(60));
    assert_eq!(shown(&node).len(), 1, "the next save has it");
}

#[test]
fn use_of_a_delegated_prefix_on_the_host_is_left_alone() {
    let mut node = Node::settled(limits("m5.large"), delegating(1));
    let (first, last) = shown(&node)[0].bounds();
    // A container by a route, and the engine's own address on the ENI's device.
    node.links.insert(first, key(1));
    node.on_host.insert(last, AddressedLink { name: "eth0".to_owned(), mac: mac_of(0) });
    node.report_kernel();
    node.settle();
    let view = node.view();
    assert!(view.quarantined.is_empty() && view.host_addresses.is_empty(), "{view:?}");
    assert!(node.off_host.is_empty() && node.record().assignments().is_empty());
}

#[test]
fn prefix_that_is_gone_at_ec2_is_named() {
    let mut node = Node::settled(limits("m5.large"), delegating(1));
    let prefix = shown(&node)[0];
    node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.remove(&prefix);
    node.pass(HOURS);
    let blocked = node.view().blocked;
    let named = |line: &String| line.starts_with(&prefix.to_string()) && line.contains("delegated");
    assert!(blocked.iter().any(named), "{blocked:?}");
}
