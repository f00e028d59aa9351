//! An instance that comes with what its launch asked for: addresses, prefixes, a second ENI. Nothing of it has our tags,
//! and there is no record. What covers the targets costs no call that changes anything.

use std::time::Duration;

use ipam::block::{BlockCount, BlockKind};
use ipam::call::Ec2Call;
use ipam::policy::WarmSettings;

use crate::ec2::{Ec2, PRIMARY, eni_id};
use crate::node::{Node, Setup, limits, policy, warm_ip};

const HOUR: Duration = Duration::from_secs(3600);

/// A first start on an m5.large with these blocks on the primary ENI, and on a second one if that is not `None`.
fn launched(policy: Setup, primary: BlockCount, second: Option<BlockCount>) -> Node {
    let limits = limits("m5.large");
    let mut ec2 = Ec2::new(limits);
    let second = second.map(|blocks| (ec2.attach_foreign(1, &[]), blocks));
    for (eni, blocks) in std::iter::once((eni_id(PRIMARY), primary)).chain(second) {
        if blocks.n > 0 {
            ec2.execute(&Ec2Call::Assign { eni, blocks }).unwrap();
        }
    }
    ec2.calls.clear();
    let mut node = Node::start_with(ec2, limits, policy);
    node.settle();
    node
}

fn prefixes(warm: u16) -> Setup {
    policy(BlockKind::V4Prefix, WarmSettings { warm_prefix: warm, ..WarmSettings::default() })
}

#[test]
fn launch_that_covers_the_targets_costs_no_change() {
    let (single, prefix) = (BlockKind::V4Address, BlockKind::V4Prefix);
    let check = |policy: Setup, primary, second, free: u64| {
        let mut node = launched(policy, primary, second);
        for span in [Duration::ZERO, Duration::from_secs(60), HOUR] {
            node.pass(span);
            assert_eq!(node.ec2.n_mutating(), 0, "{span:?}: {:?}", node.ec2.calls);
        }
        assert_eq!(node.counts().free, free);
        for pod in 0..usize::try_from(free.min(20)).unwrap() {
            node.run_pod(pod);
        }
    };
    check(warm_ip(3, 0), single.times(3), None, 3);
    check(warm_ip(0, 9), single.times(9), None, 9);
    check(warm_ip(12, 0), single.times(9), Some(single.times(3)), 12);
    check(prefixes(1), prefix.times(1), None, 16);
    check(prefixes(2), prefix.times(1), Some(prefix.times(1)), 32);
    let ipv6 = policy(BlockKind::V6Prefix, WarmSettings::default());
    check(ipv6, BlockKind::V6Prefix.times(1), None, 1 << 48);
}

/// The first pods need not wait for the second describe that confirms what the first has shown.
#[test]
fn target_above_the_launch_is_filled_by_what_is_missing() {
    let mut node = launched(warm_ip(5, 0), BlockKind::V4Address.times(3), None);
    node.pass(HOUR);
    let missing = Ec2Call::Assign { eni: eni_id(PRIMARY), blocks: BlockKind::V4Address.times(2) };
    let changes: Vec<_> = node.ec2.calls.iter().filter(|call| **call == missing).collect();
    assert_eq!((changes.len(), node.ec2.n_mutating()), (1, 1), "{:?}", node.ec2.calls);
    assert_eq!(node.counts().free, 5);
}

/// Blocks of the launch go back like all others. The ENI stays, since it has no tag of ours.
#[test]
fn surplus_of_the_launch_goes_back_and_its_eni_stays() {
    let single = BlockKind::V4Address;
    let mut node = launched(warm_ip(1, 0), single.times(4), Some(single.times(4)));
    node.pass(24 * HOUR);
    assert_eq!(node.counts().free, 1);
    assert_eq!(node.ec2.n_attached(), 2);
    let unassigns = node.ec2.calls.iter().filter(|call| matches!(call, Ec2Call::Unassign { .. }));
    assert_eq!(unassigns.count(), node.ec2.n_mutating(), "{:?}", node.ec2.calls);
}
