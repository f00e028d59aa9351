//! EC2's answers lag behind its changes. This shows above all at a start, when EC2 may still describe the
//! state before the last calls of the run before.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, CallOutput, Ec2Call};
use ipam::event::{Answer, Event, LinkState, RequestId};
use ipam::policy::{Limits, WarmSettings};

use crate::ec2::{Ec2, PRIMARY, eni_id, error};
use crate::errors::fail;
use crate::node::{Node, OURS, OnEni as _, Setup, limits, policy, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn at_ec2(ec2: &Ec2) -> BTreeSet<IpAddr> {
    let blocks = ec2.enis.values().flat_map(|eni| &eni.blocks);
    blocks.map(|block| block.addresses_from(0).next().unwrap()).collect()
}

pub(crate) fn held(node: &Node) -> BTreeSet<IpAddr> {
    let view = node.view();
    let blocks = view.enis.iter().flat_map(|eni| eni.blocks.keys());
    blocks.map(|block| block.addresses_from(0).next().unwrap()).collect()
}

/// The addresses that the Adds were granted and that EC2 has on no ENI.
pub(crate) fn grants_missing_at_ec2(node: &Node, adds: &[RequestId]) -> Vec<IpAddr> {
    let granted = adds.iter().filter_map(|add| match node.answer(*add) {
        Some(Answer::Granted(held)) => Some(held.address()),
        _ => None,
    });
    let present = at_ec2(&node.ec2);
    granted.filter(|address| !present.contains(address)).collect()
}

/// EC2 answers the describe of the ENIs that is under way with the state `before`.
pub(crate) fn answer_outdated(node: &mut Node, before: &Ec2) {
    let is_describe = |(_, call): &(_, Ec2Call)| *call == Ec2Call::DescribeEnis;
    let place = node.calls.iter().position(is_describe).expect("a describe is under way");
    let (id, _) = node.calls.remove(place).unwrap();
    let enis = before.enis.values().cloned().collect();
    node.send(Event::CallDone { id, result: Ok(CallOutput::Enis(enis)) });
}

/// Fails an Assign, so that the engine describes its ENIs.
fn fail_assign(node: &mut Node, kind: CallErrorKind) {
    node.save_all();
    let assign = |(_, call): &(_, Ec2Call)| matches!(call, Ec2Call::Assign { .. });
    let place = node.calls.iter().position(assign).expect("an Assign is under way");
    let (id, _) = node.calls.remove(place).unwrap();
    node.send(Event::CallDone { id, result: Err(error(kind)) });
}

/// Passes time until the engine makes its daily describe.
fn until_audit(node: &mut Node) {
    node.settle();
    while !node.calls.iter().any(|(_, call)| *call == Ec2Call::DescribeEnis) {
        node.settle();
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
    }
}

/// A node with four pods that gives surplus blocks back at once. It has run for some time.
pub(crate) fn node_with_pods() -> Node {
    let policy = Setup { cooldown: secs(0), shrink_delay: secs(0), ..warm_ip(1, 0) };
    let mut node = Node::settled(limits("m5.large"), policy);
    (0..4).for_each(|pod| drop(node.run_pod(pod)));
    node.pass(secs(10));
    node
}

/// The same node just after its pods have gone, and EC2 as it was before.
pub(crate) fn node_that_shrank() -> (Node, Ec2) {
    let mut node = node_with_pods();
    let before = node.ec2.clone();
    for pod in 0..4 {
        node.del(pod);
        node.settle();
    }
    (node, before)
}

#[test]
fn block_released_before_a_restart_is_not_offered() {
    let (mut node, before) = node_that_shrank();
    let gone: BTreeSet<_> = at_ec2(&before).difference(&at_ec2(&node.ec2)).copied().collect();
    assert!(!gone.is_empty());
    node.restart();
    answer_outdated(&mut node, &before);
    let adds: Vec<_> = (4..8).map(|pod| node.add(pod)).collect();
    node.settle();
    let present = at_ec2(&node.ec2);
    assert!(adds.iter().all(|add| present.contains(&node.granted(*add).address())));
    node.pass(secs(10));
    assert_eq!(held(&node), at_ec2(&node.ec2));
}

/// The describe follows another call on the ENI, whose outcome is unknown.
#[test]
fn released_block_is_not_offered_after_an_outdated_describe() {
    let (mut node, before) = node_that_shrank();
    let adds: Vec<_> = (4..8).map(|pod| node.add(pod)).collect();
    fail_assign(&mut node, CallErrorKind::OutcomeUnknown);
    answer_outdated(&mut node, &before);
    node.pass(secs(5));
    assert!(grants_missing_at_ec2(&node, &adds).is_empty());
}

/// Without a record the engine does not know which blocks an earlier run has given back.
#[test]
fn blocks_without_a_record_serve_after_a_second_describe() {
    let (mut node, before) = node_that_shrank();
    node.restart_without_record();
    answer_outdated(&mut node, &before);
    let early: Vec<_> = (10..17).map(|pod| node.add(pod)).collect();
    assert_eq!(node.end_call(0), Ec2Call::DescribeSubnets);
    // Another describe confirms nothing if it comes as early.
    fail_assign(&mut node, CallErrorKind::AddressLimit);
    answer_outdated(&mut node, &before);
    node.pass(secs(5));
    assert!(grants_missing_at_ec2(&node, &early).is_empty());
    assert!(node.view().blocked.iter().any(|line| line.contains("second describe confirms them")));
    node.pass(secs(5));
    let adds: Vec<_> = (4..8).map(|pod| node.add(pod)).collect();
    node.settle();
    let present = at_ec2(&node.ec2);
    assert!(adds.iter().all(|add| present.contains(&node.granted(*add).address())));
    assert_eq!(node.view().blocked, [""; 0]);
}

/// Describes that begin too early show no more than the first one.
#[test]
fn block_not_yet_described_is_found_by_a_second_describe() {
    for n_outdated in 1..3 {
        let mut node = Node::start(limits("m5.large"), warm_ip(3, 0));
        let before = node.ec2.clone();
        node.settle();
        let address = node.run_pod(0).address();
        node.restart();
        answer_outdated(&mut node, &before);
        for _ in 1..n_outdated {
            fail_assign(&mut node, CallErrorKind::AddressLimit);
            answer_outdated(&mut node, &before);
        }
        assert!(!held(&node).contains(&address));
        node.pass(secs(11));
        assert_eq!(held(&node), at_ec2(&node.ec2), "{n_outdated}");
        assert!(held(&node).contains(&address));
    }
}

/// EC2 refuses more addresses for an ENI that looks empty. By that limit a spare ENI would hold none.
#[test]
fn limit_learnt_from_an_outdated_describe_is_forgotten() {
    let ec2 = Ec2::new(limits("t3.small"));
    let before = ec2.clone();
    let spare_eni = policy(BlockKind::V4Address, WarmSettings::default());
    let mut node = Node::start_with(ec2, limits("m5.large"), spare_eni);
    node.settle();
    assert_eq!(node.ec2.n_blocks(), [3]);
    node.restart();
    for _ in 0..2 {
        answer_outdated(&mut node, &before);
        fail_assign(&mut node, CallErrorKind::AddressLimit);
    }
    node.pass(secs(60));
    node.run_pod(0);
    node.pass(secs(600));
    assert_eq!(node.ec2.n_attached(), 2, "{:?}", node.ec2.n_blocks());
}

/// EC2 refuses another ENI while it does not show the second one. The node must not count on one ENI for a day.
#[test]
fn eni_limit_learnt_from_an_outdated_describe_is_raised() {
    let believed = limits("t3.small");
    let ec2 = Ec2::new(Limits { enis: 2, ..believed });
    let mut node = Node::start_with(ec2, believed, warm_ip(1, 0));
    for pod in 0..3 {
        node.run_pod(pod);
    }
    node.pass(secs(60));
    assert_eq!(node.ec2.n_attached(), 2);
    let mut before = node.ec2.clone();
    before.enis.retain(|id, _| *id == eni_id(PRIMARY));
    node.restart();
    answer_outdated(&mut node, &before);
    let is_attach = |call: &Ec2Call| matches!(call, Ec2Call::AttachEni { .. });
    fail(&mut node, is_attach, CallErrorKind::EniLimit);
    assert_eq!(node.view().capacity.addresses, 3);
    node.pass(secs(60));
    assert_eq!(node.view().capacity.addresses, 6);
}

/// An outdated answer shows the address on an ENI that no longer exists.
#[test]
fn address_of_a_vanished_eni_stays_on_its_present_eni() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
    let mut before = node.ec2.clone();
    let gone = before.attach_foreign(1, &[OURS]);
    let moved = *before.enis[&eni_id(PRIMARY)].blocks.first().unwrap();
    before.enis.get_mut(&gone).unwrap().blocks = [moved].into();
    until_audit(&mut node);
    answer_outdated(&mut node, &before);
    assert!(node.view().enis.iter().any(|eni| eni.id == gone && eni.blocks.contains_key(&moved)));
    node.pass(secs(11));
    assert_eq!(node.view().unused_blocks, BTreeSet::new());
    assert_eq!(held(&node), at_ec2(&node.ec2));
}

