//! The engine reproduces the tables in the documents of amazon-vpc-cni-k8s. Pods are added one by one, and
//! the node settles after each. A forecast gives the same result.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipam::block::BlockKind;
use ipam::forecast::{Forecast, forecast};
use ipam::policy::WarmSettings;
use ipam::view::EniView;

use crate::node::{Node, Setup, limits, policy};

/// A setting as the tables give it: warm ENIs, warm prefixes, or warm and minimum addresses.
#[derive(Debug, Clone, Copy)]
enum Setting {
    Eni(u16),
    Prefix(u16),
    Ip(u32, u32),
}

fn policy_of(setting: Setting) -> Setup {
    let unset = WarmSettings { warm_eni: 0, warm_ip: 0, minimum_ip: 0, warm_prefix: 0 };
    match setting {
        Setting::Eni(warm_eni) => policy(BlockKind::V4Address, WarmSettings { warm_eni, ..unset }),
        Setting::Prefix(warm_prefix) => {
            policy(BlockKind::V4Prefix, WarmSettings { warm_prefix, ..unset })
        }
        Setting::Ip(warm_ip, minimum_ip) => {
            policy(BlockKind::V4Address, WarmSettings { warm_ip, minimum_ip, ..unset })
        }
    }
}

/// A settled node with `pods` pods that were added one by one.
fn grow(instance_type: &str, policy: Setup, pods: usize) -> Node {
    let mut node = Node::settled(limits(instance_type), policy);
    for pod in 0..pods {
        node.run_pod(pod);
    }
    node
}

/// Checks one row for single addresses, and that the node then rests.
fn check(instance_type: &str, setting: Setting, pods: usize, per_eni: &[usize]) {
    let mut node = grow(instance_type, policy_of(setting), pods);
    let row = format!("{instance_type} {setting:?} with {pods} pods");
    assert_eq!(node.ec2.n_blocks(), per_eni, "{row}");
    check_forecast(&node, pods, &row);
    let counts = node.counts();
    assert_eq!(counts.total, per_eni.iter().sum::<usize>() as u64, "{row}");
    assert_eq!(counts.free, counts.total - pods as u64, "{row}");
    check_rest(&mut node, &row);
}

/// Checks that a forecast shows the node's blocks and calls.
fn check_forecast(node: &Node, pods: usize, row: &str) -> Forecast {
    let forecast =
        forecast(node.boot.limits, node.boot.policy.clone(), u32::try_from(pods).unwrap());
    let on_node = |eni: &EniView| {
        let mut pods: Vec<_> = eni.blocks.values().map(|block| block.assigned.len()).collect();
        pods.sort_by_key(|n| Reverse(*n));
        pods
    };
    let on_node: Vec<_> = node.view().enis.iter().map(on_node).collect();
    let expected: Vec<_> = forecast.enis.iter().map(|eni| eni.pods_per_block.clone()).collect();
    assert_eq!(expected, on_node, "{row}");
    assert_eq!(forecast.n_unused(), node.counts().free, "{row}");
    let mut calls = BTreeMap::new();
    for call in &node.ec2.calls {
        *calls.entry(call.action()).or_default() += 1;
    }
    assert_eq!((&forecast.calls, &forecast.unplaced), (&calls, &None), "{row}");
    forecast
}

/// Checks that the node makes no call and writes nothing in the next hour.
fn check_rest(node: &mut Node, row: &str) {
    let (n_calls, n_log) = (node.ec2.calls.len(), node.log.len());
    node.pass(std::time::Duration::from_secs(3600));
    assert_eq!(
        (node.ec2.calls.len(), node.log.len()),
        (n_calls, n_log),
        "{row}: the node is not at rest"
    );
}

#[test]
fn eni_and_ip_target_table_holds() {
    let small = "t3.small";
    check(small, Setting::Eni(1), 0, &[3]);
    check(small, Setting::Eni(1), 5, &[3, 3, 3]);
    check(small, Setting::Eni(1), 9, &[3, 3, 3]);
    check(small, Setting::Ip(1, 1), 0, &[1]);
    check(small, Setting::Ip(1, 1), 5, &[3, 3]);
    check(small, Setting::Ip(1, 1), 9, &[3, 3, 3]);
    check(small, Setting::Ip(2, 5), 0, &[3, 2]);
    check(small, Setting::Ip(2, 5), 5, &[3, 3, 1]);
    check(small, Setting::Ip(2, 5), 9, &[3, 3, 3]);
    let large = "p3dn.24xlarge";
    check(large, Setting::Eni(1), 0, &[49]);
    check(large, Setting::Eni(1), 3, &[49, 49]);
    check(large, Setting::Eni(1), 95, &[49, 49, 49]);
    check(large, Setting::Ip(5, 10), 0, &[10]);
    check(large, Setting::Ip(5, 10), 7, &[12]);
    check(large, Setting::Ip(5, 10), 15, &[20]);
    check(large, Setting::Ip(5, 10), 45, &[49, 1]);
}

#[test]
fn further_values_of_the_formulas_hold() {
    for (warm, pods, per_eni) in [
        (0, 0, &[9][..]),
        (0, 5, &[9]),
        (0, 9, &[9, 9]),
        (1, 0, &[9]),
        (1, 5, &[9, 9]),
        (2, 0, &[9, 9]),
        (2, 5, &[9, 9, 9]),
    ] {
        check("m5.large", Setting::Eni(warm), pods, per_eni);
    }
    for (warm, pods, per_eni) in [
        (1, 0, &[1][..]),
        (1, 10, &[11]),
        (1, 20, &[14, 7]),
        (5, 0, &[5]),
        (5, 10, &[14, 1]),
        (5, 20, &[14, 11]),
        (10, 0, &[10]),
        (10, 10, &[14, 6]),
        (10, 20, &[14, 14, 2]),
    ] {
        check("m5.xlarge", Setting::Ip(warm, 0), pods, per_eni);
    }
}

