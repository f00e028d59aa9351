//! The pool grows at once, shrinks after a delay, and then rests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{Ec2Call, EniFacts};
use ipam::event::Event;
use ipam::policy::{Targets, WarmSettings};

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, security_groups, subnet_id};
use crate::node::{INSTANCE, Node, Setup, limits, policy, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn burst_is_requested_at_once_and_in_parallel() {
    let mut node = Node::start(limits("m5.xlarge"), warm_ip(0, 0));
    for pod in 0..40 {
        node.add(pod);
    }
    node.end_call(0);
    node.end_call(0);
    node.save_all();
    let expect = [
        "AssignPrivateIpAddresses 14 addresses to eni-0000",
        "CreateNetworkInterface in subnet-0 with 14 addresses",
        "CreateNetworkInterface in subnet-0 with 12 addresses",
    ];
    assert_eq!(node.under_way(), expect);
    node.settle();
    assert_eq!(node.counts().assigned, 40);
    // Two describes, one Assign, and three calls for each new ENI: no later call asks for more.
    assert_eq!(node.ec2.calls.len(), 2 + 1 + 3 * 2);
}

#[test]
fn new_eni_carries_all_its_marks() {
    let mut node = Node::start(limits("t3.small"), warm_ip(5, 0));
    let groups = security_groups(&["sg-2", "sg-3"]);
    node.ec2.enis.get_mut(&eni_id(PRIMARY)).unwrap().security_groups = groups.clone();
    node.boot.node.eni_tags = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    node.restart();
    node.settle();
    let create = node.ec2.calls.iter().find(|call| matches!(call, Ec2Call::CreateEni { .. }));
    let Some(Ec2Call::CreateEni {
        subnet,
        security_groups,
        connection_tracking,
        blocks,
        description,
        tags,
        client_token,
    }) = create
    else {
        panic!("no ENI is made");
    };
    assert_eq!((subnet, *blocks), (&subnet_id(SUBNET), BlockKind::V4Address.times(2)));
    assert_eq!(security_groups, &groups);
    assert!(connection_tracking.is_default());
    assert_eq!(description, &format!("aws-K8S-{INSTANCE}"));
    assert!(client_token.starts_with(INSTANCE) && client_token.len() <= 64, "{client_token}");
    let tags: Vec<_> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let expect = [
        "cluster.k8s.amazonaws.com/name=mine",
        "eks:eni:owner=amazon-vpc-cni",
        "node.k8s.amazonaws.com/createdAt=1970-01-01T00:16:40Z",
        "node.k8s.amazonaws.com/instance_id=i-0123456789abcdef0",
        "team=blue",
    ];
    assert_eq!(tags, expect);
}

/// New ENIs copy subnet and groups from the primary ENI, whatever other ENIs have.
#[test]
fn new_eni_copies_the_primary_as_last_described() {
    let mut ec2 = Ec2::new(limits("m5.xlarge"));
    ec2.add_subnet("subnet-1", 1, &[]);
    ec2.attach_foreign(1, &[("node.k8s.amazonaws.com/no_manage", "true")]);
    let primary = ec2.enis.remove(&eni_id(PRIMARY)).unwrap();
    let mut node = Node::start_with(ec2, limits("m5.xlarge"), warm_ip(5, 0));
    node.add(0);
    node.settle();
    assert_eq!(node.ec2.n_mutating(), 0, "{:?}", node.ec2.calls);

    for (groups, pods) in [(["sg-2", "sg-3"], 0..20), (["sg-3", "sg-4"], 20..34)] {
        let security_groups = security_groups(&groups);
        let enis = &mut node.ec2.enis;
        let template = enis.remove(&eni_id(PRIMARY)).unwrap_or_else(|| primary.clone());
        let template = EniFacts { subnet: subnet_id("subnet-1"), security_groups, ..template };
        enis.insert(eni_id(PRIMARY), template.clone());
        node.pass(secs(26 * 3600));
        node.ec2.calls.clear();
        for pod in pods {
            node.run_pod(pod);
        }
        let made = node.ec2.calls.iter().find_map(|call| match call {
            Ec2Call::CreateEni { subnet, security_groups, .. } => Some((subnet, security_groups)),
            _ => None,
        });
        assert_eq!(made, Some((&template.subnet, &template.security_groups)));
    }
}

#[test]
fn surplus_goes_back_after_its_delay() {
    let mut node = Node::settled(limits("p3dn.24xlarge"), warm_ip(5, 10));
    for pod in 0..60 {
        node.run_pod(pod);
    }
    assert_eq!(node.ec2.n_blocks(), [49, 16]);
    node.pass(secs(3600));
    node.ec2.calls.clear();
    for pod in 0..60 {
        node.del(pod);
    }
    // 30 s of cooldown, then 30 s of surplus.
    node.pass(secs(59));
    assert_eq!(node.ec2.calls, []);
    node.pass(secs(2));
    let calls = |node: &Node| node.ec2.calls.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(calls(&node), ["UnassignPrivateIpAddresses 39 blocks of eni-0000"]);
    // A whole ENI costs more calls, so it stays for 300 s.
    node.pass(secs(268));
    assert_eq!(node.ec2.n_blocks(), [10, 16]);
    node.pass(secs(2));
    assert_eq!(calls(&node)[1..], ["DetachNetworkInterface eni-0001"]);
    node.pass(secs(5));
    assert_eq!(calls(&node)[2..], ["DeleteNetworkInterface eni-0001"]);
    assert_eq!(node.ec2.n_blocks(), [10]);
    node.pass(secs(3600));
    assert_eq!(node.ec2.calls.len(), 3, "then the node rests");
    assert_eq!(node.record().cooling().len(), 10, "addresses that went back have left the record");
}

#[test]
fn short_surplus_is_kept() {
    let mut node = Node::settled(limits("m5.xlarge"), warm_ip(2, 0));
    for pod in 0..10 {
        node.run_pod(pod);
    }
    let n_calls = node.ec2.n_mutating();
    for round in 0..20 {
        for pod in 0..4 {
            node.del(100 * round + pod);
            node.del(pod);
        }
        node.pass(secs(45));
        for pod in 0..4 {
            node.run_pod(100 * (round + 1) + pod);
        }
        node.pass(secs(5));
    }
    let n_calls = node.ec2.n_mutating() - n_calls;
    assert!(n_calls <= 2, "{n_calls} calls for 80 pods that came and went");
}

/// The load returns with a period at which it would miss every block that went back.
#[test]
fn periodic_load_makes_ever_fewer_calls() {
    let check = |policy: Setup, most: usize| {
        let mut node = Node::settled(limits("m5.xlarge"), policy.clone());
        let n_calls = node.ec2.n_mutating();
        for round in 0..144 {
            for pod in 0..30 {
                node.run_pod(100 * round + pod);
            }
            node.pass(secs(300));
            for pod in 0..30 {
                node.del(100 * round + pod);
            }
            node.pass(secs(300));
        }
        let n_calls = node.ec2.n_mutating() - n_calls;
        assert!(n_calls <= most, "{n_calls} calls in a day under {:?}", policy.targets);
    };
    check(warm_ip(5, 0), 100);
    check(Setup { targets: Targets::WarmEni(1), ..warm_ip(0, 0) }, 60);
    check(policy(BlockKind::V4Prefix, WarmSettings::default()), 40);
}

#[test]
fn pods_arriving_together_cost_one_call() {
    let delay = Duration::from_millis(50);
    let mut node = Node::settled(
        limits("m5.xlarge"),
        Setup { grow_delay: delay, ..policy(BlockKind::V4Prefix, WarmSettings::default()) },
    );
    node.pass(secs(1));
    let n_calls = node.ec2.n_mutating();
    for pod in 0..46 {
        node.add(pod);
        node.settle();
    }
    assert_eq!(node.ec2.n_mutating(), n_calls);
    node.pass(delay);
    // 30 pods wait for two prefixes, and one more is the warm prefix.
    let last = node.ec2.calls.last().map(ToString::to_string);
    assert_eq!(last.as_deref(), Some("AssignPrivateIpAddresses 3 prefixes to eni-0000"));
    assert_eq!((node.ec2.n_mutating(), node.counts().assigned), (n_calls + 1, 46));
    // No pod waits for the next call, so the call waits ten times as long for more demand.
    for pod in 46..50 {
        node.run_pod(pod);
    }
    node.pass(9 * delay);
    assert_eq!(node.ec2.n_mutating(), n_calls + 1);
    node.pass(delay);
    assert_eq!(node.ec2.n_mutating(), n_calls + 2);
}

#[test]
fn waiting_pod_uses_the_eni_without_a_call_under_way() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    for pod in 0..5 {
        node.run_pod(pod);
    }
    assert_eq!(node.ec2.n_blocks(), [3, 2]);
    node.del(0);
    node.del(1);
    node.pass(secs(59));
    node.now = node.now + secs(1);
    node.send(Event::Tick);
    node.save_all();
    assert_eq!(node.under_way(), ["UnassignPrivateIpAddresses 2 blocks of eni-0000"]);
    node.add(5);
    node.save_all();
    assert_eq!(node.under_way()[1..], ["AssignPrivateIpAddresses 1 addresses to eni-0001"]);
}