/// A call that the record has lost gave the address back, and EC2 made it a new ENI's own.
#[test]
fn address_that_is_an_enis_own_serves_no_pod() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(1, 0));
    let lost = *node.ec2.enis[&eni_id(PRIMARY)].blocks.first().unwrap();
    let created = node.ec2.attach_foreign(1, &[OURS]);
    let found = node.ec2.enis.get_mut(&created).unwrap();
    found.primary_address = lost.bounds().0;
    // The answers about the primary ENI do not count yet.
    let before = node.ec2.clone();
    node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.remove(&lost);
    until_audit(&mut node);
    answer_outdated(&mut node, &before);
    let holder = node.view().enis.into_iter().find(|eni| eni.blocks.contains_key(&lost));
    assert_eq!(holder.map(|eni| eni.id), None);
}

#[test]
fn released_block_leaves_the_record_without_subnets() {
    let mut node = node_with_pods();
    node.restart();
    let is_describe = |(_, call): &(_, Ec2Call)| *call == Ec2Call::DescribeSubnets;
    let place = node.calls.iter().position(is_describe).unwrap();
    let (id, _) = node.calls.remove(place).unwrap();
    node.send(Event::CallDone { id, result: Err(error(CallErrorKind::AccessDenied)) });
    for pod in 0..4 {
        node.del(pod);
    }
    node.settle();
    let noted = node.record();
    let noted = noted.enis().values().flat_map(|known| known.facts.blocks.clone());
    let noted: BTreeSet<_> = noted.map(|block| block.addresses_from(0).next().unwrap()).collect();
    assert!(noted.is_subset(&at_ec2(&node.ec2)), "{noted:?}, {:?}", at_ec2(&node.ec2));
}

