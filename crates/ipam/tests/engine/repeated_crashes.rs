//! Daemons that crash again before a second describe confirms the changes of the run before. No pod gets
//! such a block too soon, and no block of ours counts as foreign.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::call::{CallErrorKind, Ec2Call};
use ipam::event::Event;
use ipam::id::BootId;
use ipam::view::EniStage;

use crate::ec2::{Ec2, PRIMARY, error};
use crate::lag::{
    answer_outdated, at_ec2, grants_missing_at_ec2, held, node_that_shrank, node_with_pods,
};
use crate::node::{Node, limits, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn is_assign(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::Assign { .. })
}

/// Ends saves and calls until a call that matches `is_it` is under way. Returns its place.
fn run_to(node: &mut Node, is_it: fn(&Ec2Call) -> bool) -> usize {
    for _ in 0..100 {
        node.save_all();
        if let Some(place) = node.calls.iter().position(|(_, call)| is_it(call)) {
            return place;
        }
        node.end_call(0);
    }
    panic!("no such call: {:?}", node.under_way());
}

/// EC2 denies the first describe of the subnets.
fn refuse_subnets(node: &mut Node) {
    let subnets = run_to(node, |call| *call == Ec2Call::DescribeSubnets);
    let (id, _) = node.calls.remove(subnets).unwrap();
    node.send(Event::CallDone { id, result: Err(error(CallErrorKind::AccessDenied)) });
}

/// As [`Node::restart`]; EC2's first answer describes the state `before`. The targets want no more blocks.
fn restart_outdated(node: &mut Node, before: &Ec2) {
    node.restart_with(warm_ip(0, 0));
    answer_outdated(node, before);
    node.save_all();
}

/// Once EC2 has described every block twice, none of them counts as foreign.
fn check_all_blocks_are_ours(node: &mut Node) {
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
        restart_outdated(&mut node, &before);
    }
    check_all_blocks_are_ours(&mut node);
}

/// A node that is about to crash between an Assign and its answer, and EC2 as it was before.
fn crashed_during_assign() -> (Node, Ec2) {
    let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
    let before = node.ec2.clone();
    node.add(0);
    let place = run_to(&mut node, is_assign);
    let call = node.calls[place].1.clone();
    node.ec2.execute(&call).unwrap();
    (node, before)
}

#[test]
fn assign_stays_recorded_while_enis_cannot_be_described() {
    let (mut node, before) = crashed_during_assign();
    restart_outdated(&mut node, &before);
    node.pass_unsettled(secs(3600));
    check_all_blocks_are_ours(&mut node);
}

/// Each start's first describe shows the state before the Assign.
#[test]
fn assign_before_an_outdated_describe_stays_recorded() {
    for n_restarts in 1..4 {
        let (mut node, before) = crashed_during_assign();
        for _ in 0..n_restarts {
            restart_outdated(&mut node, &before);
        }
        check_all_blocks_are_ours(&mut node);
    }
}

/// The record no longer has the block, and the Unassign never reached EC2.
#[test]
fn block_with_an_unfinished_unassign_stays_ours() {
    for n_restarts in 1..4 {
        let mut node = node_with_pods();
        node.del(3);
        run_to(&mut node, |call| matches!(call, Ec2Call::Unassign { .. }));
        let before = node.ec2.clone();
        for _ in 0..n_restarts {
            restart_outdated(&mut node, &before);
        }
        check_all_blocks_are_ours(&mut node);
    }
}

/// The blocks in EC2's answer may come from the open Assign. They may also be blocks that were given back
/// before it.
#[test]
fn released_block_is_not_offered_despite_an_open_assign() {
    let (mut node, before) = node_that_shrank();
    node.add(4);
    run_to(&mut node, is_assign);
    node.restart();
    answer_outdated(&mut node, &before);
    let adds: Vec<_> = (5..8).map(|pod| node.add(pod)).collect();
    node.pass(secs(20));
    assert!(grants_missing_at_ec2(&node, &adds).is_empty());
    check_all_blocks_are_ours(&mut node);
}

#[test]
fn assign_in_a_new_boot_without_subnets_is_recorded() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
    node.boot.node.boot = BootId("another".to_owned());
    node.restart();
    refuse_subnets(&mut node);
    node.add(0);
    let place = run_to(&mut node, is_assign);
    node.end_call(place);
    node.save_all();
    node.restart();
    check_all_blocks_are_ours(&mut node);
}

/// A later run might not see an unrecorded block in its first describe, and would then take it for foreign.
#[test]
fn blocks_that_cannot_be_recorded_are_not_requested() {
    let mut node = Node::start(limits("m5.large"), warm_ip(3, 0));
    node.boot.node.subnet_cidr = None;
    node.restart_without_record();
    let before = node.ec2.clone();
    refuse_subnets(&mut node);
    node.add(0);
    node.settle();
    assert_eq!(at_ec2(&node.ec2), at_ec2(&before));
    node.pass(secs(120));
    assert_ne!(at_ec2(&node.ec2), at_ec2(&before), "the subnets are known by now");
    restart_outdated(&mut node, &before);
    check_all_blocks_are_ours(&mut node);
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
        restart_outdated(&mut node, &before);
        node.pass(secs(30));
        let deletes =
            node.ec2.calls.iter().filter(|call| matches!(call, Ec2Call::DeleteEni { .. }));
        assert_eq!(deletes.count(), 0);
        assert!(node.view().enis.iter().any(|eni| eni.id == late && eni.stage == EniStage::Ready));
    }
}
