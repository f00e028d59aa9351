//! The primary ENI is the one whose hardware address the metadata name, wherever it is attached and whatever
//! addresses it has.

use std::net::IpAddr;

use ipam::block::{BlockKind, Family};
use ipam::event::{HostPicture, LinkState};
use ipam::policy::WarmSettings;
use ipam::view::ForeignReason;
use ipnet::IpNet;

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, subnet_id};
use crate::node::{Node, OnEni as _, limits, policy, warm_ip};

/// As on nodes of SageMaker HyperPod: the primary ENI is at index 1.
/// Source: <https://github.com/aws/amazon-vpc-cni-k8s/issues/3753>.
fn at_index_1() -> Ec2 {
    let mut ec2 = Ec2::new(limits("m5.large"));
    let primary = ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap();
    primary.attachment.as_mut().unwrap().device_index = 1;
    ec2
}

/// The process dies, and another comes to rest. Returns the host network that it wants.
fn restart(node: &mut Node) -> HostPicture {
    let mut wanted = None;
    node.restart();
    loop {
        node.save_all();
        wanted = node.host.clone().or(wanted);
        if !node.calls.is_empty() {
            node.end_call(0);
        } else if node.host.is_some() {
            node.end_sync(&LinkState::Ready);
        } else if node.saves.is_empty() {
            return wanted.unwrap();
        }
    }
}

#[test]
fn primary_eni_at_index_1_serves_by_the_main_table() {
    let mut node = Node::start_with(at_index_1(), limits("m5.large"), warm_ip(2, 0));
    node.settle();
    let first = node.run_pod(0);
    assert_eq!((first.eni(), first.device_index()), (eni_id(PRIMARY), 0));
    for pod in 1..15 {
        node.run_pod(pod);
    }
    let shown = node.view().enis.into_iter().map(|eni| (eni.primary, eni.device_index));
    assert_eq!(shown.collect::<Vec<_>>(), [(true, Some(1)), (false, Some(2))]);
    let host = restart(&mut node);
    let places: Vec<_> = host.enis.iter().map(|eni| (eni.eni.as_str(), eni.device_index)).collect();
    assert_eq!(places, [(PRIMARY, 0), ("eni-0001", 2)], "index 1 is taken at EC2");
}

#[test]
fn eni_at_index_0_that_is_not_primary_is_left_alone() {
    let mut ec2 = at_index_1();
    let other = ec2.add_unattached_eni(&[]);
    let mut attachment = ec2.enis[&eni_id(PRIMARY)].attachment.clone().unwrap();
    attachment.device_index = 0;
    ec2.enis.get_mut(&other).unwrap().attachment = Some(attachment);
    let mut node = Node::start_with(ec2, limits("m5.large"), warm_ip(2, 0));
    node.settle();
    for pod in 0..15 {
        assert_ne!(node.run_pod(pod).eni(), other);
    }
    assert_eq!(node.view().foreign.get(&other), Some(&ForeignReason::Kind));
    assert!(node.ec2.enis[&other].blocks.is_empty(), "{:?}", node.ec2.enis[&other]);
}

/// EC2 shows no IPv4 address of the ENI, and no IPv4 range of the subnet.
#[test]
fn node_in_an_ipv6_only_subnet_serves_pods() {
    let mut ec2 = Ec2::new(limits("m5.large"));
    let own: IpAddr = "2001:db8::10".parse().unwrap();
    let range: IpNet = "2001:db8::/64".parse().unwrap();
    ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().primary_address = own;
    ec2.subnets.get_mut(&subnet_id(SUBNET)).unwrap().facts.cidr = range;
    let ipv6 = policy(BlockKind::V6Prefix, WarmSettings::default());
    let mut node = Node::start_with(ec2, limits("m5.large"), ipv6);
    node.settle();
    for pod in 0..20 {
        assert_eq!(node.run_pod(pod).eni(), eni_id(PRIMARY));
    }
    assert_eq!(node.record().enis()[&eni_id(PRIMARY)].subnet_cidr, range);
    let host = restart(&mut node);
    let wanted: Vec<_> = host.enis.iter().map(|it| (it.primary_address, it.subnet_cidr)).collect();
    assert_eq!((host.families.clone(), wanted), ([Family::V6].into(), vec![(own, range)]));
    assert_eq!(node.run_pod(20).eni(), eni_id(PRIMARY));
}

/// New ENIs are for pods on IPv4.
#[test]
fn no_eni_is_created_in_an_ipv6_only_subnet() {
    let mut ec2 = Ec2::new(limits("m5.large"));
    ec2.add_subnet("subnet-6", 6, &[("kubernetes.io/role/cni", "1")]);
    let facts = &mut ec2.subnets.get_mut(&subnet_id("subnet-6")).unwrap().facts;
    (facts.cidr, facts.free_addresses) = ("2001:db8::/64".parse().unwrap(), Some(65_000));
    let mut node = Node::start_with(ec2, limits("m5.large"), warm_ip(2, 0));
    node.settle();
    for pod in 0..20 {
        node.run_pod(pod);
    }
    assert!(node.ec2.enis.values().all(|eni| eni.subnet == subnet_id(SUBNET)));
}