#[test]
fn eni_stays_for_its_minimum_age() {
    let policy = Setup { cooldown: secs(0), min_eni_age: secs(400), ..warm_ip(1, 0) };
    let mut node = Node::settled(limits("t3.small"), policy);
    for pod in 0..3 {
        node.run_pod(pod);
    }
    assert_eq!(node.ec2.n_blocks(), [3, 1]);
    for pod in 0..3 {
        node.del(pod);
    }
    node.settle();
    node.pass(secs(399));
    assert_eq!(node.ec2.n_attached(), 2);
    node.pass(secs(310));
    assert_eq!(node.ec2.n_blocks(), [1]);
}

#[test]
fn surplus_goes_back_by_the_rules_of_its_targets() {
    let check = |policy: Setup, peak: &[usize], rest: &[usize]| {
        let mut node = Node::settled(limits("t3.small"), policy.clone());
        let n_pods = if policy.kind == BlockKind::V4Prefix { 60 } else { 5 };
        for pod in 0..n_pods {
            node.run_pod(pod);
        }
        assert_eq!(node.ec2.n_blocks(), peak, "{:?}", policy.targets);
        for pod in 0..n_pods {
            node.del(pod);
        }
        node.pass(secs(600));
        assert_eq!(node.ec2.n_blocks(), rest, "{:?}", policy.targets);
    };
    let settings = |targets, kind| Setup { targets, ..policy(kind, WarmSettings::default()) };
    check(settings(Targets::WarmEni(1), BlockKind::V4Address), &[3, 3, 3], &[3]);
    check(settings(Targets::WarmEni(0), BlockKind::V4Address), &[3, 3], &[3]);
    check(settings(Targets::WarmPrefix(1), BlockKind::V4Prefix), &[3, 2], &[1]);
    check(settings(Targets::WarmPrefix(0), BlockKind::V4Prefix), &[3, 1], &[1]);
    check(settings(Targets::Ip { warm: 1, minimum: 20 }, BlockKind::V4Prefix), &[3, 1], &[2]);
}

