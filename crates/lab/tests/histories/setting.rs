//! The state before the first step.

use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_model::Delay;
use ec2_model::Rng;
use ec2_model::config::{AddressChoice, Consistency, Latency, Throttling};
use ipam::block::BlockKind;
use ipam::policy::{
    Families, FamilyPolicy, Needs, Placement, Policy, Provisioning, Timing, WarmSettings,
};
use ipnet::Ipv4Net;
use lab::spec::{Purpose, Subnet, VpcSpec};

use super::metadata::MetadataFault;

/// The number of this random stream.
const STREAM: u64 = 11;
/// The number of the random stream of families. The rest of a setting does not depend on it.
const FAMILIES_STREAM: u64 = 23;

/// The state before the first step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    /// Number of nodes, all in one account and one subnet.
    pub(super) n_nodes: usize,
    /// For example `t3.small`.
    pub(super) instance_type: &'static str,
    /// By how much the daemons overestimate the limits: ENIs, and addresses per ENI.
    pub(super) excess_limits: (u16, u16),
    /// The daemons' policy.
    pub(super) policy: Policy,
    /// Whether each node has a foreign ENI.
    pub(super) foreign_enis: bool,
    /// The fault of the nodes' metadata services.
    pub(super) metadata: MetadataFault,
    /// EC2 and the subnets.
    pub(super) vpc: VpcSpec,
}

impl Setting {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_stream(seed, STREAM);
        let n_nodes = *rng.pick(&[1, 1, 1, 1, 2, 2, 3]);
        let instance_type = *rng.pick(&["t3.small", "t3.small", "t3.small", "t3.nano", "m5.large"]);
        let excess_limits = *rng.pick(&[(0, 0), (0, 0), (0, 0), (1, 0), (0, 2), (2, 3)]);
        let foreign_enis = rng.one_in(6);
        let (policy, vpc) = (policy(&mut rng), vpc(&mut rng));
        let metadata = MetadataFault::of(seed);
        let mut rng = Rng::with_stream(seed, FAMILIES_STREAM);
        let dual = if rng.one_in(3) { dual(&mut rng) } else { None };
        let families = families(policy.families.policy(), dual);
        let policy = Policy { families, ..policy };
        Self { n_nodes, instance_type, excess_limits, policy, foreign_enis, metadata, vpc }
    }
}

fn policy(rng: &mut Rng) -> Policy {
    let kind = *rng.pick(&[BlockKind::V4Address, BlockKind::V4Prefix]);
    let warm = warm_settings(rng);
    let seconds = |rng: &mut Rng, among: &[u64]| Duration::from_secs(*rng.pick(among));
    Policy {
        families: Families::single(FamilyPolicy::new(kind, warm)),
        placement: Placement::LikePrimary,
        provisioning: Provisioning::Always,
        max_enis: max_enis(rng),
        max_pods: *rng.pick(&[1, 4, 11, 29, 110]),
        delegated_prefixes: None,
        connection_tracking: ipam::connection_tracking::ConnectionTracking::default(),
        mtu: 9001,
        pod_ipv6: ipam::record::PodIpv6::AsItIs,
        nat: ipam::policy::NatPolicy::default(),
        timing: Timing {
            cooldown: cooldown(rng),
            add_wait: seconds(rng, &[5, 10, 60]),
            grow_delay: Duration::from_millis(*rng.pick(&[0, 50, 50])),
            shrink_delay: seconds(rng, &[0, 1, 30, 30]),
            min_eni_age: seconds(rng, &[0, 10, 60, 60]),
            leak_age: None,
        },
    }
}

/// IPv4 as `v4` says, with IPv6 beside it if pods are dual stack.
pub(super) fn families(v4: FamilyPolicy, dual: Option<Needs>) -> Families {
    match dual {
        Some(needs) => Families::dual(v4, needs),
        None => Families::single(v4),
    }
}

/// What a dual-stack pod needs to start; `None` for IPv4 alone.
pub(super) fn dual(rng: &mut Rng) -> Option<Needs> {
    *rng.pick(&[None, Some(Needs::Each), Some(Needs::Each), Some(Needs::Any)])
}

pub(super) fn warm_settings(rng: &mut Rng) -> WarmSettings {
    WarmSettings {
        warm_eni: *rng.pick(&[0, 1, 1, 2]),
        warm_ip: *rng.pick(&[0, 0, 0, 1, 2, 5, 40]),
        minimum_ip: *rng.pick(&[0, 0, 0, 3, 8, 100]),
        warm_prefix: *rng.pick(&[0, 1, 1, 2]),
    }
}

pub(super) fn max_enis(rng: &mut Rng) -> Option<u16> {
    *rng.pick(&[None, None, None, Some(1), Some(2), Some(100)])
}

pub(super) fn cooldown(rng: &mut Rng) -> Duration {
    Duration::from_secs(*rng.pick(&[0, 5, 30, 30]))
}

fn vpc(rng: &mut Rng) -> VpcSpec {
    let net = |host, length| {
        Ipv4Net::new(Ipv4Addr::new(10, 0, host, 0), length).expect("the lengths are at most 28")
    };
    let mut subnets = match rng.index(5) {
        0 => vec![Subnet::for_nodes(net(0, 26))],
        1 => vec![Subnet::for_nodes(net(0, 27))],
        2 => vec![Subnet::fragmented(net(0, 25), 2 + rng.index(40))],
        _ => vec![Subnet::for_nodes(net(0, 23))],
    };
    if rng.one_in(4) {
        let cidr = net(4, *rng.pick(&[24, 27]));
        subnets.push(Subnet { cidr, used: Vec::new(), purpose: Purpose::Pods });
    }
    let late = Consistency {
        hidden_permille: 300,
        hidden: Delay::between(100, 3_000),
        stale_permille: 300,
        stale: Delay::between(100, 5_000),
        ..Consistency::realistic()
    };
    VpcSpec {
        subnets,
        ipv6: true,
        throttling: if rng.one_in(8) { Throttling::Documented } else { Throttling::Off },
        latency: if rng.one_in(4) { Latency::default() } else { Latency::realistic() },
        consistency: rng.pick(&[Consistency::default(), Consistency::realistic(), late]).clone(),
        address_choice: *rng.pick(&[AddressChoice::Random, AddressChoice::LowestFirst]),
    }
}
