//! Tags keep pods off a subnet or off the primary ENI. That holds for ENIs that exist already, too.

use std::time::Duration;

use ipam::policy::Placement;

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id};
use crate::node::{Node, OnEni as _, limits, warm_ip};

const ROLE: &str = "kubernetes.io/role/cni";
const NO_MANAGE: &str = "node.k8s.amazonaws.com/no_manage";

fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// EC2 with another subnet for pods.
fn two_subnets() -> Ec2 {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.add_subnet("subnet-1", 1, &[(ROLE, "1")]);
    ec2.subnet("subnet-1").facts.free_addresses = Some(10);
    ec2
}

fn exclude_by_role(ec2: &mut Ec2) {
    ec2.subnet(SUBNET).facts.tags.insert(ROLE.to_owned(), "0".to_owned());
}

fn exclude_by_cluster(ec2: &mut Ec2) {
    let theirs = "cni.networking.k8s.aws/cluster/theirs";
    let tags = [(ROLE, "1"), (theirs, "shared")];
    ec2.subnet(SUBNET).facts.tags = tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
}

fn exclude_by_no_manage(ec2: &mut Ec2) {
    let primary = ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap();
    primary.tags.insert(NO_MANAGE.to_owned(), "true".to_owned());
}

const EXCLUSIONS: [fn(&mut Ec2); 3] = [exclude_by_role, exclude_by_cluster, exclude_by_no_manage];

fn is_named(node: &Node) -> bool {
    node.view().blocked.iter().any(|line| line.starts_with(PRIMARY) && line.contains("no new pod"))
}

#[test]
fn excluded_primary_eni_gets_no_address() {
    for exclude in EXCLUSIONS {
        let mut ec2 = two_subnets();
        exclude(&mut ec2);
        let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(1, 0));
        node.settle();
        assert_eq!(node.engine.ready(node.now), Ok(()));
        let indexes: Vec<_> = (0..4).map(|pod| node.run_pod(pod).device_index()).collect();
        assert_eq!(indexes, [1, 1, 1, 2]);
        node.pass(hours(1));
        assert!(node.ec2.enis[&eni_id(PRIMARY)].blocks.is_empty());
        assert!(is_named(&node), "{:?}", node.view().blocked);
    }
}

#[test]
fn without_discovery_tags_of_subnets_have_no_effect() {
    let mut ec2 = two_subnets();
    ec2.subnet("subnet-1").facts.free_addresses = Some(90_000);
    exclude_by_role(&mut ec2);
    let mut policy = warm_ip(1, 0);
    policy.placement = Placement::PrimarySubnet;
    let mut node = Node::start_with(ec2, limits("t3.small"), policy);
    node.settle();
    let indexes: Vec<_> = (0..4).map(|pod| node.run_pod(pod).device_index()).collect();
    assert_eq!(indexes, [0, 0, 0, 1]);
    assert!(node.view().enis.iter().all(|eni| eni.subnet.to_string() == SUBNET));
    assert_eq!(node.view().blocked, [""; 0]);
}

/// Pods keep their addresses. Idle addresses go back at once, the others when their pods are gone.
#[test]
fn eni_excluded_later_takes_no_new_pods() {
    for exclude in EXCLUSIONS {
        let mut node = Node::start_with(two_subnets(), limits("t3.small"), warm_ip(1, 0));
        node.settle();
        let kept: Vec<_> = (0..2).map(|pod| node.run_pod(pod).address()).collect();
        assert_eq!(node.ec2.n_blocks(), [3]);
        exclude(&mut node.ec2);
        node.pass(hours(30));
        assert!(is_named(&node), "{:?}", node.view().blocked);
        assert_eq!(node.ec2.enis[&eni_id(PRIMARY)].blocks.len(), 2, "the idle one went back");
        assert_eq!(node.run_pod(2).device_index(), 1);
        let held = node.record();
        assert!(kept.iter().all(|ip| held.owners().contains_key(ip)));
        for pod in 0..3 {
            node.del(pod);
        }
        node.pass(hours(1));
        assert!(node.ec2.enis[&eni_id(PRIMARY)].blocks.is_empty());
        assert_eq!(node.run_pod(3).device_index(), 1);
    }
}

/// A node that takes addresses of the subnet does not wait for the daily describe.
#[test]
fn growth_notices_an_exclusion_that_is_an_hour_old() {
    for exclude in EXCLUSIONS {
        let mut node = Node::start_with(two_subnets(), limits("m5.large"), warm_ip(1, 0));
        node.settle();
        node.run_pod(0);
        node.pass(hours(2));
        exclude(&mut node.ec2);
        node.pass(hours(2));
        assert!(!is_named(&node), "a node at rest describes nothing");
        let n_calls = node.ec2.calls.len();
        node.run_pod(1);
        node.pass(Duration::from_secs(60));
        assert!(is_named(&node), "{:?}", &node.ec2.calls[n_calls..]);
    }
}

#[test]
fn secondary_eni_in_an_excluded_subnet_goes_back() {
    let mut ec2 = two_subnets();
    ec2.subnet("subnet-1").facts.free_addresses = Some(90_000);
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(1, 0));
    node.settle();
    for pod in 0..4 {
        node.run_pod(pod);
    }
    node.del(3);
    let subnets = |node: &Node| {
        let view = node.view();
        view.enis.iter().map(|eni| eni.subnet.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(subnets(&node), [SUBNET, "subnet-1"]);
    node.ec2.subnet("subnet-1").facts.tags.insert(ROLE.to_owned(), "0".to_owned());
    node.pass(hours(30));
    assert_eq!(subnets(&node), [SUBNET, SUBNET]);
    // The tag goes, and nothing moves without need.
    node.ec2.subnet("subnet-1").facts.tags.remove(ROLE);
    node.pass(hours(30));
    assert_eq!(subnets(&node), [SUBNET, SUBNET]);
    assert_eq!(node.view().blocked, [""; 0]);
}
