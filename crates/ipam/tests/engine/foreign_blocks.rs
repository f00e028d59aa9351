//! Changes that somebody else makes to our ENIs, while the daemon runs and while it does not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::{Block, BlockKind};
use ipam::call::{CallErrorKind, CallOutput, Ec2Call, EniKind};
use ipam::event::Event;
use ipam::id::BootId;
use ipam::policy::{Limits, WarmSettings};

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, error};
use crate::node::{Node, OURS, OnEni as _, Setup, limits, policy, single, warm_ip};

const DAY: Duration = Duration::from_secs(26 * 3600);

fn foreign_block() -> Block {
    Block::address("10.0.77.7".parse().unwrap())
}

/// Somebody puts an address on the primary ENI.
fn put_foreign_block(node: &mut Node) {
    node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.insert(foreign_block());
}

fn is_there(node: &Node) -> bool {
    node.ec2.enis.values().any(|eni| eni.blocks.contains(&foreign_block()))
}

/// The node describes its ENIs, with or without a restart.
type Describes = fn(&mut Node);

const AUDIT: Describes = |node| node.pass(DAY);
/// The node describes its ENIs twice, since the first answer may lag.
const RESTART: Describes = |node| {
    node.restart();
    node.settle();
    node.pass(Duration::from_secs(30));
};
const REBOOT: Describes = |node| {
    node.boot.node.boot = BootId("another boot".to_owned());
    RESTART(node);
    RESTART(node);
};

#[test]
fn foreign_address_is_never_granted_and_never_removed() {
    for (kind, describe) in [BlockKind::V4Address, BlockKind::V4Prefix]
        .into_iter()
        .flat_map(|kind| [(kind, AUDIT), (kind, RESTART), (kind, REBOOT)])
    {
        let settings = WarmSettings { warm_ip: 2, ..WarmSettings::default() };
        let policy = Setup { max_enis: Some(1), ..policy(kind, settings) };
        let mut node = Node::settled(limits("m5.large"), policy);
        put_foreign_block(&mut node);
        describe(&mut node);
        let text = "10.0.77.7/32 on eni-0000 is not from us: left alone".to_owned();
        assert!(node.view().blocked.contains(&text), "{:?}", node.view().blocked);
        assert_eq!(node.view().unused_blocks, BTreeSet::from([foreign_block()]));
        // Far more pods than the node has room for.
        let adds: Vec<_> = (0..200).map(|pod| node.add(pod)).collect();
        node.pass(Duration::from_secs(600));
        let address: IpAddr = foreign_block().bounds().0;
        assert!(node.record().owners().len() >= 8, "{:?}", node.record().owners());
        assert_eq!(node.record().owner(address), None);
        assert!(adds.iter().all(|add| node.answer(*add).is_some()));
        for pod in 0..200 {
            node.del(pod);
        }
        node.settle();
        node.pass(DAY);
        assert!(is_there(&node), "{kind:?}");
        // Its owner takes the address away.
        node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.remove(&foreign_block());
        node.pass(DAY);
        assert!(!node.view().blocked.contains(&text), "{:?}", node.view().blocked);
    }
}

#[test]
fn eni_with_a_foreign_address_is_not_removed() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    for pod in 0..4 {
        node.run_pod(pod);
    }
    let second = node.ec2.enis.keys().last().unwrap().clone();
    node.ec2.enis.get_mut(&second).unwrap().blocks.insert(foreign_block());
    node.pass(DAY);
    for pod in 0..4 {
        node.del(pod);
    }
    node.settle();
    node.pass(DAY);
    assert_eq!(node.ec2.n_attached(), 2);
    assert_eq!(node.ec2.enis[&second].blocks.len(), 1, "our blocks have gone back");
}

