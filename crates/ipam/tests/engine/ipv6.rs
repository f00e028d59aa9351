//! IPv6: one /80 on the primary ENI. No address of it serves two pods.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::Ec2Call;
use ipam::event::RefusalCode;
use ipam::plan::{
    Allowance, Blocked, EniSupply, Growth, Scope, Situation, SubnetSupply, SupplyState, Tally, plan,
};
use ipam::policy::{Policy, WarmSettings};
use ipam::time::Timestamp;

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, subnet_id};
use crate::node::{Node, OURS, OnEni as _, Setup, limits, policy, warm_ip};

/// The number of addresses in a /80.
const PREFIX_SIZE: u64 = 1 << 48;

fn ipv6() -> Setup {
    policy(BlockKind::V6Prefix, WarmSettings::default())
}

fn block(cidr: &str) -> ipam::block::Block {
    cidr.parse::<ipnet::IpNet>().unwrap().try_into().unwrap()
}

#[test]
fn one_prefix_serves_a_thousand_pods() {
    let mut node = Node::settled(limits("m5.large"), ipv6());
    let mut seen = BTreeSet::new();
    for round in 0..20 {
        for pod in 0..50 {
            let address = node.run_pod(round * 50 + pod).address();
            assert!(seen.insert(address), "{address} serves twice");
        }
        for pod in 0..50 {
            node.del(round * 50 + pod);
        }
        node.pass(Duration::from_secs(60));
    }
    let prefixes = node.ec2.enis[&eni_id(PRIMARY)].blocks.clone();
    assert_eq!(prefixes.len(), 1);
    assert!(seen.iter().all(|ip| prefixes.iter().all(|prefix| prefix.contains(*ip))));
    let assign = Ec2Call::Assign { eni: eni_id(PRIMARY), blocks: BlockKind::V6Prefix.times(1) };
    assert_eq!(node.ec2.n_mutating(), 1, "{:?}", node.ec2.calls);
    assert!(node.ec2.calls.contains(&assign));
}

#[test]
fn address_is_not_reused_after_restart_or_cooldown() {
    let mut node = Node::settled(limits("m5.large"), ipv6());
    let mut seen = BTreeSet::new();
    for pod in 0..100 {
        assert!(seen.insert(node.run_pod(pod).address()));
        node.del(pod);
        node.pass(Duration::from_secs(31));
        node.restart();
        node.settle();
    }
    // Rested addresses leave the record, so it does not grow for as long as the node lives.
    assert!(node.record().cooling().len() <= 2, "{:?}", node.record().cooling());
}

#[test]
fn only_prefixes_of_the_primary_serve_pods() {
    let mut ec2 = Ec2::new(limits("m5.large"));
    let second = ec2.attach_foreign(1, &[OURS]);
    ec2.enis.get_mut(&second).unwrap().blocks.insert(block("fd00:0:0:0:7::/80"));
    let primary = ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap();
    primary.blocks.extend([block("10.0.0.9/32"), block("10.0.0.32/28")]);
    let mut node = Node::start_with(ec2, limits("m5.large"), ipv6());
    node.settle();
    for pod in 0..5 {
        let assignment = node.run_pod(pod);
        assert_eq!((assignment.eni(), assignment.device_index()), (eni_id(PRIMARY), 0));
        assert!(matches!(assignment.address(), IpAddr::V6(_)));
    }
    node.pass(Duration::from_secs(3600));
    let primary = &node.ec2.enis[&eni_id(PRIMARY)];
    assert!(primary.blocks.contains(&block("10.0.0.9/32")), "blocks that serve no pod stay");
    assert_eq!(node.ec2.n_attached(), 1, "the unused ENI goes back");
}

#[test]
fn ipv4_node_leaves_ipv6_prefixes_alone() {
    let mut ec2 = Ec2::new(limits("m5.large"));
    let prefix = block("fd00:0:0:0:7::/80");
    ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.insert(prefix);
    let policy = policy(BlockKind::V4Prefix, WarmSettings::default());
    let mut node = Node::start_with(ec2, limits("m5.large"), policy);
    node.settle();
    assert!(node.run_pod(0).address().is_ipv4());
    node.del(0);
    node.pass(Duration::from_secs(3600));
    assert!(node.ec2.enis[&eni_id(PRIMARY)].blocks.contains(&prefix));
}

/// The settings change while pods run.
#[test]
fn eni_stays_while_a_pod_of_the_other_family_uses_it() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    let on_second: Vec<usize> =
        (0..5).filter(|pod| node.run_pod(*pod).device_index() == 1).collect();
    // The primary ENI has room again.
    node.del(0);
    node.pass(Duration::from_secs(3600));
    assert_eq!((node.ec2.n_blocks(), on_second.len()), (vec![2, 2], 2));
    node.restart_with(ipv6());
    node.pass(Duration::from_secs(3600));
    assert_eq!(node.ec2.enis.len(), 2, "{:?}", node.ec2.calls);
    for pod in on_second {
        node.del(pod);
    }
    node.pass(Duration::from_secs(3600));
    assert_eq!(node.ec2.enis.len(), 1, "no pod uses the ENI any more");
}

#[test]
fn second_prefix_comes_when_the_first_is_used_up() {
    let check = |prefixes: u16, cooling: u64, n_waiting: u32, grows: bool| {
        let subnet = SubnetSupply {
            id: subnet_id(SUBNET),
            addresses: Allowance::Open(u16::MAX),
            prefixes: Allowance::Open(u16::MAX),
            free: None,
            create_hold: None,
        };
        let primary = EniSupply {
            id: eni_id(PRIMARY),
            subnet: subnet.clone(),
            state: SupplyState::Attached,
            removable_from: None,
            busy: false,
            pending: None,
            hold: None,
            limit: u16::MAX,
            at_once: u16::MAX,
            tally: Tally {
                prefixes,
                addresses: u64::from(prefixes) * PREFIX_SIZE,
                cooling,
                ..Tally::default()
            },
        };
        let policy: Policy = ipv6().into();
        let situation = Situation {
            scope: Scope::All,
            family: limits("m5.large").families(&policy).policy(),
            enis: vec![primary],
            creating: Vec::new(),
            n_foreign: 0,
            n_waiting,
            n_expected: 0,
            n_soon: None,
            n_to_delegate: 0,
            subnets: vec![subnet],
            no_subnet: Blocked {
                code: RefusalCode::SubnetExhausted,
                why: String::new(),
                until: None,
                passes_at: None,
            },
            create_at_most: u16::MAX,
            assign_hold: None,
            create_hold: None,
        };
        let plan = plan(&situation, &policy, &limits("m5.large"), Timestamp::default());
        let second = Growth::Assign { eni: eni_id(PRIMARY), blocks: BlockKind::V6Prefix.times(1) };
        let expect = if grows { vec![second] } else { vec![] };
        assert_eq!(
            plan.growth, expect,
            "{prefixes} prefixes, {cooling} resting, {n_waiting} waiting"
        );
    };
    check(0, 0, 0, true);
    check(1, 0, 0, false);
    check(1, 0, 700, false);
    check(1, PREFIX_SIZE - 1, 1, false);
    check(1, PREFIX_SIZE, 1, true);
    check(2, PREFIX_SIZE, 1, false);
}
