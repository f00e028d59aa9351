//! A start while EC2 does not answer. The record of EC2's last answer in the same boot stands in for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, Ec2Call};
use ipam::event::{Answer, Event, LinkState, RefusalCode};
use ipam::id::BootId;
use ipam::policy::WarmSettings;
use ipam::record::Change;

use crate::ec2::{Ec2, error};
use crate::node::{Node, OnEni as _, Setup, limits, policy, warm_ip};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Time passes. The disk and the host succeed, and EC2 is silent.
fn pass_in_silence(node: &mut Node, span: Duration) {
    let end = node.now + span;
    loop {
        node.save_all();
        if node.host.is_some() {
            node.end_sync(&LinkState::Ready);
        } else if let Some(at) = node.engine.wake_at().filter(|at| *at <= end) {
            node.now = at;
            node.send(Event::Tick);
        } else if node.saves.is_empty() {
            break;
        }
    }
    node.now = end;
}

/// All addresses that EC2 has for pods on this node.
fn at_ec2(node: &Node) -> BTreeSet<IpAddr> {
    let here = node.ec2.enis.values().filter(|eni| eni.attachment.is_some());
    let blocks = here.flat_map(|eni| &eni.blocks);
    blocks.map(|block| block.addresses_from(0).next().unwrap()).collect()
}

fn held(node: &Node) -> BTreeSet<IpAddr> {
    let view = node.view();
    let blocks = view.enis.iter().flat_map(|eni| eni.blocks.keys());
    blocks.map(|block| block.addresses_from(0).next().unwrap()).collect()
}

/// Moves a free address to a foreign ENI, and returns it.
fn take_away(node: &mut Node) -> IpAddr {
    let taken: BTreeSet<_> =
        node.record().assignments().values().map(|found| found.address()).collect();
    let free = |eni: &ipam::call::EniFacts| {
        eni.blocks.iter().copied().find(|b| !taken.contains(&b.addresses_from(0).next().unwrap()))
    };
    let (eni, block) = node.ec2.enis.values().find_map(|e| Some((e.id.clone(), free(e)?))).unwrap();
    node.ec2.enis.get_mut(&eni).unwrap().blocks.remove(&block);
    let other = node.ec2.add_unattached_eni(&[]);
    node.ec2.enis.get_mut(&other).unwrap().blocks.insert(block);
    block.addresses_from(0).next().unwrap()
}

#[test]
fn new_pods_get_addresses_while_ec2_is_silent() {
    for policy in [
        warm_ip(5, 0),
        policy(BlockKind::V4Prefix, WarmSettings::default()),
        policy(BlockKind::V6Prefix, WarmSettings::default()),
    ] {
        let kind = policy.kind;
        let mut node = Node::settled(limits("t3.small"), policy);
        let old = node.run_pod(1);
        node.restart();
        let waits = node.add(2);
        let n_mutating = node.ec2.n_mutating();
        pass_in_silence(&mut node, ms(399));
        assert_eq!(node.answer(waits), None, "{kind:?}: EC2 may still answer");
        pass_in_silence(&mut node, ms(1));
        let first = node.granted(waits).clone();
        assert_eq!(node.engine.ready(node.now), Ok(()));
        let second = node.add(3);
        node.save_all();
        let second = node.granted(second).clone();
        assert_ne!(first.address(), old.address());
        assert_ne!(second.address(), first.address());
        let del = node.del(1);
        node.save_all();
        assert_eq!(node.answer(del), Some(&Answer::Released(Some(old))));
        assert_eq!(node.ec2.n_mutating(), n_mutating, "{kind:?}: the engine changes something");
        node.settle();
        assert_eq!(held(&node), at_ec2(&node), "{kind:?}");
        assert_eq!(node.record().enis(), node.engine.record().enis());
    }
}

#[test]
fn failed_first_describe_starts_from_the_record() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(3, 0));
    node.restart();
    let place = node.calls.iter().position(|(_, call)| *call == Ec2Call::DescribeEnis).unwrap();
    let (id, _) = node.calls.remove(place).unwrap();
    node.send(Event::CallDone { id, result: Err(error(CallErrorKind::AccessDenied)) });
    let add = node.add(1);
    pass_in_silence(&mut node, ms(0));
    node.granted(add);
    assert!(node.view().blocked.iter().any(|text| text.contains("as it described them before")));
}

#[test]
fn timely_answer_replaces_the_record() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(3, 0));
    let gone = take_away(&mut node);
    node.restart();
    pass_in_silence(&mut node, ms(399));
    node.settle();
    let adds: Vec<_> = (0..8).map(|pod| node.add(pod)).collect();
    node.settle();
    assert!(adds.iter().all(|add| node.granted(*add).address() != gone));
}

