//! What the world is before the first step.

use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_model::Delay;
use ec2_model::config::{AddressChoice, Consistency, Latency, Throttling};
use ipam::policy::{Mode, Policy, Targets, WarmSettings};
use ipnet::Ipv4Net;
use lab::chance::Chance;
use lab::world::{Purpose, Subnet, World};

use super::metadata::Lie;

/// Tells this stream from the others of the same seed.
const STREAM: u64 = 11;

/// The world before the first step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    /// In one account, from one subnet.
    pub(super) n_nodes: usize,
    /// For example `t3.small`.
    pub(super) instance_type: &'static str,
    /// ENIs, and addresses on each, that the daemons believe in beyond what there is.
    pub(super) illusion: (u16, u16),
    /// What the user wants.
    pub(super) policy: Policy,
    /// Whether each node also has an ENI that is somebody else's.
    pub(super) strangers: bool,
    /// How the nodes' metadata services are wrong.
    pub(super) metadata: Lie,
    /// EC2 and the subnets.
    pub(super) world: World,
}

impl Setting {
    pub(super) fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed, STREAM);
        let n_nodes = *chance.pick(&[1, 1, 1, 1, 2, 2, 3]);
        let instance_type =
            *chance.pick(&["t3.small", "t3.small", "t3.small", "t3.nano", "m5.large"]);
        let illusion = *chance.pick(&[(0, 0), (0, 0), (0, 0), (1, 0), (0, 2), (2, 3)]);
        let strangers = chance.one_in(6);
        let (policy, world) = (policy(&mut chance), world(&mut chance));
        let metadata = Lie::of(seed);
        Self { n_nodes, instance_type, illusion, policy, strangers, metadata, world }
    }
}

fn policy(chance: &mut Chance) -> Policy {
    let mode = *chance.pick(&[Mode::SecondaryIp, Mode::Prefix]);
    let warm = WarmSettings {
        warm_eni: *chance.pick(&[0, 1, 1, 2]),
        warm_ip: *chance.pick(&[0, 0, 0, 1, 2, 5, 40]),
        minimum_ip: *chance.pick(&[0, 0, 0, 3, 8, 100]),
        warm_prefix: *chance.pick(&[0, 1, 1, 2]),
    };
    let seconds = |chance: &mut Chance, among: &[u64]| Duration::from_secs(*chance.pick(among));
    Policy {
        mode,
        targets: Targets::resolve(mode, warm),
        max_enis: *chance.pick(&[None, None, None, Some(1), Some(2), Some(100)]),
        max_pods: *chance.pick(&[1, 4, 11, 29, 110]),
        cooldown: seconds(chance, &[0, 5, 30, 30]),
        add_wait: seconds(chance, &[5, 10, 60]),
        grow_delay: Duration::from_millis(*chance.pick(&[0, 50, 50])),
        shrink_delay: seconds(chance, &[0, 1, 30, 30]),
        min_eni_age: seconds(chance, &[0, 10, 60, 60]),
        leak_age: None,
    }
}

fn world(chance: &mut Chance) -> World {
    let net = |host, length| {
        Ipv4Net::new(Ipv4Addr::new(10, 0, host, 0), length).expect("the lengths are at most 28")
    };
    let mut subnets = match chance.index(5) {
        0 => vec![Subnet::for_nodes(net(0, 26))],
        1 => vec![Subnet::for_nodes(net(0, 27))],
        2 => vec![Subnet::fragmented(net(0, 25), 2 + chance.index(40))],
        _ => vec![Subnet::for_nodes(net(0, 23))],
    };
    if chance.one_in(4) {
        let cidr = net(4, *chance.pick(&[24, 27]));
        subnets.push(Subnet { cidr, used: Vec::new(), purpose: Purpose::Pods });
    }
    let late = Consistency {
        hidden_permille: 300,
        hidden: Delay::between(100, 3_000),
        stale_permille: 300,
        stale: Delay::between(100, 5_000),
        ..Consistency::realistic()
    };
    World {
        subnets,
        throttling: if chance.one_in(8) { Throttling::Documented } else { Throttling::Off },
        latency: if chance.one_in(4) { Latency::default() } else { Latency::realistic() },
        consistency: chance.pick(&[Consistency::default(), Consistency::realistic(), late]).clone(),
        address_choice: *chance.pick(&[AddressChoice::Random, AddressChoice::LowestFirst]),
    }
}
