//! Node-local addresses: who gets one, and what keeps it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::{BlockKind, Family};
use ipam::event::{Event, HostEgress, NodeLocal};
use ipam::id::Pod;
use ipam::policy::WarmSettings;
use ipam::record::{Assignment, PodIpv6};

use crate::node::{Node, OnEni as _, Setup, key, limits, policy, warm_ip};

fn ipv6(egress: Option<Family>) -> Setup {
    Setup { egress, ..policy(BlockKind::V6Prefix, WarmSettings::default()) }
}

fn ipv4(egress: Option<Family>) -> Setup {
    Setup { egress, ..warm_ip(2, 0) }
}

/// Adds a pod and makes its link.
fn run_pod(node: &mut Node, pod: usize) -> Assignment {
    let held = node.run_pod(pod);
    held.ips().for_each(|ip| drop(node.links.insert(ip, key(pod))));
    held
}

fn held(node: &Node, pod: usize) -> Option<IpAddr> {
    node.engine.held_by(key(pod)).and_then(|held| held.node_local)
}

/// The families whose node-local addresses the host translates, as of the newest picture.
fn translated(node: &mut Node) -> Option<BTreeSet<Family>> {
    let egress = node.host.as_ref().map(|host| host.egress.clone());
    node.settle();
    egress.map(|HostEgress { families, .. }| families)
}

fn text(address: &str) -> Option<IpAddr> {
    Some(address.parse().unwrap())
}

#[test]
fn pod_gets_a_node_local_address_of_the_family_it_lacks() {
    let check = |setup: Setup, expect: Option<IpAddr>| {
        let what = format!("{:?} {:?}", setup.kind, setup.egress);
        let mut node = Node::settled(limits("m5.large"), setup);
        let first = run_pod(&mut node, 0);
        assert_eq!(first.node_local, expect, "{what}");
        // The same pod again, also from the record of another process.
        assert_eq!(node.run_pod(0), first);
        node.restart();
        node.settle();
        assert_eq!(node.run_pod(0), first);
        assert!(expect.is_none() || run_pod(&mut node, 1).node_local != expect, "{what}");
    };
    check(ipv6(Some(Family::V4)), text("169.254.172.2"));
    check(ipv4(Some(Family::V6)), text("fd00::ac:2"));
    check(ipv6(None), None);
    check(ipv4(None), None);
    // It has that family already.
    check(ipv4(Some(Family::V4)), None);
}

#[test]
fn plugin_that_takes_no_node_local_address_gets_none() {
    let mut node = Node::settled(limits("m5.large"), ipv6(Some(Family::V4)));
    let (request, deadline) = (node.request(), node.now + Duration::from_secs(60));
    let (pod, netns, node_local) = (Pod::default(), String::new(), NodeLocal::NotTaken);
    node.send(Event::Add { request, key: key(0), pod, netns, node_local, deadline });
    node.settle();
    assert_eq!(node.granted(request).node_local, None);
}

#[test]
fn pod_keeps_its_node_local_address_when_the_setting_ends() {
    let mut node = Node::settled(limits("m5.large"), ipv6(Some(Family::V4)));
    let first = run_pod(&mut node, 0).node_local;
    node.change_policy(ipv6(None));
    assert_eq!(translated(&mut node), None, "the host goes on as before");
    assert_eq!((held(&node, 0), run_pod(&mut node, 1).node_local), (first, None));
    node.restart();
    assert_eq!(translated(&mut node), Some(BTreeSet::from([Family::V4])));
    assert_eq!(held(&node, 0), first);
    // The last such pod ends.
    node.del(0);
    node.save_all();
    assert_eq!(translated(&mut node), Some(BTreeSet::new()));
    node.change_policy(ipv6(Some(Family::V4)));
    assert_eq!(translated(&mut node), Some(BTreeSet::from([Family::V4])));
}