#[test]
fn resting_addresses_count_as_used() {
    let mut node = Node::settled(limits("m5.xlarge"), warm_ip(2, 0));
    for round in 0..4 {
        for pod in 0..2 {
            node.run_pod(10 * round + pod);
        }
        for pod in 0..2 {
            node.del(10 * round + pod);
        }
        node.settle();
    }
    assert_eq!(node.counts().cooling, 8, "each pod got a fresh address at once");
    assert_eq!(node.counts().free, 2);
}

/// Three pods have five addresses. One pod goes and another one comes, as the only ones within the hour.
#[test]
fn resting_address_is_supply_for_a_load_known_as_slow() {
    let mut node = Node::settled(limits("m5.xlarge"), warm_ip(2, 0));
    for pod in 0..3 {
        node.run_pod(pod);
    }
    node.pass(Duration::from_secs(3600));
    node.del(0);
    node.settle();
    node.run_pod(3);
    node.settle();
    let counts = node.counts();
    assert_eq!((counts.cooling, counts.free, counts.total), (1, 1, 5), "nothing is bought");
    node.pass(Duration::from_secs(3600));
    assert_eq!((node.counts().free, node.counts().total), (2, 5), "at rest the target holds");
}

#[test]
fn resting_address_is_no_supply_for_as_many_pods_as_come_soon() {
    let mut node = Node::settled(limits("m5.xlarge"), warm_ip(2, 0));
    node.pass(Duration::from_secs(3600));
    for round in 0..4 {
        for pod in 0..2 {
            node.run_pod(10 * round + pod);
        }
        for pod in 0..2 {
            node.del(10 * round + pod);
        }
        node.pass(Duration::from_secs(1));
    }
    let counts = node.counts();
    assert_eq!((counts.cooling, counts.free), (8, 2), "two pods come within each cooldown");
}

#[test]
fn waiting_pod_makes_the_pool_grow_under_any_targets() {
    for kind in [BlockKind::V4Address, BlockKind::V4Prefix] {
        for targets in [
            Targets::Ip { warm: 0, minimum: 0 },
            Targets::Ip { warm: 0, minimum: 2 },
            Targets::WarmEni(0),
            Targets::WarmPrefix(0),
        ] {
            let mut node =
                Node::settled(limits("t3.small"), Setup { kind, targets, ..warm_ip(0, 0) });
            for pod in 0..9 {
                node.run_pod(pod);
            }
        }
    }
}