/// Somebody has detached the ENI, and the instance cannot attach it again.
#[test]
fn unattachable_eni_with_pods_causes_few_calls() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(5, 0));
    for pod in 0..5 {
        node.run_pod(pod);
    }
    let on_record = node.record();
    let mut enis = on_record.assignments().values().map(|held| held.eni().clone());
    let eni = enis
        .find(|eni| eni.as_str() != PRIMARY)
        .expect("the primary ENI takes three of the five pods");
    node.ec2.limits.enis = 1;
    node.ec2.enis.get_mut(&eni).unwrap().attachment = None;
    node.send(Event::EniLink { eni, link: LinkState::Absent });
    node.pass(secs(3_600));
    let before = node.ec2.calls.len();
    node.pass(secs(3_600));
    let made = node.ec2.calls.len() - before;
    assert!(made < 60, "{made} calls in an hour");
}

/// Somebody has removed the blocks. EC2 therefore refuses the Unassign.
#[test]
fn refused_unassign_withholds_blocks_until_a_describe() {
    let policy = Setup { cooldown: secs(0), shrink_delay: secs(5), ..warm_ip(1, 0) };
    let mut node = Node::settled(limits("m5.large"), policy);
    for pod in 0..4 {
        node.run_pod(pod);
    }
    for pod in 0..4 {
        node.del(pod);
    }
    node.settle();
    let eni = node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap();
    let kept = eni.blocks.pop_first().unwrap();
    eni.blocks = [kept].into();
    node.pass(secs(60));
    assert_eq!(held(&node), at_ec2(&node.ec2));
    let adds: Vec<_> = (4..8).map(|pod| node.add(pod)).collect();
    node.settle();
    let present = at_ec2(&node.ec2);
    assert!(adds.iter().all(|add| present.contains(&node.granted(*add).address())));
}