#[test]
fn node_local_address_survives_restart_and_lost_record() {
    for setup in [ipv4(Some(Family::V6)), ipv4(None)] {
        let mut node = Node::settled(limits("m5.large"), ipv4(Some(Family::V6)));
        let before: Vec<_> = (0..5).map(|pod| run_pod(&mut node, pod)).collect();
        node.boot.policy = setup.into();
        node.restart_without_record();
        node.settle();
        for (pod, before) in before.iter().enumerate() {
            let found = node.engine.held_by(key(pod)).unwrap();
            assert_eq!((found.address(), found.node_local), (before.address(), before.node_local));
        }
        node.restart();
        assert!(translated(&mut node).unwrap().contains(&Family::V6));
        let new = run_pod(&mut node, 5).node_local;
        assert!(before.iter().all(|before| new.is_none() || before.node_local != new));
    }
}

/// A build that knows no node-local address drops it from the record as it writes a snapshot.
#[test]
fn address_that_an_older_build_drops_is_not_given_again() {
    let mut node = Node::settled(limits("m5.large"), ipv6(Some(Family::V4)));
    let first = run_pod(&mut node, 0).node_local;
    for change in &mut node.log {
        if let ipam::record::Change::Assigned { assignment, .. } = change {
            assignment.node_local = None;
        }
    }
    node.restart_with(ipv6(None));
    assert_eq!(translated(&mut node), Some(BTreeSet::from([Family::V4])));
    assert_eq!(held(&node, 0), None);
    node.change_policy(ipv6(Some(Family::V4)));
    let others: BTreeSet<_> = (1..1000).map(|pod| node.run_pod(pod).node_local).collect();
    assert!(others.len() == 999 && !others.contains(&first), "{first:?}");
}

#[test]
fn pods_beyond_the_range_get_no_node_local_address() {
    let mut node = Node::settled(limits("m5.large"), ipv6(Some(Family::V4)));
    node.change_policy(Setup { max_pods: 2000, ..ipv6(Some(Family::V4)) });
    for pod in 0..1021 {
        assert!(node.run_pod(pod).node_local.is_some(), "{pod}");
    }
    assert_eq!(node.run_pod(1021).node_local, None);
    node.del(3);
    node.settle();
    assert!(node.run_pod(1022).node_local.is_some());
}

#[test]
fn rested_node_local_addresses_leave_the_record() {
    let mut node = Node::settled(limits("m5.large"), ipv6(Some(Family::V4)));
    for pod in 0..100 {
        run_pod(&mut node, pod);
        node.links.clear();
        node.del(pod);
        node.pass(Duration::from_secs(60));
    }
    assert!(node.record().cooling().len() <= 4, "{:?}", node.record().cooling());
    let forgotten: Vec<_> = node.forgotten_connections.iter().map(|(_, ips)| ips.len()).collect();
    assert_eq!(forgotten, [1; 100], "each once, and no address of the VPC");
}

/// On record, so that a CHECK after a change of the setting and a restart goes by what the pod has.
#[test]
fn ipv6_is_off_in_new_pods_without_an_ipv6_address() {
    let off = |setup: Setup| Setup { pod_ipv6: PodIpv6::Off, ..setup };
    for (setup, expect) in [
        (off(ipv4(None)), PodIpv6::Off),
        (off(ipv4(Some(Family::V6))), PodIpv6::AsItIs),
        (off(ipv6(None)), PodIpv6::AsItIs),
        (ipv4(None), PodIpv6::AsItIs),
    ] {
        let mut node = Node::settled(limits("m5.large"), setup.clone());
        assert_eq!(node.run_pod(0).ipv6, expect, "{setup:?}");
    }
    let mut node = Node::settled(limits("m5.large"), off(ipv4(None)));
    node.run_pod(0);
    node.change_policy(ipv4(None));
    node.restart();
    node.settle();
    assert_eq!([0, 1].map(|pod| node.run_pod(pod).ipv6), [PodIpv6::Off, PodIpv6::AsItIs]);
}