/// One row of the prefix table.
struct Row {
    instance_type: &'static str,
    setting: Setting,
    pods: usize,
    pods_per_eni: &'static [usize],
    pods_per_prefix: &'static [usize],
    prefixes_per_eni: &'static [usize],
    unused_prefixes: usize,
    unused_ips: u64,
    /// The document's text where it contradicts its own rules. By those, a new ENI comes only when the others
    /// are full of prefixes, and a minimum of 20 addresses takes two prefixes.
    document_says: Option<&'static str>,
}

const SMALL: &str = "t3.small";
const LARGE: &str = "p3dn.24xlarge";

#[rustfmt::skip]
const PREFIX_TABLE: [Row; 20] = [
    row(SMALL, Setting::Prefix(1), 0, &[0], &[0], &[1], 1, 16),
    row(SMALL, Setting::Prefix(1), 5, &[5], &[5, 0], &[2], 1, 27),
    row(SMALL, Setting::Prefix(1), 16, &[16], &[16, 0], &[2], 1, 16),
    row(SMALL, Setting::Prefix(1), 17, &[17], &[16, 1, 0], &[3], 1, 31),
    row(SMALL, Setting::Prefix(1), 58, &[48, 10], &[16, 16, 16, 10, 0], &[3, 2], 1, 22),
    row(SMALL, Setting::Ip(1, 1), 0, &[0], &[0], &[1], 1, 16),
    row(SMALL, Setting::Ip(1, 1), 5, &[5], &[5], &[1], 0, 11),
    row(SMALL, Setting::Ip(1, 1), 17, &[17], &[16, 1], &[2], 0, 15),
    row(SMALL, Setting::Ip(1, 1), 58, &[48, 10], &[16, 16, 16, 10], &[3, 1], 0, 6),
    row(SMALL, Setting::Ip(7, 20), 0, &[0], &[0, 0], &[2], 2, 32)
        .although("1 prefix attached, 1 unused, 16 unused addresses, but 2 on the ENI"),
    row(SMALL, Setting::Ip(7, 20), 5, &[5], &[5, 0], &[2], 1, 27),
    row(SMALL, Setting::Ip(7, 20), 17, &[17], &[16, 1], &[2], 0, 15),
    row(SMALL, Setting::Ip(7, 20), 58, &[48, 10], &[16, 16, 16, 10, 0], &[3, 2], 1, 22),
    row(LARGE, Setting::Prefix(1), 0, &[0], &[0], &[1], 1, 16),
    row(LARGE, Setting::Prefix(1), 3, &[3], &[3, 0], &[2], 1, 29)
        .although("2 ENIs, with prefixes 2,0"),
    row(LARGE, Setting::Prefix(1), 95, &[95], &[16, 16, 16, 16, 16, 15, 0], &[7], 1, 17)
        .although("3 ENIs, with prefixes 7,0,0"),
    row(LARGE, Setting::Ip(5, 10), 0, &[0], &[0], &[1], 1, 16),
    row(LARGE, Setting::Ip(5, 10), 7, &[7], &[7], &[1], 0, 9),
    row(LARGE, Setting::Ip(5, 10), 15, &[15], &[15, 0], &[2], 1, 17),
    row(LARGE, Setting::Ip(5, 10), 45, &[45], &[16, 16, 13, 0], &[4], 1, 19)
        .although("2 ENIs, with prefixes 4,0"),
];

#[expect(clippy::too_many_arguments, reason = "the arguments are the columns of a table")]
const fn row(
    instance_type: &'static str,
    setting: Setting,
    pods: usize,
    pods_per_eni: &'static [usize],
    pods_per_prefix: &'static [usize],
    prefixes_per_eni: &'static [usize],
    unused_prefixes: usize,
    unused_ips: u64,
) -> Row {
    Row {
        instance_type,
        setting,
        pods,
        pods_per_eni,
        pods_per_prefix,
        prefixes_per_eni,
        unused_prefixes,
        unused_ips,
        document_says: None,
    }
}

impl Row {
    const fn although(mut self, document_says: &'static str) -> Self {
        self.document_says = Some(document_says);
        self
    }
}

#[test]
fn prefix_and_ip_target_table_holds() {
    for row in &PREFIX_TABLE {
        let policy = Setup { kind: BlockKind::V4Prefix, ..policy_of(row.setting) };
        let mut node = grow(row.instance_type, policy, row.pods);
        let name = format!(
            "{} {:?} with {} pods (the document: {})",
            row.instance_type,
            row.setting,
            row.pods,
            row.document_says.unwrap_or("the same")
        );
        assert_eq!(node.ec2.n_blocks(), row.prefixes_per_eni, "{name}");
        let forecast = check_forecast(&node, row.pods, &name);
        let enis = &forecast.enis;
        assert_eq!(enis.iter().map(|e| e.n_pods()).collect::<Vec<_>>(), row.pods_per_eni, "{name}");
        let pods_per_prefix: Vec<_> =
            enis.iter().flat_map(|e| &e.pods_per_block).copied().collect();
        assert_eq!(pods_per_prefix, row.pods_per_prefix, "{name}");
        let unused = pods_per_prefix.iter().filter(|n| **n == 0).count();
        assert_eq!((unused, forecast.n_unused()), (row.unused_prefixes, row.unused_ips), "{name}");
        check_rest(&mut node, &name);
    }
    let contradictions = PREFIX_TABLE.iter().filter(|row| row.document_says.is_some());
    assert_eq!(contradictions.count(), 4);
}