#[test]
fn late_answer_corrects_the_pool() {
    // With 3 pods one of them has the moved address by then; with 0 pods it is free.
    for n_pods in [0, 3] {
        let mut node = Node::settled(limits("t3.small"), warm_ip(3, 0));
        let gone = take_away(&mut node);
        node.restart();
        pass_in_silence(&mut node, ms(400));
        assert!(held(&node).contains(&gone));
        let early: Vec<_> = (0..n_pods).map(|pod| node.add(pod)).collect();
        node.save_all();
        let given = early.iter().any(|add| node.granted(*add).address() == gone);
        assert_eq!(given, n_pods > 0);
        node.settle();
        assert_eq!(held(&node), at_ec2(&node));
        let named = node.view().blocked.iter().any(|text| text.contains(&gone.to_string()));
        assert_eq!(named, given, "{:?}", node.view().blocked);
        let late: Vec<_> = (10..14).map(|pod| node.add(pod)).collect();
        node.settle();
        assert!(late.iter().all(|add| node.granted(*add).address() != gone));
    }
}

#[test]
fn record_of_another_boot_offers_nothing() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(3, 0));
    let before = node.run_pod(1);
    node.boot.node.boot = BootId("another".to_owned());
    node.restart();
    let (old, fresh) = (node.add(1), node.add(2));
    pass_in_silence(&mut node, ms(11_000));
    assert_eq!(node.granted(old), &before);
    assert_eq!(node.refused(fresh).code, RefusalCode::Starting);
    node.settle();
    assert_eq!(node.record().boot(), Some(&node.boot.node.boot));
    // From now on the record belongs to the new boot.
    node.restart();
    let fresh = node.add(2);
    pass_in_silence(&mut node, ms(400));
    node.granted(fresh);
}

#[test]
fn recorded_address_waits_for_the_host() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(3, 0));
    node.restart();
    let add = node.add(1);
    node.now = node.engine.wake_at().unwrap();
    node.send(Event::Tick);
    node.end_sync(&LinkState::Absent);
    node.save_all();
    assert_eq!(node.answer(add), None);
    pass_in_silence(&mut node, ms(1_000));
    node.granted(add);
}

#[test]
fn pool_is_not_changed_until_ec2_answers() {
    let policy = Setup { cooldown: ms(0), shrink_delay: ms(0), ..warm_ip(1, 0) };
    let mut node = Node::settled(limits("t3.small"), policy);
    for pod in 0..6 {
        node.run_pod(pod);
    }
    // Without pods their blocks are surplus from now on.
    for pod in 0..6 {
        node.del(pod);
        node.save_all();
    }
    let record = node.record();
    let intended = record.intents().values().filter_map(|call| match call {
        Ec2Call::Unassign { blocks, .. } => Some(blocks),
        _ => None,
    });
    let intended: BTreeSet<IpAddr> =
        intended.flatten().map(|block| block.addresses_from(0).next().unwrap()).collect();
    assert!(!intended.is_empty());
    node.restart();
    let n_mutating = node.ec2.n_mutating();
    pass_in_silence(&mut node, ms(3_600_000));
    assert_eq!(node.ec2.n_mutating(), n_mutating);
    assert!(node.calls.iter().all(|(_, call)| call.eni().is_none()), "{:?}", node.calls);
    let leaving = |address: &IpAddr| intended.contains(address);
    assert!(!held(&node).iter().any(leaving), "a block may have gone back by now");
    node.pass(ms(60_000));
    assert_eq!(held(&node), at_ec2(&node));
}

#[test]
fn recorded_eni_excluded_by_settings_is_not_used() {
    for manage_untagged in [true, false] {
        let mut ec2 = Ec2::new(limits("t3.small"));
        let strange = ec2.attach_foreign(1, &[]);
        let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(6, 0));
        node.settle();
        node.boot.node.manage_untagged = manage_untagged;
        node.restart();
        pass_in_silence(&mut node, ms(400));
        let is_used = node.view().enis.iter().any(|eni| eni.id == strange);
        assert_eq!(is_used, manage_untagged);
    }
}

#[test]
fn add_costs_one_line() {
    let mut node = Node::settled(limits("m5.large"), Setup { max_pods: 9, ..warm_ip(9, 0) });
    let before = node.log.len();
    node.run_pod(1);
    assert!(matches!(node.log[before..], [Change::Assigned { .. }]), "{:?}", &node.log[before..]);
}

#[test]
fn surplus_leaves_the_record_while_subnets_are_unknown() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(3, 3));
    node.restart_with(warm_ip(1, 0));
    for _ in 0..200 {
        node.save_all();
        if let Some((id, call)) = node.calls.pop_front() {
            let result = match &call {
                Ec2Call::DescribeSubnets => Err(error(CallErrorKind::Rejected)),
                call => node.ec2.execute(call),
            };
            node.send(Event::CallDone { id, result });
        } else if node.host.is_some() {
            node.end_sync(&LinkState::Ready);
        } else if let Some(at) = node.engine.wake_at() {
            node.now = at;
            node.send(Event::Tick);
        }
    }
    let (eni, real) = node.ec2.enis.first_key_value().unwrap();
    assert_eq!(real.blocks.len(), 1, "two blocks have gone back");
    assert_eq!(node.record().enis()[eni].facts.blocks, real.blocks);
}