#[test]
fn max_eni_and_max_pods_bound_the_pool() {
    let pool = |policy: Setup| Node::settled(limits("t3.small"), policy).ec2.n_blocks();
    assert_eq!(pool(Setup { max_enis: Some(2), ..warm_ip(100, 0) }), [3, 3]);
    assert_eq!(pool(Setup { max_enis: Some(9), ..warm_ip(100, 0) }), [3, 3, 3]);
    let warm_enis = Setup { targets: Targets::WarmEni(3), ..warm_ip(0, 0) };
    assert_eq!(pool(warm_enis.clone()), [3, 3, 3]);
    assert_eq!(pool(Setup { max_pods: 4, ..warm_enis }), [3, 3]);
}

#[test]
fn node_with_zero_max_pods_holds_nothing() {
    for kind in [BlockKind::V4Address, BlockKind::V4Prefix, BlockKind::V6Prefix] {
        let policy = Setup { max_pods: 0, ..policy(kind, WarmSettings::default()) };
        let mut node = Node::settled(limits("t3.small"), policy);
        node.pass(secs(3600));
        assert_eq!(node.ec2.n_mutating(), 0, "{kind:?}: {:?}", node.ec2.calls);
    }
}

#[test]
fn two_kinds_of_surplus_on_one_eni_go_back_in_turn() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    (ec2.subnet(SUBNET).n_addresses, ec2.subnet(SUBNET).n_prefixes) = (1, 1);
    let settings = WarmSettings { warm_ip: 1, ..WarmSettings::default() };
    let mut node = Node::start_with(ec2, limits("t3.small"), policy(BlockKind::V4Prefix, settings));
    node.settle();
    for pod in 0..17 {
        node.run_pod(pod);
    }
    node.ec2.subnet(SUBNET).n_prefixes = 1;
    node.pass(secs(600));
    for pod in 17..30 {
        node.run_pod(pod);
    }
    assert_eq!(node.ec2.n_blocks(), [3], "two prefixes and a single address");
    for pod in 0..30 {
        node.del(pod);
    }
    // `Node` panics if both calls are under way at the same time.
    node.pass(secs(600));
    assert_eq!(node.ec2.n_blocks(), [1], "a prefix stays");
}

#[test]
fn instance_without_prefixes_gets_single_addresses() {
    let limits = ipam::policy::Limits { prefixes: false, ..limits("t3.small") };
    let policy = policy(BlockKind::V4Prefix, WarmSettings::default());
    let mut node = Node::settled(limits, policy);
    node.run_pod(0);
    assert_eq!((node.view().kind, node.counts().prefixes), (BlockKind::V4Address, 0));
}

/// The truth table of subnet tags; the cluster is `mine`.
#[test]
fn subnet_tags_decide_where_new_enis_go() {
    const ROLE: &str = "kubernetes.io/role/cni";
    const MINE: &str = "cni.networking.k8s.aws/cluster/mine";
    const OTHER: &str = "cni.networking.k8s.aws/cluster/other";
    let used = |subnet: &str, tags: &[(&str, &str)]| {
        let mut ec2 = Ec2::new(limits("t3.small"));
        if subnet == SUBNET {
            let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            ec2.subnet(SUBNET).facts.tags = tags;
        } else {
            ec2.add_subnet(subnet, 1, tags);
            ec2.subnet(subnet).facts.free_addresses = Some(65_000);
        }
        let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(9, 0));
        node.settle();
        let subnets: BTreeSet<_> =
            node.view().enis.iter().skip(1).map(|e| e.subnet.clone()).collect();
        subnets.contains(&subnet_id(subnet))
    };
    for (tags, expect) in [
        (&[(ROLE, "1")][..], true),
        (&[(ROLE, "1"), (OTHER, "")], false),
        (&[(ROLE, "1"), (MINE, ""), (OTHER, "")], true),
        (&[(MINE, "")], false),
        (&[(ROLE, "0")], false),
        (&[], false),
    ] {
        assert_eq!(used("subnet-1", tags), expect, "another subnet with {tags:?}");
    }
    for (tags, expect) in [
        (&[(ROLE, "1"), (MINE, "any value")][..], true),
        (&[(OTHER, "")], true),
        (&[(MINE, "")], true),
        (&[(ROLE, "0")], false),
        (&[(ROLE, "1"), (OTHER, "")], false),
        (&[], true),
    ] {
        assert_eq!(used(SUBNET, tags), expect, "the node's own with {tags:?}");
    }
}
