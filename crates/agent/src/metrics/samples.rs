//! A pool for tests of what is shown of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::block::{Block, BlockKind};
use ipam::call::Action;
use ipam::id::{EniId, SubnetId};
use ipam::time::Timestamp;
use ipam::view::{
    BlockUse, Capacity, Changes, Counts, EniStage, EniView, FamilyView, ForeignReason, PoolView,
    SubnetRoom,
};

fn subnet_id(id: &str) -> SubnetId {
    SubnetId::try_from(id).unwrap()
}

fn subnet() -> SubnetRoom {
    let described_at = Timestamp::from_millis(1_000);
    SubnetRoom { free_addresses: 200, free_prefixes: 12, described: 210, described_at }
}

pub(crate) fn eni_id(id: &str) -> EniId {
    EniId::try_from(id).unwrap()
}

fn block(cidr: &str) -> Block {
    Block::try_from(cidr.parse::<ipnet::IpNet>().unwrap()).unwrap()
}

pub(crate) fn eni(id: &str, stage: EniStage, blocks: &[(&str, &[&str])]) -> EniView {
    let block_use = |used: &[&str]| BlockUse {
        assigned: used.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..BlockUse::default()
    };
    EniView {
        id: eni_id(id),
        device_index: Some(1),
        network_card: 0,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        subnet: subnet_id("subnet-1"),
        primary_address: [10, 0, 0, 4].into(),
        primary: false,
        stage,
        blocks: blocks.iter().map(|(cidr, used)| (block(cidr), block_use(used))).collect(),
        delegated: BTreeSet::new(),
        subnet_cidr: None,
        is_excluded: false,
    }
}

pub(crate) fn view() -> PoolView {
    let prefix = ("10.0.0.16/28", &["10.0.0.17", "10.0.0.18"][..]);
    PoolView {
        kind: BlockKind::V4Prefix,
        limits: ipam::policy::Limits { enis: 3, addresses_per_eni: 10, prefixes: true },
        changes: Changes::Cordoned,
        enis: vec![
            eni("eni-1", EniStage::Ready, &[prefix, ("10.0.0.9/32", &["10.0.0.9"])]),
            eni("eni-2", EniStage::Linking, &[]),
        ],
        foreign: [
            (eni_id("eni-7"), ForeignReason::Kind),
            (eni_id("eni-8"), ForeignReason::NoManageTag),
            (eni_id("eni-9"), ForeignReason::NoManageTag),
        ]
        .into(),
        unused_blocks: [block("10.0.0.77/32")].into(),
        assignments: BTreeMap::new(),
        quarantined: [([10, 0, 0, 18].into(), "eni5".to_owned())].into(),
        sandboxes: Some(5),
        host_addresses: [([10, 0, 0, 9].into(), "ens5".to_owned())].into(),
        lost: [
            ([10, 0, 0, 91].into(), eni_id("eni-1")),
            ([10, 0, 0, 92].into(), eni_id("eni-3")),
            ([10, 0, 0, 93].into(), eni_id("eni-3")),
        ]
        .into(),
        other_groups: [(eni_id("eni-2"), BTreeSet::new())].into(),
        refuted_hints: [
            (eni_id("eni-1"), [block("10.0.0.9/32"), block("10.0.0.8/32")].into()),
            (eni_id("eni-2"), [block("10.0.0.7/32")].into()),
        ]
        .into(),
        counts: Counts {
            total: 17,
            assigned: 3,
            free: 13,
            quarantined: 1,
            delegated: 2,
            expected: 6,
            ..Counts::default()
        },
        second: Some(FamilyView {
            kind: BlockKind::V6Prefix,
            counts: Counts { assigned: 2, cooling: 5, ..Counts::default() },
        }),
        eni_config: None,
        capacity: Capacity { enis: 2, addresses: 288, pods: 110 },
        subnets: [(subnet_id("subnet-1"), subnet())].into(),
        held_back: [
            (Action::CreateEni, Duration::from_millis(2_500)),
            (Action::SetSecurityGroups, Duration::from_secs(1)),
            (Action::SetDeleteOnTermination, Duration::from_secs(4)),
        ]
        .into(),
        in_flight: Vec::new(),
        blocked: vec!["ENI_LIMIT: full".to_owned()],
    }
}