/// The Assign had an unknown outcome, and EC2 shows its block only after a while.
#[test]
fn block_of_a_late_assign_is_ours() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    node.run_pod(0);
    let add = node.add(1);
    node.save_all();
    let (id, call) = loop {
        let (id, call) = node.calls.pop_front().expect("an assignment");
        if matches!(call, Ec2Call::Assign { .. }) {
            break (id, call);
        }
    };
    let eni = call.eni().unwrap().clone();
    let before = node.ec2.enis[&eni].clone();
    node.ec2.execute(&call).unwrap();
    let after = std::mem::replace(node.ec2.enis.get_mut(&eni).unwrap(), before);
    node.send(Event::CallDone { id, result: Err(error(CallErrorKind::OutcomeUnknown)) });
    node.settle();
    let brought: Vec<_> = after.blocks.difference(&node.ec2.enis[&eni].blocks).copied().collect();
    node.ec2.enis.get_mut(&eni).unwrap().blocks.extend(brought);
    node.pass(Duration::from_secs(60));
    node.granted(add);
    assert_eq!(node.view().blocked, [""; 0]);
}

/// The first start on an instance that was launched with secondary addresses looks the same.
#[test]
fn blocks_present_without_a_record_are_ours() {
    let mut node = Node::settled(limits("t3.small"), Setup { max_enis: Some(1), ..warm_ip(0, 3) });
    node.restart_without_record();
    node.settle();
    assert_eq!(node.counts().free, 3);
}

#[test]
fn replaced_address_is_noticed_though_the_count_stays() {
    for describe in [AUDIT, RESTART] {
        let mut node = Node::settled(limits("t3.small"), warm_ip(3, 3));
        let eni = eni_id(PRIMARY);
        let gone = *node.ec2.enis[&eni].blocks.first().unwrap();
        let length = node.ec2.enis[&eni].blocks.len();
        node.ec2.enis.get_mut(&eni).unwrap().blocks.remove(&gone);
        put_foreign_block(&mut node);
        assert_eq!(node.ec2.enis[&eni].blocks.len(), length);
        describe(&mut node);
        for pod in 0..6 {
            let pod = node.run_pod(pod);
            let block = single(pod.address());
            // EC2 may have assigned the removed address anew.
            assert!(node.ec2.enis[&pod.eni()].blocks.contains(&block), "{block} is not at EC2");
            assert_ne!(block, foreign_block());
        }
    }
}

/// No pod gets the address after the next describe. The pod that still uses it is named.
#[test]
fn removed_address_is_granted_to_nobody_and_its_pod_named() {
    for describe in [AUDIT, RESTART] {
        let mut node = Node::settled(limits("t3.small"), warm_ip(2, 0));
        let pod = node.run_pod(0);
        node.ec2.enis.get_mut(&pod.eni()).unwrap().blocks.remove(&single(pod.address()));
        describe(&mut node);
        let text = format!("{} is a pod's but not on any ENI at EC2", pod.address());
        assert!(node.view().blocked.contains(&text), "{:?}", node.view().blocked);
        assert_eq!(node.record().owners().len(), 1, "its pod may still run");
        for other in 1..6 {
            assert_ne!(node.run_pod(other).address(), pod.address());
        }
        // The address comes back and belongs to that pod again.
        node.ec2.enis.get_mut(&pod.eni()).unwrap().blocks.insert(single(pod.address()));
        describe(&mut node);
        assert!(!node.view().blocked.contains(&text), "{:?}", node.view().blocked);
        assert_eq!(node.run_pod(0).address(), pod.address());
    }
}

#[test]
fn block_missing_in_one_describe_is_ours_when_it_returns() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(3, 3));
    let eni = eni_id(PRIMARY);
    let gone = *node.ec2.enis[&eni].blocks.first().unwrap();
    // The pool cannot replace it either.
    node.ec2.subnet(SUBNET).n_addresses = 0;
    node.ec2.enis.get_mut(&eni).unwrap().blocks.remove(&gone);
    node.pass(DAY);
    assert_eq!(node.counts().free, 2);
    node.ec2.enis.get_mut(&eni).unwrap().blocks.insert(gone);
    node.pass(DAY);
    assert_eq!(node.counts().free, 3);
}

