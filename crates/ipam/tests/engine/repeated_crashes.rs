//! Daemons that die again before EC2 has described a second time what the run before did: nothing of it is
//! given to pods too soon, and nothing is taken for somebody else's.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::call::{CallErrorKind, Ec2Call};
use ipam::event::Event;
use ipam::id::BootId;
use ipam::view::EniStage;

use crate::ec2::{Ec2, PRIMARY, error};
use crate::lag::{answer_of_old, at_ec2, dead, held, shrunk, with_pods};
use crate::node::{Node, limits, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn is_assign(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::Assign { .. })
}

/// Saves and answers until a call of the kind is under way, and gives its place.
fn until(node: &mut Node, is_it: fn(&Ec2Call) -> bool) -> usize {
    for _ in 0..100 {
        node.save_all();
        if let Some(place) = node.calls.iter().position(|(_, call)| is_it(call)) {
            return place;
        }
        node.end_call(0);
    }
    panic!("no such call: {:?}", node.under_way());
}

/// The subnets cannot be read at the start.
fn refuse_subnets(node: &mut Node) {
    let subnets = until(node, |call| *call == Ec2Call::DescribeSubnets);
    let (id, _) = node.calls.remove(subnets).unwrap();
    node.send(Event::CallDone { id, result: Err(error(CallErrorKind::AccessDenied)) });
}

/// As [`Node::restart`], and EC2 describes what was `before`. Nothing more is wanted.
fn restart_shown(node: &mut Node, before: &Ec2) {
    node.restart_with(warm_ip(0, 0));
    answer_of_old(node, before);
    node.save_all();
}

/// EC2 names all twice, and nothing of it is another's.
fn all_is_ours(node: &mut Node) {
    node.pass(secs(30));
    assert_eq!(node.view().unused_blocks, BTreeSet::new());
    assert_eq!(held(node), at_ec2(&node.ec2));
    assert!(node.record().intents().is_empty());
}

#[test]
fn block_missing_at_one_start_stays_ours_at_the_next() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
    let before = node.ec2.clone();
    node.run_pod(0);
    assert_eq!(at_ec2(&node.ec2).difference(&at_ec2(&before)).count(), 1);
    for _ in 0..2 {
        restart_shown(&mut node, &before);
    }
    all_is_ours(&mut node);
}

/// A node that has died between an Assign and its answer, and EC2 as it was before.
fn assigned_unheard() -> (Node, Ec2) {
    let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
    let before = node.ec2.clone();
    node.add(0);
    let place = until(&mut node, is_assign);
    let call = node.calls[place].1.clone();
    node.ec2.execute(&call).unwrap();
    (node, before)
}

#[test]
fn assign_stays_recorded_while_enis_cannot_be_described() {
    let (mut node, before) = assigned_unheard();
    restart_shown(&mut node, &before);
    node.pass_unsettled(secs(3600));
    all_is_ours(&mut node);
}

/// The reading that tells of it describes what was before.
#[test]
fn assign_before_an_outdated_describe_stays_recorded() {
    for n_restarts in 1..4 {
        let (mut node, before) = assigned_unheard();
        for _ in 0..n_restarts {
            restart_shown(&mut node, &before);
        }
        all_is_ours(&mut node);
    }
}

/// It has never left, but the record has it no more.
#[test]
fn block_with_an_unfinished_unassign_stays_ours() {
    for n_restarts in 1..4 {
        let mut node = with_pods();
        node.del(3);
        until(&mut node, |call| matches!(call, Ec2Call::Unassign { .. }));
        let before = node.ec2.clone();
        for _ in 0..n_restarts {
            restart_shown(&mut node, &before);
        }
        all_is_ours(&mut node);
    }
}

/// What EC2 shows on the ENI may be what that call has brought, or what was given back before it.
#[test]
fn released_block_is_not_offered_despite_an_open_assign() {
    let (mut node, before) = shrunk();
    node.add(4);
    until(&mut node, is_assign);
    node.restart();
    answer_of_old(&mut node, &before);
    let adds: Vec<_> = (5..8).map(|pod| node.add(pod)).collect();
    node.pass(secs(20));
    assert!(dead(&node, &adds).is_empty());
    all_is_ours(&mut node);
}

#[test]
fn assign_in_a_new_boot_without_subnets_is_recorded() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
    node.boot.node.boot = BootId("another".to_owned());
    node.restart();
    refuse_subnets(&mut node);
    node.add(0);
    let place = until(&mut node, is_assign);
    node.end_call(place);
    node.save_all();
    node.restart();
    all_is_ours(&mut node);
}

/// A run to come that were not shown it at first would take it for somebody's.
#[test]
fn blocks_that_cannot_be_recorded_are_not_requested() {
    let mut node = Node::start(limits("m5.large"), warm_ip(3, 0));
    let before = node.ec2.clone();
    refuse_subnets(&mut node);
    node.add(0);
    node.settle();
    assert_eq!(at_ec2(&node.ec2), at_ec2(&before));
    node.pass(secs(120));
    assert_ne!(at_ec2(&node.ec2), at_ec2(&before), "the subnets have been read since");
    restart_shown(&mut node, &before);
    all_is_ours(&mut node);
}

#[test]
fn eni_described_as_detached_once_is_not_deleted() {
    for is_on_record in [true, false] {
        let mut node = Node::settled(limits("t3.small"), warm_ip(4, 0));
        let mut before = node.ec2.clone();
        let late = before.enis.values_mut().find(|eni| eni.id.as_str() != PRIMARY).unwrap();
        late.attachment = None;
        let late = late.id.clone();
        if !is_on_record {
            node.log.clear();
        }
        restart_shown(&mut node, &before);
        node.pass(secs(30));
        let deletes =
            node.ec2.calls.iter().filter(|call| matches!(call, Ec2Call::DeleteEni { .. }));
        assert_eq!(deletes.count(), 0);
        assert!(node.view().enis.iter().any(|eni| eni.id == late && eni.stage == EniStage::Ready));
    }
}
