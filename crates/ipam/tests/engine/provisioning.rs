//! Nodes that change nothing at EC2, and nodes that are cordoned.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipam::block::{Block, BlockKind};
use ipam::call::{Action, CallErrorKind, Ec2Call};
use ipam::event::{Event, LinkState, Reason, RefusalCode};
use ipam::policy::{Provisioning, Targets, WarmSettings};
use ipam::view::Changes;

use crate::ec2::{Ec2, PRIMARY, eni_id};
use crate::node::{Node, OURS, OnEni as _, Setup, limits, policy, single, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The first address that somebody assigns.
const BY_HAND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 77, 1));
const DAY: Duration = Duration::from_secs(26 * 3600);

fn off(setup: Setup) -> Setup {
    Setup { provisioning: Provisioning::Off, ..setup }
}

fn by_metadata(setup: Setup) -> Setup {
    Setup { provisioning: Provisioning::ImdsOnly, ..setup }
}

/// Somebody puts addresses on the primary ENI: 10.0.77.1 and those after it.
fn assign_by_hand(ec2: &mut Ec2, n: u8) {
    let blocks = (1..=n).map(|last| Block::address([10, 0, 77, last].into()));
    ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().blocks.extend(blocks);
}

/// An EC2 whose primary ENI carries `n` addresses of somebody.
fn with_addresses(n: u8) -> Ec2 {
    let mut ec2 = Ec2::new(limits("m5.large"));
    assign_by_hand(&mut ec2, n);
    ec2
}

fn started(ec2: Ec2, setup: Setup) -> Node {
    let mut node = Node::start_with(ec2, limits("m5.large"), setup);
    node.settle();
    // EC2 may lag, so what no record knows is described twice.
    node.pass(secs(20));
    node
}

#[test]
fn nothing_is_changed_at_ec2_while_provisioning_is_off() {
    for setup in [off(warm_ip(5, 9)), by_metadata(warm_ip(5, 9))] {
        let mut ec2 = with_addresses(2);
        ec2.attach_foreign(1, &[OURS]);
        ec2.add_unattached_eni(&[OURS]);
        let setup = Setup { leak_age: Some(secs(3600)), ..setup };
        let mut node = started(ec2, setup);
        assert_eq!(node.run_pod(0).address(), BY_HAND);
        node.run_pod(1);
        let request = node.add(2);
        node.settle();
        let refusal = node.refused(request).clone();
        assert_eq!(refusal.code, RefusalCode::ProvisioningOff, "{}", refusal.message);
        node.del(0);
        node.pass(DAY);
        assert_eq!(node.ec2.n_mutating(), 0, "{:?}", node.ec2.calls);
        let searched = |call: &Ec2Call| matches!(call, Ec2Call::DescribeUnattached { .. });
        assert!(!node.ec2.calls.iter().any(searched));
        assert_eq!(node.run_pod(3).address(), BY_HAND, "it has rested");
        // The unattached ENI of an earlier run is no address under way.
        assert_eq!(node.view().enis.len(), 2);
    }
}

#[test]
fn refusal_names_the_setting_and_what_helps() {
    for (setup, setting) in [
        (off(warm_ip(1, 0)), "DISABLE_NETWORK_RESOURCE_PROVISIONING"),
        (by_metadata(warm_ip(1, 0)), "ENABLE_IMDS_ONLY_MODE"),
    ] {
        let mut node = started(Ec2::new(limits("m5.large")), setup);
        assert_eq!(node.engine.ready(node.now).unwrap_err().code, RefusalCode::ProvisioningOff);
        let request = node.add(0);
        node.settle();
        let message = &node.refused(request).message;
        assert!(message.contains(&format!("{setting} leaves the node with")), "{message}");
        assert!(message.contains("attach an ENI, or run fewer pods"), "{message}");
        let blocked = node.view().blocked;
        assert!(blocked.iter().any(|it| it.starts_with("PROVISIONING_OFF: ")), "{blocked:?}");
    }
}

/// Targets want nothing of a node on which nothing may be changed, so no line says that they are missed.
#[test]
fn missed_target_is_no_obstacle_while_provisioning_is_off() {
    let node = started(with_addresses(1), off(warm_ip(9, 27)));
    assert_eq!(node.view().blocked, Vec::<String>::new());
    assert_eq!(node.engine.ready(node.now), Ok(()));
    assert_eq!(node.view().changes, Changes::Off);
}