/// A trunk and another tool's ENI on our card, and EFA interfaces on 31 other cards at the same device index.
#[test]
fn foreign_enis_on_any_card_are_left_alone() {
    let believed = limits("m5.xlarge");
    let mut ec2 = Ec2::new(Limits { enis: 60, ..believed });
    let mut strangers = BTreeSet::from([ec2.attach_foreign(2, &[(OURS.0, "i-0fedcba9876543210")])]);
    for card in 0..32 {
        let eni = ec2.attach_foreign(1, &[]);
        let found = ec2.enis.get_mut(&eni).unwrap();
        found.kind = EniKind::Other;
        found.attachment.as_mut().unwrap().network_card = card;
        strangers.insert(eni);
    }
    let mut node = Node::start_with(ec2, believed, warm_ip(1, 0));
    node.settle();
    assert_eq!(node.view().foreign.into_keys().collect::<BTreeSet<_>>(), strangers);
    // Foreign ENIs take two of the four places on our card.
    for pod in 0..28 {
        node.run_pod(pod);
    }
    let last = node.add(28);
    node.pass(Duration::from_secs(60));
    node.refused(last);
    let ours = node.view().enis.into_iter().filter_map(|eni| eni.device_index);
    assert_eq!(ours.collect::<Vec<_>>(), [0, 3]);
    for pod in 0..28 {
        node.del(pod);
    }
    node.pass(DAY);
    let touches = |call: &&Ec2Call| call.eni().is_some_and(|eni| strangers.contains(eni));
    assert_eq!(node.ec2.calls.iter().find(touches), None);
}

/// An ENI with this instance's tag that somebody has attached to another card. The instance takes two ENIs on ours.
#[test]
fn index_taken_on_another_card_is_free_on_ours() {
    let limits = Limits { enis: 2, ..limits("m5.large") };
    let mut ec2 = Ec2::new(limits);
    let other = ec2.attach_foreign(1, &[OURS]);
    ec2.enis.get_mut(&other).unwrap().attachment.as_mut().unwrap().network_card = 1;
    let before = ec2.enis[&other].clone();
    let mut node = Node::start_with(ec2, limits, warm_ip(0, 0));
    node.settle();
    for pod in 0..18 {
        node.run_pod(pod);
    }
    let places = node.view().enis.into_iter().map(|eni| (eni.network_card, eni.device_index));
    assert_eq!(places.collect::<Vec<_>>(), [(0, Some(0)), (0, Some(1))]);
    for pod in 0..18 {
        node.del(pod);
    }
    node.pass(DAY);
    assert_eq!(node.view().enis.len(), 1, "the ENI at index 1 of our card went back");
    assert_eq!(node.ec2.enis[&other], before, "the one of the other card is as it was");
}

/// Its owner has removed the address, and EC2 then assigns it to us.
#[test]
fn foreign_address_that_ec2_assigns_to_us_becomes_ours() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(1, 0));
    put_foreign_block(&mut node);
    AUDIT(&mut node);
    assert_eq!(node.view().unused_blocks, BTreeSet::from([foreign_block()]));
    node.run_pod(0);
    let before = node.ec2.enis[&eni_id(PRIMARY)].blocks.clone();
    node.add(1);
    node.save_all();
    let (id, call) = node.calls.pop_back().unwrap();
    assert!(matches!(call, Ec2Call::Assign { .. }), "{call}");
    let given = CallOutput::Assigned([foreign_block()].into());
    node.send(Event::CallDone { id, result: Ok(given) });
    assert_eq!(node.view().unused_blocks, BTreeSet::new());
    let known: BTreeSet<_> = node.view().enis[0].blocks.keys().copied().collect();
    assert_eq!(known, before);
}
