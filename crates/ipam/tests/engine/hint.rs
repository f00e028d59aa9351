//! Metadata that differs from EC2's answer leads to a describe and to nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::block::{Block, BlockKind};
use ipam::call::{CallErrorKind, Ec2Call, EniKind};
use ipam::event::{Event, Reason};
use ipam::policy::WarmSettings;

use crate::ec2::{PRIMARY, eni_id, error};
use crate::node::{
    MetadataBlocks, Node, OnEni as _, Setup, limits, own_block, policy, single, warm_ip,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Minutes in which the engine makes [`AUDIT`] describes although nothing gives cause.
const DAY: u32 = 26 * 60;
const AUDIT: usize = 1;

fn n_describes(node: &Node) -> usize {
    node.ec2.calls.iter().filter(|call| **call == Ec2Call::DescribeEnis).count()
}

/// Sends a hint each minute. Returns how many describes follow.
fn send_hints(
    node: &mut Node,
    minutes: u32,
    mut shown: impl FnMut(&Node, u32) -> MetadataBlocks,
) -> usize {
    let before = n_describes(node);
    for minute in 0..minutes {
        node.pass(MINUTE);
        let shown = shown(node, minute);
        node.hint(shown);
        node.settle();
    }
    n_describes(node) - before
}

fn truth(node: &Node, _: u32) -> MetadataBlocks {
    node.metadata()
}

/// A node without pods that has seen true metadata for some minutes.
fn node() -> Node {
    let mut node = Node::settled(limits("m5.large"), warm_ip(5, 0));
    assert_eq!(send_hints(&mut node, 15, truth), 0);
    node
}

/// Somebody moves an idle address to another ENI.
fn take_block_away(node: &mut Node) -> Block {
    let other = node.ec2.add_unattached_eni(&[]);
    let taken = node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.pop_first().unwrap();
    node.ec2.enis.get_mut(&other).unwrap().blocks.insert(taken);
    taken
}

fn block(text: &str) -> Block {
    text.parse::<ipnet::IpNet>().unwrap().try_into().unwrap()
}

#[test]
fn missing_block_is_noticed_in_two_minutes_and_never_granted() {
    let mut node = node();
    let taken = take_block_away(&mut node);
    node.hint(node.metadata());
    assert_eq!(node.under_way(), [""; 0], "one hint proves nothing");
    // A pod that comes before the describe gets another address.
    let first = node.run_pod(0);
    assert_ne!(single(first.address()), taken);
    assert_eq!(send_hints(&mut node, 2, truth), 1);
    assert!(!node.view().enis[0].blocks.contains_key(&taken));
    for pod in 1..20 {
        let pod = node.run_pod(pod);
        assert!(node.ec2.enis[&pod.eni()].blocks.contains(&single(pod.address())));
    }
    assert!(node.view().refuted_hints.is_empty());
}

#[test]
fn foreign_block_is_noticed_and_named() {
    let mut node = node();
    let foreign = block("10.0.77.7/32");
    node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.insert(foreign);
    assert_eq!(send_hints(&mut node, 2, truth), 1);
    assert_eq!(node.view().unused_blocks, BTreeSet::from([foreign]));
    assert!(node.view().refuted_hints.is_empty(), "{:?}", node.view().refuted_hints);
    assert_eq!(send_hints(&mut node, 60, truth), 0);
}

#[test]
fn externally_detached_eni_is_noticed() {
    let mut node = node();
    for pod in 0..12 {
        node.run_pod(pod);
    }
    send_hints(&mut node, 2, truth);
    let second = node.ec2.enis.keys().last().unwrap().clone();
    node.ec2.enis.get_mut(&second).unwrap().attachment = None;
    assert_eq!(send_hints(&mut node, 1, truth), 0);
    assert!(send_hints(&mut node, 1, truth) >= 1);
    assert_eq!(node.ec2.n_attached(), 2, "the ENI is attached again");

    // The hint was right, so the next one leads to a describe at once.
    send_hints(&mut node, 2, truth);
    let taken = take_block_away(&mut node);
    send_hints(&mut node, 3, truth);
    assert!(!node.view().enis[0].blocks.contains_key(&taken));
}

/// The service shows our own changes a minute late.
#[test]
fn metadata_that_lags_by_a_minute_costs_nothing() {
    let mut node = node();
    let mut before = node.metadata();
    let lags = |node: &Node, _: u32| std::mem::replace(&mut before, node.metadata());
    let mut lags = lags;
    for pod in 0..20 {
        node.run_pod(pod);
        assert_eq!(send_hints(&mut node, 1, &mut lags), 0);
    }
    for pod in 0..20 {
        node.del(pod);
        node.settle();
        assert_eq!(send_hints(&mut node, 3, &mut lags), 0);
    }
}

#[test]
fn alternating_metadata_costs_nothing() {
    let mut node = node();
    let flaps = |node: &Node, minute: u32| match minute % 2 {
        0 => node.metadata(),
        _ => MetadataBlocks::new(),
    };
    assert_eq!(send_hints(&mut node, DAY, flaps), AUDIT);
}

#[test]
fn refuted_hint_causes_no_further_describe() {
    let falsifications: [fn(&mut MetadataBlocks); 4] = [
        |shown| shown.clear(),
        |shown| shown.values_mut().for_each(BTreeSet::clear),
        |shown| _ = shown.get_mut(&eni_id(PRIMARY)).unwrap().pop_first(),
        |shown| _ = shown.get_mut(&eni_id(PRIMARY)).unwrap().insert(block("10.0.77.7/32")),
    ];
    for falsify in falsifications {
        let mut node = node();
        let wrong = |node: &Node, _: u32| {
            let mut shown = node.metadata();
            falsify(&mut shown);
            shown
        };
        assert_eq!(send_hints(&mut node, 3, wrong), 1);
        assert_eq!(node.view().refuted_hints.len(), 1, "{:?}", node.view().refuted_hints);
        assert_eq!(send_hints(&mut node, DAY, wrong), AUDIT);
        assert_eq!(send_hints(&mut node, 1, truth), 0);
        assert!(node.view().refuted_hints.is_empty(), "{:?}", node.view().refuted_hints);
    }
}

/// Each refuted hint makes the engine trust the next ones less, whatever they say.
#[test]
fn ever_new_wrong_hints_cost_ever_fewer_describes() {
    let mut node = node();
    // Each wrong hint comes twice.
    let wrong = |node: &Node, minute: u32| {
        let mut shown = node.metadata();
        let [.., third, fourth] = (minute / 2).to_be_bytes();
        let foreign = block(&format!("10.9.{third}.{fourth}/32"));
        shown.get_mut(&eni_id(PRIMARY)).unwrap().insert(foreign);
        shown
    };
    let n = send_hints(&mut node, 2 * DAY, wrong);
    assert!((7..=8 + 2 * AUDIT).contains(&n), "{n} describes");
}

/// The pool changes while the metadata stays the same.
#[test]
fn frozen_metadata_costs_ever_fewer_describes() {
    let mut node = node();
    let first = node.metadata();
    let mut n = 0;
    for hour in 0..48 {
        for pod in 0..20 {
            match hour % 2 {
                0 => drop(node.run_pod(pod)),
                _ => drop(node.del(pod)),
            }
        }
        n += send_hints(&mut node, 60, |_, _| first.clone());
    }
    assert!(n <= 8 + 2 * AUDIT, "{n} describes");
}

#[test]
fn correct_hint_restores_trust_in_metadata() {
    let mut node = node();
    let wrong = |node: &Node, minute: u32| {
        let mut shown = node.metadata();
        let foreign = block(&format!("10.9.0.{}/32", minute / 300));
        shown.get_mut(&eni_id(PRIMARY)).unwrap().insert(foreign);
        shown
    };
    assert!(send_hints(&mut node, 2 * DAY, wrong) > 4);
    take_block_away(&mut node);
    // The daily describe finds it and confirms the hint.
    send_hints(&mut node, 26 * 60, truth);
    let taken = take_block_away(&mut node);
    assert_eq!(send_hints(&mut node, 2, truth), 1);
    assert!(!node.view().enis[0].blocks.contains_key(&taken));
}

/// Blocks of either family and size, foreign ENIs, foreign blocks, and ENIs without an IPv4 block.
#[test]
fn true_metadata_costs_nothing_with_any_kind_of_block() {
    for kind in [BlockKind::V4Address, BlockKind::V4Prefix, BlockKind::V6Prefix] {
        let settings = WarmSettings { warm_ip: 2, ..WarmSettings::default() };
        let mut node = Node::settled(limits("m5.xlarge"), policy(kind, settings));
        for pod in 0..20 {
            node.run_pod(pod);
        }
        node.pass(15 * MINUTE);
        let foreign_eni =
            node.ec2.attach_foreign(2, &[("node.k8s.amazonaws.com/no_manage", "true")]);
        let other_card = node.ec2.attach_foreign(3, &[]);
        let found = node.ec2.enis.get_mut(&other_card).unwrap();
        (found.kind, found.attachment.as_mut().unwrap().network_card) = (EniKind::Other, 1);
        let foreign = ["10.0.77.7/32", "10.0.78.0/28", "2001:db8:7::/80"];
        for eni in [eni_id(PRIMARY), foreign_eni] {
            node.ec2.enis.get_mut(&eni).unwrap().blocks.extend(foreign.map(block));
        }
        // The foreign blocks cost one describe.
        assert_eq!(send_hints(&mut node, 5, truth), 1, "{kind:?}");
        assert_eq!(node.view().unused_blocks.len(), 3, "{kind:?}: {:?}", node.view().unused_blocks);
        assert_eq!(send_hints(&mut node, DAY, truth), AUDIT, "{kind:?}");
        assert!(node.view().refuted_hints.is_empty(), "{kind:?}: {:?}", node.view().refuted_hints);
        // It does not matter whether an ENI's primary address is shown.
        let without = |node: &Node, _: u32| {
            let mut shown = node.metadata();
            for (id, blocks) in &mut shown {
                blocks.remove(&own_block(&node.ec2.enis[id]).unwrap());
            }
            shown
        };
        assert_eq!(send_hints(&mut node, 60, without), 0, "{kind:?}");
    }
}

/// Metadata may show the ENI before or after the call that is under way.
#[test]
fn hint_about_an_eni_under_change_causes_no_describe() {
    let policy = Setup { max_enis: Some(1), ..warm_ip(2, 0) };
    let mut node = Node::settled(limits("m5.large"), policy);
    assert_eq!(send_hints(&mut node, 2, truth), 0);
    let nothing = |_: &Node, _: u32| MetadataBlocks::new();
    node.hint(MetadataBlocks::new());
    node.add(0);
    node.save_all();
    let (id, call) = node.calls.pop_front().expect("the pool grows");
    assert!(matches!(call, Ec2Call::Assign { .. }), "{call}");
    assert_eq!(send_hints(&mut node, 10, nothing), 0);
    let result = node.ec2.execute(&call);
    node.send(Event::CallDone { id, result });
    node.settle();
    assert_eq!(send_hints(&mut node, 2, truth), 0);
    assert_eq!(send_hints(&mut node, 2, nothing), 1);
}

/// An unattached ENI is on no instance, so the metadata service does not show it.
#[test]
fn eni_waiting_for_its_attach_causes_no_describe() {
    let mut node = node();
    for pod in 0..6 {
        node.add(pod);
    }
    let mut is_refused = false;
    for _ in 0..300 {
        node.pass_unsettled(Duration::from_secs(1));
        while let Some((id, call)) = node.calls.pop_front() {
            is_refused |= matches!(call, Ec2Call::AttachEni { .. });
            let result = match call {
                Ec2Call::AttachEni { .. } => Err(error(CallErrorKind::Throttled)),
                call => node.ec2.execute(&call),
            };
            node.send(Event::CallDone { id, result });
            node.save_all();
        }
        node.hint(node.metadata());
    }
    assert!(is_refused);
    assert!(node.reasons.iter().all(|(_, why)| *why != Reason::Hint), "{:?}", node.reasons);
}

/// The describe began before the hint, so its answer may be older than the change.
#[test]
fn describe_begun_before_a_hint_refutes_nothing() {
    let mut node = node();
    node.pass(Duration::from_secs(16 * 3600));
    while node.calls.is_empty() {
        node.pass_unsettled(MINUTE);
    }
    assert_eq!(node.end_call(0), Ec2Call::DescribeSubnets);
    let (id, call) = node.calls.pop_front().unwrap();
    assert_eq!(call, Ec2Call::DescribeEnis);
    let taken = take_block_away(&mut node);
    node.hint(node.metadata());
    let result = Ok(node.early[&id].clone());
    node.send(Event::CallDone { id, result });
    assert_eq!(send_hints(&mut node, 2, truth), 1);
    assert!(!node.view().enis[0].blocks.contains_key(&taken));
}

/// The metadata service shows nothing, and EC2 does not answer.
#[test]
fn wrong_hint_leaves_no_pod_without_address() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(5, 0));
    for _ in 0..10 {
        node.pass(MINUTE);
        node.hint(MetadataBlocks::new());
        while let Some((id, _)) = node.calls.pop_front() {
            node.send(Event::CallDone { id, result: Err(error(CallErrorKind::OutcomeUnknown)) });
        }
        node.save_all();
    }
    for pod in 0..5 {
        let add = node.add(pod);
        node.save_all();
        node.granted(add);
    }
}

/// Blocks that the service does not show come last, on whichever ENI they are.
#[test]
fn doubted_blocks_are_granted_last() {
    let policy = Setup { max_enis: Some(2), ..warm_ip(18, 0) };
    let mut node = Node::settled(limits("m5.large"), policy);
    send_hints(&mut node, 2, truth);
    let second = node.ec2.enis.keys().last().unwrap().clone();
    assert_ne!(second, eni_id(PRIMARY));
    let doubted: BTreeSet<Block> = node.ec2.enis[&second].blocks.iter().copied().take(3).collect();
    let mut shown = node.metadata();
    shown.get_mut(&eni_id(PRIMARY)).unwrap().clear();
    shown.get_mut(&second).unwrap().retain(|block| !doubted.contains(block));
    node.hint(shown);
    let enis: Vec<_> = (0..18)
        .map(|pod| {
            let pod = node.run_pod(pod);
            (pod.eni() == second, doubted.contains(&single(pod.address())))
        })
        .collect();
    let expect = [vec![(true, false); 6], vec![(false, false); 9], vec![(true, true); 3]].concat();
    assert_eq!(enis, expect);
}
