//! The tables in the documents of amazon-vpc-cni-k8s. Both strategies match them when pods come one
//! by one and everything settles, with EC2's throttling and delays.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::policy::{
    Families, FamilyPolicy, Placement, Policy, Provisioning, Targets, Timing, WarmSettings,
};
use lab::spec::{NodeSpec, Subnet, VpcSpec};
use lab::trace::{TraceAction, TraceStep};
use lab::{PodStart, Setup, Strategy, run};

/// A setting of the tables: warm ENIs or prefixes, warm addresses, minimum addresses.
#[derive(Debug, Clone, Copy)]
enum Setting {
    Eni(u16),
    Prefix(u16),
    Ip(u32, u32),
}

fn policy(kind: BlockKind, setting: Setting) -> Policy {
    let targets = match setting {
        Setting::Eni(warm) => Targets::WarmEni(warm),
        Setting::Prefix(warm) => Targets::WarmPrefix(warm),
        Setting::Ip(warm, minimum) => Targets::Ip { warm, minimum },
    };
    let family = FamilyPolicy::new(kind, WarmSettings::default());
    Policy {
        families: Families::single(FamilyPolicy { targets, ..family }),
        placement: Placement::LikePrimary,
        provisioning: Provisioning::Always,
        max_enis: None,
        max_pods: 737,
        delegated_prefixes: None,
        connection_tracking: ipam::connection_tracking::ConnectionTracking::default(),
        mtu: 9001,
        pod_ipv6: ipam::record::PodIpv6::AsItIs,
        nat: ipam::policy::NatPolicy::default(),
        timing: Timing {
            cooldown: Duration::from_secs(30),
            add_wait: Duration::from_secs(15),
            grow_delay: Duration::ZERO,
            shrink_delay: Duration::from_secs(30),
            min_eni_age: Duration::from_secs(60),
            leak_age: None,
        },
    }
}

/// Checks one row: the blocks on each ENI with this number of pods, for both strategies.
fn check(instance_type: &str, kind: BlockKind, setting: Setting, pods: u32, per_eni: &[u16]) {
    let gap = Duration::from_secs(60);
    let create = |n| TraceStep { at: gap * n, action: TraceAction::Create { pods: 1, life: None } };
    let setup = Setup {
        vpc: VpcSpec::realistic(vec![Subnet::for_nodes("10.0.0.0/16".parse().unwrap())]),
        node_specs: vec![NodeSpec {
            instance_type: instance_type.to_owned(),
            policy: policy(kind, setting),
        }],
        nodes: 1,
        warm_up: Duration::from_secs(300),
        trace: (0..pods).map(create).collect(),
        lasts: gap * pods + Duration::from_secs(300),
        seed: 1,
        start: PodStart::default(),
    };
    for strategy in Strategy::ALL {
        let row = format!("{} {instance_type} {kind:?} {setting:?} {pods}", strategy.as_str());
        let outcome = run(&setup, strategy).unwrap();
        assert_eq!(outcome.blocks, [per_eni], "{row}");
        assert_eq!(outcome.score.pods.served, u64::from(pods), "{row}");
        assert_eq!(outcome.score.failed_adds.len(), 0, "{row}: {:?}", outcome.score.failed_adds);
    }
}

#[test]
fn secondary_mode_matches_documented_table() {
    let check = |instance_type, setting, pods, per_eni: &[u16]| {
        check(instance_type, BlockKind::V4Address, setting, pods, per_eni);
    };
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

/// The expectations follow the rules, even where rows of the document contradict them (t3.small
/// with 7/20 and no pod; p3dn.24xlarge with 3, 95 and 45 pods).
#[test]
fn prefix_mode_matches_documented_table() {
    let check = |instance_type, setting, pods, per_eni: &[u16]| {
        check(instance_type, BlockKind::V4Prefix, setting, pods, per_eni);
    };
    let small = "t3.small";
    check(small, Setting::Prefix(1), 0, &[1]);
    check(small, Setting::Prefix(1), 5, &[2]);
    check(small, Setting::Prefix(1), 16, &[2]);
    check(small, Setting::Prefix(1), 17, &[3]);
    check(small, Setting::Prefix(1), 58, &[3, 2]);
    check(small, Setting::Ip(1, 1), 0, &[1]);
    check(small, Setting::Ip(1, 1), 5, &[1]);
    check(small, Setting::Ip(1, 1), 17, &[2]);
    check(small, Setting::Ip(1, 1), 58, &[3, 1]);
    check(small, Setting::Ip(7, 20), 0, &[2]);
    check(small, Setting::Ip(7, 20), 5, &[2]);
    check(small, Setting::Ip(7, 20), 17, &[2]);
    check(small, Setting::Ip(7, 20), 58, &[3, 2]);
    let large = "p3dn.24xlarge";
    check(large, Setting::Prefix(1), 0, &[1]);
    check(large, Setting::Prefix(1), 3, &[2]);
    check(large, Setting::Prefix(1), 95, &[7]);
    check(large, Setting::Ip(5, 10), 0, &[1]);
    check(large, Setting::Ip(5, 10), 7, &[1]);
    check(large, Setting::Ip(5, 10), 15, &[2]);
    check(large, Setting::Ip(5, 10), 45, &[4]);
}