#[test]
fn addresses_and_enis_of_others_serve_while_provisioning_is_off() {
    let mut node = started(with_addresses(1), off(warm_ip(1, 0)));
    node.run_pod(0);
    // The metadata service shows an address and an ENI more, and a describe follows.
    assign_by_hand(&mut node.ec2, 2);
    let eni = node.ec2.attach_foreign(1, &[]);
    let block = Block::address([10, 0, 77, 9].into());
    node.ec2.enis.get_mut(&eni).unwrap().blocks.insert(block);
    for _ in 0..2 {
        node.hint(node.metadata());
        node.pass(secs(60));
    }
    assert_eq!(node.view().unused_blocks, BTreeSet::new());
    let addresses = [node.run_pod(1), node.run_pod(2)].map(|pod| single(pod.address()));
    assert_eq!(addresses, [Block::address([10, 0, 77, 2].into()), block]);
}

#[test]
fn eni_that_is_no_use_costs_one_describe() {
    let mut node = started(with_addresses(1), off(warm_ip(0, 0)));
    let n_before = node.ec2.calls.len();
    let eni = node.ec2.attach_foreign(1, &[("node.k8s.amazonaws.com/no_manage", "true")]);
    for _ in 0..60 {
        node.hint(node.metadata());
        node.pass(secs(60));
    }
    assert_eq!(node.ec2.calls.len(), n_before + 1);
    assert!(node.view().foreign.contains_key(&eni));
}

/// A pod that lacks an address makes the daemon look, at most once a minute.
#[test]
fn starving_pods_make_the_daemon_look_for_more() {
    let mut node = started(Ec2::new(limits("m5.large")), off(warm_ip(1, 0)));
    let describes = |node: &Node| {
        let why = |(_, why): &&(Ec2Call, Reason)| *why == Reason::LookForMore;
        node.reasons.iter().filter(why).count()
    };
    node.pass(secs(600));
    assert!((9..=11).contains(&describes(&node)), "{}", describes(&node));
    assign_by_hand(&mut node.ec2, 3);
    node.pass(secs(75));
    node.run_pod(0);
    let n = describes(&node);
    node.pass(secs(3600));
    assert_eq!(describes(&node), n, "it has what it needs");
}

#[test]
fn switch_back_lets_the_pool_follow_its_targets() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
    node.change_policy(off(warm_ip(9, 9)));
    node.pass(secs(600));
    assert_eq!(node.counts().free, 3);
    let n_before = node.ec2.n_mutating();
    node.change_policy(warm_ip(4, 0));
    node.pass(secs(60));
    assert_eq!(node.counts().free, 4);
    assert_eq!(node.ec2.n_mutating(), n_before + 1);
}

/// An ENI on its way back stays, and so do the pods that might come on it.
#[test]
fn eni_on_its_way_back_stays_once_provisioning_is_off() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(14, 0));
    assert_eq!(node.ec2.n_attached(), 2);
    node.ec2.refuses =
        |call| (call.action() == Action::DetachEni).then_some(CallErrorKind::Rejected);
    node.change_policy(warm_ip(1, 0));
    node.pass(secs(400));
    assert!(node.view().enis.iter().any(|eni| eni.stage.as_str() == "draining"));
    node.change_policy(off(warm_ip(1, 0)));
    node.pass(secs(60));
    assert!(node.view().enis.iter().all(|eni| eni.stage.as_str() == "ready"));
}

/// The creation of a run before is not repeated, and holds no pod up. Its ENI is found once changes are allowed.
#[test]
fn open_creation_is_given_up_while_provisioning_is_off() {
    let is_create = |call: &Ec2Call| call.action() == Action::CreateEni;
    let open = |node: &Node| node.record().intents().values().any(is_create);
    let mut node = Node::start(limits("m5.large"), warm_ip(12, 0));
    while !open(&node) {
        node.save_all();
        node.end_sync(&LinkState::Ready);
        if let Some(place) = node.calls.iter().position(|(_, call)| !is_create(call)) {
            node.end_call(place);
        }
    }
    node.restart_with(off(warm_ip(1, 0)));
    node.settle();
    let n = node.ec2.n_mutating();
    node.pass(secs(60));
    (0..9).for_each(|pod| drop(node.run_pod(pod)));
    let request = node.add(10);
    node.settle();
    assert_eq!(node.refused(request).code, RefusalCode::ProvisioningOff);
    assert_eq!(node.ec2.n_mutating(), n);
    assert!(!open(&node));
}

