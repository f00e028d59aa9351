//! The strategies of the property tests: every combination of targets, kinds, limits and subnets.

use std::time::Duration;

use ipam::block::{BlockKind, Family};
use ipam::policy::{Limits, Targets, WarmSettings};
use proptest::prelude::*;
use proptest::sample::select;

use crate::ec2::{Ec2, SUBNET};
use crate::node::{Setup, policy};

/// Another subnet that new ENIs may go to.
pub(crate) const TAGGED_SUBNET: &str = "subnet-1";

/// The number of cases in `PROPTEST_CASES` (256 if it is not set), divided by `cost`.
pub(crate) fn cases_of_cost(cost: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.div_ceil(cost), ..config }
}

/// Targets from the four settings as a user may write them, zeros and absurd values included. Some targets
/// come from no settings.
pub(crate) fn targets(kind: BlockKind) -> impl Strategy<Value = Targets> {
    let units = || prop_oneof![3 => 0..3_u16, 1 => select(vec![7, 50, u16::MAX])];
    let addresses = || {
        prop_oneof![
            3 => Just(0),
            4 => 1..20_u32,
            1 => select(vec![33, 100, 70_000, u32::MAX]),
        ]
    };
    let written = (units(), addresses(), addresses(), units()).prop_map(
        move |(warm_eni, warm_ip, minimum_ip, warm_prefix)| {
            Targets::resolve(kind, WarmSettings { warm_eni, warm_ip, minimum_ip, warm_prefix })
        },
    );
    prop_oneof![
        8 => written,
        1 => Just(Targets::Ip { warm: 0, minimum: 0 }),
        1 => units().prop_map(Targets::WarmEni),
        1 => units().prop_map(Targets::WarmPrefix),
    ]
}

pub(crate) fn policies(kinds: Vec<BlockKind>) -> impl Strategy<Value = Setup> {
    let span = |seconds: [u64; 3]| select(seconds.map(Duration::from_secs).to_vec());
    let bounds = (
        select(vec![None, None, None, Some(0), Some(1), Some(2), Some(100)]),
        select(vec![0, 1, 4, 11, 29, 110, 737, u32::MAX]),
    );
    let spans = (span([0, 5, 30]), span([0, 1, 30]), span([0, 10, 60]));
    let targets = select(kinds).prop_flat_map(|kind| targets(kind).prop_map(move |t| (kind, t)));
    let egress = select(vec![None, Some(Family::V4), Some(Family::V6)]);
    (targets, bounds, spans, egress).prop_map(
        |((kind, targets), (max_enis, max_pods), (cooldown, shrink_delay, min_eni_age), egress)| {
            Setup {
                egress,
                targets,
                max_enis,
                max_pods,
                cooldown,
                shrink_delay,
                min_eni_age,
                leak_age: Some(Duration::from_secs(3600)),
                ..policy(kind, WarmSettings::default())
            }
        },
    )
}

/// Limits from the smallest instances to the largest, sometimes without prefixes.
pub(crate) fn instance_limits() -> impl Strategy<Value = Limits> {
    let sizes = select(vec![(2, 2), (2, 4), (3, 4), (3, 4), (3, 10), (4, 15), (15, 50)]);
    let prefixes = prop_oneof![7 => Just(true), 1 => Just(false)];
    (sizes, prefixes).prop_map(|((enis, addresses_per_eni), prefixes)| Limits {
        enis,
        addresses_per_eni,
        prefixes,
    })
}

/// The free blocks of a subnet: single addresses and prefixes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreeBlocks {
    n_addresses: u16,
    n_prefixes: u16,
}

impl FreeBlocks {
    pub(crate) const PLENTY: Self = Self { n_addresses: 10_000, n_prefixes: 2_000 };

    pub(crate) fn put(self, ec2: &mut Ec2, subnet: &str) {
        let subnet = ec2.subnet(subnet);
        (subnet.n_addresses, subnet.n_prefixes) = (self.n_addresses, self.n_prefixes);
    }
}

/// Plenty, nothing, only single addresses (a fragmented subnet), only prefixes (a reservation holds the
/// rest), or a few of each.
pub(crate) fn free_blocks() -> impl Strategy<Value = FreeBlocks> {
    prop_oneof![
        3 => Just(FreeBlocks::PLENTY),
        1 => Just(FreeBlocks { n_addresses: 0, n_prefixes: 0 }),
        1 => (1..200_u16).prop_map(|n_addresses| FreeBlocks { n_addresses, n_prefixes: 0 }),
        1 => (1..10_u16).prop_map(|n_prefixes| FreeBlocks { n_addresses: 0, n_prefixes }),
        2 => (0..20_u16, 0..4_u16)
            .prop_map(|(n_addresses, n_prefixes)| FreeBlocks { n_addresses, n_prefixes }),
    ]
}

/// An EC2 whose primary subnet has the free blocks `first`. A second, tagged subnet has `second`.
pub(crate) fn ec2(limits: Limits, first: FreeBlocks, second: Option<FreeBlocks>) -> Ec2 {
    let mut ec2 = Ec2::new(limits);
    first.put(&mut ec2, SUBNET);
    if let Some(free_blocks) = second {
        ec2.add_subnet(TAGGED_SUBNET, 1, &[("kubernetes.io/role/cni", "1")]);
        free_blocks.put(&mut ec2, TAGGED_SUBNET);
    }
    ec2
}
