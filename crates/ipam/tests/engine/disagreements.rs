//! Disagreements between record and EC2, and foreign ENIs: the engine reports them and leaves them alone.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::EniKind;
use ipam::policy::WarmSettings;
use ipam::view::ForeignReason;

use crate::ec2::{Ec2, PRIMARY, eni_id};
use crate::node::{Node, OURS, OnEni as _, Setup, limits, policy, warm_ip};

const NO_MANAGE: (&str, &str) = ("node.k8s.amazonaws.com/no_manage", "true");
/// The engine describes its ENIs at least once in this time.
const DAY: Duration = Duration::from_secs(25 * 60 * 60);

fn ipv6() -> Setup {
    policy(BlockKind::V6Prefix, WarmSettings::default())
}

fn has_notice(node: &Node, text: &str) -> bool {
    node.view().blocked.iter().any(|line| line.contains(text))
}

#[test]
fn foreign_eni_is_reported_with_its_reason() {
    let check = |kind: EniKind, network_card: u16, tags: &[(&str, &str)], expect| {
        let mut ec2 = Ec2::new(limits("t3.small"));
        let strange = ec2.attach_foreign(1, tags);
        let eni = ec2.enis.get_mut(&strange).unwrap();
        eni.kind = kind;
        eni.attachment.as_mut().unwrap().network_card = network_card;
        let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(1, 0));
        node.boot.node.manage_untagged = false;
        node.restart();
        node.settle();
        let foreign = node.view().foreign;
        assert_eq!(foreign.get(&strange).copied(), expect, "{kind:?} {network_card} {tags:?}");
        assert!(!foreign.contains_key(&eni_id(PRIMARY)));
        let takes_a_place = expect.is_some() && network_card == 0;
        assert_eq!(node.view().capacity.enis, if takes_a_place { 2 } else { 3 });
    };
    let other = (OURS.0, "i-0fedcba9876543210");
    check(EniKind::Interface, 0, &[OURS], None);
    check(EniKind::Interface, 0, &[OURS, NO_MANAGE], Some(ForeignReason::NoManageTag));
    check(EniKind::Other, 0, &[OURS], Some(ForeignReason::Kind));
    check(EniKind::Interface, 1, &[OURS], Some(ForeignReason::NetworkCard));
    check(EniKind::Interface, 0, &[other], Some(ForeignReason::OtherInstance));
    check(EniKind::Interface, 0, &[], Some(ForeignReason::Untagged));
}

#[test]
fn pod_address_missing_at_ec2_is_reported_until_del() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let held = node.run_pod(1);
    assert!(node.view().lost.is_empty());
    let eni = node.ec2.enis.get_mut(&held.eni()).unwrap();
    eni.blocks.retain(|block| !block.contains(held.address()));
    node.pass(DAY);
    assert_eq!(node.view().lost, [(held.address(), held.eni().clone())].into());
    assert!(has_notice(&node, "is a pod's but not on any ENI at EC2"));
    node.del(1);
    node.pass(DAY);
    assert!(node.view().lost.is_empty());
}

#[test]
fn pods_on_an_eni_made_foreign_are_not_lost() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(9, 0));
    let held: Vec<_> = (0..9).map(|pod| node.run_pod(pod)).collect();
    let eni = held.iter().find(|held| held.device_index() == 1).unwrap().eni();
    let n = held.iter().filter(|held| held.eni() == eni).count();
    let (key, value) = NO_MANAGE;
    let tags = &mut node.ec2.enis.get_mut(&eni).unwrap().tags;
    tags.insert(key.to_owned(), value.to_owned());
    node.restart();
    node.settle();
    assert_eq!(node.view().foreign.get(&eni), Some(&ForeignReason::NoManageTag));
    assert!(node.view().lost.is_empty(), "{:?}", node.view().lost);
    assert!(has_notice(&node, &format!("{n} pods keep their addresses on {eni}")));
}

#[test]
fn pods_of_the_previous_family_are_not_lost() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let held = [1, 2].map(|pod| node.run_pod(pod));
    node.restart_with(ipv6());
    node.settle();
    let view = node.view();
    assert!(view.lost.is_empty() && !has_notice(&node, "not on any ENI"), "{:?}", view.blocked);
    assert!(has_notice(&node, "2 pods keep their addresses of the family before"));
    let left_alone = |address| view.unused_blocks.iter().any(|block| block.contains(address));
    assert!(held.iter().all(|held| left_alone(held.address())), "{:?}", view.unused_blocks);
}