#[test]
fn metadata_stand_in_for_ec2() {
    let mut node = started(with_addresses(3), by_metadata(warm_ip(1, 0)));
    assert_eq!(node.reasons, [], "EC2 is called");
    assert!(node.metadata_reads.contains(&Action::DescribeEnis));
    assert!(node.metadata_reads.contains(&Action::DescribeSubnets));
    assert_eq!(node.counts().free, 3);
    // The service is read each minute, and no hint is needed.
    assign_by_hand(&mut node.ec2, 4);
    let n = node.metadata_reads.len();
    node.pass(secs(600));
    assert!((18..=24).contains(&(node.metadata_reads.len() - n)), "{:?}", node.metadata_reads);
    assert_eq!(node.counts().free, 4);
    assert_eq!((node.reasons.len(), node.ec2.n_mutating()), (0, 0));
    node.hint(Default::default());
    assert_eq!(node.run_pod(0).address(), BY_HAND, "hints say nothing new");
}

fn cordon(node: &mut Node, is_cordoned: bool) {
    node.send(Event::Cordoned(is_cordoned));
    node.settle();
}

fn calls(node: &Node, action: Action) -> usize {
    node.ec2.calls.iter().filter(|call| call.action() == action).count()
}

#[test]
fn cordoned_node_keeps_no_address_ready() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(2, 0));
    cordon(&mut node, true);
    assert_eq!(node.view().changes, Changes::Cordoned);
    let n = node.ec2.n_mutating();
    node.run_pod(0);
    node.run_pod(1);
    node.pass(secs(600));
    assert_eq!((node.counts().free, node.ec2.n_mutating()), (0, n));
    assert_eq!(node.view().blocked, Vec::<String>::new(), "it is as the user wants it");
    cordon(&mut node, false);
    node.pass(secs(60));
    assert_eq!(node.counts().free, 2);
}

/// It tolerates the taint, or was bound before. Nobody would understand that it waits.
#[test]
fn pod_on_a_cordoned_node_gets_an_address() {
    for kind in [BlockKind::V4Address, BlockKind::V4Prefix] {
        let setup = policy(kind, WarmSettings { warm_ip: 1, ..WarmSettings::default() });
        let setup = Setup { targets: Targets::Ip { warm: 1, minimum: 0 }, ..setup };
        let mut node = Node::settled(limits("m5.large"), setup);
        cordon(&mut node, true);
        for pod in 0..20 {
            node.run_pod(pod);
            node.pass(secs(10));
        }
        let free = node.counts().free;
        assert!(free < kind.size(), "{kind:?}: {free} are kept ready");
    }
}

#[test]
fn cordoned_node_gives_addresses_back_and_no_eni() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(1, 0));
    for pod in 0..20 {
        node.run_pod(pod);
    }
    node.pass(secs(60));
    assert_eq!(node.ec2.n_attached(), 3);
    cordon(&mut node, true);
    for pod in 0..20 {
        node.del(pod);
    }
    node.pass(DAY);
    assert_eq!((node.ec2.n_attached(), calls(&node, Action::DetachEni)), (3, 0));
    assert_eq!(node.counts().free, 1, "addresses go back as the targets say");
    cordon(&mut node, false);
    node.pass(DAY);
    assert_eq!(node.ec2.n_attached(), 1);
}

/// A node that joins with the taint must become ready, or no pod that tolerates it could start.
#[test]
fn cordoned_node_without_any_address_gets_some() {
    for warm_eni in [0, 1] {
        let settings = WarmSettings { warm_eni, ..WarmSettings::default() };
        let mut node = Node::start(limits("m5.large"), policy(BlockKind::V4Address, settings));
        node.send(Event::Cordoned(true));
        node.settle();
        node.pass(secs(60));
        assert!(node.counts().free > 0, "{warm_eni}");
        assert_eq!(node.engine.ready(node.now), Ok(()), "{warm_eni}");
        assert_eq!(node.ec2.n_attached(), 1, "one ENI is enough");
    }
}

#[test]
fn cordon_has_no_effect_where_the_user_says_so() {
    let setup = Setup { provisioning: Provisioning::Always, ..warm_ip(2, 0) };
    let mut node = Node::settled(limits("m5.large"), setup);
    cordon(&mut node, true);
    node.run_pod(0);
    node.pass(secs(60));
    assert_eq!((node.counts().free, node.view().changes), (2, Changes::ByTargets));
}

/// While nothing may be changed, a cordon changes nothing either.
#[test]
fn cordon_adds_nothing_where_provisioning_is_off() {
    let mut node = started(with_addresses(2), off(warm_ip(1, 0)));
    cordon(&mut node, true);
    assert_eq!(node.view().changes, Changes::Off);
}
