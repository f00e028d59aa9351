//! What the view shows of subnets.

use ipam::block::BlockKind;
use ipam::policy::WarmSettings;
use ipam::view::SubnetRoom;

use crate::ec2::{Ec2, SUBNET};
use crate::node::{Node, limits, policy};

#[test]
fn view_shows_the_room_of_subnets_for_pods() {
    let mut ec2 = Ec2::new(limits("m5.large"));
    ec2.add_subnet("subnet-1", 1, &[("kubernetes.io/role/cni", "1")]);
    ec2.add_subnet("subnet-2", 2, &[]);
    ec2.subnet("subnet-1").facts.free_addresses = Some(1_000);
    ec2.subnet(SUBNET).facts.free_addresses = Some(100);
    ec2.subnet(SUBNET).n_prefixes = 0;
    let warm = WarmSettings { warm_eni: 0, warm_ip: 0, minimum_ip: 0, warm_prefix: 1 };
    let mut node = Node::start_with(ec2, limits("m5.large"), policy(BlockKind::V4Prefix, warm));
    assert!(node.view().subnets.is_empty(), "EC2 has described nothing yet");
    node.settle();
    let view = node.view();
    let ids: Vec<_> = view.subnets.keys().map(|id| id.as_str()).collect();
    assert_eq!(ids, [SUBNET, "subnet-1"], "no ENI goes to subnet-2");
    let of = |id: &str| -> SubnetRoom {
        *view.subnets.iter().find(|(subnet, _)| subnet.as_str() == id).unwrap().1
    };
    // The primary ENI's subnet has refused a prefix and granted single addresses.
    let (refusing, other) = (of(SUBNET), of("subnet-1"));
    assert_eq!((refusing.described, refusing.free_prefixes), (100, 0));
    assert_eq!((other.described, other.described_at), (1_000, refusing.described_at));
    assert_eq!(other.free_prefixes, other.free_addresses / 16);
    let held: u64 = view.counts.total;
    let left = u64::from(refusing.free_addresses + other.free_addresses);
    assert_eq!(1_100 - left, held, "what this node has got since is subtracted");
}
